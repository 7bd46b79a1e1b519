"""What an engine is: the thing that carries out the steps of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """The next steps of one run: which examples, order (steps, S), and how far, lr (steps,)."""

    run: int
    order: Tensor
    lr: Tensor


class Engine(Protocol):
    """``Kernel`` (C, one network per core at a time) or ``Stacked`` (PyTorch, all at once)."""

    def advance(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: Sequence[Plan], limit: float
    ) -> list[int]:
        """Carries out each plan on its run, in place; returns the updates made (fewer than asked: diverged)."""
        ...

    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set."""
        ...
