"""Tables of runs with random labels: in the units of plain SGD, at equal memorization, at the best moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from threefactors.inference.claim import Claim, required_effect
from threefactors.inference.claims.width import points_per_tenfold_ratio
from threefactors.inference.slopes import Unmeasurable
from threefactors.inference.summaries import summarize

RUN = ["label_noise", "momentum", "lr", "batch_size", "seed"]
HALF = 0.5


def effective(table: pd.DataFrame) -> pd.DataFrame:
    """The table with lr, ratio, and the clocks, of heavy-ball momentum in the units of plain SGD: over 1 − μ.

    A gradient that enters v ← μv + g moves θ by lr (1 + μ + μ² + …) g = lr/(1 − μ) g in all. So lr/(1 − μ) is the
    learning rate of plain SGD, and Σ lr/(1 − μ) its clock, once training has lasted for many times 1/(1 − μ) steps.
    """
    scaled = [name for name in ("lr", "ratio", "clock", "at_clock") if name in table]
    return table.assign(**{name: table[name] / (1 - table["momentum"]) for name in scaled})


def at_equal_memorization(
    series: pd.DataFrame, levels: Sequence[float], columns: Sequence[str] = ("validation_accuracy", "at_clock")
) -> pd.DataFrame:
    """Columns of each run, where the share ``memorized`` first comes up to each of the levels.

    Linear in ``memorized`` between the look that has reached the level and the one before it. One row for each run and
    level: RUN, ``ratio``, ``level``, ``reached`` and the columns, which are missing (censored) where the level is not
    reached, or was already at the first look. Errors: ValueError for a level outside (0, 1).
    """
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels={list(levels)} are shares of the wrong labels; use levels between 0 and 1")
    rows = []
    for key, looks in series.groupby(RUN, sort=False):
        looks = looks.sort_values("step")
        m, values = looks["memorized"].to_numpy(), looks[list(columns)].to_numpy()
        for level in levels:
            k = int(np.argmax(m >= level))  # 0: at the first look, or never
            weight = (level - m[k - 1]) / (m[k] - m[k - 1]) if k else np.nan
            there = values[k - 1] + weight * (values[k] - values[k - 1])
            row = dict(zip(RUN, key, strict=True)) | {"ratio": looks["ratio"].iloc[0], "level": level}
            rows.append(row | {"reached": k > 0} | dict(zip(columns, there, strict=True)))
    return pd.DataFrame(rows)


def by_ratio(crossings: pd.DataFrame, measure: str, *, log: bool = False) -> pd.DataFrame:
    """Mean over seeds of a measure at each ``level`` of memorization and each ``ratio``, with 95 % limits.

    Cells of one ratio are averaged within their seed first. Only levels that every run of a ratio has reached: a mean
    over those that came far enough would not be of the same networks.
    """
    crossings = crossings.assign(ratio=[float(f"{ratio:.6g}") for ratio in crossings["ratio"]])
    complete = crossings.groupby(["ratio", "level"])["reached"].transform("all")
    means = crossings[complete].groupby(["ratio", "level", "seed"])[measure].mean().reset_index()
    return summarize(means, measure, by=["ratio", "level"], log=log)


def at_best(series: pd.DataFrame) -> pd.DataFrame:
    """peak_accuracy: the test accuracy of each run at its look of best validation accuracy; and peak_clock.

    The test set has no part in the choice, so that the best of many looks is not overrated for being one of many.
    """
    series = series.reset_index(drop=True)
    best = series.loc[series.groupby(RUN)["validation_accuracy"].idxmax()]
    return best[[*RUN, "test_accuracy", "at_clock"]].rename(
        columns={"test_accuracy": "peak_accuracy", "at_clock": "peak_clock"}
    )


def with_landmarks(table: pd.DataFrame, series: pd.DataFrame) -> pd.DataFrame:
    """The table of the runs with accuracy_at_half, clock_at_half, reached, peak_accuracy and peak_clock.

    ``table`` and ``series`` are of the same runs. A run without them (never half memorized, or lost before the first
    look) keeps its row, with the values missing.
    """
    names = {"validation_accuracy": "accuracy_at_half", "at_clock": "clock_at_half"}
    half = at_equal_memorization(series, [HALF]).rename(columns=names)
    merged = table.merge(half[[*RUN, *names.values(), "reached"]], on=RUN, how="left", validate="1:1")
    merged = merged.merge(at_best(series), on=RUN, how="left", validate="1:1")
    return merged.assign(reached=merged["reached"].eq(True))


def moments_around_half(
    series: pd.DataFrame, lr: float, batch_size: int, shares: Sequence[float] = (0.5, 0.7, 0.85, 1.0, 1.2)
) -> list[int]:
    """Epochs at these shares of the one in which, on the average over seeds, half is memorized in one cell."""
    cell = series[(series["lr"] == lr) & (series["batch_size"] == batch_size)]
    half = at_equal_memorization(cell, [HALF], ("epoch",))["epoch"].mean()
    return sorted({max(1, round(share * half)) for share in shares})


def after_quench(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of ``quenches``, of one task, as looks at one path: a series for ``at_equal_memorization``.

    ``at_clock`` is that of the end, quench included.
    """
    return table.assign(step=table["steps"], at_clock=table["clock"])


def half_quenched(looks: pd.DataFrame) -> pd.DataFrame:
    """One row a path of ``after_quench``: accuracy_at_half, train_loss and clock where half is memorized, and flags."""
    columns = ("validation_accuracy", "train_loss", "at_clock")
    half = at_equal_memorization(looks[~looks["diverged"]], [HALF], columns)
    flags = looks.groupby(RUN).agg(diverged=("diverged", "any"), finished=("finished", "all")).reset_index()
    names = {"validation_accuracy": "accuracy_at_half", "at_clock": "clock"}
    return flags.merge(half.rename(columns=names), on=RUN, how="left", validate="1:1")


def gain_by_level(
    crossings: pd.DataFrame, measure: str = "validation_accuracy", *, level: float = 0.95
) -> pd.DataFrame:
    """Slope of an accuracy on log₁₀ η/S at equal memorization, in points per tenfold ratio, at each level.

    crossings: from ``at_equal_memorization``, of one arm. One row a level: value, low, high, and how many runs were
    ``censored``; without a value where fewer than two seeds give a slope. level: of confidence.
    """
    rows = []
    for memorized, part in crossings.groupby("level"):
        row = {"memorized": memorized, "censored": int((~part["reached"]).sum())}
        try:
            limits = points_per_tenfold_ratio(part, measure).interval(level)
            row |= {"value": limits.value, "low": limits.low, "high": limits.high}
        except Unmeasurable:
            row |= dict.fromkeys(("value", "low", "high"), np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def detectable(claim: Claim, table: pd.DataFrame, power: float = 0.8) -> float:
    """Smallest effect that as many seeds, as scattered as these, find with the given power; in the statistic's unit.

    0 where the seeds are all alike, as where every run has memorized everything.
    """
    slopes = claim.statistic(table, claim.measures[0]).per_seed  # type: ignore[attr-defined]
    sd = float(np.std(slopes, ddof=1))
    return required_effect(claim, len(slopes), sd, power) if sd > 0 else 0.0
