"""The gate lets a whole notebook pass, and stops each of the ways in which one can be broken."""

import nbformat
import pytest
from nbformat.v4 import new_output
from threefactors.publishing.gate import check

from tests.books import notebook


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
    assert check(good) == []
