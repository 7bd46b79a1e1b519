"""Two chapters at a time: what one does never touches the other, and an interruption ends both."""

import signal
import sys
import threading

import nbformat
import psutil
import pytest
from threefactors.cli import main
from threefactors.publishing import build as module
from threefactors.publishing import execute, site
from threefactors.publishing.build import Report, build
from threefactors.publishing.chapters import Chapter
from threefactors.publishing.execute import Execution
from threefactors.settings import Settings

from tests.books import chapter, write_book

MEET = """import os, time
from pathlib import Path

def until(name):
    for _ in range(300):
        if Path(name).exists():
            return
        time.sleep(0.1)
    raise TimeoutError(name)

Path(f"here-{seeds}").write_text(str(os.getpid()))
"""
BALLAST = "ballast = bytearray(os.urandom(1)) * 300_000_000\ndel ballast\n"


def book(root, **sources):
    """A book whose chapters know their own number as ``seeds``."""
    write_book(root, **sources)
    for path in root.glob("book/*.py"):
        path.write_text(path.read_text().replace("seeds = 8", f"seeds = {int(path.name[:2])}"))
    return root


def make(root, jobs, **options):
    return build(root, scale="smoke", settings=Settings(root / "store", jobs=jobs), **options)


def test_a_chapter_that_fails_beside_another_leaves_it_alone(tmp_path, monkeypatch):
    """Each waits for the other to be there, so they do run at once; the failing one leaves first."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    good = chapter(
        MEET + "until('here-20')\n" + BALLAST, "print(*map(os.environ.get, ['THREEFACTORS_JOBS', 'OMP_NUM_THREADS']))"
    )
    bad = chapter(MEET + "until('here-10')\n1 / 0")
    root = book(tmp_path / "book", c10_good=good, c20_bad=bad, c30_last=chapter("1"))
    report = make(root, jobs=2)
    assert report.side_by_side == 2
    assert [one.chapter.name for one in report.executions] == ["10_good", "30_last"]  # as in the book
    (failure,) = report.failures
    assert "20_bad: cell 3 raised ZeroDivisionError" in failure
    assert report.why_no_site == "a chapter failed"
    assert not (root / "book" / "20_bad.ipynb").exists()
    large, small = report.executions
    assert large.peak_memory > (300e6 if sys.platform == "linux" else 20e6)  # elsewhere nobody keeps the high water
    assert small.peak_memory < 200e6  # the other's memory is not its own
    assert report.seconds > large.seconds
    cells = nbformat.read(large.path, as_version=4).cells
    assert cells[3].outputs[0].text == "0 1\n"  # of two processes each has one: the kernel


def test_an_interruption_ends_both_and_keeps_what_was_published(tmp_path):
    waits = chapter(MEET + "time.sleep(60)")
    interrupts = chapter(MEET + "until('here-20')\nos.kill(os.getppid(), 2)\ntime.sleep(60)")
    root = book(tmp_path / "book", c20_waits=waits, c21_interrupts=interrupts, c30_never=chapter("1"))
    former = root / "book" / "20_waits.ipynb"
    former.write_text("an earlier build left this")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make(root, jobs=2)
    finally:
        signal.signal(signal.SIGINT, handler)
    for name in ("here-20", "here-21"):
        pid = int((root / "book" / name).read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert former.read_text() == "an earlier build left this"
    assert not (root / "book" / "30_never.ipynb").exists()


@pytest.fixture
def acted(tmp_path, monkeypatch):
    """Builds a book of five chapters with actors for kernels; returns the report and each actor's part."""

    def act(jobs, perform=lambda name, stop: None, **options):
        parts, lock = {}, threading.Lock()

        def actor(chapter, *, settings, fingerprint, values, timeout, force, threads=None, stop=None):
            with lock:
                parts[chapter.name] = (settings.jobs, threads)
            perform(chapter.name, stop)
            return Execution(chapter, chapter.published, 1.0, 1, cached=False)

        monkeypatch.setattr(execute, "execute", actor)
        monkeypatch.setattr(execute, "is_current", lambda chapter, mark: chapter.name in options.get("current", ()))
        monkeypatch.setattr(execute, "fingerprint", lambda *_: "")
        monkeypatch.setattr(site, "build", lambda *_, **__: None)
        root = tmp_path / "acted"
        if not root.exists():
            names = ("c10_a", "c11_b", "c20_c", "c21_d", "c90_e")
            write_book(root, **dict.fromkeys(names, chapter("1")))
        return make(root, jobs, only=options.get("only", ())), parts

    return act


