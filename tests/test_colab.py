"""Chapters as Colab shows and runs them: plain, installed from the site's commit, with the verdicts of the book."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import ModuleType

import nbformat
import pytest
from threefactors.publishing import chapters, colab, crossrefs, execute, ledger, opening, recording, records, repository
from threefactors.publishing.crossrefs import Crossrefs, Missing, Place
from threefactors.publishing.plain import Page
from threefactors.publishing.repository import Repository
from threefactors.settings import Settings

from tests import colab as proof
from tests.books import REPOSITORY, notebook, shown, verdict

SHA = "0123456789abcdef0123456789abcdef01234567"
SOMEONE = Repository("someone/book", SHA, "notebooks")
QUICK = "11_stationary"  # the chapter that the proof takes: few seconds at scale laptop, verdicts of every kind

# whatever of MyST plain Markdown does not know; code is looked at as well, since no chapter shows markup as code
RAW = re.compile(
    r"\{[a-zA-Z][\w:.+-]*\}`|^\s*(?:`{3,}|:{3,}|~{3,})\s*\{|^\([^)\s]+\)=|\$\$ *\([\w:-]+\)|^\+\+\+|^: |^%|^:::",
    re.MULTILINE,
)
PLANTED = {
    "role": "See {doc}`notation`.",
    "value": "It is {glue:text}`x:.2f`.",
    "role over two lines": "Found {cite}`someone2020,\n  someone2021`.",
    "title": "As {ref}`the chapter says <here>`.",
    "unknown role": "A {strange}`word`.",
    "math": "```{math}\n:label: eq-a\nx = 1\n```",
    "dollars": "$$ x = 1 $$ (eq-a)",
    "admonition": ":::{admonition} Theorem 1\n:class: tip\nAll is {eq}`eq-a`.\n:::",
    "unknown directive": "```{strange} Title\nBody\n```",
    "nested": "::::{note}\n:::{dropdown} Proof\n$$\nx\n$$ (eq-a)\n:::\n::::",
    "target": "(here)=\n## A section",
    "definitions": "Word\n: What it means,\n  at length.",
    "break": "+++",
}


def texts(book):
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def glued(name, value):
    data = {"application/papermill.record/text/plain": repr(value)}
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


@pytest.fixture
def page():
    return Page(
        "10_law",
        Crossrefs(
            titles={"10_law": "A law", "notation": "Notation"},
            places={"eq-a": Place("10_law", "1.1"), "here": Place("notation", "Words"), "fig-a": Place("20_b", "2.3")},
            sources={"someone2020": "[Someone, 2020](https://arxiv.org/abs/2001.00001)", "someone2021": "Other, 2021"},
            values={
                "10_law": {"x": {"text/plain": "0.1234"}, "said": {"text/plain": "'yes'"}},
                "20_b": {"x": {"text/plain": "7", "text/html": "<b>seven</b>"}},
            },
            site="https://someone.github.io/book/",
        ),
    )


@pytest.mark.parametrize("source", PLANTED.values(), ids=PLANTED)
def test_every_kind_of_markup_is_noticed_and_taken_away(page, source):
    assert RAW.search(source)
    assert not RAW.search(page.text(source))


def test_text_becomes_what_a_reader_of_the_page_sees(page):
    assert page.text(PLANTED["value"]) == "It is 0.12."
    assert page.text("{glue:text}`said:s`, {glue:text}`said`, {glue:text}`20_b.ipynb::x:.1e`") == "yes, yes, 7.0e+00"
    assert page.text("```{glue:} x\n:doc: 20_b.ipynb\n```") == "<b>seven</b>"
    assert page.text("Known {cite}`someone2020`.") == "Known ([Someone, 2020](https://arxiv.org/abs/2001.00001))."
    assert page.text("{numref}`fig-a`") == "[Fig. 2.3](https://someone.github.io/book/book/20_b.html)"
    assert page.text("By {eq}`eq-a`, see [words](notation.md#terms)") == (
        "By (1.1), see [words](https://someone.github.io/book/book/notation.html#terms)"
    )
    assert page.text(PLANTED["math"]) == "$$\nx = 1\n\\tag{1.1}\n$$"
    assert page.text(PLANTED["admonition"]) == "> **Theorem 1**\n>\n> All is (1.1)."
    assert page.text(PLANTED["definitions"]) == "- **Word**: What it means,\n  at length."
    assert "<summary>Proof</summary>" in page.text(PLANTED["nested"])
    code = "```python\nx = '{doc}`notation`'\n```\n\nand ``{doc}`x` ``"
    assert page.text(code) == code


def test_formulas_in_a_quotation_hold_none_of_its_marks(page):
    quoted = page.text(":::{note}\nLet $a\n= b$ and\n\n```{math}\nc\n= d\n```\n:::")
    assert "$a = b$" in quoted
    assert "$$ c = d $$" in quoted


def test_what_is_nowhere_is_named(page):
    for source, told in {"{glue:text}`y:.1f`": "'y'", "{eq}`eq-z`": "'eq-z'"}.items():
        with pytest.raises(Missing, match=told):
            page.text(source)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """All chapters as they stand, unexecuted, with a made-up value for each name in their texts."""
    folder = tmp_path_factory.mktemp("book") / "book"
    shutil.copytree(REPOSITORY / "book", folder, ignore=shutil.ignore_patterns("*.ipynb", "records"))
    for name in ("_toc.yml", "_config.yml"):
        shutil.copy(REPOSITORY / name, folder.parent)
    for chapter in chapters.find(REPOSITORY):
        read = chapter.notebook({})
        names = re.findall(r"\{glue:text\}`([^`:]+)(?::[^`]*)?`|\{glue:\} (\S+)", texts(read))
        values = nbformat.v4.new_code_cell("1", metadata={"tags": ["remove-cell"]}, id="values")
        values.outputs = [glued(name, 1.5) for name in dict.fromkeys(a or b for a, b in names)]
        read.cells.append(values)
        nbformat.write(read, folder / f"{chapter.name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def clean(book):
    colab.write(book, book.parent / "clean", SOMEONE)
    written = {path.stem: nbformat.read(path, 4) for path in sorted((book.parent / "clean").glob("*.ipynb"))}
    assert written.keys() == {chapter.name for chapter in chapters.find(REPOSITORY)}
    return written


def test_no_chapter_shows_markup(clean):
    found = [(name, match[0]) for name, each in clean.items() for match in RAW.finditer(texts(each))]
    assert found == []


def test_clean_notebooks_are_valid_and_stay_as_they_are(book, clean):
    for name, each in clean.items():
        nbformat.validate(each)
        assert colab.clean(each, name=name, repository=None) == each
    refs = crossrefs.gather(book, SOMEONE.site_url)
    original = nbformat.read(book / "20_width.ipynb", 4)
    assert colab.clean(original, name="20_width", repository=SOMEONE, refs=refs) == clean["20_width"]


def test_the_first_cells_say_what_this_is_and_install_its_commit(clean):
    for name, each in clean.items():
        said, setup = each.cells[:2]
        assert "Three Factors Influencing Minima in SGD" in said.source
        assert "**Time and memory.**" in said.source
        assert f"{SOMEONE.url}/blob/{SHA}/book/{name}.py" in said.source
        assert f"install('threefactors @ git+https://github.com/someone/book@{SHA}'" in setup.source
        assert setup.metadata["cellView"] == "form"
        compile(setup.source, name, "exec")
        clones = f"fetch('https://github.com/someone/book', 'notebooks', '{name}')" in setup.source
        assert clones == (int(name[:2]) >= chapters.SUMMARIES_FROM)


def test_the_scale_is_a_field_of_a_form_and_still_a_parameter(clean):
    for name, each in clean.items():
        (cell,) = [cell for cell in each.cells if "parameters" in cell.metadata.get("tags", [])]
        assert 'scale = "laptop"  # @param ["smoke", "laptop", "paper"]' in cell.source.splitlines()
        declared = chapters.Chapter(REPOSITORY / "book" / f"{name}.py").parameters
        assert chapters.literals(cell.source) == declared
        assert cell.source.count("@param") == len(declared)
    form = opening.form('kind = "a"  # a | b: of two\nshare = 0.5\nmany = 8\nplain = True\nword = "x"')
    assert form.splitlines() == [
        "# a | b: of two",
        'kind = "a"  # @param ["a", "b"]',
        'share = 0.5  # @param {type:"number"}',
        'many = 8  # @param {type:"integer"}',
        'plain = True  # @param {type:"boolean"}',
        'word = "x"  # @param {type:"string"}',
    ]


def test_hidden_code_is_folded_and_kept(book, clean):
    for name, each in clean.items():
        before = [cell.source for cell in nbformat.read(book / f"{name}.ipynb", 4).cells if cell.cell_type == "code"]
        after = [cell for cell in each.cells if cell.cell_type == "code"]
        bare = [re.sub(r"\A#@title .*\n", "", cell.source) for cell in after]
        assert not [source for source in before if source not in bare and "scale =" not in source]
        hidden = [cell for cell in after if {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", []))]
        shown = [cell for cell in hidden if "parameters" not in cell.metadata.tags]
        assert all(c.metadata["cellView"] == "form" and c.source.startswith("#@title ") for c in shown)


def test_captions_stand_below_their_figures_numbered_as_on_the_site(clean):
    cells = clean["20_width"].cells
    at = next(i for i, c in enumerate(cells) if c.metadata.get("mystnb", {}).get("figure", {}).get("name"))
    number = re.fullmatch(r"\*\*Fig\. (\d+)\.1\.\*\* .*", cells[at + 1].source)
    assert number
    assert f"chapter {number[1]} of " in cells[0].source


def executed():
    """A small executed notebook: text, a value, verdicts, runs, and a table that links to another page."""
    link = '<p><a class="tf-badge" href="90_ledger.html#claim-C3" title="why">C3</a> <a href="#here">here</a></p>'
    html = nbformat.v4.new_output("display_data", data={"text/html": link})
    kept = {records.RUNS_MIME: {"columns": ["lr"], "data": [[0.1]]}, "text/plain": "1 runs kept"}
    done = notebook(
        [shown(verdict())], [html], [nbformat.v4.new_output("display_data", data=kept), glued("x", 1.25)],
        seconds=130.0, peak_memory=3 << 29, machine="CPU (some)", date="2026-11-22T01:00:00+00:00",
        commit={"id": SHA, "dirty": False},
    )  # fmt: skip
    done.cells[-1].metadata.tags.append("remove-cell")
    done.cells.append(nbformat.v4.new_markdown_cell("It is {glue:text}`x:.1f`."))
    return done


def test_outputs_are_kept_for_other_chapters_and_their_links_lead_to_the_site(tmp_path):
    cleaned = colab.clean(executed(), name="10_law", repository=SOMEONE)
    assert cleaned.cells[-1].source == "It is 1.2."
    html = json.dumps(cleaned)
    assert "https://someone.github.io/book/book/90_ledger.html#claim-C3" in html
    assert "#here" in html
    assert "papermill" not in html
    nbformat.write(cleaned, tmp_path / "10_law.ipynb")
    assert [entry["id"] for entry in ledger.collect(tmp_path)] == ["C3"]
    assert ledger.collect(tmp_path)[0]["scale"] == "laptop"
    assert records.gather(tmp_path).lr.tolist() == [0.1]
    away = json.dumps(colab.clean(executed(), name="10_law", repository=None))
    assert 'href=\\"90_ledger' not in away
    assert '<span class=\\"tf-badge\\" title=\\"why\\">C3</span>' in away


def test_time_and_memory_are_those_of_the_book():
    said = colab.clean(executed(), name="10_law", repository=SOMEONE).cells[0].source
    assert "about 2 min" in said
    assert "1.5 GiB of memory of the 12 GiB there" in said
    assert "CPU (some)" in said
    assert "Scale `paper` has not been measured" in said
    tables = executed()
    tables.cells[0].metadata.tags.append("remove-cell")
    assert "Nothing is computed here" in colab.clean(tables, name="90_law", repository=SOMEONE).cells[0].source
    recorded = colab.clean(executed(), name="10_law", repository=SOMEONE, record="took 3 h on NVIDIA X").cells[0].source
    assert "Scale `paper` took 3 h on NVIDIA X." in recorded


def test_the_paper_s_size_is_told_from_its_record_and_not_from_a_variant(monkeypatch, tmp_path):
    about = {"scale": "paper", "given": {}, "seconds": 7200, "peak_memory": 5 << 30, "machine": {"words": "NVIDIA X"}}
    found = [object.__new__(recording.Record) for _ in range(3)]
    for one, more in zip(found, [{"scale": "laptop"}, {"given": {"precision": "tf32"}}, {}], strict=True):
        object.__setattr__(one, "about", about | more)
    monkeypatch.setattr(recording, "find", lambda book, chapter: found)
    told = colab.at_paper_scale(tmp_path, "20_width")
    assert told == "took 2.0 h and 5.0 GiB of memory on NVIDIA X"
    del found[-1]
    assert colab.at_paper_scale(tmp_path, "20_width") == ""


def test_without_a_repository_nothing_leads_nowhere(monkeypatch):
    cleaned = colab.clean(executed(), name="10_law", repository=None)
    assert "http" not in texts(cleaned)
    assert "install(None, " in cleaned.cells[1].source
    assert "fetch(" not in colab.clean(executed(), name="90_law", repository=None).cells[1].source
    unpushed = colab.clean(executed(), name="10_law", repository=Repository("someone/book")).cells[1].source
    assert "install(None, 'pip install git+https://github.com/someone/book" in unpushed
    opening.install(None, "do this")  # it can be imported here, and so nothing happens
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="not installed; do this"):
        opening.install(None, "do this")


@pytest.fixture
def colab_runtime(monkeypatch, tmp_path):
    mounted = []
    google, package, drive = ModuleType("google"), ModuleType("google.colab"), ModuleType("google.colab.drive")
    drive.mount, package.drive, google.colab = mounted.append, drive, package
    for module in (google, package, drive):
        module.__spec__ = True
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("THREEFACTORS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return mounted


def test_results_are_kept_on_drive_if_the_reader_wants(colab_runtime):
    opening.choose("laptop", False, "automatic")
    assert colab_runtime == []
    assert "THREEFACTORS_STORE" not in os.environ
    opening.choose("laptop", True, "automatic")
    assert colab_runtime == ["/content/drive"]
    assert os.environ["THREEFACTORS_STORE"] == "/content/drive/MyDrive/threefactors/store"
    assert os.environ["THREEFACTORS_DEVICE"] == "cpu"


def test_a_gpu_is_taken_for_the_paper_alone_unless_chosen(colab_runtime, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for scale, chosen, device in [
        ("laptop", "automatic", "cpu"),
        ("paper", "automatic", "cuda"),
        ("laptop", "cuda", "cuda"),
    ]:
        opening.choose(scale, False, chosen)
        assert os.environ["THREEFACTORS_DEVICE"] == device
    assert os.path.isdir(os.environ["THREEFACTORS_DATA"])


def test_away_from_colab_nothing_changes(monkeypatch):
    before = dict(os.environ)
    opening.choose("paper", False, "automatic")
    assert dict(os.environ) == before
    with pytest.raises(ValueError, match="THREEFACTORS_STORE"):
        opening.choose("laptop", True, "automatic")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("GITHUB_REPOSITORY", "GITHUB_SHA", "THREEFACTORS_NOTEBOOKS_BRANCH", "THREEFACTORS_SITE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tree").mkdir()
    git(tmp_path / "tree", "init", "-q", "-b", "main")
    proof.commit(tmp_path / "tree")
    return tmp_path / "tree"


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_repository_is_that_of_the_remote(tree):
    assert repository.find(tree) is None
    git(tree, "remote", "add", "origin", "git@github.com:someone/book.git")
    found = repository.find(tree)
    assert (found.name, found.url) == ("someone/book", "https://github.com/someone/book")
    assert (found.commit, found.branch, found.site_url, found.colab_url("10_law")) == (None, None, None, None)
    assert found.blob("book/10_law.py").endswith("/blob/HEAD/book/10_law.py")
    head = git(tree, "rev-parse", "HEAD")
    git(tree, "update-ref", "refs/remotes/origin/main", head)  # as after a push
    git(tree, "update-ref", "refs/remotes/origin/notebooks", head)
    found = repository.find(tree)
    assert (found.commit, found.branch) == (head, "notebooks")
    assert found.colab_url("10_law").endswith("/github/someone/book/blob/notebooks/book/10_law.ipynb")
    assert found.site_url == "https://someone.github.io/book/"
    git(tree, "commit", "-q", "--allow-empty", "-m", "not pushed")
    assert repository.find(tree).commit is None


def test_the_environment_of_ci_goes_before_the_remote(tree, monkeypatch):
    git(tree, "remote", "add", "origin", "https://github.com/someone/book")
    head = git(tree, "rev-parse", "HEAD")
    for name, value in {"REPOSITORY": "Other/other.github.io", "SHA": head}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    monkeypatch.setenv("THREEFACTORS_NOTEBOOKS_BRANCH", "executed")
    assert repository.find(tree) == Repository("Other/other.github.io", head, "executed")
    assert repository.find(tree).site_url == "https://other.github.io/"
    monkeypatch.setenv("GITHUB_SHA", SHA)  # not what is checked out: the links would show something else
    assert repository.find(tree).commit is None
    monkeypatch.setenv("THREEFACTORS_SITE_URL", "https://example.org/book")
    assert repository.find(tree).site_url == "https://example.org/book/"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A fresh environment, and a repository that holds this working tree and one whose library wants another NumPy."""
    folder = tmp_path_factory.mktemp("colab")
    good = proof.working_tree(folder / "repository")
    settings = folder / "repository" / "pyproject.toml"
    settings.write_text(re.sub(r'"numpy>=[\d.]+"', '"numpy>=99"', settings.read_text()))
    greedy = proof.commit(folder / "repository")
    git(folder / "repository", "checkout", "-q", good)
    python = proof.environment(folder / "environment")
    return python, proof.variables(folder / "repository", SOMEONE.url), good, greedy


