"""What a stack of runs takes in memory: an upper bound by counting, or the peaks of one run and of two, measured."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from threefactors.experiments.faults import out_of_memory, release
from threefactors.measurement import hessian
from threefactors.training import MLP, Constant, Dataset, Epochs, Run, Stack, Steps, Trainer, TrainLoss, kernel
from threefactors.training.choice import choose
from threefactors.training.losses import StackLosses

STEPS = {"cpu": 3, "cuda": 100}  # that are measured: on a GPU, enough for launches of many to be captured and replayed
KEPT = 16  # numbers for each example and unit, as an upper bound: activations, deltas, buffers, graph
VECTORS = 100  # of the length P that the curvature of a run may hold, as an upper bound: a Lanczos basis
TOGETHER = 16  # runs whose curvature the C kernels take at once, at most
BUDGET = 1 << 30  # bytes that the linearizations of one chunk of runs may take there
LINEARIZATION = 10  # numbers kept for each example and unit: activations, deltas, and their derivatives along v


@dataclass(frozen=True)
class Need:
    """Bytes of r runs: the largest of ``fixed`` + r ``each`` over the phases of the work."""

    phases: tuple[tuple[int, int], ...]

    def of(self, runs: int) -> int:
        return max(fixed + runs * each for fixed, each in self.phases)

    def fitting(self, budget: int) -> int:
        """How many runs the budget holds."""
        return max(0, min((budget - fixed) // max(each, 1) for fixed, each in self.phases))


def counted(stack: Stack, data: Dataset, probes: Sequence[Any] = ()) -> Need:
    """An upper bound from the sizes alone; a close one where the C kernels work, whose workspaces are known."""
    run = stack.runs[0]
    model, size = run.task.model, torch.float32.itemsize
    P, U = model.parameters(data.inputs, data.classes), model.units(data.inputs, data.classes)
    N, K = run.task.train_size or len(data.x_train), data.classes
    rows, seen = largest_batch(run, N) * run.sgd.rows, N + max(len(data.x_validation), len(data.x_test))
    batch, whole, linearized = (size * KEPT * U * count for count in (rows, seen, N))
    together = 1
    if isinstance(model, MLP) and in_c(run, data):
        widths, threads = model.widths(data.inputs, K), torch.get_num_threads()
        batch, whole = 0, threads * kernel.scratch(widths, model.batch_norm, seen)[0]  # the threads keep it, not runs
        linearized = kernel.scratch(widths, model.batch_norm, N)[1]
        together = max(1, min(TOGETHER, BUDGET // (LINEARIZATION * N * U * size)))
    copies = 3 * size * seen * data.inputs  # of the data: padded, and training set and others in a row
    own = size * (8 * P + 4 * N * K) + 8 * N * (2 + 4 * run.sgd.rows)  # θ and the like; labels, draws of an epoch
    curvature = together * (linearized + size * VECTORS * P) if curved(probes) is not None else 0
    return Need(((whole + copies, own + batch), (whole + copies + curvature, own)))


def in_c(run: Run, data: Dataset) -> bool:
    """Whether the C kernels train it, which allocate next to nothing as they go. Raises ValueError for a precision
    that the device does not have."""
    losses = StackLosses(run.task.model, run.task.loss, data.inputs, data.classes)
    there = torch.empty(0, device=data.x_train.device)
    return choose(None, losses, there, run.sgd.precision, run.task.augmentation) == "kernel"


def largest_batch(run: Run, examples: int) -> int:
    """Over the epochs that are known to come, or the first hundred."""
    until = run.until
    known = until.n if isinstance(until, Epochs) else until.at_most.n if isinstance(until, TrainLoss) else 100
    constant = isinstance(run.sgd.batch_schedule, Constant)
    return min(examples, max(run.sgd.batch_at(epoch) for epoch in range(1 if constant else max(known, 1))))


def curved(probes: Sequence[Any]) -> int | None:
    """On how many examples the probes look at curvature; None: they do not. −1: on all."""
    asked = [probe.examples for probe in probes if hasattr(probe, "examples")]
    return None if not asked else -1 if None in asked else max(asked)


def measured(run: Run, data: Dataset, probes: Sequence[Any] = ()) -> Need:
    """The peaks of one run and of two, in training and in the curvature of one of them: a line for each phase.

    A few steps with the largest batch to come, an evaluation on the training set, and one product with the Hessian;
    a Lanczos basis is counted. Raises what PyTorch raises where one run does not fit.
    """
    steps = Steps(STEPS[data.x_train.device.type])
    steady = replace(run.sgd, batch_size=largest_batch(run, len(data.x_train)), batch_schedule=Constant(), lr=1e-9)
    short = [replace(run, sgd=steady, seed=run.seed + i, until=steps) for i in range(2)]
    examples = curved(probes)
    one = _peaks(Stack((short[0],)), data, examples)
    try:
        two = _peaks(Stack(tuple(short)), data, examples)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return Need(tuple((0, peak) for peak in one))
    return Need(tuple((max(0, 2 * a - b), max(b - a, 1)) for a, b in zip(one, two, strict=True)))


def _peaks(stack: Stack, data: Dataset, examples: int | None) -> list[int]:
    """Bytes at the height of training, of an evaluation, and of curvature."""
    with _Allocated(data.x_train.device) if data.x_train.is_cuda else _Live() as meter:
        trainer = Trainer(stack, data).train()
        peaks = [meter.lap()]
        trainer.train_losses(range(len(stack)))
        peaks.append(meter.lap())
        if examples is not None:
            some = None if examples < 0 else examples
            theta, x, y = trainer.theta[:1], trainer.data.x_train[:some], trainer.labels[:1, :some]
            op = hessian(trainer.losses, theta, x.expand(1, *x.shape), y, chunk=1)
            op @ torch.ones_like(theta)
            peaks.append(meter.lap() + VECTORS * theta.nbytes)
        return peaks


class _Allocated:
    """Peak of PyTorch's own allocator on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> _Allocated:
        release(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def lap(self) -> int:
        """Bytes at the highest since the last lap, less those that were there before all."""
        peak = torch.cuda.max_memory_allocated(self.device) - self.before
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


class _Live(TorchDispatchMode):
    """The same on a CPU, where nobody counts: every tensor that an operation hands out, until its memory is given back.

    What an operation takes and gives back within itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = self._peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        for t in tree_iter(out):
            if isinstance(t, Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self._now += storage.nbytes()
                    self._peak = max(self._peak, self._now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, storage: int, size: int) -> None:
        self._seen.discard(storage)
        self._now -= size

    def lap(self) -> int:
        peak, self._peak = self._peak, self._now
        return peak
