"""The Ornstein–Uhlenbeck process that SGD becomes near a minimum when its steps are small.

dθ = −Hθ dt + √(η/S) R dW with RRᵀ = C, in the time T = Σ η (the clock). Its covariance moves by
dΣ/dT = (η/S) C − HΣ − ΣH, so that it rests where HΣ + ΣH = (η/S) C. Nothing diverges here at any η: that SGD does
at ηλ = 2, and by how much the laws differ before, is told by ``quadratic``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefactors.theory.quadratic import check_covariance, check_step, eigenbasis, forgetting

Array = NDArray[np.float64]


def lyapunov_covariance(hessian: Array, noise: Array, lr: float, batch_size: int) -> Array:
    """Stationary covariance Σ (P, P) in continuous time: HΣ + ΣH = (η/S) C.

    hessian H (P, P) symmetric positive definite; noise C (P, P) the covariance of one example's gradient, symmetric
    positive semidefinite; lr η > 0; batch_size S. With C = H it is (η/2S) I. Exact for the process at every η; for
    SGD an approximation whose relative error along a direction is ηλ/2 to first order.
    Raises ValueError where H has no minimum or C is no covariance. Source: Mandt, Hoffman & Blei, arXiv 1704.04289.

    >>> lyapunov_covariance(np.eye(1), np.eye(1), lr=1.0, batch_size=1)
    array([[0.5]])
    """
    values, vectors, C = eigenbasis(hessian, noise)
    return vectors @ _stationary(values, C, lr, batch_size) @ vectors.T


def stationary_loss(noise: Array, lr: float, batch_size: int) -> float:
    """Stationary E[L] − L* = (η/4S) Tr C, whatever H is.

    The trace of HΣ + ΣH = (η/S) C is 2 Tr(HΣ) = (η/S) Tr C, and E[L] − L* = ½ Tr(HΣ). Arguments as in
    ``lyapunov_covariance``; H enters only by having a minimum. Raises ValueError where C is no covariance.
    Source: the general relation in Luo et al., arXiv 2009.11858.
    """
    check_covariance(noise, "noise")
    check_step(lr, batch_size)
    return lr / (4 * batch_size) * float(np.trace(noise))


def three_factor_loss(hessian: Array, lr: float, batch_size: int) -> float:
    """Stationary E[L] − L* = (η/4S) Tr H: learning rate, batch size and noise, the last through C = H.

    hessian H (P, P) symmetric positive semidefinite, for it is taken as the covariance of the gradients. Raises
    ValueError where it is not. Source: arXiv 1711.04623.
    """
    check_covariance(hessian, "hessian")
    return stationary_loss(hessian, lr, batch_size)


def covariance_at(
    hessian: Array, noise: Array, lr: float, batch_size: int, clock: float | Array, start: Array | None = None
) -> Array:
    """Covariance of θ at the time T: Σ_T = Σ + e^{−HT} (Σ_0 − Σ) e^{−HT}, Σ the stationary one.

    clock T = ηt ≥ 0, of any shape, to which the result adds (P, P); start Σ_0 (P, P), a covariance (None: zero); the
    others, validity and errors as in ``lyapunov_covariance``. Source: dΣ/dT of the module.
    """
    T = np.asarray(clock, dtype=float)
    if np.any(~(T >= 0)):
        raise ValueError(f"clock={clock} runs backwards; use T >= 0")
    values, vectors, C = eigenbasis(hessian, noise)
    return forgetting(np.exp(-values * T[..., None]), vectors, _stationary(values, C, lr, batch_size), start)


def relaxation_time(curvature: float | Array) -> Array:
    """Time (clock) in which what the start adds to the loss along a direction falls by 1/e: 1/(2λ).

    curvature λ > 0, of any shape: E θ² relaxes twice as fast as E θ. In steps of SGD it is 1/(2ηλ). Raises ValueError
    where λ is not > 0: nothing brings such a direction back.
    """
    curvature = np.asarray(curvature, dtype=float)
    if np.any(~(curvature > 0)):
        raise ValueError(f"curvature={curvature} is not > 0; only along positive curvature is the start forgotten")
    return np.asarray(1 / (2 * curvature))


def _stationary(values: Array, noise: Array, lr: float, batch_size: int) -> Array:
    """Σ in the eigenbasis of H: Σ_ij (λ_i + λ_j) = (η/S) C_ij."""
    check_step(lr, batch_size)
    return (lr / batch_size) * noise / (values[:, None] + values)
