"""Two builds of the book side by side: ``threefactors compare OLD NEW``.

Each is a built site, the folder or a zip archive of it. Four things make the comparison fail: a verdict that turned or
is gone, an estimate outside its old interval, a figure that lost data, a series that drifted (`drift` says when). What
else differs is told: new verdicts and figures, smaller moves, machine, versions, time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threefactors.publishing import drift
from threefactors.publishing.built import Built, CompareError, Entry, read
from threefactors.publishing.drift import Finding
from threefactors.publishing.ledger import interval, number

_WORDS = {
    "turned": "verdicts turned", "gone": "verdicts gone", "outside": "estimates outside their old interval",
    "lost": "losses of figures' data", "drifted": "series drifted", "moved": "moved", "new": "new",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What differs, the failing first; ``told`` are lines about the two builds, and ``counts`` what was compared."""

    findings: list[Finding]
    told: list[tuple[str, str, str]]
    counts: dict[str, int]
    identical: bool

    @property
    def failing(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.failing]

    @property
    def status(self) -> int:
        """The exit status: 1 if anything fails."""
        return 1 if self.failing else 0

    @property
    def sentence(self) -> str:
        """All in one line."""
        whole = f"verdicts: {self.counts['verdicts']}, figures: {self.counts['figures']}"
        if self.identical:
            return f"Identical, byte for byte ({whole})."
        kinds = Counter(finding.kind for finding in self.findings)
        parts = [f"{words}: {kinds[kind]}" for kind, words in _WORDS.items() if kinds[kind]]
        said = f"{'FAILED' if self.failing else 'Passed'}: {'; '.join(parts) or 'no difference in what they say'}"
        same = f"the same: {self.counts['unchanged verdicts']} and {self.counts['same figures']}"
        return f"{said} ({whole}; {same})."

    def __str__(self) -> str:
        rows = [["FAIL" if f.failing else "", f.kind, f.where, f.old, f.new, f.note] for f in self.findings]
        parts = [self.sentence]
        if rows:
            parts.append(_aligned([["", "what", "where", "old", "new", "how"], *rows]))
        if self.told:
            parts.append(_aligned([["build", "old", "new"], *map(list, self.told)]))
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """For a comment on a pull request: what fails in sight, the rest folded."""
        parts = [f"**{self.sentence}**"]
        head = ["what", "where", "old", "new", "how"]
        failing, rest = ([f for f in self.findings if f.failing is kind] for kind in (True, False))
        if failing:
            parts.append(_pipes(head, [[f.kind, f.where, f.old, f.new, f.note] for f in failing]))
        if rest:
            parts.append(
                _folded(f"{len(rest)} told", _pipes(head, [[f.kind, f.where, f.old, f.new, f.note] for f in rest]))
            )
        if self.told:
            parts.append(_folded("the two builds", _pipes(["build", "old", "new"], [list(row) for row in self.told])))
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Everything, for other programs."""
        whole = {"sentence": self.sentence, "status": self.status, "identical": self.identical, "counts": self.counts}
        findings = [asdict(finding) | {"failing": finding.failing} for finding in self.findings]
        return json.dumps(whole | {"findings": findings, "builds": self.told}, indent=1, ensure_ascii=False)


def compare(old: Path, new: Path) -> Comparison:
    """Set two built sites side by side. CompareError for what is no site, or for sites of two scales."""
    before, after = read(old), read(new)
    scales = [site.build["scale"] for site in (before, after)]
    if scales[0] != scales[1]:
        raise CompareError(
            f"{old} is of scale {scales[0]}, {new} of scale {scales[1]}; "
            f"build both at the same: `threefactors book --scale {scales[0]}`"
        )
    verdicts, figures = list(_verdicts(before, after)), list(drift.figures(before, after))
    findings = sorted([*verdicts, *figures], key=lambda finding: list(_WORDS).index(finding.kind))
    same = sum(_said(before.claims[key]) == _said(after.claims.get(key, {})) for key in before.claims)
    equal = sum(after.figures.get(name) == data for name, data in before.figures.items())
    counts = {
        "verdicts": len(before.claims), "unchanged verdicts": same,
        "figures": len(before.figures), "same figures": equal,
    }  # fmt: skip
    whole = same == len(before.claims) == len(after.claims) and before.figures == after.figures
    return Comparison(findings, list(_builds(before.build, after.build)), counts, whole)


def _verdicts(old: Built, new: Built) -> Iterator[Finding]:
    for identity, entry in old.claims.items():
        where, was = _named(entry), _shown(entry)
        if identity not in new.claims:
            yield Finding("gone", where, was, "not judged", entry.get("chapter", ""))
            continue
        other = new.claims[identity]
        if entry["verdict"] != other["verdict"]:
            yield Finding("turned", where, was, _shown(other), other.get("reason") or "")
        if (outside := _outside(entry, other)) is not None:
            yield Finding("outside", where, was, _shown(other), outside)
        if entry["verdict"] == other["verdict"] and entry.get("n") != other.get("n"):
            yield Finding("moved", where, was, _shown(other), f"{entry.get('n')} seeds, now {other.get('n')}")
    for identity, entry in new.claims.items():
        if identity not in old.claims:
            yield Finding("new", _named(entry), "not judged", _shown(entry), entry.get("chapter", ""))


def _outside(old: Entry, new: Entry) -> str | None:
    """Why the new estimate does not lie within the old interval; None if it does, or if there is nothing to compare.

    A bound that is missing is open. An estimate that is no longer there lies in no interval.
    """
    value, bounds = new.get("estimate"), old.get("interval")
    if old.get("estimate") is None or bounds is None:
        return None
    if value is None:
        return "there is no estimate any more"
    low, high = bounds
    if low is not None and value < low:
        return f"{number(value)} is below {number(low)}"
    if high is not None and value > high:
        return f"{number(value)} is above {number(high)}"
    return None


def _builds(old: Entry, new: Entry) -> Iterator[tuple[str, str, str]]:
    """What the two were built from and on, where it differs, and what they took."""
    for name in ("commit", "date", "device", "machine", "python"):
        if old.get(name) != new.get(name):
            yield name, _plain(old.get(name)), _plain(new.get(name))
    packages = [site.get("packages", {}) for site in (old, new)]
    for name in sorted(packages[0].keys() | packages[1].keys(), key=str.lower):
        versions = [package.get(name, "none") for package in packages]
        if versions[0] != versions[1]:
            yield name, versions[0], versions[1]
    chapters = [site.get("chapters", {}) for site in (old, new)]
    for name in sorted(chapters[0].keys() | chapters[1].keys()):
        took = [f"{c[name]['seconds']:.0f} s" if name in c else "none" for c in chapters]
        if took[0] != took[1]:
            yield name, took[0], took[1]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):  # a commit, and whether there were changes beside it
        return f"{str(value.get('id'))[:10]}{' with changes' * bool(value.get('dirty'))}"
    return "none" if value is None else str(value)


def _said(entry: Entry) -> Entry:
    """A verdict without what is of the build: provenance."""
    return {name: value for name, value in entry.items() if name != "provenance"}


def _named(entry: Entry) -> str:
    return f"{entry['id']} ({', '.join(filter(None, (entry['protocol'], entry['arm'])))})"


def _shown(entry: Entry) -> str:
    return " ".join(filter(None, [entry["verdict"], number(entry.get("estimate")), interval(entry.get("interval"))]))


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths).rstrip(), *lines[1:]])


def _pipes(head: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("$", "\\$").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *escaped])


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
