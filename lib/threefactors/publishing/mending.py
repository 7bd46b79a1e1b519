"""What the theme's pages lack for those who read by keyboard or screen reader, or wait: mended in the finished pages.

The theme's templates spread these faults over several packages; the page is the one place where all of them are seen.
"""

from __future__ import annotations

import re
from pathlib import Path

_WITHOUT = (
    # the icons are drawn by a font: the scripts that would draw them again are 1.5 MB
    re.compile(r'\s*<script[^>]*src="[^"]*fontawesome\.js[^"]*"></script>'),
    re.compile(r'\s*<link rel="preload"[^>]*fontawesome[^>]*>'),
    # live code by a third party's kernel is not offered here, and its constant, declared twice, is an error
    re.compile(r'\s*<script[^>]*src="[^"]*sphinx-thebe\.js[^"]*"></script>'),
    re.compile(r"\s*<script>const THEBE_JS_URL.*?</script>", re.DOTALL),
    re.compile(r'\s*<script type="text/x-thebe-config">.*?</script>', re.DOTALL),
    re.compile(r"\s*<script>kernelName = '[^']*'</script>"),
)
_SEARCH = re.compile(r'<script (src="[^"]*(?:searchtools|language_data|searchindex)\.js")')
_CHANGES = (
    (' role="doc-biblioentry"', ' role="listitem"'),  # the older role is no child of the list around it
    ("<th></th>", "<td></td>"),  # a corner without a heading
    ('<div id="pst-primary-sidebar" ', '<div id="pst-primary-sidebar" role="region" aria-label="Sidebar" '),
)
_DRAWN_BY_SCRIPT = re.compile(r'<script[^>]*src="[^"]*mathjax[^"]*\.js"')
_ARTICLE = re.compile(r'<article class="bd-article"[^>]*>')
_NO_SCRIPTS = (
    '<noscript><p class="tf-noscript">Scripts are off: equations stand here as they are written, in TeX.</p></noscript>'
)


def mend(html: Path) -> None:
    """Mend every page of the built site in the folder ``html``.

    Left out is what no page needs: icon scripts beside the icon font, and live code. The search index, which is not
    needed until a reader searches, no longer holds the page up. Roles and headings become what a screen reader expects,
    and where equations are drawn by a script, a reader without scripts is told so.
    """
    for page in sorted(html.rglob("*.html")):
        if "_static" not in page.relative_to(html).parts:
            page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")


def mended(text: str) -> str:
    """The text of one page, mended; once is as good as twice.

    >>> mended('<div role="list"><div role="doc-biblioentry">')
    '<div role="list"><div role="listitem">'
    >>> mended('<script src="../searchindex.js"></script>')
    '<script defer src="../searchindex.js"></script>'
    """
    for pattern in _WITHOUT:
        text = pattern.sub("", text)
    text = _SEARCH.sub(r"<script defer \1", text)
    for former, better in _CHANGES:
        text = text.replace(former, better)
    if _DRAWN_BY_SCRIPT.search(text) and _NO_SCRIPTS not in text:
        text = _ARTICLE.sub(lambda found: found[0] + _NO_SCRIPTS, text, count=1)
    return text
