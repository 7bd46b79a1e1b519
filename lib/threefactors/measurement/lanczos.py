"""The largest eigenvalues of a stack of symmetric matrices, by Lanczos iteration.

Two ways lead to them: run after run on the CPU (`krylov`), where numbers do not depend on a run's company to the last
bit, and the whole stack at once (`stacked`), which a GPU needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from threefactors.measurement.draws import check_generators, starts
from threefactors.measurement.krylov import Krylov, Tridiagonal, lanczos
from threefactors.measurement.operators import StackOperator
from threefactors.measurement.stacked import Method, basis_bytes, is_stacked, top_pairs

MAX_PRODUCTS = 300


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
    method: Method | None = None,
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
    method        "runs", one after another, or "stacked", all at once with looks every few steps, by which a run may
                  make up to 7 products more; None: stacked on a GPU

    A run that needs more than `max_products`, or is not finite, has converged = False; one that is not
    finite has values NaN. Of a multiple eigenvalue, copies beyond the first can be missed unless the
    iteration breaks down (as it does for small P or low rank): no Krylov space holds two of them.

    Raises ValueError where k, tol, max_products or the number of generators is out of range, or method is unknown.
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

    def settled(run: Tridiagonal) -> bool:
        if run.size < k:
            return False
        values, coefficients = run.ritz()
        # ‖A Q s − λ Q s‖ = β_m |s_m|. Half of what is allowed, to leave room for rounding in the check.
        estimates = run.beta[-1] * np.abs(coefficients[-1, :k])
        # After a breakdown a further copy of an eigenvalue may wait in the complement; after k of
        # them the k largest are all there.
        explored = run.breakdowns == 0 or run.breakdowns >= k or run.complete
        return explored and bool((estimates <= max(tol * abs(values[0]), run.rounding) / 2).all())

    stacked, steps = is_stacked(op, method), limit - k
    values = torch.full((R, k), torch.nan, dtype=torch.float64)
    residuals = torch.full_like(values, torch.nan)
    products = torch.zeros(R, dtype=torch.int64)
    converged = torch.zeros(R, dtype=torch.bool)
    eigenvectors = torch.empty(R, P, k, dtype=op.dtype, device=op.device) if vectors else None
    for rows, part in op.chunks(basis_bytes(op, steps + 3 * k) if stacked else 0):
        mine = [generators[i] for i in rows]
        runs: Sequence[Tridiagonal]
        if stacked:
            runs, ritz = top_pairs(part, k, mine, steps=steps, settled=settled)
        else:
            runs = lanczos(part, starts(part, mine), mine, steps=steps, settled=settled)
            ritz = torch.stack([_ritz_vectors(run, k) for run in runs])
        values[rows] = torch.stack([_top_values(run, k) for run in runs])
        errors = (part @ ritz).sub_(ritz * values[rows, None].to(ritz))
        residuals[rows] = _lengths(errors, stacked)
        for i, run in zip(rows.tolist(), runs, strict=True):
            products[i] = run.size + k
            allowed = max(tol * abs(float(values[i, 0])), run.rounding)
            converged[i] = run.finite and settled(run) and bool((residuals[i] <= allowed).all())
        if eigenvectors is not None:
            eigenvectors[rows.to(op.device)] = ritz
    return Eigenpairs(values, eigenvectors, residuals, products, converged)


def _top_values(run: Tridiagonal, k: int) -> Tensor:
    """The k largest Ritz values; NaN where A is not finite."""
    if not run.finite:
        return torch.full((k,), torch.nan, dtype=torch.float64)
    return torch.from_numpy(run.ritz()[0][:k].copy())


def _ritz_vectors(run: Krylov, k: int) -> Tensor:
    """Q s (P, k) for the k largest Ritz values; NaN where A is not finite."""
    if not run.finite:
        return run.vector.new_full((run.vector.numel(), k), torch.nan)
    top = torch.tensor(run.ritz()[1][:, :k].T.copy()).to(run.basis)
    return torch.mm(top, run.basis).T


def _lengths(errors: Tensor, stacked: bool) -> Tensor:
    """‖e‖ (r, k) of errors (r, P, k): all at once, or each by itself and so bit for bit without its neighbors."""
    if stacked:
        return torch.linalg.vector_norm(errors, dim=1).to("cpu", torch.float64)
    return torch.stack([torch.stack([torch.linalg.vector_norm(e) for e in error.T]) for error in errors]).cpu().double()
