"""Two built sites side by side: what must fail is planted, and what other seeds would do as well must pass."""

import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from threefactors.cli import main
from threefactors.publishing import figure_data
from threefactors.publishing.drift import shifts

from tests.books import verdict

SEEDS = 5


def measured(generator, points, *, together=0.0, shift=0.0, noise=1.0, seeds=SEEDS):
    """Means over seeds with their 95 % intervals at the places 1, 2, …; ``together``: the correlation of the points."""
    of_seed, own = generator.normal(size=(seeds, 1)), generator.normal(size=(seeds, points))
    runs = 10 + shift + noise * (together**0.5 * of_seed + (1 - together) ** 0.5 * own)
    half = t.ppf(0.975, seeds - 1) * runs.std(0, ddof=1) / seeds**0.5
    y = runs.mean(0)
    return pd.DataFrame({"x": np.arange(1, points + 1), "y": y, "y_low": y - half, "y_high": y + half})


def figure(seed=0, **shifts):
    """Two panels of two measured series and a law, and a map."""
    parts = []
    for panel in ("plain", "bn"):
        for k, series in enumerate(("low", "high")):
            generator = np.random.default_rng([seed, panel == "bn", k])
            table = measured(generator, 6, shift=shifts.get(f"{panel}_{series}", 0.0))
            parts.append(table.assign(panel=panel, series=series, mark="point"))
        law = pd.DataFrame({"x": np.arange(1, 7), "y": 10 + shifts.get("law", 0.0)})
        parts.append(law.assign(panel=panel, series="law", mark="line"))
    cells = pd.DataFrame({"x": [1, 1, 2, 2], "y": [8, 16, 8, 16], "value": np.arange(4.0) + shifts.get("map", 0.0)})
    return pd.concat([*parts, cells.assign(panel="map", series="", mark="map")])


def site(root, *, entries=None, figures=None, scale="smoke", **build):
    """A built site, as far as it is compared."""
    (root / "data").mkdir(parents=True)
    entries = [verdict(), verdict(id="C4", estimate=None, interval=None)] if entries is None else entries
    entries = [entry | {"scale": scale, "chapter": "20_width", "provenance": {"date": str(root)}} for entry in entries]
    (root / "claims.json").write_text(json.dumps(entries))
    about = {"scale": scale, "commit": {"id": "c" * 40, "dirty": False}, "packages": {"torch": "2.8"},
             "chapters": {"20_width": {"seconds": 61.2}}, "date": "now"}  # fmt: skip
    (root / "build.json").write_text(json.dumps(about | build))
    for name, table in ({"fig-width": figure()} if figures is None else figures).items():
        (root / "data" / f"{name}.csv").write_bytes(figure_data.as_csv(table))
    return root


@pytest.fixture
def compare(tmp_path, capsys):
    """Runs the command on two sites that differ as told; its exit status and what it says."""

    def run(old=None, new=None, *options):
        for name, changes in (("old", old), ("new", new)):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            site(tmp_path / name, **(changes or {}))
        status = main(["compare", str(tmp_path / "old"), str(tmp_path / "new"), *options])
        return status, capsys.readouterr().out

    return run


def kinds(said):
    """What a comparison in JSON found: kind and place."""
    return [(finding["kind"], finding["where"]) for finding in json.loads(said)["findings"]]


def test_an_identical_pair_passes_and_says_so(compare):
    status, said = compare()
    assert status == 0
    assert said.splitlines()[0] == "Identical, byte for byte (verdicts: 2, figures: 1)."
    assert "C3" not in said  # what is the same is counted, not listed


def test_a_turned_verdict_fails(compare):
    status, said = compare(None, {"entries": [verdict(verdict="REFUTED", reason="it rose"), verdict(id="C4")]})
    assert status == 1
    assert said.startswith("FAILED: verdicts turned: 1 (verdicts: 2, figures: 1; the same: 0 and 1).")
    first = next(line for line in said.splitlines() if line.startswith("FAIL "))
    assert all(word in first for word in ("turned", "C3 (equal epochs, plain)", "SUPPORTED", "REFUTED", "it rose"))


