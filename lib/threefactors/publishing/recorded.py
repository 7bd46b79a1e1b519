"""What a reader sees of records: beside the laptop's verdicts in a chapter, and by themselves in the ledger.

A record is never mixed into the verdicts of the executed chapters. One that no longer fits is shown, and is
called stale; no conclusion uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from threefactors.inference import REFUTED, SUPPORTED, Verdict
from threefactors.publishing import recording
from threefactors.publishing.ledger import badge, interval, number, table
from threefactors.publishing.recording import Record, Unreadable
from threefactors.settings import Settings, SettingsError

Entry = dict[str, Any]
SAME, OPPOSITE, ONE = "the same", "opposite", "decided at one size only"
NEITHER, ABSENT = "decided at neither", "judged at one size only"


def agreement(here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> str:
    """How two verdicts on one claim compare.

    >>> agreement({"verdict": "SUPPORTED"}, {"verdict": "REFUTED"}), agreement({"verdict": "SUPPORTED"}, None)
    ('opposite', 'judged at one size only')
    """
    if here is None or there is None:
        return ABSENT
    decided = [one["verdict"] for one in (here, there) if one["verdict"] in (SUPPORTED, REFUTED)]
    if len(decided) < 2:
        return ONE if decided else NEITHER
    return SAME if decided[0] == decided[1] else OPPOSITE


def recorded(chapter: str, verdicts: Iterable[Verdict] = (), scale: str = "laptop", book: Path | str = ".") -> Beside:
    """The records of a chapter beside the ``verdicts`` that it has just reached at ``scale``.

    ``book`` is the folder of the chapters. A notebook that runs far from it says that no record is at hand.
    """
    at_hand = Path(book, f"{chapter}.py").is_file()
    found = recording.find(book, chapter) if at_hand else []
    shown = tuple(Shown(one, _stale(one, book)) for one in found)
    return Beside(chapter, [verdict.to_dict() for verdict in verdicts], scale, shown, at_hand)


def entries(book: Path | str = ".") -> list[Entry]:
    """All recorded verdicts as ledger entries, each with ``record`` and ``stale``: what no longer matches, or []."""
    found = recording.find(book)
    return [e | {"stale": _stale(one, book)} for one in found if isinstance(one, Record) for e in one.entries()]


def shelf(book: Path | str = ".") -> Shelf:
    """All records, for the ledger."""
    return Shelf(tuple(Shown(one, _stale(one, book)) for one in recording.find(book)))


def _stale(one: Record | Unreadable, book: Path | str) -> list[str]:
    try:
        root = Settings.from_environment().data
    except SettingsError:
        root = None
    return one.stale(book, root) if isinstance(one, Record) else []


@dataclass(frozen=True)
class Shown:
    """A record, or one that cannot be read, and what about it no longer matches."""

    one: Record | Unreadable
    stale: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """``paper scale, recorded on 2026-11-21 on NVIDIA H200 (…)``, or what is special about a variant."""
        if isinstance(self.one, Unreadable):
            return self.one.name
        about = self.one.about
        given = "".join(f", {name} = {value}" for name, value in sorted(about["given"].items()))
        return f"{about['scale']} scale{given}, recorded on {about['date'][:10]} on {about['machine']['words']}"

    @property
    def warning(self) -> str:
        """Why not to trust it; empty: it is current."""
        if isinstance(self.one, Unreadable):
            return f"UNREADABLE: the record {self.one.name} is there, but {self.one.why}. Make it again."
        if not self.stale:
            return ""
        return (
            f"STALE: since this was recorded, {'; '.join(self.stale)}. It shows what was found then, and no "
            "conclusion uses it."
        )

    @property
    def provenance(self) -> str:
        if isinstance(self.one, Unreadable):
            return ""
        about, kept = self.one.about, self.one.about["kept"]
        commit = about["commit"]
        source = f"commit {commit['id'][:10]}{' with changes' * commit['dirty']}" if commit else "no commit"
        data = ", ".join(about["data"]) or "none"
        runs = f"{kept['runs']} runs kept, {kept['diverged']} diverged, {kept['unfinished']} unfinished"
        took = f"{duration(about['seconds'])}, in which {about['trained']} networks were trained"
        memory = f"{about['peak_memory'] / 2**30:.1f} GiB"
        return f"{source}; torch {about['versions']['torch']}; data: {data}; {took}; {memory} of memory at most; {runs}"

    def html(self, parts: str) -> str:
        banner = f'<p class="tf-stale" role="note">{escape(self.warning)}</p>' if self.warning else ""
        if isinstance(self.one, Unreadable):
            return banner
        command = f"To make it again: <code>{escape(self.one.about['command'])}</code>"
        return f'{banner}{parts}<p class="tf-provenance">{escape(self.provenance)}. {command}</p>'

    def text(self, lines: Iterable[str]) -> str:
        if isinstance(self.one, Unreadable):
            return self.warning
        own = [self.title, self.warning, *lines, self.provenance, f"To make it again: {self.one.about['command']}"]
        return "\n".join(filter(None, own))


@dataclass(frozen=True, repr=False)
class Beside:
    """Verdicts reached here and recorded ones, claim by claim."""

    chapter: str
    here: list[Entry]
    scale: str
    shown: tuple[Shown, ...]
    at_hand: bool = True

    @property
    def without(self) -> str:
        """What is said where there is no record."""
        if not self.at_hand:
            return "No record is at hand: this notebook runs apart from the repository, which keeps them."
        return (
            "This chapter has not been run at this size yet, so no verdict speaks of it. "
            "On a machine with a GPU and the data sets, one command does it:"
        )

    @property
    def command(self) -> str:
        return f"threefactors record {self.chapter[:2]} --data DIR --device cuda"

    def rows(self, record: Record) -> list[tuple[Entry | None, Entry | None]]:
        """Pairs of verdicts on one claim under one protocol and arm; None where there is none."""
        first, second = (
            {tuple(e[k] for k in ("id", "protocol", "arm")): e for e in group} for group in (self.here, record.verdicts)
        )
        return [(first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])]

    def sentence(self, record: Record) -> str:
        """How the verdicts of both sizes compare, in one sentence."""
        both = [agreement(*pair) for pair in self.rows(record)]
        counts = ", ".join(f"{n} {kind}" for kind in (SAME, OPPOSITE, ONE, NEITHER, ABSENT) if (n := both.count(kind)))
        return f"Of {len(both)} verdicts: {counts}." if both else "It holds runs, and no verdicts."

    def __repr__(self) -> str:
        parts = [
            shown.text(
                [self.sentence(shown.one)]
                + [f"{_where(pair)}: {_word(pair[0])} here, {_word(pair[1])} there" for pair in self.rows(shown.one)]
                if isinstance(shown.one, Record)
                else []
            )
            for shown in self.shown
        ]
        return "\n\n".join(parts) or self.without + (f" {self.command}" if self.at_hand else "")

    def _repr_html_(self) -> str:
        if not self.shown:
            command = f" <code>{escape(self.command)}</code>" if self.at_hand else ""
            return f'<p class="tf-provenance">{escape(self.without)}{command}</p>'
        return "".join(shown.html(self._table(shown)) for shown in self.shown)

    def _table(self, shown: Shown) -> str:
        if not isinstance(shown.one, Record):
            return ""
        names = ("claim", "protocol", f"{self.scale} scale", f"{shown.one.about['scale']} scale", "agreement")
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        rows = []
        for pair in self.rows(shown.one):
            any_ = pair[0] or pair[1] or {}
            where = ", ".join(filter(None, (any_["protocol"], any_["arm"])))
            cells = (escape(where), *map(self._cell, pair), agreement(*pair))
            row = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><th scope="row">{escape(any_["id"])}</th>{row}</tr>')
        sentence = f'<p class="tf-sentence">{escape(self.sentence(shown.one))}</p>'
        return sentence + table("tf-ledger", shown.title, head, rows)

    def _cell(self, entry: Entry | None) -> str:
        if entry is None:
            return "not judged"
        estimate = f"{number(entry['estimate'])} {interval(entry['interval'])}".strip()
        return f"{badge(entry | {'arm': '', 'chapter': self.chapter})} {escape(estimate)}"


@dataclass(frozen=True, repr=False)
class Shelf:
    """All records one after another, each under the date and the machine."""

    shown: tuple[Shown, ...]

    def __repr__(self) -> str:
        texts = (
            shown.text([f"{_where((e, None))}: {e['verdict']}" for e in shown.one.verdicts])
            if isinstance(shown.one, Record)
            else shown.warning
            for shown in self.shown
        )
        return "\n\n".join(texts) or "No chapter has been recorded at another size yet."

    def _repr_html_(self) -> str:
        if not self.shown:
            return f'<p class="tf-provenance">{escape(str(self))}</p>'
        return "".join(shown.html(self._table(shown)) for shown in self.shown)

    def _table(self, shown: Shown) -> str:
        if not isinstance(shown.one, Record):
            return ""
        names = ("claim", "verdict", "protocol", "estimate", "interval", "seeds", "reason")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        rows = []
        for e in shown.one.entries():
            texts = (e["protocol"], number(e["estimate"]), interval(e["interval"]), str(e["n"]), e["reason"] or "")
            row = "".join(f"<td>{escape(text)}</td>" for text in texts)
            rows.append(f'<tr><th scope="row">{escape(e["id"])}</th><td>{badge(e)}</td>{row}</tr>')
        return table("tf-ledger", f"{shown.one.chapter}: {shown.title}", head, rows)


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    for below, unit, name in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < below:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:.1f} h"


def _where(pair: tuple[Entry | None, Entry | None]) -> str:
    entry = pair[0] or pair[1] or {}
    return f"{entry['id']} ({', '.join(filter(None, (entry['protocol'], entry['arm'])))})"


def _word(entry: Entry | None) -> str:
    return "not judged" if entry is None else str(entry["verdict"])
