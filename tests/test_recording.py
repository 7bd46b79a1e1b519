"""Records of what a chapter found at another size: made aside, kept whole, and never shown as what they are not."""

import json
import os
import shutil
import signal
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from threefactors.cli import main
from threefactors.experiments import store
from threefactors.inference import CLAIMS, Equivalent
from threefactors.publishing import definition, execute, recorder, recording
from threefactors.publishing.chapters import Chapter, ChapterError, find
from threefactors.publishing.conclusions import Larger
from threefactors.publishing.ledger import collect
from threefactors.publishing.recorded import entries, recorded, shelf
from threefactors.publishing.recording import RecordError, Unreadable
from threefactors.publishing.records import keep
from threefactors.settings import Settings

from tests.books import HEAD, REPOSITORY, chapter, notebook, showing, shown, verdict, write_book

FOUND = [
    verdict(id="C3a", details={"trace": {"estimate": -0.5}}, lost=1, runs=8, p=0.01),
    verdict(id="C3b", protocol="equal clock", verdict="UNDECIDED", estimate=None, interval=None),
    verdict(id="C4", interval=[-0.9, None]),
]
RUNS = pd.DataFrame(
    {
        "protocol": "equal epochs",
        "arm": ["plain", "plain", "deep"],
        "dataset": "digits",
        "lr": [0.1, 0.2, 0.1],
        "batch_size": 8,
        "seed": [0, 1, 0],
        "finished": [True, False, False],
        "diverged": [False, True, False],
        "train_loss": [0.333333, np.nan, 2e-9],
        "sharpness": [None, None, None],
    }
)
KEPT = keep(RUNS)._repr_mimebundle_()
KEEPING = f"display(json.loads({json.dumps(KEPT)!r}), raw=True)"
SWEEP = """import os
SIZES = {"smoke": dict(lr=0.3), "laptop": dict(lr=0.2), "paper": dict(lr=0.1)}
lr = SIZES[scale]["lr"]
if scale == "paper":
    data = "digits"
with open(os.environ["THREEFACTORS_PROGRESS"], "a") as file:
    for line in ("1 2", "2 2", "1 1"):
        print(line, file=file)"""
