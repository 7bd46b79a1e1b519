"""What the Sphinx extension puts onto pages, what it leaves out, and that nobody builds a site past the gate."""

import re
from io import StringIO

import nbformat
import pytest
import yaml
from nbformat.v4 import new_markdown_cell, new_output
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace
from threefactors.presentation.drawn import FIGURE_MIME
from threefactors.publishing import fit, origins
from threefactors.publishing.furniture import Furniture
from threefactors.publishing.ledger import Table, collect
from threefactors.publishing.records import RUNS_MIME

from tests.books import HEAD, REPOSITORY, notebook, publish, shown, verdict

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
INTRO = """# A book

```{toctree}
10_law
90_ledger
92_sum
```

```{figure-again} fig-law
:name: fig-again
The same once more.
```
"""
OWN = {
    "commit": {"id": "a754b8c" + 33 * "0", "dirty": False}, "machine": "CPU (x86_64, AVX512)", "seconds": 13.2,
    "peak_memory": 1 << 30, "date": "2026-11-22T08:00:00+00:00",
}  # fmt: skip


def drawn(name=None, **data):
    """An output with the data of a figure beside it."""
    table = {"columns": ["x"], "data": [[1.0]], "labels": {}} | ({"name": name} if name else {})
    return new_output("display_data", data={FIGURE_MIME: table, "text/plain": "a figure", **data})


def page(executed, title="A law"):
    executed.cells.insert(0, new_markdown_cell(f"# {title}"))
    return executed


def law(**own):
    """A chapter with a figure, a widget of frames, two verdicts, of which one is not shown, and runs that it keeps."""
    judged, hidden = shown(verdict()), shown(verdict(id="C4"))
    judged.data["text/html"] = '<p><span class="tf-claim">C3</span></p>'
    runs = new_output("display_data", data={RUNS_MIME: {"columns": ["seed"], "data": [[s % 8] for s in range(24)]}})
    frames = drawn("fig-cloud", **{"text/html": '<div class="tf-frames">frames</div>'})
    executed = notebook([drawn(**{"image/png": PIXEL})], [frames], [judged], [hidden], [runs], **OWN | own)
    executed.cells[1].metadata["mystnb"] = {"figure": {"name": "fig-law", "caption": "A caption."}}
    executed.cells[4].metadata.tags.append("remove-cell")
    return page(executed)


def write(root, **own):
    """A book with that chapter, a ledger and a summary that draws a figure."""
    publish(root, "10_law", law(**own))
    html = {"text/html": Table(collect(root / "book"))._repr_html_()}
    publish(root, "90_ledger", page(notebook([new_output("display_data", data=html)]), "The ledger"))
    publish(root, "92_sum", page(notebook([drawn("fig-sum", **{"text/html": '<div class="tf-frames"></div>'})])))
    (root / "book" / "intro.md").write_text(INTRO)
    return root


