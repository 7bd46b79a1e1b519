"""The same sweep on other machines: each stack is a task of dask.distributed.

``dask scheduler`` runs on one machine, and on every machine that computes one worker for each GPU,
``CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1 --memory-limit 0`` (or for each core). The scheduler
``local`` starts both here. Workers have this library and, under the same path as the client, the data sets. A worker
that sees the client's store writes into it; from any other each result comes home as soon as its run has ended.

No more tasks are under way than there are workers, so a worker that dies takes one stack with it, and Ctrl-C leaves
nothing in a queue. A task that has begun cannot be stopped from here: after Ctrl-C the client is free at once, but
each worker finishes its stack (in a store that both see its results are kept); a local worker ends with its parent.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from threefactors.experiments import schedulers
from threefactors.experiments.executors import SHARES, Crew, attempt, exact
from threefactors.experiments.schedulers import connect, distributed, versions
from threefactors.experiments.store import Store, StoreError
from threefactors.settings import SettingsError, require_device
from threefactors.training import Run, Stack, load
from threefactors.training.runs import STACK_LIMIT


class ClusterError(RuntimeError):
    """The scheduler or a worker failed a sweep; the message names it and how to go on."""


@dataclass(frozen=True)
class _Home:
    """What a worker must know: where results belong, how to recognize the place, what the data sets must be."""

    store: Path
    token: str  # name of a file in the store; also of the queue for results from workers that do not see it
    device: str
    data: Path | None
    checksums: Mapping[str, str]
    beside: int  # tasks that share a machine's memory
    same: Mapping[str, Any]  # versions, which no worker may differ in


class Cluster(Crew):
    """The workers of a scheduler, for one sweep. Raises SettingsError if they cannot carry it out."""

    final = (StoreError, ClusterError)

    def __init__(
        self,
        scheduler: str,
        place: Store,
        *,
        device: str,
        data: str | os.PathLike[str] | None,
        checksums: Mapping[str, str],
    ) -> None:
        self.client = connect(scheduler, device)
        self.address = self.client.scheduler.address
        folder = Path(data).absolute() if data is not None else None
        self.place = place
        threads = self.client.nthreads()
        hosts: Counter[str] = Counter()
        for address, count in threads.items():
            hosts[address.rpartition(":")[0] if device == "cpu" else address] += count
        beside = max(hosts.values(), default=1)
        self.threads, self.seen = sum(threads.values()), time.monotonic()
        self.token = place.folder / f".home-{uuid4().hex}"
        self.token.touch()
        self.home = _Home(place.folder.absolute(), self.token.name, device, folder, checksums, beside, versions())
        self.box = distributed(scheduler).Queue(self.token.name, client=self.client)

    @property
    def room(self) -> int:
        return max(1, self.threads)

    def share(self, runs: int) -> int:
        shares = SHARES if self.home.device == "cpu" else 1  # the more networks at once, the better for a GPU
        return min(STACK_LIMIT, -(-runs // (shares * self.room)))

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        if self.client.status != "running":
            raise self._lost()
        ours: Future[None] = Future()
        theirs = self.client.submit(partial(_carry, self.home, work, *arguments), pure=False)

        def settle(_: Any) -> None:
            with suppress(InvalidStateError):  # it was cancelled in the same moment
                if theirs.status == "finished":
                    ours.set_result(None)
                elif theirs.status == "error":
                    ours.set_exception(theirs.exception())
                elif ours.cancel():
                    ours.set_running_or_notify_cancel()  # wakes up who waits
            theirs.release()  # else it would be computed again when the worker that did it dies

        def forward(_: Any) -> None:
            if ours.cancelled() and theirs.status == "pending" and self.client.status == "running":
                theirs.cancel()

        theirs.add_done_callback(settle)
        ours.add_done_callback(forward)
        return ours

    def failure(self, future: Future[None]) -> BaseException | None:
        return self._lost() if future.cancelled() else future.exception()

    def collect(self) -> None:
        if self.client.status != "running":
            raise self._lost()
        try:
            self.threads = sum(self.client.nthreads().values())
            for name, content in self.box.get(batch=True):
                self.place.adopt(name, content)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            raise self._lost() from error
        if self.threads:
            self.seen = time.monotonic()
        elif time.monotonic() > self.seen + schedulers.NO_WORKERS:
            raise ClusterError(f"the scheduler {self.address} has had no workers for a while; {_HOW_TO_GO_ON}")

    def close(self) -> None:
        self.token.unlink(missing_ok=True)
        if self.client.status == "running":
            with suppress(ClusterError):
                self.collect()  # what came since: after an interruption this is not nothing
            self.box.close()

    def _lost(self) -> ClusterError:
        return ClusterError(f"the scheduler {self.address} was lost in the middle of a sweep; {_HOW_TO_GO_ON}")


_HOW_TO_GO_ON = "all that finished is in the store: start scheduler and workers again (or go on without), and run again"


def _carry(home: _Home, work: Callable[..., None], stack: Stack, names: dict[Run, str]) -> None:
    """On a worker: a stack is trained, and its results go to the store, or home by the scheduler."""
    from distributed import Queue, get_worker

    _require_fit(stack.runs[0].task.dataset, home, f"worker {get_worker().address} on {platform.node()}")
    exact()
    if (home.store / home.token).exists() and os.access(home.store, os.W_OK):
        attempt(work, stack, names, store=str(home.store), root=home.data, beside=home.beside)
        return
    box = Queue(home.token)
    with TemporaryDirectory(prefix="threefactors-") as folder:

        def post(_: int) -> None:
            for path in Path(folder).glob("??/*.json"):
                box.put((path.stem, path.read_bytes()))
                path.unlink()

        attempt(work, stack, names, store=folder, root=home.data, beside=home.beside, each=post)
    box.close()


def _require_fit(dataset: str, home: _Home, worker: str) -> None:
    """Workers may join at any time, so each looks again for versions, device and the very data set that is meant."""
    if versions() != home.same:
        raise ClusterError(f"{worker} has {versions()}, but the client {dict(home.same)}; give all machines the same")
    try:
        require_device(home.device)
        if home.data is not None and not home.data.is_dir():
            raise FileNotFoundError(f"data folder {home.data} does not exist there; copy it, or share it")
        checksum = load(dataset, home.data).checksum
    except (SettingsError, OSError, ValueError) as error:
        raise ClusterError(f"{worker}: {error}") from error
    if checksum != home.checksums[dataset]:
        raise ClusterError(f"{worker}: {dataset} in {home.data} is not the client's (SHA-256 differs); copy it anew")
