"""What a study of minima asks of each network: its top eigenvalues, trace and Frobenius norm, by all competitors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial

import torch
from scipy.sparse.linalg import LinearOperator, eigsh  # type: ignore[import-untyped]
from threefactors._rng import generator
from threefactors.measurement.curvature import curvature
from torch import Tensor

from .curvature import CHOSEN, CURVLINOPS, FLOOR, INSTALLED, LOOP, Curvlinops, DoubleBackward, Modules, Operator
from .floor import CurvatureProducts
from .problems import Problem, digits, wide
from .report import Section, Target, section
from .timing import Variant, interleave
from .training import best, named

K, TOL, PROBES = 5, 1e-3, 30  # the library and the plain loop use each probe for trace and norm, curvlinops for one
FEW = {"cpu": 4, "cuda": 8}  # networks for competitors that take one after another
GOAL = {"cpu": 4.0, "cuda": 30.0}  # × the loop over curvlinops


class Library:
    """threefactors: the whole stack, each chunk linearized once for everything."""

    def __init__(self, problem: Problem) -> None:
        self.runs, self.operator = problem.runs, Operator(problem).operator
        self.products = 0.0

    def reset(self) -> None: ...

    def run(self) -> None:
        draws = [generator(i, "probe") for i in range(self.runs)]
        found = curvature(self.operator, K, probes=PROBES, tol=TOL, generators=draws)
        self.values, self.converged = found.top.values, found.top.converged
        self.trace, self.square = found.trace.value, found.frobenius_squared.value
        self.products = float(found.top.products.double().mean()) + PROBES


class Loop(ABC):
    """Network after network: ARPACK for the eigenvalues, Hutchinson's estimators for the rest."""

    way: type[Modules]

    def __init__(self, problem: Problem) -> None:
        self.modules = self.way(problem, 1)

    def reset(self) -> None:  # noqa: B027 (optional to override)
        """Nothing to put back: curvature changes no weights."""

    def run(self) -> None:
        found = [self.one(i) for i in range(self.modules.problem.runs)]
        self.values, self.trace, self.square = (torch.stack(part) for part in zip(*found, strict=True))

    @abstractmethod
    def one(self, i: int) -> tuple[Tensor, Tensor, Tensor]: ...


def arpack(operator: LinearOperator, i: int) -> Tensor:
    """The K largest eigenvalues, descending."""
    start = torch.randn(operator.shape[0], generator=generator(i, "start"), dtype=torch.float64).numpy()
    values = eigsh(operator, k=K, which="LA", tol=TOL, v0=start, return_eigenvectors=False)
    return torch.from_numpy(values.copy()).double().sort(descending=True).values


class PlainLoop(Loop):
    """PyTorch alone: ∇(gᵀv), the graph of g kept; what a careful user writes."""

    way = DoubleBackward

    def one(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        network = self.modules.networks[i]
        product, (P, like) = self.modules.product(network), (self.modules.v.shape[1], list(network.parameters()))

        def image(v: Tensor) -> Tensor:
            parts = v.to(like[0]).split([p.numel() for p in like])
            found = product([part.view_as(p) for part, p in zip(parts, like, strict=True)])
            return torch.cat([part.detach().flatten() for part in found])

        def matvec(v: object) -> object:
            return image(torch.as_tensor(v).flatten()).double().cpu().numpy()

        signs = 2.0 * torch.randint(2, (PROBES, P), generator=generator(i, "probe")) - 1
        signs = signs.to(like[0])
        images = torch.stack([image(v) for v in signs])
        values = arpack(LinearOperator((P, P), matvec=matvec, dtype=float), i)
        return values, (signs * images).sum(1).mean(), images.square().sum(1).mean()


class CurvlinopsLoop(Loop):
    """curvlinops as its documentation shows it, half of the probes for the trace and half for the norm."""

    way = Curvlinops

    def one(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        from curvlinops import hutchinson_squared_fro, hutchinson_trace  # type: ignore[import-untyped]

        operator = Curvlinops.operator(self.modules, self.modules.networks[i])
        trace, square = (f(operator, num_matvecs=PROBES // 2) for f in (hutchinson_trace, hutchinson_squared_fro))
        return arpack(operator.to_scipy(), i), trace, square


def sections(rounds: int, cores: int, *, quick: bool, device: str = "cpu") -> Iterator[Section]:
    """MLPs on the digits; on a GPU, wide ones with batch norm as well."""
    runs = 2 if quick else 100 if device != "cpu" else 32
    yield measure(digits(64, runs=runs, quick=quick, device=device), rounds, cores)
    if device != "cpu" and not quick:
        yield measure(wide(runs=100, device=device, batches=32), rounds, cores)


def measure(problem: Problem, rounds: int, cores: int) -> Section:
    kind = problem.device.partition(":")[0]
    few, whole = problem.first(min(FEW[kind], problem.runs)), Library(problem)
    parts = [Variant(named(CHOSEN, cores), whole, problem.runs, cores)]
    parts.append(Variant(named(LOOP, cores), partial(PlainLoop, few), few.runs, cores))
    notes = [f"top {K} to a residual of {TOL:g}, {PROBES} probes; {problem.runs} networks, the loops {few.runs}"]
    if INSTALLED and problem.model.batch_norm is None:  # it supposes a loss that is a sum over examples
        parts.append(Variant(named(CURVLINOPS, cores), partial(CurvlinopsLoop, few), few.runs, cores))
    else:
        notes.append("curvlinops: not installed" if not INSTALLED else "curvlinops: does not know batch norm")
    examples, chunk = len(problem.data.x_train), min(problem.runs, whole.operator.chunk)
    floor = partial(CurvatureProducts, problem.widths, problem.runs, examples, chunk, 1, problem.device)
    parts.append(Variant(FLOOR, floor, problem.runs // chunk * chunk, cores))
    times = interleave(parts, rounds, problem.device)
    times[FLOOR] *= whole.products
    notes.append(f"{whole.products:.0f} products to a network; {int(whole.converged.sum())} of them converged")
    loop, library, other = best(times, LOOP), best(times, CHOSEN), best(times, CURVLINOPS)
    assert loop is not None
    assert library is not None
    name, slower = (LOOP, loop) if other is None else (CURVLINOPS, other)
    targets = [Target(f"{CHOSEN} / {name}", slower / library, GOAL[kind])]
    shape = f"{'-'.join(map(str, problem.widths))}, N={examples}"
    return section("summary", shape, times, loop, times[FLOOR], targets, notes)