def sphinx(root, builder="html"):
    """Everything that Sphinx makes of a book, by name of the page."""
    settings = {
        "extensions": ["myst_nb", "threefactors.publishing.again", "threefactors.publishing.extension"],
        "root_doc": "book/intro", "html_theme": "basic", "nb_execution_mode": "off", "numfig": True,
        "include_patterns": ["book/*.md", "book/*.ipynb"], "suppress_warnings": ["mystnb.unknown_mime_type"],
    }  # fmt: skip
    out, warnings = root / builder, StringIO()
    with docutils_namespace():
        Sphinx(root, None, out, root / "doctrees", builder, settings, None, warnings).build()
    assert "WARNING" not in warnings.getvalue(), warnings.getvalue()
    return {path.stem: path.read_text() for path in out.rglob("*.html")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("GITHUB_REPOSITORY", "someone/book")
    patch.setenv("THREEFACTORS_NOTEBOOKS_BRANCH", "notebooks")
    root = write(tmp_path_factory.mktemp("book"))
    yield sphinx(root), sphinx(root, "singlehtml")["intro"]
    patch.undo()


def lines(html, kind):
    """The text of each line of that kind."""
    found = re.findall(f'<p class="{kind}">(.*?)</p>', html, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", line) for line in found]


def test_under_each_figure_stands_where_it_comes_from(pages):
    html = pages[0]["10_law"]
    said = "10_law.py at a754b8c · 8 seeds · CPU (x86_64, AVX512) · chapter in 13 s · threefactors book --only 10"
    assert lines(html, "tf-source") == 2 * [f"{said} · data (CSV)"]
    figure, frames = (html.index(f'href="../data/{name}.csv"') for name in ("fig-law", "fig-cloud"))
    assert html.index("A caption.") < figure < html.index("</figure>") < html.index('class="tf-frames"') < frames
    assert 'href="https://github.com/someone/book/blob/' in html
    assert "/book/10_law.py" in html


def test_a_figure_of_another_page_says_whose_it_is(pages):
    (line,) = lines(pages[0]["intro"], "tf-source")
    assert line.startswith("10_law.py at a754b8c · 8 seeds")
    assert 'href="../data/fig-law.csv"' in pages[0]["intro"]


def test_a_summary_is_made_by_the_whole_build_and_what_is_unknown_is_left_out(pages):
    (line,) = lines(pages[0]["92_sum"], "tf-source")
    assert line == "92_sum.py · cpu · chapter in 2 s · threefactors book · data (CSV)"


def test_under_the_title_stands_what_the_chapter_took_and_judges(pages):
    html = pages[0]["10_law"]
    (line,) = lines(html, "tf-chapter")
    took = "laptop scale · 13 s and 1.0 GiB on CPU (x86_64, AVX512) · executed 2026-11-22"
    assert re.sub(r"\s+", " ", line) == f"{took} · judges C3, C4 · notebook · Open in Colab"
    assert html.index("</h1>") < html.index('class="tf-chapter"') < html.index("A caption.")
    assert 'href="../notebooks/10_law.ipynb"' in html
    assert 'href="https://colab.research.google.com/github/someone/book/blob/notebooks/book/10_law.ipynb"' in html
    assert not re.search(r'<(img|script|link)[^>]+="https?://', html)  # the badge is ours


def test_claims_lead_to_the_ledger_and_the_ledger_to_the_place_on_the_page(pages):
    html, register = pages[0]["10_law"], pages[0]["90_ledger"]
    assert '<a class="tf-claim" href="90_ledger.html#claim-C3">C3</a>' in html
    for claim in ("C3", "C4"):  # the cell of the second is not shown; its place is that of the cell before
        assert f'href="90_ledger.html#claim-{claim}"' in html
        assert register.count(f'id="claim-{claim}"') == 1
        assert f'href="10_law.html#verdict-{claim}"' in register
        assert html.count(f'id="verdict-{claim}"') == 1
    assert html.index('id="verdict-C3"') < html.index('class="tf-claim"')


def test_one_long_page_links_within_itself_and_to_no_file(pages):
    html = pages[1]
    assert len(lines(html, "tf-source")) == 4
    assert "notebook" not in " ".join(lines(html, "tf-chapter"))
    assert not re.search(r'href="(\d\d_|\.\./)', html)
    inside = set(re.findall(r'href="#([^"]+)"', html))
    assert inside >= {"claim-C3", "claim-C4", "verdict-C3", "verdict-C4"}
    assert inside <= set(re.findall(r'id="([^"]+)"', html))


@pytest.fixture
def _alone(monkeypatch):
    for name in ("GITHUB_REPOSITORY", "THREEFACTORS_NOTEBOOKS_BRANCH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_alone")
def test_without_a_ledger_and_a_repository_there_are_no_links_to_them(tmp_path):
    publish(tmp_path, "10_law", law())
    furniture = Furniture(tmp_path)
    (origin,) = furniture.origins.values()
    shown_ = f"{furniture.under_title(origin)}{furniture.under_figure(origin, None)}"
    assert re.findall(r'refuri="(.*?)"', shown_) == ["../notebooks/10_law.ipynb"]
    assert "judges C3, C4" in furniture.under_title(origin).astext()
    html = '<span class="tf-claim">C3</span>'
    assert furniture.link_claims(html) == html


@pytest.mark.usefixtures("_alone")
def test_a_page_of_which_nothing_is_known_has_no_empty_words(tmp_path):
    one = publish(tmp_path, "10_law", page(notebook([])))
    origin = origins.Origin(one, {})
    furniture = Furniture(tmp_path)
    assert furniture.under_figure(origin, None).astext() == "10_law.py · threefactors book --only 10"
    assert furniture.under_title(origin).astext() == "notebook"


@pytest.mark.parametrize(
    ("own", "command"),
    [
        ({}, "threefactors book --only 10"),
        ({"scale": "smoke"}, "threefactors book --only 10 --scale smoke"),
        ({"device": "cuda", "data": "0123"}, "threefactors book --only 10 --device cuda --data DIR"),
        ({"parameters": {"scale": "laptop", "seeds": 3}}, "threefactors book --only 10 -p seeds=3"),
    ],
)
def test_the_command_makes_the_same_again(tmp_path, own, command):
    one = publish(tmp_path, "10_law", notebook([]))
    assert origins.Origin(one, own).command == command


def test_changes_beside_the_commit_are_told(tmp_path):
    one = publish(tmp_path, "10_law", notebook([]))
    assert origins.Origin(one, {"commit": {"id": "a754b8c00", "dirty": True}}).commit == "a754b8c with changes"


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([], ""),
        ([shown(verdict(n=64)), shown(verdict(id="C4", n=8))], "8–64 repetitions"),
        ([shown(verdict(n=1))], "1 repetition"),
        ([shown(verdict(n=64)), new_output("display_data", data={RUNS_MIME: {"columns": ["seed"], "data": [[0]]}})],
         "1 seed"),
    ],
)  # fmt: skip
def test_repetitions_are_the_seeds_of_the_runs_or_those_behind_the_verdicts(outputs, said):
    assert origins.repetitions(notebook(outputs)) == said


