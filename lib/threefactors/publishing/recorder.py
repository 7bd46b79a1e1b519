"""Makes a record: executes a chapter aside at a scale that the book does not show, and keeps what was found.

The published notebooks are not touched. What is computed goes to the store run by run, so a recording that was cut
off goes on where it stopped; its seconds are added up over the attempts. The former record stays until there is
a new one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from threefactors.experiments import schedulers
from threefactors.experiments.provenance import commit, device_name, versions
from threefactors.publishing import definition, execute, ledger, recording, records
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.publishing.recording import Record, RecordError
from threefactors.settings import Settings, require_writable
from threefactors.training import load


@dataclass(frozen=True)
class Recording:
    """A ``record`` and the ``folder`` where it is kept; ``current`` if it was up to date and nothing was executed."""

    record: Record
    folder: Path
    current: bool


@dataclass(frozen=True)
class _Job:
    """A chapter to record: values of all its parameters, those that differ from its defaults, names of its data."""

    chapter: Chapter
    values: dict[str, Any]
    given: dict[str, Any]
    data: list[str]
    settings: Settings

    @property
    def name(self) -> str:
        return recording.name_of(self.chapter.name, self.values["scale"], self.given)

    @property
    def book(self) -> Path:
        return self.chapter.source.parent

    @property
    def aside(self) -> Path:
        """The notebook that is executed; its name is the chapter's, its folder the record's."""
        return self.book.parent / "_build" / "recording" / self.name / self.chapter.published.name

    @property
    def command(self) -> str:
        words = ["threefactors record", self.chapter.name]
        words += [] if self.values["scale"] == "paper" else ["--scale", self.values["scale"]]
        words += [f"-p {name}={value}" for name, value in sorted(self.given.items())]
        words += ["--data DIR"] if set(self.data) - {"digits"} else []
        return " ".join(words + ([] if self.settings.device == "cpu" else ["--device cuda"]))


def prepare(chapter: Chapter, *, scale: str, settings: Settings, parameters: Mapping[str, Any]) -> _Job:
    """What is to be done for one chapter; everything that cannot work is found here, before any work.

    Errors: ChapterError for a chapter with nothing to record, for the scale that the book shows in any case, for
    data that are not there (in the words of ``load``) and for a folder of records that cannot be written;
    SettingsError for the store.
    """
    name = chapter.name
    if chapter.summary:
        raise ChapterError(f"{name}: it reads the other chapters, and finds their records by itself; record those")
    values = chapter.settle(scale, parameters)
    given = {key: value for key, value in values.items() if key != "scale" and value != chapter.parameters[key]}
    if not definition.keeps_something(chapter):
        raise ChapterError(f"{name}: there is nothing to record: it judges no claim and keeps no runs")
    if scale == "laptop" and not given:
        raise ChapterError(
            f"{name}: the book itself shows it at scale laptop; use `threefactors book --only {name[:2]}`, "
            "or record another scale or a variant (-p NAME=VALUE)"
        )
    data = definition.data_sets(chapter, values)
    for one in data:
        try:
            load(one, settings.data)
        except (OSError, ValueError) as error:
            raise ChapterError(f"{name}: {error}") from error
    recording.require_writable(chapter.source.parent)
    require_writable(settings.store)
    return _Job(chapter, values, given, data, settings)


def record(job: _Job, *, timeout: float | None = None, force: bool = False) -> Recording:
    """Execute the chapter, unless its record is current, and keep what it found.

    ``timeout`` in seconds, ``force`` to do it in any case. Errors: ChapterError, in one line, for a chapter that fails
    or runs out of time; the former record then stays, as on KeyboardInterrupt.
    """
    if not force and (former := _current(job)):
        return Recording(former, job.book / "records" / job.name, current=True)
    code = definition.code(job.chapter, job.values)
    with schedulers.serve(job.settings) as settings, _alone(job), _spent(job, code) as spent:
        own = {"commit": _commit(job.book.parent), "machine": machine(settings)}  # as they are when it starts
        spent["peak_memory"] = _execute(replace(job, settings=settings), timeout)
    try:
        made = _gather(job, code, spent | own)
        folder = recording.write(job.book, made)
    except (OSError, RecordError) as error:
        kept = "finished runs are in the store"
        raise ChapterError(f"{job.name}: the record cannot be written ({error}); {kept}") from error
    (job.aside.parent / "spent.json").unlink(missing_ok=True)
    return Recording(made, folder, current=False)


def _current(job: _Job) -> Record | None:
    with suppress(RecordError):
        former = recording.read(job.book, job.name)
        return None if former.stale(job.book, job.settings.data) else former
    return None


def _execute(job: _Job, timeout: float | None) -> int:
    """Peak memory. In a thread of its own, so that an interruption kills the kernel and its workers."""
    mark = execute.fingerprint(job.chapter, job.values, job.settings, [])
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        options: dict[str, Any] = {"fingerprint": mark, "settings": job.settings, "timeout": timeout, "stop": stop}
        future = pool.submit(execute.execute_aside, job.chapter, job.aside, values=job.values, **options)
        try:
            return future.result()[1]
        except ChapterError as error:
            first = str(error).partition("\n")[0]
            where = job.aside.relative_to(job.book.parent)
            raise ChapterError(f"{first} (what ran is in {where}; finished runs are in the store)") from error
        except BaseException:
            stop.set()
            raise


def _gather(job: _Job, code: str, spent: dict[str, Any]) -> Record:
    context = ("scale", "chapter", "provenance")
    verdicts = [
        {key: value for key, value in entry.items() if key not in context} for entry in ledger.of_notebook(job.aside)
    ]
    tables = list(records.of_notebook(job.aside))
    runs = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if not verdicts and runs.empty:
        raise ChapterError(f"{job.chapter.name}: there is nothing to record: it showed no verdict and kept no runs")
    names = sorted({*job.data, *(runs.dataset.unique() if "dataset" in runs else ())})
    now = definition.define(job.chapter, job.values, [v["id"] for v in verdicts], names, job.settings.data)
    kept = {"runs": len(runs), "diverged": 0, "unfinished": 0}
    if tables:
        diverged, finished = runs.diverged.astype(bool), runs.finished.astype(bool)
        kept |= {"diverged": int(diverged.sum()), "unfinished": int((~finished & ~diverged).sum())}
    about = {
        "format": recording.FORMAT,
        "chapter": job.chapter.name,
        "scale": job.values["scale"],
        "parameters": job.values,
        "given": job.given,
        "definition": replace(now, code=code).to_dict(),
        "data": {name: load(name, job.settings.data).name for name in names},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "kept": kept,
        "command": job.command,
        **spent,
    }
    return Record(job.name, verdicts, runs, json.loads(json.dumps(about)))


def machine(settings: Settings) -> dict[str, Any]:
    """What computes, in words and in parts: this machine, or the workers of a scheduler. No name or address of any."""
    device = settings.device
    if settings.scheduler is not None:
        names = Counter(schedulers.connect(settings.scheduler, device).run(device_name, device).values())
        words = " and ".join(f"{n} worker{'s' * (n > 1)} with {name}" for name, n in sorted(names.items()))
        return {"device": device, "workers": dict(names), "words": words}
    name, cores = device_name(device), os.cpu_count() or 1
    found: dict[str, Any] = {"device": device, "name": name, "cores": cores, "system": platform.system()}
    if device == "cpu":
        return found | {"words": f"{name}, {cores} cores"}
    found |= {"driver": _driver(device), "cuda": torch.version.cuda}
    return found | {"words": f"{name} (driver {found['driver'] or 'unknown'}, CUDA {found['cuda']})"}


def _driver(device: str) -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", device.partition(":")[2] or "0"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip() or None
    return None


def _commit(root: Path) -> dict[str, Any] | None:
    """As ``commit``, but a working tree in which only records are new is not a changed one."""
    found = commit(root)
    if found is None or not found["dirty"]:
        return found
    words = ["git", "status", "--porcelain", "--", ".", ":(exclude)book/records"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    return found | {"dirty": bool(done.stdout.strip()) or done.returncode != 0}


@contextmanager
def _alone(job: _Job) -> Iterator[None]:
    """Two recordings of one chapter would write the same notebook. A lock dies with its holder."""
    job.aside.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.aside.parent / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ChapterError(f"{job.name} is being recorded by another process; wait for it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _spent(job: _Job, code: str) -> Iterator[dict[str, Any]]:
    """Seconds, attempts and networks trained, added to those of earlier attempts at the same definition."""
    file, start = job.aside.parent / "spent.json", time.perf_counter()
    total = {"seconds": 0.0, "attempts": 0, "trained": 0}
    with suppress(OSError, ValueError):
        before = json.loads(file.read_text())
        total = before["spent"] if before["code"] == code else total
    progress = job.aside.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    try:
        yield total
    finally:
        total["seconds"] = round(total["seconds"] + time.perf_counter() - start, 1)
        total["attempts"] += 1
        total["trained"] += trained(progress)
        file.write_text(json.dumps({"code": code, "spent": total}))


def trained(progress: Path) -> int:
    """Networks that the sweeps of one execution trained, from its file of lines ``done total``."""
    count = last = 0
    with suppress(OSError):
        for line in progress.read_text().splitlines():
            if len(words := line.split()) == 2 and all(word.isdigit() for word in words):
                done = int(words[0])
                count += done - (last if done > last else 0)
                last = done
    return count
