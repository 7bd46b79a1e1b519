"""Batches drawn from a finite population, by the hundred thousand, and the shape of their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from threefactors._rng import numpy_generator

Array = NDArray[np.float64]
AT_ONCE = 32  # shuffled passes held in memory


@dataclass(frozen=True, eq=False)
class MeansOfBatches:
    """Of so many ``batches``: ``variance`` (V,), ``excess_kurtosis`` (V,), and ``tails`` (V, U), the share of means
    farther from the population's mean than u of their standard deviations."""

    batches: int
    variance: Array
    excess_kurtosis: Array
    tails: Array


def means_of_batches(
    values: Array, batch_sizes: Sequence[int], *, beyond: Sequence[float], passes: int, seed: int
) -> dict[int, MeansOfBatches]:
    """Means of batches drawn without replacement, as sampling by epochs draws them, for each batch size.

    values (V, N): V features of the N examples, such as projections of their gradients; the population is shuffled
    ``passes`` times and cut into ⌊N/S⌋ batches each time. All features and sizes share the shuffles.
    Errors: ValueError for a batch size outside 1 … N − 1, or passes < 1.
    """
    V, N = values.shape
    if not batch_sizes or min(batch_sizes) < 1 or max(batch_sizes) >= N or passes < 1:
        raise ValueError(f"batch_sizes={list(batch_sizes)}, passes={passes}: use 1 <= S < N = {N} and passes >= 1")
    rng = numpy_generator(seed, "batches")
    centered = values - values.mean(1, keepdims=True)
    found: dict[int, list[Array]] = {S: [] for S in batch_sizes}
    for done in range(0, passes, AT_ONCE):
        order = np.tile(np.arange(N), (min(AT_ONCE, passes - done), 1))
        sums = {1: centered[:, rng.permuted(order, axis=1)]}  # (V, passes, N)
        for S in sorted(batch_sizes):
            part = max(s for s in sums if S % s == 0)  # sums of larger batches are made of those of smaller ones
            sums[S] = _sum_of(sums[part], S // part, N // S)
            found[S].append(sums[S].reshape(V, -1))
    return {S: _shape(np.concatenate(sums, axis=1), S, beyond) for S, sums in found.items()}


def _sum_of(parts: Array, together: int, count: int) -> Array:
    """Sums of so many neighbors along the last axis, the first ``count`` of them."""
    total = parts[..., : count * together : together].copy()
    for j in range(1, together):
        total += parts[..., j : count * together : together]
    return total


def _shape(sums: Array, S: int, beyond: Sequence[float]) -> MeansOfBatches:
    square = sums**2  # around the population's mean, which is 0
    variance = square.mean(1)
    kurtosis = (square**2).mean(1) / variance**2 - 3
    tails = np.stack([(square > u**2 * variance[:, None]).mean(1) for u in beyond], axis=1)
    return MeansOfBatches(sums.shape[1], variance / S**2, kurtosis, tails)
