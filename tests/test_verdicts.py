from __future__ import annotations

import json
from dataclasses import dataclass
from html.parser import HTMLParser

import pandas as pd
from threefactors._rng import numpy_generator
from threefactors.inference import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    VERDICT_MIME,
    VOID,
    Verdict,
    claims,
    judge,
    judge_family,
)

from tests.tables import sweep

C3a, C3b = claims.C3a.at("equal epochs"), claims.C3b.at("equal epochs")


@dataclass
class FakeResult:
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        return self.frame


def test_a_result_and_its_table_are_judged_alike():
    table = sweep(numpy_generator(16, "t"))
    assert judge(C3a, FakeResult(table)) == judge(C3a, table)


def every_kind() -> list[Verdict]:
    rng = numpy_generator(17, "t")
    supported = judge(C3a, sweep(rng))
    refuted = judge(C3a, sweep(rng, a=0.5, b=-0.5))
    undecided = judge(C3b, sweep(rng, a=0.0, b=0.0))
    return [supported, refuted, undecided, judge(C3a, sweep(rng, seeds=3))]


def test_verdicts_survive_json_without_nan():
    kinds = every_kind()
    assert [v.verdict for v in kinds] == [SUPPORTED, REFUTED, UNDECIDED, VOID]
    for verdict in kinds:
        text = json.dumps(verdict.to_dict(), allow_nan=False)
        data = json.loads(text) | {"scale": "laptop", "commit": "abc"}
        assert Verdict.from_dict(data) == verdict
    assert {"id", "statement", "source", "protocol", "verdict", "estimate", "interval", "n", "reason"} < set(data)


class Tags(HTMLParser):
    """Checks nesting and collects class attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert "style" not in dict(attrs)
        self.open.append(tag)
        self.classes += (dict(attrs).get("class") or "").split()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_verdicts_show_themselves_in_a_notebook():
    for verdict in every_kind():
        bundle = verdict._repr_mimebundle_()
        assert bundle[VERDICT_MIME] == verdict.to_dict()
        assert verdict.verdict in bundle["text/plain"]
        tags = Tags()
        tags.feed(bundle["text/html"])
        assert tags.open == []
        assert tags.classes == ["tf-verdict", f"tf-{verdict.verdict.lower()}", "tf-claim"]
    family = judge_family([C3a], [sweep(numpy_generator(18, "t"))])
    bundle = family._repr_mimebundle_()
    assert bundle[VERDICT_MIME] == [family[0].to_dict()]
    tags = Tags()
    tags.feed(bundle["text/html"])
    assert tags.open == []


def test_html_is_escaped():
    arm = judge(claims.C3a.at("equal epochs", arm="<b>&"), sweep(numpy_generator(19, "t")))
    assert "<b>" not in arm._repr_html_()
    assert "&lt;b&gt;&amp;" in arm._repr_html_()


def test_reason_tells_the_numbers_that_the_fields_hold():
    v = every_kind()[0]
    for number in (v.estimate, *v.interval):
        assert f"{number:.3g}" in v.reason
    assert "95 % interval" in v.reason
    assert "8 seeds" in v.reason
