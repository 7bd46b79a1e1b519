"""Lanczos recursion of one run at a time, and the small matrix T that it leaves.

In m steps the iteration builds an orthonormal basis q_1 … q_m of span{q, Aq, …, Aᵐ⁻¹q}, in which A is
tridiagonal: A Q = Q T + β_m q_{m+1} e_mᵀ. Eigenvalues of T (Ritz values) approach those of A, the extreme
ones first, and each comes with the norm of its residual. See Golub & Van Loan, Matrix Computations
(4th ed., 2013), chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal  # type: ignore[import-untyped]
from torch import Tensor

from threefactors.measurement.operators import StackOperator


class Tridiagonal:
    """Diagonal α and off-diagonal β of T, with what tells rounding from curvature.

    β ends with β_m, which leads out of the basis; a zero before it is an invariant subspace, where T splits.
    """

    def __init__(self, parameters: int, eps: float) -> None:
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.breakdowns = 0  # invariant subspaces found
        self.norm = 0.0  # largest ‖A q_j‖ met: a lower bound of ‖A‖
        self._parameters, self._eps = parameters, eps

    @property
    def size(self) -> int:
        """Steps taken, m."""
        return len(self.alpha)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space, so that T is A."""
        return self.size == self._parameters

    @property
    def finite(self) -> bool:
        return math.isfinite(self.norm)

    @property
    def rounding(self) -> float:
        """Residuals below this are rounding: 100 units in the last place of ‖A‖."""
        return 100 * self._eps * self.norm

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (m,) and eigenvectors (m, m) of T, largest first; NaN where A is not finite."""
        m = self.size
        if not self.finite:
            return np.full(m, np.nan), np.full((m, m), np.nan)
        values, vectors = eigh_tridiagonal(self.alpha, self.beta[:-1])
        return values[::-1], vectors[:, ::-1]

    def moments(self) -> tuple[float, float]:
        """tr QᵀAQ and ‖A Q‖_F², from A Q = Q T + β_m q_{m+1} e_mᵀ without a further product."""
        if self.size == 0:
            return 0.0, 0.0
        if not self.finite:
            return math.nan, math.nan
        inner = sum(b * b for b in self.beta[:-1])
        return sum(self.alpha), sum(a * a for a in self.alpha) + 2 * inner + self.beta[-1] ** 2


class Krylov(Tridiagonal):
    """Lanczos recursion of one run: T, and the basis Qᵀ by rows.

    Each run has a recursion with memory of its own. BLAS rounds by the alignment of what it is given,
    so rows of one shared array would make a run's last bits depend on its place in the stack.
    """

    def __init__(self, start: Tensor, generator: torch.Generator):
        super().__init__(len(start), torch.finfo(start.dtype).eps)
        self._generator = generator
        self._rows = torch.empty(8, len(start), dtype=start.dtype, device=start.device)
        self._rows[0] = start / torch.linalg.vector_norm(start)

    @property
    def basis(self) -> Tensor:
        """Qᵀ (m, P), orthonormal rows."""
        return self._rows[: self.size]

    @property
    def vector(self) -> Tensor:
        """q_{m+1} (P,), the vector to be multiplied next."""
        return self._rows[self.size]

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
