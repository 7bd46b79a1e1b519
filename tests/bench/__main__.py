"""``python -m tests.bench``: all benchmarks, a table in the terminal and the numbers in _build/bench.json."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from threefactors.experiments.provenance import commit, device_name, versions
from threefactors.publishing import measured

from . import convolution, curvature, scaling, simulation, summary, threshold, training
from .peers import Loop
from .problems import digits
from .report import HEADINGS, Section, write
from .timing import CORES

BUSY = 0.5  # load average above which the numbers are not to be trusted
BENCHES = {
    "training": training.sections,
    "scaling": scaling.sections,
    "convolution": convolution.sections,
    "curvature": curvature.sections,
    "summary": summary.sections,
    "simulation": simulation.sections,
    "threshold": threshold.sections,
}
ON_GPU = ("training", "scaling", "convolution", "curvature", "summary")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, not how fast")
    parser.add_argument("--only", choices=BENCHES, help="one of the benchmarks")
    parser.add_argument("--rounds", type=int, help="interleaved repetitions (default: 5; 1 with --quick)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; on a GPU: " + ", ".join(ON_GPU))
    parser.add_argument("--output", type=Path, default=Path("_build/bench.json"), help="default: %(default)s")
    parser.add_argument("--record", action="store_true", help="put the numbers on record, for the book to show")
    parser.add_argument("--book", type=Path, default=Path("book"), help="where the record is kept: %(default)s")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds={options.rounds} measures nothing; use --rounds 1 or more (5 to report)")
    if options.device != "cpu":
        if not torch.cuda.is_available():
            parser.error(f"--device={options.device}, but PyTorch {torch.__version__} finds no GPU; use --device cpu")
        if options.only not in (None, *ON_GPU):
            parser.error(f"--only={options.only} measures what runs on the CPU; on a GPU use {', '.join(ON_GPU)}")
    if options.record and not options.book.is_dir():
        parser.error(f"--book={options.book} is no folder; run it from the repository, or name its book")
    rounds = options.rounds or (1 if options.quick else 5)
    cores = 1 if options.quick else CORES
    start = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"{device_name(options.device)}, {cores} of {os.cpu_count()} cores, load {load:.1f}")
    if load > BUSY:  # threads that wait for each other at every product suffer most, by a factor of ten and more
        print("other programs keep the cores busy: repeat this when the machine is quiet")
    print(f"PyTorch {torch.__version__}; medians of {rounds} interleaved rounds\n")
    Loop(digits(64, runs=1, quick=True)).run()  # what PyTorch loads at its first step is no contender's memory
    done: list[Section] = []
    for name, sections in BENCHES.items():
        on_gpu = {} if options.device == "cpu" else {"device": options.device}
        if options.only in (None, name) and (not on_gpu or name in ON_GPU):
            parts = []
            for part in sections(rounds, cores, quick=options.quick, **on_gpu):
                print(part, end="\n\n", flush=True)
                parts.append(part)
            done += parts
            if options.record:
                print(f"on record: {_record(options, name, parts, rounds, cores, load)}\n")
    write(done, options.output)
    rows = sum(len(part.rows) for part in done)
    print(f"{rows} rows in {options.output}, {time.perf_counter() - start:.0f} s")


def _record(
    options: argparse.Namespace, bench: str, parts: Sequence[Section], rounds: int, cores: int, load: float
) -> Path:
    unit, per_microsecond, against = HEADINGS[bench]
    kind = options.device.partition(":")[0]
    machine = device_name(options.device) + (f", {cores} of {os.cpu_count()} cores" if kind == "cpu" else "")
    targets = [[part.rows[0].shape, t.text, t.value, t.goal] for part in parts for t in part.targets]
    about = {
        "bench": bench, "machine": machine, "device": kind, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": _command(options, bench), "unit": unit,
        "per_microsecond": per_microsecond, "against": against, "targets": targets,
        "notes": [[part.rows[0].shape, note] for part in parts for note in part.notes],
        "commit": commit(), "versions": {k: versions()[k] for k in ("python", "torch", "numpy")},
        "system": platform.system(), "rounds": rounds, "load": load, "quick": options.quick,
    }  # fmt: skip
    return measured.record(options.book, [asdict(row) for part in parts for row in part.rows], about)


def _command(options: argparse.Namespace, bench: str) -> str:
    """What makes this measurement again, from the repository."""
    asked = {"--device": options.device, "--only": bench, "--rounds": options.rounds}
    words = [word for name, value in asked.items() if value not in (None, "cpu") for word in (name, str(value))]
    return " ".join(["python -m tests.bench --record", *words, *(["--quick"] if options.quick else [])])


if __name__ == "__main__":
    main()
