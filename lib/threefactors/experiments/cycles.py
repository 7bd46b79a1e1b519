"""Cycles of the noise scale, whichever of its two factors is turned: one profile for the learning rate and the batch.

A profile is a schedule of η/S relative to the largest that a run may have, between 0 and 1. As ``lr_schedule`` it turns
the learning rate; ``BatchFor(profile, levels)`` turns the batch size instead, and the noise scale goes the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from threefactors.experiments.probes import Probe
from threefactors.experiments.runner import run
from threefactors.training import Sweep
from threefactors.training.runs import Clock, Epochs, Task, TrainLoss, Until
from threefactors.training.schedules import Schedule, SquareCycle, Step, TriangularCycle


@dataclass(frozen=True)
class BatchFor:
    """Factor of the batch size that gives η/S the profile: 1/level, the level nearest to it in the middle of an epoch.

    levels: values of the profile, in (0, 1], for which batch_size/level is a batch that can be had: batches are whole,
    and should divide the training set. A cycle between two levels is met exactly, a triangle becomes stairs.

    >>> from threefactors.training.schedules import TriangularCycle
    >>> stairs = BatchFor(TriangularCycle(period=8, low=0.2, high=1.0), levels=(0.2, 0.6, 1.0))
    >>> [round(120 * 0.2 * stairs(epoch)) for epoch in range(8)]
    [120, 40, 40, 24, 24, 40, 40, 120]
    """

    profile: Schedule
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels or not all(math.isfinite(level) and 0 < level <= 1 for level in self.levels):
            raise ValueError(f"levels={self.levels}: give at least one, all in (0, 1], such as (0.2, 0.6, 1.0)")

    def __call__(self, epoch: float) -> float:
        wanted = self.profile(epoch + 0.5)
        return 1 / min(self.levels, key=lambda level: abs(level - wanted))


@dataclass(frozen=True)
class Then:
    """``first`` until the epoch ``at``, from there on the factor ``last``: a quench, if that is small."""

    first: Schedule
    at: float
    last: float

    def __post_init__(self) -> None:
        for name, value in (("at", self.at), ("last", self.last)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Then({name}={value}): must be finite and > 0")

    def __call__(self, epoch: float) -> float:
        return self.last if epoch >= self.at else self.first(epoch)


@dataclass(frozen=True)
class Design:
    """Square and triangular cycles between ``low`` and 1, in units of lr/batch_size, and the constants beside them.

    period: epochs, an even number from 6 on, but not 4 more than a multiple of 8. Batches of S, S/mean and S/low should
    divide the ``examples``. Every cycle ends low: the square one has its high half first, the triangle is highest in
    the middle.
    Errors: ValueError for low outside (0, 1), or another period.
    """

    lr: float
    batch_size: int
    examples: int
    period: int
    low: float

    def __post_init__(self) -> None:
        if not 0 < self.low < 1:
            raise ValueError(f"low={self.low} makes no cycle between itself and 1; use 0 < low < 1")
        # at a period of 8k + 4 the middle of an epoch lies half way between two of the three levels
        if self.period < 6 or self.period % 2 or self.period % 8 == 4:
            raise ValueError(
                f"period={self.period} epochs cannot be halved and climbed in three levels that keep the mean; use an "
                "even number >= 6 that is not 4 more than a multiple of 8: 6, 8, 10, 14, ..."
            )

    @property
    def mean(self) -> float:
        """Mean over the epochs of either cycle, (1 + low)/2."""
        return (1 + self.low) / 2

    @property
    def levels(self) -> dict[str, float]:
        """The constants: ``matched`` is the mean of the square cycle over the clock, (1 + low²)/(1 + low)."""
        return {"low": self.low, "mean": self.mean, "matched": (1 + self.low**2) / (1 + self.low), "high": 1.0}

    @property
    def clock(self) -> float:
        """Σ lr of a period."""
        return self.period * (self.examples // self.batch_size) * self.mean * self.lr

    def schedules(self, quenched_after: int | None = None) -> dict[str, dict[str, Schedule]]:
        """SGD settings by name, such as ``square η``; quenched to ``low`` after the clock of so many periods.

        η turns the learning rate, S the batch size; matched and high, which need no second knob, only η.
        """
        profiles: dict[str, Schedule] = {
            "square": SquareCycle(self.period, 1.0, self.low),
            "triangle": TriangularCycle(self.period, self.low, 1.0),
        }
        profiles |= {name: Step(at=(0,), factor=level) for name, level in self.levels.items()}
        own: dict[str, dict[str, Schedule]] = {}
        for name, profile in profiles.items():
            if quenched_after:
                epochs = quenched_after * self.period * self.mean / self.levels.get(name, self.mean)
                profile = Then(profile, epochs, self.low)
            own[f"{name} η"] = {"lr_schedule": profile}
            if name not in ("matched", "high"):
                own[f"{name} S"] = {"batch_schedule": BatchFor(profile, (self.low, self.mean, 1.0))}
        return own

    def stopping(self, repeats: int, loss: float, at_most: int, *, quench: int = 0, looks: int = 1) -> dict[str, Until]:
        """The rule of each protocol: so many periods, and ``quench`` more of clock; ``looks`` a period at the loss.

        The epochs are those of a cycle, whose quench takes mean/low as many epochs as its clock.
        """
        return {
            "equal epochs": Epochs(round(self.period * (repeats + quench * self.mean / self.low))),
            "equal clock": Clock(self.clock * (repeats + quench)),
            "equal loss": TrainLoss(loss, at_most=Epochs(at_most), every=self.clock / looks),
        }


def phase(table: pd.DataFrame, period: float) -> pd.Series:
    """Where in its cycle each run stopped: epochs/period modulo 1, in (0, 1], where 1 is the end of a period."""
    part = (table["epochs"] / period) % 1
    return part.where(part > 1e-9, 1.0)


def run_schedules(
    task: Task, schedules: Mapping[str, Mapping[str, Any]], probes: Sequence[Probe], *, until: Until, **same: Any
) -> pd.DataFrame:
    """Trains every seed under each schedule; the table of all runs, with the column ``schedule``.

    schedules: name → SGD settings of its own; same: settings that all share, and ``seed``. One sweep, so that the
    schedules keep all workers busy. Errors: those of ``Sweep.grid`` and ``run``.
    """
    grids = [Sweep.grid(task, until=until, **{**same, **own}) for own in schedules.values()]
    table = run(Sweep(tuple(one for grid in grids for one in grid)), probes).table()
    return table.assign(schedule=np.repeat(list(schedules), [len(grid) for grid in grids]))
