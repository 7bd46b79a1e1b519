from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from threefactors._rng import numpy_generator
from threefactors.inference import (
    CLAIMS,
    PROTOCOLS,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    VOID,
    Claim,
    SeedMean,
    claims,
    judge,
    judge_family,
    required_effect,
)

from tests.tables import WIDTHS, shuffled, sweep

C3a, C3b, C3c, C4 = (CLAIMS[name].at("equal epochs") for name in ("C3a", "C3b", "C3c", "C4"))


def verdicts(claim, tables) -> list[str]:
    return [judge(claim, table).verdict for table in tables]


def at_most(level: float, trials: int) -> int:
    """Count that a true rate of ``level`` exceeds once in a thousand."""
    return int(stats.binom.ppf(0.999, trials, level))


# --- the planted null and the planted effect -------------------------------------------------


def test_shuffled_labels_support_no_claim_more_often_than_its_level():
    rng, trials = numpy_generator(0, "t"), 400
    tables = [shuffled(sweep(rng, accuracy=1.0), rng) for _ in range(trials)]
    found = {claim.id: verdicts(claim, tables) for claim in (C3a, C3b, C4)}
    assert found["C3a"].count(SUPPORTED) <= at_most(0.05, trials)
    assert found["C3a"].count(REFUTED) <= at_most(0.05, trials)
    assert found["C3b"].count(SUPPORTED) <= at_most(0.05, trials)
    assert found["C4"].count(SUPPORTED) <= at_most(0.05, trials)
    # neither is the test so timid that it never errs: both directions together make up the level
    decided = trials - found["C4"].count(UNDECIDED)
    assert stats.binom.ppf(0.001, trials, 0.05) <= decided <= at_most(0.05, trials)


