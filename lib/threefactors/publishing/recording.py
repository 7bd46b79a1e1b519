"""Records on disk: what a chapter found on another machine, as two small Parquet files that carry where from.

``book/records/20_width/`` holds ``verdicts.parquet`` and ``runs.parquet``. The provenance is in the schema of
both, so that a file which was sent alone still says what it is; a folder is one record only if both say the same.
Folders are swapped whole, and each page of a file has a checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from threefactors.publishing import definition
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.publishing.definition import Definition

FORMAT = 1
FILES = ("verdicts.parquet", "runs.parquet")
_KEY, _SUM = b"threefactors", b"threefactors.sha256"
_FORMER = ".former-"
_TEXT = ("id", "statement", "source", "protocol", "arm", "verdict", "reason", "measure", "details")
_WHOLE = ("n", "runs", "diverged", "unfinished", "unmeasured", "lost")
_REAL = ("estimate", "low", "high", "confidence", "p", "p_adjusted")


class RecordError(Exception):
    """A record that cannot be read; the message says why."""


@dataclass(frozen=True)
class Record:
    """``verdicts`` as the ledger has them, the ``runs`` that were kept, and ``about``: the whole provenance."""

    name: str
    verdicts: list[dict[str, Any]]
    runs: pd.DataFrame
    about: dict[str, Any]

    @property
    def chapter(self) -> str:
        return str(self.about["chapter"])

    @property
    def definition(self) -> Definition:
        """That under which it was made."""
        return Definition(**self.about["definition"])

    def stale(self, book: Path | str, root: Path | None) -> list[str]:
        """What no longer matches, in words: nothing for a record that is current.

        ``book`` holds the chapter's source; ``root`` data sets, whose checksums are compared where they are there.
        """
        chapter = Chapter(Path(book) / f"{self.chapter}.py")
        if not chapter.source.is_file():
            return [f"the chapter {self.chapter} has gone"]
        mine = self.definition
        try:
            values = chapter.settle(self.about["scale"], self.about["given"])
            return mine.changes(definition.define(chapter, values, mine.claims, mine.data, root))
        except ChapterError as error:
            return [str(error)]

    def entries(self) -> list[dict[str, Any]]:
        """The verdicts as entries of a ledger of their own: with scale, chapter, record and provenance."""
        about = self.about
        own = {key: about[key] for key in ("commit", "versions", "seconds", "date", "data", "command")}
        context = {"scale": about["scale"], "chapter": self.chapter, "record": self.name}
        context["provenance"] = own | {"device": about["machine"]["words"]}
        return [verdict | context for verdict in self.verdicts]


@dataclass(frozen=True)
class Unreadable:
    """A record that is there and cannot be read, and ``why``."""

    name: str
    why: str

    @property
    def chapter(self) -> str:
        return self.name.partition(".")[0]


def name_of(chapter: str, scale: str, given: Mapping[str, Any]) -> str:
    """Name of the folder: paper scale goes without saying, what else is special is named.

    >>> name_of("20_width", "paper", {}), name_of("20_width", "smoke", {"precision": "bfloat16"})
    ('20_width', '20_width.smoke.precision-bfloat16')
    """
    parts = [chapter, *([scale] if scale != "paper" else []), *(f"{k}-{v}" for k, v in sorted(given.items()))]
    return ".".join(re.sub(r"[^\w+-]", "_", part) for part in parts)


def find(book: Path | str, chapter: str | None = None) -> list[Record | Unreadable]:
    """All records under ``book``, or those of one chapter: that of paper scale first, then its variants."""
    return [_try(book, name) for name in _names(book) if chapter in (None, name.partition(".")[0])]


def _try(book: Path | str, name: str) -> Record | Unreadable:
    try:
        return read(book, name)
    except RecordError as error:
        return Unreadable(name, str(error))


def digests(book: Path | str, chapter: str | None = None) -> list[str]:
    """``name/file sha256`` of every file of these records: a new record is a reason to show the chapter anew."""
    return [
        f"{name}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for name in _names(book)
        if chapter in (None, name.partition(".")[0])
        for path in sorted(_folder(book, name).glob("*"))
    ]


def read(book: Path | str, name: str) -> Record:
    """The record of this name. RecordError for one that is damaged, incomplete or of another format."""
    tables, abouts = zip(*(_read(_folder(book, name) / file) for file in FILES), strict=True)
    if abouts[0] != abouts[1]:
        raise RecordError(f"{' and '.join(FILES)} are not of one record")
    verdicts, about = [_verdict(row) for row in tables[0].to_pylist()], abouts[0]
    try:
        record = Record(name, verdicts, tables[1].to_pandas(), about)
        _ = record.definition, record.entries(), about["given"], about["kept"]
    except (KeyError, TypeError) as error:
        raise RecordError(f"its provenance lacks something ({error})") from None
    return record


def write(book: Path | str, record: Record) -> Path:
    """Write the record as ``book/records/NAME`` in place of the former one, whole or not at all."""
    final = Path(book) / "records" / record.name
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=".writing-"))
    try:
        for file, table in zip(FILES, (_verdict_table(record.verdicts), _run_table(record.runs)), strict=True):
            _write(aside / file, table, record.about)
            _read(aside / file)
        aside.chmod(0o755)  # mkdtemp's folder is its owner's alone
        former = final.parent / f"{_FORMER}{final.name}"
        if final.exists():
            shutil.rmtree(former, ignore_errors=True)
            os.replace(final, former)  # until the next line it is read from here, even after a crash
        os.replace(aside, final)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def require_writable(book: Path) -> None:
    """ChapterError when records cannot be written there."""
    folder = book / "records"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writable-"):
            pass
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise ChapterError(
            f"{folder} cannot be written ({error.strerror or error}); records are kept there: make it writable"
        ) from error


def _names(book: Path | str) -> list[str]:
    folders = (Path(book) / "records").glob("*/")
    found = {path.name.removeprefix(_FORMER) for path in folders if path.is_dir()}
    return sorted(name for name in found if re.match(r"\d\d_", name))


def _folder(book: Path | str, name: str) -> Path:
    place = Path(book) / "records"
    return place / name if (place / name).is_dir() else place / f"{_FORMER}{name}"


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    import pyarrow as pa  # here, not above: few commands read a record
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
    except FileNotFoundError:
        raise RecordError(f"{path.name} is missing") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"{path.name} is damaged ({str(error).splitlines()[0][:80]})") from None
    meta = table.schema.metadata or {}
    text = meta.get(_KEY, b"")
    if _digest(text, table) != meta.get(_SUM):
        raise RecordError(f"{path.name} is damaged, or carries no provenance")
    about = json.loads(text)
    if about.get("format") != FORMAT:
        raise RecordError(f"{path.name} has format {about.get('format')}; this version reads format {FORMAT}")
    return table, about


def _write(path: Path, table: Any, about: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    text = json.dumps(about, sort_keys=True).encode()
    meta = {_KEY: text, _SUM: _digest(text, table)}
    pq.write_table(table.replace_schema_metadata(meta), path, compression="zstd", write_page_checksum=True)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _digest(text: bytes, table: Any) -> bytes:
    """Of provenance and contents: Parquet's own checksums do not cover its footer, where the types stand."""
    kinds = [(field.name, str(field.type)) for field in table.schema]
    return hashlib.sha256(text + json.dumps([kinds, table.to_pydict()], default=repr).encode()).hexdigest().encode()


