"""Compiles the C kernels with the system's compiler and calls them: the fastest engine for small networks on a CPU.

The compiled library is cached under a name that holds the hash of everything it depends on, so it is built once
(about two seconds) per machine and version. Without a compiler ``available()`` is False and training
takes the plain PyTorch engine instead; ``THREEFACTORS_KERNEL=0`` asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from threefactors.training.engines import Plan

_SOURCES = [Path(__file__).with_name(name) for name in ("kernel.c", "hessian.c", "mlp.h")]
_REAL = {torch.float32: ("float", "int32_t"), torch.float64: ("double", "int64_t")}
_LOSS = {"cross-entropy": 0, "squared": 1}
MAX_DEPTH = 64  # weight matrices, as in mlp.h


class _Net(ctypes.Structure):
    _fields_ = (
        ("depth", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("loss", ctypes.c_int32),
        ("width", ctypes.c_int32 * (MAX_DEPTH + 1)),
    )


def compiler() -> str | None:
    """The C compiler: $CC, else the first of cc, gcc and clang on the path."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _vector_bytes() -> int:
    """Width of the widest vector register that PyTorch finds on this processor."""
    return {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 16)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/threefactors``, else ``~/.cache/threefactors``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threefactors"


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    command = compiler()
    if command is None or os.environ.get("THREEFACTORS_KERNEL") == "0":
        return None
    real, bits = _REAL[dtype]
    lanes = _vector_bytes() // dtype.itemsize
    flags = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", f"-DREAL={real}",
             f"-DREAL_BITS={bits}", f"-DLANES={lanes}"]  # fmt: skip
    flags.append("-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native")
    # The macros that the compiler predefines name its version and every instruction set it will use.
    macros = subprocess.run([command, flags[-1], "-dM", "-E", "-x", "c", os.devnull], capture_output=True)
    identity = b"\0".join([*(path.read_bytes() for path in _SOURCES), macros.stdout, *map(str.encode, flags)])
    name = f"kernel-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    path = cache_folder() / name
    if not path.exists() and not _can_write(path.parent):
        path = Path(tempfile.mkdtemp(prefix="threefactors-")) / name
    if not path.exists():
        # Compiled aside and moved into place, so that two processes at once never load half a file.
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            made = Path(aside) / name
            sources = [str(path) for path in _SOURCES if path.suffix == ".c"]
            built = subprocess.run([command, *flags, *sources, "-o", str(made), "-lm"], capture_output=True)
            if built.returncode:
                return None  # an old compiler: the PyTorch engine gives the same numbers, only later
            made.replace(path)
    library = ctypes.CDLL(str(path))
    library.workspace.restype = library.hessian_workspace.restype = library.advance.restype = ctypes.c_long
    library.outputs.restype = library.prepare.restype = library.hessian_product.restype = None
    return library


def available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this machine can compile and run the kernel."""
    return dtype in _REAL and _library(dtype) is not None


def scratch(
    widths: tuple[int, ...], group: int | None, rows: int, dtype: torch.dtype = torch.float32
) -> tuple[int, int]:
    """Bytes of the workspaces for so many rows: of a thread, for steps or an evaluation, and of one run's Hessian."""
    library = _library(dtype)
    assert library is not None, "ask available() first"
    net, count = ctypes.byref(_net(widths, group, "squared")), ctypes.c_long(rows)
    return library.workspace(net, count) * dtype.itemsize, library.hessian_workspace(net, count) * dtype.itemsize


