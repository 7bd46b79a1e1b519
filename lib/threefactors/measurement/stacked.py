"""Lanczos for a whole stack at once, without asking the device for a number between looks.

Run after run, as in `krylov`, each step reads α and β from the device: on a GPU, a hundred runs would wait for it
thousands of times. Here α, β and what follows from them stay where the basis is, (R, m, P) in one piece. Every LOOK
steps the small matrices T come to the host in one transfer, to see which runs have settled. Between looks nothing
depends on a number: a run whose iteration breaks down goes on with a spare vector that is orthogonalized beside its
image at every step, which costs little, as the basis is read for both at once.

Batched products round by the shape of the batch, so runs are independent of their company up to rounding, not bit for
bit. Looks come at fixed steps, so that what a run is measured by depends on itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from threefactors.measurement.draws import signs, spares, starts
from threefactors.measurement.krylov import Tridiagonal
from threefactors.measurement.operators import Product, StackOperator

Method = Literal["runs", "stacked"]
"""How a stack is worked through: run after run, or all at once."""

LOOK = 8  # steps between looks: a settled run makes at most 7 products more than it needs
SHRINK = 0.75  # share of runs at work below which the others are left out: that takes a new linearization


class StackedKrylov:
    """Recursions of r runs side by side, all of the same size; at most `steps` steps, for which there is room."""

    def __init__(self, start: Tensor, spare: Tensor, steps: int) -> None:
        runs, P = start.shape
        self.size, self.steps = 0, min(steps, P)
        self._basis = start.new_empty(runs, max(self.steps, 1), P)
        self._basis[:, 0] = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
        self._spare = spare
        self._alpha = start.new_zeros(runs, self.steps)
        self._beta = torch.zeros_like(self._alpha)
        self._norm = start.new_zeros(runs)

    @property
    def basis(self) -> Tensor:
        """Qᵀ (r, m, P), orthonormal rows."""
        return self._basis[:, : self.size]

    def advance(self, product: Product, steps: int) -> None:
        """Steps of all runs, with nothing read from the device."""
        for _ in range(min(steps, self.steps - self.size)):
            self._extend(product(self._basis[:, self.size]))

    def _extend(self, images: Tensor) -> None:
        m, P = self.size + 1, images.shape[1]
        # No two turns of a spare vector are parallel: one that has been used is fresh again at the next breakdown.
        pair = torch.stack([images, self._spare.roll(self.size, 1)], 1)
        pair, c = complement(pair, self._basis[:, :m])
        norms = torch.linalg.vector_norm(pair, dim=2)
        alpha, beta = c[:, 0, -1], norms[:, 0]
        previous = self._beta[:, m - 2] if m > 1 else torch.zeros_like(beta)
        size = torch.hypot(torch.hypot(alpha, beta), previous)  # ‖A q_m‖
        self._norm = torch.maximum(self._norm, size)  # NaN where either is
        broken = beta <= 100 * torch.finfo(beta.dtype).eps * self._norm
        self._alpha[:, self.size] = alpha
        if m < P:  # else the basis is complete, and T is A
            self._beta[:, self.size] = beta.masked_fill(broken, 0)
        if m < self.steps:
            pair = pair / norms.unsqueeze(2)
            self._basis[:, m] = torch.where(broken[:, None], pair[:, 1], pair[:, 0])
        self.size = m

    def look(self) -> list[Tridiagonal]:
        """T of each run as it stands, in one transfer."""
        m, (_, _, P) = self.size, self._basis.shape
        packed = torch.cat([self._norm[:, None], self._alpha[:, :m], self._beta[:, :m]], 1)
        seen = []
        for norm, *rest in packed.cpu().double().tolist():
            T = Tridiagonal(P, torch.finfo(packed.dtype).eps)
            T.norm, T.alpha, T.beta = norm, rest[:m], rest[m:]
            T.breakdowns = T.beta[: P - 1].count(0.0)
            seen.append(T)
        return seen

    def keep(self, places: Sequence[int]) -> None:
        """Leaves out all runs but those at the given ascending places; the basis moves up where it lies."""
        for to, place in enumerate(places):
            if to != place:
                self._basis[to, : self.size + 1] = self._basis[place, : self.size + 1]
        self._basis = self._basis[: len(places)]
        index = torch.tensor(places, device=self._basis.device)
        self._spare, self._alpha, self._beta, self._norm = (
            t[index] for t in (self._spare, self._alpha, self._beta, self._norm)
        )


def complement(v: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """v (r, n, P) less its projection on the orthonormal rows of basis (r, m, P), and its coefficients (r, n, m)."""
    first = torch.bmm(v, basis.mT)
    v = torch.baddbmm(v, first, basis, alpha=-1)
    # Once loses orthogonality to cancellation; twice is enough (Kahan and Parlett).
    second = torch.bmm(v, basis.mT)
    return torch.baddbmm(v, second, basis, alpha=-1), first + second


def is_stacked(op: StackOperator, method: Method | None) -> bool:
    """Whether to take all runs at once; by default (None) where they lie on a GPU."""
    if method not in (None, *get_args(Method)):
        raise ValueError(f"method={method!r} is unknown; use 'runs', 'stacked', or None to choose by the device")
    return op.device.type != "cpu" if method is None else method == "stacked"


def basis_bytes(op: StackOperator, vectors: int) -> int:
    """Bytes that so many Lanczos and other vectors of one run take, with eight to work on."""
    return (vectors + 8) * op.shape[1] * op.dtype.itemsize


def top_pairs(
    op: StackOperator,
    k: int,
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    settled: Callable[[Tridiagonal], bool],
) -> tuple[list[Tridiagonal], Tensor]:
    """T of each run when it settled, at the latest after `steps`, and the Ritz vectors (R, P, k) of the k largest.

    All runs of `op` are linearized at once, as in `krylov.lanczos`; vectors are NaN where A is not finite.
    """
    R, P = op.shape
    krylov = StackedKrylov(starts(op, generators), spares(op, generators), steps)
    working, found = list(range(R)), [Tridiagonal(P, 0.0)] * R
    ritz = torch.full((R, P, k), torch.nan, dtype=op.dtype, device=op.device)
    waiting = set(working)
    product = op.product()
    while waiting:
        krylov.advance(product, LOOK)
        leaving = []
        for place, (i, T) in enumerate(zip(working, krylov.look(), strict=True)):
            if i in waiting and (krylov.size == krylov.steps or not T.finite or settled(T)):
                found[i] = T
                leaving.append(place)
        finite = [place for place in leaving if found[working[place]].finite]
        if finite:
            tops = [torch.tensor(found[working[place]].ritz()[1][:, :k].T.copy()) for place in finite]
            for place, top in zip(finite, torch.stack(tops).to(ritz), strict=True):
                ritz[working[place]] = torch.mm(top, krylov.basis[place]).T
        waiting -= {working[place] for place in leaving}
        if waiting and len(waiting) <= SHRINK * len(working):
            places = [place for place, i in enumerate(working) if i in waiting]
            krylov.keep(places)
            working = [working[place] for place in places]
            del product  # its graph goes before the next one comes
            product = op.rows(torch.tensor(working)).product()
    return found, ritz


def sampled_moments(
    op: StackOperator, generators: Sequence[torch.Generator], *, steps: int, samples: int
) -> tuple[Tensor, Tensor]:
    """What `moments` is made of: tr QᵀAQ and ‖A Q‖² (R, 2), and uᵀA u and ‖A u‖² (R, samples, 2)."""
    draws, product = signs(op, generators, 1 + samples), op.product()
    krylov = StackedKrylov(next(draws), spares(op, generators), steps)
    krylov.advance(product, steps)
    pairs = []
    for v in draws:
        u = complement(v[:, None], krylov.basis)[0][:, 0]
        image = product(u)
        pairs.append(torch.stack([(u * image).sum(1), (image * image).sum(1)], 1))
    exact = torch.tensor([T.moments() for T in krylov.look()], dtype=torch.float64)
    return exact, torch.stack(pairs, 1).to("cpu", torch.float64)


def quadratures(
    op: StackOperator, generators: Sequence[torch.Generator], *, steps: int, probes: int
) -> list[list[Tridiagonal]]:
    """T (R, probes) of Lanczos iterations from `probes` vectors of signs for each run.

    Each pair of a run and a probe is worked on like a run of its own, so that few runs fill a chunk as well as many.
    """
    R = op.shape[0]
    wide = op.rows(torch.arange(R).repeat_interleave(probes))
    start = torch.stack(list(signs(op, generators, probes)), 1).flatten(0, 1)
    spare = spares(op, generators).repeat_interleave(probes, 0)
    found: list[Tridiagonal] = []
    for rows, part in wide.chunks(basis_bytes(op, min(steps, op.shape[1]))):
        index = rows.to(op.device)
        krylov = StackedKrylov(start[index], spare[index], steps)
        krylov.advance(part.product(), steps)
        found += krylov.look()
    return [found[i : i + probes] for i in range(0, R * probes, probes)]