def said(python, environ, code):
    return subprocess.run([str(python), "-c", code], env=environ, capture_output=True, text=True)


def test_the_environment_holds_nothing_of_the_book(runtime):
    python, environ, *_ = runtime
    wanted = ["threefactors", "myst_nb", "jupytext", "papermill", "sphinx", "jupyter_book", "pytest", "torch", "numpy"]
    code = f"import importlib.util as u; print(*[n for n in {wanted} if u.find_spec(n)])"
    assert said(python, environ, code).stdout.split() == ["torch", "numpy"]


def test_a_library_that_wants_another_numpy_is_refused_and_nothing_changes(runtime):
    python, environ, _, greedy = runtime
    setup = opening.setup("10_law", Repository("someone/book", greedy), summary=False).source
    versions = "from importlib.metadata import distributions as d; print(sorted((x.name, x.version) for x in d()))"
    before = said(python, environ, versions).stdout
    refused = said(python, environ, setup)
    assert refused.returncode == 1
    assert re.search(
        r"ImportError: the library needs numpy>=99, and [\d.]+ is here; nothing was replaced", refused.stderr
    )
    assert said(python, environ, versions).stdout == before
    assert len(before) > 1000


@pytest.mark.slow
def test_a_chapter_alone_in_a_fresh_environment_reaches_the_verdicts_of_the_book(runtime, book, tmp_path):
    python, environ, good, _ = runtime
    chapter = chapters.Chapter(REPOSITORY / "book" / f"{QUICK}.py")
    there = tmp_path / "book" / f"{QUICK}.ipynb"
    options = {"values": chapter.settle("laptop", {}), "fingerprint": "f", "settings": Settings(tmp_path / "store")}
    execute.execute_aside(chapter, there, **options)
    own = nbformat.read(there, as_version=4)
    here = tmp_path / there.name
    refs = crossrefs.gather(book)
    cleaned = colab.clean(own, name=QUICK, repository=Repository("someone/book", good), refs=refs)
    nbformat.write(cleaned, here)
    done = proof.run(here, tmp_path / "empty", python, environ)
    assert "Installed threefactors" in done.cells[1].outputs[0].text
    found, expected = proof.verdicts(done), proof.verdicts(own)
    assert {key: each[0] for key, each in found.items()} == {key: each[0] for key, each in expected.items()}
    estimates = {key: each[1] for key, each in expected.items()}
    assert {key: each[1] for key, each in found.items()} == pytest.approx(estimates, rel=1e-6, nan_ok=True)
    assert len(found) > 5