def _pointer(t: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(t.data_ptr())


def _clear(t: Tensor) -> None:
    """Zeros without ATen: its loops start a team of OpenMP threads for each thread of ours that calls them, and with
    more threads than cores all teams sleep at their barriers, in later products of matrices, too."""
    ctypes.memset(t.data_ptr(), 0, t.numel() * t.element_size())


def _net(widths: tuple[int, ...], group: int | None, loss: str) -> _Net:
    return _Net(len(widths) - 1, group or 0, _LOSS[loss], (ctypes.c_int32 * (MAX_DEPTH + 1))(*widths))


def _pad(x: Tensor) -> Tensor:
    """(…, D) with zeros up to whole vectors."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % (_vector_bytes() // x.dtype.itemsize))).contiguous()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept for the life of a process; a forked one inherits no threads, and must make its own."""
    return ThreadPoolExecutor(threads)


def _each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Calls into C release Python's lock, so threads run them side by side."""
    threads = torch.get_num_threads()
    return list((_pool(threads, os.getpid()).map if threads > 1 and len(items) > 1 else map)(work, items))


class HessianProducts:
    """v (R, P) → Hv (R, P) of R networks, linearized at θ (R, P) on x (R, B, D) with labels (R, B)."""

    def __init__(
        self, widths: tuple[int, ...], group: int | None, loss: str, theta: Tensor, x: Tensor, labels: Tensor
    ) -> None:
        library = _library(theta.dtype)
        assert library is not None, "ask available() first"
        self._product, self._rows, self._net = library.hessian_product, x.shape[1], _net(widths, group, loss)
        shared = _pad(x[0]) if x.stride(0) == 0 else None  # one copy of data that all runs share
        self._x = [_pad(one) if shared is None else shared for one in x]
        size = library.hessian_workspace(ctypes.byref(self._net), ctypes.c_long(self._rows))
        self._work = [torch.zeros(size, dtype=theta.dtype) for _ in theta]
        theta, labels = theta.contiguous(), labels.contiguous()

        def prepare(i: int) -> None:
            library.prepare(
                ctypes.byref(self._net),
                _pointer(theta[i]),
                _pointer(self._x[i]),
                _pointer(labels[i]),
                ctypes.c_long(self._rows),
                _pointer(self._work[i]),
            )

        _each(prepare, range(len(theta)))

    def __call__(self, v: Tensor) -> Tensor:
        v, out = v.contiguous(), torch.empty_like(v, memory_format=torch.contiguous_format)

        def product(i: int) -> None:
            self._product(
                ctypes.byref(self._net),
                _pointer(v[i]),
                _pointer(self._x[i]),
                ctypes.c_long(self._rows),
                _pointer(out[i]),
                _pointer(self._work[i]),
            )

        _each(product, range(len(v)))
        return out

    def only(self, places: Sequence[int]) -> HessianProducts:
        """The same for the networks at these places, which need no second linearization."""
        some = copy(self)
        some._x, some._work = ([part[i] for i in places] for part in (self._x, self._work))
        return some


class Kernel:
    """Engine that runs kernel.c: one network per thread at a time, hundreds of steps per call.

    ``x`` (N, D) and ``labels`` (R, N) are the training set of the stack, ``widths`` the layer sizes from
    inputs to outputs, ``group`` the ghost batch of batch norm (None: no batch norm).
    """

    def __init__(self, widths: tuple[int, ...], group: int | None, loss: str, x: Tensor, labels: Tensor) -> None:
        library = _library(x.dtype)
        assert library is not None, "ask available() first"
        self._library, self._net = library, _net(widths, group, loss)
        self.x, self.labels = _pad(x.flatten(1)), labels.contiguous()
        self._real = ctypes.c_float if x.dtype == torch.float32 else ctypes.c_double
        self._outputs = widths[-1]
        self._local = threading.local()  # a workspace for each thread

    def _workspace(self, rows: int) -> Tensor:
        """Zeroed scratch of the calling thread: padded columns must start as zeros."""
        size = self._library.workspace(ctypes.byref(self._net), ctypes.c_long(rows))
        kept = getattr(self._local, "work", None)
        if kept is None or self._local.rows != rows:
            kept = self._local.work = torch.empty(size, dtype=self.x.dtype)
            _clear(kept)
            self._local.rows = rows
        return kept

    def advance(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: Sequence[Plan], limit: float
    ) -> list[int]:
        """Carries out each plan on its run, in place; returns the updates made (fewer than asked: diverged)."""

        def one(plan: Plan) -> int:
            steps, rows = plan.order.shape
            order, lr = plan.order.contiguous(), plan.lr.to(self.x.dtype).contiguous()
            weights = None if plan.weights is None else plan.weights.to(self.x.dtype).contiguous()
            labels = None if plan.labels is None else plan.labels.contiguous()
            work = self._workspace(rows)
            made = self._library.advance(
                ctypes.byref(self._net),
                _pointer(theta[plan.run]),
                _pointer(velocity[plan.run]) if velocity is not None else None,
                _pointer(self.x),
                _pointer(self.labels[plan.run]),
                _pointer(order),
                _pointer(weights) if weights is not None else None,
                _pointer(labels) if labels is not None else None,
                _pointer(lr),
                ctypes.c_long(steps),
                ctypes.c_long(rows),
                self._real(momentum),
                self._real(limit),
                _pointer(work),
            )
            if made < steps:
                _clear(work)  # a diverged run leaves infinities in the padding
            return made

        return _each(one, plans)

    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set.

        Batch norm takes its statistics from the whole training set, as a function of θ.
        """
        counted = len(self.x)
        normed = self._net.group > 0
        rows = self.x if x is None else torch.cat([self.x, _pad(x.flatten(1))]) if normed else _pad(x.flatten(1))
        out = theta.new_empty(len(runs), len(rows), self._outputs)

        def one(i: int) -> None:
            self._library.outputs(
                ctypes.byref(self._net),
                _pointer(theta[runs[i]]),
                _pointer(rows),
                ctypes.c_long(len(rows)),
                ctypes.c_long(min(counted, len(rows))),
                _pointer(out[i]),
                _pointer(self._workspace(len(rows))),
            )

        _each(one, range(len(runs)))
        return out if x is None else out[:, -len(x) :]
