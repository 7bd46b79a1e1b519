"""What an engine is: the thing that carries out the steps of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """The next steps of one run: which examples, order (steps, B), and how far, lr (steps,).

    A step descends the batch loss (1/B) Σ w_i ℓ_i, with weights (steps, B) of either sign (None: all 1) and labels
    (steps, B) (None: each example's own). Step t of the plan is number ``first`` + t of the run.
    """

    run: int
    order: Tensor
    lr: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None
    first: int = 0

    def cut(self, start: int, stop: int) -> Plan:
        """Only the steps start … stop."""
        weights, labels = (None if part is None else part[start:stop] for part in (self.weights, self.labels))
        return Plan(self.run, self.order[start:stop], self.lr[start:stop], weights, labels, self.first + start)


class DeviceError(RuntimeError):
    """The driver of a GPU failed in the middle of training; nothing more can be done on it in this process."""


class Engine(Protocol):
    """``Kernel`` (C, one network per core at a time), ``Stacked`` (PyTorch, all at once) or ``Captured`` (on a GPU)."""

    def advance(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: Sequence[Plan], limit: float
    ) -> list[int]:
        """Carries out each plan on its run, in place; returns the updates made (fewer than asked: diverged).

        A run diverges where the mean loss of a batch without its weights is not finite or above ``limit``: losses are
        ≥ 0, so without weights they cannot cancel, nor be blown up.
        """
        ...

    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set."""
        ...
