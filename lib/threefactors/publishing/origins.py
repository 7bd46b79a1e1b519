"""What a page says about where its results come from, read from the executed notebook itself."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from threefactors.publishing import figure_data, ledger
from threefactors.publishing.chapters import Chapter
from threefactors.publishing.recorded import duration
from threefactors.publishing.records import RUNS_MIME


@dataclass(frozen=True)
class Origin:
    """One executed chapter: ``own`` is what its execution wrote down, ``repetitions`` "8 seeds", ``claims`` the cell in
    which each claim's verdict is first shown, ``data`` by cell the names of its figures' tables, ``figures`` the names
    of its figures, ``verdicts`` how many of each kind, ``title`` the page's."""

    chapter: Chapter
    own: dict[str, Any]
    repetitions: str = ""
    claims: dict[str, int] = field(default_factory=dict)
    data: dict[int, list[str]] = field(default_factory=dict)
    figures: frozenset[str] = frozenset()
    verdicts: Counter[str] = field(default_factory=Counter)
    title: str = ""

    @property
    def commit(self) -> str:
        """``a754b8c``, and whether the working tree held more than that; nothing without git."""
        commit = self.own.get("commit")
        return f"{commit['id'][:7]}{' with changes' * commit['dirty']}" if commit else ""

    @property
    def machine(self) -> str:
        return str(self.own.get("machine") or self.own.get("device") or "")

    @property
    def took(self) -> str:
        return duration(self.own["seconds"]) if "seconds" in self.own else ""

    @property
    def memory(self) -> str:
        return gibibytes(self.own["peak_memory"]) if self.own.get("peak_memory") else ""

    @property
    def date(self) -> str:
        return str(self.own.get("date", ""))[:10]

    @property
    def command(self) -> str:
        """The one command that makes it again. A summary is made with all that it reads."""
        words = ["threefactors book"]
        words += [] if self.chapter.summary else [f"--only {self.chapter.name[:2]}"]
        scale, device = self.own.get("scale", "laptop"), self.own.get("device", "cpu")
        words += [f"--scale {scale}"] * (scale != "laptop") + [f"--device {device}"] * (device != "cpu")
        words += ["--data DIR"] if self.own.get("data") else []
        given, default = self.own.get("parameters", {}), self.chapter.parameters
        changed = {k: v for k, v in given.items() if k != "scale" and v != default.get(k)}
        return " ".join(words + [f"-p {name}={value}" for name, value in changed.items()])


def read(published: Path) -> Origin:
    """What an executed notebook tells of itself; the chapter's source stands beside it."""
    notebook = nbformat.read(published, as_version=4)
    claims: dict[str, int] = {}
    verdicts: Counter[str] = Counter()
    for index, cell in enumerate(notebook.cells):
        for verdict in ledger.shown(cell):
            claims.setdefault(verdict["id"], index)
            verdicts[verdict["verdict"]] += 1
    return Origin(
        Chapter(published.with_suffix(".py")),
        dict(notebook.metadata.get("threefactors", {})),
        repetitions(notebook),
        {claim: claims[claim] for claim in sorted(claims, key=ledger.natural)},
        _tables(published),
        frozenset(filter(None, map(_figure, notebook.cells))),
        verdicts,
        _title(notebook) or published.stem,
    )


def repetitions(notebook: NotebookNode) -> str:
    """The seeds of the runs that a notebook keeps, else the independent repetitions behind its verdicts, in words."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    kept = [data[RUNS_MIME] for data in outputs if RUNS_MIME in data]
    if seeds := {row[table["columns"].index("seed")] for table in kept for row in table["data"]}:
        return _counted(len(seeds), "seed")
    counts = sorted({verdict["n"] for cell in notebook.cells for verdict in ledger.shown(cell) if verdict.get("n")})
    if len(counts) < 2:
        return _counted(counts[0], "repetition") if counts else ""
    return f"{counts[0]}–{counts[-1]} repetitions"


def gibibytes(size: float) -> str:
    """
    >>> gibibytes(1.5 * 2**30), gibibytes(250e6)
    ('1.5 GiB', '0.2 GiB')
    """
    return f"{size / 2**30:.1f} GiB"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _title(notebook: NotebookNode) -> str:
    texts = (cell["source"] for cell in notebook.cells if cell.cell_type == "markdown")
    return next((found[1].strip() for text in texts if (found := re.search(r"^# (.+)$", text, re.MULTILINE))), "")


def _figure(cell: NotebookNode) -> str | None:
    return cell.metadata.get("mystnb", {}).get("figure", {}).get("name")


def _tables(published: Path) -> dict[int, list[str]]:
    """By cell, the names under which the tables of its figures are published, in the order in which it shows them."""
    found: dict[int, list[str]] = {}
    for index, name, _ in figure_data.figures(published):
        found.setdefault(index, []).append(name)
    return found
