"""The ledger holds what the notebooks hold, no more, no less."""

import json

import nbformat
import pytest
from threefactors.inference import Verdict, Verdicts
from threefactors.publishing import ledger
from threefactors.publishing.ledger import LedgerError, Table, as_text, badge, collect, glance

from tests.books import notebook, shown, verdict


@pytest.fixture
def book(tmp_path):
    first = notebook([shown(verdict(id="C10")), shown(verdict(), verdict(protocol="equal clock"))])
    second = notebook([], [shown(verdict(arm="batch norm", verdict="UNDECIDED"))], device="cuda")
    nbformat.write(first, tmp_path / "20_width.ipynb")
    nbformat.write(second, tmp_path / "30_more.ipynb")
    nbformat.write(notebook([shown(verdict(id="X1"))]), tmp_path / "draft.ipynb")  # not a chapter
    return tmp_path


def test_every_verdict_is_collected_once_in_order(book):
    found = [(e["id"], e["protocol"], e["arm"], e["chapter"]) for e in collect(book)]
    assert found == [
        ("C3", "equal epochs", "plain", "20_width"),
        ("C3", "equal clock", "plain", "20_width"),
        ("C3", "equal epochs", "batch norm", "30_more"),
        ("C10", "equal epochs", "plain", "20_width"),
    ]


def test_an_entry_carries_scale_chapter_and_provenance(book):
    entry = collect(book)[2]
    assert entry["scale"] == "laptop"
    assert entry["provenance"].keys() >= {"commit", "versions", "device", "seconds"}
    assert entry["provenance"]["device"] == "cuda"
    assert entry["provenance"]["seconds"] == 1.5


def test_the_verdicts_of_inference_go_through_unchanged(tmp_path):
    one = Verdict(
        id="C4", statement="s", source="t", protocol="equal loss", arm="", verdict="VOID",
        reason="2 seeds", n=2, runs=4, diverged=1,
    )  # fmt: skip
    bundle = Verdicts([one])._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=json.loads(json.dumps(bundle)), execution_count=2)
    nbformat.write(notebook([output]), tmp_path / "20_a.ipynb")
    (entry,) = collect(tmp_path)
    assert Verdict.from_dict(entry) == one


def test_a_claim_judged_twice_is_an_error(book):
    nbformat.write(notebook([shown(verdict())]), book / "40_again.ipynb")
    with pytest.raises(LedgerError, match=r"id=C3, protocol=equal epochs.* in 20_width and 40_again"):
        collect(book)


def test_the_same_claim_at_another_scale_is_not(book):
    nbformat.write(notebook([shown(verdict())], scale="paper"), book / "40_again.ipynb")
    assert len(collect(book)) == 5


def test_json_holds_the_promised_keys(book, tmp_path):
    ledger.write_json(collect(book), tmp_path / "claims.json")
    entries = json.loads((tmp_path / "claims.json").read_text())
    promised = "id statement source protocol arm scale verdict estimate interval n reason chapter provenance"
    assert all(entry.keys() >= set(promised.split()) for entry in entries)
    assert entries == collect(book)


def test_text_table_shows_what_does_not_exist_as_nothing():
    text = as_text([verdict(scale="smoke", chapter="20_width", estimate=None, interval=None)])
    assert "None" not in text
    assert "C3" in text


def test_half_open_intervals_are_readable():
    assert "[-0.9, ∞]" in as_text([verdict(scale="smoke", chapter="20_width", interval=[-0.9, None])])


def test_glance_counts_and_names_every_verdict(book):
    summary = glance(collect(book))
    assert summary.counts == {"SUPPORTED": 3, "REFUTED": 0, "UNDECIDED": 1, "VOID": 0}
    assert summary.sentence == "4 verdicts on 2 claims: 3 supported, 1 undecided."
    html = summary._repr_html_()
    assert html.count("tf-badge") == 4
    assert html.count('href="20_width.html#verdict-C3"') == 2  # the place on the page where the verdict is
    assert html.count("<tr>") == 3  # a head, and one row for each claim


def test_an_empty_ledger_says_so(tmp_path):
    assert glance(collect(tmp_path)).sentence == "No claim has been judged yet."
    assert as_text([]).startswith("No verdicts yet")


def test_the_full_table_has_a_row_for_each_verdict(book):
    html = Table(collect(book))._repr_html_()
    assert html.count("<tr") == 5
    assert "[-0.9, -0.7]" in html


def test_a_claim_has_one_address_in_the_full_table_and_none_at_a_glance(book):
    html = Table(collect(book))._repr_html_()
    assert html.count('<tr id="claim-C3">') == html.count('<tr id="claim-C10">') == 1
    assert html.index('id="claim-C3"') < html.index("30_more.html")  # the first of its three rows
    assert "id=" not in glance(collect(book))._repr_html_()  # it is shown on other pages, too


def test_tables_are_named_regions_that_keys_reach(book):
    for shown_ in (Table(collect(book)), glance(collect(book))):
        html = shown_._repr_html_()
        assert html.count('tabindex="0" role="region" aria-label="') == html.count("<table") == html.count("<caption>")


def test_words_of_a_verdict_cannot_break_the_page():
    html = badge(verdict(chapter="20_width", reason='p < .05 & "so" <b>', arm="<i>"))
    assert "<b>" not in html
    assert "<i>" not in html
    assert "p &lt; .05 &amp; &quot;so&quot;" in html
