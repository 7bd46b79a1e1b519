"""The terms of a sum of quadratics, seen from the eigenbasis of their mean, and eigenproblems on symmetric matrices.

Terms with Hessians Q_i, i = 1 … n, are given as matrices (n, m, m) or as ``Factors``. Both are turned into the
eigenbasis of Q = ⟨Q_i⟩, less the directions that no term curves; what is asked of them there is X ↦ ⟨Q_i X Q_i⟩.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from threefactors.theory.noise import variance_factor

Array = NDArray[np.float64]
Linear = Callable[[Array], Array]
SMALL = 16  # dimensions up to which an eigenproblem, of d(d + 1)/2 rows, is solved by a dense routine
TOLERANCE = 1e-10  # relative, of the Lanczos iteration beyond that
EQUAL = 1e-12  # of the size of the terms: curvature below this is none


@dataclass(frozen=True, eq=False)
class Factors:
    """Terms of low rank, Q_i = A_iᵀA_i, such as Gauss–Newton matrices, where A_i is the Jacobian of the outputs.

    factors A (n, r, m). Only the Gram matrix A Aᵀ (nr, nr) matters: all is done in the d ≤ min(nr, m) dimensions that
    the rows of A span, where T costs two products of (nr, d) by (d, d). Exact for every m.
    """

    factors: Array

    @classmethod
    def from_gram(cls, gram: ArrayLike, terms: int) -> Factors:
        """The same up to a rotation from G = A Aᵀ (nr, nr), rows ordered by term, for A too large to be kept."""
        G = np.asarray(gram, dtype=float)
        if terms < 1 or G.ndim != 2 or G.shape[0] != G.shape[1] or len(G) % terms or not np.allclose(G, G.T):
            raise ValueError(f"gram of shape {G.shape} is not symmetric (nr, nr) for n={terms} terms; use A @ A.T")
        values, vectors = np.linalg.eigh(G)
        if values[0] < -1e-9 * values[-1]:
            raise ValueError(f"gram has the eigenvalue {values[0]:.3g}; A Aᵀ has none below 0")
        rows = vectors * np.sqrt(np.maximum(values, 0))
        return cls(rows.reshape(terms, -1, len(G)))


@dataclass(frozen=True, eq=False)
class Terms:
    """n terms in the eigenbasis (m, d) of their mean, whose eigenvalues are values (d,).

    sandwich is X ↦ ⟨Q_i X Q_i⟩; matrices Q_i (n, d, d) are at hand where they are small or were given;
    unsteady: terms curve a direction that their mean does not.
    """

    count: int
    values: Array
    basis: Array
    sandwich: Linear
    matrices: Array | None
    unsteady: bool = False

    def pencil(self, p: float) -> tuple[Array, Array]:
        """L^−½ M L^−½ as ``operator`` wants it."""
        sums = np.add.outer(self.values, self.values)
        return (1 - p) * np.multiply.outer(self.values, self.values) / sums, np.sqrt(p / sums)

    def limit(self, p: float) -> tuple[float, Array]:
        """η_ms and the X that attains it, in the eigenbasis."""
        self.check_minimum()
        if self.unsteady:
            return 0.0, np.zeros((len(self.values),) * 2)
        value, Y = self.largest(*self.pencil(p))
        return 1 / value, Y / np.sqrt(np.add.outer(self.values, self.values))

    def check_minimum(self) -> None:
        """Raises ValueError where the mean has an eigenvalue < 0."""
        if self.values[0] < 0:
            raise ValueError(f"the mean of the curvatures has the eigenvalue {self.values[0]:.3g}: there is no minimum")

    def spread(self) -> Array:
        """⟨Q_i²⟩ − Q², in the eigenbasis."""
        return self.sandwich(np.eye(len(self.values))) - np.diag(self.values**2)

    def operator(self, diagonal: Array, scale: Array) -> Linear:
        """Y ↦ diagonal ∘ Y + scale ∘ ⟨Q_i (scale ∘ Y) Q_i⟩, entry by entry."""
        return lambda Y: diagonal * Y + scale * self.sandwich(scale * Y)

    def largest(self, diagonal: Array, scale: Array) -> tuple[float, Array]:
        """Largest eigenvalue of ``operator`` on symmetric matrices, and its eigenmatrix of norm 1."""
        d = len(self.values)
        if self.matrices is not None and d <= SMALL:
            rows = self.matrices.reshape(self.count, d * d)
            kron = (rows.T @ rows / self.count).reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)
            kron *= np.multiply.outer(scale.ravel(), scale.ravel())
            kron[np.diag_indices(d * d)] += diagonal.ravel()
            basis = _symmetric_basis(d)
            last = basis.shape[1] - 1
            value, vector = eigh(basis.T @ kron @ basis, subset_by_index=[last, last])
            Y = (basis @ vector[:, 0]).reshape(d, d)
        else:
            step = self.operator(diagonal, scale)
            matrix = LinearOperator((d * d, d * d), matvec=lambda y: step(y.reshape(d, d)).ravel(), dtype=float)
            # the eigenmatrix sought is a covariance, and so has a part along the identity
            value, vector = eigsh(matrix, 1, which="LA", v0=np.eye(d).ravel(), tol=TOLERANCE, ncv=12)
            Y = vector.reshape(d, d)
        return float(value[0]), Y if np.trace(Y) > 0 else -Y


def terms_of(curvatures: ArrayLike | Factors, batch_size: int, replacement: bool) -> tuple[Terms, float]:
    """The terms in the eigenbasis of their mean, without the directions that none of them curves, and p."""
    if isinstance(curvatures, Factors):
        A = np.asarray(curvatures.factors, dtype=float)
        if A.ndim != 3 or not A.size or not np.isfinite(A).all():
            raise ValueError(f"factors of shape {A.shape}; use finite (n, r, m), n >= 1")
        return _factored(A), variance_factor(batch_size, None if replacement else len(A))
    Q = np.asarray(curvatures, dtype=float)
    if Q.ndim != 3 or not Q.size or Q.shape[1] != Q.shape[2] or not np.isfinite(Q).all():
        raise ValueError(f"curvatures of shape {Q.shape}; use finite (n, m, m), n >= 1, or Factors")
    p = variance_factor(batch_size, None if replacement else len(Q))
    return _dense(Q if p > 0 else np.broadcast_to(Q.mean(0), Q.shape)), p  # for p = 0 every batch is the whole


def _dense(Q: Array) -> Terms:
    size = np.linalg.norm(Q) / np.sqrt(len(Q))
    if not size > 0:
        raise ValueError(f"all {len(Q)} curvatures are 0: nothing moves, and no learning rate is a limit")
    if np.abs(Q - Q.transpose(0, 2, 1)).max() > 1e-9 * size:
        raise ValueError("curvatures are not symmetric; use (Q + Q.transpose(0, 2, 1))/2")
    values, basis = np.linalg.eigh(Q.mean(0))
    flat = np.abs(values) <= EQUAL * size
    # ‖Q_i z‖² ≤ ‖Q_i‖ zᵀQ_i z for positive semidefinite terms: what they see of a flat z is below the root
    unsteady = bool(np.linalg.norm(Q @ basis[:, flat]) / np.sqrt(len(Q)) > np.sqrt(EQUAL) * size)
    values[flat] = 0
    if not unsteady:
        values, basis = values[~flat], basis[:, ~flat]
    rotated = basis.T @ Q @ basis
    rows = rotated.reshape(-1, rotated.shape[2])  # of all terms, one below the other

    def sandwich(X: Array) -> Array:
        mean: Array = rows.T @ (X @ rotated).reshape(rows.shape) / len(rotated)
        return mean

    return Terms(len(Q), values, basis, sandwich, rotated, unsteady)


def _factored(A: Array) -> Terms:
    """Q_i = A_iᵀA_i: if A = W √κ Vᵀ, the mean is V (κ/n) Vᵀ and the factors in its eigenbasis are W √κ = A V."""
    n, r, m = A.shape
    rows = A.reshape(n * r, m)
    if n * r < m:
        values, vectors = np.linalg.eigh(rows @ rows.T)
    else:
        values, vectors = np.linalg.eigh(rows.T @ rows)
    seen = values > EQUAL * values[-1]
    if not values[-1] > 0:
        raise ValueError(f"all {n} curvatures are 0: nothing moves, and no learning rate is a limit")
    values, vectors = values[seen], vectors[:, seen]
    if n * r < m:
        basis, rows = rows.T @ (vectors / np.sqrt(values)), vectors * np.sqrt(values)
    else:
        basis, rows = vectors, rows @ vectors
    d = len(values)
    each = np.ascontiguousarray(rows).reshape(n, r, d)

    def sandwich(X: Array) -> Array:
        inner = (rows @ X).reshape(n, r, d) @ each.transpose(0, 2, 1)  # A_i X A_iᵀ
        mean: Array = rows.T @ (inner @ each).reshape(n * r, d) / n
        return mean

    matrices = each.transpose(0, 2, 1) @ each if d <= SMALL else None
    return Terms(n, values / n, basis, sandwich, matrices)


def _symmetric_basis(d: int) -> Array:
    """Orthonormal basis (d², d(d + 1)/2) of the symmetric matrices."""
    a, b = np.triu_indices(d)
    basis, column = np.zeros((d, d, len(a))), np.arange(len(a))
    basis[a, b, column] = basis[b, a, column] = np.where(a == b, 1, np.sqrt(0.5))
    return basis.reshape(d * d, len(a))
