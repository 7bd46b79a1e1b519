"""Small stacks of networks in float64, on which measurement is tested.

>>> [case.name for case in CASES][:2]
['linear regression', 'softmax regression']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)


def half_square(outputs: Tensor, y: Tensor) -> Tensor:
    """½ (output − y)² of a single output."""
    return (outputs[..., 0] - y) ** 2 / 2


@dataclass(frozen=True)
class MLP:
    """Losses of a stack of fully connected networks; per layer θ holds the weights, then the biases."""

    widths: tuple[int, ...]
    activation: Callable[[Tensor], Tensor] = torch.relu
    criterion: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    bias: bool = True
    batch_norm: bool = False

    @property
    def parameters(self) -> int:
        return sum(a * b + b * self.bias for a, b in zip(self.widths, self.widths[1:], strict=False))

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        h, start, last = x, 0, len(self.widths) - 2
        for layer, (a, b) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            h = h @ theta[:, start : start + a * b].view(-1, a, b)
            start += a * b
            if self.bias:
                h = h + theta[:, None, start : start + b]
                start += b
            if layer < last:
                if self.batch_norm:
                    h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
                h = self.activation(h)
        return h

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.outputs(theta, x), y)


@dataclass(frozen=True)
class Case:
    """Losses with the arguments to take their curvature at."""

    name: str
    losses: MLP
    theta: Tensor
    x: Tensor
    y: Tensor

    @property
    def args(self) -> tuple[MLP, Tensor, Tensor, Tensor]:
        return self.losses, self.theta, self.x, self.y

    def run(self, *rows: int) -> tuple[MLP, Tensor, Tensor, Tensor]:
        """The arguments of the given runs alone, in memory of their own."""
        index = list(rows)
        return self.losses, self.theta[index], self.x[index], self.y[index]


def case(name: str, losses: MLP, *, R: int = 3, B: int = 11, shared: bool = False, seed: int = 0) -> Case:
    """Random weights and data; `shared` data are one copy expanded over the runs."""
    g = torch.Generator().manual_seed(seed)
    n = 1 if shared else R
    x = torch.randn(n, B, losses.widths[0], generator=g, dtype=torch.float64)
    if losses.criterion is half_square:
        y = torch.randn(n, B, generator=g, dtype=torch.float64)
    else:
        y = torch.randint(losses.widths[-1], (n, B), generator=g)
    theta = torch.randn(R, losses.parameters, generator=g, dtype=torch.float64) * 0.6
    return Case(name, losses, theta, x.expand(R, -1, -1), y.expand(R, -1))


CASES = [
    case("linear regression", MLP((4, 1), criterion=half_square, bias=False)),
    case("softmax regression", MLP((5, 3)), shared=True),
    case("tanh MLP", MLP((4, 5, 3), torch.tanh)),
    case("ReLU MLP", MLP((4, 6, 5, 3)), R=2, B=17, shared=True),
    case("tanh MLP, square loss", MLP((3, 6, 1), torch.tanh, half_square)),
    case("batch norm", MLP((4, 5, 3), torch.tanh, batch_norm=True), R=2),
]

# BLAS rounds by the alignment of its operands in memory. Where the matrices of each run fill whole
# cache lines (here 8 numbers), a run is the same bit for bit wherever in a stack it stands.
ALIGNED = [
    case("aligned softmax regression", MLP((8, 8), bias=False), B=16),
    case("aligned tanh MLP", MLP((8, 16, 8), torch.tanh), B=16, R=5, shared=True),
    case("aligned ReLU MLP", MLP((8, 8, 16, 8)), B=24),
    case("aligned batch norm", MLP((8, 16, 8), batch_norm=True), B=32),
]
