"""Frames to move through: well-formed, without scripts, one button and one text for each picture."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from threefactors.presentation.clouds import Cloud, cloud, clouds
from threefactors.presentation.frames import Frames

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
    more = {"title": "η/S", "alt": lambda label: f'a line "{label}"', "caption": "What to see: <it> grows.", **more}
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
    assert images[1]["alt"] == 'η/S = 2 < 3: a line "2 < 3"'
    assert all("dark-light" in image["class"] for image in images)


def test_nothing_runs_and_nothing_is_fetched(frames):
    html = frames._repr_html_()
    assert "<script" not in html
    assert not re.search(r"\bon\w+\s*=|javascript:|https?://|url\(", html)
    assert "<figcaption" not in html  # the page counts those of its numbered figures
    assert "What to see: &lt;it&gt; grows." in html


def test_each_button_shows_its_own_picture(frames):
    style = re.search(r"<style>(.*?)</style>", frames._repr_html_()).group(1)
    shown = re.findall(r"-(\d):checked~\.tf-stage>:nth-child\((\d)\)", style)
    assert shown == [("0", "1"), ("1", "2"), ("2", "3"), ("3", "4")]
    assert re.search(r"nth-child\(4\)\{display:block\}$", style)
    rules = [rule for rule in style.split("}") if rule]
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
    with pytest.raises(ValueError, match="1 frame leaves nothing"):
        Frames({"1": _figure(1)}, title="η/S", alt={"1": "one"})
    plt.close("all")


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
