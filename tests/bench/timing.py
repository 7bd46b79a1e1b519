"""Interleaved timing: A B C A B C …, so that a slow minute of the machine falls on all variants alike.

Beside the time stands the peak of memory: by how much the process (and its children) grew at most, or the GPU was
filled, while a variant was set up and did its work for the first time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch

CORES = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Work(Protocol):
    """Something that can be done again and again: ``reset`` is not timed, ``run`` is."""

    def reset(self) -> None: ...

    def run(self) -> None: ...


@dataclass
class Variant:
    """A way to do the work (or what makes it), the threads it is given, the units (model-steps) that one run does."""

    name: str
    work: Work | Callable[[], Work]
    units: int
    threads: int


class Times(dict[str, float]):
    """Microseconds per unit by variant; ``peaks``, in MiB, where they could be had; who was left out for lack of it."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, float] = {}
        self.left_out: list[str] = []


def interleave(variants: Sequence[Variant], rounds: int, device: str = "cpu") -> Times:
    """Median microseconds per unit of each variant over ``rounds``; one more round before them warms up."""
    times, ready = Times(), []
    before = torch.get_num_threads()
    try:
        for variant in variants:
            _tell(f"  warming up  {variant.name}")
            torch.set_num_threads(variant.threads)
            try:
                with Peak(device) as peak:
                    work = variant.work() if callable(variant.work) else variant.work
                    work.reset()
                    work.run()
            except torch.OutOfMemoryError:
                times.left_out.append(variant.name)
                continue
            ready.append((variant, work))
            if peak.mebibytes is not None:
                times.peaks[variant.name] = peak.mebibytes
        taken: list[list[float]] = [[] for _ in ready]
        for turn in range(rounds):
            for (variant, work), own in zip(ready, taken, strict=True):
                _tell(f"  round {turn + 1}/{rounds}  {variant.name}")
                torch.set_num_threads(variant.threads)
                work.reset()
                settle(device)
                start = time.perf_counter()
                work.run()
                settle(device)
                own.append((time.perf_counter() - start) / variant.units * 1e6)
    finally:
        torch.set_num_threads(before)
        _tell("")
    times.update({v.name: statistics.median(own) for (v, _), own in zip(ready, taken, strict=True)})
    return times


def settle(device: str) -> None:
    """Waits for a GPU: it is given work and does it later."""
    if device != "cpu":
        torch.cuda.synchronize(device)


class Peak:
    """Context manager that tells by how many ``mebibytes`` memory grew at most; None where that cannot be known."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.mebibytes: float | None = None

    def __enter__(self) -> Peak:
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):  # only glibc keeps what was freed, to serve the next one
            ctypes.CDLL(None).malloc_trim(0)
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            self._before = sum(_forget_high_water(pid) for pid in _family())
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
            high: int | None = torch.cuda.max_memory_allocated(self.device)
        else:
            waters = [_status(pid, "VmHWM") for pid in _family()]
            high = sum(waters) if all(waters) else None  # not on Linux
        if high is not None:
            self.mebibytes = max(0.1, (high - self._before) / 2**20)


def _family() -> list[int]:
    return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


def _forget_high_water(pid: int) -> int:
    """From now on Linux keeps the high water of this process anew; bytes that it holds now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def _tell(progress: str) -> None:
    """One line that overwrites itself, for someone who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
