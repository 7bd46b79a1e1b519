"""Runs that climb to the edge of stability: how they start, and where their sharpness comes to rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors._rng import generator
from threefactors.experiments.probes import AtClock, Loss, Moments, Probe, When, _hessian
from threefactors.experiments.runner import Result, run
from threefactors.measurement import top_eigenvalues
from threefactors.training import Clock, Step, Sweep, Task, Trainer

WINDOW = 9  # looks in a row whose median counts as a level: a spike of four is none


@dataclass(frozen=True)
class LargestEigenvalue:
    """sharpness and sharpness_converged: λ_max alone, for many looks along the way; ``Sharpness`` has the rest."""

    tol: float = 1e-2
    max_products: int = 80
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        draws = [generator(trainer.runs[i].seed, "sharpness") for i in runs]
        op = _hessian(trainer, runs, None)
        top = top_eigenvalues(op, 1, tol=self.tol, max_products=self.max_products, vectors=False, generators=draws)
        return {"sharpness": top.values[:, 0], "sharpness_converged": top.converged}


def warm_up(lr: float, batch_size: int, examples: int, *, doublings: int = 6, hold: int = 10) -> dict[str, Any]:
    """SGD settings that come to ``lr`` in steps of two, after ``hold`` updates at each lower rate.

    A network is often sharper where it starts than 2/lr; a small first step lets it come down in peace. The schedule
    counts epochs, and so depends on the batch size. Errors: ValueError for fewer than one doubling, or hold < 1.
    """
    if doublings < 1 or hold < 1:
        raise ValueError(f"doublings={doublings}, hold={hold}: use whole numbers >= 1")
    epochs = 1 / (examples // batch_size)  # of one update
    at = tuple(hold * k * epochs for k in range(1, doublings + 1))
    return {"lr": lr / 2**doublings, "batch_size": batch_size, "lr_schedule": Step(at=at, factor=2)}


def climb(
    task: Task,
    rates: Sequence[float],
    clock: float,
    seeds: Iterable[int],
    batches: Sequence[int] = (),
    *,
    looks: int = 50,
    **options: Any,
) -> Result:
    """Runs at each of the rates, through the same clock, with λ_max looked at on the way, and Tr H, ‖H‖_F at the end.

    batches: sizes, each with every rate (none: the full batch alone). A task with squared loss is warmed up.
    options go to ``run``. Errors: ValueError for a task without ``train_size``, or as ``Sweep`` and ``run``.
    """
    if task.train_size is None:
        raise ValueError("train_size=None leaves the size of the full batch open; give the task a train_size")
    sizes, own_seeds = batches or [task.train_size], list(seeds)
    warm = task.loss == "squared"
    settings = [
        warm_up(lr, size, task.train_size) if warm else {"lr": lr, "batch_size": size} for lr in rates for size in sizes
    ]
    sweeps = [Sweep.grid(task, seed=own_seeds, until=Clock(clock), **own) for own in settings]
    times = AtClock(tuple(clock * (k + 1) / looks for k in range(looks)))
    probes: list[Probe] = [LargestEigenvalue(at=times), LargestEigenvalue(), Moments(4), Loss()]
    return run(Sweep(tuple(one for sweep in sweeps for one in sweep)), probes, **options)


def climbs(result: Result) -> pd.DataFrame:
    """Every look of a result that has ``LargestEigenvalue(at=AtClock(...))``: one row for each, ``look`` counts them.

    lr is the rate after the warm-up (if any); edge is ηλ_max/2, which is 1 where gradient descent ceases to be stable.
    """
    series = result.series()
    final = {one.sgd.lr: _final_rate(one.sgd) for one in result.runs}
    if len(final) < len({(one.sgd.lr, _final_rate(one.sgd)) for one in result.runs}):
        raise ValueError("two schedules bring one first learning rate to different last ones; give them in two results")
    series = series.assign(lr=series["lr"].map(final), look=series.groupby(["lr", "batch_size", "seed"]).cumcount())
    return series.assign(edge=series["lr"] * series["sharpness"] / 2)


def levels(result: Result, *, peak: bool = False) -> pd.DataFrame:
    """The table of the runs with ``plateau``, the level at which λ_max came to rest, and what it is held against.

    plateau: the median over the looks in the second half of the clock; with ``peak`` the largest median of WINDOW
    successive looks along the way, for a loss that sharpens and then decays. predicted_plateau 2/η, gap 1 − ηλ/2,
    where η is the last learning rate; ratio is of it, too. A run that diverged has no plateau.
    """
    looks = climbs(result)
    table = result.table().assign(lr=[_final_rate(one.sgd) for one in result.runs])
    found = {}
    for key, path in looks.groupby(["lr", "batch_size", "seed"]):
        late = path[path["at_clock"] > path["at_clock"].max() / 2]
        found[key] = highest_level(path["sharpness"].to_numpy()) if peak else float(late["sharpness"].median())
    keys = zip(table["lr"], table["batch_size"], table["seed"], table["diverged"], strict=True)
    plateau = np.array([math.nan if lost else found.get(tuple(key), math.nan) for *key, lost in keys])
    return table.assign(
        plateau=plateau,
        predicted_plateau=2 / table["lr"],
        gap=1 - table["lr"] * plateau / 2,
        ratio=table["lr"] / table["batch_size"],
    )


def highest_level(values: NDArray[np.floating[Any]], window: int = WINDOW) -> float:
    """The largest median of so many values in a row (of all, where there are fewer)."""
    size = min(window, len(values))
    return float(np.median(np.lib.stride_tricks.sliding_window_view(values, size), axis=1).max())


def _final_rate(sgd: Any) -> float:
    # to twelve digits, so that rates halved and doubled again are the numbers that were asked for
    return float(f"{sgd.lr * sgd.lr_schedule(math.inf):.12g}")
