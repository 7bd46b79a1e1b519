"""The book itself, from its sources to the site, at smoke scale: what `make book` does, in a minute."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from threefactors.inference import CLAIMS, VOID
from threefactors.publishing import build as builder
from threefactors.publishing import chapters
from threefactors.settings import Settings

from tests.books import REPOSITORY

CHAPTERS = chapters.find(REPOSITORY)


@pytest.fixture(scope="module")
def root(smoke_book):
    return smoke_book.root


@pytest.fixture(scope="module")
def report(smoke_book):
    return smoke_book.report


def test_it_is_built_without_a_failure(report):
    assert report.failures == []
    assert report.page is not None
    assert report.page.is_file()
    assert len(report.executions) == len(CHAPTERS)


def test_memory_stays_within_four_gibibytes(report):
    assert all(0 < execution.peak_memory < 4 * 2**30 for execution in report.executions)


def test_a_second_build_executes_nothing(root, report, monkeypatch):
    monkeypatch.setattr(builder.site, "build", lambda *_, **__: report.page)  # only what comes before it
    again = builder.build(root, scale="smoke", settings=Settings(store=root / "store", jobs=2))
    assert again.failures == []
    assert all(execution.cached for execution in again.executions)


PROTOCOLS, NETWORKS = ("equal epochs", "equal clock", "equal loss"), ("plain", "batch norm")
TASKS = ("cross-entropy", "squared loss", "label noise", "label noise, narrow")
DIALS = ("label draws", "added noise", "importance", "pairs", "isotropic")
NOISES = ("C = H", "C = I", "C = H²")
STATE_DEPENDENT = "1 dimension, C like H"
CYCLES = ("plain", "plain quenched", "batch norm", "batch norm quenched")
LABELS = ("25%", "25% with momentum", "50%", "50% with momentum")
LEARNT, SCHEDULES = ("plain", "batch norm", "noisy labels"), ("step", "square cycle", "triangular cycle")
PAIRS = ("equal η/√S", "equal η", "equal S")
CONDITIONS = ("path", "end", "finite set", "noise to signal")
DRAWING, NETWORK_DRAWS = ("with replacement", "without replacement"), ("independent draws", "epochs")
SUMS = ("Styblinski–Tang", "circles")
MECHANISMS = ("whichever comes first", "amplified kicks", "instability alone", "kicks alone")
PLACES = {  # chapter → claim → (protocols, arms), or several of them
    "10_equation": {
        "E1": (
            ["simulation"],
            [f"{equation} at {held}" for equation in ("first-order equation", "gradient flow")
             for held in ("fixed S", "fixed η/S")],
        ),
        "E2": (["simulation"], ["fixed S"]),
        "E3": (["simulation"], ["equal η/S", "equal η/√S"]),
        "E4a": (["simulation"], ["trained"]),
        "E4b": (["simulation"], ["at initialization", "trained"]),
        "E5": (["equal clock"], ["η = 0.05", "η = 0.8"]),
    },
    "11_stationary": {
        "C13a": (["simulation"], [*NOISES, "any C"]),
        "C13b": (["simulation"], ["C = H", "any C"]),
        "C13c": (["simulation"], ["C = H", "any C"]),
        "C13d": (["simulation"], ["C = H", "C = I"]),
        "C13e": (["simulation"], ["C = H"]),
        "L1": (["simulation"], ["regression"]),
        "L1b": (["simulation"], ["regression"]),
        "L2": (["simulation"], ["epochs"]),
        "L2b": (["simulation"], ["epochs"]),
    },
    "12_covariance": {
        **{f"A2{letter}": (["equal clock"], TASKS) for letter in "abdef"},
        "A2c": (["equal clock"], ["cross-entropy", "label noise", "label noise, narrow"]),
    },
    "13_third_factor": {
        "C12a": (["simulation"], ["bowl"]),
        "C12b": (["equal clock"], DIALS),
        "C12c": (["equal clock"], DIALS),
        "C12d": (["simulation"], NOISES),
        "C12e": (["simulation"], NOISES),
        "C12f": (["simulation"], ["Tr C = Tr H", "C changed"]),
    },
    "14_which_minimum": {
        "C14a": (["simulation"], ["1 dimension", "5 dimensions", STATE_DEPENDENT]),
        "C14b": (["simulation"], ["1 dimension", "5 dimensions"]),
        "C14c": (["simulation"], ["1 dimension"]),
        "C14d": (["simulation"], ["1 dimension", "3 dimensions"]),
        "C14e": (["simulation"], [STATE_DEPENDENT]),
        "C14f": (["simulation"], ["2 dimensions"]),
    },
    "20_width": dict.fromkeys(("C3a", "C3b", "C3c", "C4"), (PROTOCOLS, NETWORKS)),
    "21_depth": {
        **dict.fromkeys(("D1a", "D1b"), (["equal clock"], ["squared loss", "cross-entropy"])),
        **dict.fromkeys(("D2a", "D2b"), (["equal clock"], ["squared loss"])),
        **dict.fromkeys(("C3a", "C3b", "C3c", "C4", "D3a", "D3b"), (PROTOCOLS, ("deep", "deep, batch norm"))),
    },
    "22_interpolation": dict.fromkeys(("C5a", "C5b", "C6a", "C6b"), (PROTOCOLS, NETWORKS)),
    "23_dynamics": {
        "C1": (["equal epochs"], [f"{task}: {schedule}" for task in LEARNT for schedule in SCHEDULES]),
        "C2a": (["equal epochs"], [f"{task}: equal η/S" for task in LEARNT]),
        "C2b": (["equal epochs"], [f"{task}: equal η/√S" for task in LEARNT]),
        "C2c": (["equal loss"], [f"{task}: {pair}" for task in LEARNT for pair in ("equal η/S", *PAIRS, *SCHEDULES)]),
        "T1": (["equal clock"], [f"{task}: {pair}" for task in LEARNT for pair in PAIRS]),
    },
    "24_cycles": {
        **dict.fromkeys(("C9a", "C9c", "C9d", "C9e"), (PROTOCOLS[1:], CYCLES)),
        "C9b": (PROTOCOLS, CYCLES),
    },
    "25_breakdown": {
        **dict.fromkeys(("C7", "C8", "C11a", "C11b"), (PROTOCOLS, NETWORKS)),
        "C11c": [(["equal epochs"], CONDITIONS), (["equal clock"], (*CONDITIONS, "full batch"))],
        "C11d": (["equal clock"], ["with replacement", "SVAG"]),
    },
    "26_memorization": {
        **dict.fromkeys(("C10a", "C10c"), (["equal epochs"], LABELS)),
        **dict.fromkeys(("C10b", "C10d"), (PROTOCOLS, LABELS)),
        "C10e": (["equal loss"], ["25% quenched", "50% quenched"]),
    },
    "30_quadratic_sums": {
        **dict.fromkeys(("P1a", "P1b", "P2a", "P2b"), (["simulation"], DRAWING)),
        "P1c": (["simulation"], ["mean square", "typical"]),
        "P1d": (["simulation"], [*DRAWING, "many dimensions"]),
        **dict.fromkeys(("P1e", "P1f"), (["simulation"], ["S = 1", "S = 4"])),
        "P1g": (["simulation"], ["tails"]),
        "P1h": (["simulation"], ["one dimension"]),
        "P2c": (["simulation"], ["many dimensions"]),
        "P3a": (["simulation"], ["small batches"]),
        **dict.fromkeys(("P3b", "P3c"), (["simulation"], ["large batches"])),
        "P3d": (["simulation"], ["all batches"]),
        "P3e": (["simulation"], ["small batches", "large batches"]),
        "P3f": (["simulation"], ["one dimension", "many dimensions"]),
    },
    "31_nonconvex_sums": {
        **dict.fromkeys(("P4a", "P4b", "P4c", "P4h", "P4i"), (["simulation"], SUMS)),
        "P4d": (
            ["simulation"],
            ["Styblinski–Tang, gradient noise only, κ = 4",
             *[f"{name}, {noise}" for name in SUMS for noise in ("Hessian noise only", "plain SGD")]],
        ),
        **dict.fromkeys(("P4e", "P4f"), (["simulation"], ["κ = 4"])),
        "P4g": (["simulation"], [f"{name}, {mechanism}" for name in SUMS for mechanism in MECHANISMS]),
        "P4j": (
            ["simulation"],
            ["Styblinski–Tang, gradient noise only", *[f"{name}, Hessian noise only" for name in SUMS]],
        ),
        **{f"P5{letter}": (["simulation"], NETWORK_DRAWS) for letter in "abcdfg"},
        "P5e": (["simulation"], ["full batch"]),
        "P5h": (["simulation"], ["independent draws"]),
    },
    "86_speed": dict.fromkeys(("N1", "N2"), (PROTOCOLS[1:], ["bfloat16"])),
    "80_three_factors": dict.fromkeys(("F1a", "F1b", "F1c", "F2", "F3", "F4"), (["all protocols"], [""])),
}  # fmt: skip


def test_the_ledger_has_every_claim_under_every_protocol_and_arm(root, report):
    entries = json.loads((root / "_build" / "html" / "claims.json").read_text())
    assert {(e["chapter"], e["id"], e["protocol"], e["arm"]) for e in entries} == {
        (chapter, claim, protocol, arm)
        for chapter, judged in PLACES.items()
        for claim, where in judged.items()
        for protocols, arms in (where if isinstance(where, list) else [where])
        for protocol in protocols
        for arm in arms
    }
    assert {e["id"] for e in entries} == set(CLAIMS)  # what was fixed beforehand is judged, all of it
    wanted = {
        "id", "statement", "source", "protocol", "scale", "verdict", "estimate", "interval", "n", "reason", "chapter",
        "provenance",
    }  # fmt: skip
    for entry in entries:
        assert wanted <= set(entry)
        assert entry["scale"] == "smoke"
        assert entry["verdict"] != VOID
        assert set(entry["provenance"]) >= {"commit", "versions", "device", "seconds"}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "book").glob("*.[mp][dy]")), ids=lambda path: path.name)
def test_no_line_of_prose_is_lost_as_a_comment(path):
    """A line that begins with a percent sign is a comment in MyST, and does not appear."""
    lines = path.read_text().splitlines()
    start = "# %" if path.suffix == ".py" else "%"
    assert [line for line in lines if line.startswith(start) and not line.startswith(start + "%")] == []


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.frames, self.captions = [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img" and "_images" in attributes.get("src", ""):
            self.images.append(attributes)
        self.frames += "tf-frames" in attributes.get("class", "").split()
        self.captions += tag == "figcaption"


@pytest.mark.parametrize("name", [c.name for c in CHAPTERS if not c.summary])
def test_every_figure_has_a_caption_and_a_text_instead(root, report, name):
    page = _Page((root / "_build" / "html" / "book" / f"{name}.html").read_text())
    assert page.images
    assert page.captions == len(page.images) + page.frames
    assert all(len(image.get("alt", "")) > 20 for image in page.images)


def test_no_role_directive_or_reference_is_left_unresolved(root, report):
    for page in (root / "_build" / "html" / "book").glob("*.html"):
        text = re.sub(r"<(script|pre|code)\b.*?</\1>", "", page.read_text(), flags=re.S)
        text = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r"\{(glue|cite|numref|eq|ref|doc)[:}]", text), page.name
        assert "??" not in text, page.name


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_chapters_are_ideas_not_plumbing(chapter):
    """About 40 visible lines of code, no raw matplotlib, no long functions but the one that a chapter is about."""
    shown = [
        cell.source
        for cell in chapter.notebook({}).cells
        if cell.cell_type == "code"
        and not {"remove-cell", "hide-input", "parameters"} & set(cell.metadata.get("tags", []))
    ]
    lines = [line for source in shown for line in source.splitlines() if line.strip()]
    assert len(lines) <= 75
    assert "matplotlib" not in chapter.source.read_text()


def test_the_environment_is_left_alone(report):
    assert "THREEFACTORS_PROGRESS" not in os.environ


def test_numbers_in_the_text_come_from_glue(root):
    """A chapter's prose may name settings of the design, but a result with decimals must be glued."""
    for chapter in CHAPTERS:
        notebook = nbformat.v4.new_notebook(cells=chapter.notebook({}).cells)
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        prose = re.sub(r"\$[^$]*\$|\{[a-z:]+\}`[^`]*`|`[^`]*`|```.*?```", "", prose, flags=re.S)
        assert not re.search(r"\d\.\d{2,}", prose), chapter.name


def test_the_lines_for_a_script_run_as_they_stand(tmp_path):
    """Two pages show the same ones. In a folder of their own, by an interpreter that knows nothing else."""
    pages = [(REPOSITORY / page).read_text() for page in ("README.md", "book/intro.md")]
    found = [re.findall(r"```python\n(from threefactors .*?)```", page, flags=re.DOTALL) for page in pages]
    assert found[0] == found[1]
    (lines,) = found[0]
    assert len(lines.splitlines()) <= 10
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sharpness" in done.stdout
    assert len(list((tmp_path / "results").glob("??/*.json"))) == 16
