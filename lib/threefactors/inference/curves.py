"""Pairs of learning curves: how far apart they are at each epoch, at each clock, at each training loss.

A curve is a table with one row for each seed and look: ``seed``, ``epoch``, ``at_clock`` and the measures. Two curves
are compared seed by seed, since runs of one seed share their initialization and the order of their data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors.inference.crossings import first_reach
from threefactors.inference.estimates import Floats, Interval, bootstrap_interval, seed_counts
from threefactors.inference.slopes import Unmeasurable
from threefactors.inference.summaries import summarize

# Half-widths of the bands within which two curves count as one. A loss is compared as a ratio: equal η/√S with a
# batch β = 4 times as large runs its clock at half the speed, and where the loss falls like 1/T its curve is a factor
# 2 higher. Half way there, a factor √2, is where overlapping ends. The curvature falls with the loss and has the same
# band. Accuracies have two points, what the width of a line hides on an axis from 0 to 100.
BANDS = {
    "train_loss": np.log(2) / 2,
    "trace": np.log(2) / 2,
    "train_accuracy": 0.02,
    "validation_accuracy": 0.02,
}
RESAMPLES = 2000
LOGARITHMIC = ("train_loss", "trace")
CURVES = ("train_loss", "train_accuracy", "validation_accuracy")
AT_LOSS = ("validation_accuracy", "trace")
# What each protocol compares at: the column of the curve, and that of the table which ``judge`` finds equal.
AT = {"equal epochs": ("epoch", "epochs"), "equal clock": ("at_clock", "clock"), "equal loss": ("train_loss",) * 2}


def points(last: float, count: int = 12, leave_out: int = 1) -> Floats:
    """Equally spaced points of comparison on (0, last], without the first ``leave_out`` of ``count``.

    Errors: ValueError for last ≤ 0, or fewer than two points left.
    """
    if not last > 0 or not 0 <= leave_out <= count - 2:
        raise ValueError(
            f"last={last}, count={count}, leave_out={leave_out}: use last > 0 and leave two points or more"
        )
    return last * np.arange(leave_out + 1, count + 1) / count


def crossing(x: Floats, loss: Floats, levels: Floats) -> Floats:
    """Where a curve first comes down to each level, linear in log loss between two looks; NaN where it does not.

    x (T,) ascending, loss (T,) > 0, levels (K,). A curve that starts below a level never comes down to it.
    """
    return np.array([first_reach(x, -np.log(loss), -level) for level in np.log(levels)])


def read(curve: pd.DataFrame, protocol: str, at: Sequence[float] | Floats, measures: Sequence[str]) -> pd.DataFrame:
    """The measures of each seed at the given epochs, clocks or training losses, by interpolation between two looks.

    Losses and traces are interpolated by their logarithm, and given as logarithms. One row for each seed and point:
    ``seed``, ``point`` and the measures, NaN beyond a curve's end. Looks without a measure are passed over, and those
    at which an estimated trace came out negative.
    Errors: ValueError for an unknown protocol or a measure without a band; KeyError for a column that is not there.
    """
    column, _ = _column(protocol)
    for measure in measures:
        if measure not in BANDS:
            raise ValueError(f"measure={measure!r} has no band; use one of {', '.join(BANDS)}")
    wanted = np.asarray(at, dtype=float)
    rows = []
    for seed, looks in curve.groupby("seed"):
        looks = looks.sort_values("epoch")
        epoch = looks["epoch"].to_numpy(float)
        if protocol == "equal loss":
            when = crossing(epoch, looks["train_loss"].to_numpy(float), wanted)
        else:
            when = _between(wanted, looks[column].to_numpy(float), epoch)
        row: dict[str, object] = {"seed": seed, "point": wanted}
        for measure in measures:
            y = looks[measure].to_numpy(float)
            if measure in LOGARITHMIC:
                y = np.log(np.where(y > 0, y, np.nan))
            row[measure] = _between(when, epoch[np.isfinite(y)], y[np.isfinite(y)])
        rows.append(pd.DataFrame(row))
    return pd.concat(rows, ignore_index=True)


def gaps(
    first: pd.DataFrame,
    second: pd.DataFrame,
    protocol: str,
    at: Sequence[float] | Floats | None = None,
    *,
    measures: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Second curve minus first, in half-widths of the band: a table for ``judge``, one row for each seed and point.

    at: epochs, clocks or training losses, as the protocol asks for (none given: ``points`` up to the last epoch or
    clock that both have reached; losses have to be given). measures: by default training loss and accuracies; at equal
    loss validation accuracy and Tr H.
    ``seed``, ``point``, ``<measure>_gap``; what the protocol holds equal (``epochs``, ``clock`` or ``train_loss``);
    ``diverged`` where one of the two runs did (the curves may have that column), ``finished`` where both reach the
    point. A seed that only one of them has keeps its rows, unfinished.
    """
    column, held = _column(protocol)
    if at is None:
        if protocol == "equal loss":
            raise ValueError("at=None names no training loss; give the losses at which to compare, such as [0.5, 0.1]")
        at = points(float(min(first[column].max(), second[column].max())))
    measures = measures or (CURVES if protocol != "equal loss" else AT_LOSS)
    parts = [read(curve, protocol, at, measures).set_index(["seed", "point"]) for curve in (first, second)]
    every = pd.MultiIndex.from_product([sorted({*first["seed"], *second["seed"]}), np.asarray(at, float)])
    one, other = (part.reindex(every.set_names(["seed", "point"])) for part in parts)
    table = pd.DataFrame({f"{m}_gap": (other[m] - one[m]) / BANDS[m] for m in measures}).reset_index()
    lost = {seed for curve in (first, second) if "diverged" in curve for seed in curve["seed"][curve["diverged"]]}
    diverged = table["seed"].isin(lost).to_numpy()
    whole = np.isfinite(table[[f"{m}_gap" for m in measures]].to_numpy(float)).all(axis=1)
    return table.assign(**{held: table["point"]}, diverged=diverged, finished=whole & ~diverged)


