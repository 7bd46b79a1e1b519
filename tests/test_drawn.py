"""The data of a figure are what it shows, artist by artist, and go with its picture through a notebook into a CSV."""

import json
import sys
from io import BytesIO, StringIO

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from nbformat.v4 import new_output
from threefactors.presentation.artists import GUIDE
from threefactors.presentation.drawn import FIGURE_MIME, axis_labels, drawn, in_notebooks, payload
from threefactors.presentation.figures import held_out, over_grid, side_by_side
from threefactors.presentation.frames import Frames
from threefactors.publishing import figure_data
from threefactors.publishing.chapters import ChapterError

from tests.books import notebook

NAN = None


def line(ax):
    ax.plot([1, 2, 3], [0.5, np.nan, 1 / 3], label="a")
    return {"series": ["a", "a"], "mark": ["line"] * 2, "x": [1, 3], "y": [0.5, 0.333333]}


def dots(ax):
    ax.plot([1, 2], [3, 4], "o")
    return {"mark": ["point"] * 2, "x": [1, 2], "y": [3, 4]}


def scatter(ax):
    ax.scatter([1, 2], [3, 4], c=[5, 6])
    return {"mark": ["point"] * 2, "x": [1, 2], "y": [3, 4], "value": [5, 6]}


def steps(ax):
    ax.step([1, 2], [3, 4], label="s")
    return {"series": ["s"] * 2, "mark": ["line"] * 2, "x": [1, 2], "y": [3, 4]}


def errorbar(ax):
    ax.errorbar([1, 2, 3], [4, 5, 6], yerr=[[0.5, 0, np.inf], [1, 0, 2]], fmt="o", label="e")
    return {"series": ["e"] * 3, "mark": ["point"] * 3, "x": [1, 2, 3], "y": [4, 5, 6],
            "y_low": [3.5, NAN, NAN], "y_high": [5, NAN, 8]}  # fmt: skip


def both_ways(ax):
    ax.errorbar([1], [4], xerr=0.25, yerr=[[1], [2]])
    return {"mark": ["point"], "x": [1], "y": [4], "x_low": [0.75], "x_high": [1.25], "y_low": [3], "y_high": [6]}


def band(ax):
    ax.fill_between([1, 2, 3], [0, 1, np.nan], [2, 1.5, 9], label="_margin")
    return {"series": ["margin"] * 2, "mark": ["band"] * 2, "x": [1, 2], "y_low": [0, 1], "y_high": [2, 1.5]}


def band_across(ax):
    ax.fill_betweenx([1, 2], [0, 5], [3, 4])
    return {"mark": ["band"] * 2, "y": [1, 2], "x_low": [0, 4], "x_high": [3, 5]}


def line_in_its_band(ax):
    ax.fill_between([1, 2], [0, 1], [2, 3], color="red", alpha=0.2)
    ax.plot([1, 2, 3], [1, 2, 3], color="red", label="r")
    return {"series": ["r"] * 3, "mark": ["line"] * 3, "x": [1, 2, 3], "y": [1, 2, 3],
            "y_low": [0, 1, NAN], "y_high": [2, 3, NAN]}  # fmt: skip


def points_on_their_law(ax):
    ax.plot([1, 2], [1, 2], color="red")
    ax.errorbar([1], [1.5], yerr=0.5, color="red", fmt="o", label="$S=8$")
    return {"series": ["$S=8$"] * 3, "mark": ["line", "line", "point"], "x": [1, 2, 1], "y": [1, 2, 1.5],
            "y_low": [NAN, NAN, 1], "y_high": [NAN, NAN, 2]}  # fmt: skip


def bars(ax):
    ax.bar([1, 2], [3, -4])
    return {"mark": ["bar"] * 2, "x": [1, 2], "y": [3, -4]}


def bars_with_intervals(ax):
    ax.barh([0, 1], [3, 4], xerr=[[1, 1], [2, 2]])
    ax.set_yticks([0, 1], ["first", "second"])
    return {"mark": ["bar"] * 2, "x": [3, 4], "y": ["first", "second"], "x_low": [2, 3], "x_high": [5, 6]}


