"""From a sweep to its results: look in the store, train what is missing in stacks, measure, keep, tabulate."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from threefactors.experiments.probes import AtClock, Every, Probe, check_probe, pauses, take
from threefactors.experiments.provenance import provenance
from threefactors.experiments.store import Store, key
from threefactors.settings import Settings
from threefactors.training import Run, Stack, Sweep, Trainer, load
from threefactors.training.runs import STACK_LIMIT

SHARES = 6  # stacks for each worker process: enough that none waits long for the last one to finish


@dataclass(frozen=True)
class Result:
    """What a sweep found: a record for each run, in the order of the sweep."""

    runs: tuple[Run, ...]
    records: tuple[dict[str, Any], ...]

    @property
    def diverged(self) -> tuple[Run, ...]:
        return tuple(run for run, record in zip(self.runs, self.records, strict=True) if record["diverged"])

    @property
    def unfinished(self) -> tuple[Run, ...]:
        """Runs that stopped at their limit without meeting their stopping rule."""
        return tuple(
            run
            for run, record in zip(self.runs, self.records, strict=True)
            if not record["finished"] and not record["diverged"]
        )

    def table(self) -> pd.DataFrame:
        """One row a run: its settings, how it ended, and what was measured at the end (missing if it diverged)."""
        return pd.DataFrame(
            [
                {**_settings(run), **_ending(record), **record["end"]}
                for run, record in zip(self.runs, self.records, strict=True)
            ]
        )

    def series(self) -> pd.DataFrame:
        """One row for each run and each time at which a probe looked along the way."""
        return pd.DataFrame(
            [
                {**_settings(run), **row}
                for run, record in zip(self.runs, self.records, strict=True)
                for row in record["series"]
            ]
        )

    def __len__(self) -> int:
        return len(self.runs)


def _settings(run: Run) -> dict[str, Any]:
    task, sgd = run.task, run.sgd
    return {
        "dataset": task.dataset,
        "hidden": task.model.name,
        "batch_norm": task.model.batch_norm is not None,
        "label_noise": task.label_noise,
        "loss": task.loss,
        **{name: value for name, value in vars(sgd).items() if isinstance(value, (bool, int, float, str))},
        "ratio": sgd.lr / sgd.batch_size,
        "seed": run.seed,
    }


def _ending(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("steps", "epochs", "clock", "finished", "diverged", "diverged_at")}


def run(
    sweep: Sweep,
    probes: Sequence[Probe],
    *,
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    data: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Result:
    """Carries out every run of the sweep that the store does not hold yet, and returns all of them.

    store: folder of results, device: ``cpu`` or ``cuda``, data: root folder of the data sets; each defaults to what
    ``Settings.from_environment()`` says. executor: any concurrent.futures.Executor; each stack is one task (none: in
    this process, which a stack fills by itself). A run is stored as soon as it has ended, so an interrupted sweep
    goes on where it stopped. Raises before any work starts for a batch larger than the training set, an unknown
    data set or probe, a store that cannot be written or a device that is not there.
    """
    where = Settings.from_environment()
    place = Store(store if store is not None else where.store)
    root = data if data is not None else where.data
    chosen = device if device is not None else where.device
    for probe in probes:
        check_probe(probe)
    _check_device(chosen)
    sets = {name: load(name, root) for name in {run.task.dataset for run in sweep}}
    for one in sweep:
        own = sets[one.task.dataset]
        one.check(len(own.first(one.task.train_size).x_train))
        one.task.model.parameters(own.inputs, own.classes)  # refuses images that the network is not made for
    place.check()
    keys = {one: key(one, tuple(probes), sets[one.task.dataset].checksum) for one in sweep}
    records = {one: place.get(keys[one]) for one in sweep}
    missing = tuple(one for one, record in records.items() if record is None)
    work = partial(_train_stack, probes=tuple(probes), store=str(place.folder), device=chosen, root=root)
    report = _Progress(len(missing), where.progress, progress)
    if missing and executor is None and where.jobs == 0:
        for stack in Sweep(missing).stacks():
            work(stack, {one: keys[one] for one in stack.runs}, each=report)
    elif missing:
        limit = STACK_LIMIT if executor is not None else -(-len(missing) // (SHARES * where.jobs))
        stacks = Sweep(missing).stacks(min(limit, STACK_LIMIT))
        tasks = [(stack, {one: keys[one] for one in stack.runs}) for stack in stacks]
        _carry_out(executor or _workers(where.jobs), work, tasks, report)
    records.update({one: place.get(keys[one]) for one in missing})
    report.close()
    return Result(sweep.runs, tuple(_present(records[one], place) for one in sweep))


def _carry_out(
    pool: Executor, work: Callable[..., None], tasks: Sequence[tuple[Stack, dict[Run, str]]], report: _Progress
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
            _workers.cache_clear()  # a worker died, and took its pool with it
        count = f"{len(errors)} of {len(futures)} stacks failed, the first with {errors[0]!r}"
        raise RuntimeError(f"{count}; the others are in the store, run again for the rest") from errors[0]


def _present(record: dict[str, Any] | None, place: Store) -> dict[str, Any]:
    if record is None:
        raise RuntimeError(f"a result vanished from the store {place.folder} while the sweep ran; run it again")
    return record


def _check_device(device: str) -> None:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device={device!r}, but this machine has no usable GPU; use device='cpu'")
    torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa are too few for curvature


@cache
def _workers(jobs: int) -> ProcessPoolExecutor:
    """Kept from one sweep to the next."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """One thread in each: two that share a core only get in each other's way."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C is for the one who asked, who tells of it