@pytest.mark.parametrize(
    ("jobs", "part"), [(0, (0, None)), (1, (1, None)), (2, (0, 1)), (3, (2, 1)), (4, (2, 2)), (8, (4, 4))]
)
def test_two_chapters_share_the_processes_and_summaries_have_them_all(acted, jobs, part):
    report, parts = acted(jobs)
    assert parts == {"10_a": part, "11_b": part, "20_c": part, "21_d": part, "90_e": (jobs, None)}
    assert [one.chapter.name for one in report.executions] == sorted(parts)
    assert report.side_by_side == (1 if jobs < 2 else 2)


def test_a_chapter_that_is_alone_has_all_processes(acted):
    assert acted(4, only=["20"])[1] == {"20_c": (4, None)}
    report, parts = acted(4, current=("10_a", "11_b", "21_d"))
    assert parts["20_c"] == (4, None)
    assert report.side_by_side == 1


def test_with_one_process_no_chapter_begins_before_another_has_ended(acted):
    at_work = set()

    def alone(name, stop):
        assert not at_work
        at_work.add(name)
        threading.Event().wait(0.02)
        at_work.remove(name)

    assert len(acted(1, alone)[1]) == 5


def test_the_long_chapters_begin_first(acted):
    assert list(acted(2, lambda name, stop: threading.Event().wait(0.05))[1])[:2] in (
        ["20_c", "21_d"],
        ["21_d", "20_c"],
    )


def test_an_error_that_is_not_a_chapters_stops_the_other(acted):
    def full(name, stop):
        if name == "21_d":
            raise OSError("No space left on device")
        assert stop.wait(20)

    with pytest.raises(OSError, match="No space left"):
        acted(2, full)


WORKERS = """import os, subprocess, sys, time
ballast = bytearray(os.urandom(1)) * 100_000_000
hold = "import os, time; ballast = bytearray(os.urandom(1)) * 150_000_000; print(flush=True); time.sleep(60)"
workers = [subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) for _ in range(2)]
for worker in workers:
    worker.stdout.readline()
time.sleep(1.1)  # two looks
for worker in workers:
    worker.kill()
    worker.wait()
print(os.environ['OMP_NUM_THREADS'])
"""


def test_memory_is_that_of_the_family_and_threads_are_what_the_reader_said(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    one = Chapter(write_book(tmp_path, c10_a=chapter(WORKERS)) / "book" / "10_a.py")
    options = {"values": one.settle("smoke", {}), "fingerprint": "f", "settings": Settings(tmp_path / "store")}
    done = execute.execute(one, threads=1, **options)
    assert nbformat.read(done.path, as_version=4).cells[2].outputs[0].text == "3\n"
    assert 400e6 < done.peak_memory < 550e6


@pytest.mark.parametrize(("count", "said"), [(1, "83.5 s\n"), (2, "83.5 s, two chapters at a time\n")])
def test_the_command_tells_how_long_the_whole_took(tmp_path, monkeypatch, capsys, count, said):
    """The seconds of chapters side by side do not add up to it."""
    monkeypatch.setattr(module, "build", lambda *_, **__: Report(seconds=83.52, side_by_side=count))
    main(["book", "--root", str(write_book(tmp_path, c10_a=chapter("1")))])
    assert said in capsys.readouterr().out


def test_a_summary_that_failed_is_named_by_those_that_would_read_it(tmp_path):
    root = book(tmp_path / "book", c10_good=chapter("1"), c80_bad=chapter("1 / 0"), c90_sum=chapter("1"))
    report = make(root, jobs=1)
    first, second = report.failures
    assert "80_bad: cell 3 raised ZeroDivisionError" in first
    assert second == "90_sum: reads the other chapters, and 80_bad failed"
    assert report.why_no_site == "a chapter failed"