TINY = chapter(SWEEP, showing(*FOUND), KEEPING).replace("\nseeds = 8", "\nseeds = 8\nprecision = 'float32'")
TINY = TINY.replace("lr = SIZES", "chosen = precision\nlr = SIZES", 1)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("THREEFACTORS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def root(tmp_path):
    return write_book(tmp_path / "repository", c20_tiny=TINY, c30_other=chapter("1"))


@pytest.fixture
def acted(monkeypatch):
    """An actor in place of the kernel: it shows what a chapter found, or raises what it is told to."""
    calls = []

    def actor(one, aside, *, settings, values, raises=None, found=tuple(FOUND), **_):
        calls.append(values)
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.with_suffix(".progress").write_text("1 2\n2 2\n")
        if error := actor.raises:
            raise error
        kept = nbformat.v4.new_output("display_data", data=KEPT)
        nbformat.write(notebook([shown(*found)], [kept]), aside)
        return 1.0, 2**30

    actor.raises, actor.calls = None, calls
    monkeypatch.setattr(execute, "execute_aside", actor)
    return actor


def make(root, scale="paper", given=None, name="20_tiny", data=None, **options):
    one = Chapter(root / "book" / f"{name}.py")
    settings = Settings(root / "store", data=data)
    return recorder.record(recorder.prepare(one, scale=scale, settings=settings, parameters=given or {}), **options)


def stale(root):
    return recording.read(root / "book", "20_tiny").stale(root / "book", None)


def test_a_chapter_is_recorded_and_its_notebook_is_left_alone(root, capsys):
    """By the command, in a kernel: from a source to two files, and back."""
    published = root / "book" / "20_tiny.ipynb"
    published.write_text("what the laptop found")
    assert main(["record", "20", "--root", str(root), "--jobs", "0"]) == 0
    assert "recorded in" in capsys.readouterr().out
    assert published.read_text() == "what the laptop found"
    folder = root / "book" / "records" / "20_tiny"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["20_tiny"]
    assert all(path.stat().st_size < 20_000 for path in folder.iterdir())
    record = recording.read(root / "book", "20_tiny")
    for kept, found in zip(record.verdicts, FOUND, strict=True):
        assert {key: kept[key] for key in found} == found
    pd.testing.assert_frame_equal(record.runs, RUNS.assign(sharpness=np.nan))
    about = record.about
    assert (about["scale"], about["parameters"]["scale"]) == ("paper", "paper")
    assert about["kept"] == {"runs": 3, "diverged": 1, "unfinished": 1}
    assert (about["trained"], about["attempts"]) == (3, 1)
    assert about["data"] == {"digits": "digits"}
    assert about["command"] == "threefactors record 20_tiny"
    assert about["machine"]["words"].startswith("CPU (")
    assert about["definition"]["data"]["digits"] == definition.checksum("digits", None)
    assert about.keys() >= {"commit", "versions", "date", "seconds", "peak_memory"}
    assert str(root) not in json.dumps(about)
    assert stale(root) == []


def test_what_is_current_is_not_executed_again(root, acted, capsys):
    first = make(root)
    assert not first.current
    again = make(root)
    assert again.current
    assert len(acted.calls) == 1
    assert again.record.about == first.record.about
    assert not make(root, force=True).current
    assert main(["record", "20", "--root", str(root)]) == 0
    assert "up to date, in book/records/20_tiny" in capsys.readouterr().out


def test_a_variant_has_a_record_of_its_own(root, acted):
    make(root)
    made = make(root, given={"precision": "bfloat16"})
    smoke = make(root, scale="smoke", given={"seeds": 8})  # the default: no variant
    assert made.folder.name == "20_tiny.precision-bfloat16"
    assert made.record.about["command"] == "threefactors record 20_tiny -p precision=bfloat16"
    assert smoke.folder.name == "20_tiny.smoke"
    assert acted.calls[1]["precision"] == "bfloat16"
    names = [one.name for one in recording.find(root / "book", "20_tiny")]
    assert names == ["20_tiny", "20_tiny.precision-bfloat16", "20_tiny.smoke"]
    assert all(not one.stale(root / "book", None) for one in recording.find(root / "book"))


NOTHING, CODE = [], ["the chapter's definition of its runs has changed"]
EDITS = {
    "a comment": ("import os", "import os  # of the system", NOTHING),
    "formatting": ("dict(lr=0.1)", "dict(\n    lr=0.1,\n)", NOTHING),
    "prose": ("# # A law", "# # Another law", NOTHING),
    "another scale's size": ("dict(lr=0.2)", "dict(lr=0.25)", NOTHING),
    "an import that nothing needs": ("import os", "import os\nimport math", NOTHING),
    "a figure": ('precision = \'float32\'', 'precision = \'float32\'\n\n# %% tags=["hide-input"]\nplot = 1', NOTHING),
    "a figure's name that is computed with": (
        "lr = SIZES", 'lr = 0\n\n# %% tags=["hide-input"]\nwide = 2\n\n# %%\nlr = wide * SIZES', CODE,
    ),
    "the learning rate": ("dict(lr=0.1)", "dict(lr=0.11)", CODE),
    "a branch of this scale": ('data = "digits"', 'data = "digits"\n    lr = 2 * lr', CODE),
    "where a name comes from": ("import os", "import posix as os", CODE),
    "a default": ("seeds = 8", "seeds = 9", CODE),
    "a scale that is gone": ('scale = "laptop"', 'size = "laptop"', ["20_tiny: declares no scale"]),
    "a cell that is no Python": ("lr = SIZES", "lr == = SIZES", ["20_tiny: cell 3 is not Python"]),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_only_what_decides_the_numbers_makes_a_record_stale(root, acted, edit):
    before, after, said = EDITS[edit]
    make(root)
    source = root / "book" / "20_tiny.py"
    text = source.read_text()
    assert before in text
    source.write_text(text.replace(before, after, 1))
    found = stale(root)
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))


