"""Executing chapters: what comes out is whole, and what breaks is named and never published."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import psutil
import pytest
from threefactors.cli import main
from threefactors.publishing import chapters, execute, fit, gate, site, watch
from threefactors.publishing.chapters import Chapter, ChapterError
from threefactors.settings import Settings

from tests.books import HEAD, chapter, notebook, write_book


def run(source, settings=None, given=None, **options):
    one = Chapter(source)
    settings = settings or Settings(source.parents[1] / "store")
    values = one.settle("smoke", given or {})
    mark = execute.fingerprint(one, values, settings, [])
    return execute.execute(one, values=values, fingerprint=mark, settings=settings, **options)


REPORT = """import os, resource, sys
ballast = bytearray(os.urandom(1)) * 250_000_000
del ballast
print(scale, seeds, sys.executable, os.environ["THREEFACTORS_STORE"], sep="|")
with open(os.environ["THREEFACTORS_PROGRESS"], "a") as file:
    print(3, 16, file=file)"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    root = write_book(tmp_path_factory.mktemp("good"), c10_law=chapter(REPORT, "1 + 1"))
    return run(root / "book" / "10_law.py", given={"seeds": 3})


def test_parameters_and_settings_reach_the_chapter(executed):
    cells = nbformat.read(executed.path, as_version=4).cells
    assert cells[1].source == 'scale = "smoke"  # smoke | laptop | paper\nseeds = 3'
    scale, seeds, interpreter, store = cells[2].outputs[0].text.strip().split("|")
    assert (scale, seeds) == ("smoke", "3")
    assert interpreter == sys.executable  # whatever kernels the machine has installed
    assert Path(store) == executed.path.parents[1] / "store"


