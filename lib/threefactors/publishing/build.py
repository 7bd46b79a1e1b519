"""The whole way: execute what is not up to date, two chapters at a time, then the summaries, then the site.

Alone, a chapter leaves cores idle: while its kernel starts and imports, while it draws figures, while the
last stacks of a sweep end. So two run side by side, each with half of the processes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from threefactors.experiments import schedulers
from threefactors.publishing import browser, chapters, execute, site
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.publishing.execute import Execution
from threefactors.settings import Settings, require_writable

SIDE_BY_SIDE = 2  # chapters at a time, if there are as many processes; each may take gigabytes of memory
SHORT_BELOW = 20  # chapters before it take the less time: begun last, they let both sides end together


@dataclass
class Report:
    """What a build did: ``executions`` that were published, ``failures`` by message, both in the order of the
    chapters; the ``page`` to open (None when the site was not rebuilt) and ``why_no_site`` in that case; wall
    time ``seconds`` of the whole, in which so many chapters ran ``side_by_side``."""

    executions: list[Execution] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    page: Path | None = None
    why_no_site: str = ""
    seconds: float = 0.0
    side_by_side: int = 1


def build(
    root: Path,
    *,
    scale: str,
    settings: Settings,
    only: Iterable[str] = (),
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    force: bool = False,
    pdf: bool = False,
) -> Report:
    """Execute chapters and build the site; chapters that fail do not keep the others from running.

    With ``settings.jobs`` of 2 or more, two chapters run side by side and share the processes; with 0 or 1,
    one after the other; with a scheduler, whose workers compute for both, always two. On KeyboardInterrupt
    the kernels are killed, and what was published stays.

    ``scale`` smoke, laptop or paper; ``only`` the numbers or names of the chapters to execute (default:
    all), ``parameters`` values by name for those that declare them, ``timeout`` seconds per chapter, ``pdf``
    whether the site gets the whole book as a PDF, which a browser prints.
    The site shows one scale: it is built only if every chapter is up to date under these settings.
    Raises ChapterError, SettingsError, SiteError or BrowserError before any work for what cannot work, and
    SiteError when jupyter-book fails.
    """
    given = dict(parameters or {})
    found = chapters.find(root)
    selected = chapters.select(found, only)
    chapters.require_declared(selected, given)
    values = {chapter: chapter.settle(scale, given) for chapter in found}
    site.require_toc(root)
    require_writable(settings.store)
    if pdf:
        browser.require()
    with schedulers.serve(settings) as settings, _alone(root):
        start = time.perf_counter()
        report = _build(root, found, selected, values, scale, settings, timeout, force, pdf)
        report.seconds = time.perf_counter() - start
        return report


def _build(
    root: Path,
    found: list[Chapter],
    selected: list[Chapter],
    values: dict[Chapter, dict[str, Any]],
    scale: str,
    settings: Settings,
    timeout: float | None,
    force: bool,
    pdf: bool,
) -> Report:
    report = Report()

    def attempt(chapter: Chapter, own: Settings, **options: Any) -> Execution | ChapterError:
        again = force and chapter in selected
        try:
            mark = execute.fingerprint(chapter, values[chapter], own, found[: found.index(chapter)])
            options |= {"values": values[chapter], "fingerprint": mark, "settings": own}
            return execute.execute(chapter, timeout=timeout, force=again, **options)
        except ChapterError as error:
            return error

    def note(outcome: Execution | ChapterError) -> None:
        if isinstance(outcome, ChapterError):
            report.failures.append(str(outcome))
        else:
            report.executions.append(outcome)

    bases, summaries = ([chapter for chapter in found if chapter.summary is kind] for kind in (False, True))
    marks = {chapter: execute.fingerprint(chapter, values[chapter], settings, []) for chapter in bases}
    stale = [chapter for chapter in bases if not execute.is_current(chapter, marks[chapter])]
    wanted = [chapter for chapter in bases if chapter in selected]
    due = sum(force or chapter in stale for chapter in wanted)
    kernels = settings.jobs if settings.scheduler is None else SIDE_BY_SIDE
    report.side_by_side = max(1, min(SIDE_BY_SIDE, kernels, due))
    for outcome in _side_by_side(attempt, wanted, settings, report.side_by_side):
        note(outcome)
    missing = [chapter.name for chapter in stale if chapter not in selected]  # these are only looked at
    if report.failures:
        report.why_no_site = "a chapter failed"
    elif missing:
        names = ", ".join(missing)
        report.why_no_site = f"{names} not executed with these settings; leave out --only to execute all"
        asked = [chapter.name for chapter in summaries if chapter in selected]
        report.failures += [f"{name}: reads the other chapters; {report.why_no_site}" for name in asked]
    else:
        for outcome in _side_by_side(attempt, summaries, settings, 1):  # asked for or not: they follow the others
            note(outcome)
        if report.failures:
            report.why_no_site = "a chapter failed"
        else:
            report.page = site.build(root, report.executions, scale=scale, device=settings.device, pdf=pdf)
    return report


def _side_by_side(
    attempt: Callable[..., Execution | ChapterError], wanted: list[Chapter], settings: Settings, count: int
) -> list[Execution | ChapterError]:
    """``attempt`` on each chapter, ``count`` at a time; the outcomes in the order of ``wanted``.

    Whatever ends the waiting, an interruption or an error that is not a chapter's, ends the chapters too.
    """
    options: dict[str, Any] = {"stop": threading.Event()}
    if count > 1 and settings.scheduler is None:
        options["threads"] = settings.jobs // count
        share = -(-settings.jobs // count)
        settings = replace(settings, jobs=share if share > 1 else 0)  # one process is the kernel itself
    elif count > 1:
        options["threads"] = max(1, (os.cpu_count() or 1) // count)  # for what is no sweep
    with ThreadPoolExecutor(count) as pool:
        started = sorted(wanted, key=lambda chapter: chapter.number < SHORT_BELOW)
        futures = {chapter: pool.submit(attempt, chapter, settings, **options) for chapter in started}
        try:
            for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            options["stop"].set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [futures[chapter].result() for chapter in wanted]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the working tree: two builds in it would write the same notebooks. A lock dies with its holder."""
    (root / "_build").mkdir(exist_ok=True)
    lock = FileLock(root / "_build" / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another build is at work here; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
