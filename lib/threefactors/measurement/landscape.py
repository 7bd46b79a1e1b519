"""The landscape cut open: a function of θ along lines and in planes, and how sharply it rises there.

What is cut is any f: (R, P) → (R, ...), a function of the parameters alone, such as the loss over the whole training
set; where batch normalization takes its statistics from that set, they are taken anew at every point of the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactors.measurement.draws import check_generators
from threefactors.measurement.operators import StackOperator

Height = Callable[[Tensor], Tensor]
"""θ (R, P) ↦ f(θ) (R, ...)."""


def along(f: Height, theta: Tensor, direction: Tensor, at: Sequence[float]) -> Tensor:
    """f on a line through each of R networks: f(θ + t d) for each t, (R, T, ...).

    theta (R, P); direction d (R, P), in the unit of θ for each unit of t. Raises ValueError where the shapes differ.
    """
    _same_shape("theta", theta, "direction", direction)
    return torch.stack([f(theta + t * direction) for t in at], dim=1)


def toward(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """From one network to another: unit vectors u (R, P) and distances ‖θ₂ − θ₁‖ (R,).

    first, second (R, P): networks of one architecture. Raises ValueError where their shapes differ, or where the two
    networks of a pair are the same one, which no line joins.
    """
    _same_shape("first", first, "second", second)
    step = second - first
    distance = torch.linalg.vector_norm(step, dim=1)
    if (distance == 0).any():
        where = int((distance == 0).int().argmax())
        raise ValueError(f"pair {where} is one network twice; a line needs two that differ")
    return step / distance[:, None], distance


def curvature_along(op: StackOperator, direction: Tensor) -> Tensor:
    """Curvature of the cut at t = 0, uᵀA u (R,) with u = d/‖d‖; between λ_min and λ_max of A.

    op: R Hessians; direction d (R, P) of any length > 0. Raises ValueError for a direction of length 0.
    """
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    if not (length > 0).all():
        raise ValueError("direction has length 0 in some run; use d with ‖d‖ > 0")
    u = direction / length
    return (u.double() * (op @ u).double()).sum(1)


def symmetric_rise(f: Height, theta: Tensor, direction: Tensor, distance: Tensor) -> Tensor:
    """Rise of f at a distance r, the mean of both sides: ½[f(θ + r d) + f(θ − r d)] − f(θ), (R,).

    The slope cancels, and what is left is curvature: exactly (r²/2) ∫ w(s) dᵀH(θ + s d) d ds with the triangular
    weight w(s) = (r − |s|)/r² on [−r, r], which integrates to 1. (Integrate by parts twice.)

    theta, direction (R, P), distance r (R,), f: (R, P) → (R,).
    """
    _same_shape("theta", theta, "direction", direction)
    step = distance[:, None] * direction
    return (f(theta + step) + f(theta - step)) / 2 - f(theta)


def half_width(distances: Tensor, rises: Tensor, level: float) -> Tensor:
    """Distance at which a rise first reaches a level (R,), straight between the points; inf where it never does.

    distances (T,) from 0 upwards; rises f(t) − f(0), (R, T). Raises ValueError for a level ≤ 0, or distances that do
    not ascend from 0.
    """
    if not level > 0:
        raise ValueError(f"level={level} is reached at once; use a rise > 0")
    if len(distances) < 2 or distances[0] != 0 or not (distances.diff() > 0).all():
        raise ValueError("distances must ascend from 0, in two points at least")
    above = rises >= level
    stop = above.int().argmax(1).clamp(min=1)  # argmax finds the first
    rows = torch.arange(len(rises))
    low, high = rises[rows, stop - 1], rises[rows, stop]
    share = (level - low) / (high - low)
    width = distances[stop - 1] + share * (distances[stop] - distances[stop - 1])
    return torch.where(above.any(1), width, torch.inf)


def filter_directions(theta: Tensor, filters: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Random directions with filter normalization, (R, P): d_F = ‖θ_F‖ g_F/‖g_F‖ for each filter F, g Gaussian.

    A filter is all that feeds one unit. Let D multiply each filter by a positive number: then D d is the direction of
    Dθ, so that a rescaling of filters that leaves the loss the same leaves the cut along d the same.

    theta (R, P); filters (P,) numbers each filter 0, 1, …, and −1 what is kept as it is (biases, gains and shifts);
    generators: one a run. Raises ValueError for filters of another length or a wrong number of generators.
    Li et al., arXiv 1712.09913.
    """
    R, P = theta.shape
    check_generators(generators, R)
    if filters.shape != (P,):
        raise ValueError(f"filters has shape {tuple(filters.shape)}; use one number for each parameter, ({P},)")
    index, moved = filters.clamp(min=0), filters >= 0
    draws = torch.stack([torch.randn(P, generator=g, dtype=torch.float64) for g in generators]).to(theta)
    draws = draws * moved
    squares = theta.new_zeros(2, R, int(index.max()) + 1)
    for total, values in zip(squares, (theta * moved, draws), strict=True):
        total.index_add_(1, index, values.square())
    scale = (squares[0] / squares[1].clamp(min=torch.finfo(theta.dtype).tiny)).sqrt()
    return draws * scale[:, index]


@dataclass(frozen=True)
class Plane:
    """The plane through three networks: θ(a, b) = origin + a right + b up, with orthonormal right and up (P,).

    points (3, 2): where the three lie, the first at (0, 0), the second at (‖θ₂ − θ₁‖, 0).
    """

    origin: Tensor
    right: Tensor
    up: Tensor
    points: Tensor

    @classmethod
    def through(cls, first: Tensor, second: Tensor, third: Tensor) -> Plane:
        """Of three networks (P,) each. Raises ValueError where their shapes differ or they lie on one line."""
        _same_shape("first", first, "second", second)
        _same_shape("first", first, "third", third)
        right, across = second - first, third - first
        width = torch.linalg.vector_norm(right)
        reach = torch.linalg.vector_norm(across)
        right = right / width
        offset = across @ right
        up = across - offset * right
        height = torch.linalg.vector_norm(up)
        if not height > 100 * torch.finfo(first.dtype).eps * reach:
            raise ValueError("the three networks lie on one line, which is in many planes; use three that do not")
        points = torch.stack([torch.zeros(2).to(first), torch.stack([width, 0 * width]), torch.stack([offset, height])])
        return cls(first, right, up / height, points)

    def heights(self, f: Height, a: Sequence[float], b: Sequence[float]) -> Tensor:
        """f over the grid, (A, B, ...)."""
        across = torch.as_tensor(b, dtype=self.origin.dtype, device=self.origin.device)[:, None] * self.up
        return torch.stack([f(self.origin + s * self.right + across) for s in a])


def _same_shape(name: str, theta: Tensor, other_name: str, other: Tensor) -> None:
    if theta.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(theta.shape)} and {other_name} {tuple(other.shape)}; "
            "a line needs networks of one architecture, given run by run"
        )
