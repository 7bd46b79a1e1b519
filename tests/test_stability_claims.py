"""Claims P1 to P3 on small simulations: supported by the right law, refuted by planted bugs."""

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, judge
from threefactors.inference.claims import stability as claims
from threefactors.inference.stability import (
    boundaries,
    fates,
    flatness,
    growth_curves,
    growth_map,
    growth_table,
    half_left,
    measured_limit,
    transitions,
)
from threefactors.inference.tails import hill, tails, variances
from threefactors.presentation import stability as drawn
from threefactors.simulation.quadratic_problems import flatter, lines, spaces
from threefactors.theory.linear_stability import almost_sure_limit, mean_square_limit
from threefactors.theory.noise import variance_factor
from threefactors.theory.second_moment import second_moment_limit

SEEDS = range(5)
TWO = {name: lines()[name] for name in ("two values", "indefinite")}
PLANE = {"plane": flatter(0.4, spread=1.0), "low rank": spaces()["low rank"][:, 1:3, 1:3]}
QUICK = {"clones": 2000, "steps": 24, "settle": 0}


def verdict(claim, table, **columns):
    return judge(claim.at("simulation", "test"), table.assign(**columns)).verdict


def limit(q, p, power=2):
    return 2 * q.mean() / (q.mean() ** 2 + p * q.std() ** power)


@pytest.fixture(scope="module")
def line():
    """Batch sizes at which each planted bug is at work: S − 1 is one, and n is there."""
    return {r: transitions(TWO, (2, 16) if not r else (2, 4), SEEDS, replacement=r, **QUICK) for r in (True, False)}


@pytest.fixture(scope="module")
def plane():
    quick = {"clones": 500, "steps": 40, "settle": 15}
    return {r: transitions(PLANE, (2,), SEEDS, replacement=r, **quick) for r in (True, False)}


def predicted(table, problems, law):
    return [law(problems[name], S) for name, S in zip(table.problem, table.batch_size, strict=True)]


# --- P1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", [True, False])
def test_the_limit_on_a_line_is_supported_and_that_of_gradient_descent_is_refuted(line, replacement):
    table = line[replacement]
    assert verdict(claims.P1a, table) == SUPPORTED
    assert verdict(claims.P1d, table, predicted_limit=table.without_noise) == REFUTED
    assert verdict(claims.P3f, table) == SUPPORTED  # in one dimension the bounds are the limit


