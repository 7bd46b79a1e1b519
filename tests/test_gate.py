"""The gate lets whole notebooks pass, and stops each way in which one, or all together, can be unfit."""

import subprocess

import nbformat
import pytest
from nbformat.v4 import new_output
from threefactors.publishing import chapters, execute, fit, gate, site
from threefactors.publishing.chapters import ChapterError
from threefactors.publishing.gate import check

from tests.books import HEAD, notebook, publish, shown, verdict, write_book


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


@pytest.fixture
def good():
    return notebook([stream("all well\n")], [])


def test_a_whole_notebook_passes(good):
    assert check(good) == []
    assert check(good, fingerprint="f") == []


def test_a_notebook_on_disk_is_checked_alike(good, tmp_path):
    path = tmp_path / "10_a.ipynb"
    assert "never executed" in str(check(path)[0])
    path.write_text('{"cells": [')
    assert "not a readable notebook" in str(check(path)[0])
    nbformat.write(good, path)
    assert check(path) == []


def never_ran(nb):
    for cell in nb.cells:
        cell.execution_count = None


def out_of_order(nb):
    nb.cells[1].execution_count, nb.cells[2].execution_count = 3, 2


def started_late(nb):
    for cell in nb.cells:
        cell.execution_count += 1


def raised(nb):
    nb.cells[1].outputs = [new_output("error", ename="ValueError", evalue="bad", traceback=[])]


def left(nb):
    nb.cells[1].outputs = [new_output("error", ename="SystemExit", evalue="0", traceback=[])]


def wrote_to_stderr(nb):
    nb.cells[1].outputs = [stream("UserWarning: look here\n", "stderr")]


def swallowed(nb):
    nb.cells[1].outputs = [stream("Traceback (most recent call last):\n  ...\n")]


def swallowed_in_html(nb):
    html = {"text/html": "<pre>Traceback (most recent call last)</pre>"}
    nb.cells[1].outputs = [new_output("display_data", data=html)]


def cut_off(nb):
    nb.metadata.papermill.end_time = None


def papermill_saw_an_exception(nb):
    nb.metadata.papermill.exception = True


def cell_pending(nb):
    nb.cells[2].metadata.papermill.status = "pending"


def untagged(nb):
    nb.cells[0].metadata.tags = []


def no_scale(nb):
    nb.cells[0].source = "seeds = 8"


def other_parameters(nb):
    nb.cells[0].source = 'scale = "paper"'


def injected(nb):
    nb.cells[1].metadata.tags.append("injected-parameters")


def unsigned(nb):
    del nb.metadata["threefactors"]


def other_library(nb):
    nb.metadata.threefactors.versions.threefactors = "0.0.1"


