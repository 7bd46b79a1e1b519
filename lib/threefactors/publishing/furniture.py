"""The quiet lines of a page: where a figure comes from, what a chapter took and what it judges.

What is not known (a repository, a ledger, the data of a figure) is left out, so that no link leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from docutils import nodes

from threefactors.publishing import ledger, origins, repository
from threefactors.publishing.origins import Origin

BETWEEN = " · "
LEDGER = "90_ledger"
_CLAIM = re.compile(r'<span class="tf-claim">(.*?)</span>')
# two rings side by side, drawn here, in the color of the text
_RINGS = (
    '<svg aria-hidden="true" viewBox="0 0 26 16" width="20" height="12" fill="none" stroke="currentColor" '
    'stroke-width="3.5"><circle cx="8.5" cy="8" r="5.5"/><circle cx="17.5" cy="8" r="5.5"/></svg>'
)


class Furniture:
    """Makes the lines: ``origins`` of the chapters by page (``book/20_width``), ``anchors`` of the ledger's claims."""

    def __init__(self, root: Path) -> None:
        published = sorted((root / "book").glob("[0-9][0-9]_*.ipynb"))
        self.origins = {f"book/{path.stem}": origins.read(path) for path in published}
        self.repository = repository.find(root)
        page = root / "book" / f"{LEDGER}.ipynb"
        shown = page.read_text(encoding="utf-8") if page.is_file() else ""
        self.anchors = frozenset(re.findall(r'id=\\"(claim-[\w-]+)\\"', shown))

    def showing(self, figure: str) -> Origin | None:
        """The chapter that shows the figure of this name."""
        return next((origin for origin in self.origins.values() if figure in origin.figures), None)

    def under_figure(self, origin: Origin, table: str | None) -> nodes.paragraph:
        """Source, repetitions, machine, time and command; ``table``: the name under which its data are published."""
        file = origin.chapter.source.name
        source = link(file, self.repository.blob(f"book/{file}")) if self.repository else nodes.Text(file)
        at = [nodes.Text(f" at {origin.commit}")] if origin.commit else []
        took = f"chapter in {origin.took}" if origin.took else ""
        line = _line("tf-source", [[source, *at], *_words(origin.repetitions, origin.machine, took)])
        line += [nodes.Text(BETWEEN), nodes.literal("", origin.command)]
        if table is not None:
            _on_site(line, link("data (CSV)", f"../data/{table}.csv"))
        return line

    def under_title(self, origin: Origin) -> nodes.paragraph:
        """Scale, time, memory, machine, date, claims that the chapter judges; its notebook, and Colab."""
        scale, date, name = origin.own.get("scale"), origin.date, origin.chapter.name
        took = " and ".join(filter(None, (origin.took, origin.memory)))
        where = " on ".join(filter(None, (took, origin.machine)))
        parts = _words(f"{scale} scale" if scale else "", where, f"executed {date}" if date else "")
        if origin.claims:
            parts.append([nodes.Text("judges "), *_joined([[self._claim(c)] for c in origin.claims], ", ")])
        line = _line("tf-chapter", parts)
        _on_site(line, link("notebook", f"../notebooks/{name}.ipynb"))
        if self.repository and (colab := self.repository.colab_url(name)):
            badge = f'<a class="tf-colab" href="{escape(colab)}">{_RINGS} Open in Colab</a>'
            _on_site(line, nodes.raw("", badge, format="html"))
        return line

    def link_claims(self, html: str) -> str:
        """HTML of verdicts with their claims linked to the ledger."""

        def linked(found: re.Match[str]) -> str:
            anchor = ledger.anchor(found[1])
            known = anchor in self.anchors
            return f'<a class="tf-claim" href="{LEDGER}.html#{anchor}">{found[1]}</a>' if known else found[0]

        return _CLAIM.sub(linked, html)

    def _claim(self, claim: str) -> nodes.Node:
        anchor = ledger.anchor(claim)
        return link(claim, f"{LEDGER}.html#{anchor}") if anchor in self.anchors else nodes.Text(claim)


def link(text: str, address: str) -> nodes.reference:
    """A link within the site, relative to a chapter's page, or out of it."""
    return nodes.reference("", text, refuri=address, internal="://" not in address)


def _words(*texts: str) -> list[list[nodes.Node]]:
    return [[nodes.Text(text)] for text in texts if text]


def _joined(parts: Sequence[Sequence[nodes.Node]], between: str) -> list[nodes.Node]:
    spaced = [[nodes.Text(between), *part] for part in parts]
    return [node for part in spaced for node in part][1:]


def _line(kind: str, parts: Sequence[Sequence[nodes.Node]]) -> nodes.paragraph:
    return nodes.paragraph("", "", *_joined(parts, BETWEEN), classes=[kind])


def _on_site(line: nodes.paragraph, last: nodes.Node) -> None:
    """Add words that only the site has: a printed page leads to no file beside it."""
    between = [nodes.Text(BETWEEN)] if line.children else []
    line += nodes.inline("", "", *between, last, classes=["tf-site"])
