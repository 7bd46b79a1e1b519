"""Executes chapters: written aside, passed through the gate, then put beside its source.

``book/NN_title.ipynb`` therefore is always a whole notebook. When a chapter fails, the notebook that
an earlier build left there is taken away: it shows what its source no longer does, and jupyter-book
would present it as current. The broken one stays in ``_build/executing`` to be looked at. Results
that were computed are in the store, so the next build does not pay for them again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from threefactors.experiments.provenance import commit, device_name, versions
from threefactors.publishing import chapters, gate, measured, recording
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.publishing.watch import Watch
from threefactors.settings import Settings

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Execution:
    """A published notebook: ``path``, wall time ``seconds``, ``peak_memory`` in bytes; ``cached`` if it
    was up to date and nothing was executed; ``incidents``: what befell its sweeps, such as stacks that memory split."""

    chapter: Chapter
    path: Path
    seconds: float
    peak_memory: int
    cached: bool
    incidents: tuple[str, ...] = ()


def is_current(chapter: Chapter, fingerprint: str) -> bool:
    """Whether the published notebook carries this fingerprint and passes the gate."""
    return not gate.check(chapter.published, fingerprint=fingerprint, source=chapter.source)


def fingerprint(chapter: Chapter, values: Mapping[str, Any], settings: Settings, others: Iterable[Chapter]) -> str:
    """Fingerprint of a chapter and of its records; a summary's is made of all records, those of speed included, and of
    the notebooks of ``others``, those before it."""
    return chapter.fingerprint(values, settings, inputs(chapter, others))


def inputs(chapter: Chapter, others: Iterable[Chapter]) -> list[str]:
    """Digests of what a chapter reads beside its source: records, and for a summary the notebooks of ``others``.

    ChapterError for a summary when one of them is missing, or a notebook lies there whose chapter is gone.
    """
    book = chapter.source.parent
    read = [other for other in others if chapter.summary]
    if lacking := [other.name for other in read if not other.published.is_file()]:
        raise ChapterError(f"{chapter.name}: reads the other chapters, and {', '.join(lacking)} failed")
    if chapter.summary and (left := orphans(book)):
        raise ChapterError(f"{chapter.name}: reads the notebooks in book, and {left[0].name} has no source; delete it")
    found = [hashlib.sha256(other.published.read_bytes()).hexdigest() for other in read]
    found += recording.digests(book, None if chapter.summary else chapter.name)
    return found + (measured.digests(book) if chapter.summary else [])


def inputs_sha256(chapter: Chapter, others: Iterable[Chapter]) -> str:
    """``inputs`` in one."""
    return hashlib.sha256("\n".join(sorted(inputs(chapter, others))).encode()).hexdigest()


def orphans(book: Path) -> list[Path]:
    """Notebooks of chapters that are no longer there: git ignores them, so a change of branch leaves them behind."""
    return [path for path in sorted(book.glob("[0-9][0-9]_*.ipynb")) if not path.with_suffix(".py").is_file()]


def execute(
    chapter: Chapter,
    *,
    values: Mapping[str, Any],
    fingerprint: str,
    settings: Settings,
    timeout: float | None = None,
    force: bool = False,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> Execution:
    """Execute one chapter and publish it as ``book/NN_title.ipynb``, unless that is up to date.

    ``values`` of all its parameters (`Chapter.settle`), ``fingerprint`` to publish it under, ``timeout``
    in seconds for the whole chapter (None: no limit), ``force`` to execute it in any case, ``threads``
    of the kernel's libraries (None: theirs to choose). Raises ChapterError, which names the chapter, the
    cell and the error, when a cell raises or calls sys.exit, when the kernel dies or time runs out, and
    when the gate finds the notebook unfit. Setting ``stop`` from another thread ends it with
    CancelledError, and what was published before stays.
    """
    if not force and is_current(chapter, fingerprint):
        own = nbformat.read(chapter.published, as_version=4).metadata["threefactors"]
        told = tuple(own.get("incidents", ()))
        return Execution(chapter, chapter.published, own["seconds"], own["peak_memory"], cached=True, incidents=told)
    aside = chapter.source.parents[1] / "_build" / "executing" / chapter.published.name
    options: dict[str, Any] = {"values": values, "fingerprint": fingerprint, "settings": settings, "timeout": timeout}
    try:
        seconds, peak_memory = execute_aside(chapter, aside, threads=threads, stop=stop, **options)
    except ChapterError:
        chapter.published.unlink(missing_ok=True)
        raise
    os.replace(aside, chapter.published)
    told = tuple(_lines(aside.with_suffix(".incidents")))
    return Execution(chapter, chapter.published, seconds, peak_memory, cached=False, incidents=told)


def execute_aside(
    chapter: Chapter,
    aside: Path,
    *,
    values: Mapping[str, Any],
    fingerprint: str,
    settings: Settings,
    timeout: float | None = None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> tuple[float, int]:
    """Execute one chapter into the notebook ``aside``, sign it and pass it through the gate; seconds, peak memory.

    Arguments and errors as for ``execute``; nothing is published and nothing taken away.
    """
    root = chapter.source.parents[1]
    aside.parent.mkdir(parents=True, exist_ok=True)
    progress = aside.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    incidents = progress.with_suffix(".incidents")
    incidents.unlink(missing_ok=True)
    origin = _origin(chapter, settings)
    notebook = chapter.notebook(values)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    environment = {**settings.environment(), "THREEFACTORS_PROGRESS": str(progress)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    try:
        with Watch(chapter.name, len(notebook.cells), progress, stop or threading.Event()) as watch:
            _run(chapter, notebook, aside, environment, timeout, watch)
        notebook = nbformat.read(aside, as_version=4)
        notebook.metadata["papermill"] |= {"input_path": chapter.source.name, "output_path": aside.name}
        notebook.metadata["threefactors"] = {
            "fingerprint": fingerprint,
            "parameters": dict(values),
            "scale": values["scale"],
            "device": settings.device,
            **origin,
            "seconds": round(watch.seconds, 2),
            "peak_memory": watch.peak_memory,
            "incidents": _lines(incidents),
            "versions": versions(),
            "commit": commit(root),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        gate.sign(notebook)
        nbformat.write(notebook, aside)
        if problems := gate.check(aside, fingerprint=fingerprint):
            raise ChapterError(f"{chapter.name}: " + f"\n{chapter.name}: ".join(map(str, problems)))
    except ChapterError as error:
        raise ChapterError(f"{error}\n  what ran is in {aside.relative_to(root)}") from error.__cause__
    return watch.seconds, watch.peak_memory


def _origin(chapter: Chapter, settings: Settings) -> dict[str, Any]:
    """From what a notebook is about to be made: taken beforehand, since an execution is time enough to edit it."""
    before = [other for other in chapters.find(chapter.source.parents[1]) if other.name < chapter.name]
    # where workers compute, this machine's processor is not the one that counts
    machine = "dask workers" if settings.scheduler else device_name(settings.device)
    return {
        "machine": machine,
        "source": chapters.source_sha256(chapter.source),
        "library": chapters.library_sha256(),
        "data": chapters.data_sha256(settings.data),
        "inputs": inputs_sha256(chapter, before),
    }


def _lines(file: Path) -> list[str]:
    """What sweeps of the chapter wrote there, if they did."""
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _run(
    chapter: Chapter,
    notebook: NotebookNode,
    aside: Path,
    environment: dict[str, str],
    timeout: float | None,
    watch: Watch,
    starts: int = 3,
) -> None:
    import papermill  # a second to import: not for `threefactors claims`

    deadline = None if timeout is None else time.monotonic() + timeout
    options: dict[str, Any] = {  # traits of the nbclient under papermill
        "kernel_manager_class": _kernel_with(environment, watch.follow),
        "resources": {"metadata": {"path": str(chapter.source.parent)}},
        "on_cell_start": watch.cell_starts,
        "on_cell_executed": watch.cell_ended,
        "timeout_func": lambda _: None if deadline is None else max(0.1, deadline - time.monotonic()),
        "shutdown_kernel": "immediate",
    }
    where = f"{chapter.name}: cell {{}}"
    try:
        done = papermill.execute_notebook(notebook, aside, kernel_name="python3", progress_bar=False, **options)
    except papermill.PapermillExecutionError as error:
        lines = [_ANSI.sub("", line).rstrip() for line in "\n".join(error.traceback).splitlines()]
        detail = "".join(f"\n    {line}" for line in lines if line)
        raise ChapterError(
            f"{where.format(error.cell_index + 1)} raised {error.ename}: {error.evalue}{detail}"
        ) from error
    except CellTimeoutError as error:
        raise ChapterError(
            f"{where.format(watch.cell)} was at work when the {timeout:g} s of --timeout ran out; "
            "give more, or build again: finished runs are in the store"
        ) from error
    except (DeadKernelError, RuntimeError) as error:
        if watch.stop.is_set():
            raise CancelledError(f"{chapter.name} was stopped") from error
        if watch.cell is None:
            if starts > 1:  # kernels that start at once can be given the same port, and one of them dies of it
                _run(chapter, notebook, aside, environment, timeout, watch, starts - 1)
                return
            raise ChapterError(f"{chapter.name}: no kernel could be started ({error})") from error
        raise ChapterError(
            f"{where.format(watch.cell)}: its process died ({error}); killed, or out of memory?"
        ) from error
    names = [output.get("ename") for output in done.cells[(watch.cell or 1) - 1].get("outputs", [])]
    if "SystemExit" in names:  # a success in papermill's eyes
        raise ChapterError(f"{where.format(watch.cell)} called sys.exit; a chapter runs to its end")


def _kernel_with(environment: dict[str, str], started: Callable[[int], None]) -> type[AsyncKernelManager]:
    """Kernel manager class that starts *this* interpreter, whatever kernels the machine has installed, and
    tells ``started`` its process."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=command, env=environment, display_name="Python 3", language="python")

        def client(self, **options: Any) -> Any:  # asked for as soon as the process is there
            process: Any = self.provisioner
            started(process.pid)
            return super().client(**options)

    return OwnKernel
