"""Rows of measurements: as a table with targets in the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# The unit of a table, how many of it make a microsecond, and what its contenders are compared with.
HEADINGS = {
    "training": ("µs per model-step", 1, "× sliced loop"),
    "scaling": ("µs per model-step", 1, "× sliced loop"),
    "convolution": ("µs per model-step", 1, "× loop"),
    "curvature": ("µs per model and product", 1, "× double backward"),
    "summary": ("ms per network", 0.001, "× double backward"),
    "simulation": ("ns per trajectory-step", 1000, "× plain NumPy"),
    "threshold": ("ms per threshold", 0.001, "× dearest that fits"),
}


@dataclass(frozen=True)
class Row:
    """One variant on one shape. A model-step of ``curvature`` is one Hessian–vector product of one network,
    and its sliced loop the double backward, network after network; of ``summary``, all that is measured of one network,
    against the same loop; of ``simulation``, one time step of one
    trajectory, and its sliced loop the whole ensemble in one array of NumPy; of ``threshold``, one learning rate, and
    its sliced loop the way that needs most memory of those that fit."""

    bench: str
    shape: str
    variant: str
    microseconds_per_model_step: float
    ratio_to_sliced_loop: float
    fraction_of_floor: float
    peak_mebibytes: float | None = None


@dataclass(frozen=True)
class Target:
    """``value``, which should be at least ``goal``: never a failure, since the machine has its say in it."""

    text: str
    value: float
    goal: float

    def __str__(self) -> str:
        verdict = "ok" if self.value >= self.goal else "MISSED"
        return f"  {self.text:<68}{self.value:>8.2f}   target {self.goal:>5g}   {verdict}"


@dataclass(frozen=True)
class Section:
    """What was measured on one shape, with remarks such as what is not installed."""

    rows: Sequence[Row]
    targets: Sequence[Target]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        first = self.rows[0]
        unit, per_microsecond, loop = HEADINGS[first.bench]
        lines = [f"{first.bench}: {first.shape}", f"  {'':<42}{unit:>26}{loop:>20}{'of the floor':>16}{'peak MiB':>12}"]
        lines += [
            f"  {r.variant:<42}{r.microseconds_per_model_step * per_microsecond:>26.1f}{r.ratio_to_sliced_loop:>20.2f}"
            f"{r.fraction_of_floor:>16.0%}" + (f"{r.peak_mebibytes:>12.1f}" if r.peak_mebibytes else "")
            for r in self.rows
        ]
        return "\n".join([*lines, *map(str, self.targets), *(f"  {note}" for note in self.notes)])


def section(
    bench: str, shape: str, times: dict[str, float], loop: float, floor: float, targets: Sequence[Target],
    notes: Sequence[str] = (),
) -> Section:  # fmt: skip
    """Rows from microseconds by variant, given those of the sliced loop and of the floor."""
    peaks = getattr(times, "peaks", {})
    rows = [Row(bench, shape, name, us, loop / us, floor / us, peaks.get(name)) for name, us in times.items()]
    without = [f"{name}: left out, the memory does not suffice" for name in getattr(times, "left_out", [])]
    return Section(rows, targets, [*notes, *without])


def write(sections: Sequence[Section], path: Path) -> None:
    """All rows, as a list of objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(row) for part in sections for row in part.rows]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