def stacked_bars(ax):
    ax.bar([1], [3], bottom=[2])
    return {"mark": ["bar"], "x": [1], "y": [5], "y_low": [2], "y_high": [5]}


def histogram(ax):
    ax.hist([0.1, 0.2, 0.9], bins=[0, 0.5, 1])
    return {"mark": ["bar"] * 2, "x": [0.25, 0.75], "y": [2, 1]}


def words_as_places(ax):
    ax.bar(["one", "two"], [3, 4])
    return {"mark": ["bar"] * 2, "x": ["one", "two"], "y": [3, 4]}


def beside_a_tick(ax):
    ax.plot([1, 2], [0.2, 0.8], "o")
    ax.set_yticks([0, 1], ["8", "16"])
    return {"mark": ["point"] * 2, "x": [1, 2], "y": [8, 16]}


def intervals(ax):
    ax.hlines([1, 2], [3, 4], [5, 6])
    ax.vlines([7], [8], [9])
    return {"series": ["1", "1", "2"], "mark": ["band"] * 3, "x": [NAN, NAN, 7], "y": [1, 2, NAN],
            "x_low": [3, 4, NAN], "x_high": [5, 6, NAN], "y_low": [NAN, NAN, 8], "y_high": [NAN, NAN, 9]}  # fmt: skip


def guides(ax):
    ax.axhline(0)
    ax.axvline(1)
    ax.plot([0, 1], [0, 1], label=GUIDE)
    ax.text(0.5, 0.5, "a remark")
    ax.plot([], [], "s", label="in the legend only")
    ax.axhline(3, label="limit")
    ax.axvline(4, label="_flip")
    ax.axhspan(1, 2, label="margin")
    ax.axvspan(5, 6)
    return {"series": ["limit", "flip", "margin"], "mark": ["line", "line", "band"], "x": [NAN, 4, NAN],
            "y": [3, NAN, NAN], "y_low": [NAN, NAN, 1], "y_high": [NAN, NAN, 2]}  # fmt: skip


def nameless(ax):
    ax.plot([1], [2], color="red")
    ax.plot([3], [4], color="blue")
    ax.plot([5], [6], color="green", label="named")
    return {"series": ["1", "2", "named"], "mark": ["line"] * 3, "x": [1, 3, 5], "y": [2, 4, 6]}


def image(ax):
    ax.imshow([[1, 2], [3, np.nan]])
    return {"mark": ["map"] * 3, "x": [0, 1, 0], "y": [0, 0, 1], "value": [1, 2, 3]}


def image_from_below(ax):
    ax.imshow([[1], [2]], origin="lower", extent=(0, 2, 10, 20))
    return {"mark": ["map"] * 2, "x": [1, 1], "y": [12.5, 17.5], "value": [1, 2]}


def mesh(ax):
    ax.pcolormesh([1, 100, 10000], [0, 2], [[5, 6]])
    ax.set_xscale("log")
    return {"mark": ["map"] * 2, "x": [10, 1000], "y": [1, 1], "value": [5, 6]}


def level_lines(ax):
    ax.contour([0, 1], [0, 1], [[0, 1], [0, 1]], levels=[0.5])
    return {"mark": ["level"] * 2, "x": [0.5, 0.5], "y": [1, 0], "value": [0.5, 0.5]}


def arrows(ax):
    ax.quiver([0], [1], [2], [3])
    return {"mark": ["arrow"], "x": [0], "y": [1], "u": [2], "v": [3]}


ARTISTS = [
    line, dots, scatter, steps, errorbar, both_ways, band, band_across, line_in_its_band, points_on_their_law, bars,
    bars_with_intervals, stacked_bars, histogram, words_as_places, beside_a_tick, intervals, guides, nameless, image,
    image_from_below, mesh, level_lines, arrows,
]  # fmt: skip


@pytest.mark.parametrize("draw", ARTISTS, ids=lambda draw: draw.__name__)
def test_each_artist_is_read_as_it_is_drawn(draw):
    figure = Figure()
    expected = pd.DataFrame(draw(figure.add_subplot()))
    pd.testing.assert_frame_equal(drawn(figure), expected, check_dtype=False)


