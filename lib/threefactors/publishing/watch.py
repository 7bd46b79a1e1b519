"""What is seen of a chapter while it runs, its progress and the memory that it holds; and how it is stopped.

Memory is summed over the kernel and all its workers. A page that several processes share is counted
once (the proportional set size, PSS): summing resident sizes would count torch's code again for each
worker. PSS is sampled where the resident sizes have grown; the kernel's own high-water mark, kept by
Linux, catches what falls between.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

_PERIOD = 0.5  # seconds between samples: one costs a millisecond, or tens where pages are counted


class Watch:
    """Context manager around one execution: a progress line on stderr, and ``peak_memory`` in bytes.

    ``title`` names the chapter, ``cells`` is the number of its cells, ``progress`` the file to which a
    sweep appends lines ``done total``; soon after ``stop`` is set, the kernel is killed. Processes that
    outlive the execution are ended on leaving.
    """

    def __init__(self, title: str, cells: int, progress: Path, stop: threading.Event) -> None:
        self.peak_memory = 0
        self.cell: int | None = None  # number of the cell at work, from 1
        self.stop = stop
        self._title, self._cells, self._progress = title, cells, progress
        self._kernel: psutil.Process | None = None
        self._seen: set[psutil.Process] = set()
        self._resident = 0  # the largest sum met
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Watch:
        self._start = time.perf_counter()
        self._bar = _bar(self._title, self._cells)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._over.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._start
        if self._bar is not None:
            self._bar.close()
        psutil.wait_procs(_kill(self._seen), timeout=5)  # what a kernel that was killed left behind

    def follow(self, pid: int) -> None:
        """The process ``pid`` is the kernel: it and its workers are this chapter's, whatever else runs beside it."""
        with suppress(psutil.NoSuchProcess):
            self._kernel = psutil.Process(pid)

    def cell_starts(self, cell: Any, cell_index: int) -> None:
        """Hook of nbclient, called before each cell."""
        self.cell = cell_index + 1
        if self._bar is not None:
            self._bar.n = cell_index
            self._bar.refresh()

    def cell_ended(self, **_: Any) -> None:
        """Hook of nbclient, called after each cell: the kernel still lives, so its high water can be read."""
        self._sample()

    def _loop(self) -> None:
        while not self._over.wait(_PERIOD):
            self._sample()
            if self.stop.is_set():
                _kill(self._seen)
            if self._bar is not None:
                self._bar.set_postfix_str(runs(self._progress), refresh=True)

    def _sample(self) -> None:
        with self._lock:
            family = _family(self._kernel)
            self._seen |= family
            resident = sum(map(_resident, family))
            if resident > 1.02 * self._resident:  # no less than the PSS, and a thousand times quicker to know
                self._resident = resident
                self.peak_memory = max(self.peak_memory, sum(map(_proportional, family)))
            self.peak_memory = max([self.peak_memory, *map(_high_water, family)])


def runs(progress: Path) -> str:
    """``"runs 3/16"`` from the last whole line of a progress file, "" while there is none."""
    try:
        lines = progress.read_text().splitlines()
    except OSError:
        return ""
    words = lines[-1].split() if lines else []
    return f"runs {words[0]}/{words[1]}" if len(words) == 2 and all(w.isdigit() for w in words) else ""


def _bar(title: str, cells: int) -> Any:
    if not sys.stderr.isatty():
        print(f"{title}: executing {cells} cells", file=sys.stderr, flush=True)
        return None
    layout = "{desc} {percentage:3.0f}%|{bar}| cell {n_fmt}/{total_fmt}{postfix} [{elapsed}]"
    return tqdm(total=cells, desc=title, leave=False, bar_format=layout, file=sys.stderr)


def _family(kernel: psutil.Process | None) -> set[psutil.Process]:
    if kernel is None:
        return set()
    with suppress(psutil.NoSuchProcess):
        return {kernel, *kernel.children(recursive=True)}
    return set()


def _kill(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Kills those that still run, and returns them."""
    running = [process for process in processes if process.is_running()]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return running


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it has ended
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.Error, AttributeError):  # it has ended, or this is no Linux: macOS tells nobody's but one's own
        return _resident(process)


def _high_water(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:  # it has ended, or this is not Linux
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
