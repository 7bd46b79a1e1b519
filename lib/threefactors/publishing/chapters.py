"""Chapters as they are written: ``book/NN_title.py``, their parameters and their fingerprint.

A fingerprint is everything that may change what a chapter says: its source, its parameters, the
device and data, the library's source, the versions of Python and torch. Same fingerprint, same
notebook: nothing to execute.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from threefactors.experiments.provenance import LIBRARY, versions
from threefactors.settings import Settings

SCALES = ("smoke", "laptop", "paper")
SUMMARIES_FROM = 80  # chapters from this number on read the executed notebooks of all that come before them


class ChapterError(Exception):
    """A chapter that cannot be found, set up or executed; the message names it and the remedy."""


@dataclass(frozen=True)
class Chapter:
    """One source chapter ``book/NN_title.py`` (Jupytext percent format)."""

    source: Path

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def number(self) -> int:
        return int(self.name[:2])

    @property
    def summary(self) -> bool:
        """Whether it reads the other chapters' notebooks, and so is executed after them."""
        return self.number >= SUMMARIES_FROM

    @property
    def published(self) -> Path:
        """The executed notebook beside the source."""
        return self.source.with_suffix(".ipynb")

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Names and default values in the cell tagged ``parameters``."""
        try:
            return literals(self._parameters_cell()["source"])
        except (ValueError, SyntaxError) as error:
            raise ChapterError(f"{self.name}: its parameters cell is not made of literals ({error})") from None

    def _read(self) -> NotebookNode:
        try:
            import jupytext  # here, not above: a chapter opened on Colab, which lacks it, reads records
        except ModuleNotFoundError as error:
            raise ChapterError(f"{self.name}.py cannot be read without jupytext; pip install jupytext") from error
        return jupytext.read(self.source, fmt="py:percent")

    def _parameters_cell(self) -> NotebookNode:
        notebook = self._read()
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise ChapterError(
                f"{self.name}: {len(tagged)} cells are tagged parameters; tag exactly one, "
                '`# %% tags=["parameters"]`, with scale = "laptop" in it'
            )
        return tagged[0]

    def settle(self, scale: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameter values of this chapter: its defaults, the scale, and those given by name.

        Names that it does not declare are left out (another chapter may). ChapterError for a value of
        another type than the default's.
        """
        if "scale" not in self.parameters:
            raise ChapterError(f'{self.name}: declares no scale; add scale = "laptop" to its parameters')
        values = {**self.parameters, "scale": scale}
        for name in given.keys() & values.keys():
            values[name] = _like(given[name], self.parameters[name], f"{self.name}: {name}")
        return values

    def notebook(self, values: Mapping[str, Any]) -> NotebookNode:
        """The unexecuted notebook, the values written into its parameters cell."""
        notebook = self._read()
        for index, cell in enumerate(notebook.cells):
            cell["id"] = f"{self.name.replace('_', '-')}-{index}"  # jupytext draws them at random
            if "parameters" in cell.metadata.get("tags", []):
                cell["source"] = _rewrite(cell["source"], values)
        return notebook

    def fingerprint(self, values: Mapping[str, Any], settings: Settings, inputs: Iterable[str] = ()) -> str:
        """sha256 of all that may change the executed chapter; ``inputs`` are other chapters' fingerprints."""
        parts = {
            "source": source_sha256(self.source),
            "parameters": dict(values),
            "device": settings.device,
            "data": data_sha256(settings.data),
            "library": library_sha256(),
            "python": versions()["python"],
            "torch": versions()["torch"],
            "inputs": sorted(inputs),
        }
        return _sha256(json.dumps(parts, sort_keys=True, default=repr).encode())


def find(root: Path) -> list[Chapter]:
    """All chapters under ``root/book`` in order, the summaries last. ChapterError if there is none."""
    found = sorted((root / "book").glob("[0-9][0-9]_*.py"))
    if not found:
        raise ChapterError(f"{root / 'book'} holds no chapter NN_title.py; name the repository with --root")
    return [Chapter(path) for path in found]


def select(chapters: list[Chapter], wanted: Iterable[str]) -> list[Chapter]:
    """The chapters named by number or by name, ``20`` or ``20_width``; all of them if none is named."""
    wanted = list(wanted)
    for word in wanted:
        if not any(word in (c.name, c.name[:2]) for c in chapters):
            known = ", ".join(c.name for c in chapters)
            raise ChapterError(f"there is no chapter {word!r}; the chapters are {known}")
    return [c for c in chapters if not wanted or {c.name, c.name[:2]} & set(wanted)]


def require_declared(chapters: list[Chapter], given: Mapping[str, Any]) -> None:
    """ChapterError when no chapter declares one of the given parameters (papermill would only warn)."""
    declared = {name for chapter in chapters for name in chapter.parameters} - {"scale"}
    for name in given:
        if name == "scale":
            raise ChapterError("scale has an option of its own; use --scale")
        if name not in declared:
            names = ", ".join(sorted(declared)) or "none besides scale"
            raise ChapterError(f"no chapter to execute declares a parameter {name!r}; declared: {names}")


def source_sha256(source: Path) -> str:
    """sha256 of a chapter's file."""
    return _sha256(source.read_bytes())


def library_sha256() -> str:
    """sha256 over the library's own source files."""
    files = sorted(p for p in LIBRARY.rglob("*") if p.suffix in {".py", ".c", ".mplstyle"})
    return _sha256("".join(f"{p.relative_to(LIBRARY)} {_sha256(p.read_bytes())}\n" for p in files).encode())


def literals(source: str) -> dict[str, Any]:
    """Names assigned to literals in the source of a parameters cell, with their values.

    >>> literals('scale = "laptop"  # smoke | laptop | paper')
    {'scale': 'laptop'}
    """
    return {name: ast.literal_eval(value) for name, value in _assignments(source)}


def _assignments(source: str) -> list[tuple[str, ast.expr]]:
    statements = ast.parse(source).body
    plain = [s for s in statements if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)]
    return [(s.targets[0].id, s.value) for s in plain if isinstance(s.targets[0], ast.Name)]


def _rewrite(source: str, values: Mapping[str, Any]) -> str:
    # last first, so that the columns of those before stay true; ast counts columns in UTF-8 bytes
    lines = [line.encode() for line in source.split("\n")]
    for name, node in reversed(_assignments(source)):
        if name in values and ast.literal_eval(node) != values[name]:
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            text = json.dumps(values[name]) if isinstance(values[name], str) else repr(values[name])
            joined = lines[first][: node.col_offset] + text.encode() + lines[last][node.end_col_offset :]
            lines[first : last + 1] = [joined]
    return b"\n".join(lines).decode()


def _like(value: Any, default: Any, what: str) -> Any:
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, str) and not isinstance(value, str):
        return str(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise ChapterError(f"{what}={value!r} is not of type {kind}; its default is {default!r}")
    return value


def data_sha256(folder: Path | None) -> str | None:
    """sha256 over the names, sizes and times of a data folder's files; None without a folder."""
    # these stand for the contents: hashing gigabytes at each build would not be paid back
    if folder is None:
        return None
    depths = ("*", "*/*", "*/*/*")
    files = sorted(p for depth in depths for p in folder.glob(depth) if p.is_file())
    lines = (f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}\n" for p in files)
    return _sha256("".join(lines).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
