"""``python -m tests.bench``: all benchmarks, a table in the terminal and the numbers in _build/bench.json."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import torch

from . import curvature, simulation, threshold, training
from .report import Section, write
from .timing import CORES

BUSY = 0.5  # load average above which the numbers are not to be trusted
BENCHES = {
    "training": training.sections, "curvature": curvature.sections, "simulation": simulation.sections,
    "threshold": threshold.sections,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs, not how fast")
    parser.add_argument("--only", choices=BENCHES, help="one of the benchmarks")
    parser.add_argument("--rounds", type=int, help="interleaved repetitions (default: 5; 1 with --quick)")
    parser.add_argument("--output", type=Path, default=Path("_build/bench.json"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds={options.rounds} measures nothing; use --rounds 1 or more (5 to report)")
    rounds = options.rounds or (1 if options.quick else 5)
    cores = 1 if options.quick else CORES
    start = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    vectors = torch.backends.cpu.get_cpu_capability()
    print(f"{platform.machine()} ({vectors}), {cores} of {os.cpu_count()} cores, load {load:.1f}")
    if load > BUSY:  # threads that wait for each other at every product suffer most, by a factor of ten and more
        print("other programs keep the cores busy: repeat this when the machine is quiet")
    print(f"PyTorch {torch.__version__}; medians of {rounds} interleaved rounds\n")
    done: list[Section] = []
    for name, sections in BENCHES.items():
        if options.only in (None, name):
            for part in sections(rounds, cores, quick=options.quick):
                print(part, end="\n\n", flush=True)
                done.append(part)
    write(done, options.output)
    rows = sum(len(part.rows) for part in done)
    print(f"{rows} rows in {options.output}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
