"""Where the tasks of a sweep are carried out: worker processes of this machine, or any executor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context

import torch

from threefactors.training import Run, Stack


def carry_out(
    pool: Executor,
    work: Callable[..., None],
    tasks: Sequence[tuple[Stack, dict[Run, str]]],
    report: Callable[[int], None],
) -> None:
    """Every stack as a task of its own. One that fails does not keep the others from finishing and being stored."""
    futures = {pool.submit(work, stack, names): stack for stack, names in tasks}
    errors = []
    for future in as_completed(futures):
        error = future.exception()
        if error is None:
            report(len(futures[future]))
        else:
            errors.append(error)
    if errors:
        if any(isinstance(error, BrokenExecutor) for error in errors):
            workers.cache_clear()  # a worker died, and took its pool with it
        count = f"{len(errors)} of {len(futures)} stacks failed, the first with {errors[0]!r}"
        raise RuntimeError(f"{count}; the others are in the store, run again for the rest") from errors[0]


@cache
def workers(jobs: int) -> ProcessPoolExecutor:
    """Kept from one sweep to the next."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """One thread in each: two that share a core only get in each other's way."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C is for the one who asked, who tells of it
