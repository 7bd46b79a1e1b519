"""Spectral density of a stack of symmetric matrices, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactors.measurement.draws import check_generators, rademacher
from threefactors.measurement.krylov import Tridiagonal, lanczos
from threefactors.measurement.operators import StackOperator
from threefactors.measurement.stacked import Method, is_stacked, quadratures


@dataclass(frozen=True)
class Quadrature:
    """Spectral density as points of mass, φ(λ) ≈ (1/V) Σ_v Σ_m w_vm δ(λ − λ_vm).

    nodes (R, V, m) and weights (R, V, m), float64 on the CPU; weights ≥ 0, and for each run and probe
    they sum to 1.
    """

    nodes: Tensor
    weights: Tensor

    def moment(self, k: int) -> Tensor:
        """(R,) estimates of tr(Aᵏ)/P; for each probe vᵀAᵏv/P exactly, as long as k < 2m."""
        return (self.weights * self.nodes**k).sum(2).mean(1)

    def density(self, grid: Tensor, width: float) -> Tensor:
        """(R, T) density on the grid (T,), each point of mass a Gaussian of standard deviation `width`.

        Of unit area over the whole line, per unit of λ. Raises ValueError where width ≤ 0.
        """
        if not width > 0:
            raise ValueError(f"width={width} of the Gaussians; use width > 0, in units of the eigenvalues")
        density = torch.zeros(self.nodes.shape[0], len(grid), dtype=self.nodes.dtype)
        for nodes, weights in zip(self.nodes.unbind(1), self.weights.unbind(1), strict=True):
            z = (grid.to(nodes)[:, None] - nodes[:, None, :]) / width
            density += (torch.exp(-z * z / 2) * weights[:, None, :]).sum(2)
        return density / (self.nodes.shape[1] * width * math.sqrt(2 * math.pi))


def spectral_density(
    op: StackOperator,
    *,
    steps: int,
    probes: int,
    generators: Sequence[torch.Generator],
    method: Method | None = None,
) -> Quadrature:
    """Density of the eigenvalues of each run, φ(λ) = (1/P) Σ_i δ(λ − λ_i), as a quadrature.

    A start vector v of random signs has E[vᵀ f(A) v]/P = tr f(A)/P = ∫ f φ, and m Lanczos steps from v
    are the Gauss quadrature of vᵀ f(A) v: nodes are the eigenvalues of T, weights the squared first
    components of its eigenvectors (Golub and Welsch 1969; Ubaru, Chen and Saad, SIAM J. Matrix Anal.
    Appl. 38, 2017, doi:10.1137/16M1104974; for networks: Ghorbani et al., arXiv 1901.10159).

    steps       m, nodes per probe; more than P are never needed nor taken
    probes      V start vectors, averaged; the products are steps × probes per run
    generators  one per run
    method      "runs", one after another, or "stacked", all at once; None: stacked on a GPU

    A run that is not finite has NaN. Raises ValueError where steps or probes < 1, for a wrong number of
    generators, or for an unknown method.
    """
    R, P = op.shape
    check_generators(generators, R)
    if steps < 1 or probes < 1:
        raise ValueError(f"steps={steps} and probes={probes}; use at least 1 of each")
    nodes = torch.full((R, probes, min(steps, P)), torch.nan, dtype=torch.float64)
    weights = torch.full_like(nodes, torch.nan)

    def note(i: int, j: int, run: Tridiagonal) -> None:
        if run.finite:
            values, vectors = run.ritz()
            nodes[i, j] = torch.from_numpy(values.copy())
            weights[i, j] = torch.from_numpy(vectors[0] ** 2)

    if is_stacked(op, method):
        for i, found in enumerate(quadratures(op, generators, steps=steps, probes=probes)):
            for j, run in enumerate(found):
                note(i, j, run)
        return Quadrature(nodes, weights / weights.sum(2, keepdim=True))
    for rows, part in op.chunks():
        mine = [generators[i] for i in rows]
        for j in range(probes):
            for i, run in zip(rows.tolist(), lanczos(part, rademacher(part, mine), mine, steps=steps), strict=True):
                note(i, j, run)
    return Quadrature(nodes, weights / weights.sum(2, keepdim=True))