def _verdict_table(verdicts: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    kinds = {name: pa.string() for name in _TEXT} | {name: pa.int64() for name in _WHOLE}
    rows = []
    for verdict in verdicts:
        low, high = verdict.get("interval") or (None, None)
        own = {"low": low, "high": high, "details": json.dumps(verdict.get("details", {}))}
        rows.append({name: own.get(name, verdict.get(name)) for name in (*_TEXT, *_WHOLE, *_REAL)})
    return pa.Table.from_pylist(rows, pa.schema(list((kinds | {name: pa.float64() for name in _REAL}).items())))


def _verdict(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row.pop("low"), row.pop("high")
    return row | {"interval": None if low is high is None else [low, high], "details": json.loads(row["details"])}


def _run_table(runs: pd.DataFrame) -> Any:
    """Numbers stay numbers; a column without any value is one of numbers, all missing."""
    import pyarrow as pa

    columns = {str(name): pa.array(column, from_pandas=True) for name, column in _plain(runs)}
    return pa.table({k: v.cast(pa.float64()) if pa.types.is_null(v.type) else v for k, v in columns.items()})


def _plain(runs: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any]]]:
    for name, column in runs.items():
        mixed = column.dtype == object and column.dropna().map(type).nunique() > 1
        yield str(name), column.map(lambda value: None if pd.isna(value) else str(value)) if mixed else column