@pytest.mark.parametrize("word", ["REFUTED", "UNDECIDED", "VOID"])
def test_any_change_of_the_word_fails(compare, word):
    assert compare({"entries": [verdict()]}, {"entries": [verdict(verdict=word)]})[0] == 1
    assert compare({"entries": [verdict(verdict=word)]}, {"entries": [verdict()]})[0] == 1


def test_a_verdict_that_is_gone_fails_and_a_new_one_is_told(compare):
    one, two = {"entries": [verdict()]}, {"entries": [verdict(), verdict(arm="batch norm")]}
    status, said = compare(two, one, "--json")
    assert (status, kinds(said)) == (1, [("gone", "C3 (equal epochs, batch norm)")])
    status, said = compare(one, two, "--json")
    assert (status, kinds(said)) == (0, [("new", "C3 (equal epochs, batch norm)")])


@pytest.mark.parametrize(
    ("bounds", "value", "status"),
    [
        ([-0.9, -0.7], -0.701, 0),
        ([-0.9, -0.7], -0.7, 0),
        ([-0.9, -0.7], -0.699, 1),
        ([-0.9, -0.7], -0.901, 1),
        ([None, -0.7], -50, 0),
        ([None, -0.7], -0.699, 1),
        ([-0.9, None], 50, 0),
        ([-0.9, None], -0.901, 1),
        ([None, None], 50, 0),
        (None, 50, 0),
        ([-0.9, -0.7], None, 1),
    ],
)
def test_an_estimate_belongs_into_its_old_interval(compare, bounds, value, status):
    old = {"entries": [verdict(interval=bounds)]}
    found, said = compare(old, {"entries": [verdict(estimate=value, interval=[-99, 99])]}, "--json")
    assert found == status
    assert [kind for kind, _ in kinds(said)] == ["outside"] * status


def test_without_an_old_estimate_there_is_nothing_to_leave(compare):
    old = {"entries": [verdict(estimate=None, interval=[0, 1])]}
    assert compare(old, {"entries": [verdict(estimate=7.0)]})[0] == 0


def test_fewer_seeds_are_told(compare):
    status, said = compare({"entries": [verdict()]}, {"entries": [verdict(n=3)]})
    assert status == 0
    assert "8 seeds, now 3" in said


@pytest.mark.parametrize(
    ("cut", "where", "what"),
    [
        (lambda table: None, "fig-width", "a figure"),
        (lambda table: table[table.panel != "bn"], "fig-width: bn", "a panel"),
        (lambda table: table[table.series != "law"], "fig-width: plain: law (line)", "a series"),
        (lambda table: table[(table.x < 6) | (table.series != "low")], "fig-width: plain: low (point)", "points"),
    ],
)
def test_lost_data_fail_and_gained_data_are_told(compare, cut, where, what):
    whole = {"figures": {"fig-width": figure(), "fig-other": figure()}}
    less = {"figures": {"fig-other": figure()} | ({} if cut(figure()) is None else {"fig-width": cut(figure())})}
    status, said = compare(whole, less, "--json")
    first = json.loads(said)["findings"][0]
    assert (status, first["kind"], first["where"], first["note"]) == (1, "lost", where, what)
    status, said = compare(less, whole, "--json")
    assert status == 0
    assert {kind for kind, _ in kinds(said)} <= {"new"}


def test_a_drift_of_one_series_fails_and_is_named(compare):
    status, said = compare(None, {"figures": {"fig-width": figure(bn_high=8.0)}}, "--json")
    assert (status, kinds(said)) == (1, [("drifted", "fig-width: bn: high (point)")])


