"""Nonconvex sums: the split of the noise, who gets out and when, two predictions, claims that notice planted bugs."""

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, judge
from threefactors.inference import nonconvex as sums
from threefactors.inference.claims import nonconvex as claims
from threefactors.presentation import fates as figures
from threefactors.simulation.nonconvex import Circles, StyblinskiTang, circles, fates, styblinski_tang
from threefactors.theory.escape import mean_escape_time
from threefactors.theory.linear_stability import lyapunov_exponent, mean_square_limit, tail_exponent

ST = "Styblinski–Tang"
LINE, PLANE = styblinski_tang(8, 0), circles(8, 0)
STILL = StyblinskiTang(np.ones((2, 3))), Circles(np.array([[1.0, 0, 1, 1, 1]] * 2))  # terms that are all alike
HOW = {"start": 1e-6, "radius": 1e-3, "steps": 300, "trajectories": 40, "seed": 0}


# --- the landscapes ----------------------------------------------------------------------------


def test_the_mean_is_the_known_function_for_every_seed():
    for seed in range(3):
        sum_ = styblinski_tang(8, seed)
        np.testing.assert_allclose(sum_.minima[:, 0], [-2.903534, 2.746803], atol=1e-6)
        np.testing.assert_allclose([sum_.curvatures(m).mean() for m in (0, 1)], [34.58, 29.27], atol=5e-3)
        np.testing.assert_allclose(circles(8, seed).coefficients.mean(0), [1, 0, 1, 1, 1], atol=1e-12)


@pytest.mark.parametrize("minimum", [0, 1])
def test_gradients_are_those_of_the_losses(minimum):
    """By differences of the losses: each term on the line, the mean in the plane."""
    x, h = LINE.minima[minimum, 0] + 0.3, 1e-5
    slopes = (LINE.loss(np.array([x + h])) - LINE.loss(np.array([x - h])))[:, 0] / (2 * h)
    theta = LINE.coefficients.T
    ours = LINE.change(theta, minimum, np.full((1, 8), 0.3)) + LINE.at_minimum(theta, minimum)
    np.testing.assert_allclose(ours[0], slopes, rtol=1e-7)
    e, mean = np.array([0.3, -0.5]), PLANE.coefficients.mean(0)
    there = PLANE.minima[minimum] + e
    slopes = [(PLANE.loss(there + d) - PLANE.loss(there - d)) / (2 * h) for d in h * np.eye(2)]
    ours = PLANE.change(mean, minimum, e[:, None])[:, 0] + PLANE.at_minimum(mean, minimum)
    np.testing.assert_allclose(ours, slopes, rtol=1e-7)


