"""The figure of the front page, from made-up ledgers; and the directive that shows a figure of another page."""

import re

import numpy as np
import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace, patch_docutils
from threefactors.presentation import landing

S, R, U, V = "SUPPORTED", "REFUTED", "UNDECIDED", "VOID"
PROTOCOLS = list(landing.CLOCK_ALONE)


def entry(protocol, verdict, value=-0.5, arm="plain", **changes):
    own = {"estimate": value, "interval": [value - 0.1, value + 0.1]}
    weakest = {"estimate": -9.0, "interval": [-9.5, -8.5], "details": {"sharpness": own, "trace": {}}}
    return {"id": "C3a", "protocol": protocol, "arm": arm, "verdict": verdict} | weakest | changes


FOUND = dict(zip(PROTOCOLS, ((S, -1.2), (R, 0.3), (U, 0.1)), strict=True))
LEDGER = [entry(protocol, *found, arm) for arm in ("plain", "deep") for protocol, found in FOUND.items()]


def marks(ax):
    """x → marker of every point with an interval."""
    return {round(bar.lines[0].get_xdata()[0], 3): bar.lines[0].get_marker() for bar in ax.containers}


def test_the_slope_of_the_sharpness_is_shown_and_not_that_of_the_weakest_measure():
    table = landing.slopes([*LEDGER, entry("equal epochs", S, id="C3b"), entry("simulation", S)])
    assert len(table) == len(LEDGER)
    assert table.value.tolist() == [-1.2, 0.3, 0.1] * 2
    assert np.allclose(table.high - table.low, 0.2)
    bare = landing.slopes([entry("equal loss", S, details=None)])
    assert bare.value.tolist() == [-9.0]


def test_each_protocol_has_a_panel_and_each_verdict_a_mark_of_its_own():
    figure = landing.width_by_protocol(landing.slopes(LEDGER))
    assert [ax.get_title("left").split(" (")[0] for ax in figure.axes] == PROTOCOLS
    assert [marks(ax) for ax in figure.axes] == [{-1.2: "o"}, {0.3: "X"}, {0.1: "D"}]
    assert [len(ax.containers) for ax in figure.axes] == [2, 2, 2]
    lines = [{line.get_xdata()[0] for line in ax.lines if line.get_linestyle() != "None"} for ax in figure.axes]
    assert [found & {-1.0, 0.0} for found in lines] == [{-1.0, 0.0}, {0.0}, {0.0}]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"supported", "refuted", "undecided"} < named
    assert "void" not in named
    assert len({style["fmt"] for style in landing.STYLES.values()}) == len(landing.STYLES)


def test_other_verdicts_and_missing_numbers_keep_their_rows():
    void = entry("equal clock", V, details=None, estimate=None, interval=None)
    table = landing.slopes([void, entry("equal clock", U, 0.0, "deep", interval=None, details=None, estimate=0.2)])
    figure = landing.width_by_protocol(table)
    (ax,) = figure.axes  # only the protocol that was judged
    assert any("VOID: no estimate" in text.get_text() for text in ax.texts)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["plain", "deep"]
    figure.canvas.draw()


def test_in_brief_says_what_the_figure_shows():
    assert landing.in_brief(landing.slopes(LEDGER)) == {
        "equal epochs": "−1.20 (2 supported)",
        "equal clock": "0.30 (2 refuted)",
        "equal loss": "0.10 (2 undecided)",
    }
    void = entry("equal clock", V, details=None, estimate=None, interval=None)
    assert landing.in_brief(landing.slopes([void])) == {"equal clock": "no estimate (1 void)"}


def test_a_ledger_without_the_claim_is_refused():
    with pytest.raises(ValueError, match=r"no verdict on C3a under equal epochs, .*; execute the chapter"):
        landing.slopes([entry("equal epochs", S, id="C4")])


PAGE = "# One\n\n```{figure} dot.svg\n:name: fig-dot\n:alt: A dot.\n:class: dark-light\nA dot.\n```\n"
AGAIN = "# Two\n\n```{toctree}\none\n```\n\n"
AGAIN += "```{figure-again} %s\n:name: fig-again\nThe dot, with $x$.\n```\n\n{numref}`fig-again`\n"


def read_with_sphinx(folder, name):
    """The page that shows the figure ``name`` again, built in this process."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "one.md").write_text(PAGE)
    (source / "index.md").write_text(AGAIN % name)
    (source / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    settings = {
        "extensions": ["myst_parser", "threefactors.publishing.again"],
        "myst_enable_extensions": ["dollarmath"],
        "numfig": True,
        "source_suffix": {".md": "markdown"},  # Sphinx's own default is one dictionary, which MyST-NB may have changed
    }
    places = [str(folder / name) for name in ("out", "trees")]
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            str(source), None, *places, "html", settings, status=None, warning=None, freshenv=True, warningiserror=True
        )
        app.build()
    return (folder / "out" / "index.html").read_text()


def test_a_figure_of_another_page_comes_with_its_text_and_gets_a_number(tmp_path):
    html = read_with_sphinx(tmp_path, "fig-dot")
    image = html[html.index("<img") : html.index("</figure>")]
    assert 'alt="A dot."' in image
    assert "dark-light" in image
    assert 'src="_images/dot.svg"' in image
    assert "The dot, with" in image
    number = re.search(r'caption-number">(Fig\.\s\d)', image)[1]
    assert f'href="#fig-again"><span class="std std-numref">{number}</span>' in html


def test_a_figure_that_no_page_has_fails_the_build(tmp_path):
    with pytest.raises(ExtensionError, match="index: no page has a figure named fig-elsewhere"):
        read_with_sphinx(tmp_path, "fig-elsewhere")