def other_kernel(nb):
    nb.metadata.kernelspec.name = "my-env"


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (never_ran, "cell 1: its execution count is None"),
        (out_of_order, "cell 2: its execution count is 3, not 2"),
        (started_late, "cell 1: its execution count is 2, not 1"),
        (raised, "cell 2: it ended in ValueError: bad"),
        (left, "cell 2: it ended in SystemExit"),
        (wrote_to_stderr, "cell 2: it wrote to stderr (UserWarning: look here)"),
        (swallowed, "cell 2: its output shows a Traceback"),
        (swallowed_in_html, "cell 2: its output shows a Traceback"),
        (cut_off, "the execution was cut off"),
        (papermill_saw_an_exception, "papermill recorded an exception"),
        (cell_pending, "cell 3: its status is pending"),
        (untagged, "0 cells are tagged parameters"),
        (no_scale, "declare no scale"),
        (other_parameters, "but it was executed with"),
        (injected, "a cell of injected parameters"),
        (unsigned, "carries no fingerprint"),
        (other_library, "it ran with threefactors 0.0.1"),
        (other_kernel, "its kernel is named my-env"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_planted_fault_is_stopped(good, plant, said):
    plant(good)
    problems = [str(problem) for problem in check(good)]
    assert any(said in problem for problem in problems), problems


def test_a_notebook_of_another_source_is_stopped(good):
    assert "another source" in str(check(good, fingerprint="g")[0])


def test_stderr_that_is_not_published_passes(good):
    wrote_to_stderr(good)
    good.cells[1].metadata.tags.append("remove-stderr")
    gate.sign(good)
    assert check(good) == []


def prettier(nb):
    nb.cells[1].outputs[0].text = "all very well\n"


def another_source(nb):
    nb.cells[2].source = "cell_2()"


def larger(nb):
    nb.metadata.threefactors.scale = "paper"


def one_more(nb):
    nb.cells.append(nbformat.v4.new_markdown_cell("And it is true."))


@pytest.mark.parametrize("edit", [prettier, another_source, larger, one_more])
def test_a_notebook_edited_by_hand_is_stopped(good, edit, tmp_path):
    nbformat.write(good, tmp_path / "10_a.ipynb")
    read = nbformat.read(tmp_path / "10_a.ipynb", as_version=4)
    assert check(read) == []  # being written and read changes nothing
    edit(read)
    assert [str(problem) for problem in check(read)] == [
        "it is not what its execution left: something in it was changed afterwards"
    ]


@pytest.fixture
def book(tmp_path):
    """Two chapters and one that sums them up, all of it fit."""
    publish(tmp_path, "10_law", notebook([shown(verdict())]))
    publish(tmp_path, "20_width", notebook([shown(verdict(id="C4"))]))
    publish(tmp_path, "90_sum", notebook([]))
    assert fit.problems(tmp_path) == []
    return tmp_path


def never_executed(root):
    (root / "book" / "30_new.py").write_text(HEAD)


def unreadable(root):
    (root / "book" / "10_law.ipynb").write_text('{"cells": [')


def edited_since(root):
    (root / "book" / "10_law.py").write_text(HEAD + "\n# %%\n2\n")


def deleted(root):
    (root / "book" / "20_width.py").unlink()


def a_stranger(root):
    nbformat.write(notebook([]), root / "book" / "draft.ipynb")


def recorded_since(root):
    (root / "book" / "records" / "10_law").mkdir(parents=True)
    (root / "book" / "records" / "10_law" / "runs.parquet").write_bytes(b"new")


def executed_after_its_summary(root):
    publish(root, "10_law", notebook([shown(verdict(verdict="REFUTED"))]))


def of_another_scale(root):
    publish(root, "90_sum", notebook([], scale="smoke"))


def of_another_device(root):
    publish(root, "90_sum", notebook([], device="cuda"))


def of_other_packages(root):
    versions = notebook([]).metadata["threefactors"]["versions"] | {"torch": "1.0"}
    publish(root, "90_sum", notebook([], versions=versions))


def of_other_data(root):
    executed = notebook([])
    publish(root, "90_sum", executed)
    executed.metadata["threefactors"]["data"] = "0123"
    gate.sign(executed)
    nbformat.write(executed, root / "book" / "90_sum.ipynb")


def judged_twice(root):
    publish(root, "20_width", notebook([shown(verdict())]))


def two_forms(root):
    (root / "book" / "10_law.md").write_text("# A law\n")


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (never_executed, "30_new: 30_new.ipynb does not exist: the chapter was never executed"),
        (unreadable, "10_law: not a readable notebook"),
        (edited_since, "10_law: its source 10_law.py has changed since it was executed"),
        (deleted, "20_width.ipynb: no chapter 20_width.py stands behind it; delete it"),
        (a_stranger, "draft.ipynb: no chapter draft.py stands behind it; delete it"),
        (recorded_since, "10_law: the records or notebooks that it reads have changed"),
        (executed_after_its_summary, "90_sum: the records or notebooks that it reads have changed"),
        (of_another_scale, "differ in their scale: 'laptop' in 10_law, 20_width; 'smoke' in 90_sum"),
        (of_another_device, "differ in their device: 'cpu' in 10_law, 20_width; 'cuda' in 90_sum"),
        (of_other_packages, "differ in their versions of Python and packages"),
        (of_other_data, "differ in their data folder"),
        (judged_twice, "two verdicts have id=C3, protocol=equal epochs"),
        (two_forms, "10_law.md and 10_law.ipynb would be the same page"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_fault_of_a_whole_book_is_stopped(book, plant, said):
    plant(book)
    problems = fit.problems(book)
    assert any(said in problem for problem in problems), problems


def test_another_library_stops_every_chapter(book, monkeypatch):
    monkeypatch.setattr(chapters, "library_sha256", lambda: "changed")
    assert [p.split(":")[0] for p in fit.problems(book)] == ["10_law", "20_width", "90_sum"]


def test_what_a_deleted_chapter_left_is_never_summed_up(book):
    deleted(book)
    *others, summary = chapters.find(book)
    with pytest.raises(ChapterError, match=r"20_width\.ipynb has no source; delete it"):
        execute.fingerprint(summary, {}, None, others)


def test_a_build_that_dies_between_pages_leaves_the_former_site(tmp_path, monkeypatch):
    root = write_book(tmp_path / "book", c10_law=HEAD)
    former = root / "_build" / "html" / "book" / "10_law.html"
    former.parent.mkdir(parents=True)
    former.write_text("whole")

    run = subprocess.run

    def dies(command, **options):
        if "build" not in command:  # git
            return run(command, **options)
        half = root / "_build" / "site" / "_build" / "html" / "book"
        half.mkdir(parents=True)
        (half / "10_law.html").write_text("half")
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(site.subprocess, "run", dies)
    with pytest.raises(site.SiteError, match="the former one is untouched"):
        site.build(root, [], scale="laptop", device="cpu")
    assert former.read_text() == "whole"