def grid(titles, rows=1, ylabels=("loss", "accuracy (%)")):
    figure = Figure()
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for k, ax in enumerate(axes.flat):
        ax.plot([k], [k])
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], ylabels, strict=False):
        ax.set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel("clock\n$T$")
    return figure


@pytest.mark.parametrize(
    ("figure", "names"),
    [
        (grid(["plain\nmean 3.1"]), None),
        (grid(["plain\nmean 3.1", "tilted"]), ["plain", "tilted"]),
        (grid(["", ""]), ["1", "2"]),
        (grid(["a", "a"]), ["a 1", "a 2"]),
        (grid(["a", "b"], rows=2), ["a; loss", "b; loss", "a; accuracy (%)", "b; accuracy (%)"]),
    ],
)
def test_panels_are_named_as_a_reader_finds_them(figure, names):
    table = drawn(figure)
    assert (list(table["panel"].unique()) if "panel" in table else None) == (names if names else ["plain"])
    said = axis_labels(figure)
    assert {labels["x"] for labels in said.values()} == {"clock $T$"}  # shared: below, and at the left
    assert all(labels["y"] == ("accuracy (%)" if "accuracy" in name else "loss") for name, labels in said.items())


def test_a_map_has_the_settings_of_its_cells_and_the_colorbar_its_words():
    cells = pd.DataFrame({"lr": [0.1, 0.1, 0.2, 0.2], "batch_size": [8, 16] * 2, "value": [1, 10, 100, 1000]})
    figure = side_by_side(over_grid, {"plain": cells, "bn": cells}, measure="trace", limits=(1, 1000))
    table = drawn(figure)
    assert list(table["panel"].unique()) == ["plain", "bn"]
    assert sorted(zip(table.x[:4], table.y[:4], table.value[:4], strict=True)) == [
        (0.1, 8, 0), (0.1, 16, 1), (0.2, 8, 2), (0.2, 16, 3),
    ]  # fmt: skip
    assert axis_labels(figure)["plain"]["value"] == "log$_{10}$ Tr $H$"


def test_a_figure_of_the_book_says_who_is_who():
    comparison = pd.DataFrame(
        {"r2": [0.5, 0.8], "low": [0.4, 0.7], "high": [0.6, 0.9], "same_as": ""}, index=["η", "S"]
    )
    table = drawn(held_out(comparison).figure)
    assert table.to_dict("records") == [
        {"series": "held out", "mark": "bar", "x": 0.8, "y": "S", "x_low": 0.7, "x_high": 0.9},
        {"series": "held out", "mark": "bar", "x": 0.5, "y": "η", "x_low": 0.4, "x_high": 0.6},
    ]
    plt.close("all")


def test_nothing_drawn_is_an_empty_table():
    figure = Figure()
    assert drawn(figure).empty
    figure.add_subplot().axhline(0)
    assert drawn(figure).empty


def test_a_hundred_thousand_points_are_three_megabytes():
    figure = Figure()
    figure.add_subplot().plot(np.arange(100_000), np.random.default_rng(0).normal(size=100_000) / 3)
    size = len(json.dumps(payload(drawn(figure), {})))
    assert 2_000_000 < size < 3_500_000


