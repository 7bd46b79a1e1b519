"""Schedules: factors by which the learning rate or the batch size is multiplied, as functions of the epoch.

A schedule is a frozen dataclass with ``__call__(epoch) -> factor``; its class name and fields are part of the
identity of a run. Your own is written the same way, or given as ``Custom("its name", function)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Schedule(Protocol):
    def __call__(self, epoch: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    """Factor 1 throughout."""

    def __call__(self, epoch: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Step:
    """Multiplies by ``factor`` at each of the epochs ``at``.

    >>> [Step(at=(10, 20), factor=0.5)(epoch) for epoch in (0, 10, 25)]
    [1.0, 0.5, 0.25]
    """

    at: tuple[float, ...]
    factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(self.at))
        _positive(self, factor=self.factor)

    def __call__(self, epoch: float) -> float:
        return float(self.factor ** sum(epoch >= start for start in self.at))


@dataclass(frozen=True)
class _Cycle:
    period: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _positive(self, period=self.period, low=self.low, high=self.high)


@dataclass(frozen=True)
class SquareCycle(_Cycle):
    """``low`` for the first half of each period, ``high`` for the second (a discrete cycle).

    >>> [SquareCycle(period=10, low=1, high=5)(epoch) for epoch in (0, 5, 10)]
    [1.0, 5.0, 1.0]
    """

    def __call__(self, epoch: float) -> float:
        return float(self.low if epoch % self.period < self.period / 2 else self.high)


@dataclass(frozen=True)
class TriangularCycle(_Cycle):
    """From ``low`` straight up to ``high`` at half a period and straight down again (Smith, arXiv 1506.01186).

    >>> [TriangularCycle(period=10, low=1, high=5)(epoch) for epoch in (0, 2.5, 5, 7.5)]
    [1.0, 3.0, 5.0, 3.0]
    """

    def __call__(self, epoch: float) -> float:
        phase = epoch % self.period / self.period
        return self.low + (self.high - self.low) * (1 - abs(2 * phase - 1))


@dataclass(frozen=True)
class Custom:
    """Any function of the epoch, under a name that stands for it in the store: a new function, a new name."""

    name: str
    function: Callable[[float], float] = field(compare=False)

    def __call__(self, epoch: float) -> float:
        return self.function(epoch)


def _positive(schedule: object, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{type(schedule).__name__}({name}={value}): must be finite and > 0")


def check_schedule(schedule: object, argument: str) -> None:
    """Refuses what is no schedule, before any work starts."""
    params = getattr(type(schedule), "__dataclass_params__", None)
    if isinstance(schedule, type) or not callable(schedule) or not dataclasses.is_dataclass(schedule):
        raise TypeError(
            f"{argument}={schedule!r} is no schedule with an identity; use Constant(), Step(...), SquareCycle(...), "
            "TriangularCycle(...), a callable frozen dataclass of your own, or Custom(name, function)"
        )
    if params is None or not params.frozen:
        raise TypeError(f"{argument}={schedule!r} can change after it was stored; declare @dataclass(frozen=True)")
    factor = schedule(0.0)
    if not (isinstance(factor, (int, float)) and math.isfinite(factor) and factor > 0):
        raise ValueError(f"{argument}={schedule!r} gives the factor {factor!r} at epoch 0; must be finite and > 0")
