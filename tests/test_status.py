"""The status page has a row for each chapter before it, and adds up what the notebooks say."""

import re

import pytest
from threefactors.publishing import status

from tests.books import notebook, publish, shown, verdict


@pytest.fixture
def state(tmp_path):
    own = {"machine": "CPU (x86_64)", "peak_memory": 1 << 30, "date": "2026-11-22T08:00:00+00:00"}
    two = shown(verdict(), verdict(id="C4", verdict="VOID"))
    publish(tmp_path, "10_law", notebook([two], **own, seconds=10.0))
    commit = {"id": "a754b8c0123", "dirty": True}
    split = ["3 of 8 runs were <b>split</b>"]
    late = notebook([shown(verdict(id="C5"))], **own | {"peak_memory": 3 << 30}, seconds=40.0, commit=commit)
    late.metadata["threefactors"]["incidents"] = split
    publish(tmp_path, "20_width", late)
    publish(tmp_path, "92_status", notebook([shown(verdict(id="C6"))]))
    return status.collect(tmp_path / "book", before="92_status")


def rows(html):
    """The text of each cell of each row."""
    found = re.findall(r"<tr>(.*?)</tr>", html)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in found]


def test_each_chapter_before_the_page_has_a_row_and_the_last_adds_them_up(state):
    head, first, second, whole = rows(state._repr_html_())
    assert head[:6] == ["chapter", "supported", "refuted", "undecided", "void", "time"]
    assert first == ["10_law", "1", "", "", "1", "10 s", "1.0 GiB", "CPU (x86_64)", "2026-11-22", "", "laptop"]
    assert second[1:8] == ["1", "", "", "", "40 s", "3.0 GiB", "CPU (x86_64)"]
    assert second[-2:] == ["a754b8c with changes", "laptop"]
    assert whole == ["all", "2", "", "", "1", "50 s", "3.0 GiB", "", "", "", ""]


def test_a_row_leads_to_its_chapter_and_tells_what_befell_it(state):
    html = state._repr_html_()
    assert '<a href="20_width.html">' in html
    assert "3 of 8 runs were &lt;b&gt;split" in html
    assert html.count('scope="row"') == 3
    assert html.count('<span class="tf-badge tf-void">1</span>') == 2
    assert 'role="region" aria-label="Chapters as they were executed"' in html


def test_the_sum_in_one_sentence(state, tmp_path):
    assert state.sentence == "2 chapters with 3 verdicts: 50 s, one after another; at most 3.0 GiB of memory."
    assert str(state).splitlines()[1] == "10_law: 10 s, 1.0 GiB, CPU (x86_64), 2026-11-22, laptop"
    assert status.collect(tmp_path / "nowhere").sentence == "No chapter has been executed yet."


def test_versions_that_differ_are_all_named(tmp_path):
    for name, torch in (("10_law", "2.0"), ("20_width", "2.1")):
        publish(tmp_path, name, notebook([], versions={"python": "3.11.7", "torch": torch}))
    found = status.versions(status.collect(tmp_path / "book"))
    assert list(found.computed) == [("python", "3.11.7"), ("torch", "2.0, 2.1")]
    assert dict(found.built)["sphinx"].count(".") == 2
    assert found._repr_html_().count("<table") == 2
