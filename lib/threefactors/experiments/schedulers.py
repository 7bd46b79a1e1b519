"""Schedulers of dask.distributed: reached and looked at before any work, or started here with their workers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from threefactors.settings import Settings, SettingsError, is_local, require_device

PATIENCE = 5.0  # seconds in which a scheduler must answer
NO_WORKERS = 30.0  # seconds without a single worker after which a sweep ends, or does not begin
SAME = {  # expressions, not functions of ours: a worker that has another library could not even read those
    "threefactors": "__import__('threefactors').__version__",
    "torch": "__import__('torch').__version__",
    "protocol": "__import__('threefactors.experiments.store', fromlist=['store']).PROTOCOL",
}
_clients: dict[str, Any] = {}
_clusters: dict[tuple[str, str], Any] = {}
_lock = threading.Lock()


def connect(scheduler: str, device: str) -> Any:
    """A client of the scheduler, kept for the next sweep, its workers looked at; ``local`` is started first.

    Raises SettingsError where dask.distributed is missing, the scheduler does not answer within PATIENCE or has no
    workers, or a worker has another library, torch or protocol, or no such device.
    """
    dask = distributed(scheduler)
    with _lock:
        address = _local(scheduler, device) if is_local(scheduler) else scheduler
        client = _clients.get(address)
        if client is None or client.status != "running":
            try:
                with ThreadPoolExecutor(1) as thread:  # a notebook has a loop in this one
                    thread.submit(asyncio.run, _greet(address)).result()
                client = dask.Client(address, timeout=PATIENCE, set_as_default=False)
            except (OSError, TimeoutError, asyncio.TimeoutError, ValueError) as error:
                raise SettingsError(
                    f"scheduler {address!r} does not answer within {PATIENCE:g} s ({error or type(error).__name__}); "
                    "start it with `dask scheduler`, name another with --scheduler ADDRESS, or leave that out "
                    "(and unset THREEFACTORS_SCHEDULER)"
                ) from error
            client.rpc.timeout = PATIENCE
            _clients[address] = client
    try:
        client.wait_for_workers(1, timeout=NO_WORKERS)
    except (TimeoutError, asyncio.TimeoutError):
        raise SettingsError(
            f"scheduler {address!r} has had no workers for {NO_WORKERS:g} s; start them with "
            f"`dask worker {address} --nthreads 1`, one for each GPU (CUDA_VISIBLE_DEVICES=0 before it) or core"
        ) from None
    for name, ours in versions().items():
        for worker, theirs in client.run(eval, SAME[name], on_error="return").items():
            if theirs != ours and not isinstance(theirs, OSError):  # a worker that died meanwhile
                there = f"none ({theirs!r})" if isinstance(theirs, Exception) else theirs
                raise SettingsError(f"worker {worker}: {name} is {there}, but {ours} here; give all machines the same")
    for worker, problem in client.run(require_device, device, on_error="return").items():
        if problem is not None and not isinstance(problem, OSError):
            raise SettingsError(f"worker {worker}: {problem}")
    return client


async def _greet(address: str) -> None:
    """Raises unless a scheduler answers in time: the client would wait for ever where a port is open but silent."""
    from distributed.comm import connect as call

    comm = await asyncio.wait_for(call(address, timeout=PATIENCE), PATIENCE)
    await comm.close()


@contextmanager
def serve(settings: Settings) -> Iterator[Settings]:
    """While the book is built: local workers started once for all chapters, a scheduler elsewhere looked at before
    any work. Yields the settings for the chapters."""
    if settings.scheduler is None:
        yield settings
        return
    client = connect(settings.scheduler, settings.device)
    try:
        yield replace(settings, scheduler=client.scheduler.address)
    finally:
        stop(settings.scheduler, settings.device)


def stop(scheduler: str, device: str) -> None:
    """Ends the client, and the workers if they are local."""
    with _lock:
        cluster = _clusters.pop((scheduler, device), None)
        client = _clients.pop(cluster.scheduler_address if cluster else scheduler, None)
        for one in (client, cluster):
            if one is not None:
                one.close(timeout=PATIENCE)


def versions() -> dict[str, Any]:
    """What must be the same on all machines, here."""
    return {name: eval(expression) for name, expression in SAME.items()}


def distributed(scheduler: str) -> Any:
    """The package, or SettingsError that says how to install it."""
    try:
        import distributed
    except ImportError as error:
        raise SettingsError(
            f"scheduler={scheduler!r} needs dask.distributed, which is not installed ({error}); "
            "pip install 'threefactors[cluster]'"
        ) from error
    return distributed


def _local(scheduler: str, device: str) -> str:
    """Address of the cluster of this machine, all of it on 127.0.0.1 and ended with this process."""
    cluster = _clusters.get((scheduler, device))
    if cluster is None or cluster.status.name != "running":
        dask = distributed(scheduler)
        own = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
        deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the one who asked
        each = {**own, "nthreads": 1, "memory_limit": 0, "silence_logs": "CRITICAL", "preload": [deaf]}
        spec = {
            i: {"cls": dask.Nanny, "options": {**each, "env": env}} for i, env in enumerate(_places(scheduler, device))
        }
        head = {"cls": dask.Scheduler, "options": {**own, "port": 0}}
        before = dict(os.environ)  # dask sets the number of threads of its workers in the environment of all
        cluster = dask.SpecCluster(workers=spec, scheduler=head, silence_logs="CRITICAL")
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        cluster.scheduler.allowed_failures = 1  # workers that may die of a task before it is taken apart
        _clusters[scheduler, device] = cluster
    return str(cluster.scheduler_address)


def _places(scheduler: str, device: str) -> list[dict[str, str]]:
    """The environment of each local worker: one for each core, or one for each GPU that is seen from here."""
    count = int(scheduler.partition(":")[2] or 0)
    if device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{} for _ in range(count or cores)]
    found = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (named.split(",") if named else [str(i) for i in range(found)])[:found]
    if count > len(gpus):
        raise SettingsError(f"scheduler={scheduler!r} but a worker needs a GPU, of which there are {len(gpus)}")
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: count or None]]
