"""Which of several ways to compute the same thing is the fastest on this device: measured once, then remembered.

Choices are kept in the process and in one small JSON file for each device and version of PyTorch beside the compiled
kernels, so that a second run takes the same ways as the first and measures nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactors.training.kernel import cache_folder

MEASURED = ("cuda",)  # kinds of devices on which ways are measured; on others rules decide, as their users wrote them
WARM_UP, REPEATS, REPLAYS = 3, 5, 4
Work = Callable[[], object]

_known: dict[str, dict[str, str]] = {}  # by device, then by key
_lock = threading.RLock()


def choice(key: str, works: Callable[[], Mapping[str, Work]], like: Tensor, *, measure: bool = True) -> str | None:
    """Name of the fastest of ``works()`` under this key, on the device and in the precision of ``like``.

    ``works()`` is called only where nothing is known yet; without ``measure`` None is returned then.
    Raises RuntimeError while a CUDA graph is being captured, in which nothing can be measured.
    """
    device, key = like.device, f"{key}, {_precision(like)}"
    with _lock:
        known = _choices(device)
        if key in known or not measure:
            return known.get(key)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"the way of {key} is not chosen yet, and cannot be measured while a CUDA graph is captured; "
                f"call convolution.prepare(model, runs, batch, device, dtype) before"
            )
        # Nothing that is being differentiated, nor a way that is being tried, may reach the trials.
        with torch.enable_grad():
            name, seconds = fastest(works(), device)
        known[key] = name
        _keep(device, key, name, seconds)
        return name


def fastest(
    works: Mapping[str, Work], device: torch.device, seconds: Callable[[Work, torch.device], float] | None = None
) -> tuple[str, dict[str, float]]:
    """The name of the fastest work, and seconds of each; ∞ for what does not fit into memory.

    Raises MemoryError where none fits.
    """
    measure = seconds or (captured_seconds if device.type == "cuda" else plain_seconds)
    taken = {}
    for name, work in works.items():
        try:
            taken[name] = measure(work, device)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            taken[name] = math.inf
    best = min(taken, key=taken.__getitem__)
    if taken[best] == math.inf:
        raise MemoryError(f"none of {', '.join(taken)} fits into the memory of {device}; use fewer runs at once")
    return best, taken


def plain_seconds(work: Work, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of REPEATS; the first call, which warms up, is left out."""
    work()
    taken = []
    for _ in range(REPEATS):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def captured_seconds(work: Work, device: torch.device) -> float:
    """The same on a GPU, for a CUDA graph of the work: training is captured, too, and launches cost nothing there."""
    with torch.cuda.device(device):
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        taken = []
        for _ in range(REPEATS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(REPLAYS):
                graph.replay()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end) / REPLAYS / 1000)
        return min(taken)


def path(device: torch.device) -> Path:
    """File of the choices on this device."""
    identity = f"{_name(device)} {torch.__version__}"
    return cache_folder() / f"ways-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


def _precision(like: Tensor) -> str:
    """float32, or what is made of it: the ways of TF32 and of automatic bfloat16 differ."""
    kind = like.device.type
    if torch.is_autocast_enabled(kind):
        return f"{like.dtype} in {torch.get_autocast_dtype(kind)}"
    tf32 = kind == "cuda" and like.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return f"{like.dtype}{' in tf32' if tf32 else ''}"


def _choices(device: torch.device) -> dict[str, str]:
    """What is known of the device, read from its file at first use."""
    if str(device) not in _known:
        _known[str(device)] = {key: entry["way"] for key, entry in _stored(path(device)).items()}
    return _known[str(device)]


def _stored(file: Path) -> dict[str, dict[str, Any]]:
    """Entries of the file; none where it is missing or damaged: they are measured again."""
    try:
        entries = json.loads(file.read_text())["choices"]
        return {key: entry for key, entry in entries.items() if isinstance(entry["way"], str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(device: torch.device, key: str, name: str, seconds: Mapping[str, float]) -> None:
    """Adds an entry to the file, as a whole or not at all; where nothing can be written it serves this process only."""
    file = path(device)
    microseconds = {way: round(s * 1e6, 1) for way, s in seconds.items() if s < math.inf}
    entries = {**_stored(file), key: {"way": name, "microseconds": microseconds}}
    text = {"device": _name(device), "torch": torch.__version__, "choices": entries}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=file.parent, suffix=".json")
        try:
            with os.fdopen(handle, "w") as out:
                json.dump(text, out, indent=1)
            os.replace(aside, file)
        except BaseException:
            os.unlink(aside)
            raise
