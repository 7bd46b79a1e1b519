"""Where a curve over β leaves its plateau, seed by seed, and how to reason with breaks that were not seen.

A run that diverged is a score like any other, the worst. A curve that stays on its plateau to its last point has no
breaking β, only a lower bound; one that is below it from the start has an upper bound. Such *censored* values enter a
mean twice, as the least and as the largest that they can be: what is said to lie above a bound is tested on the least,
what is said to lie below on the largest (worst-case bounds; Manski 2003, doi:10.1007/b97478). A missing bound costs
power and never makes a claim true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from threefactors.inference.estimates import Floats, Interval, SeedMean
from threefactors.inference.slopes import Unmeasurable
from threefactors.theory.validity import finite_set_batch, signal_batch, stability_scale

COLUMNS = ("breaking", "breaking_low", "breaking_high")


@dataclass(frozen=True, eq=False)
class BoundedMean:
    """Mean over seeds of values that are each known to lie between two limits; equal limits: it is known.

    ``per_seed`` (n,) holds a representative value, ``low`` and ``high`` (n,) the limits, −∞ and ∞ where there is none.
    With low = high everything is as in ``SeedMean``.
    """

    per_seed: Floats
    low: Floats
    high: Floats

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.per_seed)

    @property
    def value(self) -> float:
        """Mean of the representative values: a censored one counts with its bound."""
        return float(np.mean(self.per_seed))

    def interval(self, level: float = 0.95) -> Interval:
        """From the lower limit for the mean of the least values to the upper limit for that of the largest."""
        low = SeedMean(self.low).interval(level).low if np.isfinite(self.low).all() else -np.inf
        high = SeedMean(self.high).interval(level).high if np.isfinite(self.high).all() else np.inf
        return Interval(self.value, low, high, level, self.n)

    def p_below(self, bound: float) -> float:
        """One-sided p-value for the mean lying below ``bound``, were every value as large as it can be."""
        return SeedMean(self.high).p_below(bound) if np.isfinite(self.high).all() else 1.0

    def p_above(self, bound: float) -> float:
        """One-sided p-value for the mean lying above ``bound``, were every value as small as it can be."""
        return SeedMean(self.low).p_above(bound) if np.isfinite(self.low).all() else 1.0

    def undefined(self, level: float) -> str:
        """A mean between bounds has always a meaning."""
        return ""


def scored(table: pd.DataFrame, protocol: str, *, chance: float, at_most: float) -> pd.DataFrame:
    """The table with a ``score`` for every run, lost ones included, the larger the better, and the ``worst`` there is.

    "equal epochs" and "equal clock": the validation accuracy, of chance where a run diverged. "equal loss": minus ln of
    the clock that it took to come to the loss, of ``at_most`` where a run diverged or did not come to it.
    """
    if protocol == "equal loss":
        came = table["finished"].astype(bool) & ~table["diverged"].astype(bool)
        return table.assign(score=-np.log(table["clock"].where(came, at_most)), worst=-np.log(at_most))
    return table.assign(score=table["validation_accuracy"].where(~table["diverged"].astype(bool), chance), worst=chance)


def breaks(table: pd.DataFrame, held: str, *, fall: float, plateau: int, x: str = "beta") -> pd.DataFrame:
    """``breaking_points`` of every training-set size and ratio of a scored table, ready to be judged.

    held: the column that the protocol holds equal; its median over the runs of a curve that were not lost is kept (a
    clock ends with a whole step, and beyond the break a step can be a large part of it). The judge is told of no lost
    runs: a lost run has been given its score, and a break is not lost for being unseen.
    """
    curve = ["train_size", "ratio"]
    found = breaking_points(table, "score", by=curve, fall=fall, x=x, plateau=plateau)
    kept = table[table["finished"].astype(bool) & ~table["diverged"].astype(bool)]
    equal = kept.groupby([*curve, "seed"])[held].median().reset_index()
    return found.merge(equal, how="left").assign(diverged=False, finished=True)


def breaking_points(
    table: pd.DataFrame, score: str, *, by: Sequence[str], fall: float, x: str = "beta", plateau: int = 3
) -> pd.DataFrame:
    """For each seed and curve, the x at which the score falls below its plateau by ``fall``.

    The plateau is the mean score of the first ``plateau`` points. The break is the first crossing of plateau − fall,
    interpolated on ln x between two neighboring points of the grid.

    table: a row a run, with ``seed``, the columns ``by`` that tell curves apart, x > 0 and a finite ``score``, the
    larger the better: lost runs must have been given the worst score there is, not be left out. With a column
    ``worst``, a plateau that is less than ``fall`` above it could not be seen to break, and tells nothing.
    One row for each curve and seed: ``by``, ``seed``, ``breaking``, ``breaking_low``, ``breaking_high`` (equal if it
    was seen; if not, 0 and the first x, the last x and ∞, or 0 and ∞) and ``censored`` (0 if it was seen; −1, 1, 2).
    Errors: ValueError for a score that is not finite, fall ≤ 0, or a curve that is no longer than its plateau.
    """
    if not fall > 0:
        raise ValueError(f"fall={fall} would break a curve at once; use fall > 0")
    if not np.isfinite(table[score].to_numpy(float)).all():
        raise ValueError(f"{score} is missing in some rows; give lost runs the worst score there is, do not drop them")
    rows = []
    for key, curve in table.groupby([*by, "seed"], sort=True):
        curve = curve.sort_values(x)
        if len(curve) <= plateau:
            raise ValueError(f"a curve of {len(curve)} points at {key} is all plateau; use more than {plateau}")
        where = dict(zip([*by, "seed"], key, strict=True))
        worst = float(curve["worst"].iloc[0]) if "worst" in curve else -np.inf
        found = _crossing(np.log(curve[x].to_numpy(float)), curve[score].to_numpy(float), worst, fall, plateau)
        rows.append(where | found)
    return pd.DataFrame(rows)


def _crossing(log_x: Floats, y: Floats, worst: float, fall: float, plateau: int) -> dict[str, float]:
    threshold = y[:plateau].mean() - fall
    if threshold <= worst:
        middle = float(np.exp(log_x.mean()))
        return dict(zip(COLUMNS, (middle, 0.0, np.inf), strict=True)) | {"censored": 2}
    below = np.flatnonzero(y < threshold)
    if len(below) == 0:
        last = float(np.exp(log_x[-1]))
        return dict(zip(COLUMNS, (last, last, np.inf), strict=True)) | {"censored": 1}
    k = int(below[0])
    if k == 0:
        first = float(np.exp(log_x[0]))
        return dict(zip(COLUMNS, (first, 0.0, first), strict=True)) | {"censored": -1}
    share = (y[k - 1] - threshold) / (y[k - 1] - y[k])
    at = float(np.exp(log_x[k - 1] + share * (log_x[k] - log_x[k - 1])))
    return dict.fromkeys(COLUMNS, at) | {"censored": 0}


def _logs(table: pd.DataFrame, measure: str) -> tuple[Floats, Floats, Floats]:
    names = (measure, f"{measure}_low", f"{measure}_high")
    with np.errstate(divide="ignore"):  # ln 0 is the missing lower bound
        value, low, high = (np.log(table[name].to_numpy(float)) for name in names)
    return value, low, high


def _per_seed(table: pd.DataFrame, values: tuple[Floats, Floats, Floats]) -> BoundedMean:
    """Mean of the rows of each seed."""
    seeds = table["seed"].to_numpy()
    value, low, high = (np.asarray(pd.Series(v).groupby(seeds).mean(), dtype=np.float64) for v in values)
    if len(value) < 2:
        raise Unmeasurable(f"{len(value)} seed gives no interval; use at least 2")
    return BoundedMean(value, low, high)


@dataclass(frozen=True)
class BoundedSlope:
    """Slope of ln measure on the ln of a column, seed by seed: an exponent, with bounds where values are censored.

    On the full grid that a claim asks for, the slope on one axis is Σ w y with w ∝ ln x − mean, whatever the other
    axes; a value enters the least slope with its low limit where w > 0 and with its high one where w < 0.
    """

    column: str

    def __call__(self, table: pd.DataFrame, measure: str) -> BoundedMean:
        """Errors: Unmeasurable where a seed has a single value of the column."""
        x = np.log(table[self.column].to_numpy(float))
        group = table["seed"].to_numpy()
        centered = x - pd.Series(x).groupby(group).transform("mean").to_numpy()
        squares = pd.Series(centered**2).groupby(group).transform("sum").to_numpy()
        if not (squares > 1e-9).all():
            raise Unmeasurable(f"a seed has one value of {self.column} only, and there is no slope on it")
        weights = np.where(np.abs(centered) > 1e-9, centered / squares, 0.0)
        value, low, high = _logs(table, measure)

        def total(of_positive: Floats, of_negative: Floats) -> Floats:
            chosen = np.where(weights > 0, of_positive, np.where(weights < 0, of_negative, 0.0))
            return pd.Series(weights * chosen).groupby(group).sum().to_numpy()

        return BoundedMean(total(value, value), total(low, high), total(high, low))


def log_ratio(table: pd.DataFrame, measure: str) -> BoundedMean:
    """Mean over seeds of ln(measure/predicted), both with bounds; rows of one seed are averaged first.

    Needs ``measure`` and ``predicted_measure``, each also with _low and _high. 0 is agreement, ln 2 a factor of 2.
    """
    (value, low, high), (p, p_low, p_high) = _logs(table, measure), _logs(table, f"predicted_{measure}")
    return _per_seed(table, (value - p, low - p_high, high - p_low))


def predictions(path: pd.DataFrame, base: int) -> pd.DataFrame:
    """The breaking β that each condition predicts, from what was measured along runs of β = 1.

    path: a row for each run and look, from the initialization on: ``train_size``, ``ratio``, ``lr``, ``seed``,
    ``at_clock``, ``sharpness``, and ``noise_trace`` and ``gradient_squared`` where they are known; base: S_0.
    Columns: train_size, ratio, seed, condition, predicted_breaking (with _low and _high, the same). Conditions:
    ``path``: ηλ = 2 with the largest λ along the path; ``end``: with the last one; ``noise to signal``: S at which
    ∫ S‖∇L‖² dT = ∫ Tr C dT; ``finite set``: S that leaves half of the noise.
    """
    rows = []
    for _, run in path.groupby(["train_size", "ratio", "seed"], sort=True):
        run = run.sort_values("at_clock")
        where = {name: run[name].iloc[0] for name in ("train_size", "ratio", "seed")}
        lr, clock = float(run["lr"].iloc[0]), run["at_clock"].to_numpy(float)
        found = {
            "path": float(stability_scale(run["sharpness"].max(), lr)),
            "end": float(stability_scale(run["sharpness"].iloc[-1], lr)),
            "finite set": finite_set_batch(int(where["train_size"])) / base,
        }
        if {"noise_trace", "gradient_squared"} <= set(run.columns):
            noise, signal = (trapezoid(run[name], clock) for name in ("noise_trace", "gradient_squared"))
            found["noise to signal"] = float(signal_batch(noise, signal)) / base
        rows += [where | {"condition": name, "predicted_breaking": beta} for name, beta in found.items()]
    table = pd.DataFrame(rows)
    return table.assign(**{f"predicted_breaking_{end}": table["predicted_breaking"] for end in ("low", "high")})
