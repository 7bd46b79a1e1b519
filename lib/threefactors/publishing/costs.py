"""What a book cost where it was made: time and memory of its chapters, disk of environment and store, larger sizes."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from threefactors.publishing import recording
from threefactors.publishing.recorded import duration
from threefactors.publishing.recording import Record
from threefactors.settings import Settings

GIB = 1 << 30
GPU_ONLY = ("nvidia", "triton")  # packages that PyTorch brings along for GPUs of one maker


@dataclass(frozen=True)
class Work:
    """One chapter executed: its ``scale``, ``machine``, ``seconds`` and ``peak`` memory in bytes."""

    chapter: str
    scale: str
    machine: str
    seconds: float
    peak: int

    def __str__(self) -> str:
        return (
            f"{self.chapter} at scale {self.scale} took {duration(self.seconds)} and {gib(self.peak)} on {self.machine}"
        )


@dataclass(frozen=True)
class Costs:
    """The ``chapters`` executed here and those on record (``larger``); ``environment``, ``gpu_only``, the part of it
    that only a GPU needs, and ``store`` in bytes."""

    chapters: tuple[Work, ...]
    larger: tuple[Work, ...]
    environment: int
    gpu_only: int
    store: int

    def words(self) -> dict[str, str]:
        """What a page says, by name, with units; of memory and the longest chapter the largest, of time the sum."""
        longest = max(self.chapters, key=lambda work: work.seconds)
        return {
            "chapters": str(len(self.chapters)),
            "time": duration(sum(work.seconds for work in self.chapters)),
            "longest": f"{duration(longest.seconds)} ({longest.chapter})",
            "memory": gib(max(work.peak for work in self.chapters)),
            "machine": _distinct(work.machine for work in self.chapters),
            "scale": _distinct(work.scale for work in self.chapters),
            "environment": gib(self.environment),
            "gpu-only": gib(self.gpu_only),
            "store": gib(self.store),
            "larger": larger(self.larger),
        }


def measure(book: Path | str = ".", before: int = 100) -> Costs:
    """The costs of the executed chapters in ``book`` with numbers below ``before``, of this environment and its store.

    Raises FileNotFoundError where no executed chapter is there.
    """
    notebooks = [path for path in sorted(Path(book).glob("[0-9][0-9]_*.ipynb")) if int(path.name[:2]) < before]
    if not notebooks:
        raise FileNotFoundError(f"{Path(book).resolve()} holds no executed chapter; run `threefactors book`")
    packages = Path(sysconfig.get_paths()["purelib"])
    return Costs(
        tuple(_executed(path) for path in notebooks),
        tuple(_recorded(one) for one in recording.find(book) if isinstance(one, Record)),
        size(packages),
        sum(size(packages / name) for name in GPU_ONLY),
        size(Settings.from_environment().store),
    )


def larger(works: Sequence[Work]) -> str:
    """A sentence on what is on record at other sizes, or on its absence."""
    if not works:
        return "Nothing has been recorded at another size yet, so what that takes was not measured."
    return f"On record: {'; '.join(map(str, works))}."


def size(folder: Path) -> int:
    """Bytes of all files under a folder, links not followed; 0 where there is none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # written aside and renamed meanwhile
                continue
    return total


def gib(size: float) -> str:
    """In GiB, or in MiB below a tenth.

    >>> gib(6.67 * 2**30), gib(3 * 2**20)
    ('6.7 GiB', '3 MiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"


def _distinct(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def _executed(path: Path) -> Work:
    own = nbformat.read(path, as_version=4).metadata["threefactors"]
    return Work(path.stem, own["scale"], own.get("machine", own["device"]), own["seconds"], own["peak_memory"])


def _recorded(record: Record) -> Work:
    about = record.about
    return Work(record.chapter, about["scale"], about["machine"]["words"], about["seconds"], about["peak_memory"])
