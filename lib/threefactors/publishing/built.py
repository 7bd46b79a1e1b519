"""A site that was built, read back from its folder or from a zip archive of it: verdicts, data, and how it was made."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile
from zipfile import Path as ZipPath

import pandas as pd

from threefactors.publishing import figure_data

Entry = dict[str, Any]
_NEEDED = ("claims.json", "build.json", "data")


class CompareError(Exception):
    """What is to be compared is no built site, or not of the same scale; the message names it and the remedy."""


@dataclass(frozen=True)
class Built:
    """``claims``: the verdicts by claim, protocol, arm and scale; ``figures``: their data as CSV by name."""

    claims: dict[tuple[Any, ...], Entry]
    build: Entry
    figures: dict[str, bytes]

    def table(self, name: str) -> pd.DataFrame:
        """The data of one figure as text, with all columns that identify a series."""
        return figure_data.read(self.figures[name])


def read(place: Path) -> Built:
    """The site in a folder, a zip archive, or the one folder within. CompareError for what is no such thing."""
    if not place.exists():
        raise CompareError(f"{place} does not exist; name the folder _build/html of a book, or a zip archive of it")
    if not place.is_dir() and not is_zipfile(place):
        raise CompareError(f"{place} is neither a folder nor a zip archive that can be read")
    try:
        root: Any = place if place.is_dir() else ZipPath(place)
        while len(inside := list(root.iterdir())) == 1 and inside[0].is_dir():
            root = inside[0]
        if missing := [name for name in _NEEDED if not (root / name).exists()]:
            raise CompareError(
                f"{place} holds no {', '.join(missing)}, so it is no site that `threefactors book` built; "
                "build it again with this version"
            )
        return _read(root)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise CompareError(f"{place} is damaged, {type(error).__name__}: {error}; build it again") from None


def _read(root: Any) -> Built:
    claims, build = (json.loads((root / name).read_bytes()) for name in _NEEDED[:2])
    if not isinstance(build.get("scale") if isinstance(build, dict) else None, str):
        raise ValueError("build.json names no scale")
    tables = {table.name: table for table in (root / "data").iterdir() if table.name.endswith(".csv")}
    site = Built(
        {(e["id"], e["protocol"], e["arm"], e["scale"]): e for e in claims if e["verdict"]},
        build,
        {name.removesuffix(".csv"): tables[name].read_bytes() for name in sorted(tables)},
    )
    for name in site.figures:
        try:
            site.table(name)
        except ValueError as error:
            raise ValueError(f"data/{name}.csv is not the data of a figure ({error})") from None
    return site
