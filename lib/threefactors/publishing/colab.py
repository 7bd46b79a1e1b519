"""Executed chapters as plain notebooks: what a reader opens on Colab, or downloads.

A chapter's own notebook holds the markup of the site, which Colab shows as it stands, and needs the library. The clean
one is the same chapter in plain Markdown, with the same outputs; it installs what it needs and says what to expect.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from threefactors.presentation.prose import GLUED
from threefactors.publishing import crossrefs, opening, recording
from threefactors.publishing.chapters import SUMMARIES_FROM
from threefactors.publishing.crossrefs import Crossrefs
from threefactors.publishing.plain import Page
from threefactors.publishing.recorded import duration
from threefactors.publishing.repository import Repository

_OWN = "application/vnd.threefactors."  # verdicts, runs, figures' data: what other chapters read
_RELATIVE = re.compile(r'<a\b([^>]*?)\s+href="(?!https?:|mailto:|#)([^"]*)"([^>]*)>(.*?)</a>', re.DOTALL)


def write(book: Path, folder: Path, repository: Repository | None) -> None:
    """Write the clean notebook of every executed chapter in ``book`` as ``folder/NN_title.ipynb``.

    Errors: Missing where a chapter's text names a value, label or source that is nowhere in the book.
    """
    refs = crossrefs.gather(book, repository.site_url if repository else None)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(book.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        cleaned = clean(
            notebook, name=path.stem, repository=repository, refs=refs, record=at_paper_scale(book, path.stem)
        )
        nbformat.write(cleaned, folder / path.name)


def clean(
    notebook: NotebookNode,
    *,
    name: str,
    repository: Repository | None,
    refs: Crossrefs | None = None,
    record: str = "",
) -> NotebookNode:
    """The executed notebook of the chapter ``name`` as a plain one; a clean notebook comes back as it is.

    No MyST markup, values in sentences written out; first cells that say what this is and install the library; the
    parameters as a form; code that the page hides is folded. Outputs are kept, verdicts and runs included. ``refs``
    what the book's pages say of each other (None: what this one says of itself), ``record`` what the chapter took at
    scale ``paper``, in words. Errors: Missing for a value, label or source that is nowhere.
    """
    own = dict(notebook.metadata.get("threefactors", {}))
    if own.get("clean"):
        return copy.deepcopy(notebook)
    refs = refs or crossrefs.alone(name, notebook, repository.site_url if repository else None)
    page = Page(name, refs)
    sized = not any({"parameters", "remove-cell"} <= set(cell.metadata.get("tags", [])) for cell in notebook.cells)
    cells = [opening.about(name, own, repository, refs, opening.expect(own, record, sized))]
    cells.append(opening.setup(name, repository, int(name[:2]) >= SUMMARIES_FROM))
    for cell in copy.deepcopy(notebook.cells):
        cells += _text(cell, page) if cell.cell_type == "markdown" else _code(cell, page)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {
        "kernelspec": kernel,
        "language_info": {"name": "python"},
        "colab": {"provenance": [], "toc_visible": True},
        "threefactors": own | {"clean": True},
    }
    cleaned = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(cleaned)
    return cleaned


def at_paper_scale(book: Path, chapter: str) -> str:
    """What the chapter took at scale ``paper``, from its record: "took 3 h on NVIDIA …"; "" without one."""
    for one in recording.find(book, chapter):
        if isinstance(one, recording.Record) and one.about["scale"] == "paper" and not one.about["given"]:
            about = one.about
            memory = f"{about['peak_memory'] / 2**30:.1f} GiB"
            return f"took {duration(about['seconds'])} and {memory} of memory on {about['machine']['words']}"
    return ""


def _text(cell: NotebookNode, page: Page) -> list[NotebookNode]:
    cell.source = _RELATIVE.sub(lambda found: _absolute(found, page.refs.site), page.text(cell.source))
    cell.metadata = {}
    return [cell] if cell.source else []


def _code(cell: NotebookNode, page: Page) -> list[NotebookNode]:
    tags = set(cell.metadata.get("tags", []))
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
    cell.outputs = [kept for output in cell.outputs if (kept := _output(output, tags, page.refs.site))]
    if not cell.source.strip():
        return []
    if "parameters" in tags:
        cell.source = opening.form(cell.source)
        return [cell] if "remove-cell" in tags else [cell, opening.choices()]  # hidden: its scale changes nothing
    number = page.refs.places[figure["name"]].name if figure.get("name") in page.refs.places else ""
    if tags & {"remove-cell", "remove-input", "hide-input", "hide-cell"}:
        plain = "Code behind the text" if tags & {"remove-cell", "remove-input"} else "Code of what is shown below"
        opening.fold(cell, f"Code of figure {number}" if number else plain)
    if "caption" not in figure:
        return [cell]
    said = f"**Fig. {number}.** {page.inline(figure['caption'])}" if number else page.inline(figure["caption"])
    return [cell, nbformat.v4.new_markdown_cell(said, id=f"{cell['id']}-caption"[-64:])]


def _output(output: NotebookNode, tags: set[str], site: str | None) -> NotebookNode | None:
    """An output as it is kept: what was meant for sentences stands there, what the page hides is kept for its data."""
    data: dict[str, Any] = output.get("data", {})
    if any(mime.startswith(GLUED) for mime in data):
        return None
    if output.get("name") == "stderr" and "remove-stderr" in tags:
        return None
    if tags & {"remove-cell", "remove-output"} and not any(mime.startswith(_OWN) for mime in data):
        return None
    if "text/html" in data:
        data["text/html"] = _RELATIVE.sub(lambda found: _absolute(found, site), data["text/html"])
    return output


def _absolute(found: re.Match[str], site: str | None) -> str:
    before, target, after, text = found.groups()
    if site is None:
        return f"<span{before}{after}>{text}</span>"
    target = target.removeprefix("../") if target.startswith("../") else f"book/{target}"
    return f'<a{before} href="{site}{target}"{after}>{text}</a>'
