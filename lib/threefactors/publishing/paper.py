"""The pages of a built site as one document to print: in reading order, with a title page and a table of contents.

Each page's article is taken as it stands. Its anchors get the page's name as a prefix, so that links lead within the
document; what paper cannot do is settled: proofs are open, code that a page hides is left out, of the frames that a
reader moves through the one seen first is kept, and links out of the book into files of the site become plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup, Tag

_LEFT_OUT = (
    "script, noscript, style, .headerlink, button, details.above-input, .toctree-wrapper, .tf-site, .tf-noscript, "
    ".tf-frames > input, .tf-frames > label, .tf-frames > .tf-scale"
)
_ELSEWHERE = re.compile(r"[a-z]+:|//")


def pages(root: Path, html: Path) -> list[tuple[str, Path]]:
    """What _toc.yml lists and the site holds, in reading order: the caption of its part ("" if none), and the page."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    listed = ((caption, html / f"{name}.html") for caption, name in _listed(toc, ""))
    return [(caption, page) for caption, page in listed if page.is_file()]


def document(found: list[tuple[str, Path]], about: Mapping[str, str]) -> str:
    """HTML of the whole book, to stand beside the first page.

    found: as from ``pages``; about: ``title``, ``author``, ``date`` and ``edition`` for the title page. In the table of
    contents an empty ``span`` after each link is left for the number of the sheet.
    """
    first = BeautifulSoup(found[0][1].read_text(encoding="utf-8"), "html.parser")
    head = "".join(str(link) for link in first.select('head > link[rel="stylesheet"]'))
    texts = [page.read_text(encoding="utf-8") for _, page in found]
    math = next((scripts for text in texts if (scripts := _mathjax(text))), "")
    names = [page.stem for _, page in found]
    articles = {name: _article(name, text, names) for name, text in zip(names, texts, strict=True)}
    contents, part = [], ""
    for (caption, _), (name, article) in zip(found, articles.items(), strict=True):
        if caption != part:
            contents.append(f'<p class="tf-part">{escape(caption)}</p>')
            part = caption
        heading = article.find("h1")
        title = heading.get_text() if heading else name
        contents.append(f'<p><a href="#{name}">{escape(title)}</a><span></span></p>')
    title = escape(about["title"])
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{title}</title>{head}"
        f'<link rel="stylesheet" href="../_static/paper.css">{math}</head>'
        f'<body class="tf-paper"><div class="tf-title-page"><p class="tf-title">{title}</p>'
        f"<p>{escape(about['author'])}</p><p>{escape(about['date'])}</p><p>{escape(about['edition'])}</p></div>"
        f'<nav class="tf-contents"><p class="tf-title">Contents</p>{"".join(contents)}</nav>'
        f'<main class="bd-content">{"".join(map(str, articles.values()))}</main></body></html>'
    )


def _listed(node: Any, caption: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from _listed(item, caption)
    elif isinstance(node, dict):
        caption = node.get("caption", caption)
        yield from ((caption, node[key]) for key in ("root", "file") if key in node)
        for value in node.values():
            yield from _listed(value, caption)


def _mathjax(text: str) -> str:
    """The scripts that draw a page's equations; nothing where it has none."""
    return "".join(re.findall(r'<script>window\.MathJax.*?</script>|<script[^>]*src="[^"]*mathjax/.*?</script>', text))


def _article(name: str, text: str, names: list[str]) -> Tag:
    """One page's article as a chapter of the document, under the anchor ``name``."""
    article = BeautifulSoup(text, "html.parser").select_one("article")
    if article is None:
        raise ValueError(f"{name}.html holds no article; is it a page of the book?")
    for frames in article.select(".tf-frames"):
        _keep_one_frame(frames)
    for useless in article.select(_LEFT_OUT):
        useless.decompose()
    for fold in article.select("details"):
        fold["open"] = ""
    for anchored in article.select("[id]"):
        anchored["id"] = f"{name}--{anchored['id']}"
    for attribute in ("aria-labelledby", "aria-describedby", "for"):
        for tag in article.select(f"[{attribute}]"):
            del tag[attribute]
    for link in article.select("a[href]"):
        _lead(link, name, names)
    article["id"] = name
    return article


def _keep_one_frame(frames: Tag) -> None:
    buttons, pictures = frames.select(":scope > input"), frames.select(":scope > .tf-stage > *")
    seen = next((i for i, button in enumerate(buttons) if button.has_attr("checked")), len(pictures) // 2)
    for i, picture in enumerate(pictures):
        if i != seen:
            picture.decompose()


def _lead(link: Tag, name: str, names: list[str]) -> None:
    """Let a link lead to its target within the document, or out to the web; otherwise make it plain text."""
    target = str(link["href"])
    if _ELSEWHERE.match(target):
        return
    path, _, anchor = target.partition("#")
    page = Path(unquote(path)).name.removesuffix(".html") if path else name
    if page in names and (not path or path.endswith(".html")):
        link["href"] = f"#{page}--{anchor}" if anchor else f"#{page}"
    else:
        link.unwrap()
