"""Real batches, in four ways, and SGD in a bowl that they are drawn for.

A sampler draws which examples make up a batch, and with what weights their gradients enter. The problem is a finite
sum with a common Hessian, L(θ) = ½ θᵀHθ − ⟨bᵢ⟩ᵀθ, whose quadratic part every step knows exactly: only the bᵢ are
sampled, so that the gradient noise does not depend on θ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.simulation.ensemble import Advance, Draws, Dynamics, simulate

Array = NDArray[np.float64]
Drawn = tuple[NDArray[np.int64], Array | float]


class Sampler(Protocol):
    """(draws, N, S, n) → indices (S, n) of the examples in n batches, and their weights (S, n), or 1.0 for all."""

    def __call__(self, draws: Draws, examples: int, batch_size: int, n: int) -> Drawn: ...


@dataclass(frozen=True)
class Uniform:
    """Every example equally likely, with replacement: plain SGD."""

    def __call__(self, draws: Draws, examples: int, batch_size: int, n: int) -> Drawn:
        return draws.integers(examples, batch_size, n), 1.0


@dataclass(frozen=True)
class Flips:
    """Each drawn example has its label ±1 flipped with probability ``fraction``, ``label_draws`` times anew.

    For a loss that is linear in the label, the mean gradient over m labels is the gradient times 1 − 2k/m, where k of
    them were flipped. Errors: ValueError for a fraction outside 0 … 1, or label_draws < 1.
    """

    fraction: float
    label_draws: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1 or self.label_draws < 1:
            raise ValueError(
                f"fraction={self.fraction}, label_draws={self.label_draws}: use 0 <= fraction <= 1 and label_draws >= 1"
            )

    def __call__(self, draws: Draws, examples: int, batch_size: int, n: int) -> Drawn:
        flipped = draws.numpy.binomial(self.label_draws, self.fraction, size=(batch_size, n))
        return draws.integers(examples, batch_size, n), 1 - 2 * flipped / self.label_draws


@dataclass(frozen=True, eq=False)
class Importance:
    """Example i with probability qᵢ and weight 1/(N qᵢ), which keeps the mean.

    Errors: ValueError for probabilities (N,) that are not > 0 or do not sum to 1.
    """

    probabilities: Array

    def __post_init__(self) -> None:
        q = self.probabilities
        if not ((q > 0).all() and np.isclose(q.sum(), 1)):
            raise ValueError(f"probabilities run from {q.min():.3g} and sum to {q.sum():.3g}; use numbers > 0 of sum 1")

    def __call__(self, draws: Draws, examples: int, batch_size: int, n: int) -> Drawn:
        edges = np.cumsum(self.probabilities)
        edges[-1] = 1.0  # a rounded sum just below 1 would leave a gap
        index = np.searchsorted(edges, draws.numpy.random((batch_size, n)), side="right")
        return index, 1 / (examples * self.probabilities[index])


@dataclass(frozen=True, eq=False)
class Pairs:
    """S/2 examples drawn uniformly, each together with its partner.

    Errors: ValueError for a partner (N,) that is no permutation, and on drawing for an odd S.
    """

    partner: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not np.array_equal(np.sort(self.partner), np.arange(len(self.partner))):
            raise ValueError("partner is no permutation; each example must be a partner once")

    def __call__(self, draws: Draws, examples: int, batch_size: int, n: int) -> Drawn:
        if batch_size % 2:
            raise ValueError(f"batch_size={batch_size} cannot be split into pairs; use an even one")
        first = draws.integers(examples, batch_size // 2, n)
        return np.concatenate([first, self.partner[first]]), 1.0


def sampled_bowl(
    hessian: ArrayLike,
    data: ArrayLike,
    lr: float,
    batch_size: int,
    sampler: Sampler | None = None,
    added: ArrayLike | None = None,
) -> Dynamics:
    """SGD on ½ θᵀHθ − ⟨bᵢ⟩ᵀθ: θ ← θ − η (Hθ − mean of wⱼ bⱼ over the batch + ξ), ξ ~ N(0, D).

    hessian H (d, d); data b (N, d); sampler draws the batch (None: ``Uniform``); added D (d, d), covariance of Gaussian
    noise in the gradient (None: none). Errors: ValueError for shapes that do not fit, or lr ≤ 0.
    """
    H, b = np.asarray(hessian, float), np.asarray(data, float)
    if b.ndim != 2 or H.shape != (b.shape[1],) * 2 or not lr > 0:
        raise ValueError(f"hessian of shape {H.shape}, data {b.shape}, lr={lr}: use (d, d), (N, d) and lr > 0")
    b, root = np.ascontiguousarray(b), None
    if added is not None:
        values, vectors = np.linalg.eigh(np.asarray(added, float))
        root = lr * vectors * np.sqrt(values.clip(min=0))
    choose = sampler or Uniform()
    contract = np.eye(len(H)) - lr * H

    def dynamics(n: int, draws: Draws) -> Advance:
        def advance(x: Array, t: int) -> None:
            index, weight = choose(draws, len(b), batch_size, n)
            terms = b.take(index, axis=0)  # (S, n, d): whole examples lie together
            if not isinstance(weight, float):
                terms *= weight[:, :, None]
            x[:] = contract @ x + (lr / batch_size) * terms.sum(axis=0).T
            if root is not None:
                x += root @ draws.normal(*x.shape)

        return advance

    return dynamics


def stationary_squares(
    dynamics: Dynamics, minimum: ArrayLike, *, settle: int, observe: int, trajectories: int, seed: int, stream: str
) -> Array:
    """⟨(θ − θ*)²⟩ (d,) of each component, over trajectories and ``observe`` steps after ``settle`` of them.

    All start in the minimum θ* (d,); settle several 1/(2ηλ_min), the time in which the variance forgets its start.
    With H diagonal, E[L] − L* = ½ Σ λ_k ⟨(θ_k − θ*_k)²⟩.
    """
    bottom = np.asarray(minimum, float)[:, None]
    path = simulate(
        dynamics,
        bottom[:, 0],
        settle + observe,
        trajectories=trajectories,
        seed=seed,
        stream=stream,
        observe=lambda x: (x - bottom) ** 2,
        at=range(settle + 1, settle + observe + 1),
    )
    mean: Array = path.means.mean(axis=0)
    return mean
