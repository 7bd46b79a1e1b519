"""Linear stability of SGD on a sum of quadratics in any dimension: one symmetric eigenproblem, no search.

f_i(x) = ½ xᵀQ_i x + r_iᵀx, i = 1 … n. A batch of S of them takes the deviation e from the minimum to (I − ηQ_B) e −
ηg_B, with means over the batch, whose covariance is p times that of one term (``noise.variance_factor``). Hence
X = E eeᵀ becomes T(X) + η² p ⟨g_i g_iᵀ⟩ if E e = 0, with Q = ⟨Q_i⟩ and

    T(X) = (I − ηQ) X (I − ηQ) + η² p (⟨Q_i X Q_i⟩ − QXQ) = X − η L(X) + η² M(X),
    L(X) = QX + XQ,   M(X) = (1 − p) QXQ + p ⟨Q_i X Q_i⟩.

T is self-adjoint for ⟨X, Y⟩ = Tr XY, since the Q_i are symmetric, and carries covariances into covariances, so that its
spectral radius ρ is an eigenvalue, and one with a covariance for eigenmatrix (Krein and Rutman). Hence ρ < 1 if and
only if ⟨X, TX⟩ < ⟨X, X⟩, that is η ⟨X, MX⟩ < ⟨X, LX⟩, for all symmetric X ≠ 0:

    η_ms = min ⟨X, LX⟩ / ⟨X, MX⟩ = 1/μ_max,   M(X) = μ L(X).

L is diagonal in the eigenbasis of Q, (λ_a + λ_b) X_ab. Any X gives an upper bound: the least over X = UYUᵀ, with
orthonormal columns U, is the limit of the terms UᵀQ_iU, of SGD that is kept in the subspace.
Sources: the mechanism, Patel, arXiv 1709.04718; the operator, Wu, Ma & E (NeurIPS 2018); the pencil is derived here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from threefactors._rng import numpy_generator
from threefactors.theory.noise import variance_factor
from threefactors.theory.quadratic import check_step
from threefactors.theory.terms import Factors, terms_of

Array = NDArray[np.float64]


def second_moment_limit(curvatures: ArrayLike | Factors, batch_size: int, *, replacement: bool = True) -> float:
    """Learning rate at which the second moment ceases to shrink: η_ms = 1/μ_max of M(X) = μ L(X).

    curvatures Q_i (n, m, m), symmetric, of either sign, or ``Factors``; batch_size S; replacement: independent draws,
    else S different terms, afresh at every step. Directions that no term curves are left out. Where single terms curve
    a direction and their mean does not, no learning rate is stable: 0 (unless the batch is all of them).
    The relative error is 1e-10 or less; O(n m³) for each of some tens of Lanczos iterations, no m² × m² matrix.
    Errors: ValueError for matrices that are not symmetric, a mean with an eigenvalue < 0, where there is no minimum,
    terms that are all 0, S < 1, or S > n without replacement. Source: see the module.

    >>> round(second_moment_limit(2.0 * np.eye(2)[:, None] * np.eye(2)[:, :, None], batch_size=1), 9)
    1.0
    """
    terms, p = terms_of(curvatures, batch_size, replacement)
    return terms.limit(p)[0]


def second_moment_radius(
    curvatures: ArrayLike | Factors, lr: float, batch_size: int, *, replacement: bool = True
) -> float:
    """Factor of the second moment in a step, in the long run: the spectral radius ρ of T; ln ρ is its rate of growth.

    lr η; the others, and directions left out, as in ``second_moment_limit``; a mean with negative eigenvalues is
    allowed here, and gives ρ > 1. Errors: as there, and ValueError for η ≤ 0. Source: see the module.
    """
    check_step(lr, batch_size)
    terms, p = terms_of(curvatures, batch_size, replacement)
    factor, both = 1 - lr * terms.values, np.multiply.outer(terms.values, terms.values)
    diagonal = np.multiply.outer(factor, factor) - lr**2 * p * both
    return terms.largest(diagonal, np.full_like(both, lr * np.sqrt(p)))[0]


def second_moment_covariance(
    curvatures: ArrayLike | Factors, gradients: ArrayLike, lr: float, batch_size: int, *, replacement: bool = True
) -> Array:
    """Stationary covariance Σ (m, m) around the minimum: Σ = T(Σ) + η² p ⟨g_i g_iᵀ⟩.

    gradients g_i (n, m) of the terms at the minimum, so that their mean is 0; they may depend on the Q_i: the cross
    term is E[(I − ηQ_B) E[e] g_Bᵀ], and E e dies out. lr η; the others as in ``second_moment_limit``. Solved by
    conjugate gradients to 1e-12: L^−½ (1 − T) L^−½ has the condition number 1/(1 − η/η_ms) or so.
    Errors: as there, and ValueError for gradients of another shape or mean, a gradient along a direction that no term
    curves (a random walk, whose variance is infinite), and η ≥ η_ms, where it is infinite as well.
    """
    check_step(lr, batch_size)
    terms, p = terms_of(curvatures, batch_size, replacement)
    g = np.asarray(gradients, dtype=float)
    if g.shape != (terms.count, len(terms.basis)):
        raise ValueError(f"gradients of shape {g.shape}; use (n, m) = {(terms.count, len(terms.basis))}")
    size = np.abs(g).max()
    if np.abs(g.mean(0)).max() > 1e-6 * size:
        raise ValueError(f"gradients have the mean {g.mean(0)}: take them at the minimum, where it is 0")
    inside = g @ terms.basis
    if p > 0 and np.abs(g - inside @ terms.basis.T).max() > 1e-6 * size:
        raise ValueError("gradients move x where no term has curvature: its variance is infinite; project them out")
    limit = terms.limit(p)[0]
    if not lr < limit * (1 - 1e-12):
        raise ValueError(f"lr={lr} with batch_size={batch_size} has an infinite variance; use 0 < lr < {limit:.6g}")
    diagonal, scale = terms.pencil(p)
    step = terms.operator(diagonal, scale)
    root = 1 / np.sqrt(np.add.outer(terms.values, terms.values))
    # with Σ = L^−½ Y: (1 − η L^−½ M L^−½) Y = η p L^−½ C
    d = len(terms.values)
    left = LinearOperator((d * d, d * d), matvec=lambda y: y - lr * step(y.reshape(d, d)).ravel(), dtype=float)
    right = lr * p * root * (inside.T @ inside / terms.count)
    y, unsolved = cg(left, right.ravel(), rtol=1e-12, maxiter=10 * right.size)
    if unsolved:
        raise ValueError(f"lr={lr} is too close to the limit {limit:.6g} for a covariance of 12 digits; use less")
    sigma: Array = terms.basis @ (root * y.reshape(d, d)) @ terms.basis.T
    return sigma


@dataclass(frozen=True)
class Limit:
    """A learning rate found by iteration, never below η_ms, and what is known of its error.

    residual: ‖T(X) − X‖/‖X‖ at η = value, in Frobenius norms, the first from random probes, to some 20 %; T is
    self-adjoint, so that one of its eigenvalues is as close to 1 as that. tolerance: the residual divided by
    dρ/d ln η = η ⟨X, LX⟩/⟨X, X⟩, to first order a bound of the relative error, whose second order is the error itself.
    rank of X; iterations; converged: tolerance as small as was asked.
    """

    value: float
    residual: float
    tolerance: float
    rank: int
    iterations: int
    converged: bool


Products = Callable[[Array], Iterable[Array]]


def matrix_free_limit(
    products: Products,
    dimension: int,
    examples: int,
    batch_size: int,
    *,
    replacement: bool = True,
    tolerance: float = 1e-3,
    seed: int = 0,
    rank: int = 128,
    block: int = 16,
) -> Limit:
    """η_ms from products Q_i V alone, for m up to 1e5 and more: Rayleigh–Ritz on covariances of low rank X = UYUᵀ.

    1. U (m, r) holds directions of M(ΩΩᵀ), random Ω, and the sharpest one of each of the sharpest terms. 2. The limit
    η of the terms UᵀQ_iU, with the Y that attains it, is an upper bound. 3. The residual M(X) − L(X)/η, times random Ω,
    tells how far it is from η_ms, and its directions are added to U: half as many as there are, or ``block``. 4. Where
    it is small enough, directions as in 1, now outside of U, are tried once more, lest a direction that the mean hardly
    curves be missed, and the search ends if they bring nothing. Where U holds all that the terms see, it is exact.

    products takes V (m, c), c ≤ 32, and yields the Q_i V in chunks (c_n, m, c), terms in order; dimension m; examples
    n; tolerance, relative, as in ``Limit``; seed of Ω; rank of X at most, where the search ends; the others as in
    ``second_moment_limit``. Memory: about 5 arrays (m, rank), UᵀQ_iU (n, rank, rank), and a chunk. Cost: Q_i V for all
    terms and about 4 columns per rank of X, O(n rank³) for each Lanczos iteration. Best where few directions carry the
    noise of the curvature; if n terms share none, the rank must grow until U holds them all. ``Factors`` are exact and
    faster where they fit into memory. An upper bound for certain; that nothing was missed, no such search can prove.
    Errors: as ``second_moment_limit``, and ValueError for products of another shape or number, or a tolerance ≤ 0.
    Source: derived here; for the probing see Halko, Martinsson & Tropp, arXiv 0909.4061.
    """
    if not tolerance > 0 or not rank >= 1 or not block >= 1:
        raise ValueError(f"tolerance={tolerance}, rank={rank}, block={block}: use tolerance > 0, rank >= 1, block >= 1")
    p = variance_factor(batch_size, None if replacement else examples)
    random = numpy_generator(seed, "matrix-free limit")
    space = _Subspace(products, dimension, examples)
    block = min(block, rank, dimension)
    added, rounds, explored = space.explore(p, (block + 1) // 2, random), 0, np.inf
    if not added.size:
        raise ValueError(
            f"the products with all {examples} terms are 0: nothing moves, and no learning rate is a limit"
        )
    while True:
        space.add(added[:, : rank - len(space.directions.T)])
        rounds += 1
        value, y = space.solve(batch_size, replacement)
        r, size = len(y), float(np.linalg.norm(y))
        if not value > 0:  # a bound from above of what is not negative
            return Limit(0.0, 0.0, 0.0, r, rounds, True)
        more = max(block, r // 2)
        probes = random.standard_normal((dimension, more))
        left = space.residual(y, value, p, probes)
        error = float(np.linalg.norm(left)) / np.sqrt(more)  # E ‖RΩ‖² = (columns of Ω) ‖R‖²
        residual = float(value**2 * error / size)
        reached = residual / (2 * value * float(space.mean_curvatures() @ y**2) / size**2)
        found = Limit(value, residual, reached, r, rounds, reached <= tolerance)
        if r == rank or (found.converged and value > (1 - tolerance) * explored):
            return found
        if found.converged:
            added, explored = space.explore(p, (block + 1) // 2, random), value
        else:
            added = _directions(left, space.directions)
        if not added.size:
            return found


class _Subspace:
    """Orthonormal directions U (m, r), the image Q U, and the terms in it, UᵀQ_iU (n, r, r)."""

    columns = 32  # in one product

    def __init__(self, products: Products, dimension: int, examples: int) -> None:
        self.products, self.examples = products, examples
        self.directions, self.image = np.zeros((dimension, 0)), np.zeros((dimension, 0))
        self.terms = np.zeros((examples, 0, 0))

    def images(self, V: Array) -> Iterator[Array]:
        """Q_i V (m, c), term after term."""
        count = 0
        for chunk in self.products(V):
            if np.ndim(chunk) != 3 or chunk.shape[1:] != V.shape:
                raise ValueError(f"products yield {np.shape(chunk)} for V {V.shape}; use chunks (c_n, m, c) of Q_i V")
            count += len(chunk)
            if count > self.examples:
                break
            yield from chunk
        if count != self.examples:
            raise ValueError(f"products yield {count} terms, examples={self.examples}; use one product for each")

    def add(self, new: Array) -> None:
        """Takes in orthonormal directions (m, c), orthogonal to those that are there."""
        r = self.directions.shape[1]
        self.directions = U = np.hstack([self.directions, new])
        self.image = np.hstack([self.image, np.zeros_like(new)])
        grown = np.zeros((self.examples, U.shape[1], U.shape[1]))
        grown[:, :r, :r] = self.terms
        for start in range(r, U.shape[1], self.columns):
            part = slice(start, min(start + self.columns, U.shape[1]))
            for i, product in enumerate(self.images(U[:, part])):
                grown[i, :, part] = U.T @ product
                self.image[:, part] += product
            self.image[:, part] /= self.examples
        grown[:, r:, :r] = grown[:, :r, r:].transpose(0, 2, 1)
        self.terms = grown

    def explore(self, p: float, width: int, random: np.random.Generator) -> Array:
        """New directions: of M(ΩΩᵀ), for random Ω outside of U, and the sharpest one of each of the sharpest terms."""
        first, probes = random.standard_normal((2, len(self.directions), width))
        first -= self.directions @ (self.directions.T @ first)
        mean, spread = np.zeros_like(first), np.zeros_like(first)
        sharpest: list[tuple[float, int, Array]] = []  # a heap: the least sharp of them comes first
        none = 1e-10 * np.abs(self.terms).max(initial=0)  # what rounding leaves where U holds all that the terms see
        for i, product in enumerate(self.images(first)):
            mean += product / self.examples
            spread += product @ (product.T @ probes / self.examples)
            values, vectors = np.linalg.eigh(product.T @ product)
            if values[-1] > none**2:
                push = heapq.heappush if len(sharpest) < width else heapq.heappushpop
                push(sharpest, (values[-1], i, product @ vectors[:, -1] / np.sqrt(values[-1])))
        if not sharpest:
            return first[:, :0]
        common = _directions((1 - p) * mean @ (mean.T @ probes) + p * spread, self.directions)
        alone = np.stack([direction for *_, direction in sharpest], axis=1)
        return np.hstack([common, _directions(alone, np.hstack([self.directions, common]))])

    def solve(self, batch_size: int, replacement: bool) -> tuple[float, Array]:
        """The limit of the terms UᵀQ_iU, and y (r,) with X = U diag(y) Uᵀ: U is turned into the eigenvectors of X."""
        asymmetry = np.abs(self.terms - self.terms.transpose(0, 2, 1)).max()
        if asymmetry > 1e-4 * np.abs(self.terms).max():
            raise ValueError(f"products are not those of symmetric matrices: UᵀQ_iU differs by {asymmetry:.3g}")
        self.terms = (self.terms + self.terms.transpose(0, 2, 1)) / 2
        terms, p = terms_of(self.terms, batch_size, replacement)
        value, X = terms.limit(p)
        y, turn = np.linalg.eigh(terms.basis @ X @ terms.basis.T)
        self.directions, self.image = self.directions @ turn, self.image @ turn
        self.terms = turn.T @ self.terms @ turn
        return value, y

    def mean_curvatures(self) -> Array:
        """u_aᵀ Q u_a (r,)."""
        return self.terms.mean(0).diagonal()

    def residual(self, y: Array, value: float, p: float, probes: Array) -> Array:
        """(M(X) − L(X)/η) Ω."""
        U, QU = self.directions, self.image
        seen = y[:, None] * (QU.T @ probes)
        left = QU @ ((1 - p) * seen - y[:, None] * (U.T @ probes) / value) - U @ seen / value
        for start in range(0, len(y) if p > 0 else 0, self.columns):
            part = slice(start, start + self.columns)
            for product in self.images(U[:, part]):
                left += product @ (p / self.examples * y[part, None] * (product.T @ probes))
        return left


def _directions(images: Array, known: Array) -> Array:
    """Orthonormal directions of the images, the largest first, orthogonal to the known ones."""
    rest = images - known @ (known.T @ images)
    left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
    left = left[:, sizes > 1e-12 * np.linalg.norm(images)]
    left -= known @ (known.T @ left)  # once more: of a small rest, rounding has left some part along them
    return np.linalg.qr(left)[0]
