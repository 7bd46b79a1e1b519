"""What the public data sets consist of: their files, sizes and checksums, so that no other copy passes for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file of a data set: its size in bytes and its MD5, each None where it is not known beforehand."""

    name: str
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Pinned:
    """A public data set: its folder under the data root, the files in it, and ``Dataset.checksum`` (None: not known).

    The checksum is of the decoded arrays, and so does not depend on how the files were packed.
    """

    folder: str
    files: tuple[File, ...]
    checksum: str | None = None


def _idx(*md5: str) -> tuple[File, ...]:
    """The four files of MNIST, or of a set in its form: 60 000 and 10 000 images of 28², a byte each."""
    parts = (("train", 60_000), ("t10k", 10_000))
    names = [
        name
        for part, n in parts
        for name in (
            (f"{part}-images-idx3-ubyte", 16 + n * 28 * 28),
            (f"{part}-labels-idx1-ubyte", 8 + n),
        )
    ]
    return tuple(File(*name, one) for name, one in zip(names, md5, strict=True))


SETS = {
    "mnist": Pinned(
        "MNIST/raw",
        _idx(
            "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637",
        ),
        "bdb3eb8d55b9d45deed8594d255833ff755e9e58cc5c5b8dea85d394673250a2",
    ),
    "fashion-mnist": Pinned(
        "FashionMNIST/raw",
        _idx(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        "aacf71de2d1fccf7a2eb222202b6aff54994f8c80c68816fd7d83255a5f7b46d",
    ),
    "cifar10": Pinned(
        "cifar-10-batches-py",
        (
            File("data_batch_1", md5="c99cafc152244af753f735de768cd75f"),
            File("data_batch_2", md5="d4bba439e000b95fd0a9bffe97cbabec"),
            File("data_batch_3", md5="54ebc095f3ab1f0389bbae665268c751"),
            File("data_batch_4", md5="634d18415352ddfa80567beed471001a"),
            File("data_batch_5", md5="482c414d41f54cd18b22e5b47cb7c3cb"),
            File("test_batch", md5="40351d587109b95175f43aff81a1287e"),
            File("batches.meta", md5="5ff9c542aee3614f3951f8cda6e48888"),
        ),
    ),
    "cifar10-jpeg": Pinned(
        ".", (File("cifar10-jpeg.npz"),), "a899992a7f670c0b0f279a03411c93191fe73a229b8f912e1d653d50d5a2dda4"
    ),
}  # fmt: skip


def present(name: str, root: str | os.PathLike[str]) -> bool:
    """Whether any file of the data set lies under the data root."""
    folder = Path(root) / SETS[name].folder
    return any((folder / file.name).is_file() for file in SETS[name].files)


def flaws(name: str, root: str | os.PathLike[str], *, contents: bool = True) -> Iterator[str]:
    """What is wrong with the files of a data set, a sentence each; their ``contents`` are read only if asked for."""
    folder = Path(root) / SETS[name].folder
    for file in SETS[name].files:
        path = folder / file.name
        if not path.is_file():
            yield f"{path} is missing"
        elif file.size is not None and path.stat().st_size != file.size:
            yield f"{path} has {path.stat().st_size} bytes, expected {file.size}"
        elif contents and file.md5 is not None:
            from torchvision.datasets.utils import calculate_md5

            if (found := calculate_md5(path)) != file.md5:
                yield f"{path} has the MD5 {found}, expected {file.md5}"


def require_whole(name: str, root: str | os.PathLike[str]) -> None:
    """ValueError if a file of the data set is missing, truncated or another one, with what to do about it."""
    if found := list(flaws(name, root)):
        fetch = f"run `threefactors doctor --data {root} --download {name}`"
        raise ValueError(
            f"{name} under the data root {root} is not whole: {'; '.join(found)}. Remove "
            f"{Path(root) / SETS[name].folder} and {fetch} (which needs a network), or copy it anew from a machine "
            "that has it"
        )


def require_same(name: str, checksum: str, where: str | os.PathLike[str]) -> None:
    """ValueError if the arrays that were read are not those of the data set that bears this name."""
    expected = SETS[name].checksum
    if expected is not None and checksum != expected:
        raise ValueError(
            f"the data set under {where} is not {name}: its arrays have the SHA-256 {checksum}, expected {expected}. "
            "Copy the right one there; or, to use this one, save it as an .npz file under another name and give its "
            "path as dataset="
        )
