"""What this machine has of what the book needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threefactors.experiments import schedulers
from threefactors.experiments.provenance import versions
from threefactors.settings import Settings, SettingsError, require_writable
from threefactors.training import kernel
from threefactors.training.data import damaged, found

_NEEDED = ("torch", "numpy", "scipy", "scikit-learn", "jupyter-book", "jupytext", "papermill", "ipykernel")
_LEAST_FREE = 1 << 30  # bytes: a laptop build writes a few hundred megabytes


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``well`` is False when something needed is missing."""

    what: str
    found: str
    well: bool = True

    def __str__(self) -> str:
        return f"{'ok ' if self.well else 'NO '} {self.what:14s} {self.found}"


def examine(settings: Settings) -> list[Finding]:
    """All findings on this machine under the given settings."""
    return [*_versions(), *_compute(settings), *_data(settings.data), *_store(settings.store)]


def _versions() -> Iterator[Finding]:
    yield Finding("python", versions()["python"])
    for package in _NEEDED:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "not installed; pip install -r requirements.txt", well=False)


def _compute(settings: Settings) -> Iterator[Finding]:
    yield Finding("cpu", f"{os.cpu_count()} cores")
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    except ImportError:
        gpus = []
    yield Finding("gpu", ", ".join(gpus) or "none (the laptop scale needs none)")
    yield Finding("device", settings.device)
    yield from _scheduler(settings)
    works = (
        f"{kernel.compiler()}: fast kernels work" if kernel.available() else "none that works: plain PyTorch, slower"
    )
    yield Finding("C compiler", works)


def _scheduler(settings: Settings) -> Iterator[Finding]:
    if settings.scheduler is not None:
        try:
            with schedulers.serve(settings) as there:
                workers = schedulers.connect(str(there.scheduler), settings.device).nthreads()
                yield Finding("scheduler", f"{there.scheduler}: {len(workers)} workers")
        except SettingsError as error:
            yield Finding("scheduler", str(error), well=False)


def _data(data: Path | None) -> Iterator[Finding]:
    if data is None:
        yield Finding("data", "digits, embedded; name a folder with --data for more")
        return
    yield Finding("data", f"digits, embedded; in {data}: {', '.join(found(data)) or 'none known'}")
    for flaw in damaged(data):
        yield Finding("data", f"{flaw}; copy or download that data set anew", well=False)


def _store(store: Path) -> Iterator[Finding]:
    try:
        require_writable(store)
    except SettingsError as error:
        yield Finding("store", str(error), well=False)
        return
    files = [path for path in store.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    yield Finding("store", f"{store}: {len(files)} files, {size:.1f} MiB, writable")
    free = shutil.disk_usage(store).free
    enough = free >= _LEAST_FREE
    remedy = "" if enough else "; free some, or name another store with --store"
    yield Finding("disk", f"{free / 2**30:.1f} GiB free{remedy}", well=enough)
