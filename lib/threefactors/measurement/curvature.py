"""The usual summary of the curvature of a stack, with each chunk of runs linearized once for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from threefactors._types import Estimate
from threefactors.measurement.draws import check_generators
from threefactors.measurement.lanczos import Eigenpairs, top_eigenvalues
from threefactors.measurement.moments import moments
from threefactors.measurement.operators import StackOperator
from threefactors.measurement.stacked import Method


@dataclass(frozen=True)
class Curvature:
    """Of each run: the k largest eigenvalues, tr A, and ‖A‖_F²."""

    top: Eigenpairs
    trace: Estimate
    frobenius_squared: Estimate


def curvature(
    op: StackOperator,
    k: int = 1,
    *,
    probes: int = 16,
    tol: float = 1e-3,
    max_products: int | None = None,
    generators: Sequence[torch.Generator],
    method: Method | None = None,
) -> Curvature:
    """What `top_eigenvalues` (without vectors) and then `moments` find with the same generators, chunk by chunk.

    Where linearizations can be used again (`hessian` of networks with products of their own), what θ alone determines
    is computed once for both. Arguments, validity and errors as for these two.

    >>> op = StackOperator.from_dense(torch.diag(torch.tensor([1.0, 2.0, 3.0]))[None])
    >>> found = curvature(op, 2, probes=8, generators=[torch.Generator().manual_seed(0)])
    >>> found.top.values.round(decimals=4), found.frobenius_squared.value.round(decimals=4)
    (tensor([[3., 2.]], dtype=torch.float64), tensor([14.], dtype=torch.float64))
    """
    check_generators(generators, op.shape[0])
    parts = []
    for rows, part in op.chunks():
        mine = [generators[i] for i in rows]
        top = top_eigenvalues(
            part, k, tol=tol, max_products=max_products, vectors=False, generators=mine, method=method
        )
        parts.append((top, *moments(part, probes=probes, generators=mine, method=method)))
    return Curvature(*(_joined(found) for found in zip(*parts, strict=True)))


def _joined(parts: Sequence[Any]) -> Any:
    """One result of all runs from those of each chunk: tensors are put together, all else they share."""

    def join(values: list[Any]) -> Any:
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else values[0]

    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: join([getattr(part, name) for part in parts]) for name in names})
