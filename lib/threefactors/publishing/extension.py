"""A Sphinx extension: it keeps the gate, and puts onto pages where their results come from.

Whoever calls jupyter-book, no site is made of notebooks that `fit` finds unfit. Under each figure that a chapter drew
stands a line of class ``tf-source``, under a chapter's title one of class ``tf-chapter`` (see `furniture`); verdicts
link to the ledger, and the ledger's badges find the place that they lead to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform

from threefactors.publishing import fit, ledger
from threefactors.publishing.furniture import Furniture
from threefactors.publishing.origins import Origin

_CHAPTER = r"(\d\d_\w+)\.html(#[\w-]+)?"


class Pages:
    """What Sphinx tells of, in order: the build begins, a page was read."""

    furniture: Furniture

    def begin(self, app: Sphinx) -> None:
        """ExtensionError, before a page is read, when the notebooks are not fit to be a site."""
        root = Path(app.srcdir)
        if problems := fit.problems(root):
            refused = "".join(f"\nERROR: {text}" for text in [*problems, fit.REMEDY])
            raise ExtensionError(refused)
        self.furniture = Furniture(root)

    def furnish(self, app: Sphinx, page: nodes.document) -> None:
        """Add the lines to a page, link its verdicts, and mark the places that the ledger leads to."""
        own = self.furniture.origins.get(app.env.docname)
        for figure, origin, table in list(self._figures(page, own)):
            _add(figure, self.furniture.under_figure(origin, table))
        section = next(page.findall(nodes.section), None)
        if own is None or section is None:
            return
        for raw in page.findall(nodes.raw):
            html = self.furniture.link_claims(raw.astext())
            raw.children = [nodes.Text(html)]
        _mark(section, own)
        section.insert(1, self.furniture.under_title(own))

    def _figures(self, page: nodes.document, own: Origin | None) -> Iterator[tuple[nodes.Element, Origin, str | None]]:
        """Each figure that a chapter drew, this one or another, with the name of its data."""
        tables = {cell: iter(names) for cell, names in own.data.items()} if own else {}
        for node in page.findall(lambda node: isinstance(node, nodes.figure) or _is_frames(node)):
            cell = _cell(node)
            if own and cell is not None:
                yield node, own, next(tables.get(cell, iter(())), None)
            elif other := next((child for child in node.children if type(child).__name__ in _BORROWED), None):
                name = str(other.get("figure", ""))
                origin = self.furniture.showing(name) or self.furniture.origins.get(other.get("refdoc", ""))
                if origin:
                    yield node, origin, name if any(name in names for names in origin.data.values()) else None


_BORROWED = ("Elsewhere", "PendingGlueReference")  # figures of another page: `again`, and MyST-NB's own


class Apart(SphinxPostTransform):
    """Makes pages right where they are no files of a site: one long page has its links within, others have none."""

    default_priority = 10  # what is pasted is there by now; links are not yet collected

    def run(self, **options: Any) -> None:
        """Nothing on the site itself."""
        if self.app.builder.name == "html":
            return
        for place in list(self.document.findall(lambda node: _has_class(node, "tf-site"))):
            place.parent.remove(place)
        whole = self.app.builder.name == "singlehtml"
        for link in list(self.document.findall(nodes.reference)):
            if found := re.fullmatch(_CHAPTER, link.get("refuri", "")):
                if whole:
                    link["refuri"] = _within(found)
                else:
                    link.replace_self(link.children)
        for raw in self.document.findall(nodes.raw) if whole else ():
            html = re.sub(f'(?<=href="){_CHAPTER}(?=")', _within, raw.astext())
            raw.children = [nodes.Text(html)]


def _within(found: re.Match[str]) -> str:
    return found[2] or f"#document-book/{found[1]}"


def _add(figure: nodes.Element, line: nodes.paragraph) -> None:
    if not isinstance(figure, nodes.figure):
        figure.parent.insert(figure.parent.index(figure) + 1, line)
    elif isinstance(figure[-1], nodes.legend):
        figure[-1] += line
    else:
        figure += nodes.legend("", line)


def _mark(section: nodes.section, own: Origin) -> None:
    """Give the first verdict on each claim an address; where its cell is not shown, that of the cell before."""
    cells = {node["cell_index"]: node for node in section.findall(_is_cell)}
    for claim, index in own.claims.items():
        before = [shown for shown in cells if shown <= index]
        target = nodes.target("", "", ids=[ledger.place(claim)])
        if before:
            cell = cells[max(before)]
            cell.parent.insert(cell.parent.index(cell), target)
        else:
            section.insert(1, target)


def _cell(node: nodes.Node | None) -> int | None:
    while node is not None and not _is_cell(node):
        node = node.parent
    return None if node is None else int(node["cell_index"])  # type: ignore[index]


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def _is_frames(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.container) or node.get("nb_element") != "mime_bundle":
        return False
    if isinstance(node.parent, nodes.figure):  # whose line is theirs
        return False
    return any('class="tf-frames' in raw.astext() for raw in node.findall(nodes.raw))


def _has_class(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Element) and name in node.get("classes", [])


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    pages = Pages()
    app.connect("builder-inited", pages.begin)
    app.connect("doctree-read", pages.furnish)
    app.add_post_transform(Apart)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
