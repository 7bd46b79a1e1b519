"""The work of one task: a stack is trained, measured, and each of its runs stored as soon as it has ended."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from threefactors.experiments.probes import AtClock, Every, Probe, pauses, take
from threefactors.experiments.provenance import provenance
from threefactors.experiments.store import Store
from threefactors.training import Run, Stack, Trainer, load


def train_stack(
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