def test_a_shift_is_held_against_the_spread_over_seeds():
    """The same step is a drift where intervals are narrow, and nothing where they are wide."""
    found = []
    for noise in (0.1, 0.5, 3.0):
        old, new = (
            measured(np.random.default_rng(1), 8, shift=shift, noise=noise).assign(series="a") for shift in (0.0, 1.0)
        )
        found += [shift.drifted + (shift.times > 1) for shift in moves(old, new)]
    assert found == [2, 1, 0]


@pytest.mark.parametrize(("law", "kind"), [(0.001, None), (0.5, "moved"), (3.0, "drifted")])
def test_what_has_no_interval_is_held_against_its_panel(compare, law, kind):
    status, said = compare(None, {"figures": {"fig-width": figure(law=law)}}, "--json")
    assert status == (kind == "drifted")
    assert {found for found, _ in kinds(said)} == ({kind} if kind else set())
    status, said = compare(None, {"figures": {"fig-width": figure(map=law)}}, "--json")
    assert kinds(said) == ([(kind, "fig-width: map (map)")] if kind else [])


def test_times_are_told_only(compare):
    old, new = ({"figures": {"fig": figure(law=by).assign(y_label="µs for a step")}} for by in (0.0, 9.0))
    status, said = compare(old, new)
    assert status == 0
    assert "a time" in said


def moves(old, new):
    """The shifts of each series along y."""
    old, new = (figure_data.read(figure_data.as_csv(table.assign(mark="point"))) for table in (old, new))
    pairs = zip(old.groupby("series", sort=False), new.groupby("series", sort=False), strict=True)
    found = [shift for (_, one), (_, other) in pairs for shift in shifts(one, other, one)]
    return [shift for shift in found if shift.axis == "y"]


@pytest.mark.parametrize("together", [0.0, 0.95])
def test_other_seeds_pass_at_the_stated_rate(together):
    """Of redraws at most one in twenty is told and one in a thousand drifts, also where points move together."""
    generator, names = np.random.default_rng(3), [f"{k}" for k in range(120)]
    old, new = (
        pd.concat([measured(generator, 5, together=together).assign(series=name) for name in names]) for _ in range(2)
    )
    times = np.array([shift.times for shift in moves(old, new)])
    assert len(times) == 120
    assert 0.2 < np.median(times) < 0.3
    assert np.mean(times > 1) <= 0.05
    assert np.mean(times > 2) <= 0.01  # a rate of a thousandth makes more than one of 120 in one of 140 trials


def test_a_whole_figure_of_other_seeds_passes(compare):
    for seed in range(1, 6):
        assert compare(None, {"figures": {"fig-width": figure(seed=seed)}})[0] == 0


def test_a_cloud_of_other_seeds_is_the_same_cloud(compare):
    def cloud(seed, shift=0.0):
        points = np.random.default_rng(seed).normal(size=(400, 2)) + shift
        return {"figures": {"fig": pd.DataFrame(points, columns=["x", "y"]).assign(mark="point")}}

    assert compare(cloud(0), cloud(1))[1].startswith("Passed: no difference in what they say")
    status, said = compare(cloud(0), cloud(1, shift=3.0), "--json")
    assert (status, kinds(said)) == (1, [("drifted", "fig (point)")])


def test_dots_of_single_runs_are_a_sample(compare):
    """Five dots that fall anywhere fall elsewhere with other seeds; many that do not are no accident."""

    def dots(seed, count, shift=0.0):
        x = shift + np.random.default_rng(seed).uniform(size=count)
        return {"figures": {"fig": pd.DataFrame({"mark": "point", "x": x, "y": "square"})}}

    assert [compare(dots(seed, 5), dots(seed + 100, 5))[0] for seed in range(5)] == [0] * 5
    status, said = compare(dots(0, 60), dots(1, 60, shift=0.6))
    assert status == 1
    assert "× the scatter of the points" in said


