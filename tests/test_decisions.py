from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from threefactors._rng import numpy_generator
from threefactors.inference import (
    MODELS,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Equivalent,
    Greater,
    Less,
    SeedMean,
    SlopeIs,
    collinearity,
    held_out_comparison,
    holm,
    seed_bootstrap,
)

from tests.tables import sweep


def around(value: float, half_width: float, n: int = 8) -> SeedMean:
    """A seed mean whose 95 % interval is value ± half_width."""
    spread = np.linspace(-1, 1, n)
    stderr = spread.std(ddof=1) / np.sqrt(n)
    return SeedMean(value + spread * half_width / (stats.t.ppf(0.975, n - 1) * stderr))


@pytest.mark.parametrize(
    ("rule", "value", "half_width", "expected"),
    [
        (Greater(0.0), 1.0, 0.99, SUPPORTED),
        (Greater(0.0), 1.0, 1.01, UNDECIDED),
        (Greater(0.0), -1.0, 0.99, REFUTED),
        (Greater(2.0), 1.0, 0.99, REFUTED),
        (Less(0.0), -1.0, 0.99, SUPPORTED),
        (Less(0.0), -1.0, 1.01, UNDECIDED),
        (Less(0.0), 1.0, 0.99, REFUTED),
        (Equivalent(0.25), 0.0, 0.2, SUPPORTED),
        (Equivalent(0.25), 0.1, 0.17, SUPPORTED),  # its 95 % interval pokes out, its 90 % one does not
        (Equivalent(0.25), 0.1, 0.20, UNDECIDED),
        (Equivalent(0.25), 0.0, 5.0, UNDECIDED),  # p > 0.05 against "equal" is not equality
        (Equivalent(0.25), 0.5, 0.24, REFUTED),
        (Equivalent(0.25), -0.5, 0.26, UNDECIDED),
        (Equivalent(0.25), 0.2, 0.001, SUPPORTED),  # different from 0 beyond doubt, and close enough
        (SlopeIs(0.5, 0.1), 0.5, 0.05, SUPPORTED),
        (SlopeIs(0.5, 0.1), 0.0, 0.05, REFUTED),
        (SlopeIs(0.5, 0.1), 0.6, 0.05, UNDECIDED),
    ],
)
def test_rules_decide_by_the_place_of_the_interval(rule, value, half_width, expected):
    decision = rule.decide(around(value, half_width))
    assert decision.outcome == expected
    assert (decision.p <= 0.05) == (expected != UNDECIDED)


def test_the_reported_interval_lies_where_the_decision_says():
    rng = numpy_generator(0, "t")
    for values in rng.normal(rng.normal(0, 0.3, size=(300, 1)), 0.3, size=(300, 8)):
        estimate = SeedMean(values)
        up, near = Greater(0.0).decide(estimate), Equivalent(0.25).decide(estimate)
        assert (up.outcome == SUPPORTED) == (up.interval.low > 0)
        assert (up.outcome == REFUTED) == (up.interval.high < 0)
        assert (near.outcome == SUPPORTED) == (near.interval.low > -0.25 and near.interval.high < 0.25)
        assert near.interval.level == pytest.approx(0.90)
        assert Less(0.0).decide(SeedMean(-values)).p_supported == pytest.approx(up.p_supported)


def test_every_rule_errs_no_more_often_than_its_level_on_the_boundary():
    # 2000 data sets on the boundary of the claim; three binomial standard deviations are 1.5 points
    values = numpy_generator(1, "t").normal(0.25, 0.3, size=(2000, 8))
    means = [SeedMean(v) for v in values]
    equal = np.mean([Equivalent(0.25).decide(m).outcome == SUPPORTED for m in means])
    above = np.mean([Greater(0.25).decide(m).outcome == SUPPORTED for m in means])
    below = np.mean([Greater(0.25).decide(m).outcome == REFUTED for m in means])
    assert equal <= 0.05 + 0.015
    assert above + below == pytest.approx(0.05, abs=0.015)


def test_margin_must_be_positive():
    with pytest.raises(ValueError, match=r"margin=0.*use a finite margin > 0"):
        Equivalent(0)


def test_holm_by_hand_and_against_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([]) == []
    # step down: reject the smallest while p₍ᵢ₎ ≤ α/(m − i + 1)
    p, alpha = numpy_generator(2, "t").uniform(0, 0.1, size=12), 0.2
    rejected, order = set(), np.argsort(p)
    for step, index in enumerate(order):
        if p[index] > alpha / (len(p) - step):
            break
        rejected.add(index)
    assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= alpha} == rejected
    with pytest.raises(ValueError, match="use 1 where there is no evidence"):
        holm([0.1, float("nan")])


def test_holm_keeps_the_familywise_error_where_unadjusted_p_values_do_not():
    p = numpy_generator(3, "t").uniform(size=(2000, 10))
    assert np.mean([min(holm(row)) <= 0.05 for row in p]) == pytest.approx(0.05, abs=0.015)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.3


