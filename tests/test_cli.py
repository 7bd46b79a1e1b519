"""The command: what a newcomer mistypes or lacks is named before any work, and the exit status tells."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from threefactors import settings
from threefactors.cli import main
from threefactors.publishing import doctor
from threefactors.settings import Settings, SettingsError

from tests.books import REPOSITORY, chapter, notebook, shown, verdict, write_book


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("THREEFACTORS_")]:
        monkeypatch.delenv(name)
    return write_book(tmp_path / "repository", c10_a=chapter("1"), c20_b=chapter("2"))


def fails(capsys, *words):
    """The command's error message, having left nothing behind."""
    status = main(list(map(str, words)))
    captured = capsys.readouterr()
    assert status == 1
    return captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "30"], "no chapter '30'; the chapters are 10_a, 20_b"),
        (["-p", "lr=0.1"], "declares a parameter 'lr'; declared: seeds"),
        (["-p", "seeds=many"], "seeds='many' is not of type int"),
        (["-p", "scale=paper"], "use --scale"),
        (["--data", "/nowhere/at/all"], "data folder /nowhere/at/all does not exist"),
        (["--device", "tpu"], "device='tpu' is unknown; use cpu, cuda or cuda:N"),
        (["--jobs", "-1"], "jobs=-1 is negative"),
        (["--store", "/proc/threefactors"], "the store /proc/threefactors cannot be written"),
    ],
)
def test_bad_input_is_named_before_any_work(root, capsys, words, said):
    assert said in fails(capsys, "book", "--root", root, *words)
    assert not (root / "_build").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "huge"], "invalid choice: 'huge'"),
        (["--timeout", "0"], "not a number of seconds above 0"),
        (["--timeout", "soon"], "not a number of seconds above 0"),
        (["-p", "seeds"], "'seeds' is not NAME=VALUE"),
    ],
)
def test_words_that_cannot_be_read_are_refused(root, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(["book", "--root", str(root), *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_outside_a_repository_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "go to the repository or name it with --root" in fails(capsys, "claims")


def test_the_repository_is_found_from_below(root, monkeypatch):
    monkeypatch.chdir(root / "book")
    assert settings.repository_root() == root
    assert settings.default_store() == root / ".threefactors" / "store"


def test_a_gpu_that_is_not_there_is_named(root, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no GPU; use cpu" in fails(capsys, "book", "--root", root, "--device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Settings(Path("store"), device="cuda:1").device == "cuda:1"
    with pytest.raises(SettingsError, match="there are 2 GPUs; use cuda:0 to cuda:1"):
        Settings(Path("store"), device="cuda:2")


def test_a_full_disk_is_named(root, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in fails(capsys, "book", "--root", root)


def test_settings_survive_the_way_through_the_environment(tmp_path):
    there = Settings(tmp_path / "s", data=tmp_path, jobs=3, progress=tmp_path / "p")
    assert Settings.from_environment(there.environment()) == there
    with pytest.raises(SettingsError, match="THREEFACTORS_JOBS='two' is not a whole number"):
        Settings.from_environment({"THREEFACTORS_JOBS": "two"})


def test_a_failing_chapter_gives_a_failing_status_and_the_other_is_executed(root, capsys):
    (root / "book" / "10_a.py").write_text(chapter("raise KeyError(seeds)"))
    status = main(["book", "--root", str(root), "--scale", "smoke", "-p", "seeds=3"])
    captured = capsys.readouterr()
    assert status == 1
    assert "10_a: cell 3 raised KeyError: 3" in captured.err
    assert "20_b" in captured.out
    assert "The site was not rebuilt: a chapter failed" in captured.out
    assert [path.name for path in root.glob("book/*.ipynb")] == ["20_b.ipynb"]
    (root / "book" / "10_a.py").write_text(chapter("print(seeds)"))
    assert main(["book", "--root", str(root), "--scale", "smoke", "--only", "20", "-p", "seeds=3"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_claims_prints_the_ledger(root, capsys):
    assert main(["claims", "--root", str(root)]) == 0
    assert "No verdicts yet" in capsys.readouterr().out
    nbformat.write(notebook([shown(verdict())]), root / "book" / "10_a.ipynb")
    assert main(["claims", "--root", str(root)]) == 0
    assert "SUPPORTED" in capsys.readouterr().out
    assert main(["claims", "--json", "--root", str(root)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "the whole interval lies below 0"


def test_contradicting_notebooks_give_a_failing_status(root, capsys):
    for name in ("10_a", "20_b"):
        nbformat.write(notebook([shown(verdict())]), root / "book" / f"{name}.ipynb")
    assert "two verdicts have id=C3" in fails(capsys, "claims", "--root", root)


def test_jobs_are_the_cores_unless_said_otherwise(root, monkeypatch):
    seen = []
    monkeypatch.setattr("threefactors.publishing.build.build", lambda *_, settings, **__: seen.append(settings.jobs))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 6, 7}, raising=False)
    for options in ([], ["--jobs", "0"], ["--jobs", "7"]):
        with contextlib.suppress(AttributeError):  # there is no report to print
            main(["book", "--root", str(root), *options])
    assert seen == [4, 0, 7]


def test_doctor_is_well_and_names_what_it_found(root, tmp_path, capsys):
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "own.npz").touch()
    assert main(["doctor", "--root", str(root), "--data", str(tmp_path / "data")]) == 0
    report = capsys.readouterr().out
    assert "mnist, own.npz" in report
    assert f"store          {root / '.threefactors' / 'store'}: 0 files" in report
    assert "jupyter-book" in report


def test_doctor_brings_data_sets_or_says_why_not(root, tmp_path, capsys, small_npz):
    assert main(["doctor", "--root", str(root), "--data", str(tmp_path), "--download", small_npz]) == 0
    assert "40 training examples, checked" in capsys.readouterr().out
    assert main(["doctor", "--root", str(root), "--data", str(tmp_path), "--download", "imagenet"]) == 1
    assert "dataset='imagenet' is unknown" in capsys.readouterr().err


def test_doctor_fails_when_something_needed_is_missing(root, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_NEEDED", ("torch", "a-package-nobody-has"))
    assert main(["doctor", "--root", str(root)]) == 1
    assert "NO  a-package-nobody-has not installed" in capsys.readouterr().out


def test_doctor_fails_on_a_store_that_cannot_be_written(root, capsys):
    assert main(["doctor", "--root", str(root), "--store", "/proc/threefactors"]) == 1
    assert "NO  store" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["book"], ["claims"], ["doctor"]])
def test_help_tells_what_a_newcomer_needs(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(word in text for word in (["book", "claims", "doctor"] if not command else ["--root"]))


def test_interruption_has_a_status_of_its_own(root, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("threefactors.publishing.build.build", interrupted)
    assert main(["book", "--root", str(root)]) == 130
    assert "finished runs are in the store" in capsys.readouterr().err


def test_make_names_a_python_that_is_too_old(tmp_path):
    old = tmp_path / "python-of-old"
    old.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.8.1\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "-C", str(tmp_path), "-f", str(REPOSITORY / "Makefile"), f"PYTHON={old}", "test"]
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.10 or newer is needed" in done.stderr
    assert "Python 3.8.1" in done.stderr


def test_the_module_runs_as_a_command(root):
    command = [sys.executable, "-m", "threefactors.cli", "claims", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:15]) == (0, "No verdicts yet")
