"""Random labels: how many of them a network has learnt by heart; and runs that are quenched on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threefactors.experiments.probes import When
from threefactors.training import Clock, Run, Step, Sweep, Task, Trainer


@dataclass(frozen=True)
class Memorization:
    """memorized: share of the mislabeled training examples that are classified as their wrong label says.

    With x_i the examples, y_i their true classes, z_i the labels that the run learns and f the network:

        memorized   #{f(x_i) = z_i, z_i ≠ y_i} / #{z_i ≠ y_i}
        corrected   #{f(x_i) = y_i, z_i ≠ y_i} / #{z_i ≠ y_i}: seen through in spite of the label
        clean_fit   #{f(x_i) = z_i, z_i = y_i} / #{z_i = y_i}

    A label drawn at random is the true one with probability 1/classes; such an example is no work for the memory, and
    counts as clean. Raises ValueError for a run without a wrong label, or with none but wrong ones.
    """

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        labels, truth = trainer.labels[list(runs)], trainer.data.y_train
        wrong = labels != truth
        for i, count in zip(runs, wrong.sum(1).tolist(), strict=True):
            if count in (0, len(truth)):
                raise ValueError(
                    f"label_noise={trainer.runs[i].task.label_noise} leaves {count} of {len(truth)} labels wrong; "
                    "use Task(label_noise=...) well between 0 and 1"
                )
        predicted = trainer.engine.outputs(trainer.theta, runs).argmax(-1)
        return {
            "memorized": _share(predicted == labels, wrong),
            "corrected": _share(predicted == truth, wrong),
            "clean_fit": _share(predicted == labels, ~wrong),
        }


def _share(hit: Tensor, among: Tensor) -> Tensor:
    """Of the examples (R, N) chosen by ``among``, the share that is hit, (R,)."""
    return (hit & among).sum(1, dtype=torch.float64) / among.sum(1)


def quenches(
    task: Task,
    lr: float,
    batch_size: int,
    seeds: Sequence[int],
    *,
    moments: Sequence[int],
    still: float,
    clock: float,
    examples: int,
) -> Sweep:
    """Runs of SGD that go on without noise, one for each seed and each of the moments, in epochs.

    From its moment on a run descends with all ``examples`` N as its batch and the learning rate ``still``, for so much
    ``clock`` Σ lr. Runs of one seed share their way up to the first of their moments.
    """
    runs: list[Run] = []
    for epoch in sorted(set(moments)):
        whole = Step(at=(epoch,), factor=examples / batch_size)
        slower = Step(at=(epoch,), factor=still / lr)
        until = Clock(epoch * (examples // batch_size) * lr + clock)
        runs += Sweep.grid(
            task, lr=lr, batch_size=batch_size, seed=seeds, batch_schedule=whole, lr_schedule=slower, until=until
        ).runs
    return Sweep(tuple(runs))
