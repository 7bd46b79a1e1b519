"""Frames to move through: well-formed, without scripts, one button and one text for each picture."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from threefactors.inference.stability import boundaries, growth_curves, growth_map
from threefactors.presentation import figures, stability
from threefactors.presentation.clouds import Cloud, cloud, clouds
from threefactors.presentation.drawn import FIGURE_MIME
from threefactors.presentation.frames import Frames
from threefactors.theory import linear_stability as theory

from tests.books import REPOSITORY

VOID = {"img", "input"}


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def _figure(height):
    figure = plt.figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, height])
    return figure


def _frames(**more):
    labels = ["1", "2 < 3", "4", "5"]
    more = {"title": "η/S", "alt": lambda label: f'a line "{label}"', **more}
    return Frames({label: _figure(i) for i, label in enumerate(labels)}, **more)


@pytest.fixture(scope="module")
def frames():
    return _frames()


def test_the_page_is_well_formed_with_one_button_and_one_text_each(frames):
    page = _Page(frames._repr_html_())
    buttons, labels, images = page.all("input"), page.all("label"), page.all("img")
    assert len(buttons) == len(labels) == len(images) == 4
    assert {b["type"] for b in buttons} == {"radio"}
    assert len({b["name"] for b in buttons}) == 1
    assert [label["for"] for label in labels] == [b["id"] for b in buttons]
    assert ["checked" in b for b in buttons] == [False, False, True, False]  # the middle one
    assert images[1]["alt"] == 'a line "2 < 3"'
    assert all("dark-light" in image["class"] for image in images)
    assert len({(image["width"], image["height"]) for image in images}) == 1  # and the page keeps their place


def test_a_reader_who_only_hears_is_told_the_group_the_value_and_the_picture(frames):
    page = _Page(frames._repr_html_())
    group = next(d for d in page.all("div") if "tf-frames" in d.get("class", ""))
    title = next(p for p in page.all("p") if p.get("id") == group["aria-labelledby"])
    assert group["role"] == "group"
    assert title["class"] == "tf-scale"
    assert [b["aria-describedby"] for b in page.all("input")] == [image["id"] for image in page.all("img")]
    assert frames._repr_html_().count("η/S = <b>2 &lt; 3</b>") == 1  # above its picture, also where styles are off


def test_the_first_to_be_seen_can_be_chosen():
    buttons = _Page(_frames(start="1")._repr_html_()).all("input")
    assert ["checked" in b for b in buttons] == [True, False, False, False]
    with pytest.raises(ValueError, match="start='6' is none of the frames"):
        _frames(start="6")


def test_the_data_of_all_frames_go_along(frames):
    data = frames._repr_mimebundle_()[FIGURE_MIME]
    assert data["columns"] == ["frame", "mark", "x", "y"]
    assert [row for row in data["data"] if row[0] == "5"] == [["5", "line", 0.0, 0.0], ["5", "line", 1.0, 3.0]]


def test_nothing_runs_and_nothing_is_fetched(frames):
    html = frames._repr_html_()
    assert "<script" not in html
    assert not re.search(r"\bon\w+\s*=|javascript:|https?://|url\(", html)


def test_each_button_shows_its_own_picture(frames):
    style = re.search(r"<style>(.*?)</style>", frames._repr_html_()).group(1)
    shown = re.findall(r"-(\d):checked~\.tf-stage>:nth-child\((\d)\)", style)
    assert shown == [("0", "1"), ("1", "2"), ("2", "3"), ("3", "4")]
    assert re.search(r"nth-child\(4\)\{display:block\}$", style)
    assert re.search(r"\.tf-stage>div\{display:none\}", style)  # so that what is not seen is not read out
    rules = [
        rule
        for rule in re.sub(r"@media\s*(print|\([^)]*\))\{((?:[^{}]*\{[^{}]*\})*)\}", r"\2", style).split("}")
        if rule
    ]
    assert all(selector.startswith("#frames-") for rule in rules for selector in rule.split("{")[0].split(","))


def test_two_on_one_page_do_not_share_a_name(frames):
    first, second = (_Page(frames._repr_html_()) for _ in range(2))
    ids = [attributes["id"] for page in (first, second) for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert first.all("input")[0]["name"] != second.all("input")[0]["name"]


def test_pictures_are_transparent_small_and_of_one_size(frames):
    images = [Image.open(BytesIO(b64decode(image))).convert("RGBA") for image in frames.images.values()]
    assert len({image.size for image in images}) == 1
    assert all(image.getpixel((0, 0))[3] == 0 for image in images)
    assert all(len(image) < 20_000 for image in frames.images.values())
    assert plt.get_fignums() == []


def test_without_a_browser_the_words_remain(frames):
    assert repr(frames).splitlines()[0] == "4 frames"
    assert 'η/S = 4: a line "4"' in repr(frames)


def test_a_picture_without_words_is_refused():
    with pytest.raises(ValueError, match=r"\['4', '5'\] have no alternative text"):
        _frames(alt={"1": "one", "2 < 3": "two", "4": " "})
    plt.close("all")


def test_too_few_too_many_and_unequal_pictures_are_refused():
    one = _figure(1)
    for n in (1, 15):
        with pytest.raises(ValueError, match=f"{n} frames to move through; use 2 to 14"):
            Frames({str(i): one for i in range(n)}, title="η/S", alt=str)
    with pytest.raises(ValueError, match="would make the page jump"):
        Frames({"1": one, "2": plt.figure(figsize=(3, 1))}, title="η/S", alt=str)
    plt.close("all")


def test_on_a_phone_a_row_of_panels_scrolls_and_a_single_panel_fits(frames):
    assert "overflow-x:auto" in frames._repr_html_()  # twice as wide as high
    single = {label: plt.figure(figsize=(1.6, 1)) for label in "ab"}
    assert "overflow-x" not in Frames(single, title="η/S", alt=str)._repr_html_()


SEEN = "[...document.querySelectorAll('.tf-stage > div')].map(f => getComputedStyle(f).display == 'block')"


def _opened(browser, frames, scripts, **context):
    page = browser.new_context(**context).new_page()
    script = (REPOSITORY / "book" / "_static" / "frames.js").read_text(encoding="utf-8") if scripts else ""
    page.set_content(f"<body>{frames._repr_html_()}<script>{script}</script></body>")
    return page


def test_without_scripts_the_arrow_keys_turn_the_frames(browser, frames):
    page = _opened(browser, frames, scripts=False)
    assert page.evaluate(SEEN) == [False, False, True, False]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(SEEN) == [False, False, False, True]
    assert page.get_by_role("radio", name="5").is_checked()
    assert page.get_by_role("img").get_attribute("alt") == 'a line "5"'  # the others are not read out


def test_the_slider_turns_the_same_frames_by_key_and_by_finger(browser, frames):
    page = _opened(browser, frames, scripts=True, has_touch=True, reduced_motion="reduce")
    slider = page.get_by_role("slider", name="η/S")
    assert page.get_by_role("radio").count() == page.get_by_role("button").count() == 0
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(SEEN) == [False, True, False, False]
    assert slider.get_attribute("aria-valuetext") == "2 < 3"
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert page.evaluate(SEEN) == [False, False, False, True]
    page.get_by_text("1", exact=True).first.click()  # a label is a button still
    assert (page.evaluate(SEEN)[0], slider.input_value()) == (True, "0")


def test_the_button_plays_the_frames_to_the_last_and_stops_for_the_reader(browser, frames):
    page = _opened(browser, frames, scripts=True)
    page.clock.install()
    page.get_by_role("button", name="Play all frames").click()
    page.clock.run_for(800)
    assert page.evaluate(SEEN) == [False, False, False, True]
    page.clock.run_for(5000)
    page.get_by_role("button", name="Play all frames").click()  # from the beginning
    assert page.evaluate(SEEN)[0]
    page.get_by_role("slider").press("ArrowRight")
    page.clock.run_for(5000)
    assert page.evaluate(SEEN) == [False, True, False, False]
    assert page.get_by_role("button").get_attribute("aria-label") == "Play all frames"


def test_the_cloud_is_drawn_as_given():
    H, covariance = np.diag([1.0, 4.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    points = np.random.default_rng(0).normal(size=(2, 50))
    seen = Cloud(points, covariance, height=3.1, law=3.0)
    ax = cloud(seen, H, reach=(5, 4))
    dots, one, two, level = (np.array(line.get_data()) for line in ax.lines)
    np.testing.assert_array_equal(dots, points)
    for sigmas, ellipse in ((1, one), (2, two)):  # xᵀΣ⁻¹x = σ² on it
        on = np.einsum("in,ij,jn->n", ellipse, np.linalg.inv(covariance), ellipse)
        np.testing.assert_allclose(on, sigmas**2)
    np.testing.assert_allclose(0.5 * np.einsum("in,ij,jn->n", level, H, level), 3.0)
    figure = clouds({"a": seen, "b": seen}, H, reach=(5, 4))
    assert [a.get_title() for a in figure.axes] == [f"{n}\nmean height 3.10e+00, law 3.00e+00" for n in "ab"]
    plt.close("all")


def test_one_spectrum_is_set_off_from_the_others():
    table = pd.DataFrame({"eigenvalue": [0.1, 1.0], "value": [2.0, 1.0], "low": [1.0, 0.5], "high": [3.0, 2.0]})
    curves = pd.concat([table.assign(group="a"), table.assign(group="b")])
    every, one = figures.spectra(curves), figures.spectra(curves, only="b")
    color = every.lines[1].get_color()
    assert [line.get_color() for line in one.lines] == [figures.GRAY, color]  # of the color that it has among all
    assert len(one.collections) == 1
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["b"]


def test_the_map_over_spreads_has_its_limits_where_theory_has_them():
    shape, S, lr, spread = np.array([-1.0, 1.0]), 1, 0.8, 2.0  # q = 1 ± s: all in closed form
    wide = {s: 1 + s * shape for s in (0.5, 1.0, 2.0)}
    rates = np.geomspace(0.1, 4, 40)
    cells = pd.concat(growth_map(q, rates, [S], clones=4096, steps=20).assign(spread=s) for s, q in wide.items())
    edge = pd.concat(boundaries(q, [S]).assign(spread=s) for s, q in wide.items())
    law = growth_curves(wide[spread], [lr], S)
    steps = np.arange(6)
    paths = pd.DataFrame({"trajectory": 0, "step": steps, "size": np.exp(law.y.iloc[1] * steps)})
    figure = stability.spread_map(cells, edge, paths, law, at=(lr, spread))
    left, right = figure.axes[:2]
    limit, typical, descent = (np.array(line.get_data()) for line in left.lines[:3])
    np.testing.assert_allclose(limit[0], 2 / (1 + limit[1] ** 2))  # ρ = (1 − η)² + η²s² = 1
    np.testing.assert_allclose(abs((1 - typical[0]) ** 2 - (typical[0] * typical[1]) ** 2), 1)  # |1−η(1+s)||1−η(1−s)|
    np.testing.assert_allclose(descent[0], 2)
    assert left.lines[3].get_data() == ([lr], [spread])
    for s, own in cells.groupby("spread"):  # what is measured turns where the line is
        assert own.lr[own.growth > 0].min() / (2 / (1 + s**2)) == pytest.approx(1, abs=0.15)
    path, square, usual = (np.array(line.get_data()) for line in right.lines)
    np.testing.assert_allclose(square[1], theory.mean_square_factor(wide[spread], lr, S) ** (steps / 2))
    np.testing.assert_allclose(usual, path)
    assert usual[1][1] == pytest.approx(np.sqrt(1.4 * 1.8))  # |1 − 0.8 · 3| and |1 + 0.8|, each half of the time
    plt.close("all")