@pytest.fixture
def shell():
    """IPython's own formatter, as it works in a kernel, without a kernel."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, svg)
    yield shell
    InteractiveShell.clear_instance()


def svg(figure):
    picture = StringIO()
    figure.savefig(picture, format="svg")
    return picture.getvalue()


def figure_of(draw):
    figure = Figure(figsize=(2, 1))
    return figure, pd.DataFrame(draw(figure.add_subplot(xlabel="clock $T$", ylabel="loss, mean")))


@pytest.mark.parametrize("draw", [errorbar, bars_with_intervals, guides])
def test_the_data_go_with_the_picture_into_a_csv(shell, draw, tmp_path):
    figure, expected = figure_of(draw)
    assert set(shell.display_formatter.format(figure)[0]) == {"text/plain", "image/svg+xml"}
    assert in_notebooks()
    data, _ = shell.display_formatter.format(figure)
    assert data["image/svg+xml"].startswith("<?xml")
    executed = notebook([new_output("display_data", data=json.loads(json.dumps(data)))])
    executed.cells[1].metadata["mystnb"] = {"figure": {"name": "fig-a"}}
    book = tmp_path / "book"
    book.mkdir()
    nbformat.write(executed, book / "10_law.ipynb")
    figure_data.write(book, tmp_path / "data")
    read = pd.read_csv(tmp_path / "data" / "fig-a.csv")
    pd.testing.assert_frame_equal(read[list(expected)], expected, check_dtype=False)
    assert set(read["x_label"]) == {"clock $T$"}
    assert set(read["y_label"]) == {"loss, mean"}


def test_a_figure_without_data_is_only_a_picture(shell):
    in_notebooks()
    assert FIGURE_MIME not in shell.display_formatter.format(Figure(figsize=(1, 1)))[0]


def test_frames_bring_the_data_of_all(shell):
    frames = Frames(
        {name: figure_of(draw)[0] for name, draw in (("0.5", line), ("1", dots))}, title="η/S", alt=lambda name: name
    )
    data, _ = shell.display_formatter.format(frames)
    assert {"text/plain", "text/html", FIGURE_MIME} <= set(data)
    tables = figure_data.of_notebook(notebook([new_output("display_data", data=json.loads(json.dumps(data)))]))
    table = tables["notebook-cell-2"]
    assert list(table.columns[:1]) == ["frame"]
    assert table.groupby("frame").size().to_dict() == {"0.5": 2, "1": 2}
    assert set(table["y_label"]) == {"loss, mean"}


def shown(named=None, cell_id="20-width-7", **more):
    data = {FIGURE_MIME: payload(drawn(figure_of(line)[0]), {"": {"x": "t", "y": "", "value": ""}}, **more)}
    executed = notebook([new_output("display_data", data=data)])
    executed.cells[1]["id"] = cell_id
    if named:
        executed.cells[1].metadata["mystnb"] = {"figure": {"name": named}}
    return executed


def test_a_table_is_named_after_its_figure(tmp_path):
    assert list(figure_data.of_notebook(shown("fig-a", name="own"))) == ["fig-a"]
    assert list(figure_data.of_notebook(shown(name="fig-cloud"))) == ["fig-cloud"]
    assert list(figure_data.of_notebook(shown(name="../../x y"))) == ["..-..-x-y"]  # never another folder
    assert list(figure_data.of_notebook(shown())) == ["20-width-cell-2"]
    nbformat.write(shown(), tmp_path / "24_cycles.ipynb")
    assert list(figure_data.of_notebook(tmp_path / "24_cycles.ipynb")) == ["24-cycles-cell-2"]


def test_two_figures_of_one_name_are_refused(tmp_path):
    for chapter in ("10_a", "11_b"):
        nbformat.write(shown("fig-a"), tmp_path / f"{chapter}.ipynb")
    with pytest.raises(ChapterError, match="10_a and 11_b both name a figure fig-a; rename"):
        figure_data.write(tmp_path, tmp_path / "data")
    twice = shown("fig-a")
    twice.cells.append(twice.cells[1])
    with pytest.raises(ChapterError, match="two figures are named fig-a"):
        figure_data.of_notebook(twice)


def test_equal_data_are_equal_bytes():
    table = figure_data.of_notebook(shown("fig-a"))["fig-a"]
    first = figure_data.as_csv(table)
    assert first == b"series,mark,x,y,x_label\na,line,1,0.5,t\na,line,3,0.333333,t\n"
    assert first == figure_data.as_csv(table.assign(y=[0.5, 1 / 3]))
    assert first == figure_data.as_csv(pd.read_csv(BytesIO(first)))


def test_without_a_notebook_nothing_happens(monkeypatch):
    InteractiveShell.clear_instance()
    assert not in_notebooks()
    monkeypatch.setitem(sys.modules, "IPython", None)  # not even installed
    assert not in_notebooks()
