"""The links of a built site: those inside it that lead nowhere, and those that lead out of it.

``python -m threefactors.publishing.links _build/html`` prints what lies outside, one address a line, for a program that
asks whether it is still there; what is dead inside goes to standard error, with exit status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import SplitResult, unquote, urlsplit

_ATTRIBUTES = ("href", "src", "action", "data")  # of a, area, link; img, script, iframe; the search form; object
_WEB = ("http", "https")
_NO_PAGES = ("_static/",)  # what lies there are a theme's templates, which no reader opens


def dead(html: Path) -> list[str]:
    """What in a built site points at nothing, one sentence for each page and target; empty when all is well.

    html: the folder of the site. Looked at: links, pictures, scripts, style sheets, forms that stay in the site, with
    their anchors, on the same page or another, letter for letter: a server's disk tells case apart, whatever the one
    does on which the site was built. An address that begins with a slash counts as dead, since the site may lie in a
    folder of its server. Errors: ValueError for a folder without pages.
    """
    site = _Site(html)
    found = {f"{page}: {said}" for page, target in site.links() if (said := site.complaint(page, target))}
    return sorted(found)


def external(html: Path) -> dict[str, list[str]]:
    """Addresses on the web that a built site links to, each with the pages that do; without their ``#anchors``.

    html: the folder of the site. Errors: as ``dead``.
    """
    pages: dict[str, set[str]] = {}
    for page, target in _Site(html).links():
        if target.scheme in _WEB or (target.netloc and not target.scheme):
            address = target._replace(scheme=target.scheme or "https", fragment="").geturl()
            pages.setdefault(address, set()).add(page)
    return {address: sorted(pages[address]) for address in sorted(pages)}


class _Site:
    """The files of a site by their exact names, and its pages, each read once."""

    def __init__(self, html: Path) -> None:
        self.files = {path.relative_to(html).as_posix() for path in html.rglob("*") if path.is_file()}
        names = sorted(n for n in self.files if n.endswith(".html") and not n.startswith(_NO_PAGES))
        if not names:
            raise ValueError(f"{html} holds no page; name the folder of a built site, such as _build/html")
        self.pages = {name: _Page((html / name).read_text(encoding="utf-8")) for name in names}

    def links(self) -> Iterator[tuple[str, SplitResult]]:
        """Each page with each of its targets."""
        for name, page in self.pages.items():
            yield from ((name, urlsplit(target)) for target in page.targets)

    def complaint(self, page: str, target: SplitResult) -> str | None:
        """What is wrong with a target, None if nothing is or it does not stay in the site."""
        if target.scheme or target.netloc:
            return None
        shown = repr(target.geturl())
        path, anchor = unquote(target.path), target.fragment
        if path.startswith("/"):
            return f"{shown} begins with a slash and leaves the site if that lies in a folder; write it from the page"
        file = normpath(PurePosixPath(page).parent / path) if path else page
        if path.endswith("/") or (path and file in self._folders):
            file = normpath(PurePosixPath(file) / "index.html")
        if file not in self.files:
            return f"{shown} leads to {file}, which is not in the site{_but(file, self.files)}"
        if anchor in ("", "top") or file not in self.pages or anchor.startswith(":~:"):
            return None  # the top of a page, what only a browser can see, or words to find
        ids = self.pages[file].ids
        if anchor in ids or unquote(anchor) in ids:
            return None
        return f"{shown} leads to an anchor that {file} does not have{_but(unquote(anchor), ids)}"

    @cached_property
    def _folders(self) -> set[str]:
        return {parent.as_posix() for name in self.files for parent in PurePosixPath(name).parents}


class _Page(HTMLParser):
    """What one page points at, in ``targets``, and what can be pointed at in it, in ``ids``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: (value or "").strip() for name, value in attrs}
        self.ids |= {own[name] for name in ("id", "name" if tag == "a" else "id") if name in own}
        self.targets |= {own[name] for name in _ATTRIBUTES if own.get(name) and not own[name].startswith("data:")}
        self.targets |= {part.split()[0] for part in own.get("srcset", "").split(", ") if part.strip()}
        if own.get("http-equiv", "").lower() == "refresh" and "=" in own.get("content", ""):
            self.targets.add(own["content"].partition("=")[2].strip(" '\""))

    handle_startendtag = handle_starttag


def _but(missing: str, there: set[str]) -> str:
    """The remedy where only upper and lower case differ."""
    near = [name for name in sorted(there) if name.lower() == missing.lower()]
    return f"; there is {near[0]}, and case counts" if near else ""


def main(words: list[str]) -> int:
    """Print the addresses outside the site; 1 where links inside it are dead, 2 for a folder that is no site."""
    if len(words) != 1:
        print("usage: python -m threefactors.publishing.links _build/html", file=sys.stderr)
        return 2
    try:
        outside, broken = external(Path(words[0])), dead(Path(words[0]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(outside))
    print(*broken, sep="\n", end="\n" if broken else "", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
