"""How time grows with the number of networks that are trained at once, from 1 to as many as there are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .floor import StepProducts
from .peers import Library, Loop
from .problems import Problem, digits, wide
from .report import Section, Target, section
from .timing import Variant, interleave

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOOP = "sliced loop, one network"
GAIN = {"cpu": 1.0, "cuda": 20.0}  # times as many networks a second with the most of them as with one alone


def sections(rounds: int, cores: int, *, quick: bool, device: str = "cpu") -> Iterator[Section]:
    """One section for each shape."""
    if quick:
        yield measure([digits(64, runs=n, quick=True, device=device) for n in (1, 2)], rounds, cores)
        return
    yield measure([digits(64, runs=n, device=device) for n in COUNTS], rounds, cores)
    counts, batches = (COUNTS[:6], 10) if device == "cpu" else (COUNTS, 100)
    yield measure([wide(runs=n, device=device, batches=batches) for n in counts], rounds, cores)


def measure(problems: list[Problem], rounds: int, cores: int) -> Section:
    """The same problem with more and more networks; the floor is what the batched products of the most take."""
    first, last = problems[0], problems[-1]
    found = [Variant(LOOP, partial(Loop, first), first.units, cores)]
    found += [Variant(_name(p.runs), partial(Library, p), p.units, cores) for p in problems]
    steps = last.epochs * last.batches
    products = partial(StepProducts, last.widths, last.runs, last.batch_size, steps, last.device)
    floor = f"floor: batched products of {last.runs}"
    found.append(Variant(floor, products, last.units, cores))
    times = interleave(found, rounds, first.device)
    alone, together = times[_name(first.runs)], times[_name(last.runs)]
    grown = f"{last.runs} networks took {together * last.runs / alone / first.runs:.3g} times as long as {first.runs}"
    kind = first.device.partition(":")[0]
    target = Target(f"networks a second, {last.runs} at once / {first.runs}", alone / together, GAIN[kind])
    return section("scaling", first.shape, times, times[LOOP], times[floor], [target], [grown])


def _name(runs: int) -> str:
    return f"library, {runs} network{'s' * (runs > 1)}"
