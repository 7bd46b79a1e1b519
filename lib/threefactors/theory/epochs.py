"""Sampling by epochs: a batch that was drawn does not come again until all others have, so noise is paid back.

An epoch visits its M batches once each in a fresh random order. Near a minimum their M deviations from the mean
gradient are a fixed set that sums to zero, so that two noises of one epoch have the covariance −σ²/(M − 1), and those
of different epochs none. Two steps at the distance h lie in one epoch with the probability (M − h)₊/M, which gives

    ρ_0 = 1,   ρ_h = −(M − h)₊ / (M(M − 1)) for h ≥ 1,   1 + 2 Σ ρ_h = 0:

over long times the noise does no work. Along a direction of curvature λ with a = 1 − ηλ, the second moment of
θ' = aθ − ηε, averaged over the phase of the epoch, is η²σ²/(1 − a²) · [1 + 2 Σ_h aʰ ρ_h].
Source: Kühn & Rosenow, arXiv 2306.05300.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.theory.quadratic import check_step

Array = NDArray[np.float64]


def epoch_autocovariance(lag: ArrayLike, batches_per_epoch: int) -> Array:
    """Autocovariance of the noise over its variance: ρ_0 = 1, ρ_h = −(M − h)₊ / (M(M − 1)).

    lag h, whole numbers of steps of either sign and any shape; batches_per_epoch M ≥ 2. Averaged over the phase of the
    epoch; exact for batches that are the same from epoch to epoch or cut from a fresh permutation of the examples.
    Raises ValueError for M < 2 (one batch an epoch has no noise) and for broken lags. Source: arXiv 2306.05300.

    >>> epoch_autocovariance([0, 1, 2], batches_per_epoch=2).tolist()
    [1.0, -0.5, 0.0]
    """
    M = _batches(batches_per_epoch)
    h = np.abs(np.asarray(lag, dtype=float))
    if np.any(h != np.round(h)):
        raise ValueError(f"lag={h} is no number of steps; use whole numbers")
    return np.where(h == 0, 1.0, np.minimum(h - M, 0) / (M * (M - 1)))


def epoch_variance(curvature: ArrayLike, lr: float, batch_noise: float, batches_per_epoch: int) -> Array:
    """Stationary E θ² along a direction, averaged over the phase: η²σ²/(1 − a²) · [1 + 2 Σ_h aʰ ρ_h], a = 1 − ηλ.

    The bracket is 1 − 2a(M − 1 − Ma + a^M) / (M(M − 1)(1 − a)²).
    curvature λ > 0, of any shape, which is that of the result; lr η; batch_noise σ² the variance of the gradient of one
    batch; batches_per_epoch M ≥ 2. Validity: noise that does not depend on θ. Between η²σ²/(1 − a²), the law without
    epochs, for steep directions and ``plateau`` for flat ones. Raises ValueError outside 0 < ηλ < 2, for σ² < 0 or
    M < 2. Source: arXiv 2306.05300.
    """
    M, variance = _batches(batches_per_epoch), _kick(lr, batch_noise)
    x = lr * np.asarray(curvature, dtype=float)
    if np.any(~((x > 0) & (x < 2))):
        raise ValueError(f"lr={lr} gives ηλ={x}, outside 0 … 2; use 0 < lr < 2/λ")
    # The bracket cancels to nothing for small ηλ. Since 1 + 2 Σ ρ_h = 0 it is also −2 Σ ρ_h (1 − aʰ): all terms > 0.
    h = np.arange(1, M)
    a, small = (1 - x)[..., None], np.minimum(x, 0.5)[..., None]
    lost = np.where(a >= 0.5, -np.expm1(h * np.log1p(-small)), 1 - a**h)
    return np.asarray(variance / (x * (2 - x)) * (-2 * epoch_autocovariance(h, M) * lost).sum(axis=-1))


def plateau(lr: float, batch_noise: float, batches_per_epoch: int) -> float:
    """Variance that all flat directions share, λ → 0: η²σ²(M + 1)/6.

    It is the mean over an epoch of η²σ² m(M − m)/(M − 1), the variance after m of its M steps of a walk that
    must come back. Arguments and errors as in ``epoch_variance``.

    >>> plateau(lr=1.0, batch_noise=1.0, batches_per_epoch=5)
    1.0
    """
    return _kick(lr, batch_noise) * (_batches(batches_per_epoch) + 1) / 6


def crossover(lr: float, batches_per_epoch: int) -> float:
    """Curvature below which sampling by epochs holds the fluctuations back: λ ≈ 3/(ηM).

    There ησ²/(2λ), the law without epochs for small ηλ, meets the plateau η²σ²M/6. Validity: to leading order in 1/M.
    Raises ValueError for η ≤ 0 or M < 2. Source: arXiv 2306.05300.
    """
    check_step(lr, 1)
    return 3 / (lr * _batches(batches_per_epoch))


def _kick(lr: float, batch_noise: float) -> float:
    """η²σ²."""
    check_step(lr, 1)
    if not 0 <= batch_noise < np.inf:
        raise ValueError(f"batch_noise={batch_noise} is no variance; use batch_noise >= 0")
    return lr**2 * batch_noise


def _batches(batches_per_epoch: int) -> int:
    if not batches_per_epoch >= 2 or batches_per_epoch % 1 != 0:
        raise ValueError(f"batches_per_epoch={batches_per_epoch} has no noise to order; use a whole number >= 2")
    return int(batches_per_epoch)
