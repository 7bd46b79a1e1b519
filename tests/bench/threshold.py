"""The stability threshold of a sum of quadratics: time to find it, with the terms given in four ways.

n terms of rank one, of unlike size, in m dimensions. All ways have one BLAS thread: at matrices this small a second one
makes each of them slower, by factors from 1.3 to 7. The floor is what the matrix-free way cannot do without: the
products that it asked for. Peak memory is that of the arrays made on the way, with the m × m terms where they are used.
"""

from __future__ import annotations

import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from threefactors._rng import numpy_generator
from threefactors.theory.second_moment import Factors, matrix_free_limit, second_moment_limit

from .report import Section, Target, section
from .timing import Variant, interleave

Array = NDArray[np.float64]
BATCH = 8
KRONECKER, MATRICES, FACTORS = "m² × m² matrices, eigh", "library, matrices (n, m, m)", "library, factors (n, 1, m)"
FREE, FLOOR = "library, products alone, to 1e-3", "floor: those products"
LARGEST = {KRONECKER: 30, MATRICES: 300}  # dimension up to which it is tried
LARGE = 10_000  # dimension from which on the products should be a good part of the time
MATRICES_GOAL, FREE_GOAL, FLOOR_GOAL = 20.0, 5.0, 0.2


class Problem:
    """A (n, 1, m), with curvature that falls off as in a network: some directions have most of it."""

    def __init__(self, terms: int, dimension: int) -> None:
        random = numpy_generator(0, "threshold")
        scale = np.arange(1, dimension + 1) ** -0.7 * random.exponential(size=(terms, 1, 1))
        self.factors: Array = random.standard_normal((terms, 1, dimension)) * scale

    @property
    def shape(self) -> tuple[int, int]:
        """n and m."""
        return self.factors.shape[0], self.factors.shape[2]

    def matrices(self) -> Array:
        return self.factors.transpose(0, 2, 1) @ self.factors

    def products(self, V: Array) -> Iterator[Array]:
        for a in self.factors:
            yield (a.T @ (a @ V))[None]


class Threshold(ABC):
    """``value`` is the learning rate that was found."""

    value: float

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def reset(self) -> None:  # noqa: B027 (optional to override)
        """Nothing to put back."""

    @abstractmethod
    def run(self) -> None: ...


class Kronecker(Threshold):
    """M(X) = μ L(X) written out for the m² entries of X; the mean must have no flat direction."""

    def run(self) -> None:
        Q, p = self.problem.matrices(), 1 / BATCH
        n, m = self.problem.shape
        mean, one = Q.mean(0), np.eye(m)
        rows = Q.reshape(n, m * m)
        both = (rows.T @ rows / n).reshape(m, m, m, m).transpose(0, 2, 1, 3).reshape(m * m, m * m)  # ⟨Q_i ⊗ Q_i⟩
        M, L = (1 - p) * np.kron(mean, mean) + p * both, np.kron(mean, one) + np.kron(one, mean)
        self.value = 1 / float(eigh(M, L, eigvals_only=True, subset_by_index=[m * m - 1] * 2)[0])


class Matrices(Threshold):
    def run(self) -> None:
        self.value = second_moment_limit(self.problem.matrices(), BATCH)


class LowRank(Threshold):
    def run(self) -> None:
        self.value = second_moment_limit(Factors(self.problem.factors), BATCH)


class Free(Threshold):
    def run(self) -> None:
        n, m = self.problem.shape
        self.asked: list[Array] = []

        def products(V: Array) -> Iterator[Array]:
            self.asked.append(V)
            return self.problem.products(V)

        self.value = matrix_free_limit(products, m, n, BATCH, tolerance=1e-3).value


class Products(Threshold):
    """As many products as the matrix-free way has asked for when it was run last."""

    def __init__(self, problem: Problem, widths: list[int]) -> None:
        super().__init__(problem)
        self.blocks = [np.ones((problem.shape[1], width)) for width in set(widths)]
        self.times = [widths.count(block.shape[1]) for block in self.blocks]

    def run(self) -> None:
        for block, times in zip(self.blocks, self.times, strict=True):
            for _ in range(times):
                for _ in self.problem.products(block):
                    pass


WAYS: dict[str, Callable[[Problem], Threshold]] = {
    KRONECKER: Kronecker, MATRICES: Matrices, FACTORS: LowRank, FREE: Free,
}  # fmt: skip


def sections(rounds: int, cores: int, *, quick: bool) -> Iterator[Section]:
    """One section for each dimension."""
    for terms, dimension in (
        [(8, 6), (5, 40)] if quick else [(40, 10), (40, 30), (40, 300), (40, 10_000), (20, 100_000)]
    ):
        yield measure(Problem(terms, dimension), rounds)


def measure(problem: Problem, rounds: int) -> Section:
    """All ways that fit."""
    n, m = problem.shape
    works = {name: way(problem) for name, way in WAYS.items() if m <= LARGEST.get(name, m)}
    peaks = {name: peak(work) for name, work in works.items()}
    free = works[FREE]
    assert isinstance(free, Free)
    works[FLOOR] = Products(problem, [V.shape[1] for V in free.asked])
    with threadpool_limits(1, "blas"):
        times = interleave([Variant(name, work, 1, 1) for name, work in works.items()], rounds)
    dearest = next(iter(works))
    targets = []
    if m == LARGEST[KRONECKER]:
        goals = {MATRICES: MATRICES_GOAL, FREE: FREE_GOAL}
        targets = [
            Target(f"{name} / {KRONECKER}", times[KRONECKER] / times[name], goal) for name, goal in goals.items()
        ]
    if m >= LARGE:
        targets = [Target(f"{FREE} / {FLOOR}", times[FLOOR] / times[FREE], FLOOR_GOAL)]
    times.peaks = {name: size / 2**20 for name, size in peaks.items()}  # arrays are counted to the byte
    notes = [f"M and L as m² × m² matrices are {16e-6 * m**4:.3g} MB"]
    return section("threshold", f"m={m}, n={n}", times, times[dearest], times[FLOOR], targets, notes)


def peak(work: Threshold) -> int:
    """Bytes of the arrays that were alive at once."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work.run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