def test_what_comes_after_the_last_verdict_decides_nothing(tmp_path):
    judged = chapter("x = 1", "judge(claim, x)", "print(x)")
    marks = []
    for source in (judged, judged.replace("print(x)", "print(x + 1)"), judged.replace("x = 1", "x = 2")):
        (tmp_path / "20_a.py").write_text(source)
        marks.append(definition.code(Chapter(tmp_path / "20_a.py"), {"scale": "paper"}))
    assert marks[0] == marks[1] != marks[2]


def test_a_claim_that_is_judged_otherwise_makes_it_stale(root, acted, monkeypatch):
    make(root)
    rule = CLAIMS["C3b"]
    monkeypatch.setitem(CLAIMS, "C3b", replace(rule, statement="In other words"))
    assert stale(root) == []
    monkeypatch.setitem(CLAIMS, "C3b", replace(rule, rule=Equivalent(rule.rule.margin / 2)))
    assert stale(root) == ["the declaration of C3b has changed"]
    monkeypatch.delitem(CLAIMS, "C3b")
    assert stale(root) == ["the declaration of C3b has changed"]
    monkeypatch.setitem(CLAIMS, "C3b", replace(rule, statistic=CLAIMS["C3a"].statistic))
    assert stale(root) == ["the declaration of C3b has changed"]


def test_another_protocol_makes_it_stale(root, acted, monkeypatch):
    make(root)
    monkeypatch.setattr(store, "PROTOCOL", store.PROTOCOL + 1)
    assert stale(root) == [
        f"the protocol of runs and probes has changed ({store.PROTOCOL - 1} then, {store.PROTOCOL} now)"
    ]


def test_other_data_make_it_stale_and_data_that_are_not_at_hand_do_not(root, acted, small_npz, tmp_path):
    own = tmp_path / "own.npz"
    shutil.copy(small_npz, own)
    source = root / "book" / "20_tiny.py"
    source.write_text(source.read_text().replace('data = "digits"', f'data = "{own}"'))
    assert make(root).record.about["data"] == {str(own): str(own), "digits": "digits"}
    assert stale(root) == []
    arrays = dict(np.load(own))
    np.savez(own, **arrays | {"x_train": arrays["x_train"] + 1})
    assert stale(root) == [f"the data set {own} has changed"]
    own.unlink()
    assert stale(root) == []


def test_a_chapter_that_has_gone_makes_it_stale(root, acted):
    make(root)
    (root / "book" / "20_tiny.py").unlink()
    assert stale(root) == ["the chapter 20_tiny has gone"]


