"""Interleaved timing: A B C A B C …, so that a slow minute of the machine falls on all variants alike."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

CORES = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Work(Protocol):
    """Something that can be done again and again: ``reset`` is not timed, ``run`` is."""

    def reset(self) -> None: ...

    def run(self) -> None: ...


@dataclass
class Variant:
    """A way to do the work, the number of threads it is given, the units (model-steps) that one run does."""

    name: str
    work: Work
    units: int
    threads: int


def interleave(variants: Sequence[Variant], rounds: int) -> dict[str, float]:
    """Median microseconds per unit of each variant over ``rounds``; one more round before them warms up."""
    taken: list[list[float]] = [[] for _ in variants]
    before = torch.get_num_threads()
    try:
        for turn in range(rounds + 1):
            for variant, times in zip(variants, taken, strict=True):
                _tell(f"  round {turn}/{rounds}  {variant.name}")
                torch.set_num_threads(variant.threads)
                variant.work.reset()
                start = time.perf_counter()
                variant.work.run()
                elapsed = time.perf_counter() - start
                if turn:  # the first round warms up
                    times.append(elapsed / variant.units * 1e6)
    finally:
        torch.set_num_threads(before)
        _tell("")
    return {v.name: statistics.median(times) for v, times in zip(variants, taken, strict=True)}


def _tell(progress: str) -> None:
    """One line that overwrites itself, for someone who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