@pytest.mark.parametrize("landscape", [LINE, PLANE])
@pytest.mark.parametrize("minimum", [0, 1])
def test_a_minimum_and_its_hessians(landscape, minimum):
    theta, d, h = landscape.coefficients.T, landscape.minima.shape[1], 1e-6
    np.testing.assert_allclose(landscape.at_minimum(theta, minimum).mean(1), 0, atol=1e-10)
    for j in range(d):
        e = np.zeros((d, 8))
        e[j] = h
        columns = (landscape.change(theta, minimum, e) - landscape.change(theta, minimum, -e)) / (2 * h)
        np.testing.assert_allclose(columns.T, landscape.curvatures(minimum)[:, :, j], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("landscape", [LINE, PLANE])
def test_the_barrier_is_where_the_mean_is_flat_and_falls_on_both_sides(landscape):
    for m in (0, 1):
        inward = -np.sign(landscape.minima[m])
        saddle = landscape.centers[m] + inward * landscape.reach[m]
        losses = [landscape.loss(saddle + s * inward * 1e-3) for s in (-1, 0, 1)]
        low, top, high = (float(np.mean(v)) for v in losses)
        assert top > max(low, high)
        assert abs(high - low) < 1e-3 * abs(high - 2 * top + low) ** 0.5


# --- fates -------------------------------------------------------------------------------------


def test_a_step_of_plain_sgd_is_that_of_the_batch():
    """One step from 1e-6, with S = 1: the share that gets past a radius is known from the terms' gradients."""
    lr, kicks = 0.001, np.abs(LINE.at_minimum(LINE.coefficients.T, 0)[0]) * 0.001
    radius = float(np.sort(kicks)[3:5].mean())  # half of the eight terms kick farther
    found = fates(LINE, 0, [lr], 1, start=1e-9, radius=radius, steps=1, trajectories=4000, seed=0)
    assert found.near[-1, 0, 0] == pytest.approx(0.5, abs=5 * 0.5 / 4000**0.5)


def test_without_noise_the_limit_is_that_of_descent_and_cycles_stay_inside():
    for landscape, inside, out in zip(STILL, (1.2, 1.08), (2.0, 1.25), strict=True):
        limit = sums.deterministic_limit(landscape, 0)
        found = fates(landscape, 0, limit * np.array([0.97, inside, out]), 2, gradient_noise=[0.0], **HOW)
        assert found.near[-1, 0].tolist() == [1, 0, 0]
        assert found.inside[-1, 0].tolist() == [1, 1, 0]


def test_a_cycle_of_the_circle_is_stable_up_to_the_eighth_root_of_e():
    k, limit = 7.0, np.exp(1 / 8)  # the second claim of the theorem, on the map itself
    for factor, stable in ((0.99 * limit, True), (1.01 * limit, False)):
        eta, w = 2 / k * factor, np.log(factor)
        e = w ** (1 / 8) * 1.0001
        for _ in range(400):
            e -= eta * k * e * np.exp(-(e**8))
        assert np.isclose(abs(e) ** 8, w, rtol=0.05) == stable


def test_the_chance_to_get_out_is_between_the_bounds_of_the_theorem():
    u = np.array([0.2, 0.4, 1.0, 2.4])[:, None] * np.ones(3)  # f_i = u_i f: all share the minimum
    landscape = StyblinskiTang(u)
    q = landscape.curvatures(0)[:, 0, 0]
    eta = 1.35 * mean_square_limit(q, 1)
    theta, most, n = tail_exponent(q, eta, 1), float(np.abs(1 - eta * q).max()), 4000
    assert 0.1 < theta < 1.5
    found = fates(landscape, 0, [eta], 1, start=1e-6, radius=1e-5, steps=200, trajectories=n, seed=1)
    chance = 1 - found.near[-1, 0, 0]
    noise = 4 * (chance * (1 - chance) / n) ** 0.5
    assert (0.1 / most) ** theta - noise < chance < 0.1**theta + noise


def test_a_cell_does_not_depend_on_its_neighbors():
    lrs = [0.02, 0.05, 0.09]
    grid = fates(LINE, 0, lrs, 2, gradient_noise=[0.0, 1.0], **HOW)
    single = fates(LINE, 0, lrs[1:2], 2, gradient_noise=[1.0], **HOW)
    np.testing.assert_array_equal(grid.inside[:, 1, 1], single.inside[:, 0, 0])
    assert (np.diff(grid.inside, axis=0) <= 0).all()
    assert (grid.near <= grid.inside).all()


# --- what is predicted -------------------------------------------------------------------------


def test_sampled_exponents_agree_with_the_exact_ones():
    landscape, S = styblinski_tang(64, 3), 2
    q = landscape.curvatures(1)[:, 0, 0]
    lrs = np.array([0.02, 0.06, 0.1])
    exact = [lyapunov_exponent(q, lr, S) for lr in lrs]
    np.testing.assert_allclose(sums.lyapunov(landscape, 1, lrs, S, 0, clones=2000), exact, atol=0.02)


def test_kicks_solve_for_the_mean_escape_time():
    landscape, S, kappa, steps = styblinski_tang(64, 4), 4, 3.0, 500
    C = kappa**2 * landscape.at_minimum(landscape.coefficients.T, 1).var()
    lr = sums.kick_threshold(landscape, 1, S, kappa, steps)
    x = float(landscape.minima[1, 0])
    tau = mean_escape_time(
        lambda y: -(2 * y**3 - 16 * y + 2.5), C, lr / S, start=x, target=x - landscape.reach[1], wall=x + 2
    )
    assert tau * np.log(2) == pytest.approx(lr * steps, rel=0.02)
    # the boundary depends on S and κ through κ²/S alone; an instability ahead brings it nearer, but not past itself
    assert sums.kick_threshold(landscape, 1, 4 * S, 2 * kappa, steps) == pytest.approx(lr, rel=1e-3)
    assert sums.kick_threshold(landscape, 1, S, kappa, steps, 0.02) < min(lr, 0.02)
    # where it is, the diffusion with the variance that the instability makes of κ²C has its own boundary
    limit = 1.5 * lr
    nearer = sums.kick_threshold(landscape, 1, S, kappa, steps, limit)
    amplified = kappa / np.sqrt(1 - nearer / limit)
    assert sums.kick_threshold(landscape, 1, S, amplified, steps) == pytest.approx(nearer, rel=1e-3)
    assert sums.kick_threshold(landscape, 1, 10**6, 0.01, steps) == np.inf


def test_kicks_of_the_circles_wait_as_kramers_says():
    log_noise, log_time = sums._log_escape_times(Circles, 0)
    # ln τ against 1/n is a straight line of slope 2ΔL
    slope = (log_time[0] - log_time[5]) / (np.exp(-log_noise[0]) - np.exp(-log_noise[5]))
    well = STILL[1]
    saddle = well.centers[0] * (1 - well.reach[0] / 4)
    assert slope == pytest.approx(2 * float(well.loss(saddle) - well.loss(well.minima[0])), rel=1e-6)


def test_crossing_and_moments():
    assert sums.crossing(np.array([1.0, 4.0]), np.array([0.0, 1.0]), 0.5) == pytest.approx(2)
    assert np.isnan(sums.crossing(np.array([1.0, 4.0]), np.array([0.6, 1.0]), 0.5))
    assert np.isnan(sums.crossing(np.array([1.0, 4.0]), np.array([0.0, 0.4]), 0.5))
    steps = np.arange(0, 2001)
    mean, spread = sums.moments(steps, np.exp(-steps / 100))
    assert mean == pytest.approx(100, rel=0.01)
    assert spread == pytest.approx(1, rel=0.01)
    assert np.isnan(sums.moments(steps[:50], np.exp(-steps[:50] / 100))[0])


# --- the claims, on a small simulation, and with planted bugs ------------------------------------

SEEDS, BATCHES = range(100, 106), [1, 4]


@pytest.fixture(scope="module")
def shared():
    return sums.without_gradient_noise(ST, SEEDS, BATCHES, steps=600, trajectories=32, points=28)


@pytest.fixture(scope="module")
def kicked():
    return sums.with_gradient_noise(
        ST, SEEDS, BATCHES, [4.0], hessian_noise=False, steps=800, trajectories=128, points=40
    )


def verdict(claim, table, measure, law):
    return judge(claim.at("simulation"), table.assign(**{f"predicted_{measure}": law})).verdict


def test_the_almost_sure_limit_is_supported_and_the_mean_square_limit_refuted(shared):
    assert verdict(claims.P4a, shared, "lost_at", shared.almost_sure) == SUPPORTED
    assert verdict(claims.P4b, shared, "lost_at", shared.mean_square) == REFUTED
    assert verdict(claims.P4c, shared, "left_at", shared.almost_sure) == SUPPORTED  # at these batch sizes


BUGS = {
    "s for s²": lambda q, S: 2 * q.mean() / (q.mean() ** 2 + q.std() / S),
    "a factor of 2": lambda q, S: 4 * q.mean() / (q.mean() ** 2 + q.var() / S),
    "√S for S": lambda q, S: 2 * q.mean() / (q.mean() ** 2 + q.var() / S**0.5),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_in_the_limit_is_refuted(shared, bug):
    wrong = []
    for row in shared.itertuples():
        q = styblinski_tang(sums.TERMS, row.seed).curvatures(sums.MINIMA[row.minimum])[:, 0, 0]
        wrong.append(row.almost_sure * BUGS[bug](q, row.batch_size) / mean_square_limit(q, row.batch_size))
    assert verdict(claims.P4a, shared, "lost_at", np.array(wrong)) == REFUTED


def test_kicks_are_supported_and_instability_refuted(kicked):
    assert verdict(claims.P4e, kicked, "left_at", kicked.kicks) == SUPPORTED
    assert verdict(claims.P4f, kicked, "left_at", kicked.deterministic) == REFUTED


@pytest.mark.parametrize(("bug", "factor"), [("temperature nσ²", lambda S: 2**0.5), ("√S for S", lambda S: S**0.25)])
def test_a_planted_bug_in_the_kicks_is_refuted(kicked, bug, factor):
    wrong = [
        sums.kick_threshold(
            styblinski_tang(sums.TERMS, row.seed), sums.MINIMA[row.minimum], row.batch_size,
            4 * factor(row.batch_size), 800,
        )
        for row in kicked.itertuples()
    ]  # fmt: skip
    assert verdict(claims.P4e, kicked, "left_at", np.array(wrong)) == REFUTED


def made(value, **columns):
    rng = numpy_generator(0, "made")
    rows = [{"seed": s, "batch_size": S, "minimum": m} | {k: v + 0.02 * rng.normal() for k, v in value.items()}
            for s in range(8) for S in (1, 16) for m in sums.MINIMA]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


@pytest.mark.parametrize(
    ("claim", "good", "bad"),
    [
        (claims.P4d, {"order": -0.2}, {"order": 0.2}),
        (claims.P4h, {"shift": 0.0}, {"shift": -0.5}),
        (claims.P4j, {"spread": 1.0}, {"spread": 0.4}),
        (claims.P4i, {"rate": 0.5}, {"rate": 1.0}),
    ],
)
def test_rules_know_right_from_wrong(claim, good, bad):
    for values, expected in ((good, SUPPORTED), (bad, REFUTED)):
        table = made(values, predicted_rate=0.5)
        if claim is claims.P4d:
            table = table[table.minimum == "sharp"]
        assert judge(claim.at("simulation"), table).verdict == expected


def test_a_prediction_is_judged_by_its_worst_batch_size():
    table = made({"left_at": 1.0}, amplitude=1.0, lrs=[np.array([0.1, 3.0])] * 32, near=1.1, never=np.inf, far=1.0)
    table = pd.concat([table, table.assign(amplitude=4.0)])
    table.loc[table.batch_size == 16, "far"] = 2.0
    for law, expected in (("near", SUPPORTED), ("far", REFUTED), ("never", REFUTED)):
        assert judge(claims.P4g.at("simulation"), sums.misses(table, law)).verdict == expected


def test_orders_and_shifts_pair_what_belongs_together(kicked):
    rows = sums.orders(kicked).set_index(["seed", "batch_size"]).order
    place = kicked.set_index(["seed", "batch_size", "minimum"]).left_at
    assert rows.loc[100, 4] == pytest.approx(np.log(place.loc[100, 4, "sharp"] / place.loc[100, 4, "wide"]))
    twice = pd.concat([kicked.assign(amplitude=0.25, left_at=2.0), kicked.assign(amplitude=1.0, left_at=1.0)])
    np.testing.assert_allclose(sums.shifts(twice)["shift"], -np.log(2))


def test_agreement_counts_cells():
    table = pd.DataFrame({"lrs": [np.array([1.0, 2.0, 3.0, 4.0])], "share": [np.array([0.0, 0.4, 0.5, 1.0])]})
    assert sums.agreement(table.assign(law=3.0), "law") == 1
    assert sums.agreement(table.assign(law=1.5), "law") == 0.75


def test_maps_draw_what_they_are_given(shared):
    laws = sums.boundaries(shared, {"almost_sure": "linear instability"})
    assert len(sums.cells(shared)) == 2 * len(BATCHES) * 28  # seeds share their learning rates
    figure = figures.fate_maps({"one": sums.cells(shared)}, {"one": laws}, span=(0.02, 0.2))
    axes = figure.axes
    assert len(axes) == 2
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["1", "4"]
    drawn = axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(drawn, laws[laws.minimum == "sharp"].lr)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("lr > 0", {"lrs": [0.0]}),
        ("gradient_noise >= 0", {"gradient_noise": [-1.0]}),
        ("batch_size=0", {"batch_size": 0}),
        ("every=0", {"every": 0}),
        ("the way out", {"radius": 4.0}),
        ("the way out", {"start": 0.0}),
    ],
)
def test_outside_validity_is_refused(message, change):
    with pytest.raises(ValueError, match=message):
        fates(**({"landscape": LINE, "minimum": 0, "lrs": [0.01], "batch_size": 1} | HOW | change))


def test_a_sum_needs_terms_that_differ():
    for terms, spread in ((1, 0.5), (8, 0.0)):
        with pytest.raises(ValueError, match="at least 2 terms"):
            styblinski_tang(terms, 0, spread)