def naive_r2(table, columns, degree):
    """Held-out R² the slow way: one dense polynomial fit for each cell left out."""
    logs = [np.log(table[c].to_numpy()) for c in columns]
    terms = [np.ones(len(table)), *logs]
    if degree == 2:
        terms += [logs[i] * logs[j] for i in range(len(logs)) for j in range(i, len(logs))]
    design, y = np.column_stack(terms), np.log(table["sharpness"].to_numpy())
    errors, baseline = np.zeros(len(y)), np.zeros(len(y))
    for rows in table.groupby(["lr", "batch_size"]).indices.values():
        rest = np.setdiff1d(np.arange(len(y)), rows)
        errors[rows] = y[rows] - design[rows] @ np.linalg.lstsq(design[rest], y[rest], rcond=None)[0]
        baseline[rows] = y[rows] - y[rest].mean()
    return 1 - (errors**2).sum() / (baseline**2).sum()


def compare(table, seed=0, **options):
    return held_out_comparison(table, "sharpness", generator=numpy_generator(seed, "b"), **options)


@pytest.mark.parametrize("degree", [1, 2])
def test_held_out_r2_equals_dense_refits(degree):
    rng = numpy_generator(4, "t")
    table = sweep(rng, a=-0.5, b=0.3, protocol="equal clock").drop(index=[3, 50, 51])
    table["clock"] *= np.exp(rng.normal(0, 0.5, size=len(table)))
    found = compare(table, degree=degree, resamples=10)
    for name, columns in MODELS.items():
        assert found.loc[name, "r2"] == pytest.approx(naive_r2(table, columns, degree), rel=1e-8)


def test_comparison_finds_what_the_measure_depends_on():
    rng = numpy_generator(5, "t")
    options = {"noise": 0.1, "slope_sd": 0.01}
    # every seed shifts its runs; without that spread a perfect model is at R² = 1
    by_ratio = (
        sweep(rng, a=-0.5, b=0.5, **options)
        .groupby("seed", group_keys=False)[["lr", "batch_size", "ratio", "seed", "clock", "sharpness"]]
        .apply(lambda t: t.assign(sharpness=t["sharpness"] / np.exp(np.log(t["sharpness"]).mean())))
    )
    found = compare(by_ratio, models={k: MODELS[k] for k in ("ratio only", "η only", "S only", "η and S")})
    assert found.loc["ratio only", "low"] > 0.9
    assert found.loc["η only", "high"] < 0.7
    assert found.loc["η only", "difference_high"] < 0
    assert found.loc["η and S", "difference"] == pytest.approx(0, abs=0.01)
    by_lr = by_ratio.assign(sharpness=by_ratio["lr"] ** -0.5 * np.exp(rng.normal(0, 0.1, len(by_ratio))))
    found = compare(by_lr, models={"η only": ["lr"], "ratio only": ["ratio"]})
    assert found.loc["η only", "low"] > 0.9
    assert found.loc["ratio only", "difference_high"] < 0


def test_leaving_cells_out_scores_a_measure_without_any_law_at_zero_or_below():
    # each cell has its own value, the same in every seed: a model that saw the cell would look perfect
    rng = numpy_generator(6, "t")
    table = sweep(rng)
    value = rng.normal(size=16)[table.groupby(["lr", "batch_size"]).ngroup()]
    found = compare(table.assign(sharpness=np.exp(value)))
    assert (found["r2"] < 0.3).all()


def test_at_equal_epochs_clock_and_ratio_cannot_be_told_apart_and_it_says_so():
    table = sweep(numpy_generator(7, "t"), protocol="equal epochs")
    found = compare(table)
    assert found.loc["clock", "r2"] == pytest.approx(found.loc["ratio only", "r2"], rel=1e-9)
    assert found.loc["ratio only", "same_as"] == "clock, ratio and clock"
    assert found.loc["η only", "same_as"] == ""
    assert collinearity(table) == pytest.approx(1.0)


def test_at_equal_clock_the_clock_explains_nothing_even_by_its_overshoot():
    table = sweep(numpy_generator(8, "t"), protocol="equal clock")
    table["clock"] += table["lr"]  # the last step overshoots by up to one learning rate
    found = compare(table)
    assert collinearity(table) == 0.0
    assert found.loc["clock", "r2"] == pytest.approx(0.0, abs=1e-9)
    assert found.loc["ratio and clock", "same_as"] == "ratio only"


def test_interval_of_the_first_models_advantage_equals_a_bootstrap_that_refits_tables():
    table = sweep(numpy_generator(9, "t"))
    fast = compare(table, resamples=2000).loc["ratio only"]
    slow = seed_bootstrap(table, lambda t: naive_r2(t, ["ratio"], 2), resamples=60, generator=numpy_generator(1, "b"))
    assert fast["high"] - fast["low"] == pytest.approx(slow.high - slow.low, rel=0.35)


def test_comparison_counts_lost_runs_and_refuses_what_it_cannot_fit():
    table = sweep(numpy_generator(10, "t"))
    table.loc[[1, 2], "diverged"] = True
    found = compare(table, resamples=10)
    assert (found.loc["clock", "runs"], found.loc["clock", "missing"]) == (126, 2)
    with pytest.raises(ValueError, match="degree=3 is not offered"):
        compare(table, degree=3)
    small = table[(table["lr"] < 0.03) & (table["batch_size"] < 32)]
    with pytest.raises(ValueError, match=r"'η and S' at degree=2 has 4 coefficients.*one of 4 cells"):
        compare(small, models={"η and S": ["lr", "batch_size"]})
    with pytest.raises(KeyError, match="width"):
        compare(table, models={"width": ["width"]})
