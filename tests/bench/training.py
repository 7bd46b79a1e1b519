"""Training: microseconds per model-step of the library and of its competitors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from threefactors.training import kernel

from .floor import StepProducts, peak, step_flops
from .jax_peer import Jax, computes_on
from .peers import Library, Loader, Loop, Processes, Vmap
from .problems import Problem, digits, wide
from .report import Section, Target, section
from .timing import Times, Variant, interleave

ALONE = 4  # networks for competitors that take one after another: more would only take longer
LOOP, EACH = "(b) sliced loop", "(b) loop, a process a core"
MAPPED, COMPILED, JAX, LIBRARY = "(c) vmap(grad)", "(c) vmap(grad), compiled", "(d) JAX", "(e) library"
FLOOR, CEILING = "(f) floor: batched products alone", "    ceiling: one large product"


@dataclass(frozen=True)
class Goals:
    """What the library should reach: times as fast as each competitor by name; shares of the floor and the ceiling."""

    faster: dict[str, float] = field(default_factory=dict)
    floor: float | None = None
    ceiling: float | None = None


# Trials before the library was written took 827, 929 and 1339 µs for the loop and 4.5, 25 and 102 for a kernel in C;
# hence these goals. PyTorch's loop has become faster since. What share of the ceiling is reached does not depend on it.
ON_DIGITS = {
    8: Goals({LOOP: 180, EACH: 90, JAX: 4}, ceiling=0.47),
    64: Goals({LOOP: 36, EACH: 18, JAX: 2.3}, ceiling=0.68),
    256: Goals({LOOP: 12.5, EACH: 6, JAX: 2}, ceiling=0.67),
}
WIDE = Goals({LOOP: 4.2, JAX: 1}, floor=0.5, ceiling=0.76)
WIDE_GPU = Goals({LOOP: 100, COMPILED: 3, JAX: 1}, floor=0.5)


def sections(rounds: int, cores: int, *, quick: bool, device: str = "cpu") -> Iterator[Section]:
    """One section for each shape."""
    if device != "cpu":
        yield measure(wide(runs=100, device=device, batches=400), None, rounds, cores, WIDE_GPU)
        yield measure(digits(64, runs=100, device=device), None, rounds, cores, Goals({COMPILED: 3, JAX: 1}))
        return
    with closing(Processes(cores)) as processes:
        if quick:
            yield measure(digits(64, runs=2, quick=True), processes, rounds, cores, ON_DIGITS[64])
            yield measure(wide(runs=2, quick=True, width=32, batch_size=16), processes, rounds, cores, WIDE)
            return
        for size, goals in ON_DIGITS.items():
            yield measure(digits(size), processes, rounds, cores, goals)
        yield measure(wide(), processes, rounds, cores, WIDE)


def variants(problem: Problem, processes: Processes | None, cores: int) -> list[Variant]:
    """All competitors, in the order of the table; ``processes`` only where there are cores to fill."""
    few = problem.first(min(ALONE, problem.runs))
    threads, found = sorted({1, cores}), []
    on_gpu = problem.device != "cpu"
    if processes is not None:
        processes.take(few)
        found.append(Variant("(a) DataLoader loop, 1 thread", partial(Loader, few), few.units, 1))
    found += [Variant(named(LOOP, n), partial(Loop, few), few.units, n) for n in ([cores] if on_gpu else threads)]
    if processes is not None:
        found.append(Variant(f"{EACH}, {cores} of them", processes, cores * few.units, 1))
    found.append(Variant(named(MAPPED, cores), partial(Vmap, problem), problem.units, cores))
    if on_gpu:
        found.append(Variant(COMPILED, partial(Vmap, problem, compiled=True), problem.units, cores))
    if computes_on(problem.device):
        found.append(Variant(f"{JAX} jit(scan(vmap))", partial(Jax, problem), problem.units, cores))
        if not on_gpu:
            one_by_one = partial(Jax, problem, model_major=True)
            found.append(Variant(f"{JAX} jit(map(scan))", one_by_one, problem.units, cores))
    for engine in ("captured", "by hand") if on_gpu else ("kernel", "by hand", "autograd"):
        if engine != "kernel" or kernel.available():
            for n in [cores] if on_gpu else threads:
                name = named(f"{LIBRARY}, {engine}", n)
                found.append(Variant(name, partial(Library, problem, engine), problem.units, n))
    steps = problem.epochs * problem.batches
    products = partial(StepProducts, problem.widths, problem.runs, problem.batch_size, steps, problem.device)
    found.append(Variant(FLOOR, products, problem.units, cores))
    return found


def named(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def best(times: Times, name: str) -> float | None:
    """The fastest of the variants whose names begin so."""
    return min((us for variant, us in times.items() if variant.startswith(name)), default=None)


def measure(problem: Problem, processes: Processes | None, rounds: int, cores: int, goals: Goals) -> Section:
    """All competitors on one shape, with the targets for the engine that the library chooses there."""
    times = interleave(variants(problem, processes, cores), rounds, problem.device)
    ceiling = step_flops(problem.widths, problem.batch_size) / peak(cores, device=problem.device)
    times[CEILING] = ceiling
    chosen = Library(problem).trainer._engine_name
    library = times[named(f"{LIBRARY}, {chosen}", cores)]
    text = f"library ({chosen}) /"
    targets, notes = [], [f"{problem.runs} networks; (a) and (b) with {min(ALONE, problem.runs)} (in each process)"]
    for name, goal in goals.faster.items():
        if (other := best(times, name)) is not None:
            targets.append(Target(f"{text} {name[4:]}", other / library, goal))
            if other / ceiling < goal:
                notes.append(f"{goal:g}× the {name[4:]} is beyond the ceiling, which is {other / ceiling:.3g}×")
        else:
            notes.append(f"{name[4:]}: not installed for {problem.device}")
    shares = {"floor": (times[FLOOR], goals.floor), "ceiling": (ceiling, goals.ceiling)}
    targets += [Target(f"{text} {what}", us / library, goal) for what, (us, goal) in shares.items() if goal is not None]
    loop = best(times, LOOP)
    assert loop is not None
    return section("training", problem.shape, times, loop, times[FLOOR], targets, notes)
