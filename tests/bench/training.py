"""Training: microseconds per model-step of the library and of its competitors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from threefactors.training import kernel

from .floor import StepProducts, peak, step_flops
from .jax_peer import INSTALLED, Jax
from .peers import Library, Loader, Loop, Processes, Vmap
from .problems import Problem, digits, wide
from .report import Section, Target, section
from .timing import Variant, interleave

ALONE = 4  # networks for competitors that take one after another: more would only take longer
LOOP, JAX, FLOOR = "(b) sliced loop", "(d) JAX", "(f) floor: batched products alone"
GOALS = {8: 55.0, 64: 15.0, 256: 5.5}  # × the sliced loop, on digits
WIDE_GOAL, WIDE_FLOOR = 2.8, 0.5


def sections(rounds: int, cores: int, *, quick: bool) -> Iterator[Section]:
    """One section for each shape."""
    with closing(Processes(cores)) as processes:
        if quick:
            yield measure(digits(64, runs=2, quick=True), processes, rounds, cores, GOALS[64])
            small = wide(runs=2, quick=True, width=32, batch_size=16)
            yield measure(small, processes, rounds, cores, WIDE_GOAL, WIDE_FLOOR)
            return
        for size, goal in GOALS.items():
            yield measure(digits(size), processes, rounds, cores, goal)
        yield measure(wide(), processes, rounds, cores, WIDE_GOAL, WIDE_FLOOR)


def variants(problem: Problem, processes: Processes, cores: int) -> list[Variant]:
    """All competitors, in the order of the table."""
    few = problem.first(min(ALONE, problem.runs))
    processes.take(few)
    threads = sorted({1, cores})
    found = [Variant("(a) DataLoader loop, 1 thread", Loader(few), few.units, 1)]
    found += [Variant(named(LOOP, n), Loop(few), few.units, n) for n in threads]
    found.append(Variant(f"(b) in processes, {cores} of them", processes, cores * few.units, 1))
    found.append(Variant(named("(c) vmap(grad)", cores), Vmap(problem), problem.units, cores))
    if INSTALLED:
        found.append(Variant(f"{JAX} jit(scan(vmap))", Jax(problem), problem.units, cores))
        found.append(Variant(f"{JAX} jit(map(scan))", Jax(problem, model_major=True), problem.units, cores))
    for engine in ("kernel", "by hand", "autograd"):
        if engine != "kernel" or kernel.available():
            works = [(n, Library(problem, engine)) for n in threads]
            found += [Variant(named(f"(e) library, {engine}", n), work, problem.units, n) for n, work in works]
    products = StepProducts(problem.widths, problem.runs, problem.batch_size, problem.epochs * problem.batches)
    found.append(Variant(FLOOR, products, problem.units, cores))
    return found


def named(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def measure(
    problem: Problem, processes: Processes, rounds: int, cores: int, goal: float, floor_goal: float | None = None
) -> Section:
    """All competitors on one shape, with the targets for the engine that the library chooses there."""
    times = interleave(variants(problem, processes, cores), rounds)
    times["    ceiling: one large product"] = step_flops(problem.widths, problem.batch_size) / peak(cores)
    loop = min(us for name, us in times.items() if name.startswith(LOOP))
    jax = min((us for name, us in times.items() if name.startswith(JAX)), default=None)
    chosen = Library(problem).trainer._engine_name
    library = times[named(f"(e) library, {chosen}", cores)]
    text = f"library as it chooses ({chosen}) /"
    targets = [Target(f"{text} sliced loop, whichever threads are faster", loop / library, goal)]
    notes = [f"{problem.runs} networks; (a) and (b) with {min(ALONE, problem.runs)} (in each process)"]
    if jax is not None:
        targets.append(Target(f"{text} JAX, whichever is faster", jax / library, 1.0))
    else:
        notes.append("(d) JAX: not installed")
    if floor_goal is not None:
        targets.append(Target(f"{text} floor", times[FLOOR] / library, floor_goal))
    return section("training", problem.shape, times, loop, times[FLOOR], targets, notes)