def test_collapse_is_supported_at_its_level_where_the_truth_is_on_the_margin():
    # a = −5/8·k, b = 3/8·k gives q = 1/4; widths that nearly agree make the joint test as bold as it gets
    rng, trials = numpy_generator(1, "t"), 400
    for sign in (1, -1):
        a, b = (-0.625, 0.375) if sign == 1 else (-0.375, 0.625)
        tables = [sweep(rng, a=a, b=b, noise=0.01) for _ in range(trials // 2)]
        supported = verdicts(C3b, tables).count(SUPPORTED)
        assert supported <= at_most(0.05, trials // 2)
        assert supported >= stats.binom.ppf(0.001, trials // 2, 0.05)


def test_planted_effects_are_found():
    rng, trials = numpy_generator(2, "t"), 50
    tables = [sweep(rng, a=-0.4, b=0.4, accuracy=1.0, noise=0.15, slope_sd=0.03) for _ in range(trials)]
    for claim in (C3a, C3b, C3c, C4):
        assert verdicts(claim, tables).count(SUPPORTED) >= 0.9 * trials


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (-0.5, 0.5, {"C3a": SUPPORTED, "C3b": SUPPORTED}),
        (-0.5, 1.0, {"C3a": SUPPORTED, "C3b": REFUTED}),  # η/S²
        (-0.5, 0.25, {"C3a": SUPPORTED, "C3b": REFUTED}),  # η/√S
        (-0.5, 0.0, {"C3a": SUPPORTED, "C3b": REFUTED}),  # η alone
        (0.0, 0.5, {"C3a": SUPPORTED, "C3b": REFUTED}),  # S alone
        (0.5, -0.5, {"C3a": REFUTED, "C3b": SUPPORTED}),  # the ratio alone, but the wrong way round
        (0.0, 0.0, {"C3a": UNDECIDED, "C3b": UNDECIDED}),
    ],
)
def test_planted_laws_get_the_verdict_they_deserve(a, b, expected):
    table = sweep(numpy_generator(3, "t"), a=a, b=b, noise=0.05, slope_sd=0.01)
    assert {claim.id: judge(claim, table).verdict for claim in (C3a, C3b)} == expected


def test_collapse_without_any_dependence_is_undecided_and_says_why():
    verdict = judge(C3b, sweep(numpy_generator(4, "t"), a=0.0, b=0.0))
    assert verdict.verdict == UNDECIDED
    assert "no meaning" in verdict.reason
    assert "not distinguishable from 0" in verdict.reason
    assert verdict.interval is None
    product = judge(C3b, sweep(numpy_generator(4, "t"), a=0.5, b=0.5))  # a function of η·S has no ratio law
    assert product.verdict == UNDECIDED


def test_falling_accuracy_refutes_and_the_estimate_is_in_points_per_tenfold_ratio():
    verdict = judge(C4, sweep(numpy_generator(5, "t"), accuracy=-2.0, noise=0.05))
    assert verdict.verdict == REFUTED
    assert verdict.estimate == pytest.approx(-2.0, abs=0.1)
    assert verdict.interval[1] < 0


def test_accuracy_in_percent_is_not_taken_for_a_fraction():
    table = sweep(numpy_generator(5, "t"))
    verdict = judge(C4, table.assign(validation_accuracy=100 * table["validation_accuracy"]))
    assert verdict.verdict == VOID
    assert "give accuracies as fractions" in verdict.reason


def test_every_measure_must_agree_and_the_weakest_is_reported():
    table = sweep(numpy_generator(6, "t"), a=-0.4, b=0.4, noise=0.05)
    ratio = table["ratio"].to_numpy()
    noise = np.exp(numpy_generator(7, "t").normal(0, 0.3, len(table)))
    flat, rising = table.assign(trace=noise), table.assign(frobenius=ratio**0.4 * noise)
    assert judge(C3a, table).verdict == SUPPORTED
    assert (judge(C3a, flat).verdict, judge(C3a, flat).measure) == (UNDECIDED, "trace")
    assert (judge(C3a, rising).verdict, judge(C3a, rising).measure) == (REFUTED, "frobenius")
    details = judge(C3a, rising).details
    assert set(details) == {"sharpness", "trace", "frobenius"}
    assert details["sharpness"]["interval"][1] < 0 < details["frobenius"]["interval"][0]
    weak = table.assign(trace=table["trace"] * ratio**0.2)
    assert (judge(C3a, weak).verdict, judge(C3a, weak).measure) == (SUPPORTED, "trace")
    assert judge(C3a, weak).estimate == max(d["estimate"] for d in judge(C3a, weak).details.values())


def test_looking_at_three_measures_is_paid_for_when_refuting():
    # three independent widths, each with 2.5 % a direction: without the correction 7.3 % would be refuted
    rng, trials = numpy_generator(8, "t"), 200
    tables = [sweep(rng, a=0.0, b=0.0, slope_sd=0.0) for _ in range(trials)]
    assert verdicts(C3a, tables).count(REFUTED) <= at_most(0.025, trials)


# --- preconditions ----------------------------------------------------------------------------


def lose(table, column, value, rows):
    table = table.copy()
    table.loc[table.index[:rows], column] = value
    return table


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda t: t[t["seed"] < 4], "There are 4 seeds; the claim needs at least 5."),
        (lambda t: t.drop(columns=["trace", "finished"]), "lacks the columns finished, trace"),
        (lambda t: t.iloc[:0], "There are no runs."),
        (
            lambda t: t.drop(index=[17]),
            "incomplete: 1 of 128 runs have no row, the first at lr=0.01, batch_size=16, s",
        ),
        (lambda t: pd.concat([t, t.iloc[:3]]), "3 runs occur more than once.*one arm at a time"),
        (lambda t: t[t["lr"] == 0.01], "1 values of lr by 4 values of batch_size; it needs at least 2 of each"),
        (
            lambda t: lose(t, "diverged", True, 13),
            r"13 of 128 runs \(10%\) were lost: 13 diverged, 0 did not finish",
        ),
        (lambda t: lose(t, "finished", False, 13), "0 diverged, 13 did not finish"),
        (lambda t: lose(t, "trace", np.nan, 13), "0 did not finish, 13 were not measured; at most 10%"),
        (
            lambda t: lose(t, "sharpness_converged", False, 1),
            "not converged in 1 of 128 runs; allow more Lanczos",
        ),
        (lambda t: lose(t, "trace", -1.0, 2), "2 of 128 values <= 0 have no logarithm"),
        (
            lambda t: t.assign(epochs=t["epochs"] * t["ratio"]),
            "'equal epochs' asks for runs of equal epochs, but",
        ),
    ],
)
def test_failed_preconditions_void_the_claim_and_are_named(break_it, reason):
    verdict = judge(C3a, break_it(sweep(numpy_generator(9, "t"))))
    assert verdict.verdict == VOID
    assert re.search(reason, verdict.reason), verdict.reason
    assert verdict.estimate is verdict.p is verdict.interval is None


def test_a_few_lost_runs_are_borne_and_reported():
    table = sweep(numpy_generator(10, "t"))
    table = lose(lose(table, "finished", False, 7), "diverged", True, 4)  # diverged ones never finish either
    table.loc[100, "trace"] = np.nan
    table.loc[table["diverged"], [*WIDTHS, "train_loss"]] = np.nan
    table.loc[table["diverged"], "sharpness_converged"] = False
    verdict = judge(C3a, table)
    assert verdict.verdict == SUPPORTED
    assert (verdict.runs, verdict.diverged, verdict.unfinished, verdict.unmeasured) == (128, 4, 3, 1)
    assert verdict.lost == 8


