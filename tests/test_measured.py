"""Benchmarks on record: what was measured is kept whole, found again, and shown with where it comes from."""

import re

import pandas as pd
import pytest
from threefactors.presentation import speed
from threefactors.publishing import measured
from threefactors.publishing.chapters import Chapter
from threefactors.publishing.execute import fingerprint
from threefactors.settings import Settings

from tests.bench import __main__ as command

ROWS = [
    {"shape": "a-b, S=8", "variant": name, "microseconds_per_model_step": us, "ratio_to_sliced_loop": 800 / us,
     "fraction_of_floor": 10 / us, "peak_mebibytes": peak}
    for name, us, peak in (("(b) sliced loop", 800.0, 3.5), ("(e) library", 20.0, 70.0), ("    ceiling", 8.0, None))
]  # fmt: skip
ABOUT = {
    "bench": "training", "machine": "CPU (x86_64), 2 of 2 cores", "device": "cpu", "date": "2031-02-03T04:05:06Z",
    "command": "python -m tests.bench <&>", "unit": "µs per model-step", "per_microsecond": 1,
    "against": "× sliced loop", "targets": [["a-b, S=8", "library / loop", 40.0, 55.0]], "notes": [["a-b, S=8", "few"]],
    "commit": {"id": "0123456789abcdef", "dirty": True}, "versions": {"torch": "9.9"},
}  # fmt: skip


def test_a_record_is_found_again_as_it_was(tmp_path):
    path = measured.record(tmp_path, ROWS, ABOUT)
    assert path.parent == tmp_path / "records" / "benchmarks"
    assert path.name == "cpu-x86-64-2-of-2-cores.training.parquet"
    (found,) = measured.collect(tmp_path)
    pd.testing.assert_frame_equal(found.rows, pd.DataFrame(ROWS), check_dtype=False)
    assert dict(found.about) == ABOUT
    assert found.targets.to_dict("records") == [
        {"shape": "a-b, S=8", "text": "library / loop", "value": 40.0, "goal": 55.0}
    ]


def test_the_same_machine_has_one_record_and_others_their_own_the_newest_first(tmp_path):
    measured.record(tmp_path, ROWS, ABOUT)
    measured.record(tmp_path, ROWS, {**ABOUT, "date": "2032-01-01T00:00:00Z"})
    measured.record(tmp_path, ROWS, {**ABOUT, "machine": "GPU", "device": "cuda", "date": "2033-01-01T00:00:00Z"})
    measured.record(tmp_path, ROWS, {**ABOUT, "bench": "scaling", "date": "2031-01-01T00:00:00Z"})
    found = measured.collect(tmp_path)
    assert [m.about["date"][:4] for m in found] == ["2033", "2032", "2031"]
    assert [m.about["machine"] for m in measured.collect(tmp_path, device="cuda")] == ["GPU"]
    assert [m.about["bench"] for m in measured.collect(tmp_path, "scaling")] == ["scaling"]
    assert measured.collect(tmp_path / "nowhere") == []
    assert not list(tmp_path.rglob("*.aside"))


def test_a_new_measurement_is_a_reason_to_show_the_page_anew(tmp_path):
    (tmp_path / "book").mkdir()
    chapters = [Chapter(tmp_path / "book" / f"{name}.py") for name in ("20_width", "86_speed")]
    for chapter in chapters:
        chapter.source.write_text('# %% tags=["parameters"]\nscale = "laptop"\n')

    def marks():
        return [fingerprint(chapter, {"scale": "smoke"}, Settings(tmp_path), []) for chapter in chapters]

    before = marks()
    measured.record(tmp_path / "book", ROWS, ABOUT)
    after = marks()
    measured.record(tmp_path / "book", ROWS, {**ABOUT, "date": "2032-01-01T00:00:00Z"})
    assert before[0] == after[0] == marks()[0]
    assert len({before[1], after[1], marks()[1]}) == 3


def test_what_is_required_is_the_newest_or_the_remedy(tmp_path):
    for year in ("2032", "2031"):
        measured.record(tmp_path, ROWS, {**ABOUT, "machine": f"CPU {year}", "date": f"{year}-01-01T00:00:00Z"})
    assert measured.require(tmp_path, ["training"])["training"].about["machine"] == "CPU 2032"
    assert measured.require(tmp_path, [], device="cuda") == {}
    with pytest.raises(FileNotFoundError, match=r"no benchmark scaling is on record .*make bench ARGS=--record"):
        measured.require(tmp_path, ["training", "scaling"])


