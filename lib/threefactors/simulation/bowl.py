"""SGD near a minimum, by the thousand: a quadratic bowl with Gaussian noise, and linear regression with real examples.

Only the update rule is known here. What the trajectories settle to is for theory to say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.simulation.ensemble import Advance, Draws, Dynamics, Path

Array = NDArray[np.float64]


def bowl(
    hessian: ArrayLike, noise: ArrayLike, lr: float, batch_size: int, batches_per_epoch: int | None = None
) -> Dynamics:
    """SGD in the bowl ½ θᵀHθ: θ' = θ − η(Hθ + ε), ε normal with the covariance C/S.

    hessian H (d, d) symmetric; noise C (d, d), symmetric positive semidefinite, of one example; lr η > 0; batch_size
    S ≥ 1; batches_per_epoch M ≥ 2: the M noises of an epoch sum to zero and are otherwise alike, M normal draws less
    their mean, scaled back to the covariance C/S (None: independent draws). Any η: what diverges is seen to diverge.
    Errors: ValueError for matrices that are not symmetric or do not match, C with a negative eigenvalue, and numbers
    out of range.
    """
    H, C, M = _symmetric(hessian, "hessian"), _symmetric(noise, "noise"), batches_per_epoch
    _check_step(lr, batch_size)
    if H.shape != C.shape:
        raise ValueError(f"noise has shape {C.shape}, hessian {H.shape}; use equal shapes")
    if M is not None and (not M >= 2 or M % 1 != 0):
        raise ValueError(f"batches_per_epoch={M} has no noise to order; use a whole number >= 2, or None")
    shrink = _times(np.eye(len(H)) - lr * H)
    kick = _times(lr / np.sqrt(batch_size) * _root(C) * (1 if M is None else np.sqrt(M / (M - 1))))

    def dynamics(n: int, draws: Draws) -> Advance:
        room = np.empty((len(H), n))
        back = _bridge(M, room.copy()) if M is not None else None

        def advance(x: Array, t: int) -> None:
            if x.shape != room.shape:
                raise ValueError(f"state of {len(x)} components in a bowl of {len(H)}; use ({len(H)}, n)")
            z = draws.normal(*x.shape)
            if back is not None:
                back(z, t)
            shrink(x, room)
            kick(z, room)
            x += z  # the sign of ε is free: its law is symmetric

        return advance

    return dynamics


def regression(variances: ArrayLike, label_noise: float, lr: float, batch_size: int) -> Dynamics:
    """SGD on linear regression, example by example: e' = e − (η/S) Σ x (xᵀe − ξ), e = θ − θ* the state (D, n).

    variances a (D,) ≥ 0: inputs x ~ N(0, diag(a)), each trajectory and step with S of its own; label_noise σ² ≥ 0, the
    variance of ξ; lr η > 0; batch_size S ≥ 1. Errors: ValueError for numbers out of range.
    """
    a, S = np.atleast_1d(np.asarray(variances, dtype=float)), batch_size
    _check_step(lr, S)
    if a.ndim != 1 or not (np.isfinite(a) & (a >= 0)).all():
        raise ValueError(f"variances={a} are not those of inputs; use (D,) numbers >= 0")
    if not 0 <= label_noise < np.inf:
        raise ValueError(f"label_noise={label_noise} is no variance; use label_noise >= 0")
    spread, sigma, rate = np.sqrt(a)[:, None], float(np.sqrt(label_noise)), lr / S

    def dynamics(n: int, draws: Draws) -> Advance:
        scaled, gradient, residual = np.empty((len(a), n)), np.empty((len(a), n)), np.empty(n)

        def advance(x: Array, t: int) -> None:
            np.multiply(x, spread, out=scaled)
            gradient[:] = 0
            for _ in range(S):  # one example at a time stays in the cache
                xi = draws.normal(n)
                xi *= sigma
                inputs = draws.normal(len(a), n)
                np.einsum("dn,dn->n", inputs, scaled, out=residual)
                np.subtract(residual, xi, out=residual)
                inputs *= residual
                np.add(gradient, inputs, out=gradient)
            np.multiply(gradient, rate * spread, out=gradient)
            x -= gradient

        return advance

    return dynamics


def height(hessian: ArrayLike) -> Callable[[Array], Array]:
    """Observes the height in the bowl, x (d, n) → ½ xᵀHx (1, n): the excess loss of each trajectory."""
    H = _symmetric(hessian, "hessian")
    return lambda x: 0.5 * np.einsum("dn,dn->n", x, H @ x)[None]


def time_average(path: Path) -> Array:
    """Mean (k,) over the times at which a path was looked at. With whole epochs of them it is the mean over phases."""
    average: Array = path.means.mean(axis=0)
    return average


def _times(matrix: Array) -> Callable[[Array, Array], None]:
    """x ↦ matrix x, in place with the help of a room of the same shape; a diagonal matrix costs one pass."""
    diagonal = np.diag(matrix)
    if np.array_equal(matrix, np.diag(diagonal)):
        column = np.ascontiguousarray(diagonal)[:, None]

        def scale(x: Array, room: Array) -> None:
            np.multiply(x, column, out=x)

        return scale

    def multiply(x: Array, room: Array) -> None:
        np.matmul(matrix, x, out=room)
        x[:] = room

    return multiply


def _bridge(batches: int, rest: Array) -> Callable[[Array, int], None]:
    """Turns independent z_t into z_t less the mean over their epoch, one step at a time and with the same joint law.

    With m steps left, which must sum to r, the next is normal with mean r/m and variance 1 − 1/m given the past.
    """

    room = np.empty_like(rest)

    def turn(z: Array, t: int) -> None:
        left = batches - t % batches
        if left == batches:
            rest[:] = 0
        np.multiply(z, np.sqrt(1 - 1 / left), out=z)
        np.multiply(rest, 1 / left, out=room)
        np.add(z, room, out=z)
        np.subtract(rest, z, out=rest)

    return turn


def _root(covariance: Array) -> Array:
    """R with RRᵀ = C; diagonal where C is."""
    if np.array_equal(covariance, np.diag(np.diag(covariance))):
        values, vectors = np.diag(covariance), np.eye(len(covariance))
    else:
        values, vectors = np.linalg.eigh(covariance)
    if values.min() < -1e-9 * np.abs(covariance).max():
        raise ValueError(f"noise has the eigenvalue {values.min():.3g}; a covariance has none below 0")
    root: Array = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _symmetric(matrix: ArrayLike, name: str) -> Array:
    m = np.asarray(matrix, dtype=float)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not np.allclose(m, m.T, rtol=0, atol=1e-9 * np.abs(m).max()):
        raise ValueError(f"{name} of shape {m.shape} is not a symmetric matrix; use (d, d), ({name} + its transpose)/2")
    return m


def _check_step(lr: float, batch_size: int) -> None:
    if not 0 < lr < np.inf:
        raise ValueError(f"lr={lr} is no step; use lr > 0")
    if not batch_size >= 1:
        raise ValueError(f"batch_size={batch_size} is no batch; use batch_size >= 1")