def test_categories_are_places(compare):
    rows = pd.DataFrame(
        {"mark": "point", "x": [1.0, 2, 9], "y": ["a", "b", "c"], "x_low": [0.9, 1.9, 8.9], "x_high": [1.1, 2.1, 9.1]}
    )
    assert compare({"figures": {"fig": rows}}, {"figures": {"fig": rows[::-1]}})[0] == 0
    status, said = compare({"figures": {"fig": rows}}, {"figures": {"fig": rows.assign(y=["b", "c", "a"])}})
    assert status == 1
    assert "x: " in said


def test_the_builds_are_told_and_never_fail(compare):
    changed = {"commit": {"id": "d" * 40, "dirty": True}, "packages": {"torch": "2.9"}, "device": "cuda",
               "chapters": {"20_width": {"seconds": 9.0}}}  # fmt: skip
    status, said = compare(None, changed)
    assert status == 0
    for words in ("dddddddddd with changes", "2.9", "61 s", "9 s", "cuda"):
        assert words in said


def test_a_comment_folds_what_does_not_fail(compare):
    status, said = compare(None, {"entries": [verdict(verdict="VOID")], "packages": {}}, "--markdown")
    assert status == 1
    assert said.startswith("**FAILED: verdicts turned: 1; verdicts gone: 1 (")
    shown, folded = said.split("<details>", 1)
    assert "| turned | C3 (equal epochs, plain) | SUPPORTED -0.8 [-0.9, -0.7] | VOID" in shown
    assert "| torch | 2.8 | none |" in folded
    assert all(line.count("|") == 6 for line in shown.splitlines() if line.startswith("| "))


def test_an_archive_is_a_site_as_well(tmp_path, capsys):
    folders = [site(tmp_path / "old"), site(tmp_path / "new", figures={"fig-width": figure(bn_low=9.0)})]
    main(["compare", *map(str, folders)])
    said = capsys.readouterr().out
    flat = shutil.make_archive(tmp_path / "flat", "zip", folders[0])
    nested = shutil.make_archive(tmp_path / "nested", "zip", tmp_path, "new")
    assert main(["compare", flat, nested]) == 1
    assert capsys.readouterr().out == said
    assert "drifted" in said


def _remove(name):
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def _write(name, text):
    return lambda root: (root / name).write_text(text)


def _other_scale(root):
    shutil.rmtree(root)
    site(root, scale="laptop")


def _no_archive(root):
    shutil.rmtree(root)
    root.write_text("PK but no zip")


def _broken_archive(root):
    shutil.make_archive(root.parent / "site", "zip", root)
    data = bytearray((root.parent / "site.zip").read_bytes())
    with zipfile.ZipFile(root.parent / "site.zip") as archive:
        start = archive.getinfo("claims.json").header_offset
    data[start + 60] ^= 255
    shutil.rmtree(root)
    root.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "does not exist; name the folder _build/html"),
        (_no_archive, "neither a folder nor a zip archive"),
        (_broken_archive, "is damaged"),
        (_remove("claims.json"), "holds no claims.json, so it is no site"),
        (_remove("build.json"), "holds no build.json"),
        (_remove("data"), "holds no data, so it is no site that `threefactors book` built; build it again"),
        (_write("claims.json", "[{"), "is damaged, JSONDecodeError"),
        (_write("claims.json", '[{"id": "C3"}]'), "is damaged, KeyError"),
        (_write("build.json", "{}"), "build.json names no scale"),
        (_write("data/fig-a.csv", "x,y\n1,2\n"), "data/fig-a.csv is not the data of a figure (it has no column mark)"),
        (_write("data/fig-a.csv", ""), "data/fig-a.csv is not the data of a figure"),
        (_other_scale, "of scale laptop; build both at the same: `threefactors book --scale smoke`"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, capsys, spoil, said):
    old, new = site(tmp_path / "old"), site(tmp_path / "new")
    spoil(new)
    assert main(["compare", str(old), str(new)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert str(new) in captured.err
    assert captured.out == ""
