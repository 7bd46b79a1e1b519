"""SGD in a quadratic bowl L(θ) = L* + ½ θᵀHθ with gradient noise of covariance C/S, exactly.

One step is θ' = (I − ηH) θ − η ε with E ε = 0 and E εεᵀ = C/S, independent of θ. Taking the second moment on both
sides and calling its fixed point Σ gives HΣ + ΣH − ηHΣH = (η/S) C. To first order in η this is the Lyapunov
equation of the Ornstein–Uhlenbeck process of arXiv 1711.04623.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def stability_limit(sharpness: float | Array) -> float | Array:
    """Largest learning rate that does not amplify deviations: |1 − ηλ| < 1 gives η < 2/λ_max.

    sharpness λ_max > 0. Raises ValueError where it is not: such a direction has no minimum to leave.

    >>> stability_limit(4.0)
    0.5
    """
    if np.any(~(np.asarray(sharpness) > 0)):
        raise ValueError(f"sharpness={sharpness} is not > 0; only along positive curvature is there a limit")
    return 2 / sharpness


def stationary_covariance(hessian: Array, noise: Array, lr: float, batch_size: int) -> Array:
    """Stationary covariance Σ (P, P) of SGD with replacement: HΣ + ΣH − ηHΣH = (η/S) C.

    hessian H (P, P) symmetric positive definite; noise C (P, P) the covariance of one example's gradient, symmetric
    positive semidefinite; lr η; batch_size S. With C = H this is (η/S) (2I − ηH)⁻¹, close to (η/2S) I for small ηH.
    Solved in the eigenbasis of H, entry by entry: Σ_ij (λ_i + λ_j − ηλ_iλ_j) = (η/S) C_ij.
    Raises ValueError outside 0 < ηλ_max < 2, where no stationary state exists.
    Source: fixed point of the second moment (see the module); Liu, Ziyin & Ueda, arXiv 2012.03636.

    >>> stationary_covariance(np.eye(1), np.eye(1), lr=1.0, batch_size=1)
    array([[1.]])
    """
    H, C, eta, S = hessian, noise, lr, batch_size
    for name, matrix in (("hessian", H), ("noise", C)):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
            raise ValueError(
                f"{name} of shape {matrix.shape} is not a symmetric matrix; use ({name} + its transpose)/2"
            )
    if C.shape != H.shape:
        raise ValueError(f"noise has shape {C.shape}, hessian {H.shape}; use equal shapes")
    if S < 1:
        raise ValueError(f"batch_size={S} is no batch; use batch_size >= 1")
    values, vectors = np.linalg.eigh(H)
    if values[0] <= 0:
        raise ValueError(
            f"hessian has the eigenvalue {values[0]:.3g}; every eigenvalue must be > 0 for a stationary state"
        )
    if np.linalg.eigvalsh(C)[0] < -1e-9 * max(1.0, float(np.abs(C).max())):
        raise ValueError(f"noise has the eigenvalue {np.linalg.eigvalsh(C)[0]:.3g}; a covariance has none below 0")
    if not 0 < eta < stability_limit(values[-1]):
        raise ValueError(
            f"lr={eta} with λ_max={values[-1]:.3g} gives ηλ={eta * values[-1]:.3g}, outside 0 … 2; "
            f"use 0 < lr < {stability_limit(values[-1]):.3g}"
        )
    rates = values[:, None] + values[None, :] - eta * values[:, None] * values[None, :]
    covariance: Array = vectors @ ((eta / S) * (vectors.T @ C @ vectors) / rates) @ vectors.T
    return covariance


def excess_loss(hessian: Array, noise: Array, lr: float, batch_size: int) -> float:
    """Stationary E[L] − L* = ½ Tr(HΣ), which is (η/4S) Tr C to first order in η, for any C.

    Arguments, validity and errors as in ``stationary_covariance``.
    """
    return 0.5 * float(np.trace(hessian @ stationary_covariance(hessian, noise, lr, batch_size)))
