"""A bowl whose gradient covariance is changed in every way of the theorem: the simulation beside the closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors._rng import numpy_generator
from threefactors.simulation.samplers import (
    Flips,
    Importance,
    Pairs,
    Sampler,
    Uniform,
    sampled_bowl,
    stationary_squares,
)
from threefactors.theory.quadratic import excess_loss, stationary_covariance
from threefactors.theory.third_factor import (
    added_noise,
    example_noise,
    importance_noise,
    opposite_partners,
    paired_noise,
    quietest_probabilities,
    relabeled_noise,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Change:
    """One way of drawing a batch, its strength, and the covariance C (d, d) that the theorem gives for it.

    added (d, d) is the covariance of noise added to the batch gradient; keep what is left of the mean gradient.
    """

    way: str
    strength: str
    sampler: Sampler
    noise: Array
    added: Array | None = None
    keep: float = 1.0


def skewed_examples(examples: int = 64) -> Array:
    """Data b (examples, 4) of uneven lengths and a mean that is not zero, so that each way changes their noise."""
    rng = numpy_generator(0, "third factor")
    data: Array = rng.normal(size=(examples, 4)) * np.exp(0.5 * rng.normal(size=(examples, 1)))
    return data + np.array([0.6, 0.4, -0.6, 0.8])


def changes(hessian: Array, data: Array, batch_size: int) -> Iterator[Change]:
    """The ways of the theorem, each in three strengths, after plain sampling.

    hessian H (d, d); data b (N, d), b_i = y_i v_i with a label y_i = ±1; batch_size S, even. Flips turn the sign of
    b_i, m = 1 unless named; label draws have p = 1/4; added noise has the trace of the batch's own.
    """
    C, both = example_noise(data), np.stack([-data, data], axis=1)
    yield Change("plain", "", Uniform(), C)
    for p in (0.1, 0.25, 0.5):
        yield Change("label flips", f"p = {p}", Flips(p), relabeled_noise(both, [1 - p, p]), keep=1 - 2 * p)
    for m in (2, 4, 8):
        yield Change("label draws", f"m = {m}", Flips(0.25, m), relabeled_noise(both, [0.75, 0.25], m), keep=0.5)
    for name, shape in {"I": np.eye(len(C)), "H": hessian, "C/S": C}.items():
        D = shape * np.trace(C) / np.trace(shape) / batch_size
        yield Change("added noise", name, Uniform(), added_noise(C, D, batch_size), added=D)
    for power in (-1, 0.5, 1):
        q = quietest_probabilities(data, power)
        yield Change("importance", f"power {power}", Importance(q), importance_noise(data, q))
    shuffled = numpy_generator(0, "partners").permutation(len(data))
    partners = {"opposite": opposite_partners(data), "equal": np.arange(len(data)), "random": shuffled}
    for name, partner in partners.items():
        yield Change("pairs", name, Pairs(partner), paired_noise(data, partner))


def heights_in_bowl(curvatures: Array, lr: float, batch_size: int, seeds: int, **times: Any) -> pd.DataFrame:
    """Stationary E[L] − L* of a bowl with H = diag(curvatures) under every one of the ``changes``.

    times: settle, observe and trajectories of ``stationary_squares``. Columns: way, change, seed, loss, predicted_loss
    (general relation, with the closed form of C) and three_factor (the same with H for C).
    """
    H, data, rows = np.diag(curvatures), skewed_examples(), []
    for one in changes(H, data, batch_size):
        bowl = sampled_bowl(H, data, lr, batch_size, one.sampler, one.added)
        change = f"{one.way} {one.strength}".strip()
        row = {
            "way": one.way,
            "change": change,
            "predicted_loss": excess_loss(H, one.noise, lr, batch_size),
            "three_factor": excess_loss(H, H, lr, batch_size),
        }
        bottom = one.keep * data.mean(axis=0) / curvatures
        for seed in range(seeds):
            squares = stationary_squares(bowl, bottom, seed=seed, stream=change, **times)
            rows.append(row | {"seed": seed, "loss": curvatures @ squares / 2})
    return pd.DataFrame(rows)


def clouds_in_bowl(curvatures: Array, lr: float, batch_size: int, seeds: int, **times: Any) -> pd.DataFrame:
    """⟨θ_k²⟩ along each eigenvector of H = diag(curvatures), for C ∝ H, I, H² with Tr C = Tr H.

    The examples are given exactly this covariance. Columns: noise, curvature, direction, seed, spread, loss (of all
    directions), and the predictions general and three_factor of the spread, loss_three_factor of the loss.
    """
    H, data, parts = np.diag(curvatures), skewed_examples(), []
    white = (data - data.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(example_noise(data))).T
    for noise, power in {"C = H": 1, "C = I": 0, "C = H²": 2}.items():
        values = curvatures**power * curvatures.sum() / (curvatures**power).sum()
        bowl = sampled_bowl(H, white * np.sqrt(values), lr, batch_size)
        laws = {
            name: np.diag(stationary_covariance(H, C, lr, batch_size))
            for name, C in {"general": np.diag(values), "three_factor": H}.items()
        }
        for seed in range(seeds):
            squares = stationary_squares(bowl, 0 * values, seed=seed, stream=noise, **times)
            columns = {"curvature": curvatures, "direction": [f"λ = {v:g}" for v in curvatures], "spread": squares}
            part = pd.DataFrame(columns | laws).assign(noise=noise, seed=seed, loss=curvatures @ squares / 2)
            parts.append(part.assign(loss_three_factor=excess_loss(H, H, lr, batch_size)))
    return pd.concat(parts, ignore_index=True)
