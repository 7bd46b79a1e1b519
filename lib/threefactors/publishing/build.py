"""The whole way: execute what is not up to date, then the summaries, then the site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from threefactors.publishing import chapters, execute, site
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.publishing.execute import Execution
from threefactors.settings import Settings, require_writable


@dataclass
class Report:
    """What a build did: ``executions`` that were published, ``failures`` by message, the ``page`` to open
    (None when the site was not rebuilt) and ``why_no_site`` in that case."""

    executions: list[Execution] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    page: Path | None = None
    why_no_site: str = ""


def build(
    root: Path,
    *,
    scale: str,
    settings: Settings,
    only: Iterable[str] = (),
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    force: bool = False,
) -> Report:
    """Execute chapters and build the site; chapters that fail do not keep the others from running.

    ``scale`` smoke, laptop or paper; ``only`` the numbers or names of the chapters to execute (default:
    all), ``parameters`` values by name for those that declare them, ``timeout`` seconds per chapter.
    The site shows one scale: it is built only if every chapter is up to date under these settings.
    Raises ChapterError, SettingsError or SiteError before any work for what cannot work, and SiteError
    when jupyter-book fails.
    """
    given = dict(parameters or {})
    found = chapters.find(root)
    selected = chapters.select(found, only)
    chapters.require_declared(selected, given)
    values = {chapter: chapter.settle(scale, given) for chapter in found}
    site.require_toc(root)
    require_writable(settings.store)
    with _alone(root):
        return _build(root, found, selected, values, scale, settings, timeout, force)


def _build(
    root: Path,
    found: list[Chapter],
    selected: list[Chapter],
    values: dict[Chapter, dict[str, Any]],
    scale: str,
    settings: Settings,
    timeout: float | None,
    force: bool,
) -> Report:
    report = Report()
    bases = [chapter for chapter in found if not chapter.summary]

    def attempt(chapter: Chapter) -> None:
        mark = execute.fingerprint(chapter, values[chapter], settings, found[: found.index(chapter)])
        # a chapter not asked for is only looked at, except for summaries: they must follow the others
        wanted = chapter in selected or chapter.summary
        if not wanted and not execute.is_current(chapter, mark):
            missing.append(chapter.name)
            return
        again = force and chapter in selected
        try:
            done = execute.execute(
                chapter,
                values=values[chapter],
                fingerprint=mark,
                settings=settings,
                timeout=timeout,
                force=again,
            )
            report.executions.append(done)
        except ChapterError as error:
            report.failures.append(str(error))

    missing: list[str] = []
    for chapter in bases:
        attempt(chapter)
    if report.failures:
        report.why_no_site = "a chapter failed"
    elif missing:
        names = ", ".join(missing)
        report.why_no_site = f"{names} not executed with these settings; leave out --only to execute all"
        summaries = [chapter.name for chapter in selected if chapter.summary]
        report.failures += [f"{name}: reads the other chapters; {report.why_no_site}" for name in summaries]
    else:
        for chapter in found:
            if chapter.summary:
                attempt(chapter)
        if report.failures:
            report.why_no_site = "a chapter failed"
        else:
            report.page = site.build(root, report.executions, scale=scale, device=settings.device)
    return report


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
