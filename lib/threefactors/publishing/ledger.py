"""The ledger: every verdict in the executed notebooks, with where and from what it came.

Verdicts are not written down anywhere by hand: a chapter shows them, its notebook keeps them as
outputs of their own media type, and here they are gathered.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from threefactors.inference import SIMULATION, VERDICT_MIME

VERDICTS = ("SUPPORTED", "REFUTED", "UNDECIDED", "VOID")
_FIRST = ("id", "statement", "source", "protocol", "arm", "scale", "verdict", "estimate", "interval", "n")
_IDENTITY = ("id", "protocol", "arm", "scale")


class LedgerError(Exception):
    """The notebooks contradict each other: one claim judged twice under the same conditions."""


def collect(book: Path | str) -> list[dict[str, Any]]:
    """All verdicts in the executed notebooks of the folder ``book``, in the order of the chapters.

    Each is the verdict's own dictionary (see `threefactors.inference.Verdict`) with ``scale``,
    ``chapter`` and ``provenance`` (commit, versions, device, seconds). Raises LedgerError when two have
    the same id, protocol, arm and scale.
    """
    entries = [entry for path in sorted(Path(book).glob("[0-9][0-9]_*.ipynb")) for entry in of_notebook(path)]
    seen: dict[tuple[Any, ...], str] = {}
    for entry in entries:
        identity = tuple(entry[key] for key in _IDENTITY)
        if identity in seen:
            what = ", ".join(f"{k}={v}" for k, v in zip(_IDENTITY, identity, strict=True))
            raise LedgerError(
                f"two verdicts have {what}, in {seen[identity]} and {entry['chapter']}; "
                "judge each claim once under one protocol and arm"
            )
        seen[identity] = entry["chapter"]
    return sorted(entries, key=lambda e: natural(e["id"]))


def of_notebook(path: Path) -> Iterable[dict[str, Any]]:
    """The verdicts that one executed notebook shows, as entries of the ledger."""
    notebook = nbformat.read(path, as_version=4)
    own = notebook.metadata.get("threefactors", {})
    context = {
        "scale": own.get("scale"),
        "chapter": path.stem,
        "provenance": {key: own.get(key) for key in ("commit", "versions", "device", "seconds", "date")},
    }
    for verdict in (verdict for cell in notebook.cells for verdict in shown(cell)):
        page = {"page": f"{path.stem}.html#{place(verdict['id'])}"}
        ordered = {key: verdict.get(key) for key in _FIRST} | verdict | context | page
        yield json.loads(json.dumps(ordered))


def shown(cell: NotebookNode) -> Iterator[dict[str, Any]]:
    """The verdicts that one executed cell shows."""
    for output in cell.get("outputs", []):
        verdicts = output.get("data", {}).get(VERDICT_MIME, [])
        yield from verdicts if isinstance(verdicts, list) else [verdicts]


def anchor(claim: str) -> str:
    """Id of a claim's first row in the ledger."""
    return f"claim-{_slug(claim)}"


def place(claim: str) -> str:
    """Id of the place in a chapter where it first shows a verdict on a claim; the site gives it to the page."""
    return f"verdict-{_slug(claim)}"


def _slug(claim: str) -> str:
    return re.sub(r"[^\w-]+", "-", claim)