def test_each_protocol_holds_its_own_quantity_equal():
    at_clock = sweep(numpy_generator(11, "t"), protocol="equal clock")
    assert judge(claims.C3a.at("equal clock"), at_clock).verdict == SUPPORTED
    assert judge(claims.C3a.at("equal clock"), sweep(numpy_generator(11, "t"))).verdict == VOID
    unequal = at_clock.assign(train_loss=at_clock["ratio"])
    assert judge(claims.C3a.at("equal loss"), at_clock).verdict == SUPPORTED
    assert judge(claims.C3a.at("equal loss"), unequal).verdict == VOID


def test_bad_calls_are_told_with_a_remedy():
    table = sweep(numpy_generator(12, "t"))
    with pytest.raises(ValueError, match="protocol='equal time' is unknown; use one of equal epochs, equal clock"):
        claims.C3a.at("equal time")
    with pytest.raises(ValueError, match="claim C3a names no protocol"):
        judge(claims.C3a, table)
    with pytest.raises(TypeError, match="list is no table"):
        judge(C3a, [])
    with pytest.raises(ValueError, match="2 claims but 1 results"):
        judge_family([C3a, C4], [table])
    with pytest.raises(ValueError, match=r"no result for .*equal epochs"):
        judge_family([C3a], {("equal clock", ""): table})


# --- the family -------------------------------------------------------------------------------


def test_family_is_corrected_by_holm_and_alone_is_not():
    rng = numpy_generator(13, "t")
    tables = [sweep(rng, accuracy=0.12, noise=0.3) for _ in range(12)]
    alone = [judge(C4, t) for t in tables]
    family = judge_family([C4] * 12, tables)
    assert [v.p for v in family] == [v.p for v in alone] == [pytest.approx(v.p_adjusted) for v in alone]
    assert all(v.p_adjusted >= v.p for v in family)
    towards = sorted(v.p for v in family if v.estimate > 0)
    assert min(v.p_adjusted for v in family if v.estimate > 0) == pytest.approx(min(1, 12 * towards[0]))
    # the planted case: one that would decide alone and must not in company
    lost = [f for f, a in zip(family, alone, strict=True) if a.verdict == SUPPORTED != f.verdict]
    assert lost
    assert "would decide alone" in lost[0].reason


def test_family_of_nulls_supports_anything_no_more_often_than_its_level():
    rng, trials = numpy_generator(14, "t"), 100
    any_supported = any_alone = 0
    for _ in range(trials):
        family = judge_family([C4] * 4, [sweep(rng, accuracy=0.0) for _ in range(4)])
        any_supported += any(v.verdict == SUPPORTED for v in family)
        any_alone += any(v.p <= 0.05 for v in family)
    assert any_supported <= at_most(0.05, trials)
    assert any_alone > any_supported


def test_void_members_still_count_and_results_are_found_by_protocol_and_arm():
    table = sweep(numpy_generator(15, "t"), accuracy=0.3)
    few = table[table["seed"] < 3]
    arms = [claims.C4.at("equal epochs", arm=arm) for arm in ("plain", "batch norm")]
    found = judge_family(arms, {("equal epochs", "plain"): table, ("equal epochs", "batch norm"): few})
    assert [v.arm for v in found] == ["plain", "batch norm"]
    assert found[1].verdict == VOID
    assert found[0].p_adjusted == pytest.approx(2 * found[0].p)


def test_registry_is_complete_and_bound_claims_leave_it_alone():
    own = {name: value for name, value in vars(claims).items() if isinstance(value, Claim)}
    assert own == CLAIMS
    files = list(Path(claims.__file__).parent.glob("[a-z]*.py"))
    assert len(CLAIMS) == sum(len(re.findall(r"^\w+ = (?:Claim|replace)\(", f.read_text(), re.M)) for f in files)
    assert claims.C3b is CLAIMS["C3b"]
    for protocol in PROTOCOLS:
        assert claims.C3b.at(protocol, arm="x").protocol == protocol
    assert claims.C3b.protocol == ""


# --- what the experiment can see --------------------------------------------------------------


def test_required_effect_is_found_with_the_power_it_names():
    rng = numpy_generator(20, "t")
    effect = required_effect(claims.C4, n_seeds=8, sd=0.5, power=0.8)
    draws = rng.normal(effect, 0.5, size=(4000, 8))
    found = np.mean([C4.rule.decide(SeedMean(d)).outcome == SUPPORTED for d in draws])
    assert found == pytest.approx(0.8, abs=0.025)
    assert required_effect(claims.C3a, 8, 0.5) > effect  # three measures must all be found
    assert required_effect(claims.C4, 20, 0.5) < effect / 1.5
    with pytest.raises(ValueError, match=r"C3b.*use Greater or Less"):
        required_effect(claims.C3b, 8, 0.5)
    with pytest.raises(ValueError, match="use n_seeds >= 2, sd > 0"):
        required_effect(claims.C4, 8, 0.0)
