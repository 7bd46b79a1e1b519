"""Data sets: three splits, normalized by the training split, held in memory (and on the device) as a whole."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactors._rng import generator
from threefactors.training.pinned import SETS, flaws, present, require_same, require_whole

# Sizes that powers of two divide, so that an epoch drops no example at the usual batch sizes.
DIGITS_TRAIN, DIGITS_VALIDATION = 1152, 288
VALIDATION_FRACTION = 1 / 6
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("digits", *SETS)
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
BLOCK = 4096  # images scaled at once: in float64 a whole color set would take gigabytes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images x (N, ...) in float32 and labels y (N,) in int64, by split.

    All splits are shifted and scaled by the mean and standard deviation of the training split (for each channel of
    color images). ``checksum`` is the SHA-256 of the raw values of all splits.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    checksum: str

    @property
    def inputs(self) -> int:
        """Numbers in one example."""
        return self.x_train[0].numel()

    def to(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> Dataset:
        """The same on another device or in another precision.

        In float32 it is moved once: whoever asks again, such as the next stack, shares the copy, which lives as long
        as the set that it was made from.
        """
        if dtype != torch.float32:
            return self._moved(device, dtype)
        copies = _copies.setdefault(self, {})
        where = str(torch.device(device))
        if where not in copies:
            moved = self._moved(device, dtype)
            if moved.x_train.device == self.x_train.device:  # nothing was moved, and no second one is to be kept
                return moved
            copies[where] = moved
        return copies[where]

    def _moved(self, device: str | torch.device, dtype: torch.dtype) -> Dataset:
        moved = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Dataset(**{**vars(self), **moved})

    def first(self, n: int | None) -> Dataset:
        """With the first n training examples only (the order was shuffled once, when the set was split)."""
        if n is None or n == len(self.x_train):
            return self
        if n > len(self.x_train):
            raise ValueError(
                f"train_size={n} exceeds the {len(self.x_train)} training examples of {self.name!r}; "
                f"use train_size <= {len(self.x_train)}"
            )
        return Dataset(**{**vars(self), "x_train": self.x_train[:n], "y_train": self.y_train[:n]})


_copies: WeakKeyDictionary[Dataset, dict[str, Dataset]] = WeakKeyDictionary()  # on other devices


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """The named data set, or the one in an .npz file with x_train, y_train, x_test, y_test.

    root: folder with the data sets that torchvision reads and downloads (mnist, fashion-mnist, cifar10), and with
    cifar10-jpeg.npz, whose images went through JPEG and which therefore is never called CIFAR-10; ``digits`` needs
    none. Raises ValueError for an unknown name, broken arrays, or files and arrays that are not those of the set that
    bears the name (``pinned.SETS``); FileNotFoundError where files are missing and cannot be downloaded.
    """
    path = _file(name, root)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _load(name, str(root) if root is not None else None, stamp)


def _file(name: str, root: str | os.PathLike[str] | None) -> Path:
    """The .npz file of a data set that is one: a user's own, or one that has a name."""
    return Path(root or ".") / f"{name}.npz" if name in SETS else Path(name)


@lru_cache(maxsize=4)
def _load(name: str, root: str | None, stamp: int) -> Dataset:
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return _split(name, bunch.images.astype(np.uint8), bunch.target, None, DIGITS_TRAIN, DIGITS_VALIDATION)
    if name in SETS and root is None:
        raise FileNotFoundError(
            f"dataset={name!r} needs a data root; give --data DIR or set THREEFACTORS_DATA, or use 'digits', "
            "which is embedded"
        )
    if name in TORCHVISION:
        x, y, test = _torchvision(name, str(root))
    elif name in SETS:
        if not present(name, str(root)):
            raise FileNotFoundError(
                f"{_file(name, root)} is missing; copy {name}.npz, with {', '.join(ARRAYS)}, into the data root"
            )
        x, y, test = _npz(_file(name, root))
    elif name.endswith(".npz"):
        x, y, test = _npz(Path(name))
    else:
        raise ValueError(f"dataset={name!r} is unknown; use one of {', '.join(NAMES)}, or the path of an .npz file")
    validation = max(1, round(len(x) * VALIDATION_FRACTION))
    data = _split(name, x, y, test, len(x) - validation, validation)
    if name in SETS:
        require_same(name, data.checksum, root or "")
    return data


def _torchvision(name: str, root: str) -> tuple[NDArray, NDArray, tuple[NDArray, NDArray]]:
    from torchvision import datasets

    if present(name, root):
        require_whole(name, root)  # before torchvision tries to bring, or to read, what is broken
    kind = getattr(datasets, TORCHVISION[name])
    try:
        train, test = (kind(root, train=part, download=False) for part in (True, False))
    except RuntimeError:
        try:
            train, test = (kind(root, train=part, download=True) for part in (True, False))
        except Exception as error:
            raise FileNotFoundError(
                f"{name} is not under the data root {root} and could not be downloaded ({error}); on a machine with a "
                f"network run `threefactors doctor --data {root} --download {name}`, then copy {root} here"
            ) from error
        require_whole(name, root)
    (x, y), held = ((np.asarray(part.data), np.asarray(part.targets)) for part in (train, test))
    return x, y, held


