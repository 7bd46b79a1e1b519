"""The work of one task: a stack is trained, measured, and each of its runs stored as soon as it has ended.

It is trained in parts that fit into memory; a part that runs out of it all the same is halved, and a part that was
interrupted goes on where its runs stood.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from threefactors.experiments import checkpoints
from threefactors.experiments.checkpoints import Checkpoints, State
from threefactors.experiments.faults import device_failed, first_line, out_of_memory, release
from threefactors.experiments.memory import Budget, cut, log, parts, placed, too_little, within
from threefactors.experiments.probes import AtClock, Every, Probe, pauses, take
from threefactors.experiments.provenance import provenance
from threefactors.experiments.store import Store
from threefactors.training import Dataset, Run, Stack, Trainer, load
from threefactors.training.engines import DeviceError


def train_stack(
    stack: Stack,
    names: dict[Run, str],
    *,
    probes: tuple[Probe, ...],
    store: str,
    device: str,
    root: str | os.PathLike[str] | None,
    memory: float | None = None,
    beside: int = 1,
    each: Callable[[int], None] = lambda count: None,
) -> None:
    """Trains a stack, measures it, and stores each run as soon as it has ended; training goes on meanwhile.

    memory: GiB that it may take (None: a share of what is free); beside: processes that share the device. What the
    store holds already is not trained again. Raises TooLittleMemory where a single run does not fit, and DeviceError
    where the driver fails in the middle; what had ended is in the store.
    """
    place = Store(store)
    missing = tuple(run for run in stack.runs if place.get(names[run]) is None)
    if len(missing) < len(stack):
        each(len(stack) - len(missing))
    if not missing:
        return
    with within(Budget(device, memory, max(beside, 1))) as budget:
        data = placed(load(stack.runs[0].task.dataset, root), budget)
        room = _Room(names, probes, place, Checkpoints(place), device, data, each)
        together = parts(Stack(missing), data, budget, probes)
        if len(together) > 1:
            log.info("%d runs in %d parts, as memory may be %s", len(missing), len(together), budget)
        waiting = [_Part(runs, splits=int(len(together) > 1)) for runs in together]
        while waiting:
            part = waiting.pop(0)
            standing = room.standing(part)
            if len(standing) > 1:  # interrupted at different epochs, they cannot be trained in step
                waiting[:0] = [_Part(tuple(states), part.splits) for states in standing.values()]
                continue
            (states,) = standing.values()
            fault = _attempt(room, part, states, budget)
            if fault:
                release(device)
                if len(part.runs) == 1:
                    raise too_little(part.runs[0], fault, budget)
                log.warning("%d runs ran out of memory (%s): in halves", len(part.runs), fault)
                left = [run for run in part.runs if run not in room.stored]
                waiting[:0] = [_Part(runs, part.splits + 1) for runs in cut(left, -(-len(part.runs) // 2))]


@dataclass(frozen=True)
class _Part:
    """Runs that are trained together, and how often memory made them fewer."""

    runs: tuple[Run, ...]
    splits: int = 0


@dataclass
class _Room:
    """What all parts of a stack have in common."""

    names: dict[Run, str]
    probes: tuple[Probe, ...]
    place: Store
    kept: Checkpoints
    device: str
    data: Dataset
    each: Callable[[int], None]
    stored: set[Run] = field(default_factory=set)

    def standing(self, part: _Part) -> dict[int, dict[Run, State | None]]:
        """The runs by the epoch at which they stand, those that are new at 0, each with its state."""
        epochs: dict[int, dict[Run, State | None]] = {}
        maker = ""
        for run in part.runs:
            state = None
            if self.names[run] in self.kept:
                maker = maker or _maker(Trainer(Stack(part.runs[:1]), self.data))
                state = self.kept.get(self.names[run], maker)
            epochs.setdefault(state["trainer"]["epoch"] if state else 0, {})[run] = state
        return epochs

    def keep(self, run: Run, record: dict[str, Any]) -> None:
        """Stores the result of a run that has ended."""
        self.place.put(self.names[run], record)
        self.kept.remove(self.names[run])
        self.stored.add(run)
        self.each(1)


def _maker(trainer: Trainer) -> str:
    """Who can take up a state and come to the same numbers, bit for bit."""
    return f"{type(trainer.engine).__name__} on {trainer.theta.device.type}, torch {torch.__version__}"


def _attempt(room: _Room, part: _Part, states: dict[Run, State | None], budget: Budget) -> str:
    """Trains the part to its end; says how it ran out of memory, if it did.

    The error itself ends with this call: its traceback holds every tensor of the attempt.
    """
    try:
        with ThreadPoolExecutor(1) as writer:  # to flush a file to the disk takes milliseconds, but no processor
            _Training(room, part, states, budget, writer).carry_out()
    except Exception as error:
        if out_of_memory(error):
            return first_line(error)
        if device_failed(error) and not isinstance(error, DeviceError):
            said = f"{room.device} failed in the middle of training ({first_line(error)})"
            remedy = "nothing more can be done on it in this process; what had ended is in the store, run again"
            raise DeviceError(f"{said}; {remedy} in a new one for the rest") from error
        raise
    return ""


class _Training:
    """A part in training: what probes see of it, where it stands, and how its runs end."""

    def __init__(
        self, room: _Room, part: _Part, states: dict[Run, State | None], budget: Budget, writer: Executor
    ) -> None:
        self.room, self.part, self.budget, self.writer = room, part, budget, writer
        self.started = time.perf_counter()
        self.due = self.started + checkpoints.EVERY
        self.trainer = Trainer(Stack(part.runs), room.data)
        known = [state for state in states.values() if state is not None]
        self.resumed = bool(known)
        if known:  # then all are
            self.trainer.restore([state["trainer"] for state in known])
        self.series: list[list[dict[str, Any]]] = [state["series"] for state in known] or [[] for _ in part.runs]
        self.looked = [state["looked"] for state in known] or [0.0] * len(part.runs)
        self.seconds = [state["seconds"] for state in known] or [0.0] * len(part.runs)  # of earlier processes
        self.results: list[Future[None]] = []
        self.written: Future[float] | None = None

    def carry_out(self) -> None:
        self.trainer.train(self.observe, pauses(self.room.probes), self.rest)
        for result in self.results:
            result.result()

    def observe(self, epoch: int, runs: list[int], ended: bool) -> None:
        while self.results and self.results[0].done():
            self.results.pop(0).result()  # what the writer met is raised now, and not after hours
        trainer = self.trainer
        healthy = [i for i in runs if trainer.diverged_at[i] < 0]
        if ended:
            self.store(healthy, [i for i in runs if trainer.diverged_at[i] >= 0])
            return
        rows = {i: {"epoch": epoch, "step": trainer.steps[i], "at_clock": trainer.clock[i]} for i in healthy}
        for probe in self.room.probes:
            at = probe.at
            if isinstance(at, Every | AtClock):
                due = [i for i in healthy if at.due(epoch, self.looked[i], trainer.clock[i])]
                for i, columns in zip(due, take(probe, trainer, due) if due else [], strict=True):
                    rows[i].update(columns)
        for i in healthy:
            self.looked[i] = trainer.clock[i]
            if len(rows[i]) > 3:  # a probe looked
                self.series[i].append(rows[i])

    def store(self, healthy: list[int], diverged: list[int]) -> None:
        """Measures the runs that have ended, and hands their records to the writer."""
        ends: dict[int, dict[str, Any]] = {i: {} for i in healthy + diverged}
        trainer = self.trainer
        for probe in self.room.probes:
            if probe.at == "end" and healthy:
                for i, columns in zip(healthy, take(probe, trainer, healthy), strict=True):
                    ends[i].update(columns)
        for i, end in ends.items():
            record = {
                "end": end,
                "series": self.series[i],
                "steps": trainer.steps[i],
                "epochs": trainer.epochs[i],
                "clock": trainer.clock[i],
                "finished": trainer.finished[i],
                "diverged": trainer.diverged_at[i] >= 0,
                "diverged_at": trainer.diverged_at[i],
                "provenance": provenance(
                    self.room.device,
                    engine=type(trainer.engine).__name__,
                    seconds=self.spent(i),
                    stack=len(self.part.runs),
                    splits=self.part.splits,
                    measured_apart=self.budget.measured_apart,
                    resumed=self.resumed,
                ),
            }
            self.results.append(self.writer.submit(self.room.keep, self.part.runs[i], record))

    def spent(self, i: int) -> float:
        """Seconds, the run's share of those of its stack."""
        return self.seconds[i] + (time.perf_counter() - self.started) / len(self.part.runs)

    def rest(self, runs: list[int]) -> None:
        """Now and then, where the runs stand is written down, too; training goes on meanwhile."""
        if time.perf_counter() < self.due or (self.written is not None and not self.written.done()):
            return
        trainer = self.trainer
        states = {
            self.room.names[self.part.runs[i]]: {
                "trainer": trainer.state(i),
                "series": list(self.series[i]),
                "looked": self.looked[i],
                "seconds": self.spent(i),
            }
            for i in runs
        }
        took = self.written.result() if self.written is not None else 0.0
        self.due = time.perf_counter() + max(checkpoints.EVERY, checkpoints.DUTY * took)
        self.written = self.writer.submit(self.room.kept.put_all, states, _maker(trainer))
