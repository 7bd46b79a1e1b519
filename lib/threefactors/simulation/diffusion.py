"""Stochastic differential equations dX = b(X) dt + σ(X) dW, carried forward in small steps.

Only the drift and the diffusion are known here: no stationary law and no potential, so that what theory says of
these processes can be tested on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

from threefactors.simulation.ensemble import Advance, Draws, Dynamics

Array = NDArray[np.float64]
Field = Callable[[Array], Array]
"""x (d, n) → (d, n), one column for each trajectory; it must leave x as it is."""


def euler_maruyama(drift: Field, diffusion: ArrayLike | Field, step: float) -> Dynamics:
    """Euler–Maruyama scheme for dX = b(X) dt + σ(X) dW, in the sense of Itô.

    X_{t+1} = X_t + h b(X_t) + √h σ(X_t) ξ_t,   ξ_t standard normal.

    drift b: x (d, n) → (d, n). diffusion σ: a number (σ I), a matrix (d, d), or x (d, n) → (d, n), the diagonal of
    σ(x). step h > 0, in units of time. Its weak error is of order h; at finite h it is a process of its own, which
    for b = −λx is stable only while hλ < 2. Errors: ValueError for a step that is not > 0, a negative or infinite
    diffusion, or a matrix that is not (d, d). Source: Kloeden & Platen (1992), §10.2, §14.1.
    """
    h = _step(step)
    spread = _spread(diffusion, float(np.sqrt(h)))

    def dynamics(n: int, draws: Draws) -> Advance:
        def advance(x: Array, t: int) -> None:
            change = spread(x, draws.normal(*x.shape))
            change += h * drift(x)
            x += change

        return advance

    return dynamics


def ornstein_uhlenbeck(rate: ArrayLike, diffusion: ArrayLike, step: float) -> Dynamics:
    """Ornstein–Uhlenbeck process dX = −A X dt + R dW, sampled without error at times h, 2h, 3h …

    X_{t+1} = e^{−Ah} X_t + ζ_t,   ζ_t normal with covariance Q = ∫₀ʰ e^{−As} R Rᵀ e^{−Aᵀs} ds.

    rate A and diffusion R: matrices (d, d), or numbers (times I), also where no stationary state exists; step h > 0,
    however large. Q by one matrix exponential of twice the size, for a short time, and doublings of it.
    Errors: as in ``euler_maruyama``. Source: C. F. Van Loan, doi:10.1109/TAC.1978.1101743.
    """
    h = _step(step)
    sigma = diffusion if np.ndim(diffusion) else _not_negative(diffusion)
    A, R = (_square(np.atleast_2d(m), name) for m, name in ((rate, "rate"), (sigma, "diffusion")))
    d = max(len(A), len(R))
    A, R = (m[0, 0] * np.eye(d) if len(m) == 1 else m for m in (A, R))
    if A.shape != R.shape:
        raise ValueError(f"rate has shape {A.shape}, diffusion {R.shape}; use equal shapes")
    doublings = int(np.ceil(np.log2(max(1.0, h * float(np.linalg.norm(A))))))
    short = h / 2**doublings  # s, at which no exponential overflows
    # exp(s [[−A, RRᵀ], [0, Aᵀ]]) = [[e^{−As}, Q e^{Aᵀs}], [0, e^{Aᵀs}]]
    both = expm(short * np.block([[-A, R @ R.T], [np.zeros_like(A), A.T]]))
    decay = np.ascontiguousarray(both[:d, :d])
    Q = both[:d, d:] @ decay.T
    for _ in range(doublings):  # Q(2s) = Q(s) + e^{−As} Q(s) e^{−Aᵀs}
        Q, decay = Q + decay @ Q @ decay.T, decay @ decay
    values, vectors = np.linalg.eigh(Q)
    root = vectors * np.sqrt(np.maximum(values, 0))  # root rootᵀ = Q, which may be singular
    times = np.multiply if d == 1 else np.matmul

    def dynamics(n: int, draws: Draws) -> Advance:
        def advance(x: Array, t: int) -> None:
            if d > 1:
                _matching(root, x)
            noise = times(root, draws.normal(*x.shape))
            np.add(times(decay, x), noise, out=x)

        return advance

    return dynamics


def _spread(diffusion: ArrayLike | Field, root: float) -> Callable[[Array, Array], Array]:
    """(x, ξ) → √h σ(x) ξ, which may take the place of ξ."""
    if callable(diffusion):
        return lambda x, xi: np.multiply(root * diffusion(x), xi, out=xi)
    if np.ndim(diffusion) == 0:
        scale = root * _not_negative(diffusion)
        return lambda x, xi: np.multiply(scale, xi, out=xi)
    matrix = root * _square(diffusion, "diffusion")
    return lambda x, xi: _matching(matrix, x) @ xi


def _step(step: float) -> float:
    if not 0 < step < np.inf:
        raise ValueError(f"step={step} is no step of time; use 0 < step < ∞")
    return float(step)


def _not_negative(diffusion: ArrayLike) -> float:
    sigma = float(np.asarray(diffusion, dtype=float))
    if not 0 <= sigma < np.inf:
        raise ValueError(f"diffusion={sigma} is outside 0 … ∞; use its absolute value: the law knows only σ²")
    return sigma


def _square(matrix: ArrayLike, name: str) -> Array:
    m = np.asarray(matrix, dtype=float)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not np.isfinite(m).all():
        raise ValueError(f"{name} of shape {m.shape} is not a finite square matrix; use (d, d), or one number")
    return m


def _matching(matrix: Array, x: Array) -> Array:
    if len(matrix) != len(x):
        raise ValueError(f"a matrix of shape {matrix.shape} meets {len(x)} components; use ({len(x)}, {len(x)})")
    return matrix
