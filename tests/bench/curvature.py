"""Curvature: time per network and Hessian–vector product, of the library and of its competitors."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from threefactors._rng import generator
from threefactors.measurement import hessian
from threefactors.measurement.operators import CHUNK
from threefactors.training.losses import StackLosses
from torch import Tensor, nn

from .floor import CurvatureProducts
from .problems import Problem, digits, flat
from .report import Section, Target, section
from .timing import Variant, interleave
from .training import named

INSTALLED = importlib.util.find_spec("curvlinops") is not None
PRODUCTS = 10  # with one linearization: a Lanczos iteration takes some tens, so this is on the careful side
FEW = 12  # networks for competitors that take one after another
CHOSEN, BY_HAND, AUTOGRAD = "library as it chooses", "library, by hand", "library, autograd"
LOOP, CURVLINOPS, FLOOR = "double backward, graph kept", "curvlinops loop", "floor: batched products alone"
LOOP_GOAL, CURVLINOPS_GOAL = {"cpu": 2.0, "cuda": 10.0}, {"cpu": 7.0, "cuda": 30.0}
ROOM = 16 << 30  # bytes of a GPU that linearizations may take


class Curvature(ABC):
    """R networks at their start, their training set, a vector v for each; ``image`` is the last H v."""

    def __init__(self, problem: Problem, products: int = PRODUCTS) -> None:
        self.problem, self.products = problem, products
        self.x, self.y = problem.data.x_train.flatten(1), problem.data.y_train
        self.theta = problem.theta
        draws = [torch.randn(self.theta.shape[1], generator=generator(i, "probe")) for i in range(problem.runs)]
        self.v = torch.stack(draws).to(self.theta)
        self.image = torch.empty_like(self.v)

    @property
    def units(self) -> int:
        return self.problem.runs * self.products

    def reset(self) -> None:  # noqa: B027 (optional to override)
        """Nothing to put back: a product changes no weights."""

    @abstractmethod
    def run(self) -> None: ...


class Operator(Curvature):
    """threefactors, a chunk at a time as Lanczos does; ``way`` decides how the product is made."""

    def __init__(
        self,
        problem: Problem,
        products: int = PRODUCTS,
        *,
        way: type[StackLosses] = StackLosses,
        chunk: int | None = None,
    ) -> None:
        super().__init__(problem, products)
        data, runs = problem.data, problem.runs
        losses = way(problem.model, "cross-entropy", data.inputs, data.classes)
        x, y = self.x.expand(runs, *self.x.shape), self.y.expand(runs, -1)
        if chunk is None and problem.device != "cpu":  # as many as there is room for
            chunk = max(1, min(runs, ROOM // losses.curvature_bytes(x.shape[1], x.dtype)))
        # The probes hand the C kernels 16 runs at once: threads of OpenMP keep spinning for milliseconds after any
        # operation of PyTorch, and a longer call loses less to them.
        self.operator = hessian(losses, self.theta, x, y, chunk=chunk or (16 if way is StackLosses else CHUNK))

    def run(self) -> None:
        for rows, part in self.operator.chunks():
            at, product = rows.to(self.v.device), part.product()
            for _ in range(self.products):
                self.image[at] = product(self.v[at])


class ByHand(StackLosses):
    """Losses with the R-operator in plain PyTorch, as on a machine without a compiler."""

    def hessian_products(self, theta: Tensor, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        return self.stacked_products(theta, x.flatten(2), y)


class Autograd(StackLosses):
    """Losses without a hand-written product."""

    hessian_products = None  # type: ignore[assignment]


WAYS = {CHOSEN: StackLosses, BY_HAND: ByHand, AUTOGRAD: Autograd}


class Modules(Curvature):
    """Networks one after another, each an nn.Sequential."""

    def __init__(self, problem: Problem, products: int = PRODUCTS) -> None:
        super().__init__(problem, products)
        self.networks = [problem.module() for _ in range(problem.runs)]
        for network, theta in zip(self.networks, self.theta, strict=True):
            for to, start in zip(network.parameters(), problem.parameters(theta), strict=True):
                to.data = start
        self.vectors = [problem.parameters(v) for v in self.v]

    def keep(self, i: int, images: list[Tensor]) -> None:
        self.image[i] = flat([p.detach()[None] for p in images])[0]

    def run(self) -> None:
        for i, (network, v) in enumerate(zip(self.networks, self.vectors, strict=True)):
            product = self.product(network)
            for _ in range(self.products):
                image = product(v)
            self.keep(i, image)

    @abstractmethod
    def product(self, network: nn.Module) -> Callable[[list[Tensor]], list[Tensor]]: ...


class DoubleBackward(Modules):
    """∇(gᵀv) with the graph of the gradient g kept from product to product."""

    def product(self, network: nn.Module) -> Callable[[list[Tensor]], list[Tensor]]:
        parameters = list(network.parameters())
        loss = nn.functional.cross_entropy(network(self.x), self.y)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        return lambda v: list(torch.autograd.grad(gradient, parameters, v, retain_graph=True))


class Curvlinops(Modules):
    """HessianLinearOperator of the curvlinops library."""

    def product(self, network: nn.Module) -> Callable[[list[Tensor]], list[Tensor]]:
        operator = self.operator(network)
        return lambda v: operator @ v

    def operator(self, network: nn.Module) -> Any:
        from curvlinops import HessianLinearOperator  # type: ignore[import-untyped]

        data = [(self.x, self.y)]
        parameters = list(network.parameters())
        return HessianLinearOperator(network, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)


def sections(rounds: int, cores: int, *, quick: bool, device: str = "cpu") -> Iterator[Section]:
    """The one section there is."""
    runs, products = (4, 2) if quick else (100, PRODUCTS)
    yield measure(digits(64, runs=runs, quick=quick, device=device), rounds, cores, products)


def measure(problem: Problem, rounds: int, cores: int, products: int) -> Section:
    on_gpu, kind = problem.device != "cpu", problem.device.partition(":")[0]
    threads = [cores] if on_gpu else sorted({1, cores})
    few = problem.first(min(FEW, problem.runs))
    parts: list[Variant] = []

    def add(name: str, make: Callable[..., Curvature], of: Problem, counts: list[int]) -> None:
        work = partial(make, of, products)
        parts.extend(Variant(named(name, n), work, of.runs * products, n) for n in counts)

    for name, way in WAYS.items():
        if not (on_gpu and name == BY_HAND):  # there it is what the library chooses
            add(name, partial(Operator, way=way), problem if on_gpu or name == CHOSEN else few, threads)
    add(LOOP, DoubleBackward, few, threads)
    if INSTALLED:
        add(CURVLINOPS, Curvlinops, few, threads)
    examples, chunk = len(problem.data.x_train), problem.runs if on_gpu else CHUNK
    floor = partial(CurvatureProducts, problem.widths, problem.runs, examples, chunk, products, problem.device)
    parts.append(Variant(FLOOR, floor, problem.runs // chunk * chunk * products, cores))
    times = interleave(parts, rounds, problem.device)

    def best(name: str) -> float:
        return min(us for variant, us in times.items() if variant.startswith(name))

    targets = [Target(f"{CHOSEN} / {LOOP}", best(LOOP) / best(CHOSEN), LOOP_GOAL[kind])]
    notes = [f"{problem.runs} networks ({few.runs} for the loops), {products} products to a linearization"]
    if INSTALLED:
        target = Target(f"{CHOSEN} / {CURVLINOPS}", best(CURVLINOPS) / best(CHOSEN), CURVLINOPS_GOAL[kind])
        targets.append(target)
    else:
        notes.append("curvlinops: not installed")
    widths = "-".join(map(str, problem.widths))
    shape = f"{widths}, N={examples}"
    return section("curvature", shape, times, best(LOOP), times[FLOOR], targets, notes)
