"""Bounds of the learning rate at which SGD on a sum of quadratics ceases to be stable, from less than η_ms itself.

The terms have Hessians Q_i, Q = ⟨Q_i⟩ with eigenvalues λ_1 ≥ … ≥ λ_m ≥ 0, and Σ = ⟨Q_i²⟩ − Q² tells how much they
differ; s and t are its smallest and its largest eigenvalue, p is ``noise.variance_factor``. A step from the deviation e
leads to E|e'|² = eᵀ[(I − ηQ)² + η² p Σ] e. The theorems, each proved where its bound is computed:

    converges_below ≤ one_step_limit ≤ η_ms ≤ line_limit along any direction,   η_ms ≤ diverges_above ≤ 2/λ_1,

with η_ms from ``second_moment``; in one dimension all of them but 2/λ_1 are equal. Directions that no term curves are
left out everywhere. Where single terms curve a direction and their mean does not, the lower bounds and η_ms are 0.
Sources: Patel, arXiv 1709.04718, for a bound on either side; Wu, Ma & E (NeurIPS 2018) for one step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigvalsh

from threefactors.theory.linear_stability import mean_square_limit
from threefactors.theory.terms import EQUAL, Factors, terms_of

Array = NDArray[np.float64]


def explicit_bounds(
    curvatures: ArrayLike | Factors, batch_size: int, *, replacement: bool = True
) -> tuple[float, float]:
    """(converges_below, diverges_above): the least 2λ/(λ² + p t), the largest 2λ/(λ² + p s), the latter at most 2/λ_1.

    Proof. Σ ⪯ tI makes E|e'|² ≤ max_i [(1 − ηλ_i)² + η² p t] |e|², which is less than |e|² for η < 2λ_i/(λ_i² + p t),
    all i. Since λ/(λ² + c) rises up to λ = √c and then falls, λ_1 or λ_m attains the least. Σ ⪰ sI makes E|e'|² ≥
    min_i [(1 − ηλ_i)² + η² p s] |e|², which grows from every e ≠ 0 if η > 2λ_i/(λ_i² + p s) for all i; and beyond 2/λ_1
    even E e grows. For p → 0 both are 2/λ_1, which knows nothing of flatter directions; for p s ≫ λ_1² both are ∝ 1/p.

    curvatures (n, m, m), symmetric, or ``Factors``; batch_size S; replacement as in ``second_moment_limit``. Errors: as
    there. Source: see the module.
    """
    terms, p = terms_of(curvatures, batch_size, replacement)
    terms.check_minimum()
    values, spread = terms.values, np.linalg.eigvalsh(terms.spread())
    below = _parabola(values[[0, -1]], p * max(spread[-1], 0.0)).min()
    above = _parabola(values, p * max(spread[0], 0.0)).max()
    return float(below), float(min(above, _parabola(values[-1], 0.0)))


def one_step_limit(curvatures: ArrayLike | Factors, batch_size: int, *, replacement: bool = True) -> float:
    """Largest η at which no single step increases E|e|²: 2/λ_max of Q^−½ (Q² + pΣ) Q^−½.

    Proof. The step matrix above is at most I if and only if η (Q² + pΣ) ⪯ 2Q. Then E|e_t|² shrinks from every start, so
    that this is at most η_ms; and it is not below ``converges_below``, which asks the same with tI in place of Σ.
    Arguments and errors as in ``explicit_bounds``. Source: Wu, Ma & E (NeurIPS 2018), their sufficient condition.
    """
    terms, p = terms_of(curvatures, batch_size, replacement)
    terms.check_minimum()
    if terms.unsteady:
        return 0.0
    Q = np.diag(terms.values)
    return 2 / float(eigvalsh(Q @ Q + p * terms.spread(), Q)[-1])


def simple_limits(curvatures: ArrayLike | Factors, batch_size: int, *, replacement: bool = True) -> tuple[float, float]:
    """Sharpness alone, 2/λ_max(Q), and non-uniformity alone, 1/√(p λ_max(Σ)), infinite where all terms are equal.

    If (I − ηQ)² + η² p Σ ⪯ I, then neither part exceeds I: both limits are at least ``one_step_limit``. The first is an
    upper bound of η_ms, too; the second is not. Arguments and errors as in ``explicit_bounds``.
    Source: Wu, Ma & E (NeurIPS 2018), who call √λ_max(Σ) the non-uniformity.
    """
    terms, p = terms_of(curvatures, batch_size, replacement)
    terms.check_minimum()
    noise = p * float(np.linalg.eigvalsh(terms.spread())[-1])
    return 2 / float(terms.values[-1]), 1 / np.sqrt(noise) if noise > 1e-15 * terms.values[-1] ** 2 else np.inf


def line_limit(
    curvatures: ArrayLike | Factors, direction: ArrayLike, batch_size: int, *, replacement: bool = True
) -> float:
    """η_ms of SGD that is kept on the line along v, where the curvatures are q_i = vᵀQ_i v/|v|²; an upper bound.

    Proof: it is ⟨X, LX⟩/⟨X, MX⟩ at X = vvᵀ, and η_ms is the minimum over all X. If the terms commute, each of their
    common eigenvectors evolves by itself along such a line, and the least of these limits is η_ms.
    direction v (m,), not 0; the others as in ``explicit_bounds``. Errors: those of ``mean_square_limit``, and
    ValueError for a direction that is 0 or of another length.
    """
    v = np.asarray(direction, dtype=float)
    rows = np.asarray(curvatures.factors if isinstance(curvatures, Factors) else curvatures, dtype=float)
    if rows.ndim != 3 or v.shape != rows.shape[2:] or not 0 < (norm := float(v @ v)) < np.inf:
        raise ValueError(f"direction of shape {v.shape} for curvatures {rows.shape}: use (m,) numbers, not all 0")
    along = rows @ v
    q = ((along**2).sum(1) if isinstance(curvatures, Factors) else along @ v) / norm
    size = (np.linalg.norm(rows) / np.sqrt(len(rows))) ** (2 if isinstance(curvatures, Factors) else 1)
    q[np.abs(q) <= EQUAL * size] = 0
    return float(mean_square_limit(q, batch_size, replacement=replacement))


def _parabola(values: Array, variance: float) -> Array:
    """2λ/(λ² + variance), where (1 − ηλ)² + η² variance is 1 again; without either it never leaves 1."""
    room = values**2 + variance
    return np.divide(2 * values, room, out=np.full_like(room, np.inf), where=room > 0)
