"""The book on paper: two small chapters, assembled and printed by a browser."""

import json
import shutil
from base64 import b64encode
from io import BytesIO

import pytest
from PIL import Image
from pypdf import PdfReader
from threefactors.cli import main
from threefactors.publishing import browser as browsers
from threefactors.publishing import build as builder
from threefactors.publishing import paper, pdf
from threefactors.publishing.browser import BrowserError
from threefactors.publishing.site import _copy_mathjax
from threefactors.settings import Settings

from tests.books import REPOSITORY, chapter, write_book

PAGE = """<html><head><script>window.MathJax = {{}}</script>
<script defer="defer" src="../_static/mathjax/tex-chtml-full.js"></script></head><body>
<nav>not to be printed</nav><article class="bd-article"><section id="law"><h1>{title}</h1>{body}</section></article>
</body></html>"""
ONE = r"""<p>Drift is <span class="math notranslate nohighlight">\(\eta\nabla L\)</span>, see <a
href="20_noise.html#law">the noise</a>, <a href="#law">above</a> and <a href="../data/one.csv">these data</a>.</p>
<figure><img alt="a square" src="data:image/png;base64,%s"></figure>
<details class="hide above-input"><summary>code</summary>plumbing()</details>
<details><summary>Proof</summary><p>It follows.</p></details>
<div class="tf-frames"><style>x{}</style><input type="radio" id="f-0"><label for="f-0">first</label>
<input type="radio" id="f-1" checked><label for="f-1">second</label>
<div class="tf-stage"><div>unseen frame</div><div>frame under its label</div></div></div>"""


@pytest.fixture
def built(tmp_path):
    """A site as jupyter-book leaves it, of an introduction and two chapters, one of which is listed under a part."""
    root = write_book(tmp_path / "root", c10_drift=chapter("1"), c20_noise=chapter("1"))
    (root / "_toc.yml").write_text(
        "root: book/intro\nparts:\n- caption: Theory\n  chapters:\n  - file: book/10_drift\n  - file: book/20_noise\n"
    )
    html = root / "_build" / "html"
    (html / "book").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "book" / "_static", html / "_static")
    _copy_mathjax(html / "_static" / "mathjax")
    Image.new("RGB", (8, 8), "navy").save(picture := BytesIO(), "png")
    bodies = {
        "intro": ("Welcome", ""),
        "20_noise": ("Noise", "<p>kicks</p>"),
        "10_drift": ("Drift", ONE % b64encode(picture.getvalue()).decode()),
    }
    for name, (title, body) in bodies.items():
        (html / "book" / f"{name}.html").write_text(PAGE.format(title=title, body=body))
    (html / "build.json").write_text(json.dumps({"date": "2026-02-03T04:05:06+00:00", "scale": "smoke"}))
    return root, html


def test_the_book_is_printed_in_order_with_equations_figures_and_bookmarks(built, browser_path):
    root, html = built
    reader = PdfReader(pdf.make(root, html))
    texts = [sheet.extract_text() for sheet in reader.pages]
    text = "\n".join(texts)
    places = [
        next(i for i, sheet in enumerate(texts[2:], 2) if title in sheet) for title in ("Welcome", "Drift", "Noise")
    ]
    assert places == sorted(set(places))
    assert all(str(place + 1) in texts[1] for place in places)  # the table of contents, on the second sheet
    assert "Theory" in texts[1]
    assert r"\(" not in text
    assert "nabla" not in text
    assert sum(len(sheet.images) for sheet in reader.pages) == 1
    assert [entry.title for entry in reader.outline if not isinstance(entry, list)] == ["Welcome", "Drift", "Noise"]
    assert reader.metadata.title == "Three Factors Influencing Minima in SGD"
    assert reader.metadata.author == "The threefactors authors"
    assert reader.metadata.creation_date.date().isoformat() == "2026-02-03"
    assert "../threefactors.pdf" in (html / "book" / "intro.html").read_text()
    assert not list(html.rglob("_paper*"))  # what was printed does not stay in the site


def test_what_paper_cannot_do_is_settled_beforehand(built):
    root, html = built
    found = paper.pages(root, html)
    assert [(caption, page.stem) for caption, page in found] == [
        ("", "intro"), ("Theory", "10_drift"), ("Theory", "20_noise"),
    ]  # fmt: skip
    text = paper.document(found, dict.fromkeys(("title", "author", "date", "edition"), "T"))
    assert "plumbing" not in text  # code that the page hides
    assert "unseen frame" not in text
    assert "frame under its label" in text
    assert '<details open="">' in text
    assert 'href="#20_noise--law"' in text
    assert 'href="#10_drift--law"' in text
    assert text.count('id="10_drift--law"') == text.count('id="20_noise--law"') == 1
    assert "one.csv" not in text
    assert "these data" in text
    assert "not to be printed" not in text


def test_without_a_browser_nothing_is_begun(tmp_path, monkeypatch, capsys):
    root = write_book(tmp_path / "root", c10_a=chapter("1"))
    monkeypatch.setenv(browsers.VARIABLE, "/no/such/chromium")
    with pytest.raises(BrowserError, match=r"/no/such/chromium is no program; name one by THREEFACTORS_BROWSER="):
        builder.build(root, scale="smoke", settings=Settings(root / "store"), pdf=True)
    assert main(["book", "--root", str(root), "--scale", "smoke", "--pdf"]) == 1
    assert "python -m playwright install chromium" in capsys.readouterr().err
    assert not list(root.glob("book/*.ipynb"))


def test_a_site_without_pages_is_refused(built, browser_path, tmp_path):
    with pytest.raises(ValueError, match=r"holds no page that _toc\.yml lists"):
        pdf.make(built[0], tmp_path)
