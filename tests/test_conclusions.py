"""What the verdicts come to in words, from ledgers that were made up."""

import pytest
from threefactors.inference.claims import CLAIMS
from threefactors.inference.claims.paper import PAPER_CLAIMS, RIVAL_CLAIMS
from threefactors.publishing.conclusions import Brief, Conclusions, family, in_short

S, R, U, V = "SUPPORTED", "REFUTED", "UNDECIDED", "VOID"
CASES = {
    "Holds wherever it was tested.": [{"epochs": S, "clock": S, "loss": S}, {"clock": S}],
    "Fails wherever it was tested.": [{"epochs": R, "loss": R}],
    "Could not be decided.": [{"epochs": U, "clock": U}, {"loss": V}, {"clock": U, "loss": V}],
    "Holds as the paper tested it, at equal epochs, and nowhere else.": [
        {"epochs": S, "clock": R, "loss": R},
        {"epochs": S, "clock": U, "loss": R},
        {"epochs": S, "loss": V},
    ],
    "Holds wherever it could be decided.": [{"epochs": S, "clock": U, "loss": S}, {"epochs": U, "clock": S}],
    "Fails wherever it could be decided.": [{"epochs": U, "clock": R}, {"epochs": R, "loss": V}],
    "Holds under some conditions and fails under others.": [
        {"epochs": S, "clock": S, "loss": R},
        {"epochs": R, "loss": S},
    ],
    "Not tested.": [{}],
}


def entries(verdicts, identifier="C3a"):
    common = {"id": identifier, "statement": "Wider <minima>", "chapter": "20_width", "arm": "plain"}
    return [common | {"protocol": f"equal {name}", "verdict": verdict} for name, verdict in verdicts.items()]


@pytest.mark.parametrize(("sentence", "verdicts"), [(text, one) for text, cases in CASES.items() for one in cases])
def test_what_verdicts_come_to(sentence, verdicts):
    assert in_short(entries(verdicts)) == sentence
    assert in_short(reversed(entries(verdicts))) == sentence


def test_claims_of_the_book_answer_those_of_the_paper():
    answered = {family(identifier) for identifier in CLAIMS}
    assert set(PAPER_CLAIMS) | set(RIVAL_CLAIMS) <= answered


def test_the_table_names_every_claim_of_the_paper():
    page = Conclusions(entries({"epochs": S, "clock": R}) + entries({"loss": S}, "C12b"))
    html = page._repr_html_()
    assert all(f"<strong>{claim}</strong>" in html for claim in PAPER_CLAIMS)
    assert "Wider &lt;minima&gt;" in html
    assert html.count("Not tested.") == len(PAPER_CLAIMS) - 2
    assert "SUPPORTED at equal epochs (plain); REFUTED at equal clock (plain)" in html
    assert "C3: Holds as the paper tested it" in str(page)


def test_the_rival_has_a_table_of_its_own():
    ledger = entries({"epochs": S}) + entries({"clock": R}, "P4b")
    for kind in (Brief, Conclusions):
        html = kind(ledger, RIVAL_CLAIMS, "the rival")._repr_html_()
        assert html.count("<tr>") == len(RIVAL_CLAIMS) + 1
        assert html.count("Fails wherever it was tested.") == 1
        assert "Holds" not in html  # nothing of the paper's
        assert "P4: Fails wherever it was tested." in str(kind(ledger, RIVAL_CLAIMS, "the rival"))
        assert "What the rival claims" in html
        assert "the paper" not in html


def test_the_brief_table_counts_verdicts():
    html = Brief(entries({"epochs": S, "clock": R, "loss": R}))._repr_html_()
    row = next(part for part in html.split("<tr>") if "<strong>C3</strong>" in part)
    assert (
        "<td>Holds as the paper tested it, at equal epochs, and nowhere else.</td><td>1</td><td>2</td><td></td>" in row
    )
    assert html.count("<tr>") == len(PAPER_CLAIMS) + 1