def _npz(path: Path) -> tuple[NDArray, NDArray, tuple[NDArray, NDArray]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"dataset={str(path)!r}: no such file; give the path of an .npz with {', '.join(ARRAYS)}"
        )
    try:
        with np.load(path) as file:
            missing = [name for name in ARRAYS if name not in file]
            if missing:
                raise ValueError(f"{path} lacks {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); add them")
            x, y, x_test, y_test = (file[name] for name in ARRAYS)
    except (BadZipFile, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes that are no whole .npz ({error}); copy it anew"
        ) from error
    for part, images, labels in (("train", x, y), ("test", x_test, y_test)):
        if labels.ndim != 1 or len(images) != len(labels) or images.ndim < 2 or len(labels) == 0:
            raise ValueError(
                f"{path}: x_{part} {images.shape} and y_{part} {labels.shape} do not fit; use (N, ...) and (N,), N >= 1"
            )
        if images.shape[1:] != x.shape[1:]:
            raise ValueError(f"{path}: test examples of shape {images.shape[1:]}, training ones of {x.shape[1:]}")
        if not np.issubdtype(images.dtype, np.number) or not np.isfinite(images).all():
            raise ValueError(f"{path}: x_{part} has values that are not finite numbers; remove or replace them")
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{path}: y_{part} is {labels.dtype}; use whole numbers 0 … classes − 1")
        if labels.min() < 0 or labels.max() > y.max():
            raise ValueError(
                f"{path}: labels of y_{part} range over {labels.min()} … {labels.max()}; the training set knows "
                f"0 … {y.max()}"
            )
    if len(x) < 2:
        raise ValueError(f"{path}: {len(x)} training example; give at least 2, one of them goes to validation")
    return x, y, (x_test, y_test)


def _split(
    name: str, x: NDArray, y: NDArray, test: tuple[NDArray, NDArray] | None, train: int, validation: int
) -> Dataset:
    """Shuffles once (always in the same way) and cuts into training, validation and, if not given, test set."""
    order = torch.randperm(len(x), generator=generator(0, "split")).numpy()
    x, y = x[order], y[order].astype(np.int64)
    held = test if test is not None else (x[train + validation :], y[train + validation :])
    cuts = [(x[:train], y[:train]), (x[train : train + validation], y[train : train + validation]), held]
    digest = hashlib.sha256()
    for images, labels in cuts:
        digest.update(f"{images.shape}{images.dtype}".encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels, dtype=np.int64).data)
    axes = tuple(range(x.ndim - 1)) if x.ndim == 4 else None  # a channel at a time for color images, last axis
    mean = x[:train].mean(axes, dtype=np.float64)
    std = x[:train].std(axes, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)

    def tensors(images: NDArray, labels: NDArray) -> tuple[Tensor, Tensor]:
        color = images.ndim == 4
        shape = (len(images), images.shape[3], *images.shape[1:3]) if color else images.shape
        scaled = np.empty(shape, np.float32)  # channels first
        for at in range(0, len(images), BLOCK):
            part = (images[at : at + BLOCK] - mean) / std
            scaled[at : at + BLOCK] = np.moveaxis(part, -1, 1) if color else part
        return torch.from_numpy(scaled), torch.from_numpy(labels.astype(np.int64))

    (a, b), (c, d), (e, f) = (tensors(*cut) for cut in cuts)
    return Dataset(name, a, b, c, d, e, f, int(y.max()) + 1, digest.hexdigest())


def corrupt(y: Tensor, fraction: float, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels with round(fraction · N) of them drawn anew, uniformly from all classes; and which (N,) bool.

    A drawn label may be the true one by chance, as in Zhang et al., arXiv 1611.03530.
    """
    n = round(fraction * len(y))
    chosen = torch.randperm(len(y), generator=generator)[:n].to(y.device)
    drawn = torch.randint(classes, (n,), generator=generator).to(y.device)
    noisy, corrupted = y.clone(), torch.zeros(len(y), dtype=torch.bool, device=y.device)
    noisy[chosen], corrupted[chosen] = drawn, True
    return noisy, corrupted


def found(root: str | os.PathLike[str]) -> list[str]:
    """Names of the data sets that lie under a data root, and .npz files in it."""
    folder = Path(root)
    own = sorted({path.name for path in folder.glob("*.npz")} - {f"{name}.npz" for name in SETS})
    return [name for name, known in SETS.items() if present(name, root) or name in _folders(root)] + own


def _folders(root: str | os.PathLike[str]) -> list[str]:
    return [name for name in TORCHVISION if (Path(root) / SETS[name].folder).is_dir()]


def damaged(root: str | os.PathLike[str]) -> list[str]:
    """What is missing of the data sets of which something lies under a data root, or has not its size."""
    return [flaw for name in SETS if present(name, root) for flaw in flaws(name, root, contents=False)]