class _Progress:
    """Counts runs done, on a bar for a person or in a file for the process that builds the book."""

    def __init__(self, total: int, file: Path | None, shown: bool | None) -> None:
        self.total, self.done, self.file = total, 0, file
        hidden = total == 0 or file is not None if shown is None else not shown
        self.bar = tqdm(total=total, unit="run", disable=hidden, delay=1)

    def __call__(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        if self.file is not None:
            with self.file.open("a") as out:
                out.write(f"{self.done} {self.total}\n")

    def close(self) -> None:
        self.bar.close()


def _train_stack(
    stack: Stack,
    names: dict[Run, str],
    *,
    probes: tuple[Probe, ...],
    store: str,
    device: str,
    root: str | os.PathLike[str] | None,
    each: Any = lambda count: None,
) -> None:
    """Trains a stack, measures it, and stores each run as soon as it has ended; training goes on meanwhile."""
    started = time.perf_counter()
    place = Store(store)
    trainer = Trainer(stack, load(stack.runs[0].task.dataset, root).to(device))
    series: list[list[dict[str, Any]]] = [[] for _ in stack.runs]
    looked = [0.0] * len(stack)
    stored: list[Future[None]] = []

    def observe(epoch: int, runs: list[int], ended: bool) -> None:
        while stored and stored[0].done():
            stored.pop(0).result()  # what the writer met is raised now, and not after hours
        healthy = [i for i in runs if trainer.diverged_at[i] < 0]
        if ended:
            _store(healthy, [i for i in runs if trainer.diverged_at[i] >= 0])
            return
        rows = {i: _moment(trainer, i, epoch) for i in healthy}
        for probe in probes:
            at = probe.at
            if isinstance(at, Every | AtClock):
                due = [i for i in healthy if at.due(epoch, looked[i], trainer.clock[i])]
                for i, columns in zip(due, take(probe, trainer, due) if due else [], strict=True):
                    rows[i].update(columns)
        for i in healthy:
            looked[i] = trainer.clock[i]
            if len(rows[i]) > 3:  # a probe looked
                series[i].append(rows[i])

    def _store(healthy: list[int], diverged: list[int]) -> None:
        ends: dict[int, dict[str, Any]] = {i: {} for i in healthy + diverged}
        for probe in probes:
            if probe.at == "end" and healthy:
                for i, columns in zip(healthy, take(probe, trainer, healthy), strict=True):
                    ends[i].update(columns)
        for i, end in ends.items():
            one = stack.runs[i]
            record = {
                "end": end,
                "series": series[i],
                "steps": trainer.steps[i],
                "epochs": trainer.epochs[i],
                "clock": trainer.clock[i],
                "finished": trainer.finished[i],
                "diverged": trainer.diverged_at[i] >= 0,
                "diverged_at": trainer.diverged_at[i],
                "provenance": provenance(
                    device, engine=type(trainer.engine).__name__, seconds=(time.perf_counter() - started) / len(stack)
                ),
            }
            stored.append(writer.submit(keep, names[one], record))

    def keep(key: str, record: dict[str, Any]) -> None:
        place.put(key, record)
        each(1)

    with ThreadPoolExecutor(1) as writer:  # to flush a file to the disk takes milliseconds, but no processor
        trainer.train(observe, pauses(probes))
    for future in stored:
        future.result()


def _moment(trainer: Trainer, i: int, epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "step": trainer.steps[i], "at_clock": trainer.clock[i]}
