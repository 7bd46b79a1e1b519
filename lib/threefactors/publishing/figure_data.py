"""The data of every figure as CSV beside the page: what a reader downloads, and what two builds are compared by.

A figure brings its table along in its notebook (`threefactors.presentation.drawn`); here the tables become files.
Equal data are equal bytes: six significant digits, and columns in one order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat import NotebookNode

from threefactors.presentation.drawn import DIGITS, FIGURE_MIME
from threefactors.publishing.chapters import ChapterError

KEY = ["frame", "panel", "series", "mark"]  # what tells one series from another


def of_notebook(notebook: NotebookNode | Path) -> dict[str, pd.DataFrame]:
    """The tables of a notebook's figures by name, in order, with what their axes say as the last columns.

    A name is that of the cell's figure (``mystnb.figure.name``), or the figure's own, or ``NN-title-cell-K``. Errors:
    ChapterError for two figures of one name.
    """
    tables: dict[str, pd.DataFrame] = {}
    for _, name, data in figures(notebook):
        if name in tables:
            raise ChapterError(f"two figures are named {name}; give each cell a name of its own, mystnb.figure.name")
        tables[name] = table(data)
    return tables


def figures(notebook: NotebookNode | Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number of the cell (from 0), name and data of each figure that an executed notebook shows."""
    stem = notebook.stem if isinstance(notebook, Path) else ""
    cells = (nbformat.read(notebook, as_version=4) if isinstance(notebook, Path) else notebook).cells
    for number, cell in enumerate(cells):
        found = [data for output in cell.get("outputs", []) if (data := output.get("data", {}).get(FIGURE_MIME))]
        for k, data in enumerate(found, start=1):
            own = re.fullmatch(r"(\d\d-.+)-\d+", cell.get("id", ""))  # as `Chapter.notebook` gives it
            title = stem or (own[1] if own else "notebook")
            named = cell.metadata.get("mystnb", {}).get("figure", {}).get("name") or data.get("name")
            name = re.sub(r"[^\w.-]+", "-", named or f"{title}-cell-{number + 1}".replace("_", "-"))
            yield number, name if k == 1 else f"{name}-{k}", data


def table(data: dict[str, Any]) -> pd.DataFrame:
    """The table in a notebook's output, with ``x_label``, ``y_label`` and ``value_label`` of each panel."""
    found = pd.DataFrame(data["data"], columns=data["columns"])
    panels = found["panel"] if "panel" in found else pd.Series("", found.index)
    for axis in ("x", "y", "value"):
        texts = panels.map({panel: labels.get(axis, "") for panel, labels in data["labels"].items()})
        if texts.fillna("").any():
            found[f"{axis}_label"] = texts
    return found


def write(book: Path, folder: Path) -> None:
    """Write ``folder/NAME.csv`` for every figure of the executed notebooks in ``book``.

    Errors: ChapterError for two figures of one name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home: dict[str, str] = {}
    for path in sorted(book.glob("[0-9][0-9]_*.ipynb")):
        for name, data in of_notebook(path).items():
            if name in home:
                raise ChapterError(f"{home[name]} and {path.stem} both name a figure {name}; rename one of them")
            home[name] = path.stem
            (folder / f"{name}.csv").write_bytes(as_csv(data))


def as_csv(data: pd.DataFrame) -> bytes:
    """A table of `of_notebook` as CSV that ``pandas.read_csv`` reads without further words."""
    return data.map(_text).to_csv(index=False, lineterminator="\n").encode()


def read(data: bytes) -> pd.DataFrame:
    """The CSV of a figure as text, with all columns of KEY. ValueError for what is no such table."""
    found = pd.read_csv(BytesIO(data), dtype=str, keep_default_na=False)
    if "mark" not in found:
        raise ValueError("it has no column mark")
    return found.assign(**{column: "" for column in KEY if column not in found})


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.{DIGITS}g}"