def write_json(entries: list[dict[str, Any]], path: Path) -> None:
    """The ledger as a JSON list of objects."""
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def as_text(entries: list[dict[str, Any]]) -> str:
    """The ledger as a table for the terminal.

    >>> as_text([])
    'No verdicts yet: no executed chapter judges a claim.'
    """
    if not entries:
        return "No verdicts yet: no executed chapter judges a claim."
    head = ["claim", "protocol", "arm", "scale", "verdict", "estimate", "interval", "n", "chapter"]
    rows = [
        [
            *(str(e[key] or "") for key in ("id", "protocol", "arm", "scale", "verdict")),
            *(number(e["estimate"]), interval(e["interval"]), str(e["n"]), e["chapter"]),
        ]
        for e in entries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


@dataclass(frozen=True, repr=False)
class Glance:
    """What the ledger says at a glance: how many verdicts of each kind, and one row of badges a claim."""

    entries: list[dict[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of entries under each verdict, all four named."""
        found = Counter(entry["verdict"] for entry in self.entries)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def sentence(self) -> str:
        """``"14 verdicts on 2 claims: 8 supported, 6 undecided."``"""
        claims = len({entry["id"] for entry in self.entries})
        parts = [f"{n} {verdict.lower()}" for verdict, n in self.counts.items() if n]
        verdicts = f"{len(self.entries)} verdict{'s' * (len(self.entries) != 1)}"
        what = f"{verdicts} on {claims} claim{'s' * (claims != 1)}"
        return f"{what}: {', '.join(parts)}." if parts else "No claim has been judged yet."

    def __repr__(self) -> str:
        return f"{self.sentence}\n{as_text(self.entries)}"

    def _repr_html_(self) -> str:
        """Claims as rows, protocols as columns, a badge for each arm that links to its chapter.

        What was judged on networks comes first; laws judged on simulations have a table of their own.
        """
        laws = [entry for entry in self.entries if entry["protocol"] == SIMULATION]
        others = [entry for entry in self.entries if entry["protocol"] != SIMULATION]
        tables = [("On networks", others), ("On simulations of the theory", laws)]
        parts = [_badges(name, entries) for name, entries in tables if entries]
        return f'<p class="tf-sentence">{escape(self.sentence)}</p>{"".join(parts)}'


def _badges(caption: str, entries: list[dict[str, Any]]) -> str:
    protocols = list(dict.fromkeys(entry["protocol"] for entry in entries))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["claim", *protocols])
    rows = []
    for claim in dict.fromkeys(entry["id"] for entry in entries):
        own = [entry for entry in entries if entry["id"] == claim]
        cells = (
            "<td>" + "".join(f"<div>{badge(e)}</div>" for e in own if e["protocol"] == protocol) + "</td>"
            for protocol in protocols
        )
        statement = escape(own[0]["statement"])
        rows.append(f'<tr><th scope="row"><strong>{escape(claim)}</strong> {statement}</th>{"".join(cells)}</tr>')
    return table("tf-ledger tf-glance", caption, head, rows)


def glance(entries: list[dict[str, Any]]) -> Glance:
    """The ledger at a glance, for the introduction."""
    return Glance(entries)


class Table(list[dict[str, Any]]):
    """Ledger entries that a notebook shows as one table: estimate, interval, seeds and reason of each.

    The first row of each claim carries its ``anchor``, so a page shows one such table.
    """

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        names = ("claim", "verdict", "protocol", "scale", "estimate", "interval", "seeds", "reason")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        firsts = {e["id"]: i for i, e in reversed(list(enumerate(self)))}
        rows = [
            f'<tr{_id(e["id"]) * (firsts[e["id"]] == i)}><th scope="row">{escape(e["id"])}</th><td>{badge(e)}</td>'
            + "".join(
                f"<td>{escape(text)}</td>"
                for text in (
                    e["protocol"],
                    e["scale"] or "",
                    number(e["estimate"]),
                    interval(e["interval"]),
                )
            )
            + f"<td>{e['n']}</td><td>{escape(e['reason'] or '')}</td></tr>"
            for i, e in enumerate(self)
        ]
        return table("tf-ledger", "All verdicts", head, rows)


def badge(entry: dict[str, Any]) -> str:
    """HTML of one verdict as a badge, the arm beside it, linking to where the chapter reached it."""
    verdict = entry["verdict"]
    label = f' <span class="tf-arm">{escape(entry["arm"])}</span>' if entry.get("arm") else ""
    kind, page = f"tf-badge tf-{verdict.lower()}", escape(entry.get("page") or f"{entry['chapter']}.html")
    link = f'<a class="{kind}" href="{page}" title="{escape(entry.get("reason") or verdict)}">{verdict}</a>'
    return f'<span class="tf-judged">{link}{label}</span>'


def table(kind: str, caption: str, head: str, rows: list[str]) -> str:
    """HTML of a table of the ledger's style; head and rows are HTML."""
    # a frame of its own scrolls on narrow screens, so that the page does not; keys reach it, and its name is told
    name = escape(caption)
    return (
        f'<div class="tf-scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="{kind}"><caption>{name}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def number(value: float | None) -> str:
    """Three digits, or nothing where there is no number."""
    return "" if value is None else f"{value:.3g}"


def interval(bounds: list[float | None] | None) -> str:
    """``[low, high]``, open where there is no bound."""
    return "" if bounds is None else "[" + ", ".join(number(b) or "∞" for b in bounds) + "]"


def _id(claim: str) -> str:
    return f' id="{escape(anchor(claim))}"'


def natural(identifier: str) -> tuple[str, int, str]:
    """C2 before C10, C3a before C3b before C4.

    >>> sorted(["C10", "C4", "C3b", "C3a", "P1"], key=natural)
    ['C3a', 'C3b', 'C4', 'C10', 'P1']
    """
    letters, number, rest = re.fullmatch(r"(\D*)(\d*)(.*)", identifier, re.DOTALL).groups()  # type: ignore[union-attr]
    return letters, int(number or 0), rest
