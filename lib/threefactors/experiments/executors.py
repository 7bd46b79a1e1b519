"""Who carries out the stacks of a sweep, and what is done when one fails: the others finish, the culprit is found."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from functools import cache
from multiprocessing import get_context
from typing import Any

import cloudpickle
import torch

from threefactors.experiments.memory import TooLittleMemory
from threefactors.experiments.store import Store, StoreError
from threefactors.training import Run, Stack
from threefactors.training.engines import DeviceError
from threefactors.training.runs import STACK_LIMIT

SHARES = 6  # stacks for each worker on a CPU: enough that none waits long for the last one to finish
GIVE_UP_AFTER = 3  # runs that fail even alone: then it is no single poison, and the rest would fail as well


class Crew:
    """Workers of any kind. This one is an executor that somebody gave: it is handed all stacks at once."""

    tries = 1  # deaths of its worker after which a run, all by itself, is taken for their cause
    final: tuple[type[BaseException], ...] = (StoreError, BrokenExecutor)  # no other stack could fare better

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    @property
    def room(self) -> int:
        """Stacks that may be under way at once."""
        return sys.maxsize

    def share(self, runs: int) -> int:
        """Runs in a stack at most, if there are so many to share out."""
        return STACK_LIMIT

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        return self.executor.submit(work, *arguments)

    def failure(self, future: Future[None]) -> BaseException | None:
        """What became of a stack that is done: None if all is well."""
        return RuntimeError("its executor was shut down") if future.cancelled() else future.exception()

    def collect(self) -> None:
        """Brings results home that lie elsewhere; called every second. Raises what no stack could survive."""

    def close(self) -> None:
        """After the sweep."""


class Processes(Crew):
    """Processes of this machine, each an executor of its own, so that a worker that dies takes one stack with it."""

    tries = 2  # one death may be chance
    final = (StoreError,)

    def __init__(self, jobs: int) -> None:
        self.pools = [_process() for _ in range(jobs)]
        self.last: list[Future[None] | None] = [None] * jobs

    @property
    def room(self) -> int:
        return len(self.pools)

    def share(self, runs: int) -> int:
        return min(STACK_LIMIT, -(-runs // (SHARES * self.room)))

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        free = (i for i, last in enumerate(self.last) if last is None or last.done())
        slot = next(free, 0)  # none is free where a sweep before this one was interrupted
        packed = cloudpickle.dumps((work, arguments))  # with the classes of a notebook, which no worker could import
        try:
            future = self.pools[slot].submit(attempt, _unpacked, packed)
        except BrokenExecutor:
            self.pools[slot] = _process()
            future = self.pools[slot].submit(attempt, _unpacked, packed)
        self.last[slot] = future
        return future


def carry_out(
    crew: Crew,
    work: Callable[..., None],
    stacks: Sequence[Stack],
    names: Mapping[Run, str],
    place: Store,
    report: Callable[[int], None],
) -> None:
    """Every stack as a task of its own: ``work(stack, names)``; each run is reported once, when it is in the store.

    Of a stack that fails, or whose worker dies, the runs that are not in the store are tried again in halves, until
    those that fail even alone are found; all others finish. Raises RuntimeError that names them, and at once what
    no other stack could survive (``crew.final``): a full disk, a scheduler that was lost.
    """
    waiting, again = deque(stacks), deque[Stack]()  # those that failed have their second turn at the end
    under_way: dict[Future[None], Stack] = {}
    failed: dict[Run, BaseException] = {}
    deaths: Counter[Run] = Counter()
    try:
        while True:
            while len(under_way) < crew.room:
                if not waiting and (len(under_way) >= GIVE_UP_AFTER or len(failed) >= GIVE_UP_AFTER or not again):
                    break
                stack = (waiting or again).popleft()
                under_way[crew.submit(work, stack, {run: names[run] for run in stack.runs})] = stack
            if not under_way:
                break
            done = wait(under_way, timeout=1, return_when=FIRST_COMPLETED).done
            crew.collect()
            for future in done:
                stack, error = under_way.pop(future), crew.failure(future)
                rest = [run for run in stack.runs if place.get(names[run]) is None] if error is not None else []
                report(len(stack) - len(rest))
                if error is None or not rest:
                    continue
                if isinstance(error, crew.final):
                    raise error
                deaths.update(rest if _died(error) and len(stack) == 1 else ())
                if isinstance(error, TooLittleMemory):
                    failed.update(dict.fromkeys(rest, error))  # work made the stack smaller until there was one
                elif len(stack) > 1:
                    half = len(rest) // 2
                    again.extendleft(Stack(tuple(part)) for part in (rest[half:], rest[:half]) if part)
                elif 0 < deaths[rest[0]] < crew.tries:
                    again.appendleft(Stack(tuple(rest)))
                else:
                    failed[rest[0]] = error
    except BaseException:
        for future in under_way:
            future.cancel()
        raise
    if failed:
        raise _summary(failed, sum(map(len, again))) from next(iter(failed.values()))


def _died(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def _summary(failed: Mapping[Run, BaseException], left: int) -> RuntimeError:
    run, error = next(iter(failed.items()))
    what = "its worker dies each time (out of memory?)" if _died(error) else f"it raises {error!r}"
    count = "1 run fails even alone:" if len(failed) == 1 else f"{len(failed)} runs fail even alone, the first is"
    untried = f"; {left} more failed with others and were not tried alone" if left else ""
    model = f"{type(run.task.model).__name__} {run.task.model.name}"
    return RuntimeError(
        f"{count} {run.task.dataset}, {model}, lr={run.sgd.lr:g}, batch_size={run.sgd.batch_size}, seed={run.seed}: "
        f"{what}{untried}. All that finished is in the store; mend what is wrong or leave out what "
        "fails, and run again for the rest"
    )


@cache
def workers(jobs: int) -> Processes:
    """Kept from one sweep to the next."""
    return Processes(jobs)


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """One thread in each: two that share a core only get in each other's way."""
    torch.set_num_threads(1)
    exact()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C is for the one who asked, who tells of it


def _unpacked(packed: bytes) -> None:
    """What ``submit`` packed, carried out."""
    work, arguments = pickle.loads(packed)
    work(*arguments)


def attempt(work: Callable[..., None], *arguments: Any, **options: Any) -> None:
    """The work in a process that can be replaced: it ends where the GPU's driver fails, of which none recovers."""
    try:
        work(*arguments, **options)
    except DeviceError as error:
        print(f"process {os.getpid()} ends: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def exact() -> None:
    """Convolutions in full float32, wherever they are carried out: ten bits of mantissa are too few for curvature."""
    torch.backends.cudnn.allow_tf32 = False