def test_jupyter_book_called_by_hand_is_refused_what_is_not_fit(tmp_path):
    """The build begins, and ends before it reads a page: here the source was edited after its execution."""
    publish(tmp_path, "10_law", page(notebook([])))
    (tmp_path / "book" / "intro.md").write_text("# A book\n\n```{toctree}\n10_law\n```\n")
    assert "10_law" in sphinx(tmp_path)
    (tmp_path / "book" / "10_law.py").write_text(HEAD + "\n# %%\n2\n")
    with pytest.raises(ExtensionError, match=r"10_law\.py has changed since(.|\n)*`threefactors book` executes"):
        sphinx(tmp_path)
    assert not fit.metadata(tmp_path / "book" / "11_nowhere.ipynb")


def test_the_book_is_built_with_the_extension_and_keeps_the_other_options():
    config = yaml.safe_load((REPOSITORY / "_config.yml").read_text())["sphinx"]
    assert "threefactors.publishing.extension" in config["extra_extensions"]
    assert config["recursive_update"]  # else the theme's own options would take the launch buttons away


def test_a_notebook_is_read_as_it_was_published(tmp_path):
    one = publish(tmp_path, "10_law", law())
    origin = origins.read(one.published)
    assert origin.claims == {"C3": 4, "C4": 5}
    assert origin.data == {2: ["fig-law"], 3: ["fig-cloud"]}
    assert nbformat.read(one.published, 4).cells[2].metadata["mystnb"]["figure"]["name"] == "fig-law"
    assert (origin.title, origin.verdicts["SUPPORTED"]) == ("A law", 2)
