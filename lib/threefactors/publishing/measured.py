"""Measurements of speed on record: what ``make bench`` found, machine by machine, for the page that shows it.

A Parquet file for each machine and benchmark: the rows, and with them (in the file's own metadata) when, where and by
which versions they were measured. Numbers are compared within a file only: they were taken in turns in one run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from threefactors.publishing.ledger import table as html_table

FOLDER = Path("records") / "benchmarks"  # under the folder of the book
AT_ONCE = 6  # shapes whose tables are all open
FEW = 16  # targets that are all listed
_KINDS = {"cpu": "CPU", "cuda": "GPU"}
NEEDED = ("bench", "machine", "device", "date", "command", "unit", "per_microsecond", "against", "targets", "notes")


@dataclass(frozen=True)
class Measured:
    """One benchmark on one machine.

    rows: ``shape``, ``variant``, ``microseconds_per_model_step``, ``ratio_to_sliced_loop``, ``fraction_of_floor`` and
    ``peak_mebibytes`` (missing where nothing was run); about: NEEDED, and whatever else was said of the circumstances.
    """

    rows: pd.DataFrame
    about: Mapping[str, Any]

    @property
    def targets(self) -> pd.DataFrame:
        """``shape``, ``text``, ``value`` and the ``goal`` that it should reach."""
        return pd.DataFrame(self.about["targets"], columns=["shape", "text", "value", "goal"])

    @property
    def origin(self) -> str:
        """Where and when, in a line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.about.get("versions", {}).items())
        commit = self.about.get("commit") or {}
        mark = f", commit {commit['id'][:10]}{' and changes' if commit.get('dirty') else ''}" if commit else ""
        return f"{self.about['machine']}, {self.about['date'][:10]}{mark} ({versions})"

    def _repr_html_(self) -> str:
        head = ("", self.about["unit"], self.about["against"], "share of floor", "peak MiB")
        parts, shapes = [], self.rows["shape"].nunique()
        for shape, own in self.rows.groupby("shape", sort=False):
            rows = [
                f'<tr><th scope="row">{escape(row["variant"].strip())}</th>'
                f"<td>{_plain(row['microseconds_per_model_step'] * self.about['per_microsecond'])}</td>"
                f"<td>{_plain(row['ratio_to_sliced_loop'])}</td><td>{row['fraction_of_floor']:.0%}</td>"
                f"<td>{_plain(row['peak_mebibytes'])}</td></tr>"
                for row in own.to_dict("records")
            ]
            table = html_table("tf-ledger", str(shape), _heads(head), rows)
            parts.append(
                table if shapes <= AT_ONCE else f"<details><summary>{escape(str(shape))}</summary>{table}</details>"
            )
        said = "".join(f"<li>{escape(f'{note} ({shape})')}</li>" for shape, note in self.about["notes"])
        origin = f'<p class="tf-origin">{escape(self.origin)}; made by <code>{escape(self.about["command"])}</code></p>'
        return f'<div class="tf-measured">{"".join(parts)}<ul class="tf-notes">{said}</ul>{origin}</div>'

    def __str__(self) -> str:
        return f"{self.about['bench']}: {len(self.rows)} rows, {self.origin}"


class Targets(list[Measured]):
    """The targets of several benchmarks in one table: what was wanted, what was reached.

    Of a benchmark with many of them those that were reached are only counted.
    """

    def __str__(self) -> str:
        return "\n".join(f"{m.about['bench']}: {len(m.targets)} targets" for m in self)

    def _repr_html_(self) -> str:
        rows = [row for measured in self for row in _wanted(measured)]
        head = _heads(("", "shape", "measured", "wanted", "", "on a"))
        return html_table("tf-ledger", "Wanted, and reached", head, rows)


def _wanted(measured: Measured) -> list[str]:
    """HTML rows of a benchmark's targets."""
    targets, kind = measured.about["targets"], _KINDS[measured.about["device"]]
    missed = [target for target in targets if target[2] < target[3]]
    few = len(targets) <= FEW
    rows = [
        f'<tr><th scope="row">{escape(text)}</th><td>{escape(shape)}</td><td>{_plain(value)}</td><td>{goal:g}</td>'
        f"<td>{'reached' if value >= goal else 'missed'}</td><td>{kind}</td></tr>"
        for shape, text, value, goal in (targets if few else missed)
    ]
    if not few:
        said = f"{measured.about['bench']}: {len(targets) - len(missed)} of {len(targets)}"
        rows.insert(
            0, f'<tr><th scope="row">{said}</th><td></td><td></td><td></td><td>reached</td><td>{kind}</td></tr>'
        )
    return rows


def record(book: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Path:
    """Keeps a benchmark, in place of an earlier one of the same name on the same machine; the file's path.

    Errors: ValueError for circumstances that are not said (NEEDED), or without rows.
    """
    if absent := [name for name in NEEDED if name not in about]:
        raise ValueError(f"the measurement does not say its {', '.join(absent)}; give all of {', '.join(NEEDED)}")
    if not rows:
        raise ValueError(f"the benchmark {about['bench']} has no rows; nothing is put on record")
    folder = book / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(list(rows))
    table.attrs = json.loads(json.dumps(about))
    path = folder / f"{_slug(about['machine'])}.{about['bench']}.parquet"
    aside = path.with_suffix(".aside")
    table.to_parquet(aside)
    os.replace(aside, path)
    return path


def collect(book: Path | str, bench: str | None = None, device: str | None = None) -> list[Measured]:
    """All benchmarks on record, or those of one name or kind of device (``cpu``, ``cuda``); the newest first."""
    found = []
    for path in sorted((Path(book) / FOLDER).glob("*.parquet")):
        rows = pd.read_parquet(path)
        found.append(Measured(rows, {str(name): value for name, value in rows.attrs.items()}))
    wanted = [m for m in found if bench in (None, m.about["bench"]) and device in (None, m.about["device"])]
    return sorted(wanted, key=lambda measured: measured.about["date"], reverse=True)


def digests(book: Path | str) -> list[str]:
    """``name sha256`` of every file on record: a new measurement is a reason to show the page anew."""
    files = sorted((Path(book) / FOLDER).glob("*.parquet"))
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]


def _plain(number: float) -> str:
    """Three digits; nothing where there is no number."""
    return "" if pd.isna(number) else f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def require(book: Path | str, benches: Sequence[str], device: str = "cpu") -> dict[str, Measured]:
    """The newest of each benchmark on that kind of device, by name.

    Errors: FileNotFoundError for one of ``benches`` that is missing.
    """
    newest = {measured.about["bench"]: measured for measured in reversed(collect(book, device=device))}
    if missing := [bench for bench in benches if bench not in newest]:
        raise FileNotFoundError(
            f"no benchmark {', '.join(missing)} is on record under {Path(book) / FOLDER}; make one: "
            "make bench ARGS=--record"
        )
    return newest


def _heads(names: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{escape(name)}</th>' for name in names)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