def test_the_published_notebook_is_signed_and_passes_the_gate(executed):
    assert gate.check(executed.path) == []
    notebook = nbformat.read(executed.path, as_version=4)
    own = notebook.metadata["threefactors"]
    assert own["parameters"] == {"scale": "smoke", "seeds": 3}
    assert own["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert own["seconds"] == pytest.approx(executed.seconds, abs=0.01)
    assert str(executed.path.parents[1]) not in str(notebook.metadata["papermill"])
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert own["source"] == chapters.source_sha256(executed.chapter.source)
    assert own["machine"].startswith("CPU (")
    assert fit.problems(executed.path.parents[1]) == []


def test_a_source_that_is_edited_while_it_is_executed_is_noticed(tmp_path, monkeypatch):
    root = write_book(tmp_path / "book", c10_law=HEAD)
    source = root / "book" / "10_law.py"

    def edits(one, unexecuted, aside, *_):
        done = notebook([])
        done.cells[0].source = unexecuted.cells[1].source
        nbformat.write(done, aside)
        source.write_text(HEAD + "\n# %%\n2\n")

    monkeypatch.setattr(execute, "_run", edits)
    run(source)
    assert fit.problems(root) == ["10_law: its source 10_law.py has changed since it was executed"]


def test_peak_memory_sees_an_allocation_that_was_freed_at_once(executed):
    least = 250e6 if sys.platform == "linux" else 20e6  # elsewhere nobody keeps the high water
    assert least < executed.peak_memory < 600e6


def test_where_nobody_tells_the_shares_of_memory_all_that_is_resident_counts(monkeypatch):
    def denied(process):
        raise psutil.AccessDenied(process.pid)

    here = psutil.Process()
    for answer in (denied, lambda _: SimpleNamespace(rss=1)):  # macOS and Windows
        monkeypatch.setattr(psutil.Process, "memory_full_info", answer)
        assert 0.5 < watch._proportional(here) / here.memory_info().rss < 2


def test_what_is_up_to_date_is_not_executed_again(executed):
    before = executed.path.stat().st_mtime_ns
    again = run(executed.chapter.source, given={"seeds": 3})
    assert again.cached
    assert executed.path.stat().st_mtime_ns == before
    assert (again.seconds, again.peak_memory) == (round(executed.seconds, 2), executed.peak_memory)


def test_a_fingerprint_follows_all_that_changes_what_is_said(executed, tmp_path, monkeypatch):
    one, settings = executed.chapter, Settings(tmp_path)
    values = one.settle("smoke", {})
    marks = [one.fingerprint(values, settings)]
    assert one.fingerprint(values, Settings(tmp_path / "elsewhere", jobs=4)) == marks[0]  # only where, not what
    (tmp_path / "own.npz").write_bytes(b"1")
    marks.append(one.fingerprint(values, Settings(tmp_path, data=tmp_path)))
    (tmp_path / "own.npz").write_bytes(b"22")
    marks.append(one.fingerprint(values, Settings(tmp_path, data=tmp_path)))
    marks.append(one.fingerprint(values | {"seeds": 9}, settings))
    marks.append(one.fingerprint(values, settings, ["another chapter"]))
    other = tmp_path / "10_law.py"
    other.write_text(one.source.read_text() + "\n# %%\n2\n")
    marks.append(Chapter(other).fingerprint(values, settings))
    monkeypatch.setattr(chapters, "library_sha256", lambda: "changed")
    marks.append(one.fingerprint(values, settings))
    assert len(set(marks)) == len(marks)


def test_only_summaries_depend_on_other_notebooks(executed, tmp_path):
    law, settings = executed.chapter, Settings(tmp_path)
    source = tmp_path / "90_ledger.py"
    source.write_text(HEAD)
    summary = Chapter(source)
    values = summary.settle("smoke", {})
    alone = execute.fingerprint(summary, values, settings, [])
    assert execute.fingerprint(summary, values, settings, [law]) != alone
    assert execute.fingerprint(law, values, settings, [law]) == execute.fingerprint(law, values, settings, [])


@pytest.mark.parametrize(("deaths", "published"), [(2, True), (3, False)])
def test_a_kernel_that_dies_before_its_first_cell_is_started_again(tmp_path, monkeypatch, deaths, published):
    """Two that start at once can be given one port. Three deaths in a row are no coincidence."""
    source = write_book(tmp_path, c10_law=chapter("1 + 1")) / "book" / "10_law.py"
    starts, start = [], papermill.execute_notebook

    def unlucky(*args, **options):
        starts.append(1)
        if len(starts) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return start(*args, **options)

    monkeypatch.setattr(papermill, "execute_notebook", unlucky)
    if published:
        assert gate.check(run(source).path) == []
    else:
        with pytest.raises(ChapterError, match="no kernel could be started"):
            run(source)
    assert len(starts) == 3


FAULTS = {
    "raises": ("1 / 0", r"10_bad: cell 3 raised ZeroDivisionError: division by zero"),
    "leaves": ("import sys; sys.exit(0)", r"10_bad: cell 3 called sys.exit"),
    "killed": ("import os; os.kill(os.getpid(), 9)", r"10_bad: cell 3: its process died"),
    "hangs": ("import time; time.sleep(60)", r"10_bad: cell 3 was at work when the 4 s of --timeout ran out"),
    "warns": ("import sys; print('look', file=sys.stderr)", r"10_bad: cell 3: it wrote to stderr"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_chapter_is_named_and_not_published(fault, tmp_path):
    cell, said = FAULTS[fault]
    root = write_book(tmp_path / "book", c10_bad=chapter(cell, "1 + 1"))
    source = root / "book" / "10_bad.py"
    source.with_suffix(".ipynb").write_text("an earlier build left this")
    with pytest.raises(ChapterError, match=said) as caught:
        run(source, timeout=4)
    assert "what ran is in _build/executing/10_bad.ipynb" in str(caught.value)
    assert (root / "_build" / "executing" / "10_bad.ipynb").is_file()
    assert not source.with_suffix(".ipynb").exists()


def test_workers_do_not_outlive_their_chapter(tmp_path):
    spawn = "import os, subprocess, time\npid = subprocess.Popen(['sleep', '300']).pid\n"
    spawn += "open('pid', 'w').write(str(pid))\ntime.sleep(1.2)\nos._exit(1)"
    root = write_book(tmp_path / "book", c10_bad=chapter(spawn))
    with pytest.raises(ChapterError, match="process died"):
        run(root / "book" / "10_bad.py")
    pid = int((root / "book" / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def written(tmp_path, parameters):
    source = tmp_path / "10_a.py"
    source.write_text(f'# %% tags=["parameters"]\n{parameters}\n')
    return Chapter(source)


def test_values_are_written_where_the_defaults_stood(tmp_path):
    one = written(tmp_path, 'scale = "laptop"  # the η·S grid\nlr = [\n    0.1,\n    0.2,\n]; name = "ä"')
    values = one.settle("paper", {"lr": [0.5], "name": "é"})
    text = one.notebook(values).cells[0].source
    assert text == 'scale = "paper"  # the η·S grid\nlr = [0.5]; name = "\\u00e9"'
    assert chapters.literals(text) == values


@pytest.mark.parametrize(
    ("given", "said"),
    [({"seeds": "three"}, "seeds='three' is not of type int"), ({"seeds": 2.5}, "seeds=2.5")],
)
def test_values_of_another_type_are_refused(tmp_path, given, said):
    with pytest.raises(ChapterError, match=said):
        written(tmp_path, 'scale = "laptop"\nseeds = 8').settle("smoke", given)


def test_a_whole_number_serves_as_a_float_and_a_number_as_a_word(tmp_path):
    one = written(tmp_path, 'scale = "laptop"\nlr = 0.1\nname = "a"')
    assert one.settle("smoke", {"lr": 1, "name": 5}) == {"scale": "smoke", "lr": 1.0, "name": "5"}


@pytest.mark.parametrize(
    ("parameters", "said"), [("seeds = 8", "declares no scale"), ("scale = str(1)", "not made of literals")]
)
def test_a_chapter_must_declare_its_parameters(tmp_path, parameters, said):
    with pytest.raises(ChapterError, match=said):
        written(tmp_path, parameters).settle("smoke", {})


def test_progress_is_read_from_whole_lines_only(tmp_path):
    file = tmp_path / "progress"
    assert watch.runs(file) == ""
    file.write_text("1 16\n2 16\n")
    assert watch.runs(file) == "runs 2/16"
    file.write_text("2 16\n3")
    assert watch.runs(file) == ""


def test_the_kernel_leaves_the_environment_of_the_builder_alone(executed):
    assert "THREEFACTORS_PROGRESS" not in os.environ


def test_what_befell_a_sweep_is_told(tmp_path, capsys, monkeypatch):
    """A stack for which memory is too small is split: the notebook, the build and the command say so."""
    root = write_book(
        tmp_path / "book",
        c20_split=chapter(
            "from threefactors import MLP, Epochs, Loss, Sweep, Task, run\n"
            "from threefactors.experiments import work\n"
            "from threefactors.training import Stack\n"
            "work.parts = lambda stack, *_: [stack.runs[:2], stack.runs[2:]]\n"
            "sweep = Sweep.grid(Task(model=MLP((4,)), train_size=64), lr=0.1, batch_size=8, seed=range(3),"
            " until=Epochs(1))\n"
            "run(sweep, [Loss()]).table().train_loss.notna().sum()"
        ),
    )
    monkeypatch.setattr(site, "build", lambda *_, **__: tmp_path)
    told = "3 of 3 runs were carried out in a smaller stack than asked for, because memory did not hold it"
    for _ in range(2):  # the second time nothing is executed, and it is told all the same
        main(["book", "--scale", "smoke", "--root", str(root), "--store", str(tmp_path / "store"), "--jobs", "0"])
        assert told in capsys.readouterr().out
    assert nbformat.read(root / "book" / "20_split.ipynb", 4).metadata["threefactors"]["incidents"] == [told]
