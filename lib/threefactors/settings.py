"""Settings that reach a chapter through environment variables: where it runs, not what it computes.

What an experiment *is* stands in the chapter; where its results are kept, where data lies and which
device works belongs to the machine. ``threefactors book`` sets these variables for the kernel of
each chapter, so a notebook opened by hand and one executed for the book read them the same way.

=======================  =======================================================================
THREEFACTORS_STORE       folder of results (default: ``.threefactors/store`` under the repository)
THREEFACTORS_DATA        folder of data sets (default: none, only embedded data)
THREEFACTORS_DEVICE      ``cpu`` (default), ``cuda`` or ``cuda:N``
THREEFACTORS_JOBS        worker processes of a sweep (default: 0, all in this process)
THREEFACTORS_PROGRESS    file to which a sweep appends lines ``done total`` (default: none)
=======================  =======================================================================
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


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
    "cuda:N" · ``jobs`` worker processes (0: none) · ``progress`` file for lines ``done total`` or None.
    Raises SettingsError for a device that is not there, a data folder that does not exist, or jobs < 0.

    >>> Settings(Path("results"), jobs=2).environment()["THREEFACTORS_JOBS"]
    '2'
    """

    store: Path
    data: Path | None = None
    device: str = "cpu"
    jobs: int = 0
    progress: Path | None = None

    def __post_init__(self) -> None:
        if self.jobs < 0:
            raise SettingsError(f"jobs={self.jobs} is negative; use 0 (no workers) or more")
        if self.data is not None and not self.data.is_dir():
            raise SettingsError(f"data folder {self.data} does not exist; create it or name another")
        if not _DEVICE.fullmatch(self.device):
            raise SettingsError(f"device={self.device!r} is unknown; use cpu, cuda or cuda:N")
        if self.device != "cpu":
            _require_gpu(self.device)

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
        )

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, paths made absolute."""
        return {
            "THREEFACTORS_STORE": str(self.store.absolute()),
            "THREEFACTORS_DATA": str(self.data.absolute()) if self.data else "",
            "THREEFACTORS_DEVICE": self.device,
            "THREEFACTORS_JOBS": str(self.jobs),
            "THREEFACTORS_PROGRESS": str(self.progress.absolute()) if self.progress else "",
        }


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


def _require_gpu(device: str) -> None:
    import torch  # here, not above: who computes on the CPU need not wait for it

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise SettingsError(f"device={device!r} but torch {torch.__version__} finds no GPU; use cpu")
    index = int(device.partition(":")[2] or 0)
    if index >= found:
        raise SettingsError(f"device={device!r} but there are {found} GPUs; use cuda:0 to cuda:{found - 1}")