def test_circumstances_must_be_said(tmp_path):
    with pytest.raises(ValueError, match=r"does not say its date, unit; give all of"):
        measured.record(tmp_path, ROWS, {k: v for k, v in ABOUT.items() if k not in ("date", "unit")})
    with pytest.raises(ValueError, match="no rows"):
        measured.record(tmp_path, [], ABOUT)


def test_it_shows_numbers_targets_and_origin(tmp_path):
    measured.record(tmp_path, ROWS, ABOUT)
    (found,) = measured.collect(tmp_path)
    page = found._repr_html_()
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells == ["800", "1", "1%", "3.5", "20", "40", "50%", "70", "8", "100", "125%", ""]
    assert "CPU (x86_64), 2 of 2 cores, 2031-02-03, commit 0123456789 and changes (torch 9.9)" in page
    assert "tests.bench &lt;&amp;&gt;" in page
    wanted = measured.Targets([found])._repr_html_()
    assert re.findall(r"<td>(.*?)</td>", wanted)[1:] == ["40", "55", "missed", "CPU"]
    reached = measured.Measured(found.rows, {**ABOUT, "targets": [["s", "t", 55.0, 55.0]]})
    assert ">reached<" in measured.Targets([reached])._repr_html_()


def test_many_shapes_are_folded_and_of_many_targets_those_missed_are_named(tmp_path):
    rows = [{**row, "shape": f"shape {i}"} for i in range(7) for row in ROWS]
    targets = [[f"shape {i}", "library / loop", float(i), 1.5] for i in range(17)]
    page = measured.Measured(pd.DataFrame(rows), ABOUT)._repr_html_()
    assert page.count("<details><summary>") == 7
    assert "<details>" not in measured.Measured(pd.DataFrame(rows[:18]), ABOUT)._repr_html_()
    wanted = measured.Targets([measured.Measured(pd.DataFrame(rows), {**ABOUT, "targets": targets})])._repr_html_()
    assert "training: 15 of 17" in wanted
    assert re.findall(r"<td>(shape \d+)</td>", wanted) == ["shape 0", "shape 1"]
    assert wanted.count("missed") == 2


def test_the_command_puts_its_numbers_on_record(tmp_path, monkeypatch, capsys):
    output = tmp_path / "bench.json"
    command.main(["--quick", "--only", "scaling", "--record", "--book", str(tmp_path), "--output", str(output)])
    (found,) = measured.collect(tmp_path, "scaling", "cpu")
    assert len(found.rows) == len(pd.read_json(output)) == 4
    assert found.about["quick"] is True
    assert found.about["command"] == "python -m tests.bench --record --only scaling --quick"
    assert len(found.targets) == 1
    assert {"python", "torch", "numpy"} == set(found.about["versions"])
    assert "on record: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--record", "--book", "nowhere"], "--book=nowhere is no folder"),
        (["--device", "cuda"], "finds no GPU; use --device cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, said, capsys, monkeypatch):
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(words)
    assert said in capsys.readouterr().err


def test_figures_draw_the_fastest_of_each_kind_and_every_count():
    names = ["(b) sliced loop, 1 thread", "(b) sliced loop, 2 threads", "(e) library, kernel, 1 thread",
             "(e) library, kernel, 2 threads", "(f) floor: batched products alone"]  # fmt: skip
    table = pd.DataFrame({"variant": names, "microseconds_per_model_step": [400.0, 350.0, 9.0, 6.0, 7.0]})
    ax = speed.contenders(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "sliced loop", "floor: batched products alone", "library, kernel",
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == ["350", "7", "6"]
    names = ["sliced loop, one network", "library, 1 network", "library, 64 networks", "floor: batched products of 64"]
    table = pd.DataFrame({"variant": names, "microseconds_per_model_step": [400.0, 90.0, 30.0, 40.0]})
    ax = speed.scaling(table)
    assert ax.lines[0].get_xdata().tolist() == [1, 64]
    assert ax.lines[0].get_ydata().tolist() == [90, 30]
    assert [line.get_ydata()[0] for line in ax.lines[1:]] == [400, 40]