BUGS = {
    "S − 1 for S": (True, lambda q, S: limit(q, 1 / (S - 1))),
    "S + 1 for S": (True, lambda q, S: limit(q, 1 / (S + 1))),
    "a factor of 2": (True, lambda q, S: 2 * limit(q, 1 / S)),
    "half the factor of the variance": (True, lambda q, S: limit(q, 0.5 / S)),
    "s for s²": (True, lambda q, S: limit(q, 1 / S, power=1)),
    "√S for S": (True, lambda q, S: limit(q, S**-0.5)),
    "no replacement where there is": (True, lambda q, S: mean_square_limit(q, S, replacement=False)),
    "replacement where there is none": (False, mean_square_limit),
    "S − 1 for S without replacement": (False, lambda q, S: limit(q, (16 - S) / ((S - 1) * 15))),
    "n − S − 1 for n − S": (False, lambda q, S: limit(q, (16 - S - 1) / (S * 15))),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_in_the_limit_is_refuted(line, bug):
    replacement, law = BUGS[bug]
    table = line[replacement]
    assert verdict(claims.P1a, table, predicted_limit=predicted(table, TWO, law)) == REFUTED


def test_the_right_law_written_anew_is_not_a_bug(line):
    for replacement, table in line.items():
        law = predicted(table, TWO, lambda q, S, n=None if replacement else 16: limit(q, variance_factor(S, n)))
        assert verdict(claims.P1a, table, predicted_limit=law) == SUPPORTED


def test_a_planted_bug_in_the_simulation_is_refuted(line):
    """Batches drawn without replacement, and judged as if with."""
    problem = {"two values": TWO["two values"]}
    table = transitions(problem, (8, 16), SEEDS, replacement=False, **QUICK)
    right = transitions(problem, (8, 16), SEEDS, **QUICK)
    assert verdict(claims.P1a, table.assign(predicted_limit=right.predicted_limit)) == REFUTED
    assert verdict(claims.P1a, right) == SUPPORTED


def test_the_typical_trajectory_has_a_limit_of_its_own():
    table = transitions(TWO, (1, 2), SEEDS, power=0.0, coarse=40, **QUICK)
    assert verdict(claims.P1b, table) == SUPPORTED
    for law in (mean_square_limit, lambda q, S: almost_sure_limit(q, S + 1)):
        assert verdict(claims.P1b, table, predicted_limit=predicted(table, TWO, law)) == REFUTED


def test_growth_rates():
    table = growth_table(TWO, 2, (0.5, 1.5), SEEDS, clones=4000, steps=20)
    for kind, rows in table.groupby("kind"):
        assert verdict(claims.P1c, rows) == SUPPORTED, kind
        assert verdict(claims.P1c, rows, predicted_growth=2 * rows.predicted_growth) == REFUTED  # ln ρ for ½ ln ρ
    rows = table[(table.problem == "indefinite") & (table.kind == "typical")]
    curves = growth_curves(TWO["indefinite"], rows.lr.unique(), 2)
    square = curves[curves.kind == "mean square"].set_index("lr").y
    assert verdict(claims.P1c, rows, predicted_growth=rows.lr.map(square)) == REFUTED


def test_kicks_move_a_transition_and_instability_does_not():
    table = half_left(lines()["many values"], (0, 1, 10), 4, SEEDS, trajectories=40, steps=150, basin=1e6)
    assert (table[table.amplitude == 0].moved == 0).all()
    kicked = table[table.amplitude > 0]
    assert verdict(claims.P1e, kicked) == SUPPORTED
    assert verdict(claims.P1f, kicked) == REFUTED
    rival = kicked.assign(limit=kicked.limit / kicked.amplitude**2)
    assert verdict(claims.P1e, rival) == REFUTED
    assert verdict(claims.P1f, rival) == SUPPORTED


def test_tails():
    q = lines()["many values"]
    table, curves = tails(q, (1.5, 3.0), (1,), SEEDS, trajectories=2000, looks=30, share=0.01)
    assert verdict(claims.P1g, table) == SUPPORTED
    assert verdict(claims.P1g, table, predicted_exponent=2 * table.predicted_exponent) == REFUTED
    assert verdict(claims.P1g, table, predicted_exponent=table.predicted_exponent - 0.5) == REFUTED
    assert curves.groupby("cell").survival.max().tolist() == pytest.approx([0.5, 0.5])
    drawn.survival(curves)


def test_hill_finds_the_exponent_of_a_pure_power_law():
    sizes = numpy_generator(0, "pareto").pareto(2.5, size=200_000) + 1
    assert hill(sizes, 0.05) == pytest.approx(2.5, rel=4 / np.sqrt(10_000))
    with pytest.raises(ValueError, match="at least 10"):
        hill(sizes[:100], 0.05)


@pytest.mark.parametrize(("claim", "problems"), [(claims.P1h, {"two values": TWO["two values"]}),
                                                 (claims.P2c, {"plane": PLANE["plane"]})])  # fmt: skip
def test_variances(claim, problems):
    table = variances(problems, (1, 2), 0.3, SEEDS, settle=40, observe=120, trajectories=1500)
    assert verdict(claim, table) == SUPPORTED
    assert verdict(claim, table, predicted_variance=2 * table.predicted_variance) == REFUTED
    shift = table.batch_size / np.maximum(table.batch_size - 1, 1)  # S − 1 for S where S is 2
    assert verdict(claim, table, predicted_variance=shift * table.predicted_variance) == REFUTED
    missing = table.predicted_variance * (1 - 0.3)  # no η p s² in the denominator, and no ηλ² either
    assert verdict(claim, table, predicted_variance=missing) == REFUTED


# --- P2 and P3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", [True, False])
def test_the_limit_in_a_plane_and_its_bounds(plane, replacement):
    table = plane[replacement]
    assert verdict(claims.P2a, table) == SUPPORTED
    assert verdict(claims.P2b, table) == SUPPORTED
    assert verdict(claims.P3f, table) == SUPPORTED
    for wrong in (
        lambda Q, S: second_moment_limit(Q, S - 1, replacement=replacement),
        lambda Q, S: second_moment_limit(Q, S, replacement=not replacement),
        lambda Q, S: 2 * second_moment_limit(Q, S, replacement=replacement),
    ):
        assert verdict(claims.P2a, table, predicted_limit=predicted(table, PLANE, wrong)) == REFUTED
    for bound in ("one_step", "on_a_line"):
        assert verdict(claims.P2a, table, predicted_limit=table[bound]) == REFUTED


def test_bounds_that_are_drawn_too_narrow_are_refuted(plane):
    table = plane[True]
    assert verdict(claims.P2b, table, beyond_one_step=table.limit / (1.3 * table.one_step) - 1) == REFUTED
    for bound, side in {"converges_below": 2.5, "diverges_above": 0.4}.items():
        error = np.sign(side - 1) * (table.limit / (side * table[bound]) - 1)
        assert verdict(claims.P3f, table, **{f"beyond_{bound}": error}) == REFUTED


def regimes(law):
    """Measured limits made up from a law, with a spread of half a percent: this tests the rules."""
    rng, rows = numpy_generator(1, "regimes"), []
    for problem, least in {"flat": 1 / 8, "less flat": 1 / 4}.items():
        for S in (1, 2, 4, 256, 1024):
            for seed in SEEDS:
                exact = second_moment_limit(flatter(least), S)
                measured = law(exact, S, least) * (1 + 0.005 * rng.normal())
                rows.append({"problem": problem, "batch_size": S, "cell": f"{problem} {S}", "seed": seed,
                             "limit": measured, "predicted_limit": 2.0})  # fmt: skip
    table = pd.DataFrame(rows)
    return table[table.batch_size <= 4], table[table.batch_size > 4]


def test_regimes_of_small_and_large_batches():
    small, large = regimes(lambda exact, S, least: exact)
    assert verdict(claims.P3a, small) == SUPPORTED
    assert verdict(claims.P3b, large) == SUPPORTED
    assert verdict(claims.P3c, large) == SUPPORTED
    assert verdict(claims.P3a, regimes(lambda exact, S, least: exact / np.sqrt(S))[0]) == REFUTED  # √S for S
    assert verdict(claims.P3a, regimes(lambda exact, S, least: 2.0)[0]) == REFUTED  # blind to the batch size
    assert verdict(claims.P3b, regimes(lambda exact, S, least: S / 1e4)[1]) == REFUTED
    assert verdict(claims.P3c, regimes(lambda exact, S, least: exact / 2)[1]) == REFUTED


def test_flatness_counts_for_small_batches_and_not_for_large_ones():
    small = flatness((0.25, 0.5), (2, 4), SEEDS, clones=600, steps=40, settle=12)
    large = flatness((0.25, 0.5), (256, 512), SEEDS, clones=100, steps=20, settle=12)
    tables = {name: t[t.problem == "λ = 0.5"] for name, t in {"small": small, "large": large}.items()}
    assert verdict(claims.P3d, tables["small"]) == SUPPORTED
    assert verdict(claims.P3d, tables["small"], predicted_advantage=1.0) == REFUTED
    assert verdict(claims.P3d, tables["small"], predicted_advantage=2.0) == REFUTED  # the quotient of curvatures
    assert verdict(claims.P3e, tables["small"]) == REFUTED
    assert verdict(claims.P3e, tables["large"]) == SUPPORTED
    drawn.limits_between_bounds(small.assign(value=small.limit, low=small.limit, high=small.limit), small)


# --- the measurement, and the maps -----------------------------------------------------------------


def test_a_limit_outside_the_coarse_grid_is_not_measured():
    quick = {"power": 2.0, "replacement": True, "seed": 0, "stream": "none", "clones": 200, "steps": 8, "settle": 0}
    assert np.isnan(measured_limit(np.repeat([1.0, -0.99], 8), 1, **quick))


def test_a_limit_without_noise_is_measured_exactly():
    quick = {"power": 2.0, "replacement": False, "seed": 0, "stream": "none", "clones": 40, "steps": 4, "settle": 0}
    assert measured_limit(lines()["rare steep"], 16, **quick) == pytest.approx(2, rel=1e-4)


def test_maps_show_who_leaves_where_the_boundaries_say():
    q, rates, sizes = lines()["two values"], np.array([0.7, 0.9, 6.0]), [1, 2]
    share = fates(q, rates, sizes, trajectories=50, steps=200, basin=100)
    growth = growth_map(q, rates, sizes, clones=500, steps=4)
    edge = boundaries(q, sizes)
    typical = edge[edge.kind == "typical trajectory"].set_index("batch_size").lr
    for row in share.itertuples():
        assert row.share == (row.lr > typical[row.batch_size])
    square = edge[edge.kind == "mean square"].set_index("batch_size").lr
    for row in growth.itertuples():
        assert (row.growth > 0) == (row.lr > square[row.batch_size])
    figure = drawn.maps({"share": share, "growth": growth}, edge)
    assert len(figure.axes[0].lines) == 3
