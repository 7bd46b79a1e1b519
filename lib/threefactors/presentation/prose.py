"""Numbers and verdicts for use in a chapter's text, so that none has to be typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from myst_nb import glue as _glue

from threefactors.inference import SIMULATION, Interval, Verdict
from threefactors.inference.claim import POOLED

WITHIN = {SIMULATION: "in", POOLED: "over"}


def glue(**values: float | str | Interval) -> None:
    """Makes values available to the text as ``{glue:text}`name` ``; an interval also as name_low and name_high."""
    for name, value in values.items():
        if isinstance(value, Interval):
            glue(**{name: value.value, f"{name}_low": value.low, f"{name}_high": value.high})
        else:
            _glue(name, value if isinstance(value, str) else float(value), display=False)


class Reached(Protocol):
    """A verdict, or an entry of the ledger."""

    @property
    def verdict(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def arm(self) -> str: ...


def in_words(verdicts: Iterable[Reached]) -> str:
    """Where each verdict was reached: ``SUPPORTED at equal epochs (plain, batch norm); UNDECIDED at …``."""
    where: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts:
        where.setdefault(verdict.verdict, {}).setdefault(verdict.protocol, []).append(verdict.arm)
    parts = []
    for kind, protocols in where.items():
        places = " and ".join(
            f"{WITHIN.get(protocol, 'at')} {protocol}" + (f" ({', '.join(arms)})" if any(arms) else "")
            for protocol, arms in protocols.items()
        )
        parts.append(f"{kind} {places}")
    return "; ".join(parts)


def by_id(verdicts: Iterable[Verdict]) -> Mapping[str, list[Verdict]]:
    """The verdicts of each claim."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.id, []).append(verdict)
    return groups