def averaged(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``gaps`` with one row a seed: means over the points, for claims about the curve as a whole.

    What the protocol holds equal is equal point by point; here its last value stands for it. A seed that lost a point
    is lost.
    """
    measures = [column for column in table if str(column).endswith("_gap")]
    held = [column for _, column in AT.values() if column in table]
    how = dict.fromkeys(measures, "mean") | dict.fromkeys(held, "max") | {"diverged": "any", "finished": "all"}
    return table.groupby("seed", as_index=False).agg(how)


def along(flow: pd.DataFrame, curve: pd.DataFrame, measures: Sequence[str] = ("train_loss",)) -> pd.DataFrame:
    """Noise-free flow carried through the clock of a curve: where it is when the curve has come to each of its epochs.

    Schedules set the clock and no chance does, so one seed's clock serves for all. Looks beyond the flow's end, or
    before its first, are left out.
    """
    clock = curve[curve["seed"] == curve["seed"].iloc[0]][["epoch", "at_clock"]].sort_values("epoch")
    there = read(flow, "equal clock", clock["at_clock"].to_numpy(), measures).rename(columns={"point": "at_clock"})
    for measure in set(measures) & set(LOGARITHMIC):
        there[measure] = np.exp(there[measure])
    return there.merge(clock, on="at_clock").dropna().reset_index(drop=True)


def drawn(
    curves: Mapping[str, pd.DataFrame], x: str, measure: str, flow: pd.DataFrame | None = None, level: float = 0.95
) -> pd.DataFrame:
    """What a figure shows of named curves: the mean over seeds at each look, with Student's t limits.

    ``curve``, ``x``, ``value``, ``low``, ``high``, ``noise``; losses and traces with geometric means. With a flow, each
    curve is followed by that flow along its own clock, with ``noise`` False; against the clock (x="at_clock") all
    have the same one, which then is named "".
    """
    parts = []
    for name, curve in curves.items():
        looks = curve[(curve["epoch"] > 0) & curve[measure].notna()]
        parts.append(_mean_curve(looks, x, measure, level).assign(curve=name, noise=True))
        if flow is not None and x != "at_clock":
            same = along(flow, looks, (measure,))
            parts += [_mean_curve(same, x, measure, level).assign(curve=name, noise=False)] if len(same) else []
    if flow is not None and x == "at_clock":
        longest = max(curves.values(), key=lambda c: c["at_clock"].max())
        parts.append(_mean_curve(along(flow, longest, (measure,)), x, measure, level).assign(curve="", noise=False))
    return pd.concat(parts, ignore_index=True).rename(columns={x: "x"})


def _mean_curve(looks: pd.DataFrame, x: str, measure: str, level: float) -> pd.DataFrame:
    # the clock is a rounded sum: seeds agree on it to a rounding only
    rounded = looks.assign(**{x: looks[x].round(9)})
    return summarize(rounded, measure, by=[x], log=measure in LOGARITHMIC, level=level)


def distance(table: pd.DataFrame, measure: str = "train_loss") -> float:
    """Root mean square over points of the gap of the mean curves, in the measure's unit (log loss).

    At each point the squared mean over n seeds is larger than the square of what it estimates by var/n, which is
    taken off; a negative mean square counts as 0. Errors: Unmeasurable below two seeds that have every point.
    """
    gap = _by_seed(table, measure)
    return float(np.sqrt(max((gap.mean(0) ** 2 - gap.var(0, ddof=1) / len(gap)).mean(), 0.0)))


def distance_interval(table: pd.DataFrame, measure: str, generator: np.random.Generator) -> Interval:
    """``distance`` with its interval by resampling seeds, never below 0."""
    gap, value = _by_seed(table, measure), distance(table, measure)
    draws = _resampled_distance(gap, seed_counts(len(gap), RESAMPLES, generator))
    found = bootstrap_interval(value, draws, 0.95, len(gap))
    return replace(found, low=max(found.low, 0.0))


def clock_share(
    per_epoch: pd.DataFrame, per_clock: pd.DataFrame, measure: str, generator: np.random.Generator
) -> Interval:
    """The share of a pair's separation at equal epochs that is gone at equal clock: 1 − (D_clock/D_epoch)².

    1: the clock explains all of it; 0: none. Interval by resampling seeds, the same ones in both tables.
    Errors: Unmeasurable where the tables do not have the same number of whole seeds.
    """
    far, near = (_by_seed(table, measure) for table in (per_epoch, per_clock))
    if len(far) != len(near):
        raise Unmeasurable(f"{len(far)} and {len(near)} seeds have every point; use tables of the same runs")
    counts = seed_counts(len(far), RESAMPLES, generator)
    draws = 1 - (_resampled_distance(near, counts) / _resampled_distance(far, counts)) ** 2
    value = 1 - (distance(per_clock, measure) / distance(per_epoch, measure)) ** 2
    return bootstrap_interval(value, draws, 0.95, len(far))


def _by_seed(table: pd.DataFrame, measure: str) -> Floats:
    """(seeds, points) gaps in the measure's unit, of the seeds that have every point."""
    grid = table.assign(gap=table[f"{measure}_gap"].where(table["finished"])).pivot(
        index="seed", columns="point", values="gap"
    )
    whole: Floats = grid.dropna().to_numpy(float) * BANDS[measure]
    if len(whole) < 2:
        raise Unmeasurable(f"{len(whole)} seeds of {measure} have every point; use at least 2")
    return whole


def _resampled_distance(gap: Floats, counts: NDArray[np.int64]) -> Floats:
    """(resamples,) distances; the scatter is not taken off, which repeated seeds would get wrong."""
    means = counts @ gap / len(gap)
    result: Floats = np.sqrt((means**2).mean(1))
    return result


def _column(protocol: str) -> tuple[str, str]:
    if protocol not in AT:
        raise ValueError(f"protocol={protocol!r} compares no curves; use one of {', '.join(AT)}")
    return AT[protocol]


def _between(x: Floats, known: Floats, values: Floats) -> NDArray[np.float64]:
    """Linear interpolation; NaN outside what is known (but for rounding in a sum of learning rates)."""
    if len(known) == 0:
        return np.full(len(x), np.nan)
    slack = 1e-9 * np.abs(known[-1])
    inside = (x >= known[0] - slack) & (x <= known[-1] + slack)
    return np.where(inside, np.interp(x, known, values), np.nan)
