"""The paper's claims, each with the measure, the statistic and the rule that judge it.

Everything here was fixed before any data were seen. A rule changed afterwards would be a new claim.

A claim is judged under one of three protocols, because the ratio η/S is also the speed of the clock: at
equal epochs the integrated training time T = Σ η is proportional to η/S, and noise-free gradient descent
predicts much of what noise would do. "equal epochs" is the paper's own protocol, "equal clock" gives
every run the same T, "equal loss" stops each at the same training loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import nct

from threefactors.inference.decisions import Equivalent, Estimated, Greater, Less, Rule
from threefactors.inference.estimates import SeedMean, t_quantile
from threefactors.inference.slopes import Unmeasurable, loglog_slopes, slope_on_ratio

PROTOCOLS = ("equal epochs", "equal clock", "equal loss")

PAPER = "as the paper reports (arXiv 1711.04623)"


@dataclass(frozen=True)
class Claim:
    """A statement with the test that judges it.

    ``statistic`` maps a table and the name of a measure to an estimate, ``quantity`` says in words what it
    is; ``rule`` must hold for every one of ``measures``. ``level`` is the significance level; fewer than
    ``min_seeds`` seeds, or a share of lost runs above ``max_lost``, leaves the claim VOID.
    Without a ``protocol`` a claim cannot be judged: bind it with ``at``.
    """

    id: str
    statement: str
    source: str
    prediction: str
    measures: tuple[str, ...]
    quantity: str
    statistic: Callable[[pd.DataFrame, str], Estimated]
    rule: Rule
    protocol: str = ""
    arm: str = ""
    level: float = 0.05
    min_seeds: int = 5
    max_lost: float = 0.1

    def __post_init__(self) -> None:
        if self.protocol and self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
        if not 0 < self.level < 0.5:
            raise ValueError(f"level={self.level} is no significance level; use 0 < level < 0.5, such as 0.05")
        if self.min_seeds < 2:
            raise ValueError(f"min_seeds={self.min_seeds} gives no interval over seeds; use min_seeds >= 2")
        if not self.measures:
            raise ValueError("measures=() leaves nothing to judge; name at least one column")

    def at(self, protocol: str, arm: str = "") -> Claim:
        """The claim under one of PROTOCOLS, and in the named arm of the experiment (free text).

        Errors: ValueError for an unknown protocol.
        """
        if not protocol:
            raise ValueError(f"protocol={protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
        return replace(self, protocol=protocol, arm=arm)


def asymmetry(table: pd.DataFrame, measure: str) -> Estimated:
    """q = (a + b)/(a − b) for measure ∝ lr^a · batch_size^b."""
    return loglog_slopes(table, measure).asymmetry


def points_per_tenfold_ratio(table: pd.DataFrame, measure: str) -> Estimated:
    """Slope of an accuracy in [0, 1] on log₁₀ ratio, in percentage points per tenfold ratio."""
    if (table[measure] > 1).any():
        raise Unmeasurable(f"{measure}={table[measure].max():.3g} exceeds 1; give accuracies as fractions in [0, 1]")
    return SeedMean(100 * slope_on_ratio(table, measure, log=False).per_seed)


# Larger λ_max, Tr H and ‖H‖_F all mean a narrower minimum. The paper's word "wider" names no single one,
# so the slope must be negative for all three (an intersection–union test: no correction is needed to
# support, each test at full level); one that is positive suffices to refute, for which the three looks
# are paid for by Bonferroni. No margin: the claim gives a direction and not a size.
C3a = Claim(
    id="C3a",
    statement="A higher ratio η/S gives a wider minimum",
    source=PAPER,
    prediction="λ_max, Tr H and ‖H‖_F at the end of training fall with η/S",
    measures=("sharpness", "trace", "frobenius"),
    quantity="slope of log {measure} on log η/S",
    statistic=slope_on_ratio,
    rule=Less(0.0),
)

# Width ∝ η^a S^b depends on the ratio alone iff a = −b. The asymmetry q = (a + b)/(a − b) measures the
# departure on a scale that does not depend on how strong the effect is: 0 for the ratio, +1 if only η
# matters, −1 if only S does. No experiment can show q = 0 exactly, so a margin has to say what counts as
# "only through the ratio". A quarter: the sum of the exponents is at most a quarter of their difference,
# |b|/|a| between 3:5 and 5:3. It excludes the rivals η/√S (q = +1/3) and η/S² (q = −1/3), and is loose
# enough for the finite-η and finite-N corrections that the theory itself expects. Where a − b is not
# told from 0 there is no dependence on the ratio to attribute, and the claim stays UNDECIDED.
C3b = Claim(
    id="C3b",
    statement="The width of the minimum depends on η and S only through η/S",
    source=PAPER,
    prediction="the exponents of η and S in λ_max, Tr H and ‖H‖_F are opposite: |a + b| < |a − b|/4",
    measures=("sharpness", "trace", "frobenius"),
    quantity="asymmetry (a+b)/(a-b) of the exponents of η and S in {measure}",
    statistic=asymmetry,
    rule=Equivalent(0.25),
)

# Rescaling weights before a normalization layer, or between ReLU layers, changes λ_max without changing
# the function (Dinh et al. 2017, arXiv 1703.04933); these two measures undo it, each in another way,
# and so both have to agree. This claim is stronger than the paper's own.
C3c = Claim(
    id="C3c",
    statement="A higher ratio η/S gives a wider minimum, also by scale-invariant measures",
    source="the paper's claim (arXiv 1711.04623), by measures which rescaling the weights cannot change",
    prediction="‖w‖²λ_max and adaptive sharpness fall with η/S",
    measures=("normalized_sharpness", "adaptive_sharpness"),
    quantity="slope of log {measure} on log η/S",
    statistic=slope_on_ratio,
    rule=Less(0.0),
)

# The paper says "often": a trend over the grid, not an order between any two runs.
C4 = Claim(
    id="C4",
    statement="A higher ratio η/S often gives a better validation accuracy",
    source=PAPER,
    prediction="validation accuracy rises with η/S",
    measures=("validation_accuracy",),
    quantity="slope of {measure}, in percentage points per tenfold η/S,",
    statistic=points_per_tenfold_ratio,
    rule=Greater(0.0),
)

CLAIMS: dict[str, Claim] = {claim.id: claim for claim in (C3a, C3b, C3c, C4)}


def required_effect(claim: Claim, n_seeds: int, sd: float, power: float = 0.8) -> float:
    """Smallest distance from the bound at which a directional claim is SUPPORTED with at least this power.

    δ with P(t₍n−1₎(δ√n/sd) > t quantile) = 1 − (1 − power)/k, noncentral t, k measures: by Bonferroni
    all k are then found with at least ``power``.

    ``sd`` is the standard deviation over seeds of the claim's statistic, in its unit; the result has the
    same unit. State it beside an UNDECIDED verdict: it says what the experiment could have seen.
    Errors: ValueError for an equivalence claim, fewer than 2 seeds, sd ≤ 0, or power outside (level, 1).
    """
    if not isinstance(claim.rule, (Greater, Less)):
        raise ValueError(f"claim {claim.id} has the rule {claim.rule}, which needs closeness; use Greater or Less")
    if n_seeds < 2 or not sd > 0 or not claim.level < power < 1:
        raise ValueError(
            f"n_seeds={n_seeds}, sd={sd}, power={power}: use n_seeds >= 2, sd > 0 and {claim.level} < power < 1"
        )
    critical = t_quantile(1 - claim.level, n_seeds)
    each = 1 - (1 - power) / len(claim.measures)

    def shortfall(noncentrality: float) -> float:
        return nct.sf(critical, n_seeds - 1, noncentrality) - each

    upper = 2 * critical
    while shortfall(upper) < 0:
        upper *= 2
    return float(brentq(shortfall, 0.0, upper) * sd / np.sqrt(n_seeds))
