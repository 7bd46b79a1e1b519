"""SGD on linear regression: the noise of the Hessian itself, and how it lowers the stability limit.

Inputs x ~ N(0, A), A = diag(a), and labels y = xᵀθ* + ξ with E ξ² = σ² are drawn afresh for each batch. With
e = θ − θ*, Q = (1/S) Σ xxᵀ over the batch and H = A, one step is e' = (I − ηQ) e + (η/S) Σ xξ: the noise grows with
the distance from the minimum. Isserlis' theorem, E[xxᵀ Σ xxᵀ] = 2AΣA + A Tr(AΣ), closes the second moment:

    E[QΣQ] = (1 + 1/S) AΣA + (1/S) A Tr(AΣ).

At its fixed point Σ is diagonal, its entries s_i coupled only through τ = Tr(AΣ):

    s_i (2 − η(1 + 1/S) a_i) = (η/S) (σ² + τ),   hence   s_i = k_i (σ² + τ),   k_i = (η/S) / (2 − η(1 + 1/S) a_i),

and τ = Σ a_i s_i gives τ = σ² K/(1 − K) with K = Σ a_i k_i. The step of (s_i) is a matrix without negative entries;
it contracts iff every denominator is positive and K < 1, and then so do the entries off the diagonal.
Sources: Liu, Ziyin & Ueda, arXiv 2012.03636; Ziyin, Liu, Mori & Ueda, arXiv 2102.05375.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.theory.quadratic import check_step

Array = NDArray[np.float64]


def regression_limit(variances: ArrayLike, batch_size: int) -> float:
    """Largest learning rate with a finite second moment: η < 2/λ_max of the matrix (1 + 1/S) A + (1/S) √a √aᵀ.

    variances a (D,) of the inputs, the eigenvalues of H, ≥ 0 and not all 0; batch_size S. For equal variances it is
    2S / (a(S + D + 1)); for S → ∞ it is 2/a_max, the limit of the bowl without noise. Exact for Gaussian inputs.
    Raises ValueError for negative or vanishing variances, or S < 1. Source: K(η) = 1 is the determinant of 2/η less
    that matrix, by the matrix determinant lemma.

    >>> round(regression_limit([1.0, 1.0], batch_size=3), 12)
    1.0
    """
    a, S = _variances(variances), batch_size
    check_step(1.0, S)
    return 2 / float(np.linalg.eigvalsh((1 + 1 / S) * np.diag(a) + np.sqrt(np.outer(a, a)) / S)[-1])


def regression_covariance(variances: ArrayLike, label_noise: float, lr: float, batch_size: int) -> Array:
    """Stationary variances s (D,) of SGD around the true weights: s_i = k_i (σ² + τ); the covariance is diag(s).

    variances a (D,) of the inputs, > 0; label_noise σ² ≥ 0, a variance; lr η; batch_size S. For equal variances
    s = ησ² / (S[2 − ηa(1 + (D + 1)/S)]). Exact for Gaussian inputs drawn afresh for each batch.
    Raises ValueError for η beyond ``regression_limit``, where the variance is infinite. Source: see the module.

    >>> regression_covariance([1.0], label_noise=1.0, lr=1.0, batch_size=4)
    array([0.5])
    """
    a, k, tau = _fixed_point(variances, label_noise, lr, batch_size)
    if np.any(a == 0):
        raise ValueError(f"variances={a} has a direction without inputs, which never moves; use variances > 0")
    return k * (label_noise + tau)


def regression_excess_loss(variances: ArrayLike, label_noise: float, lr: float, batch_size: int) -> float:
    """Stationary E[L] − L* = ½ τ = ½ σ² K/(1 − K), with L = ½ E (y − xᵀθ)² over fresh examples and L* = ½ σ².

    Arguments, validity and errors as in ``regression_covariance``, except that directions with a_i = 0 may be
    there: they cost nothing. To first order in η it is (η/4S) Tr C with C = σ² A.
    """
    return 0.5 * _fixed_point(variances, label_noise, lr, batch_size)[2]


def _fixed_point(variances: ArrayLike, label_noise: float, lr: float, batch_size: int) -> tuple[Array, Array, float]:
    """a, k and τ."""
    a, eta, S = _variances(variances), lr, batch_size
    check_step(eta, S)
    if not 0 <= label_noise < np.inf:
        raise ValueError(f"label_noise={label_noise} is no variance; use label_noise >= 0")
    limit = regression_limit(a, S)
    if not eta < limit:
        raise ValueError(
            f"lr={eta} with batch_size={S} and a_max={a.max():.3g} has an infinite variance; use 0 < lr < {limit:.3g}"
        )
    k = (eta / S) / (2 - eta * (1 + 1 / S) * a)
    K = float((a * k).sum())
    return a, k, label_noise * K / (1 - K)


def _variances(variances: ArrayLike) -> Array:
    a = np.atleast_1d(np.asarray(variances, dtype=float))
    if a.ndim != 1 or not np.isfinite(a).all() or np.any(a < 0) or not np.any(a > 0):
        raise ValueError(f"variances={a} are not those of inputs; use (D,) numbers >= 0, not all of them 0")
    return a
