"""The whole book as one PDF: the site's pages, assembled by `threefactors.publishing.paper`, printed by a browser."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pypdf import PdfReader, PdfWriter

from threefactors.publishing import browser, paper

NAME = "threefactors.pdf"
_WORK = "_paper.html"  # beside the pages while it is printed, so that their pictures are found
_FOOTER = (
    '<div style="width:100%;text-align:center;font:8pt sans-serif;color:#444"><span class="pageNumber"></span></div>'
)
_DRAWN = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"
_NUMBER = """numbers => {
  for (const [name, number] of Object.entries(numbers))
    document.querySelector(`.tf-contents a[href="#${name}"] + span`).textContent = number;
}"""
_LINE = '<p class="tf-pdf"><a class="reference internal" href="{href}">The whole book as a PDF</a> ({size:.0f} MB)</p>'


def make(root: Path, html: Path) -> Path:
    """Print the site in the folder ``html`` to ``html/threefactors.pdf``, and link it from the first page.

    root: the repository, for _toc.yml and _config.yml. Printed twice: where the chapters begin is known only after
    the first time, and stands in the table of contents the second. Returns the path of the PDF. Errors: BrowserError
    when there is no browser to print with; ValueError when the site holds no page of the book.
    """
    browser.require()
    found = paper.pages(root, html)
    if not found:
        raise ValueError(f"{html} holds no page that _toc.yml lists; build the site first: threefactors book")
    about, first, final = _about(root, html), found[0][1], html / NAME
    work = first.with_name(_WORK)
    try:
        with browser.served(html) as address, browser.opened() as chromium:
            url = address + work.relative_to(html).as_posix()
            work.write_text(paper.document(found, about), encoding="utf-8")
            page = chromium.new_page(color_scheme="light")
            page.set_default_timeout(0)  # hundreds of pages take as long as they take
            page.goto(url, wait_until="load")
            page.evaluate(_DRAWN)
            page.pdf(path=final, **_PRINT)
            page.evaluate(_NUMBER, _beginnings(final, [place.stem for _, place in found]))
            page.pdf(path=final, **_PRINT)
    finally:
        work.unlink(missing_ok=True)
    _sign(final, about)
    _link(first, final)
    return final


_PRINT: dict[str, Any] = {
    "format": "A4",
    "print_background": True,
    "outline": True,  # bookmarks, from the headings
    "tagged": True,  # for screen readers
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": _FOOTER,
    "margin": {"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"},
}


def _about(root: Path, html: Path) -> dict[str, str]:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    record = html / "build.json"
    built = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    known = built.get("commit")  # where git knows the working tree: its id, and whether it was changed since
    commit = f", commit {known['id'][:10]}{' with changes' if known['dirty'] else ''}" if known else ""
    edition = f"executed at {built['scale']} scale{commit}" if built else ""
    day = built.get("date") or date.today().isoformat()
    return {"title": config["title"], "author": config["author"], "date": day[:10], "edition": edition}


def _beginnings(pdf: Path, names: list[str]) -> dict[str, int]:
    """Page name → number of the sheet on which it begins, from the anchors that links lead to."""
    reader = PdfReader(pdf)
    targets = reader.named_destinations
    places = {name: targets.get(name) or targets.get(f"/{name}") for name in names}
    numbers = {name: reader.get_destination_page_number(place) for name, place in places.items() if place}
    return {name: number + 1 for name, number in numbers.items() if number is not None}


def _sign(pdf: Path, about: dict[str, str]) -> None:
    writer = PdfWriter(clone_from=pdf)
    stamp = "D:" + about["date"].replace("-", "") + "000000Z"
    writer.add_metadata({"/Title": about["title"], "/Author": about["author"], "/CreationDate": stamp})
    writer.write(pdf)


def _link(page: Path, pdf: Path) -> None:
    text = page.read_text(encoding="utf-8")
    line = _LINE.format(href=f"../{pdf.name}", size=pdf.stat().st_size / 1e6)
    page.write_text(text.replace("</h1>", f"</h1>\n{line}", 1), encoding="utf-8")
