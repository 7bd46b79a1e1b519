"""What pages of the book say of each other: titles, numbers of figures and equations, sources, values in the text.

Sphinx knows all this while it builds the site. A notebook that is read by itself, on Colab, has to bring it along in
words; so it is gathered here once more, from the same files, and numbered as the site numbers it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from threefactors.presentation.prose import GLUED

_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_TARGET = re.compile(r"^\(([^)\s]+)\)=\s*\n+(?:#+ +(.+))?", re.MULTILINE)
_EQUATION = re.compile(r"^\s*:label: *(\S+)|^\s*\$\$.*?\$\$ *\(([\w:-]+)\)", re.MULTILINE | re.DOTALL)
Bundle = Mapping[str, str]  # what a notebook shows of a value: text by media type
_CITED = {"arxiv": "https://arxiv.org/abs/{}", "doi": "https://doi.org/{}"}


class Missing(KeyError):
    """The text names a value, a label or a source that is nowhere in the book; the message says which."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Place:
    """Where a label points to: its ``page``, and how the text calls it there (``4.1``, or a heading)."""

    page: str
    name: str


@dataclass(frozen=True)
class Crossrefs:
    """``title`` of the book · of its pages the ``titles``, in order, and the chapter ``numbers`` · ``places`` by
    label · ``sources`` by key: author and year with their link, in Markdown · ``values`` that were made available to
    the text, by page and name · ``site``: address of the deployed site, or None."""

    title: str = "Three Factors Influencing Minima in SGD"
    titles: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Bundle]] = field(default_factory=dict)
    site: str | None = None

    def link(self, text: str, page: str, anchor: str = "") -> str:
        """The text as a link to a page of the site; the text alone where no site is known."""
        return f"[{text}]({self.site}book/{page}.html{anchor})" if self.site else text

    def value(self, page: str, name: str) -> Bundle:
        """What a page made available to the text under a name, by media type; Missing if it did not."""
        try:
            return self.values[page][name]
        except KeyError:
            raise Missing(f"{page} makes no value {name!r} available to the text; glue it there") from None

    def place(self, label: str) -> Place:
        """Where a label is; Missing if nowhere."""
        if label not in self.places:
            raise Missing(f"no page of the book has the label {label!r}")
        return self.places[label]


def gather(book: Path, site: str | None = None) -> Crossrefs:
    """Everything that pages in the folder ``book``, executed notebooks and Markdown, say of each other.

    Pages are numbered as _toc.yml beside the folder says. Errors: OSError for a page listed there that does not exist.
    """
    root = book.parent
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    listed = list(_listed(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))))
    pages = {name: _page(book, name) for name, _ in listed}
    numbers = {name: i for i, name in enumerate((name for name, numbered in listed if numbered), start=1)}
    bibliography = book / "references.bib"
    return Crossrefs(
        title=config["title"],
        titles={name: _title(page, name) for name, page in pages.items()},
        numbers=numbers,
        places=_places(pages, numbers),
        sources=citations(bibliography) if bibliography.is_file() else {},
        values={name: values(page) for name, page in pages.items()},
        site=site,
    )


def alone(name: str, page: NotebookNode, site: str | None = None) -> Crossrefs:
    """What one executed notebook says of itself, without the rest of the book."""
    pages = {name: page}
    titles = {name: _title(page, name)}
    return Crossrefs(titles=titles, places=_places(pages, {}), values={name: values(page)}, site=site)


def values(page: NotebookNode) -> dict[str, Bundle]:
    """What an executed notebook made available to the text, by name and media type."""
    glued: dict[str, Bundle] = {}
    for cell in page.cells:
        for output in cell.get("outputs", []):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                glued[name] = {mime.removeprefix(GLUED): text for mime, text in output.data.items()}
    return glued


def citations(bibliography: Path) -> dict[str, str]:
    """Of each entry its authors and its year with a link to arXiv or the DOI: ``[Li et al., 2015](https://…)``."""
    from pybtex.database import parse_file

    return {key: _cited(entry) for key, entry in parse_file(str(bibliography)).entries.items()}


def _cited(entry: Any) -> str:
    people = [
        "".join(
            str(part.text if hasattr(part, "text") else part) for part in (*p.rich_prelast_names, *p.rich_last_names)
        )
        for p in entry.persons.get("author", entry.persons.get("editor", []))
    ]
    names = f"{people[0]} et al." if len(people) > 2 else " and ".join(people)
    text, fields = f"{names}, {entry.fields.get('year', 'n.d.')}", entry.fields
    if "doi" in fields:
        return f"[{text}]({_CITED['doi'].format(fields['doi'])})"
    if "eprint" in fields:
        return f"[{text}]({_CITED['arxiv'].format(fields['eprint'])})"
    return f"[{text}]({fields['url']})" if "url" in fields else text


def _page(book: Path, name: str) -> NotebookNode:
    """A page as a notebook; Markdown is one cell of it."""
    if (executed := book / f"{name}.ipynb").is_file():
        return nbformat.read(executed, as_version=4)
    text = (book / f"{name}.md").read_text(encoding="utf-8")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def _title(page: NotebookNode, name: str) -> str:
    found = (_HEADING.search(cell.source) for cell in page.cells if cell.cell_type == "markdown")
    return next((match[1].strip() for match in found if match), name)


def _places(pages: Mapping[str, NotebookNode], numbers: Mapping[str, int]) -> dict[str, Place]:
    places: dict[str, Place] = {}
    counts: Counter[tuple[str, int | None]] = Counter()  # pages without a number share one count, as on the site
    for name, page in pages.items():
        chapter = numbers.get(name)
        prefix = "" if chapter is None else f"{chapter}."
        for kind, label in _numbered(page.cells):
            counts[kind, chapter] += 1
            places[label] = Place(name, f"{prefix}{counts[kind, chapter]}")
        for cell in page.cells:
            if cell.cell_type == "markdown":
                places |= {
                    m[1]: Place(name, (m[2] or _title(page, name)).strip()) for m in _TARGET.finditer(cell.source)
                }
    return places


def _numbered(cells: Iterable[NotebookNode]) -> Iterable[tuple[str, str]]:
    """Kind and label of what the site numbers, in order."""
    for cell in cells:
        if cell.cell_type == "markdown":
            yield from (("equation", match[1] or match[2]) for match in _EQUATION.finditer(cell.source))
        elif (figure := cell.metadata.get("mystnb", {}).get("figure", {})) and "caption" in figure:
            yield "figure", figure.get("name", cell.get("id", ""))


def _listed(toc: Any, numbered: bool = False) -> Iterable[tuple[str, bool]]:
    """Names of the pages in the order of the table of contents, and whether each is numbered."""
    for node in toc if isinstance(toc, list) else [toc]:
        here = bool(node.get("numbered", numbered))
        for key in ("root", "file"):
            if key in node:
                yield Path(node[key]).name, here and key == "file"
        for key in ("parts", "chapters", "sections"):
            yield from _listed(node.get(key, []), here)
