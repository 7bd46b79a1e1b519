"""Numbers and verdicts for use in a chapter's text, so that none has to be typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from threefactors.inference import SIMULATION, Interval, Verdict
from threefactors.inference.claim import POOLED

GLUED = "application/papermill.record/"  # media types of what is kept for the text: no front end shows them
WITHIN = {SIMULATION: "in", POOLED: "over"}


def glue(**values: float | str | Interval) -> None:
    """Makes values available to the text as ``{glue:text}`name` ``; an interval also as name_low and name_high."""
    for name, value in values.items():
        if isinstance(value, Interval):
            glue(**{name: value.value, f"{name}_low": value.low, f"{name}_high": value.high})
        else:
            glue_display(name, value if isinstance(value, str) else float(value))


def glue_display(name: str, value: object) -> None:
    """Makes what a notebook shows of ``value`` available to the text as ``name``, without showing it here.

    As myst-nb's own ``glue(name, value, display=False)``, which a reader of the notebook need not have.
    """
    from IPython.core.formatters import format_display_data  # here: nothing but a notebook needs it
    from IPython.display import display

    bundle, metadata = format_display_data(value)
    metadata["scrapbook"] = {"name": name, "mime_prefix": GLUED}
    display({GLUED + mime: data for mime, data in bundle.items()}, raw=True, metadata=metadata)


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
