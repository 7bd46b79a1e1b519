"""SGD on a sum of parabolas: every step draws a batch of terms, and with it a curvature and a gradient.

f_i(x) = ½ xᵀQ_i x + r_iᵀx. The deviation e = x − x* from the minimum of the mean obeys e' = (I − ηQ̄) e − ηḡ, where Q̄
and ḡ are means over the batch, g_i = Q_i x* + r_i. A batch enters through how often each term is in it, so that its
mean curvature is one matrix product. Several learning rates can be carried along on the same batches: what differs
between them is then the learning rate and not the luck.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.simulation.ensemble import Advance, Draws, Dynamics

Array = NDArray[np.float64]


def quadratic_sum(
    curvatures: ArrayLike,
    gradients: ArrayLike | None,
    lr: ArrayLike,
    batch_size: int,
    *,
    replacement: bool = True,
) -> Dynamics:
    """SGD on a quadratic sum, as dynamics of the deviation from its minimum: e ← (I − ηQ̄) e − ηḡ.

    curvatures Q (n,) in one dimension, else (n, m, m), symmetric; gradients g (n,) or (n, m) of the terms at the
    minimum, so that their mean is 0 (None: the homogeneous problem, all g_i = 0); lr η, or (k,) of them; batch_size S;
    replacement: independent draws, else S different terms, afresh at every step.
    State (k·m, trajectories): the m components at the first learning rate, then those at the second, …, on the same
    batches. Errors: ValueError for shapes that do not fit, Q_i that are not symmetric, η ≤ 0, S < 1, S > n without
    replacement.
    """
    Q, g = _terms(curvatures, gradients)
    terms, m = Q.shape[:2]
    eta = np.atleast_1d(np.asarray(lr, dtype=float))
    if eta.ndim != 1 or not ((eta > 0) & (eta < np.inf)).all():
        raise ValueError(f"lr={eta} is no step, or no list of them; use lr > 0, of shape () or (k,)")
    if not 1 <= batch_size <= (np.inf if replacement else terms):
        raise ValueError(
            f"batch_size={batch_size} out of {terms} terms: use batch_size >= 1, and without replacement <= {terms}"
        )
    parts = [Q.reshape(terms, m * m)] + ([] if g is None else [g])
    table = np.ascontiguousarray(np.concatenate(parts, axis=1).T) / batch_size  # (m² or m² + m, terms)
    step = eta[:, None, None]

    def dynamics(n: int, draws: Draws) -> Advance:
        def advance(x: Array, t: int) -> None:
            e = x.reshape(len(eta), m, n)
            means = _batch_means(draws, table, batch_size, n, replacement)
            batch = means[: m * m].reshape(m, m, n)
            gradient = np.einsum("ijn,kjn->kin", batch, e) if m > 1 else batch * e
            if g is not None:
                gradient += means[m * m :]
            gradient *= step
            e -= gradient  # a view of x

        return advance

    return dynamics


def absorbed(dynamics: Dynamics, radius: float, dimension: int = 1) -> Dynamics:
    """The same, but a trajectory that has once been further than ``radius`` from 0 has left: it is nan from then on.

    dimension m: rows of the state belong together m by m. Errors: ValueError for a radius that is not > 0.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius} holds nothing; use radius > 0")

    def within(n: int, draws: Draws) -> Advance:
        step = dynamics(n, draws)

        def advance(x: Array, t: int) -> None:
            step(x, t)
            e = x.reshape(-1, dimension, n)
            gone = (e * e).sum(axis=1) > radius**2
            if gone.any():
                e.transpose(0, 2, 1)[gone] = np.nan

        return advance

    return within


def _terms(curvatures: ArrayLike, gradients: ArrayLike | None) -> tuple[Array, Array | None]:
    """Q (n, m, m) and g (n, m)."""
    Q = np.asarray(curvatures, dtype=float)
    if Q.ndim == 1:
        Q = Q[:, None, None]
    if Q.ndim != 3 or Q.shape[1] != Q.shape[2] or Q.size == 0 or not np.isfinite(Q).all():
        raise ValueError(f"curvatures of shape {Q.shape} are not those of terms; use (n,) or (n, m, m), finite numbers")
    if not np.allclose(Q, Q.transpose(0, 2, 1), rtol=0, atol=1e-9 * np.abs(Q).max()):
        raise ValueError("curvatures are not symmetric matrices; use (Q + its transpose)/2")
    if gradients is None:
        return Q, None
    g = np.asarray(gradients, dtype=float).reshape(len(Q), -1)
    if g.shape != Q.shape[:2]:
        raise ValueError(f"gradients of shape {np.shape(gradients)} do not belong to {len(Q)} terms in {Q.shape[1]} "
                         "dimensions; use (n, m)")  # fmt: skip
    if np.abs(g.mean(axis=0)).max() > 1e-9 * max(np.abs(g).max(), 1e-300):
        raise ValueError("gradients do not sum to 0, so that this is no minimum of the mean; subtract their mean")
    return Q, g


def _batch_means(draws: Draws, table: Array, batch_size: int, n: int, replacement: bool) -> Array:
    """Sums over n batches of the columns of a table (rows, terms): (rows, n), by how often each term is drawn."""
    rows, terms = table.shape
    if not replacement:
        return table @ _different(draws, terms, batch_size, n)
    if batch_size > 8 * terms:  # cheaper than one by one
        return table @ draws.numpy.multinomial(batch_size, np.full(terms, 1 / terms), size=n).T.astype(float)
    index = draws.integers(terms, batch_size, n)
    if rows <= 2:  # on a line
        means: Array = table.take(index, axis=1).sum(axis=1)
        return means
    index *= n
    index += np.arange(n)
    return table @ np.bincount(index.ravel(), minlength=terms * n).reshape(terms, n).astype(float)


def _different(draws: Draws, terms: int, batch_size: int, n: int) -> Array:
    """Which of the terms are in each batch (terms, n): each is taken with the chance (still wanted)/(still there)."""
    taken = draws.numpy.random((terms, n))
    wanted = np.full(n, float(batch_size))
    for i, row in enumerate(taken):
        row[:] = row * (terms - i) < wanted
        wanted -= row
    return taken
