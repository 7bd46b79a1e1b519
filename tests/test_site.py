"""The whole way once, with tiny chapters and the book's own ledger page; then what must not pass."""

import json
import os
import re
import shutil
import subprocess

import nbformat
import pytest
import yaml
from threefactors.publishing import site
from threefactors.publishing.build import build
from threefactors.publishing.chapters import ChapterError
from threefactors.publishing.site import SiteError
from threefactors.settings import Settings

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings its forerunner
    import tomli as tomllib

from tests.books import REPOSITORY, chapter, showing, verdict, write_book

INTRO = """# A book

On it: {glue:text}`90_ledger.ipynb::ledger-sentence:s`

```{glue:} ledger-glance
:doc: 90_ledger.ipynb
```
"""
LAW = chapter(showing(verdict(), verdict(id="C4", verdict="REFUTED")), "from math import pi\npi")
LAW = LAW.replace("# # A law", "# # A law\n#\n# $$ \\theta' = \\theta - \\eta g $$ (law)\n#\n# See {eq}`law`.")


def make(root, **options):
    return build(root, scale="smoke", settings=Settings(root / "store"), **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    ledger = (REPOSITORY / "book" / "90_ledger.py").read_text(encoding="utf-8")
    root = write_book(tmp_path_factory.mktemp("site") / "book", c10_law=LAW, c90_ledger=ledger)
    (root / "book" / "intro.md").write_text(INTRO)
    (root / "book" / "notation.md").write_text("# Notation\n")
    (root / "_toc.yml").write_text((root / "_toc.yml").read_text() + "  - file: book/notation\n")
    shutil.copytree(REPOSITORY / "book" / "_static", root / "book" / "_static")
    return root, make(root)


def test_the_front_page_leads_to_the_introduction(built):
    root, report = built
    assert report.failures == []
    assert report.page == root / "_build" / "html" / "index.html"
    assert "url=book/intro.html" in report.page.read_text()


def test_the_introduction_shows_the_ledger_of_another_page(built):
    html = (built[0] / "_build" / "html" / "book" / "intro.html").read_text()
    assert "2 verdicts on 2 claims: 1 supported, 1 refuted." in html
    assert html.count('class="tf-badge') == 2
    assert 'href="10_law.html"' in html


def test_reading_needs_no_third_party(built):
    html = built[0] / "_build" / "html"
    pages = "".join(page.read_text() for page in html.rglob("*.html"))
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', pages)
    assert "mathjax/tex-chtml-full.js" in (html / "book" / "10_law.html").read_text()
    assert (html / "_static" / "mathjax" / "tex-chtml-full.js").stat().st_size > 1e6
    assert list((html / "_static" / "mathjax" / "output" / "chtml" / "fonts").rglob("*.woff"))
    assert "custom.css" in pages


def test_the_site_carries_the_ledger_and_what_it_was_built_with(built):
    html = built[0] / "_build" / "html"
    entries = json.loads((html / "claims.json").read_text())
    assert [(e["id"], e["scale"], e["chapter"]) for e in entries] == [
        ("C3", "smoke", "10_law"),
        ("C4", "smoke", "10_law"),
    ]
    record = json.loads((html / "build.json").read_text())
    assert record["chapters"].keys() == {"10_law", "90_ledger"}
    assert all(c["seconds"] > 0 and c["peak_memory"] > 1e7 for c in record["chapters"].values())
    assert (record["scale"], record["device"]) == ("smoke", "cpu")
    assert record["packages"].keys() >= {"torch", "jupyter-book", "numpy"}


def test_a_warning_fails_the_build_and_leaves_the_former_site(built):
    root, _ = built
    former = (root / "_build" / "html" / "build.json").read_text()
    (root / "book" / "intro.md").write_text(INTRO + "\nSee {doc}`nowhere`.\n")
    try:
        with pytest.raises(SiteError, match=r"intro\.md.*nowhere"):
            make(root)
    finally:
        (root / "book" / "intro.md").write_text(INTRO)
    assert (root / "_build" / "html" / "build.json").read_text() == former
    times = {p.stem: nbformat.read(p, 4).metadata["threefactors"]["date"] for p in root.glob("book/*.ipynb")}
    assert times.keys() == {"10_law", "90_ledger"}  # the chapters were not executed again for it
    assert make(root).page == built[1].page  # mended, it takes the place of the former one
    assert (root / "_build" / "html" / "build.json").read_text() != former


def test_one_chapter_fails_and_the_others_are_executed(tmp_path):
    root = write_book(tmp_path / "book", c10_bad=chapter("1 / 0"), c20_good=chapter("1"), c90_sum=chapter("1"))
    report = make(root)
    assert [e.chapter.name for e in report.executions] == ["20_good"]
    assert len(report.failures) == 1
    assert "10_bad: cell 3 raised ZeroDivisionError" in report.failures[0]
    assert report.page is None
    assert not (root / "_build" / "html").exists()
    alone = make(root, only=["20"])  # up to date; and since 10 never ran, there is no whole site to build
    assert alone.executions[0].cached
    assert "10_bad not executed" in alone.why_no_site
    assert alone.failures == []


def test_a_toc_that_does_not_match_the_chapters_is_refused(tmp_path):
    root = write_book(tmp_path / "book", c10_a=chapter("1"))
    (root / "book" / "20_b.py").write_text(chapter("2"))
    with pytest.raises(SiteError, match="does not list book/20_b"):
        site.require_toc(root)
    (root / "book" / "20_b.py").rename(root / "book" / "10_a.py")
    (root / "_toc.yml").write_text("root: book/intro\nchapters:\n- file: book/10_a\n- file: book/30_c\n")
    with pytest.raises(SiteError, match=r"lists book/30_c, but there is no book/30_c\.py"):
        site.require_toc(root)


def test_no_chapter_at_all_is_an_error(tmp_path):
    with pytest.raises(ChapterError, match="holds no chapter"):
        make(write_book(tmp_path / "book"))


@pytest.fixture
def bare(tmp_path, monkeypatch):
    for name in ("GITHUB_REPOSITORY", "THREEFACTORS_NOTEBOOKS_BRANCH"):
        monkeypatch.delenv(name, raising=False)
    return write_book(tmp_path / "book", c10_a=chapter("1"))


def test_without_a_repository_there_are_no_dead_buttons(bare):
    config = site.configuration(bare)
    assert "repository" not in config
    assert "launch_buttons" not in config
    assert not config["html"]["use_repository_button"]


def test_the_repository_comes_from_the_environment_or_the_remote(bare, monkeypatch):
    git = ["git", "-C", str(bare)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "git@github.com:someone/book.git"], check=True)
    assert site.configuration(bare)["repository"]["url"] == "https://github.com/someone/book"
    monkeypatch.setenv("GITHUB_REPOSITORY", "else/where")
    assert site.configuration(bare)["repository"]["url"] == "https://github.com/else/where"


def test_colab_needs_a_branch_that_holds_executed_notebooks(bare, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "some/one")
    assert "launch_buttons" not in site.configuration(bare)
    monkeypatch.setenv("THREEFACTORS_NOTEBOOKS_BRANCH", "executed")
    config = site.configuration(bare)
    assert config["repository"]["branch"] == "executed"
    assert "colab" in config["launch_buttons"]["colab_url"]


def test_jupyter_book_never_executes_a_notebook():
    config = yaml.safe_load((REPOSITORY / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert config["only_build_toc_files"]


def names(requirements):
    return {re.split(r"[<>=!~\[ ]", line)[0].lower(): line for line in requirements}


def test_requirements_hold_every_dependency_with_the_same_range():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    required = names(line for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = names(project["dependencies"] + extras["book"] + extras["test"])
    assert declared == required


def test_ci_calls_exactly_the_two_commands():
    lines = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make")] == ["make test", "make book"]
    assert "set -euo pipefail" in lines
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
