"""Lanczos iteration for a stack of symmetric matrices, and the largest eigenvalues by it.

In m steps the iteration builds an orthonormal basis q_1 … q_m of span{q, Aq, …, Aᵐ⁻¹q}, in which A is
tridiagonal: A Q = Q T + β_m q_{m+1} e_mᵀ. Eigenvalues of T (Ritz values) approach those of A, the extreme
ones first, and each comes with the norm of its residual. See Golub & Van Loan, Matrix Computations
(4th ed., 2013), chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal  # type: ignore[import-untyped]
from torch import Tensor

from threefactors.measurement.operators import StackOperator

MAX_PRODUCTS = 300


class Krylov:
    """Lanczos recursion of one run: diagonal α and off-diagonal β of T, and the basis Qᵀ by rows.

    Each run has a recursion with memory of its own. BLAS rounds by the alignment of what it is given,
    so rows of one shared array would make a run's last bits depend on its place in the stack.
    """

    def __init__(self, start: Tensor, generator: torch.Generator):
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.breakdowns = 0  # invariant subspaces found
        self.norm = 0.0  # largest ‖A q_j‖ met: a lower bound of ‖A‖
        self._generator = generator
        self._rows = torch.empty(8, len(start), dtype=start.dtype, device=start.device)
        self._rows[0] = start / torch.linalg.vector_norm(start)

    @property
    def size(self) -> int:
        """Steps taken, m."""
        return len(self.alpha)

    @property
    def basis(self) -> Tensor:
        """Qᵀ (m, P), orthonormal rows."""
        return self._rows[: self.size]

    @property
    def vector(self) -> Tensor:
        """q_{m+1} (P,), the vector to be multiplied next."""
        return self._rows[self.size]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.norm)

    @property
    def rounding(self) -> float:
        """Residuals below this are rounding: 100 units in the last place of ‖A‖."""
        return 100 * torch.finfo(self._rows.dtype).eps * self.norm

    def extend(self, image: Tensor) -> None:
        """One step: take A q_{m+1} into T and find the next basis vector."""
        m, P = self.size + 1, len(image)
        Q = self._rows[:m]
        w, c = orthogonalize(image, Q)
        alpha, beta = float(c[-1]), float(torch.linalg.vector_norm(w))
        size = math.hypot(alpha, beta, self.beta[-1] if self.beta else 0.0)  # ‖A q_m‖
        self.norm = max(self.norm, size) if math.isfinite(size) else math.inf
        self.alpha.append(alpha)
        if m == P:  # the basis is complete: T is A
            self.beta.append(0.0)
            return
        if beta <= self.rounding:
            # An invariant subspace: T splits here, and the iteration goes on in the complement.
            self.breakdowns += 1
            beta = 0.0
            w = torch.randn(P, generator=self._generator, dtype=torch.float64).to(Q)
            w, _ = orthogonalize(w, Q)
            w /= torch.linalg.vector_norm(w)
        else:
            w /= beta
        self.beta.append(beta)
        if m == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        self._rows[m] = w

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (m,) and eigenvectors (m, m) of T, largest first; NaN where A is not finite."""
        m = self.size
        if not self.finite:
            return np.full(m, np.nan), np.full((m, m), np.nan)
        values, vectors = eigh_tridiagonal(self.alpha, self.beta[:-1])
        return values[::-1], vectors[:, ::-1]


