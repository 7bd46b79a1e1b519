"""Claims of the theory: judged cell by cell, on grids of any axes, against predictions without fitted constants."""

import re

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, Claim, Equivalent, SlopeIs, judge
from threefactors.inference.laws import SlopeOn, mean, relative_error
from threefactors.inference.slopes import Unmeasurable

LAW = Claim(
    id="T1",
    statement="y is what was predicted",
    source="a test",
    prediction="y = x",
    measures=("y",),
    quantity="relative error of {measure}",
    statistic=relative_error,
    rule=Equivalent(0.03),
    axes=("x",),
    each="x",
    needs=("predicted_y",),
).at("simulation")


def measured(factor=lambda x: 1.0, *, noise=0.01, seeds=8, x=(0.1, 1.0, 10.0), seed=0):
    rng = numpy_generator(seed, "laws")
    rows = [(s, v, v * factor(v) * np.exp(rng.normal(0, noise)), v) for s in range(seeds) for v in x]
    return pd.DataFrame(rows, columns=["seed", "x", "y", "predicted_y"])


def test_a_law_that_holds_everywhere_is_supported():
    verdict = judge(LAW, measured())
    assert verdict.verdict == SUPPORTED
    assert set(verdict.details) == {"y at x=0.1", "y at x=1", "y at x=10"}


@pytest.mark.parametrize("factor", [2.0, 0.5, 2**0.5, 1.1])
def test_a_planted_factor_in_one_cell_refutes_and_the_cell_is_named(factor):
    verdict = judge(LAW, measured(lambda x: factor if x == 1.0 else 1.0))
    assert verdict.verdict == REFUTED
    assert verdict.measure == "y at x=1"
    assert verdict.estimate == pytest.approx(factor - 1, abs=0.03)


def test_errors_that_average_out_over_cells_do_not_support():
    crooked = measured(lambda x: {0.1: 1.1, 1.0: 1.0, 10.0: 1 / 1.1}[x])
    whole = Claim(**{**vars(LAW), "each": ""})
    assert judge(whole, crooked).verdict == SUPPORTED  # the reason why `each` exists
    assert judge(LAW, crooked).verdict == REFUTED


def test_noise_larger_than_the_margin_leaves_it_undecided():
    assert judge(LAW, measured(noise=0.2)).verdict == UNDECIDED


def test_false_laws_are_supported_no_more_often_than_the_level():
    """On the margin in every cell, where support is most likely to be given in error."""
    tables = [measured(lambda x: 1.03, x=(1.0, 2.0), seed=s) for s in range(300)]
    assert sum(judge(LAW, t).verdict == SUPPORTED for t in tables) <= 15 + 3 * (300 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.drop(columns="predicted_y"), "lacks the columns predicted_y"),
        (lambda t: t.assign(y=t.y.where(t.seed > 0)), "10 were not measured; at most 10%"),
        (lambda t: t[t.seed < 3], "3 seeds; the claim needs at least 5"),
        (lambda t: t.assign(predicted_y=0.0), "nothing can be relative to it"),
        (lambda t: t[t.x == t.x.max()], "1 values of x; it needs at least 2 of each"),
        (lambda t: t.iloc[1:], "incomplete: 1 of 80 runs have no row, the first at x="),
        (lambda t: pd.concat([t, t.iloc[:1]]), "occur more than once"),
    ],
)
def test_preconditions_are_named(spoil, reason):
    table = spoil(measured(x=tuple(np.geomspace(0.1, 10, 10))))
    verdict = judge(LAW, table)
    assert verdict.verdict == VOID
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_few_lost_measurements_are_counted_and_cost_seeds():
    table = measured(x=tuple(np.geomspace(0.1, 10, 10)))
    verdict = judge(LAW, table.assign(y=table.y.where((table.x != 0.1) | (table.seed > 1))))
    assert (verdict.verdict, verdict.unmeasured, verdict.n) == (SUPPORTED, 2, 6)


def test_a_cell_without_any_run_left_voids():
    table = measured(x=tuple(range(1, 14)))
    verdict = judge(LAW, table.assign(y=table.y.where(table.x != 3)))
    assert verdict.verdict == VOID
    assert "No run is left at x = 3" in verdict.reason


def test_axes_may_be_words_or_none_at_all():
    worded = measured().assign(way=lambda t: t.x.map({0.1: "H", 1.0: "I", 10.0: "H²"}))
    by_way = Claim(**{**vars(LAW), "axes": ("way",), "each": "way"})
    assert set(judge(by_way, worded).details) == {"y at way=H", "y at way=I", "y at way=H²"}
    bare = Claim(**{**vars(LAW), "axes": (), "each": ""})
    assert judge(bare, measured(x=(1.0,))).verdict == SUPPORTED


def test_each_must_be_an_axis():
    with pytest.raises(ValueError, match="each='z' is no axis"):
        Claim(**{**vars(LAW), "each": "z"})


def test_slope_is_the_exponent():
    table = measured(lambda x: x**0.5, noise=0.0)
    assert SlopeOn("x")(table, "y").value == pytest.approx(1.5)
    slope = Claim(**{**vars(LAW), "statistic": SlopeOn("x"), "rule": SlopeIs(1.0, 0.1), "each": "", "needs": ()})
    assert judge(slope, measured()).verdict == SUPPORTED
    assert judge(slope, table).verdict == REFUTED
    with pytest.raises(Unmeasurable, match="0 seeds identify"):
        SlopeOn("x")(table[table.x == 1.0], "y")


def test_rows_of_one_seed_are_averaged_first():
    table = pd.DataFrame({"seed": [0, 0, 0, 1], "y": [1.0, 1.0, 4.0, 4.0]})
    assert mean(table, "y").per_seed.tolist() == [2.0, 4.0]
    with pytest.raises(Unmeasurable, match="1 seed of y"):
        mean(table[table.seed == 0], "y")