@pytest.mark.parametrize("file", recording.FILES)
def test_damage_is_seen_wherever_it_is(root, acted, file):
    """A flipped byte is found, or changes nothing; it never crashes, and never shows other numbers."""
    path = make(root).folder / file
    sound, whole = recording.read(root / "book", "20_tiny"), path.read_bytes()
    found = 0
    for at in range(2, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        (one,) = recording.find(root / "book")
        if isinstance(one, Unreadable):
            found += 1
        else:
            assert (one.verdicts, one.about) == (sound.verdicts, sound.about)
            pd.testing.assert_frame_equal(one.runs, sound.runs)
    assert found > len(range(2, len(whole), 97)) / 2  # the rest are statistics, which nobody reads
    path.write_bytes(whole[:-100])
    assert isinstance(recording.find(root / "book")[0], Unreadable)
    path.unlink()
    with pytest.raises(RecordError, match=f"{file} is missing"):
        recording.read(root / "book", "20_tiny")


def test_files_of_two_records_are_not_one(root, acted):
    first = make(root).folder
    second = make(root, scale="smoke").folder
    shutil.copy(second / "runs.parquet", first)
    with pytest.raises(RecordError, match="are not of one record"):
        recording.read(root / "book", "20_tiny")


def test_a_record_of_another_format_is_named(root, acted, monkeypatch):
    monkeypatch.setattr(recording, "FORMAT", 2)
    make(root)
    monkeypatch.undo()
    with pytest.raises(RecordError, match="has format 2; this version reads format 1"):
        recording.read(root / "book", "20_tiny")
    assert "UNREADABLE: the record 20_tiny is there, but" in str(shelf(root / "book"))


def test_a_swap_that_was_cut_off_leaves_the_former_record(root, acted, monkeypatch):
    make(root)
    moves, move = [], os.replace

    def cut(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise OSError("No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(ChapterError, match=r"cannot be written \(No space left.*finished runs are in the store"):
        make(root, force=True)
    monkeypatch.undo()
    assert [one.name for one in recording.find(root / "book")] == ["20_tiny"]
    assert stale(root) == []
    assert [path.name for path in (root / "book" / "records").iterdir()] == [".former-20_tiny"]


@pytest.mark.parametrize("error", [ChapterError("20_tiny: cell 3 raised X: y\n  more"), KeyboardInterrupt()])
def test_an_attempt_that_failed_leaves_the_former_record_and_is_counted(root, acted, error, capsys):
    former = make(root).record.about
    acted.raises = error
    with pytest.raises(type(error)):
        make(root, force=True)
    assert recording.read(root / "book", "20_tiny").about == former
    status = main(["record", "20", "--root", str(root), "--force"])
    said = capsys.readouterr().err
    if status == 1:
        assert said.count("\n") == 1  # one line
        assert "cell 3 raised X: y (what ran is in _build/recording/20_tiny/20_tiny.ipynb; finished runs" in said
    else:
        assert (status, "finished runs are in the store" in said) == (130, True)
    acted.raises = None
    about = make(root, force=True).record.about
    assert (about["attempts"], about["trained"]) == (3, 6)
    assert make(root, force=True).record.about["attempts"] == 1


def test_time_that_runs_out_is_said_and_nothing_is_left_running(root):
    source = root / "book" / "20_tiny.py"
    source.write_text(TINY + "\n# %%\nimport time\ntime.sleep(60)\n")
    with pytest.raises(ChapterError, match=r"was at work when the 2 s of --timeout ran out.*finished runs are in the"):
        make(root, timeout=2)
    assert not (root / "book" / "records").exists()


def test_an_interruption_ends_the_kernel_and_keeps_the_former_record(root):
    source, here = root / "book" / "20_tiny.py", root / "book" / "here"
    interrupts = (
        f"import os, time\nopen('{here}', 'w').write(str(os.getpid()))\nos.kill(os.getppid(), 2)\ntime.sleep(60)"
    )
    source.write_text(TINY + f"\n# %%\n{interrupts}\n")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make(root)
    finally:
        signal.signal(signal.SIGINT, handler)
    pid = int(here.read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert not (root / "book" / "records").exists()


TRAINS = """from pathlib import Path
from threefactors import MLP, Accuracy, Epochs, Loss, Sweep, Task, claims, run
from threefactors.inference import judge
from threefactors.publishing.records import keep

SIZES = {"smoke": dict(lr=[0.1, 0.2]), "laptop": dict(lr=[0.1, 0.2]), "paper": dict(lr=[0.01, 0.4])}
task = Task("digits", MLP((4,)))
sweep = Sweep.grid(task, **SIZES[scale], batch_size=[64, 128], seed=range(5), until=Epochs(1))
result = run(sweep, [Loss(), Accuracy()])
if scale == "paper" and not Path("enough-memory").exists():
    raise MemoryError("later")"""
JUDGES = """verdicts = [judge(claims.C4.at("equal epochs", "plain"), result)]
verdicts[0]"""
SHOWS = """from threefactors.publishing.recorded import recorded
recorded("20_real", verdicts, scale)"""


@pytest.mark.slow
def test_from_an_attempt_that_failed_to_the_page_that_shows_both_sizes(tmp_path, monkeypatch):
    """The whole way on the CPU: networks are trained, lost, found again in the store, judged, recorded and shown."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY / 'lib'}")
    keeps = "keep(result.table().assign(protocol='equal epochs', arm='plain'))"
    root = write_book(tmp_path / "repository", c20_real=chapter(TRAINS, JUDGES, keeps, SHOWS))
    with pytest.raises(ChapterError, match=r"cell 3 raised MemoryError: later \(what ran is in"):
        make(root, name="20_real")
    (root / "book" / "enough-memory").touch()
    record = make(root, name="20_real").record
    assert (record.about["attempts"], record.about["trained"], record.about["kept"]["runs"]) == (2, 20, 20)
    assert record.runs.lr.isin([0.01, 0.4]).all()
    one, settings = Chapter(root / "book" / "20_real.py"), Settings(root / "store")
    values = one.settle("smoke", {})
    mark = execute.fingerprint(one, values, settings, [])
    execute.execute(one, values=values, fingerprint=mark, settings=settings)
    (found,) = collect(root / "book")
    assert found["scale"] == "smoke"  # and the recorded one is not counted a second time
    page = nbformat.read(one.published, as_version=4).cells[-1].outputs[0].data
    assert "paper scale, recorded on" in page["text/html"]
    assert page["text/html"].count("tf-badge") == 2
    assert "STALE" not in page["text/html"]
    one.source.write_text(one.source.read_text().replace("lr=[0.01, 0.4]", "lr=[0.02, 0.4]"))
    assert "STALE" in recorded("20_real", [], "smoke", root / "book")._repr_html_()


WRONG = {
    "no such chapter": (["77"], "there is no chapter '77'; the chapters are 20_tiny, 30_other"),
    "nothing in it": (["30"], "30_other: there is nothing to record: it judges no claim and keeps no runs"),
    "no need": (["20", "--scale", "laptop"], "the book itself shows it at scale laptop; use `threefactors book --only"),
    "no parameter": (["20", "-p", "lr=1"], "declares a parameter 'lr'"),
    "no data root": (["20", "-p", "precision=mnist"], "20_tiny: dataset='mnist' needs a data root; give --data DIR"),
    "no store": (["20", "--store", "/proc/threefactors"], "the store /proc/threefactors cannot be written"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_recorded_is_named_before_any_work(root, acted, capsys, wrong):
    words, said = WRONG[wrong]
    assert main(["record", *words, "--root", str(root)]) == 1
    captured = capsys.readouterr().err
    assert said in captured
    assert captured.count("\n") == 1
    assert not acted.calls
    assert not (root / "book" / "records").exists()


def test_machines_are_named_in_words(tmp_path, monkeypatch):
    class Client:
        def run(self, function, *arguments):
            return dict.fromkeys(("tcp://a:1", "tcp://a:2", "tcp://b:1"), "NVIDIA H200")

    monkeypatch.setattr(recorder.schedulers, "connect", lambda *_: Client())
    found = recorder.machine(Settings(tmp_path, device="cuda", scheduler="tcp://host:8786"))
    assert found == {"device": "cuda", "workers": {"NVIDIA H200": 3}, "words": "3 workers with NVIDIA H200"}
    monkeypatch.setattr(recorder, "device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(recorder, "_driver", lambda _: "570.86")
    monkeypatch.setattr(recorder.torch.version, "cuda", "12.8")
    monkeypatch.setattr("threefactors.settings.require_device", lambda *_: None)
    words = recorder.machine(Settings(tmp_path, device="cuda"))["words"]
    assert words == "NVIDIA H200 (driver 570.86, CUDA 12.8)"


def test_a_summary_and_a_folder_that_cannot_be_written_are_refused(tmp_path, acted):
    root = write_book(tmp_path / "b", c20_tiny=TINY, c90_ledger=TINY)
    with pytest.raises(ChapterError, match="90_ledger: it reads the other chapters"):
        make(root, name="90_ledger")
    (root / "book" / "records").write_text("no folder")
    with pytest.raises(ChapterError, match=r"records cannot be written .*records are kept there"):
        make(root)
    assert not acted.calls


def test_a_new_record_is_a_reason_to_show_its_chapter_and_the_summaries_anew(root, acted):
    (root / "book" / "90_ledger.py").write_text(HEAD)

    def marks():
        settings = Settings(root / "store")
        return [execute.fingerprint(one, one.settle("laptop", {}), settings, []) for one in find(root)]

    none = marks()
    make(root)
    one = marks()
    assert [a == b for a, b in zip(none, one, strict=True)] == [False, True, False]
    acted.__kwdefaults__["found"] = FOUND[:1]
    make(root, force=True)
    assert [a == b for a, b in zip(one, marks(), strict=True)] == [False, True, False]
    shutil.rmtree(root / "book" / "records")
    assert marks() == none


def judged(**changes):
    from threefactors.inference import Verdict

    entry = verdict(id="C3a", runs=8) | changes
    return Verdict.from_dict(entry)


def test_a_chapter_shows_both_sizes_side_by_side(root, acted):
    acted.__kwdefaults__["found"] = (*FOUND, verdict(id="C5a", verdict="VOID"))
    make(root)
    here = [judged(), judged(id="C3b", protocol="equal clock"), judged(id="C4", verdict="REFUTED"), judged(id="C9")]
    here += [judged(id="C5a", verdict="UNDECIDED")]
    page = recorded("20_tiny", here, "laptop", root / "book")
    html = page._repr_html_()
    kinds = ("the same", "opposite", "decided at one size only", "decided at neither", "judged at one size only")
    assert f"Of 5 verdicts: {', '.join('1 ' + kind for kind in kinds)}." in html
    assert html.count("tf-badge") == 5 + 4
    assert "laptop scale" in html
    assert "paper scale, recorded on 20" in html
    assert "<td>opposite</td>" in html
    assert "[-0.9, ∞]" in html
    assert "data: digits" in html
    assert "3 runs kept, 1 diverged, 1 unfinished" in html
    assert "<code>threefactors record 20_tiny</code>" in html
    assert "STALE" not in html
    assert "C4 (equal epochs, plain): REFUTED here, SUPPORTED there" in str(page)
    assert not hasattr(page, "_repr_mimebundle_")  # nothing for the laptop's ledger
    assert len(repr(page)) < 2000


def test_a_stale_record_is_shown_as_stale_and_enters_no_conclusion(root, acted, monkeypatch):
    make(root)
    laptop = [verdict(id="C3a", chapter="20_tiny", verdict="UNDECIDED")]
    page = Larger(laptop, recorded=entries(root / "book"))
    assert str(page).splitlines() == [
        "2 of 14 claims have been judged at the paper's own size.",
        "C3: Could not be decided. Holds as the paper tested it, at equal epochs, and nowhere else.",
        "C4: Not tested. Holds wherever it was tested.",
    ]
    assert page._repr_html_().count("<tr>") == 3
    monkeypatch.setattr(store, "PROTOCOL", store.PROTOCOL + 1)
    for shown_ in (recorded("20_tiny", [judged()], "laptop", root / "book"), shelf(root / "book")):
        assert 'class="tf-stale"' in shown_._repr_html_()
        assert "STALE: since this was recorded, the protocol of runs and probes has changed" in str(shown_)
        assert "C3a" in str(shown_)
    page = Larger(laptop, recorded=entries(root / "book"))
    assert str(page) == ("No claim has been judged at the paper's own size yet. Stale, and left out: 20_tiny.")
    assert "<table" not in page._repr_html_()


def test_variants_and_other_scales_enter_no_conclusion(root, acted):
    make(root, given={"precision": "bfloat16"})
    make(root, scale="smoke")
    assert Larger([], recorded=entries(root / "book")).lines == []
    assert "paper scale, precision = bfloat16, recorded on" in str(shelf(root / "book"))


def test_without_a_record_the_one_command_is_named(root, tmp_path):
    page = recorded("20_tiny", [], "laptop", root / "book")
    assert "has not been run at this size yet" in str(page)
    assert "<code>threefactors record 20 --data DIR --device cuda</code>" in page._repr_html_()
    away = recorded("20_tiny", [], "laptop", tmp_path)
    assert str(away) == "No record is at hand: this notebook runs apart from the repository, which keeps them."
    assert "threefactors record" not in away._repr_html_()
    assert str(shelf(root / "book")) == "No chapter has been recorded at another size yet."


def test_an_unreadable_record_is_shown_as_such(root, acted):
    (make(root).folder / "runs.parquet").write_bytes(b"PAR1")
    page = recorded("20_tiny", [judged()], "laptop", root / "book")
    assert "UNREADABLE: the record 20_tiny is there, but runs.parquet is damaged" in page._repr_html_()
    assert "UNREADABLE" in str(page)
    assert entries(root / "book") == []
    assert not make(root).current  # and it is made again


def test_the_command_prints_recorded_verdicts_apart_from_the_others(root, acted, capsys):
    make(root)
    nbformat.write(notebook([shown(verdict())]), root / "book" / "20_tiny.ipynb")
    assert [entry["scale"] for entry in collect(root / "book")] == ["laptop"]
    assert main(["claims", "--recorded", "--json", "--root", str(root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(e["id"], e["scale"], e["record"], e["stale"]) for e in found] == [
        ("C3a", "paper", "20_tiny", []), ("C3b", "paper", "20_tiny", []), ("C4", "paper", "20_tiny", []),
    ]  # fmt: skip
    assert found[0]["provenance"]["device"].startswith("CPU (")
    assert main(["claims", "--recorded", "--root", str(root)]) == 0
    assert "paper scale, recorded on" in capsys.readouterr().out


def test_words_of_a_record_cannot_break_the_page(root, acted):
    acted.__kwdefaults__["found"] = (verdict(id="C3a", reason="<b>", arm="<i>"),)
    make(root)
    for page in (recorded("20_tiny", [], "laptop", root / "book"), shelf(root / "book")):
        assert "<b>" not in page._repr_html_()
        assert "<i>" not in page._repr_html_()


@pytest.mark.parametrize("name", [one.name for one in find(REPOSITORY) if 20 <= one.number <= 26])
def test_every_chapter_on_the_papers_claims_shows_its_own_record(name):
    one = Chapter(REPOSITORY / "book" / f"{name}.py")
    source = one.source.read_text()
    assert source.count(f'recorded("{name}", verdicts, scale)') == 1
    assert source.index("# ## At the paper's own size\n") < source.index("# ## What would change our mind\n")
    paper, laptop = one.settle("paper", {}), one.settle("laptop", {})
    assert definition.code(one, paper) != definition.code(one, laptop)
    assert definition.data_sets(one, laptop) == ["digits"]
    assert set(definition.data_sets(one, paper)) - {"digits"}
    assert definition.keeps_something(one)


def test_no_record_of_the_book_is_damaged_or_large():
    for one in recording.find(REPOSITORY / "book"):
        assert not isinstance(one, Unreadable), one
        folder = REPOSITORY / "book" / "records" / one.name
        assert all(path.stat().st_size < 200_000 for path in folder.iterdir())
