"""SGD in a quadratic bowl L(θ) = L* + ½ θᵀHθ with gradient noise of covariance C/S, exactly.

One step is θ' = (I − ηH) θ − η ε with E ε = 0 and E εεᵀ = C/S, independent of θ. Taking the second moment on both
sides and calling its fixed point Σ gives HΣ + ΣH − ηHΣH = (η/S) C. To first order in η this is the Lyapunov
equation of the Ornstein–Uhlenbeck process of arXiv 1711.04623 (``ou``). Everything is solved in the eigenbasis of H,
where the entries of Σ do not mix.
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
    values, vectors, C = eigenbasis(hessian, noise)
    return vectors @ _stationary(values, C, lr, batch_size) @ vectors.T


def covariance_after(
    hessian: Array, noise: Array, lr: float, batch_size: int, steps: int | NDArray[np.int64], start: Array | None = None
) -> Array:
    """Covariance of θ after t steps of SGD, exactly: Σ_t = Σ + (I − ηH)ᵗ (Σ_0 − Σ) (I − ηH)ᵗ.

    steps t ≥ 0, of any shape, to which the result adds (P, P); start Σ_0 (P, P), a covariance (None: zero, every
    trajectory leaves from one point); the others, Σ, validity and errors as in ``stationary_covariance``.
    Source: the recursion of the module less its fixed point.
    """
    t = np.asarray(steps)
    if np.any(t < 0) or np.any(t != np.round(t)):
        raise ValueError(f"steps={steps} is no number of steps; use whole numbers >= 0")
    values, vectors, C = eigenbasis(hessian, noise)
    stationary = _stationary(values, C, lr, batch_size)
    return forgetting((1 - lr * values) ** t[..., None], vectors, stationary, start)


def excess_loss(hessian: Array, noise: Array, lr: float, batch_size: int) -> float:
    """Stationary E[L] − L* = ½ Tr(HΣ), which is (η/4S) Tr C to first order in η, for any C.

    Arguments, validity and errors as in ``stationary_covariance``.
    """
    return 0.5 * float(np.trace(hessian @ stationary_covariance(hessian, noise, lr, batch_size)))


def relaxation_steps(curvature: float | Array, lr: float) -> Array:
    """Steps in which what the start adds to E θ² along a direction falls by 1/e: −1 / ln (1 − ηλ)².

    curvature λ > 0, of any shape; lr η. Zero at ηλ = 1, where one step forgets all; close to 1/(2ηλ) for small ηλ.
    Raises ValueError outside 0 < ηλ < 2, where nothing is forgotten.
    """
    x = lr * np.asarray(curvature, dtype=float)
    if np.any(~((x > 0) & (x < 2))):
        raise ValueError(f"lr={lr} with curvature={curvature} gives ηλ={x}, outside 0 … 2; use 0 < lr < 2/λ")
    with np.errstate(divide="ignore"):  # ln 0 at ηλ = 1
        return np.asarray(-1 / np.log1p(-x * (2 - x)))


# What the laws of the bowl share: their checks, their basis, and how the start is forgotten.


def check_symmetric(matrix: Array, name: str) -> float:
    """Raises ValueError unless the matrix (P, P) is symmetric up to rounding; returns how much counts as rounding."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} of shape {matrix.shape} is not a symmetric matrix; use (P, P)")
    rounding = 1e-9 * float(np.abs(matrix).max())
    if not np.allclose(matrix, matrix.T, rtol=0, atol=rounding):
        raise ValueError(f"{name} of shape {matrix.shape} is not a symmetric matrix; use ({name} + its transpose)/2")
    return rounding


def check_covariance(matrix: Array, name: str) -> None:
    """Raises ValueError unless the matrix (P, P) is symmetric positive semidefinite up to rounding."""
    rounding = check_symmetric(matrix, name)
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    if smallest < -rounding:
        raise ValueError(f"{name} has the eigenvalue {smallest:.3g}; a covariance has none below 0")


def check_step(lr: float, batch_size: int) -> None:
    """Raises ValueError unless η > 0 and S ≥ 1."""
    if not 0 < lr < np.inf:
        raise ValueError(f"lr={lr} is no step; use lr > 0")
    if not batch_size >= 1:
        raise ValueError(f"batch_size={batch_size} is no batch; use batch_size >= 1")


def eigenbasis(hessian: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues λ (P,) and eigenvectors U (P, P) of H, and Uᵀ C U.

    Raises ValueError unless H is symmetric positive definite and C symmetric positive semidefinite, of equal shapes.
    """
    check_symmetric(hessian, "hessian")
    check_covariance(noise, "noise")
    if noise.shape != hessian.shape:
        raise ValueError(f"noise has shape {noise.shape}, hessian {hessian.shape}; use equal shapes")
    values, vectors = np.linalg.eigh(hessian)
    if values[0] <= 0:
        raise ValueError(
            f"hessian has the eigenvalue {values[0]:.3g}; every eigenvalue must be > 0 for a stationary state"
        )
    return values, vectors, vectors.T @ noise @ vectors


def forgetting(factors: Array, vectors: Array, stationary: Array, start: Array | None) -> Array:
    """U [Σ + f_i f_j (Σ_0 − Σ)_ij] Uᵀ: what is left of the start Σ_0 once each direction has shrunk by its factor.

    factors f (..., P); vectors U (P, P); stationary Σ (P, P), in the basis U; start Σ_0 (P, P), in the basis of θ.
    """
    if start is None:
        start = np.zeros_like(stationary)
    check_covariance(start, "start")
    if start.shape != stationary.shape:
        raise ValueError(f"start has shape {start.shape}, hessian {stationary.shape}; use equal shapes")
    left = factors[..., :, None] * factors[..., None, :] * (vectors.T @ start @ vectors - stationary)
    covariance: Array = vectors @ (stationary + left) @ vectors.T
    return covariance


def _stationary(values: Array, noise: Array, lr: float, batch_size: int) -> Array:
    """Σ in the eigenbasis of H."""
    check_step(lr, batch_size)
    eta, S = lr, batch_size
    if not eta < stability_limit(values[-1]):
        raise ValueError(
            f"lr={eta} with λ_max={values[-1]:.3g} gives ηλ={eta * values[-1]:.3g}, outside 0 … 2; "
            f"use 0 < lr < {stability_limit(values[-1]):.3g}"
        )
    return (eta / S) * noise / (values[:, None] + values - eta * values[:, None] * values)
