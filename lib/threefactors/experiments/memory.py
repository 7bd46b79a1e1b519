"""How many runs are trained at once: as many as a budget of memory holds, by what one of them takes.

A stack that does not fit is trained in parts, one after another; no number depends on it, since no run depends on its
company. What runs out of memory all the same is halved: a measurement here, a stack in work.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from threefactors.experiments.faults import first_line, out_of_memory, release
from threefactors.experiments.peaks import Need, counted, curved, in_c, largest_batch, measured
from threefactors.training import Dataset, Run, Stack

GIB = 1 << 30
SHARE = 0.8  # of what is free; the rest is for what was not measured
SURELY = 4  # a stack that fits so many times, by counting, need not be measured

log = logging.getLogger(__name__)


class TooLittleMemory(RuntimeError):
    """Not even one run fits; the message names what it takes, the bound and the remedies."""


@dataclass
class Budget:
    """What a stack may take on its device: ``gib``, or SHARE of what is free; ``beside`` processes divide that.

    measured_apart counts how often a measurement was halved for want of memory.
    """

    device: str
    gib: float | None = None
    beside: int = 1
    measured_apart: int = field(default=0, compare=False)

    def bytes(self) -> int:
        """For a whole stack."""
        return round(self.gib * GIB) if self.gib is not None else round(SHARE * free(self.device) / self.beside)

    def room(self) -> int:
        """What is left for a measurement beside a stack in training, on a GPU."""
        left = round(SHARE * free(self.device) / self.beside)
        return left if self.gib is None else min(left, round(self.gib * GIB) - torch.cuda.memory_allocated(self.device))

    def __str__(self) -> str:
        whole = f"{self.bytes() / GIB:.3g} GiB"
        if self.gib is not None:
            return f"the {whole} given by --memory"
        among = f", divided among {self.beside} processes" if self.beside > 1 else ""
        return f"{whole}, {SHARE:.0%} of what is free on {self.device}{among}"


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def within(budget: Budget) -> Iterator[Budget]:
    """What is measured inside keeps to this budget."""
    token = _budget.set(budget)
    try:
        yield budget
    finally:
        _budget.reset(token)


def current(device: torch.device | str) -> Budget:
    """The budget that holds here; one of its own outside of all."""
    return _budget.get() or Budget(str(device))


def free(device: str) -> int:
    """Bytes that this process can still have on the device; of a container's own bound it does not know."""
    if torch.device(device).type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def parts(stack: Stack, data: Dataset, budget: Budget, probes: Sequence[Any] = ()) -> list[tuple[Run, ...]]:
    """The runs of the stack, as many together as the budget holds; nothing has been trained yet.

    data lies on the device. Raises TooLittleMemory where not even one run fits.
    """
    allowed = budget.bytes()
    if SURELY * counted(stack, data, probes).of(len(stack)) <= allowed:
        return [stack.runs]
    need = _need(stack, data, budget, probes)
    most = need.fitting(allowed)
    if most < 1:
        raise too_little(stack.runs[0], f"{need.of(1) / GIB:.3g} GiB", budget)
    pieces = -(-len(stack) // most)
    size = -(-len(stack) // pieces)
    return cut(stack.runs, size)


def check(stacks: Sequence[Stack], sets: Mapping[str, Dataset], budget: Budget, probes: Sequence[Any] = ()) -> None:
    """Refuses a sweep of which a run does not fit even alone, before any of it is trained. Raises TooLittleMemory."""
    for stack in stacks:
        parts(stack, placed(sets[stack.runs[0].task.dataset], budget), budget, probes)


def placed(data: Dataset, budget: Budget) -> Dataset:
    """The data set on the device. Raises TooLittleMemory where it does not fit."""
    try:
        return data.to(budget.device)
    except Exception as error:
        if not out_of_memory(error):
            raise
        said = f"dataset={data.name!r} does not fit into the memory of {budget.device} ({first_line(error)})"
        raise TooLittleMemory(f"{said}; end what else runs there, or use another data set or --device") from None


def cut(runs: Sequence[Run], size: int) -> list[tuple[Run, ...]]:
    return [tuple(runs[i : i + size]) for i in range(0, len(runs), size)]


def too_little(run: Run, takes: str, budget: Budget) -> TooLittleMemory:
    """The error for one run that does not fit, alone."""
    task = run.task
    return TooLittleMemory(
        f"one run of {type(task.model).__name__} {task.model.name} on {task.dataset!r} with batch_size="
        f"{run.sgd.batch_size} does not fit into memory: it takes {takes}, but may take {budget}; use a smaller "
        f"network, batch_size or train_size, more --memory if there is more, or another --device. What had ended is "
        f"in the store"
    )


_known: dict[tuple[Any, ...], Need] = {}
_one_at_a_time = threading.Lock()  # or the peak of one would hold the other


def _need(stack: Stack, data: Dataset, budget: Budget, probes: Sequence[Any]) -> Need:
    """Measured once a process and kind of stack; counted where the C kernels work, which allocate next to nothing."""
    run, device = stack.runs[0], data.x_train.device
    if in_c(run, data):
        return counted(stack, data, probes)
    key = (Stack.key(run), largest_batch(run, len(data.x_train)), curved(probes), str(device))
    with _one_at_a_time:
        if key not in _known:
            try:
                _known[key] = measured(run, data, probes)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                takes = f"more than there was when it was measured ({first_line(error)})"
                raise too_little(run, takes, budget) from None
            finally:
                release(device)
        return _known[key]


def halving(work: Callable[[Sequence[int]], list[Any]], runs: Sequence[int], device: torch.device | str) -> list[Any]:
    """``work(runs)``, a list with an entry for each run; in halves where it runs out of memory, down to single runs."""
    try:
        return work(runs)
    except Exception as error:
        if len(runs) < 2 or not out_of_memory(error):
            raise
        log.warning("measuring %d runs ran out of memory (%s): in halves", len(runs), first_line(error))
    release(device)
    current(device).measured_apart += 1
    middle = len(runs) // 2
    return halving(work, runs[:middle], device) + halving(work, runs[middle:], device)
