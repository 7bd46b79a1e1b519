"""SGD steps of a whole stack on a GPU: many steps in one launch, and no word to the host in between.

The step is that of ``Stacked``. What differs is who waits for whom: data, draws and state lie in buffers that stay
where they are, so that LAUNCH steps can be captured as one CUDA graph and replayed; whether a run diverges is noted on
the device and read once, at the end of a call. On a CPU the same function is called plainly, which is how it is tested.

Estimate for the paper's Fashion-MNIST perceptron (784-256-256-256-10 with batch norm, P = 335,882; 100 runs, S = 128):
6 · 100 · 128 · P = 26 GFLOP a step, less a fifth since no gradient goes to the inputs, in 11 batched products; and
0.5 GB that θ alone moves (read twice, read and written once), which takes 0.1 ms at 4.8 TB/s. In float32, without
tensor cores, arithmetic is the limit (0.3 ms at 67 TFLOP/s); in TF32 it is memory. Around the products lie some 40
operations of 2 to 8 µs each (52 in all, 54 with momentum, counted as dispatched on a CPU), so another 0.2 ms. That is
what a persistent kernel with the weights of one model in shared memory could still save. Not measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from threefactors._launch import Launch
from threefactors.training.augmentation import Augmenter
from threefactors.training.engines import DeviceError, Plan
from threefactors.training.losses import StackLosses
from threefactors.training.steps import Stacked
from threefactors.training.update import Update

LAUNCH = {True: 32, False: 4}  # steps in a launch, by hand or by autograd, whose steps have many more kernels
DRAWS = 1 << 26  # bytes that the draws of one launch may take
PATIENCE = 256  # steps made with more than half of the places idle before fewer are captured
KEPT = 2  # sets of buffers that are kept: batch sizes may alternate from epoch to epoch


@dataclass(frozen=True)
class _Source:
    """What is learnt from, and how."""

    losses: StackLosses
    x: Tensor
    labels: Tensor
    by_hand: bool
    precision: str
    augmenter: Augmenter | None


@dataclass(frozen=True)
class _Kind:
    """What a captured step depends on, beside the number of runs."""

    rows: int
    weighted: bool
    labelled: bool
    momentum: float | None  # None: no velocity
    limit: float


class _Places:
    """Places for so many runs: their state, the draws of the coming steps, and the steps themselves.

    A place without a run, or whose run has ended, goes on idly, and nobody reads it.
    """

    def __init__(self, source: _Source, kind: _Kind, count: int, steps: int, like: Tensor) -> None:
        self.source, self.kind = source, kind

        def room(*shape: int, dtype: torch.dtype = like.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=like.device)

        self.w = room(count, like.shape[1])
        self.v = None if kind.momentum is None else torch.zeros_like(self.w)
        self.runs, self.first, self.made = (room(count, dtype=torch.int64) for _ in range(3))
        self.alive = room(count, dtype=torch.bool)
        self.order = room(steps, count, kind.rows, dtype=torch.int64)
        self.lr = room(steps, count)
        self.weights = room(steps, count, kind.rows) if kind.weighted else None
        self.labels = room(steps, count, kind.rows, dtype=torch.int64) if kind.labelled else None
        self._update = Update(source.losses, by_hand=source.by_hand, precision=source.precision, lean=True)

    def make(self, steps: int) -> None:
        """The next steps of all runs: what is captured."""
        source, momentum, limit = self.source, self.kind.momentum or 0.0, self.kind.limit
        for t in range(steps):
            batch = self.order[t]
            x = source.x[batch]
            if source.augmenter is not None:
                x = source.augmenter(x, self.runs, self.first + self.made)
            y = source.labels[self.runs.unsqueeze(1), batch] if self.labels is None else self.labels[t]
            weights, lr = None if self.weights is None else self.weights[t], self.lr[t].view(-1, 1, 1)
            bad = self._update(self.w, self.v, momentum, x, y, weights, lr, limit, checked=False)
            torch.gt(self.alive, bad, out=self.alive)  # alive before, and not bad now
            self.made.add_(self.alive)

    def draw(self, draws: Sequence[Tensor | None], start: int, stop: int) -> None:
        """Takes up the draws (order, lr, weights, labels), each (steps, runs, …), of the steps start … stop."""
        for buffer, drawn in zip((self.order, self.lr, self.weights, self.labels), draws, strict=True):
            if buffer is not None and drawn is not None:
                buffer[: stop - start, : drawn.shape[1]] = drawn[start:stop]

    def load(self, theta: Tensor, velocity: Tensor | None, runs: Tensor, first: Tensor) -> None:
        n = len(runs)
        for buffer in (self.runs, self.first, self.made, self.alive, self.lr):
            buffer.zero_()
        self.runs[:n], self.first[:n], self.alive[:n] = runs, first, True
        self.w[:n] = theta[runs]
        if self.v is not None and velocity is not None:
            self.v[:n] = velocity[runs]

    def store(self, theta: Tensor, velocity: Tensor | None, places: slice) -> None:
        """Hands out what the runs in these places have come to; those that fell stay what they were."""
        runs, alive = self.runs[places], self.alive[places].unsqueeze(1)
        for state, to in ((self.w, theta), (self.v, velocity)):
            if state is not None and to is not None:
                to[runs] = torch.where(alive, state[places], to[runs])


class _Loop:
    """Steps on such places, many in one launch. Apart from them, so that no memory hangs on a circle of references."""

    def __init__(self, source: _Source, kind: _Kind, count: int, steps: int, like: Tensor) -> None:
        self.count, self.steps = count, steps
        self.wasted = 0  # steps made since more than half of the places were last used
        self.places = places = _Places(source, kind, count, steps, like)
        self._many = Launch(partial(places.make, steps), like.device)
        self._one = Launch(partial(places.make, 1), like.device, beside=self._many) if steps > 1 else self._many

    def advance(self, draws: Sequence[Tensor | None], start: int, stop: int) -> None:
        while start < stop:
            count = self.steps if stop - start >= self.steps else 1
            self.places.draw(draws, start, start + count)
            (self._many if count == self.steps else self._one)()
            start += count


class Captured:
    """Engine for a GPU: all runs of the stack take a step together, many steps in one launch.

    ``x`` (N, D) and ``labels`` (R, N) are the training set, on the device. ``by_hand`` and ``precision``: see
    ``Update``; ``augmenter``: see ``Augmenter``.

    Runs that have made their steps are handed out at once and go on idly; so do those that have fallen. Their places
    are kept until more than half have been idle for PATIENCE steps: to drop one run costs a capture, as much as about
    a hundred steps, and within a call the lengths of plans differ by less than an epoch. Gradient noise ε ~ N(0, σ² I)
    is added by the trainer between steps, from a generator on the CPU so that a run is the same on every device; there
    the host waits at every step.
    """

    def __init__(
        self, losses: StackLosses, x: Tensor, labels: Tensor, *, by_hand: bool = True, precision: str = "float32",
        augmenter: Augmenter | None = None,
    ) -> None:  # fmt: skip
        self._stacked = Stacked(losses, x, labels, by_hand=by_hand, precision=precision, augmenter=augmenter)
        self._source = _Source(losses, x.flatten(1), labels, by_hand, precision, augmenter)
        self._kept: dict[_Kind, _Loop] = {}

    def advance(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: Sequence[Plan], limit: float
    ) -> list[int]:
        """Carries out each plan on its run, in place; returns the updates made (fewer than asked: diverged).

        A run whose batch loss (unweighted) is not finite or above ``limit`` goes on, to no avail, up to the end of the
        call. Then it is taken up where the call began, and ``Stacked`` makes the steps before that loss once more.

        Raises DeviceError where the driver of the device fails, torch.OutOfMemoryError where memory does.
        """
        done = [0] * len(plans)
        longest_first = sorted((i for i, plan in enumerate(plans) if len(plan.order)), key=lambda i: -len(plans[i].lr))
        if not longest_first:
            return done
        with driver_errors(theta.device):
            working = [plans[i] for i in longest_first]
            kind = _Kind(
                working[0].order.shape[1], working[0].weights is not None, working[0].labels is not None,
                None if velocity is None else momentum, limit,
            )  # fmt: skip
            made = self._together(self._loop(kind, working, theta), theta, velocity, working)
            for i, steps in zip(longest_first, made.tolist(), strict=True):  # here the host waits
                done[i] = min(steps, len(plans[i].order))
            fallen = [i for i in sorted(longest_first) if done[i] < len(plans[i].order)]
            again = self._stacked.advance(theta, velocity, momentum, [plans[i].cut(0, done[i]) for i in fallen], limit)
            for i, steps in zip(fallen, again, strict=True):
                done[i] = steps  # should rounding differ by what decides
        return done

    def _together(self, loop: _Loop, theta: Tensor, velocity: Tensor | None, plans: list[Plan]) -> Tensor:
        """Carries out the plans, longest first; the steps (len(plans),) that each has made before it fell, if it did.

        Without a word from the device; runs that fell have been left as they were.
        """
        device, places = theta.device, loop.places
        runs, first = (torch.tensor(n, device=device) for n in zip(*((p.run, p.first) for p in plans), strict=True))
        draws = (
            pad_sequence([plan.order for plan in plans]).to(device),  # (steps, R, B)
            pad_sequence([plan.lr for plan in plans]).to(theta),
            _padded([plan.weights for plan in plans], theta.dtype, device),
            _padded([plan.labels for plan in plans], torch.int64, device),
        )
        places.load(theta, velocity, runs, first)
        lengths, start = [len(plan.order) for plan in plans], 0
        for stop in sorted(set(lengths)):
            loop.advance(draws, start, stop)
            longer, start = sum(n > stop for n in lengths), stop
            places.store(theta, velocity, slice(longer, longer + lengths.count(stop)))
        return places.made[: len(plans)]

    def _loop(self, kind: _Kind, plans: list[Plan], like: Tensor) -> _Loop:
        """Places for all plans: those at hand, if they are neither too few nor for too long too many."""
        runs, longest = len(plans), len(plans[0].order)
        bytes_each = runs * kind.rows * (8 + 8 * kind.labelled + like.element_size() * kind.weighted)
        # A launch is first run plainly, then captured: it pays off from the third one on.
        steps = max(1, min(LAUNCH[self._source.by_hand], DRAWS // bytes_each, longest // 4))
        kept = self._kept.pop(kind, None)
        if kept is not None:
            kept.wasted = kept.wasted + longest if 2 * runs < kept.count else 0
            if kept.count < runs or kept.wasted > PATIENCE or kept.steps < steps:
                kept = None
        while len(self._kept) >= KEPT:
            self._kept.pop(next(iter(self._kept)))  # the one that was used longest ago
        loop = self._kept[kind] = kept or _Loop(self._source, kind, runs, steps, like)
        return loop

    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set; see ``Stacked``."""
        with driver_errors(theta.device):
            return self._stacked.outputs(theta, runs, x)


def _padded(parts: list[Tensor | None], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """(steps, R, B) of what all plans of a stack have, or none."""
    return (
        pad_sequence([part for part in parts if part is not None]).to(device, dtype) if parts[0] is not None else None
    )


@contextmanager
def driver_errors(device: torch.device) -> Iterator[None]:
    """Tells what a failing driver means for the one who waits for results; running out of memory stays just that."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        told = str(error)
        if "CUDA error: out of memory" in told or "STATUS_ALLOC_FAILED" in told:
            raise torch.cuda.OutOfMemoryError(told) from error
        kinds = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error")
        if not isinstance(error, getattr(torch, "AcceleratorError", ())) and not any(kind in told for kind in kinds):
            raise
        raise DeviceError(
            f"the device {device} failed in the middle of training: {told.partition(chr(10))[0]}; "
            f"runs that have ended are in the store, run again for the rest (see nvidia-smi if it fails again)"
        ) from error
