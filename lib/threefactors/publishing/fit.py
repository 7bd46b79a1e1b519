"""Are all notebooks together fit to be one site? `gate` asks each by itself, this asks for what no single one shows.

`threefactors book` makes them so. The site is also refused when jupyter-book is called by hand: the Sphinx extension
asks here before it reads a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threefactors.publishing import execute, gate, ledger
from threefactors.publishing.chapters import Chapter, ChapterError

ALIKE = {"scale": "scale", "device": "device", "versions": "versions of Python and packages", "data": "data folder"}
REMEDY = "`threefactors book` executes what is not up to date, and builds the site"


def problems(root: Path) -> list[str]:
    """All reasons not to make a site of the notebooks in ``root/book``; an empty list lets it be made.

    Each chapter must have been executed, pass the gate, and be what its present source, library, records and (for a
    summary) notebooks before it make; all under one scale, device, data folder and set of versions; no notebook
    without a chapter, no page in two forms, no claim judged twice.
    """
    book = root / "book"
    found = sorted((Chapter(path) for path in book.glob("[0-9][0-9]_*.py")), key=lambda chapter: chapter.name)
    own = [problem for i, chapter in enumerate(found) for problem in _of_chapter(chapter, found[:i])]
    together = [*_strangers(book, found), *_mixed(found)]
    try:
        ledger.collect(book)
    except ledger.LedgerError as error:
        together.append(str(error))
    except (ValueError, AttributeError, KeyError):
        pass  # no notebook at all: `own` names it
    return own + together


def _of_chapter(chapter: Chapter, before: list[Chapter]) -> Iterator[str]:
    inputs = None
    try:
        inputs = execute.inputs_sha256(chapter, before)
    except ChapterError as error:
        yield str(error)
    for problem in gate.check(chapter.published, source=chapter.source, inputs=inputs):
        yield f"{chapter.name}: {problem}"


def _strangers(book: Path, found: list[Chapter]) -> Iterator[str]:
    published = {chapter.published for chapter in found}
    for path in sorted(book.glob("*.ipynb")):
        if path not in published:
            yield f"{path.name}: no chapter {path.stem}.py stands behind it; delete it"
        if path.with_suffix(".md").is_file():
            yield f"{path.stem}.md and {path.name} would be the same page; rename one"


def _mixed(found: list[Chapter]) -> Iterator[str]:
    signed = {chapter.name: metadata(chapter.published) for chapter in found}
    for key, name in ALIKE.items():
        values: dict[str, list[str]] = {}
        for chapter, own in signed.items():
            if own:
                values.setdefault(repr(own.get(key)), []).append(chapter)
        if len(values) > 1:
            said = "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())
            yield f"the notebooks differ in their {name}: {said}"


def metadata(published: Path) -> dict[str, Any]:
    """What a notebook's execution wrote down about itself; nothing for one that is missing or unreadable."""
    try:
        return dict(json.loads(published.read_text(encoding="utf-8"))["metadata"]["threefactors"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}
