"""What the verdicts come to, claim by claim, in words that follow from the ledger alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from types import SimpleNamespace
from typing import Any

from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED
from threefactors.inference.claims.paper import PAPER_CLAIMS
from threefactors.presentation.prose import in_words
from threefactors.publishing.ledger import table

Entry = dict[str, Any]
SHOWN = (SUPPORTED, REFUTED, UNDECIDED)
EPOCHS = "equal epochs"


def family(identifier: str) -> str:
    """The claim of a paper to which a claim of the book belongs.

    >>> [family(name) for name in ("C3b", "C14", "E4a")]
    ['C3', 'C14', 'E4']
    """
    return re.match(r"[A-Z]+\d+", identifier)[0]  # type: ignore[index]


def in_short(entries: Iterable[Entry]) -> str:
    """What the verdicts on one claim come to, in one sentence.

    >>> at = lambda protocol, verdict: {"protocol": protocol, "verdict": verdict}
    >>> in_short([at("equal epochs", "SUPPORTED"), at("equal clock", "REFUTED")])
    'Holds as the paper tested it, at equal epochs, and nowhere else.'
    >>> in_short([at("equal epochs", "SUPPORTED"), at("equal loss", "UNDECIDED")])
    'Holds as the paper tested it, at equal epochs, and nowhere else.'
    >>> in_short([at("simulation", "SUPPORTED")])
    'Holds wherever it was tested.'
    """
    entries = list(entries)
    found = {entry["verdict"] for entry in entries}
    usual = {entry["verdict"] for entry in entries if entry["protocol"] == EPOCHS}
    other = {entry["verdict"] for entry in entries if entry["protocol"] != EPOCHS}
    if not found:
        return "Not tested."
    if found == {SUPPORTED}:
        return "Holds wherever it was tested."
    if found == {REFUTED}:
        return "Fails wherever it was tested."
    if not found & {SUPPORTED, REFUTED}:
        return "Could not be decided."
    if usual == {SUPPORTED} and SUPPORTED not in other:
        return "Holds as the paper tested it, at equal epochs, and nowhere else."
    if REFUTED not in found:
        return "Holds wherever it could be decided."
    if SUPPORTED not in found:
        return "Fails wherever it could be decided."
    return "Holds under some conditions and fails under others."


@dataclass(frozen=True, repr=False)
class Brief:
    """A paper's claims on one screen: each with one sentence, and how many verdicts of each kind stand behind it.

    ``claims``: what it claims, by id; ``who``: how the table calls it.
    """

    entries: list[Entry]
    claims: Mapping[str, str] = field(default_factory=lambda: PAPER_CLAIMS)
    who: str = "the paper"

    def of(self, claim: str) -> list[Entry]:
        """Verdicts on the claim ``claim``, such as ``C3``."""
        return [entry for entry in self.entries if family(entry["id"]) == claim]

    def __repr__(self) -> str:
        return "\n".join(f"{claim}: {in_short(self.of(claim))}" for claim in self.claims)

    def _repr_html_(self) -> str:
        names = (f"{self.who}'s claim", "in our hands", *(verdict.lower() for verdict in SHOWN))
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        rows = []
        for claim, statement in self.claims.items():
            found = Counter(entry["verdict"] for entry in self.of(claim))
            counts = "".join(f"<td>{found[verdict] or ''}</td>" for verdict in SHOWN)
            title = f'<th scope="row"><strong>{claim}</strong> {escape(statement)}</th>'
            rows.append(f"<tr>{title}<td>{escape(in_short(self.of(claim)))}</td>{counts}</tr>")
        return table("tf-ledger tf-brief", f"What {self.who} claims, and how many verdicts", head, rows)


@dataclass(frozen=True, repr=False)
class Conclusions(Brief):
    """A paper's claims, each with what the book's verdicts on it come to, claim by claim of the book."""

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in (f"{self.who}'s claim", "in our hands"))
        rows = []
        for claim, statement in self.claims.items():
            answers = [entry["id"] for entry in self.of(claim)]
            parts = [self._answer([e for e in self.of(claim) if e["id"] == name]) for name in dict.fromkeys(answers)]
            title = f'<th scope="row"><strong>{claim}</strong> {escape(statement)}</th>'
            rows.append(f"<tr>{title}<td>{''.join(parts) or '<p>Not tested.</p>'}</td></tr>")
        return table("tf-ledger tf-conclusions", f"What {self.who} claims", head, rows)

    def _answer(self, entries: list[Entry]) -> str:
        """HTML of a claim of the book: what it says, what its verdicts come to, where they were reached."""
        first = entries[0]
        link = f'<a href="{escape(first["chapter"])}.html">{escape(first["id"])}</a>'
        where = in_words(SimpleNamespace(**entry) for entry in entries)
        return (
            f"<p>{link} {escape(first['statement'])}. <strong>{escape(in_short(entries))}</strong>"
            f'<br><span class="tf-arm">{escape(where)}</span></p>'
        )


@dataclass(frozen=True, repr=False)
class Larger(Brief):
    """A paper's claims that records judge: what verdicts come to in this book's ``entries``, and in ``recorded``.

    Of the recorded ones only those at paper scale without further parameters, and none that is stale.
    """

    recorded: list[Entry] = field(default_factory=list)

    @property
    def current(self) -> list[Entry]:
        return [e for e in self.recorded if not e["stale"] and e["record"] == e["chapter"]]

    @property
    def left_out(self) -> list[str]:
        """Names of stale records."""
        return sorted({e["record"] for e in self.recorded if e["stale"]})

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        return [
            (claim, in_short(self.of(claim)), in_short(own))
            for claim in self.claims
            if (own := [e for e in self.current if family(e["id"]) == claim])
        ]

    @property
    def sentence(self) -> str:
        """How many of the claims have been judged at this size, and which records had to be left out."""
        n = len(self.lines)
        many = f"{n} of {len(self.claims)} claims have" if n != 1 else f"1 of {len(self.claims)} claims has"
        stale = f" Stale, and left out: {', '.join(self.left_out)}." if self.left_out else ""
        return f"{many if n else 'No claim has'} been judged at the paper's own size{'' if n else ' yet'}.{stale}"

    def __repr__(self) -> str:
        return "\n".join([self.sentence, *(f"{claim}: {here} {there}" for claim, here, there in self.lines)])

    def _repr_html_(self) -> str:
        names = (f"{self.who}'s claim", "in our hands", "at the paper's own size")
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        rows = [
            f'<tr><th scope="row"><strong>{claim}</strong> {escape(self.claims[claim])}</th>'
            f"<td>{escape(here)}</td><td>{escape(there)}</td></tr>"
            for claim, here, there in self.lines
        ]
        shown = table("tf-ledger tf-brief", "Verdicts at two sizes", head, rows) if rows else ""
        return f'<p class="tf-sentence">{escape(self.sentence)}</p>{shown}'
