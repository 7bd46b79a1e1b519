"""Runs under one schedule beside runs under another: the tables and the statistic of claims on cycles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from threefactors.inference.estimates import SeedMean
from threefactors.inference.slopes import Unmeasurable, log_measure, usable

CYCLE, CONSTANT = "cycle", "constant"


def beside(runs: pd.DataFrame, constants: Mapping[str, str]) -> pd.DataFrame:
    """Rows of each cyclic schedule (``role`` cycle) and of the constant one it is held against (``role`` constant).

    runs: one row a run, with its ``schedule``; constants: cyclic schedule → constant one. In the result ``schedule``
    is the cyclic one for both; a constant that serves several cycles is there several times.
    Errors: ValueError for a schedule that the runs do not have.
    """
    known = set(runs["schedule"])
    if unknown := sorted({*constants, *constants.values()} - known):
        raise ValueError(f"no runs with schedule {unknown}; there are {sorted(known)}")
    parts = [
        runs[runs["schedule"] == name].assign(schedule=cycle, role=role)
        for cycle, constant in constants.items()
        for role, name in ((CYCLE, cycle), (CONSTANT, constant))
    ]
    return pd.concat(parts, ignore_index=True)


def by_knob(runs: pd.DataFrame, cycles: Sequence[str]) -> pd.DataFrame:
    """Rows of the given schedules; ``turned``: ``learning rate`` where a name ends in η, ``batch size`` where in S."""
    rows = runs[runs["schedule"].isin(cycles)]
    return rows.assign(turned=rows["schedule"].str[-1].map({"η": "learning rate", "S": "batch size"}))


@dataclass(frozen=True)
class LogRatio:
    """ln(measure where column = of) − ln(measure where column = to), for each seed; rows of one side are averaged.

    0: equal; −0.7: half as large. Both sides share the seed's initial network, data order and labels.
    Errors: Unmeasurable for a measure ≤ 0, or where fewer than two seeds have both sides.
    """

    column: str
    of: str
    to: str

    def __call__(self, table: pd.DataFrame, measure: str) -> SeedMean:
        good = usable(table, measure)
        rows = table.loc[good, ["seed", self.column]].assign(log=log_measure(table, measure, good))
        mean = rows.groupby([self.column, "seed"])["log"].mean().unstack(self.column)
        both = mean.reindex(columns=[self.of, self.to]).dropna()
        if len(both) < 2:
            raise Unmeasurable(
                f"{len(both)} seeds have {measure} for both {self.of} and {self.to} in {self.column}; use at least 2"
            )
        return SeedMean(np.asarray(both[self.of] - both[self.to], dtype=float))


def log_ratios(tables: Mapping[str, pd.DataFrame], measure: str, *, level: float = 0.95) -> pd.DataFrame:
    """Log ratio cycle/constant with its interval for each schedule of each ``beside`` table, for a figure.

    One row each: ``against`` (the name of the table), ``schedule``, ``value``, ``low``, ``high``, ``n`` seeds with both
    runs, ``lost`` rows (diverged, unfinished or without a number). In the unit of a natural logarithm.
    """
    ratio, rows = LogRatio("role", CYCLE, CONSTANT), []
    for against, table in tables.items():
        for schedule, part in table.groupby("schedule", sort=False):
            i = ratio(part, measure).interval(level)
            row = {"against": against, "schedule": schedule, "value": i.value, "low": i.low, "high": i.high}
            rows.append(row | {"n": i.n, "lost": int((~usable(part, measure)).sum())})
    return pd.DataFrame(rows)
