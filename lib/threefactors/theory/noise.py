"""The noise of a batch: its exact covariance, its kurtosis, and how far out it is still Gaussian.

A training set is a finite population of N gradients g_i with mean g and covariance C = (1/N) Σ g_i g_iᵀ − g gᵀ. The
noise of a batch, g_S − g, is the mean of S draws from it. Drawn with replacement the draws are independent; drawn
without, each excludes the others, and the noise of the full batch is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
BINS = 1 << 15  # of the grid on which the law of a sum is computed


def batch_covariance(covariance: ArrayLike, examples: int, batch_size: int, replacement: bool = False) -> Array:
    """Covariance of the mean of a batch: C/S with replacement, (1/S − 1/N) · N/(N−1) · C without.

    covariance C (P, P), or the variance along one direction; examples N; batch_size S. Exact for every population.
    Without replacement two different draws have covariance −C/(N−1), so that S² Cov g_S = S C − S(S−1) C/(N−1).
    Errors: ValueError for C that is not symmetric positive semidefinite, S < 1, or S > N or N < 2 without replacement.
    Source: Cochran, Sampling Techniques (1977), theorem 2.2; arXiv 1711.04623 uses its limit C/S for S ≪ N.

    >>> float(batch_covariance(1.0, examples=5, batch_size=5))
    0.0
    >>> float(batch_covariance(1.0, examples=5, batch_size=2))
    0.375
    """
    C = np.asarray(covariance, dtype=float)
    factor = variance_factor(batch_size, None if replacement else examples)
    if C.ndim not in (0, 2) or (C.ndim == 2 and (C.shape[0] != C.shape[1] or not np.allclose(C, C.T))):
        raise ValueError(f"covariance of shape {C.shape} is not a symmetric matrix; use (C + its transpose)/2")
    least = float(C if C.ndim == 0 else np.linalg.eigvalsh(C)[0])
    if not least >= -1e-9 * max(1.0, float(np.abs(C).max())):
        raise ValueError(f"covariance has the eigenvalue {least:.3g}; a covariance has none below 0")
    return np.asarray(factor * C)


def variance_factor(batch_size: int, examples: int | None = None) -> float:
    """What a batch leaves of the variance of one draw: p = 1/S, or p = (N − S)/(S(N − 1)) without replacement.

    batch_size S; examples N, of which every batch takes S different ones (None: the draws are independent).
    Errors: ValueError for S < 1, and without replacement for S > N or N < 2. Source: as ``batch_covariance``.

    >>> variance_factor(2), variance_factor(2, examples=5)
    (0.5, 0.375)
    """
    N, S = examples, batch_size
    _check_batch(N or 0, S, N is None)
    return 1 / S if N is None else (N - S) / (S * (N - 1))


def batch_kurtosis(kurtosis: ArrayLike, examples: int, batch_size: int, replacement: bool = False) -> Array:
    """Excess kurtosis of the mean of a batch along one direction: close to κ/S, so that it fades as S grows.

    With replacement cumulants add up: S κ_4/(S κ_2)² makes exactly κ/S. Without, put p_k = Σ x_i^k over the centered
    population and π_k for the chance that k given examples are all in the batch; sorting the terms of E(Σ_batch x)⁴
    by which indices agree gives (π_1 − 7π_2 + 12π_3 − 6π_4) p_4 + 3(π_2 − 2π_3 + π_4) p_2².

    kurtosis κ = N p_4/p_2² − 3 ≥ −2 of the population, any shape; examples N; batch_size S. Errors: ValueError for
    κ < −2, S < 1, and without replacement for N < 4 or S ≥ N, where no noise is left.
    """
    kappa, N, S = np.asarray(kurtosis, dtype=float), examples, batch_size
    _check_batch(N, S, replacement)
    if np.any(~(kappa >= -2)):
        raise ValueError(f"kurtosis={kappa} is below −2, which no distribution has; use the excess over 3")
    if replacement:
        return np.asarray(kappa / S)
    if N < 4 or S >= N:
        raise ValueError(f"batch_size={S} of examples={N} leaves no noise to describe; use 4 <= N and S < N")
    taken = (S - np.arange(4.0)) / (N - np.arange(4.0))
    p1, p2, p3, p4 = np.cumprod(taken)
    # in units of the population's σ⁴: p_2² = N², p_4 = N(κ + 3)
    fourth = (p1 - 7 * p2 + 12 * p3 - 6 * p4) * N * (kappa + 3) + 3 * (p2 - 2 * p3 + p4) * N**2
    return np.asarray(fourth / (S * (N - S) / (N - 1)) ** 2 - 3)


def tail_probability(values: ArrayLike, batch_size: int, beyond: Sequence[float]) -> Array:
    """P(|mean of S draws − its mean| > u standard deviations) for each u, draws with replacement from ``values``.

    The characteristic function of a sum of S independent draws is ψ(k)^S. On a grid of 2^15 bins (a value is split
    between its two neighbors, which keeps the mean) the powers are taken by a Fourier transform, so that even
    probabilities far below 1e-6 need no simulation; the grid blurs u by about 1 %. values (N,); batch_size S;
    beyond: thresholds u > 0. Without replacement it holds for S ≪ N.
    Errors: ValueError for S < 1, values without spread, or u ≤ 0.
    """
    x = np.asarray(values, dtype=float).ravel()
    _check_batch(len(x), batch_size, True)
    if any(not u > 0 for u in beyond):
        raise ValueError(f"beyond={list(beyond)} must be > 0 standard deviations")
    sigma = x.std()
    if not sigma > 0:
        raise ValueError(f"{len(x)} values without spread have no tail; give at least two different ones")
    z = (x - x.mean()) / (sigma * np.sqrt(batch_size))  # a sum of S of them has variance 1
    half = max(12.0, 1.2 * np.abs(z).max() + 9.0)  # what lies beyond would come back around the circle
    width = 2 * half / BINS
    place = z / width
    left = np.floor(place)
    mass = np.zeros(BINS)
    np.add.at(mass, left.astype(int) % BINS, (1 - (place - left)) / len(z))
    np.add.at(mass, (left.astype(int) + 1) % BINS, (place - left) / len(z))
    law = np.fft.irfft(np.fft.rfft(mass) ** batch_size, BINS)
    where = np.abs(np.fft.fftfreq(BINS, 1 / BINS)) * width
    return np.array([law[where > u].sum() for u in beyond])


def _check_batch(examples: int, batch_size: int, replacement: bool) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is no batch; use batch_size >= 1")
    if not replacement and (examples < 2 or batch_size > examples):
        raise ValueError(
            f"batch_size={batch_size} cannot be drawn without replacement from {examples} examples; "
            f"use batch_size <= {examples} and at least 2 examples, or replacement=True"
        )
