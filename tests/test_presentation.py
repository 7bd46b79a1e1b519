"""Figures draw what they are given, all of it; summaries are what their docstrings say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from threefactors.inference import (
    Interval,
    Verdict,
    exponents,
    held_out_comparison,
    level_line,
    spectral_summary,
    summarize,
)
from threefactors.presentation import comparison, figures, prose

from tests.tables import sweep


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def table():
    return sweep(np.random.default_rng(0), seeds=6)


def test_summary_is_the_geometric_mean_with_t_limits(table):
    summary = summarize(table, "sharpness")
    one = summary.iloc[3]
    logs = np.log(table[(table.lr == one.lr) & (table.batch_size == one.batch_size)].sharpness)
    half = student.ppf(0.975, 5) * logs.std(ddof=1) / 6**0.5
    assert one.value == pytest.approx(np.exp(logs.mean()))
    assert (one.low, one.high) == pytest.approx((np.exp(logs.mean() - half), np.exp(logs.mean() + half)))
    assert one.ratio == pytest.approx(one.lr / one.batch_size)


def test_lost_runs_are_counted_and_empty_cells_kept(table):
    first = table.iloc[0]
    cell = (table.lr == first.lr) & (table.batch_size == first.batch_size)
    table.loc[cell, "diverged"] = True
    table.loc[table.index[-1], "finished"] = False
    summary = summarize(table, "sharpness")
    assert len(summary) == table.groupby(["lr", "batch_size"]).ngroups
    assert summary.lost.sum() == cell.sum() + 1
    assert summary.value.isna().sum() == 1


def test_level_line_is_constant_over_the_ratios(table):
    line = level_line(table, "sharpness", [1e-3, 1e-2])
    assert line.value.nunique() == 1
    assert line.value[0] == pytest.approx(np.exp(np.log(table.sharpness).mean()))
    assert line.ratio.tolist() == [1e-3, 1e-2]


def test_spectral_summary_integrates_to_the_share_of_positive_eigenvalues():
    nodes = np.array([[-1.0, 0.1, 2.0]])
    weights = np.array([[0.2, 0.5, 0.3]])
    table = pd.DataFrame({"group": ["a"] * 3, "spectrum_nodes": [nodes] * 3, "spectrum_weights": [weights] * 3})
    density = spectral_summary(table, "group", span=(1e-3, 1e2), points=2000, width=0.2)
    step = np.log(density.eigenvalue).diff().mean()
    assert density.value.sum() * step == pytest.approx(0.8, rel=1e-3)
    assert density.eigenvalue[density.value.idxmax()] == pytest.approx(0.1, rel=0.02)


def test_points_are_the_table(table):
    summary = summarize(table, "sharpness")
    ax = figures.against_ratio(summary, "sharpness", control=level_line(table, "sharpness", [1e-4, 1e-2]))
    drawn = np.concatenate([np.column_stack(c[0].get_data()) for c in ax.containers]).astype(float)
    expected = summary[["ratio", "value"]].to_numpy()
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert any("0 of" in text.get_text() for text in ax.texts)
    assert "no noise" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_figure_says_how_many_runs_are_not_in_it(table):
    table.loc[table.index[:5], "diverged"] = True
    ax = figures.against_ratio(summarize(table, "sharpness"), "sharpness")
    assert any(text.get_text() == f"5 of {len(table)} runs lost" for text in ax.texts)


def test_accuracies_are_percent(table):
    ax = figures.against_ratio(summarize(table, "validation_accuracy", log=False), "validation_accuracy")
    drawn = np.concatenate([c[0].get_ydata() for c in ax.containers])
    assert drawn.max() == pytest.approx(100 * summarize(table, "validation_accuracy", log=False).value.max())
    assert "%" in ax.get_ylabel()
    assert ax.get_yscale() == "linear"


def test_map_has_every_cell(table):
    summary = summarize(table, "sharpness")
    ax = figures.over_grid(summary, "sharpness", limits=(summary.value.min(), summary.value.max()))
    shown = ax.images[0].get_array()
    assert shown.size == len(summary)
    np.testing.assert_allclose(np.sort(10 ** shown.ravel()), np.sort(summary.value))


def test_exponents_are_placed_where_they_are(table):
    fitted = exponents({"equal epochs": table}, ["sharpness", "trace"])
    ax = figures.exponent_plane(fitted, margin=0.25)
    drawn = [tuple(np.ravel(c[0].get_xydata())) for c in ax.containers]
    shown = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"equal epochs", figures.LABELS["trace"], "ratio only"} <= shown
    np.testing.assert_allclose(drawn, np.column_stack([fitted.lr, -fitted.batch_size]))


def test_bars_of_the_comparison(table):
    compared = held_out_comparison(table, "sharpness", degree=1, generator=np.random.default_rng(0))
    ax = figures.held_out(compared)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches][::-1], compared.r2.clip(-0.25, 1))


def test_panels_share_their_axes_and_have_names(table):
    summaries = {"one": summarize(table, "sharpness"), "two": summarize(table, "sharpness")}
    figure = figures.side_by_side(figures.against_ratio, summaries, measure="sharpness")
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert [ax.get_legend() for ax in figure.axes] == [None, None]
    assert len(figure.legends) == 1


def test_spectra_and_timings_draw_every_curve():
    curves = pd.DataFrame(
        {"group": ["a", "a", "b", "b"], "eigenvalue": [1, 2, 1, 2], "value": 1.0, "low": 0.5, "high": 2.0}
    )
    assert len(figures.spectra(curves).lines) == 2
    times = pd.DataFrame(
        {"variant": ["a", "a", "b", "b"], "models": [1, 4, 1, 4], "microseconds": [9.0, 5.0, 3.0, 1.0]}
    )
    assert [line.get_ydata().tolist() for line in figures.timings(times).lines] == [[9, 5], [3, 1]]


def test_laws_are_drawn_as_given():
    curves = pd.DataFrame({"label": ["a", "a", "b", "b"], "x": [1, 2, 1, 2], "y": [4.0, 3.0, 2.0, 1.0]})
    ax = figures.laws(curves, xlabel="time (s)", ylabel="y")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[4, 3], [2, 1]]
    assert ax.get_xlabel() == "time (s)"


def verdict(kind, protocol, arm=""):
    return Verdict("C1", "s", "src", protocol, arm, kind, "why", 8, 10)


def test_words_name_every_verdict_and_place():
    words = prose.in_words(
        [
            verdict("SUPPORTED", "equal epochs", "plain"),
            verdict("SUPPORTED", "equal epochs", "batch norm"),
            verdict("UNDECIDED", "equal clock", "plain"),
        ]
    )
    assert words == "SUPPORTED at equal epochs (plain, batch norm); UNDECIDED at equal clock (plain)"
    assert prose.in_words([verdict("VOID", "equal loss")]) == "VOID at equal loss"


def test_glue_spreads_an_interval(monkeypatch):
    kept = {}
    monkeypatch.setattr(prose, "glue_display", lambda name, value: kept.update({name: value}))
    prose.glue(slope=Interval(-1.0, -1.2, -0.8, 0.95, 8), words="so", n=np.int64(3))
    assert kept == {"slope": -1.0, "slope_low": -1.2, "slope_high": -0.8, "words": "so", "n": 3.0}
    assert all(type(value) in (float, str) for value in kept.values())


def test_points_and_their_law_share_a_color_and_other_lines_are_gray():
    x = np.array([1.0, 2.0, 3.0])
    points = pd.concat(
        pd.DataFrame({"x": x, "value": k * x, "low": k * x * 0.9, "high": k * x * 1.1, "C": k}) for k in (1, 2)
    )
    own = pd.concat(pd.DataFrame({"x": x, "y": k * x, "C": k, "label": ""}) for k in (1, 2))
    other = pd.DataFrame({"x": x, "y": x**2, "C": 0, "label": "rival"})
    law = pd.concat([own, other])
    ax = comparison.points_on_law(points, law, x="x", by="C", xlabel="x", ylabel="y")
    drawn = np.concatenate([np.column_stack(c[0].get_data()) for c in ax.containers])
    assert sorted(map(tuple, drawn)) == sorted(zip(points.x, points.value, strict=True))
    colors = {tuple(c[0].get_data()[1]): c[0].get_color() for c in ax.containers}
    lines = {tuple(line.get_ydata()): line for line in ax.lines if line.get_marker() == "None"}
    assert all(lines[y].get_color() == color for y, color in colors.items())
    assert lines[tuple(x**2)].get_color() == figures.GRAY
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["rival", "1", "2"]


def test_points_without_groups_have_one_gray_law():
    points = pd.DataFrame({"x": [1.0], "value": [1.0], "low": [0.9], "high": [1.1]})
    ax = comparison.points_on_law(
        points, pd.DataFrame({"x": [1, 2], "y": [1, 2]}), x="x", xlabel="x", ylabel="y", scales=("linear", "log")
    )
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert ax.lines[0].get_color() == figures.GRAY
