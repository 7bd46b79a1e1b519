"""Settings that reach a chapter through environment variables: where it runs, not what it computes.

What an experiment *is* stands in the chapter; where its results are kept, where data lies and which
device works belongs to the machine. ``threefactors book`` sets these variables for the kernel of
each chapter, so a notebook opened by hand and one executed for the book read them the same way.

=======================  =======================================================================
THREEFACTORS_STORE       folder of results (default: ``.threefactors/store`` under the repository)
THREEFACTORS_DATA        folder of data sets (default: none, only embedded data)
THREEFACTORS_DEVICE      ``cpu`` (default), ``cuda`` or ``cuda:N``
THREEFACTORS_JOBS        worker processes of a sweep (default: 0, all in this process)
THREEFACTORS_SCHEDULER   workers of dask.distributed in their place: the address of a scheduler, or
                         ``local`` or ``local:N`` for N processes here (one for each core or GPU)
THREEFACTORS_MEMORY      GiB that a stack of runs may take (default: a share of what is free)
THREEFACTORS_PROGRESS    file to which a sweep appends lines ``done total`` (default: none)
=======================  =======================================================================
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_LOCAL = re.compile(r"local(:[1-9]\d*)?")
_ADDRESS = re.compile(r"(?!local:)([a-z]+://)?(\[[0-9a-f:]+\]|[^\s:/\[\]]+):\d+")


class SettingsError(ValueError):
    """A setting that cannot work on this machine; the message names the remedy."""


def repository_root(start: Path | str = ".") -> Path | None:
    """First folder at or above ``start`` that holds ``_toc.yml``, else None."""
    here = Path(start).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "_toc.yml").is_file()), None)


@dataclass(frozen=True)
class Settings:
    """Where a chapter keeps results, finds data and computes.

    ``store`` folder of results · ``data`` folder of data sets or None · ``device`` "cpu", "cuda" or
    "cuda:N" · ``jobs`` worker processes (0: none) · ``scheduler`` of dask.distributed in their place, an
    address, "local" or "local:N", or None · ``memory`` GiB that a stack may take, or None (a share of
    what is free) · ``progress`` file for lines ``done total`` or None.
    Raises SettingsError for a device that is not there, a data folder that does not exist, jobs < 0 or memory <= 0.

    >>> Settings(Path("results"), jobs=2).environment()["THREEFACTORS_JOBS"]
    '2'
    """

    store: Path
    data: Path | None = None
    device: str = "cpu"
    jobs: int = 0
    progress: Path | None = None
    memory: float | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise SettingsError(f"jobs={self.jobs} is negative; use 0 (no workers) or more")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise SettingsError(f"memory={self.memory} is no number of GiB > 0; use such as 4, or leave it out")
        if self.data is not None and not self.data.is_dir():
            raise SettingsError(f"data folder {self.data} does not exist; create it or name another")
        require_device(self.device, self.scheduler)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings named by environment variables (see the table above), defaults elsewhere."""
        env = os.environ if environ is None else environ
        data, progress = env.get("THREEFACTORS_DATA"), env.get("THREEFACTORS_PROGRESS")
        jobs = env.get("THREEFACTORS_JOBS") or "0"
        if not re.fullmatch(r"-?\d+", jobs):
            raise SettingsError(f"THREEFACTORS_JOBS={jobs!r} is not a whole number; use 0 or more")
        return cls(
            store=Path(env.get("THREEFACTORS_STORE") or default_store()),
            data=Path(data) if data else None,
            device=env.get("THREEFACTORS_DEVICE") or "cpu",
            jobs=int(jobs),
            progress=Path(progress) if progress else None,
            memory=_number("THREEFACTORS_MEMORY", env.get("THREEFACTORS_MEMORY")),
            scheduler=env.get("THREEFACTORS_SCHEDULER") or None,
        )

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, paths made absolute."""
        return {
            "THREEFACTORS_STORE": str(self.store.absolute()),
            "THREEFACTORS_DATA": str(self.data.absolute()) if self.data else "",
            "THREEFACTORS_DEVICE": self.device,
            "THREEFACTORS_JOBS": str(self.jobs),
            "THREEFACTORS_PROGRESS": str(self.progress.absolute()) if self.progress else "",
            "THREEFACTORS_MEMORY": "" if self.memory is None else repr(self.memory),
            "THREEFACTORS_SCHEDULER": self.scheduler or "",
        }


def _number(name: str, text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise SettingsError(f"{name}={text!r} is no number; use such as 4 or 0.5, or leave it out") from None


def default_store() -> Path:
    """``.threefactors/store`` under the repository that the current folder belongs to, else under it."""
    return (repository_root() or Path.cwd()) / ".threefactors" / "store"


def require_writable(store: Path) -> None:
    """Write a mebibyte into the store and take it away again: the honest test of read-only or full.

    Raises SettingsError, which names the folder and the reason.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=store, prefix=".writable-") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"the store {store} cannot be written ({reason}); free some space or name another with --store"
        ) from error


def is_local(scheduler: str) -> bool:
    """Whether a scheduler is to be started here, and not one that runs already."""
    return _LOCAL.fullmatch(scheduler) is not None


def require_device(device: str, scheduler: str | None = None) -> None:
    """Raise SettingsError unless there is such a device: here, or for a scheduler elsewhere on its workers, which
    look for themselves."""
    if not _DEVICE.fullmatch(device):
        raise SettingsError(f"device={device!r} is unknown; use cpu, cuda or cuda:N")
    if scheduler is not None:
        if not is_local(scheduler) and not _ADDRESS.fullmatch(scheduler):
            raise SettingsError(f"scheduler={scheduler!r} is no address; use tcp://HOST:PORT, local or local:N")
        if ":" in device:
            raise SettingsError(f"device={device!r} with a scheduler, whose workers have one GPU each; use cuda")
    if device != "cpu" and (scheduler is None or is_local(scheduler)):
        _require_gpu(device)


def _require_gpu(device: str) -> None:
    import torch  # here, not above: who computes on the CPU need not wait for it

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        built = torch.version.cuda or torch.version.hip
        why = "" if built else ", which was built without CUDA,"
        raise SettingsError(f"device={device!r} but torch {torch.__version__}{why} finds no GPU; use cpu")
    index = int(device.partition(":")[2] or 0)
    if index >= found:
        there, use = ("is 1 GPU", "cuda:0") if found == 1 else (f"are {found} GPUs", f"cuda:0 to cuda:{found - 1}")
        raise SettingsError(f"device={device!r} but there {there}; use {use}")
