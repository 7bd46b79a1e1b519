"""What a run is: task, optimizer, seed and stopping rule, all frozen; sweeps of runs, and stacks to train at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from threefactors._identity import LATER, canonical
from threefactors.training.augmentation import Augmentation
from threefactors.training.models import LOSSES, MLP, Network, groups
from threefactors.training.schedules import Constant
from threefactors.training.sgd import SGD, check_number

STACK_LIMIT = 64  # runs trained at once: enough to fill the machine, few enough to lose little when killed


@dataclass(frozen=True)
class Task:
    """What is learnt: a network, a data set, how much of it, with which labels, loss and augmentation.

    dataset: a name that ``threefactors doctor`` lists, or the path of an .npz file of your own.
    train_size: the first so many training examples (None: all). label_noise: fraction of training labels replaced
    by labels drawn uniformly from all classes, anew for each seed. loss: ``cross-entropy`` or ``squared``.
    augmentation: random crops and flips of the images of each batch; evaluation and curvature see them as they are.
    """

    dataset: str = "digits"
    model: Network = MLP()
    train_size: int | None = None
    label_noise: float = 0.0
    loss: str = "cross-entropy"
    augmentation: Augmentation | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if not isinstance(self.augmentation, Augmentation | None):
            raise TypeError(f"augmentation={self.augmentation!r}: use Augmentation(crop=4, flip=True) or None")
        if self.train_size is not None:
            check_number("train_size", self.train_size, 1, strict=False, integer=True)
        check_number("label_noise", self.label_noise, 0, strict=False)
        if self.label_noise > 1:
            raise ValueError(f"label_noise={self.label_noise} is a fraction of the labels; use 0 <= label_noise <= 1")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r} is unknown; use one of {', '.join(LOSSES)}")


@dataclass(frozen=True)
class Steps:
    """Stop after n updates."""

    n: int

    def __post_init__(self) -> None:
        check_number("Steps", self.n, 0, strict=False, integer=True)


@dataclass(frozen=True)
class Epochs:
    """Stop after n passes over the training set."""

    n: int

    def __post_init__(self) -> None:
        check_number("Epochs", self.n, 0, strict=False, integer=True)


@dataclass(frozen=True)
class Clock:
    """Stop at the first update with Σ lr ≥ T: gradient flow would have run for the time T."""

    T: float

    def __post_init__(self) -> None:
        check_number("Clock", self.T, 0, strict=True)


@dataclass(frozen=True)
class TrainLoss:
    """Stop when the mean loss over the whole training set is seen to be ≤ ``value``; give up after ``at_most``.

    ``every`` is the clock Σ lr between two looks (at least one step; None: one epoch). The shorter, the less a run
    with a large learning rate overshoots.
    """

    value: float
    at_most: Epochs
    every: float | None = None

    def __post_init__(self) -> None:
        check_number("TrainLoss", self.value, 0, strict=True)
        if not isinstance(self.at_most, Epochs):
            raise TypeError(f"at_most={self.at_most!r} is no limit; use Epochs(n)")
        if self.every is not None:
            check_number("every", self.every, 0, strict=True)


Until = Steps | Epochs | Clock | TrainLoss


@dataclass(frozen=True)
class Run:
    """One network trained once: everything that decides its numbers."""

    task: Task
    sgd: SGD
    seed: int
    until: Until

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r} is not a whole number >= 0")
        if self.task.model.batch_norm is not None and self.sgd.couples:
            name = self.sgd.couples
            raise ValueError(
                f"{name}={getattr(self.sgd, name)!r} needs a gradient for each example, but batch norm ties those of a "
                f"batch together; use {type(self.task.model).__name__}(..., batch_norm=None)"
            )
        if not isinstance(self.until, Steps | Epochs | Clock | TrainLoss):
            raise TypeError(f"until={self.until!r}: use Steps(n), Epochs(n), Clock(T) or TrainLoss(value, at_most=...)")

    def batch_in(self, epoch: int, examples: int) -> int:
        """Batch size during the given epoch, refused if the training set or the ghost batches do not admit it."""
        size = self.sgd.batch_at(epoch)
        if size > examples:
            raise ValueError(
                f"batch_size={size} (epoch {epoch}) exceeds the {examples} training examples of "
                f"{self.task.dataset!r}; use batch_size <= {examples}"
            )
        if self.sgd.antithetic and (size % 2 or examples % 2):
            raise ValueError(
                f"antithetic=True makes pairs, but batch_size={size} (epoch {epoch}) or train_size={examples} is odd; "
                f"use even numbers"
            )
        if self.sgd.covariance_noise and size < 2:
            raise ValueError(f"batch_size={size} (epoch {epoch}) has no covariance; use batch_size >= 2")
        groups(self.task.model, size)
        return size

    def check(self, examples: int) -> None:
        """Refuses batches that cannot be had in any epoch that is known beforehand to come."""
        until = self.until
        known = until.n if isinstance(until, Epochs) else until.at_most.n if isinstance(until, TrainLoss) else 1
        constant = isinstance(self.sgd.batch_schedule, Constant)
        for epoch in range(1 if constant else max(known, 1)):
            self.batch_in(epoch, examples)


@dataclass(frozen=True)
class Stack:
    """Runs that can be trained at once: same network, data set, batch sizes, momentum, precision and kind of draws."""

    runs: tuple[Run, ...]

    @staticmethod
    def key(run: Run) -> str:
        """Runs with equal keys may share a stack; learning rates, seeds, labels and strengths of noise may differ."""
        sgd = run.sgd
        return canonical(
            {
                "task": replace(run.task, label_noise=0.0),
                "batch": (sgd.batch_size, sgd.batch_schedule, sgd.sampling, sgd.momentum),
                "noise": (sgd.isotropic_noise > 0, sgd.covariance_noise, sgd.svag),
                "draws": (sgd.label_flips > 0, sgd.label_draws, sgd.importance > 0, sgd.antithetic),
                "precision": sgd.precision,
                "until": type(run.until).__name__,
            }
        )

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a stack of no runs; give at least one")
        if len({self.key(run) for run in self.runs}) > 1:
            raise ValueError("these runs cannot share a stack; let Sweep(runs).stacks() sort them")

    def __len__(self) -> int:
        return len(self.runs)


@dataclass(frozen=True)
class Sweep:
    """Runs to carry out; ``grid`` makes the full product of the values given."""

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))
        if not self.runs:
            raise ValueError("an empty sweep; give at least one value for each of lr, batch_size and seed")
        if len(set(self.runs)) < len(self.runs):
            raise ValueError(
                f"{len(self.runs) - len(set(self.runs))} runs of the sweep are given twice; give each once"
            )

    @classmethod
    def grid(cls, task: Task | Sequence[Task], *, until: Until, seed: int | Iterable[int] = 0, **sgd: Any) -> Sweep:
        """Every combination of the given tasks, seeds and SGD settings; a list or range means several values.

        >>> len(Sweep.grid(Task(), lr=[0.01, 0.02], batch_size=[8, 16, 32], seed=range(4), until=Epochs(1)))
        24
        """
        tasks = [task] if isinstance(task, Task) else list(task)
        seeds = [seed] if isinstance(seed, int) else list(seed)
        several = {k: list(v) if isinstance(v, (list, tuple, range)) else [v] for k, v in sgd.items()}
        settings = [dict(zip(several, values, strict=True)) for values in itertools.product(*several.values())]
        try:
            choices = [SGD(**setting) for setting in settings]
        except TypeError as error:
            known = ", ".join(SGD.__dataclass_fields__)
            raise TypeError(f"{error}; SGD takes {known}") from error
        return cls(tuple(Run(t, s, i, until) for t, s, i in itertools.product(tasks, choices, seeds)))

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep(self.runs + other.runs)

    def stacks(self, limit: int = STACK_LIMIT) -> list[Stack]:
        """The runs sorted into stacks of at most ``limit``."""
        buckets: dict[str, list[Run]] = {}
        for run in self.runs:
            buckets.setdefault(Stack.key(run), []).append(run)
        return [
            Stack(tuple(bucket[i : i + limit])) for bucket in buckets.values() for i in range(0, len(bucket), limit)
        ]
