"""Depth against width, escape, and noise that is not isotropic: claim C14."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, SlopeIs
from threefactors.inference.estimates import SeedMean
from threefactors.inference.laws import mean, relative_error
from threefactors.inference.slopes import Unmeasurable, log_measure, slopes_per_seed, usable

THEORY = "Boltzmann's law for SGD with isotropic noise (arXiv 1711.04623)"


def difference(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean over seeds of measure − predicted_<measure>: for logarithms, where a relative error has no meaning."""
    return mean(table.assign(**{measure: table[measure] - table[f"predicted_{measure}"]}), measure)


@dataclass(frozen=True)
class FlipError:
    """Relative error of the place on ``column`` where a measure changes its sign.

    The place is where a straight line through the measure crosses 0, for each seed; the prediction goes the same way.
    """

    column: str

    def __call__(self, table: pd.DataFrame, measure: str) -> SeedMean:
        flips = [self._flips(table, name) for name in (measure, f"predicted_{measure}")]
        return SeedMean(flips[0] / flips[1] - 1)

    def _flips(self, table: pd.DataFrame, measure: str) -> np.ndarray:
        y = table.pivot(index="seed", columns=self.column, values=measure).dropna()
        x = y.columns.to_numpy(float)
        if len(y) < 2 or len(x) < 2:
            raise Unmeasurable(f"{len(y)} seeds with {len(x)} values of {self.column} give no flip; use 2 of each")
        slope = y.to_numpy() @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            place = x.mean() - y.to_numpy().mean(axis=1) / slope
        if not np.isfinite(place).all():
            raise Unmeasurable(
                f"{measure} does not change with {self.column} in every seed, and never changes its sign"
            )
        return place


@dataclass(frozen=True)
class LogSlope:
    """Slope of log measure on a column as it is, fitted for each seed: the rate of an exponential."""

    column: str

    def __call__(self, table: pd.DataFrame, measure: str) -> SeedMean:
        good = usable(table, self.column, measure)
        x, y = table[self.column].to_numpy(float)[good], log_measure(table, measure, good)
        slopes = slopes_per_seed(table["seed"].to_numpy()[good], [x], y)
        if len(slopes) < 2:
            raise Unmeasurable(f"{len(slopes)} seeds identify the slope of {measure} on {self.column}; use at least 2")
        return SeedMean(slopes[:, 0])


# The log-odds of two minima pass through 0 where the preference flips, so that their error is taken as it is. 0.15 is
# a sixth of the odds. Finite steps shift them by (η/4)(Tr H_A − Tr H_B), to be kept below 0.05 by the design. Leaving
# the determinants out moves them by ½ ln(det H_A/det H_B), about 1 or more in these landscapes; a factor of 2 in the
# temperature, by a fifth to one.
C14a = Claim(
    id="C14a",
    statement="Two minima are occupied as Boltzmann's law with temperature nσ²/2 says",
    source=THEORY,
    prediction="ln(p_A/p_B) from exp(−2L/(nσ²)), within 0.15 at each batch size",
    measures=("log_odds",),
    quantity="error of {measure}",
    statistic=difference,
    rule=Equivalent(0.15),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_log_odds",),
)

# At the flip the terms of depth and width cancel, and the batch size where they do is what a reader can use. 15 %: the
# effect of finite steps on the log-odds, 0.05, divided by their slope along the batch sizes of the design, is a
# few percent. A factor of 2 in the temperature moves the flip by a factor of 2.
C14b = Claim(
    id="C14b",
    statement="More noise makes the wider minimum the likelier one, from the predicted noise scale on",
    source=THEORY,
    prediction="the batch size at which ln(p_A/p_B) = 0, within 15 %",
    measures=("log_odds",),
    quantity="relative error of the batch size where {measure} changes sign",
    statistic=FlipError("batch_size"),
    rule=Equivalent(0.15),
    axes=("batch_size",),
    needs=("predicted_log_odds",),
)

# The exact mean first-passage time is a law of the diffusion; steps of ηλ near 0.1 change it by a few percent. With
# some hundreds of trajectories a seed, 10 % is within reach, and a factor of 2 anywhere is far outside.
C14c = Claim(
    id="C14c",
    statement="The mean escape time is that of the backward Kolmogorov equation",
    source="Kramers (1940), doi:10.1016/S0031-8914(40)90098-2, for SGD with isotropic noise",
    prediction="mean first-passage time by quadrature, within 10 % at each batch size",
    measures=("escape_time",),
    quantity="relative error of {measure}",
    statistic=relative_error,
    rule=Equivalent(0.1),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_escape_time",),
)

# Kramers' law is asymptotic: at barriers of 2 to 4 temperatures the exact slope still falls short of 1 by some percent,
# so that 10 % is asked for and not less. The rival, a temperature of nσ² instead of nσ²/2, has the slope ½.
C14d = Claim(
    id="C14d",
    statement="Escape times grow exponentially with the barrier over the temperature nσ²/2",
    source="Kramers (1940), doi:10.1016/S0031-8914(40)90098-2, for SGD with isotropic noise",
    prediction="slope 1 of ln τ on 2ΔL/(nσ²), within 0.1",
    measures=("escape_time",),
    quantity="slope of log {measure} on 2ΔL/(nσ²)",
    statistic=LogSlope("barrier"),
    rule=SlopeIs(1.0, 0.1),
    axes=("batch_size",),
    needs=("barrier",),
)

# The same rule as for C14a, so that the two laws meet the same demand on the same data.
C14e = Claim(
    id="C14e",
    statement="With noise that depends on the place, minima are occupied as (1/C) exp(−(2/n)∫L′/C) says",
    source="stationary Fokker–Planck equation in the sense of Itô, one dimension",
    prediction="ln(p_A/p_B) by quadrature, within 0.15 at each batch size",
    measures=("log_odds",),
    quantity="error of {measure}",
    statistic=difference,
    rule=Equivalent(0.15),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_log_odds",),
)

# Under detailed balance the circulation is 0, a relative error of −1. Finite steps change it by about ηλ.
C14f = Claim(
    id="C14f",
    statement="Noise that does not commute with the Hessian makes probability circulate at the predicted rate",
    source="stationary Fokker–Planck equation of the Ornstein–Uhlenbeck process; arXiv 1710.11029",
    prediction="E[θ₁ dθ₂ − θ₂ dθ₁]/dt from HΣ + ΣH = nC, within 10 % at each batch size",
    measures=("circulation",),
    quantity="relative error of {measure}",
    statistic=relative_error,
    rule=Equivalent(0.1),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_circulation",),
)