def orthogonalize(v: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """v (P,) less its projection on the orthonormal rows of basis (m, P), and its coefficients (m,)."""
    v = v.clone()  # memory of its own, see Krylov
    first = torch.mv(basis, v)
    v = torch.addmv(v, basis.T, first, alpha=-1)
    # Once loses orthogonality to cancellation; twice is enough (Kahan and Parlett).
    second = torch.mv(basis, v)
    return torch.addmv(v, basis.T, second, alpha=-1), first + second


def lanczos(
    op: StackOperator,
    starts: Tensor,
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    settled: Callable[[Krylov], bool] = lambda run: False,
) -> list[Krylov]:
    """Lanczos with full reorthogonalization from starts (R, P), at most `steps` steps for each run.

    All runs of `op` are linearized at once (callers loop over `op.chunks()`). A run leaves the working
    set once it is `settled`, or no longer finite; the products that remain are for the others alone.
    """
    runs = [Krylov(start, generator) for start, generator in zip(starts, generators, strict=True)]
    working = list(range(len(runs)))
    product = op.product()
    for _ in range(min(steps, op.shape[1])):
        images = product(torch.stack([runs[i].vector for i in working]))
        for i, image in zip(working, images, strict=True):
            runs[i].extend(image)
        remaining = [i for i in working if runs[i].finite and not settled(runs[i])]
        if not remaining:
            break
        if len(remaining) < len(working):
            working = remaining
            del product  # its graph goes before the next one comes
            product = op.rows(torch.tensor(working)).product()
    return runs


@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenvalues of each run, with what is needed to trust them.

    values (R, k) descending and residuals ‖A v − λ v‖ (R, k) are float64 on the CPU. Each value lies
    within its residual of an eigenvalue. vectors (R, P, k) have unit norm (None if not asked for),
    products (R,) counts matrix–vector products, converged (R,) says whether the tolerance was met.
    """

    values: Tensor
    vectors: Tensor | None
    residuals: Tensor
    products: Tensor
    converged: Tensor


def top_eigenvalues(
    op: StackOperator,
    k: int = 1,
    *,
    tol: float = 1e-3,
    max_products: int | None = None,
    vectors: bool = True,
    generators: Sequence[torch.Generator],
) -> Eigenpairs:
    """The k largest (not largest in magnitude) eigenvalues of each run, by Lanczos iteration.

    A v = λ v with ‖A v − λ v‖ ≤ tol |λ_1| for all k. For symmetric A the eigenvalue is better than that:
    its error is at most residual²/gap.

    >>> op = StackOperator.from_dense(torch.diag(torch.arange(1.0, 9.0))[None])
    >>> top_eigenvalues(op, 2, generators=[torch.Generator().manual_seed(0)]).values.round(decimals=3)
    tensor([[8., 7.]], dtype=torch.float64)

    k             eigenvalues wanted, at most P
    tol           residual allowed relative to |λ_1|; what is below rounding (100 ulp of ‖A‖) is met
    max_products  products allowed per run, at least 2k (k of them check the residuals); None: 300
    generators    one per run, for its start vector

    A run that needs more than `max_products`, or is not finite, has converged = False; one that is not
    finite has values NaN. Of a multiple eigenvalue, copies beyond the first can be missed unless the
    iteration breaks down (as it does for small P or low rank): no Krylov space holds two of them.

    Raises ValueError where k, tol, max_products or the number of generators is out of range.
    """
    R, P = op.shape
    check_generators(generators, R)
    if not 1 <= k <= P:
        raise ValueError(f"k={k} eigenvalues of a {P} × {P} matrix; use 1 <= k <= {P}")
    if not (tol > 0 and math.isfinite(tol)):
        raise ValueError(f"tol={tol} can never be met; use a finite tol > 0, such as 1e-3")
    limit = max(MAX_PRODUCTS, 2 * k) if max_products is None else max_products
    if limit < 2 * k:
        raise ValueError(f"max_products={limit} is too few for k={k}; use max_products >= {2 * k}")

    def settled(run: Krylov) -> bool:
        if run.size < k:
            return False
        values, coefficients = run.ritz()
        # ‖A Q s − λ Q s‖ = β_m |s_m|. Half of what is allowed, to leave room for rounding in the check.
        estimates = run.beta[-1] * np.abs(coefficients[-1, :k])
        # After a breakdown a further copy of an eigenvalue may wait in the complement; after k of
        # them the k largest are all there.
        explored = run.breakdowns == 0 or run.breakdowns >= k or run.size == P
        return explored and bool((estimates <= max(tol * abs(values[0]), run.rounding) / 2).all())

    values = torch.full((R, k), torch.nan, dtype=torch.float64)
    residuals = torch.full_like(values, torch.nan)
    products = torch.zeros(R, dtype=torch.int64)
    converged = torch.zeros(R, dtype=torch.bool)
    eigenvectors = torch.empty(R, P, k, dtype=op.dtype, device=op.device) if vectors else None
    for rows, part in op.chunks():
        mine = [generators[i] for i in rows]
        runs = lanczos(part, gaussian(part, mine), mine, steps=limit - k, settled=settled)
        ritz = torch.stack([_ritz_vectors(run, k) for run in runs])
        images = part @ ritz
        for i, run, v, image in zip(rows.tolist(), runs, ritz, images, strict=True):
            products[i] = run.size + k
            if not run.finite:
                continue
            top = torch.from_numpy(run.ritz()[0][:k].copy())
            error = image - v * top.to(v)
            values[i] = top
            residuals[i] = torch.stack([torch.linalg.vector_norm(e) for e in error.T]).cpu()
            allowed = max(tol * abs(float(top[0])), run.rounding)
            converged[i] = settled(run) and bool((residuals[i] <= allowed).all())
        if eigenvectors is not None:
            eigenvectors[rows.to(op.device)] = ritz
    return Eigenpairs(values, eigenvectors, residuals, products, converged)


def _ritz_vectors(run: Krylov, k: int) -> Tensor:
    """Q s (P, k) for the k largest Ritz values; NaN where A is not finite."""
    if not run.finite:
        return run.vector.new_full((run.vector.numel(), k), torch.nan)
    top = torch.tensor(run.ritz()[1][:, :k].T.copy()).to(run.basis)
    return torch.mm(top, run.basis).T


def gaussian(op: StackOperator, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal vectors (R, P), the same numbers in every dtype and on every device."""
    draws = [torch.randn(op.shape[1], generator=g, dtype=torch.float64) for g in generators]
    return torch.stack(draws).to(op.device, op.dtype)


def rademacher(op: StackOperator, generators: Sequence[torch.Generator]) -> Tensor:
    """Vectors of random signs (R, P): E[v vᵀ] = I, and v_i² = 1 exactly."""
    draws = [torch.randint(2, (op.shape[1],), generator=g) for g in generators]
    return (2 * torch.stack(draws) - 1).to(op.device, op.dtype)


def check_generators(generators: Sequence[torch.Generator], runs: int) -> None:
    """One generator of its own for each run, or a run would depend on its neighbors."""
    if len(generators) != runs:
        raise ValueError(f"{len(generators)} generators for {runs} runs; use one generator per run")
    if len({id(g) for g in generators}) != runs:
        raise ValueError(f"generators holds one generator twice; use {runs} different ones, one per run")
