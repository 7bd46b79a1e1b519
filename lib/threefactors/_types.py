"""Types shared by every layer, and the letters used for axes.

Axis letters, in shapes and in comments:

====  ==========================================
R     runs: the networks of a stack, always first
P     parameters: the length of one flat θ
B     examples of a batch (or of any data given)
N     examples of the training set
K     outputs (classes), or eigenpairs
T     times
V     probe vectors of a stochastic estimator
====  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Losses(Protocol):
    """Per-example losses of a stack: all that measurement knows about a network.

    ``losses(theta, x, y) == losses.criterion(losses.outputs(theta, x), y)``.
    """

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(R, P), (R, B, ...), (R, B) → (R, B)."""
        ...

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """(R, P), (R, B, ...) → (R, B, K)."""
        ...

    def criterion(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(R, B, K), (R, B) → (R, B)."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo estimate for each run of a stack.

    ``value`` (R,) is the estimate, ``stderr`` (R,) its standard error (one standard
    deviation of the estimator, itself estimated from the spread of the ``n`` samples).
    """

    value: Tensor
    stderr: Tensor
    n: int
