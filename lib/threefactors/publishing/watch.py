"""What can be seen of a chapter while it runs: its progress, and the memory that it holds.

Memory is summed over the kernel and all its workers. A page that several processes share is counted
once (the proportional set size, PSS): summing resident sizes would count torch's code again for each
worker. PSS is sampled; the kernel's own high-water mark, kept by Linux, catches what falls between.
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

_PERIOD = 0.5  # seconds between samples: one costs milliseconds


class Watch:
    """Context manager around one execution: a progress line on stderr, and ``peak_memory`` in bytes.

    ``title`` names the chapter, ``cells`` is the number of its cells, ``progress`` the file to which a
    sweep appends lines ``done total``. Processes that outlive the execution are ended on leaving.
    """

    def __init__(self, title: str, cells: int, progress: Path) -> None:
        self.peak_memory = 0
        self.cell: int | None = None  # number of the cell at work, from 1
        self._title, self._cells, self._progress = title, cells, progress
        self._seen: set[psutil.Process] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Watch:
        self._before = set(psutil.Process().children(recursive=True))
        self._start = time.perf_counter()
        self._bar = _bar(self._title, self._cells)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._start
        if self._bar is not None:
            self._bar.close()
        left = [process for process in self._seen if process.is_running()]  # by a kernel that was killed
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)

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
        while not self._stop.wait(_PERIOD):
            self._sample()
            if self._bar is not None:
                self._bar.set_postfix_str(runs(self._progress), refresh=True)

    def _sample(self) -> None:
        with self._lock:
            family = set(psutil.Process().children(recursive=True)) - self._before
            self._seen |= family
            self.peak_memory = max(self.peak_memory, sum(map(_memory, family)), *map(_high_water, family))


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


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)  # PSS is known on Linux only
    except psutil.Error:  # it has ended
        return 0


def _high_water(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:  # it has ended, or this is not Linux
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
