"""From a sweep to its results: look in the store, train what is missing in stacks, measure, keep, tabulate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from threefactors.experiments.cluster import Cluster
from threefactors.experiments.executors import Crew, carry_out, exact, workers
from threefactors.experiments.memory import Budget, check
from threefactors.experiments.probes import Probe, check_probe
from threefactors.experiments.provenance import incidents
from threefactors.experiments.store import Store, key
from threefactors.experiments.work import train_stack
from threefactors.settings import Settings, require_device
from threefactors.training import Run, Sweep, load


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

    @property
    def incidents(self) -> tuple[str, ...]:
        """What happened on the way that changed how the runs were carried out, but none of their numbers."""
        return incidents([record["provenance"] for record in self.records])

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
    scheduler: str | None = None,
    progress: bool | None = None,
) -> Result:
    """Carries out every run of the sweep that the store does not hold yet, and returns all of them.

    store: folder of results, device: ``cpu`` or ``cuda``, data: root folder of the data sets, scheduler: address of
    one of dask.distributed or ``local``; each defaults to what ``Settings.from_environment()`` says. executor: any
    concurrent.futures.Executor; each stack is one task. Without one the scheduler's workers, without that the
    settings' worker processes, and without these this process, which a stack fills by itself. A run is stored as
    soon as it has ended, so an interrupted sweep goes on where it stopped. Raises before any work starts for a batch
    larger than the training set, an unknown data set or probe, a store that cannot be written, a device that is not
    there or a scheduler that cannot be reached.
    """
    where = Settings.from_environment()
    place = Store(store if store is not None else where.store)
    root = data if data is not None else where.data
    chosen = device if device is not None else where.device
    scheduler = None if executor is not None else scheduler or where.scheduler
    for probe in probes:
        check_probe(probe)
    require_device(chosen, scheduler)
    exact()
    sets = {name: load(name, root) for name in {run.task.dataset for run in sweep}}
    for one in sweep:
        own = sets[one.task.dataset]
        one.check(len(own.first(one.task.train_size).x_train))
        one.task.model.parameters(own.inputs, own.classes)  # refuses images that the network is not made for
    place.check()
    keys = {one: key(one, tuple(probes), sets[one.task.dataset].checksum) for one in sweep}
    records = {one: place.get(keys[one]) for one in sweep}
    missing = tuple(one for one, record in records.items() if record is None)
    here = executor is None and scheduler is None
    beside = max(1, where.jobs) if here else 1  # of processes elsewhere nothing is known
    if missing and here:
        check(Sweep(missing).stacks(), sets, Budget(chosen, where.memory, beside), probes)
    work = partial(train_stack, probes=tuple(probes), store=str(place.folder), device=chosen, root=root)
    work = partial(work, memory=where.memory, beside=beside)
    report = _Progress(len(missing), where.progress, progress)
    if missing and here and where.jobs == 0:
        for stack in Sweep(missing).stacks():
            work(stack, {one: keys[one] for one in stack.runs}, each=report)
    elif missing:
        checksums = {name: own.checksum for name, own in sets.items()}
        crew = (
            Crew(executor)
            if executor is not None
            else workers(where.jobs)
            if scheduler is None
            else Cluster(scheduler, place, device=chosen, data=root, checksums=checksums)
        )
        with closing(crew):
            carry_out(crew, work, Sweep(missing).stacks(crew.share(len(missing))), keys, place, report)
    records.update({one: place.get(keys[one]) for one in missing})
    result = Result(sweep.runs, tuple(_present(records[one], place) for one in sweep))
    report.close(result.incidents if missing else ())
    return result


def _present(record: dict[str, Any] | None, place: Store) -> dict[str, Any]:
    if record is None:
        raise RuntimeError(f"a result vanished from the store {place.folder} while the sweep ran; run it again")
    return record


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

    def close(self, incidents: Sequence[str]) -> None:
        self.bar.close()
        if self.file is not None and incidents:
            with self.file.with_suffix(".incidents").open("a") as out:
                out.writelines(f"{line}\n" for line in incidents)
