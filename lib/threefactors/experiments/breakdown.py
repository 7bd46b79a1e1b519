"""Learning rate and batch size scaled together: sweeps along β, and the signal and noise that they start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import torch

from threefactors.experiments.first_order import noise_traces
from threefactors.experiments.probes import When
from threefactors.experiments.runner import Result
from threefactors.training import Sweep, Task, Trainer
from threefactors.training.runs import Clock, Epochs, Run, TrainLoss, Until

LOOKS = 400  # times that the training loss is looked at, if it takes the whole clock to come down


def protocols(
    *, epochs: int, clock: float, loss: float, looks: int = LOOKS
) -> dict[str, Callable[[int, float], Until]]:
    """The stopping rule of a curve under each protocol, as a function of N and the ratio.

    At equal loss a run gives up after the epochs that make up the ``clock``; within it there are so many ``looks``.
    """

    def to_loss(examples: int, ratio: float) -> TrainLoss:
        return TrainLoss(loss, at_most=Epochs(ceil(clock / (examples * ratio))), every=clock / looks)

    return {
        "equal epochs": lambda examples, ratio: Epochs(epochs),
        "equal clock": lambda examples, ratio: Clock(clock),
        "equal loss": to_loss,
    }


def scaled(
    task: Task,
    *,
    train_sizes: Sequence[int],
    ratios: Sequence[float],
    batch_sizes: Iterable[int],
    seeds: Iterable[int],
    until: Callable[[int, float], Until],
    **sgd: Any,
) -> Sweep:
    """For each training-set size N and ratio, a curve of runs with lr = ratio · S, one for each S that divides N.

    A divisor leaves no example of an epoch out, so that E epochs are the clock E · N · ratio for every S, exactly.
    until(N, ratio) is the stopping rule of a curve. Errors: ValueError where no batch size divides N.
    """
    sizes, several = list(batch_sizes), list(seeds)
    runs: list[Run] = []
    for examples in train_sizes:
        divisors = [size for size in sizes if size <= examples and examples % size == 0]
        if not divisors:
            raise ValueError(f"none of the batch sizes {sizes} divides train_size={examples}; use some that do")
        own = replace(task, train_size=examples)
        for ratio in ratios:
            for size in divisors:
                rates = {"lr": ratio * size, "batch_size": size}
                runs += Sweep.grid(own, **rates, seed=several, until=until(examples, ratio), **sgd).runs
    return Sweep(tuple(runs))


def full_batch(
    task: Task, *, train_sizes: Sequence[int], rates: Sequence[float], seeds: Iterable[int], until: Until
) -> Sweep:
    """Descent with the whole training set as its batch, for each training-set size and learning rate: no noise."""
    own = {size: replace(task, train_size=size) for size in train_sizes}
    grids = [Sweep.grid(t, lr=list(rates), batch_size=n, seed=list(seeds), until=until) for n, t in own.items()]
    return Sweep(tuple(run for grid in grids for run in grid))


def with_train_size(result: Result, *, series: bool = False) -> pd.DataFrame:
    """The result's table (or its series) with the ``train_size`` of each run, and the ratio rid of rounding.

    lr = ratio · S is rounded, and lr/S would not come back as one number for all S.
    """
    rows = result.series() if series else result.table()
    times = [len(record["series"]) if series else 1 for record in result.records]
    sizes = [run.task.train_size for run, n in zip(result.runs, times, strict=True) for _ in range(n)]
    return rows.assign(train_size=np.array(sizes), ratio=[float(f"{ratio:.12g}") for ratio in rows["ratio"]])


@dataclass(frozen=True)
class SignalAndNoise:
    """gradient_squared ‖∇L‖² and noise_trace Tr C (examples drawn with replacement), exact. Not under batch norm."""

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        x = trainer.data.x_train.flatten(1).double()[None]
        rows = []
        for i in runs:  # one at a time: batched products round by where a run lies in its batch
            theta, y = trainer.theta[i : i + 1].double(), trainer.labels[i : i + 1]
            rows.append((_squared_gradient(trainer, theta, x, y), noise_traces(trainer.losses, theta, x, y)[0]))
        squares, noises = zip(*rows, strict=True)
        return {"gradient_squared": torch.stack(squares), "noise_trace": torch.stack(noises)}


def _squared_gradient(trainer: Trainer, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    leaf = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.losses(leaf, x, y).mean(), leaf)
    return gradient.square().sum()
