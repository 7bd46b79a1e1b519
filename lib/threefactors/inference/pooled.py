"""One regression over the runs of many experiments: what carries the width at the same clock and the same loss?

Within one protocol the question has no answer. At equal epochs the clock is proportional to η/S, at equal clock and at
equal loss one of the controls does not vary. Together the protocols move η, S, clock and loss apart.

A *group* is all that was trained on one task in one chapter: it has an intercept of its own, so that networks are only
compared with their like. A *replicate* is one seed of each group, the k-th of each: replicates share no random number
within a group, and are the unit of uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from threefactors.inference.estimates import Floats, SeedMean
from threefactors.inference.slopes import Unmeasurable, log_measure, usable

TASK = (
    "chapter", "arm", "dataset", "hidden", "batch_norm", "loss", "label_noise", "momentum", "label_flips"
)  # fmt: skip
REPLICATES = 5  # fewer leave too wide an interval to say anything


@dataclass(frozen=True)
class Pool:
    """Logarithms of the regressors x (runs, k) and of the measure y (runs,), with the mean of each group taken out.

    group and replicate (runs,) are codes from 0; ``runs`` were used, ``left_out`` were not: lost, or not measured.
    """

    x: Floats
    y: Floats
    group: np.ndarray
    replicate: np.ndarray
    names: tuple[str, ...]
    left_out: int

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def replicates(self) -> int:
        return int(self.replicate.max()) + 1


def pool(runs: pd.DataFrame, measure: str, regressors: Sequence[str], *, log: bool = True) -> Pool:
    """The usable runs of all groups, centered group by group; the mean is taken within each replicate of a group.

    runs: one row a run, with ``seed``, the columns of TASK that there are, measure and regressors (all > 0; with
    ``log=False`` the measure enters as it is). Groups with fewer seeds than REPLICATES are left out.
    Errors: Unmeasurable where nothing is left, or a value has no logarithm.
    """
    good = usable(runs, measure, *regressors)
    rows = runs[good]
    group = rows.groupby([name for name in TASK if name in rows], dropna=False).ngroup().to_numpy()
    rank = rows.groupby(group)["seed"].rank(method="dense").to_numpy(int) - 1
    seeds = np.array([rank[group == g].max() + 1 for g in range(group.max() + 1)]) if len(rows) else np.array([])
    enough = seeds >= REPLICATES
    if not enough.any():
        raise Unmeasurable(
            f"no group of runs has {measure}, {', '.join(regressors)} in {REPLICATES} seeds; keep more runs"
        )
    replicates = seeds[enough].min()
    some = enough[group]
    everything = np.full(int(some.sum()), True)
    rows, group, rank = rows[some], group[some], rank[some] % replicates
    y = log_measure(rows, measure, everything) if log else rows[measure].to_numpy(float)
    x = np.column_stack([log_measure(rows, name, everything) for name in regressors])
    block = np.unique(group * replicates + rank, return_inverse=True)[1]
    group = np.unique(group, return_inverse=True)[1]
    return Pool(
        _centered(x, block), _centered(y[:, None], block)[:, 0], group, rank, tuple(regressors), len(runs) - len(y)
    )


def slopes_table(
    runs: pd.DataFrame, measures: Sequence[str], regressors: Sequence[str], *, log: bool = True
) -> pd.DataFrame:
    """``partial_slopes`` of several measures, as columns <measure>_on_<regressor>, with ``seed``, the replicate.

    Where both lr and batch_size are regressors, <measure>_on_ratio is half the difference of their slopes.
    """
    parts = []
    for measure in measures:
        part = partial_slopes(pool(runs, measure, regressors, log=log))
        if {"lr", "batch_size"} <= set(regressors):
            part["ratio"] = (part["lr"] - part["batch_size"]) / 2
        parts.append(part.add_prefix(f"{measure}_on_"))
    return pd.concat(parts, axis=1).rename_axis("seed").reset_index()


def partial_slopes(data: Pool) -> pd.DataFrame:
    """Least-squares slopes on all regressors at once, for each replicate: one row a replicate, a column a regressor.

    Errors: Unmeasurable where the runs do not tell the regressors apart.
    """
    return pd.DataFrame([_fit(data, data.replicate == r) for r in range(data.replicates)], columns=list(data.names))


def held_out_groups(
    runs: pd.DataFrame, measure: str, models: Mapping[str, Sequence[str]], *, log: bool = True
) -> pd.DataFrame:
    """How well the slopes that all other groups have predict a group that was left out: one row a replicate and model.

    R² = 1 − Σ (y − x·β₋g)²/Σ y² over the runs of every group g in turn, y and x centered within the group and β₋g
    fitted without it. 0 is no better than knowing nothing of η, S, clock and loss. All models see the same runs.
    Columns: model, replicate, r2.
    """
    everything = tuple(dict.fromkeys(name for names in models.values() for name in names))
    data = pool(runs, measure, everything, log=log)
    if data.groups < 2:
        raise Unmeasurable("only one group of runs, and none to predict it from; keep the runs of more chapters")
    rows = []
    for model, names in models.items():
        chosen = [everything.index(name) for name in names]
        part = Pool(data.x[:, chosen], data.y, data.group, data.replicate, tuple(names), data.left_out)
        for r in range(data.replicates):
            own = data.replicate == r
            squares = 0.0
            for g in range(data.groups):
                left = own & (data.group == g)
                error = part.y[left] - part.x[left] @ _fit(part, own & (data.group != g))
                squares += float(error @ error)
            rows.append({"model": model, "replicate": r, "r2": 1 - squares / float(data.y[own] @ data.y[own])})
    return pd.DataFrame(rows)


def intervals(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean over replicates of each column with its confidence limits: columns value, low, high, one row a column."""
    found = {name: SeedMean(table[name].to_numpy(float)).interval(level) for name in table}
    return pd.DataFrame({name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items()}).T


def _centered(values: Floats, block: np.ndarray) -> Floats:
    size = np.bincount(block)
    means = np.stack([np.bincount(block, weights=column) for column in values.T], axis=1) / size[:, None]
    return values - means[block]


def _fit(data: Pool, chosen: np.ndarray) -> Floats:
    x, y = data.x[chosen], data.y[chosen]
    beta, _, rank, _ = np.linalg.lstsq(x, y, rcond=1e-6)
    if rank < x.shape[1]:
        raise Unmeasurable(
            f"{len(y)} runs do not tell {', '.join(data.names)} apart; keep runs of more than one protocol"
        )
    return beta
