"""Runs that a chapter keeps in its executed notebook, for the chapter that looks at all of them together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

RUNS_MIME = "application/vnd.threefactors.runs+json"
SETTINGS = (
    "protocol", "arm", "dataset", "hidden", "batch_norm", "loss", "label_noise", "momentum", "label_flips", "lr",
    "batch_size", "ratio", "seed", "noise_dial", "epochs", "clock", "finished", "diverged",
)  # fmt: skip
MEASURES = (
    "train_loss", "validation_accuracy", "sharpness", "trace", "frobenius", "adaptive_sharpness", "noise_trace"
)  # fmt: skip
REQUIRED = ("protocol", "arm", "lr", "batch_size", "seed", "finished", "diverged")
DIGITS = 6  # significant digits that are kept: more than any interval needs, and a third of the space


@dataclass(frozen=True)
class Kept:
    """What a cell shows in order to keep a table of runs."""

    table: pd.DataFrame

    def __str__(self) -> str:
        return f"{len(self.table)} runs kept"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        data = self.table.to_json(orient="split", index=False, double_precision=15)
        return {"text/plain": str(self), RUNS_MIME: json.loads(data)}


def keep(runs: pd.DataFrame) -> Kept:
    """The settings and measures (SETTINGS, MEASURES) that all chapters share, one row a run, none left out.

    runs: as ``Result.table()``, with the columns ``protocol`` and ``arm``. Errors: ValueError without them.
    """
    absent = [name for name in REQUIRED if name not in runs]
    if absent:
        raise ValueError(f"the runs have no column {', '.join(absent)}; add it before they are kept")
    table = runs[[name for name in (*SETTINGS, *MEASURES) if name in runs]].copy()
    floats = [str(name) for name in table if pd.api.types.is_float_dtype(table[name])]
    table[floats] = table[floats].map(lambda value: float(f"{value:.{DIGITS}g}"))
    return Kept(table.reset_index(drop=True))


def gather(book: Path | str) -> pd.DataFrame:
    """All runs that the executed notebooks of the folder ``book`` keep, with their ``chapter``.

    A column that a chapter does not have is missing (NaN) in its rows. Errors: ValueError where nothing is kept.
    """
    tables = [
        table.assign(chapter=path.stem)
        for path in sorted(Path(book).glob("[0-9][0-9]_*.ipynb"))
        for table in of_notebook(path)
    ]
    if not tables:
        raise ValueError(f"no executed chapter in {book} keeps its runs; run `threefactors book` first")
    return pd.concat(tables, ignore_index=True)


def of_notebook(path: Path) -> Iterator[pd.DataFrame]:
    """The tables of runs that one executed notebook keeps."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if kept := output.get("data", {}).get(RUNS_MIME):
                yield pd.read_json(StringIO(json.dumps(kept)), orient="split")
