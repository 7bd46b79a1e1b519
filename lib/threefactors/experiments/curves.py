"""Learning curves: what is looked at along the way, schedules that share η/S, several settings in one sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from threefactors.experiments.probes import Every, Probe, When
from threefactors.experiments.runner import run
from threefactors.training import Sweep, Task, Trainer
from threefactors.training.runs import Until
from threefactors.training.schedules import Schedule, check_schedule

EVERY_EPOCH = Every(1)


@dataclass(frozen=True)
class LearningCurve:
    """train_loss, train_accuracy (both with the run's own labels) and validation_accuracy (with the clean ones)."""

    at: When = EVERY_EPOCH

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        labels = trainer.labels[list(runs)]
        outputs = trainer.engine.outputs(trainer.theta, runs)
        unseen = trainer.engine.outputs(trainer.theta, runs, trainer.data.x_validation)
        return {
            "train_loss": trainer.losses.criterion(outputs, labels).mean(1),
            "train_accuracy": (outputs.argmax(-1) == labels).double().mean(1),
            "validation_accuracy": (unseen.argmax(-1) == trainer.data.y_validation).double().mean(1),
        }


@dataclass(frozen=True)
class Mirror:
    """The learning-rate schedule with the η/S of a batch schedule f: the factor 1/f(⌊epoch⌋).

    η · 1/f over S is η over S · f. Batch sizes change between epochs only, and so does this factor; with batch sizes
    that divide the training set, both spend the same Σ η in every epoch.

    >>> from threefactors.training.schedules import Step
    >>> [Mirror(Step(at=(10,), factor=4))(epoch) for epoch in (9.9, 10.0, 10.5)]
    [1.0, 0.25, 0.25]
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        check_schedule(self.schedule, "schedule")

    def __call__(self, epoch: float) -> float:
        return 1 / self.schedule(float(int(epoch)))


def constant(lr: float, batch_size: int, beta: float) -> dict[str, dict[str, Any]]:
    """A constant setting, and four to compare it with: a batch β times as large, the same η, or the same S.

    ``η, S``; ``equal η/S`` (βη, βS); ``equal η/√S`` (√β η, βS); ``equal η`` (η, βS); ``equal S`` (η/β, S).
    Errors: ValueError for a βS that is no whole number.
    """
    if batch_size * beta != round(batch_size * beta):
        raise ValueError(f"batch_size={batch_size} times beta={beta} is no batch size; use a whole multiple")
    large = round(batch_size * beta)
    settings = {
        "η, S": (lr, batch_size),
        "equal η/S": (lr * beta, large),
        "equal η/√S": (lr * beta**0.5, large),
        "equal η": (lr, large),
        "equal S": (lr / beta, batch_size),
    }
    return {name: {"lr": one, "batch_size": size} for name, (one, size) in settings.items()}


def mirrored(lr: float, batch_size: int, growth: Mapping[str, Schedule]) -> dict[str, dict[str, Any]]:
    """Each schedule twice, with the same η/S at every epoch: ``<name> of S`` and its ``Mirror``, ``<name> of η``."""
    base = {"lr": lr, "batch_size": batch_size}
    of_batch = {f"{name} of S": base | {"batch_schedule": schedule} for name, schedule in growth.items()}
    of_lr = {f"{name} of η": base | {"lr_schedule": Mirror(schedule)} for name, schedule in growth.items()}
    return of_batch | of_lr


def follow(
    task: Task,
    cells: Mapping[str, Mapping[str, Any]],
    *,
    seed: Iterable[int],
    until: Until,
    probes: Sequence[Probe] = (LearningCurve(),),
    **how: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trains every seed of every named setting of SGD, and returns how they went and how they ended.

    cells: name → settings of SGD. The first table is ``Result.series`` (one row for each run and look), the second
    ``Result.table`` (one row a run), each with the name in the column ``cell``; runs that diverged stop early in the
    first and are marked in both. how: further arguments of ``run``. Errors: as ``run``; ValueError for no cells.
    """
    if not cells:
        raise ValueError(
            "cells={} leaves nothing to train; name at least one setting, such as {'base': dict(lr=0.1, ...)}"
        )
    seeds = list(seed)
    sweeps = [Sweep.grid(task, seed=seeds, until=until, **settings) for settings in cells.values()]
    result = run(Sweep(tuple(one for sweep in sweeps for one in sweep)), probes, **how)
    names = [name for name in cells for _ in seeds]
    looks = pd.DataFrame(
        [
            (name, record["diverged"])
            for name, record in zip(names, result.records, strict=True)
            for _ in record["series"]
        ],
        columns=["cell", "diverged"],
    )
    return pd.concat([result.series(), looks], axis=1), result.table().assign(cell=names)
