"""Simulation: time per trajectory and Euler–Maruyama step, of the library and of its competitors.

The floor has two parts, each measured beside the contenders on all cores: the normal numbers, drawn in the fastest way
we know (PyTorch, single precision, into a buffer in the cache), and the state, read from memory and written back in
float64 once a step. Nothing is allowed for the arithmetic. The library keeps its state in the cache while it steps, so
that it need not pay the second part in full; what it pays instead is the drift and the passes of the scheme.

Competitors are in the fastest of the configurations that they offer: one state for the whole ensemble (diffrax is
five times slower with one solve per trajectory under vmap), increments drawn and forgotten where that can be had (the
VirtualBrownianTree of diffrax is forty times slower than its UnsafeBrownianPath; torchsde always remembers), no
gradients.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threefactors._rng import generator, numpy_generator
from threefactors.simulation.diffusion import euler_maruyama
from threefactors.simulation.ensemble import BLOCK, simulate

from .report import Section, Target, section
from .timing import Variant, interleave
from .training import named

Array = NDArray[np.floating[Any]]
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("torchsde", "diffrax")}
LIBRARY, PLAIN, FLOOR = "library", "plain NumPy", "floor: normals and memory"
NORMALS, MEMORY = "    normals alone", "    memory alone"
MEMORY_STATE = 2**23  # 64 MiB of float64, more than the caches hold
GOAL, FLOOR_GOAL = 1.0, 0.5


def ornstein_uhlenbeck(x: Any, stack: Callable[[Any], Any]) -> Any:
    """b(x) = −x."""
    return -x


def double_well(x: Any, stack: Callable[[Any], Any]) -> Any:
    """b = −∇V of V(x) = (x₁² − 1)² + x₂²."""
    return stack((4 * x[0] * (1 - x[0] * x[0]), -2 * x[1]))


@dataclass(frozen=True)
class Problem:
    """dX = b(X) dt + σ dW in d = len(start) components; one drift for all, given their own ``stack``."""

    name: str
    drift: Callable[[Any, Callable[[Any], Any]], Any]
    start: tuple[float, ...]
    trajectories: int = 100_000
    steps: int = 200
    sigma: float = 0.7
    h: float = 0.01

    @property
    def shape(self) -> tuple[int, int]:
        """Of the state, components first."""
        return len(self.start), self.trajectories

    @property
    def units(self) -> int:
        return self.trajectories * self.steps


class Simulation(ABC):
    """Carries the ensemble from its start to the end; ``final`` (d, n) is where it ended, for the tests."""

    final: Any

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def reset(self) -> None:  # noqa: B027 (optional to override)
        """Nothing to put back: every run begins at the start."""

    @abstractmethod
    def run(self) -> None: ...


class Library(Simulation):
    """threefactors, on as many threads as PyTorch is given."""

    def run(self) -> None:
        p = self.problem
        dynamics = euler_maruyama(lambda x: p.drift(x, np.stack), p.sigma, p.h)
        self.final = simulate(dynamics, p.start, p.steps, trajectories=p.trajectories, seed=0).final


class Plain(Simulation):
    """What one would write in NumPy: the whole ensemble in one array."""

    def run(self) -> None:
        p, rng = self.problem, numpy_generator(0, "plain")
        x = np.tile(np.array(p.start)[:, None], p.trajectories)
        for _ in range(p.steps):
            x = x + p.h * p.drift(x, np.stack) + p.sigma * math.sqrt(p.h) * rng.standard_normal(p.shape)
        self.final = x


class TorchSDE(Simulation):
    """torchsde.sdeint with diagonal noise; its "batch" and its "state" are our components and trajectories."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, problem: Problem, dtype: torch.dtype) -> None:
        super().__init__(problem)
        self.start = torch.tensor(problem.start, dtype=dtype)[:, None].repeat(1, problem.trajectories)
        self.sigma = torch.full_like(self.start, problem.sigma)
        self.times = torch.tensor([0, problem.steps * problem.h], dtype=dtype)

    def f(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.problem.drift(x, torch.stack)

    def g(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.sigma

    @torch.no_grad()
    def run(self) -> None:
        import torchsde  # type: ignore[import-untyped]

        dt, start = self.problem.h, self.start
        path = torchsde.BrownianInterval(
            self.times[0], self.times[-1], size=start.shape, dtype=start.dtype, dt=dt, entropy=0
        )  # told the step, it searches in half the time
        self.final = torchsde.sdeint(self, start, self.times, method="euler", dt=dt, bm=path)[-1]


class Diffrax(Simulation):
    """diffrax.diffeqsolve compiled as a whole; JAX spreads it over all cores by itself."""

    def __init__(self, problem: Problem, dtype: torch.dtype) -> None:
        import diffrax
        import jax
        import jax.numpy as jnp
        import lineax  # type: ignore[import-untyped]

        jax.config.update("jax_enable_x64", True)
        p, kind, self.jax = problem, str(dtype).removeprefix("torch."), jax
        super().__init__(p)

        def solve(key: Any) -> Any:
            start = jnp.tile(jnp.array(p.start, kind)[:, None], p.trajectories)
            sigma = lineax.DiagonalLinearOperator(jnp.full_like(start, p.sigma))
            path = diffrax.UnsafeBrownianPath(shape=jax.ShapeDtypeStruct(start.shape, kind), key=key)
            drift = diffrax.ODETerm(lambda t, x, _: p.drift(x, jnp.stack))
            terms: Any = diffrax.MultiTerm(drift, diffrax.ControlTerm(lambda t, x, _: sigma, path))
            span = (jnp.asarray(time, kind) for time in (0, p.steps * p.h, p.h))
            found = diffrax.diffeqsolve(
                terms, diffrax.Euler(), *span, start, adjoint=diffrax.ForwardMode(), max_steps=p.steps + 1
            )
            return found.ys[-1]

        self.solve = jax.jit(solve)

    def run(self) -> None:
        self.final = self.jax.block_until_ready(self.solve(self.jax.random.key(0)))


class Normals:
    """One number for each component, trajectory and step; every thread has a buffer and a generator of its own."""

    def __init__(self, problem: Problem) -> None:
        self.blocks = -(-problem.units * len(problem.start) // BLOCK)

    def reset(self) -> None: ...

    def run(self) -> None:
        threads = torch.get_num_threads()

        def draw(thread: int) -> None:
            source, buffer = generator(thread, "normals"), torch.empty(BLOCK)
            for _ in range(thread, self.blocks, threads):
                buffer.normal_(generator=source)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, range(threads)))


class Memory:
    """A state too large for the cache, read and written once."""

    def __init__(self, problem: Problem) -> None:
        self.state = torch.zeros(MEMORY_STATE, dtype=torch.float64)
        self.units = MEMORY_STATE // len(problem.start)

    def reset(self) -> None: ...

    def run(self) -> None:
        self.state.add_(1.0)


def sections(rounds: int, cores: int, *, quick: bool) -> Iterator[Section]:
    """One section for each process."""
    sizes = {"trajectories": 2000, "steps": 5} if quick else {}
    yield measure(Problem("Ornstein–Uhlenbeck d=1", ornstein_uhlenbeck, (1.0,), **sizes), rounds, cores)
    yield measure(Problem("double well d=2", double_well, (-1.0, 0.0), **sizes), rounds, cores)


def variants(problem: Problem, cores: int) -> list[Variant]:
    """All contenders, in the order of the table."""
    threads, units = sorted({1, cores}), problem.units
    found = [Variant(f"{PLAIN}, float64", Plain(problem), units, 1)]
    for dtype in (torch.float64, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        if INSTALLED["torchsde"]:
            work = TorchSDE(problem, dtype)
            found += [Variant(named(f"torchsde, {kind}", n), work, units, n) for n in threads]
        if INSTALLED["diffrax"]:
            found.append(Variant(f"diffrax, {kind}, all cores", Diffrax(problem, dtype), units, cores))
    found += [Variant(named(f"{LIBRARY}, float64", n), Library(problem), units, n) for n in threads]
    memory = Memory(problem)
    return [*found, Variant(NORMALS, Normals(problem), units, cores), Variant(MEMORY, memory, memory.units, cores)]


def measure(problem: Problem, rounds: int, cores: int) -> Section:
    """All contenders on one process, with targets for the library where it is given all cores."""
    times = interleave(variants(problem, cores), rounds)
    floor = times[FLOOR] = times[NORMALS] + times[MEMORY]
    library = times[named(f"{LIBRARY}, float64", cores)]
    targets = [Target("library / floor", floor / library, FLOOR_GOAL)]
    for peer in filter(INSTALLED.get, INSTALLED):
        fastest = min(us for name, us in times.items() if name.startswith(peer))
        targets.append(Target(f"library / {peer}, whichever of its rows is faster", fastest / library, GOAL))
    notes = [f"{peer}: not installed" for peer, installed in INSTALLED.items() if not installed]
    shape = f"{problem.name}, {problem.trajectories} trajectories × {problem.steps} steps"
    return section("simulation", shape, times, times[f"{PLAIN}, float64"], floor, targets, notes)
