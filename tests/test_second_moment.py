"""The threshold in many dimensions: against enumeration of all batches, closed forms, and planted mistakes."""

from itertools import product

import numpy as np
import pytest
from threefactors.theory import terms as terms_module
from threefactors.theory.linear_stability import mean_square_limit, stationary_variance
from threefactors.theory.quadratic import stationary_covariance
from threefactors.theory.regression import regression_limit
from threefactors.theory.second_moment import (
    Factors,
    second_moment_covariance,
    second_moment_limit,
    second_moment_radius,
)
from threefactors.theory.stability_bounds import explicit_bounds, line_limit, one_step_limit, simple_limits

from tests.quadratics import DRAWS, SADDLE, TERMS, batches, centered, enumerated, factors, matrices, radius


@pytest.mark.parametrize(("batch_size", "replacement"), DRAWS)
@pytest.mark.parametrize("name", TERMS)
def test_limit_and_radius_over_all_batches(name, batch_size, replacement):
    Q = TERMS[name]
    limit = second_moment_limit(Q, batch_size, replacement=replacement)
    for fraction in (0.6, 1.0, 1.3):
        lr = fraction * limit
        exact = radius(enumerated(Q, lr, batch_size, replacement)[0])
        assert second_moment_radius(Q, lr, batch_size, replacement=replacement) == pytest.approx(exact, rel=1e-10)
        assert np.sign(round(exact - 1, 9)) == np.sign(fraction - 1)


def without(batch_size, examples=None):
    return 1 / batch_size  # the formula of independent draws


def less(batch_size, examples=None):
    return 1 / (batch_size - 1) if examples is None else (examples - batch_size) / ((batch_size - 1) * (examples - 1))


def more(batch_size, examples=None):
    return 1 / (batch_size + 1) if examples is None else (examples - batch_size) / ((batch_size + 1) * (examples - 1))


def not_less_one(batch_size, examples=None):
    return 1 / batch_size if examples is None else (examples - batch_size) / (batch_size * examples)


@pytest.mark.parametrize(
    ("wrong", "replacement"),
    [(without, False), (not_less_one, False), (less, False), (less, True), (more, False), (more, True)],
)
@pytest.mark.parametrize("name", TERMS)
def test_a_wrong_variance_of_the_batch_is_seen(name, wrong, replacement, monkeypatch):
    Q = TERMS[name]
    monkeypatch.setattr(terms_module, "variance_factor", wrong)
    exact = radius(enumerated(Q, second_moment_limit(Q, 2, replacement=replacement), 2, replacement)[0])
    assert abs(exact - 1) > 1e-3  # the right one agrees to 1e-10


def mean_counted_twice(pencil):
    """Without − QXQ: η² p ⟨Q_i X Q_i⟩ is added to the bowl of the mean."""

    def wrong(self, p):
        diagonal, scale = pencil(self, p)
        return diagonal / (1 - p), scale

    return wrong


def deviation_for_variance(pencil):
    """p s where p s² belongs: the root of the noise is forgotten."""

    def wrong(self, p):
        diagonal, scale = pencil(self, p)
        return diagonal, np.sqrt(scale)

    return wrong


@pytest.mark.parametrize("mistake", [mean_counted_twice, deviation_for_variance])
@pytest.mark.parametrize("name", TERMS)
def test_a_wrong_operator_is_seen(name, mistake, monkeypatch):
    Q = TERMS[name]
    monkeypatch.setattr(terms_module.Terms, "pencil", mistake(terms_module.Terms.pencil))
    exact = radius(enumerated(Q, second_moment_limit(Q, 2, replacement=False), 2, False)[0])
    assert abs(exact - 1) > 1e-3


def test_lanczos_is_the_dense_routine(monkeypatch):
    monkeypatch.setattr(terms_module, "SMALL", 1)
    for Q in (TERMS["rank 1"], TERMS["full rank"], TERMS["of either sign"]):
        limit = second_moment_limit(Q, 2)
        assert radius(enumerated(Q, limit, 2, True)[0]) == pytest.approx(1, rel=1e-9)
        exact = radius(enumerated(Q, 0.7 * limit, 2, True)[0])
        assert second_moment_radius(Q, 0.7 * limit, 2) == pytest.approx(exact, rel=1e-9)
    monkeypatch.undo()
    A = factors(9, 2, 18, decay=0.5)  # beyond SMALL by itself
    Q, p = matrices(A), (9 - 4) / (4 * 8)
    lr = second_moment_limit(Q, 4, replacement=False)
    Qbar = Q.mean(0)
    noise = sum(np.kron(q, q) for q in Q) / len(Q) - np.kron(Qbar, Qbar)
    step = np.eye(18) - lr * Qbar
    assert radius(np.kron(step, step) + lr**2 * p * noise) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("n", "r", "m"), [(4, 1, 3), (3, 2, 40), (9, 2, 30), (20, 3, 5)])
@pytest.mark.parametrize("replacement", [True, False])
def test_factors_and_their_gram_matrix_say_the_same(n, r, m, replacement):
    A = factors(n, r, m, seed=n)
    rows = A.reshape(n * r, m)
    expected = second_moment_limit(matrices(A), 2, replacement=replacement)
    for given in (Factors(A), Factors.from_gram(rows @ rows.T, n)):
        assert second_moment_limit(given, 2, replacement=replacement) == pytest.approx(expected, rel=1e-9)
        rho = second_moment_radius(matrices(A), expected / 3, 2, replacement=replacement)
        assert second_moment_radius(given, expected / 3, 2, replacement=replacement) == pytest.approx(rho, rel=1e-9)


@pytest.mark.parametrize("variances", [[1.0], [1.5, 1.5], [2.0, 0.5], [3.0, 1.0, 0.2], [1.0, 1.0, 1.0]])
def test_gaussian_regression_is_one_of_these_sums(variances):
    """Six equally likely inputs per direction have the moments of a Gaussian up to the fifth; four are needed."""
    a, root = np.array(variances), np.sqrt(3)
    x = np.array(list(product([-root, 0, 0, 0, 0, root], repeat=len(a)))) * np.sqrt(a)
    for S in (1, 3, 50):
        assert second_moment_limit(Factors(x[:, None]), S) == pytest.approx(regression_limit(a, S), rel=1e-10)
    if np.ptp(a) == 0:  # the isotropic formula of Liu, Ziyin & Ueda
        assert second_moment_limit(Factors(x[:, None]), 3) == pytest.approx(6 / (a[0] * (3 + len(a) + 1)))


@pytest.mark.parametrize("replacement", [True, False])
def test_terms_that_commute_are_parabolas_side_by_side(replacement):
    rng = np.random.default_rng(4)
    q = rng.exponential(size=(7, 5))
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    Q = (turn * q[:, None]) @ turn.T
    limits = [mean_square_limit(side, 3, replacement=replacement) for side in q.T]
    lines = [line_limit(Q, v, 3, replacement=replacement) for v in turn.T]
    np.testing.assert_allclose(lines, limits)
    assert second_moment_limit(Q, 3, replacement=replacement) == pytest.approx(min(limits))


# The stationary covariance.


@pytest.mark.parametrize(("batch_size", "replacement"), DRAWS)
@pytest.mark.parametrize("name", TERMS)
def test_covariance_is_the_fixed_point_over_all_batches(name, batch_size, replacement):
    Q = TERMS[name]
    n, m = Q.shape[:2]
    g = centered(n, m)
    lr = 0.8 * second_moment_limit(Q, batch_size, replacement=replacement)
    carried, kicks = enumerated(Q, lr, batch_size, replacement, g)
    expected = np.linalg.solve(np.eye(m * m) - carried, kicks).reshape(m, m)
    found = second_moment_covariance(Q, g, lr, batch_size, replacement=replacement)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


def test_covariance_of_trajectories():
    """Simulated, with gradients that depend on the curvature; the standard error is over independent trajectories."""
    A, rng = factors(5, 2, 2, seed=3), np.random.default_rng(0)
    Q, count = matrices(A), 20_000
    g = A[:, 0] - A[:, 0].mean(0)
    lr = 0.5 * second_moment_limit(Q, 2, replacement=False)
    drawn = np.array(batches(5, 2, False))
    steps, kicks = np.eye(2) - lr * Q[drawn].mean(1), lr * g[drawn].mean(1)
    e = np.zeros((count, 2))
    for b in rng.integers(len(drawn), size=(60, count)):
        e = np.einsum("bij,bj->bi", steps[b], e) - kicks[b]
    products = np.einsum("bi,bj->bij", e, e)
    error = products.std(0) / np.sqrt(count)
    z = (products.mean(0) - second_moment_covariance(Q, g, lr, 2, replacement=False)) / error
    assert np.abs(z).max() < 4
    spoiled = (products.mean(0) - second_moment_covariance(Q, g, lr, 2)) / error  # replaced where it was not
    assert np.abs(spoiled).max() > 10


def test_covariance_where_it_is_known():
    q, g = np.array([0.5, 2.0, 3.0, 1.0]), np.array([1.0, -2.0, 0.5, 0.5])
    one = second_moment_covariance(q[:, None, None], g[:, None], 0.3, 2)
    assert one[0, 0] == pytest.approx(stationary_variance(q, (g**2).mean(), 0.3, 2))
    H, g = matrices(factors(1, 3, 3))[0], centered(6, 3)  # equal terms: the bowl with additive noise
    found = second_moment_covariance(np.broadcast_to(H, (6, 3, 3)), g, 0.5 / np.linalg.norm(H, 2), 4)
    np.testing.assert_allclose(found, stationary_covariance(H, g.T @ g / 6, 0.5 / np.linalg.norm(H, 2), 4))
    A, c = factors(9, 2, 30, seed=5), centered(9, 2)
    g = np.einsum("nri,nr->ni", A, c)  # in the span of the factors, 18 of 30 dimensions
    g -= g.mean(0)
    lr = 0.6 * second_moment_limit(Factors(A), 2)
    sigma = second_moment_covariance(Factors(A), g, lr, 2)
    np.testing.assert_allclose(sigma, second_moment_covariance(matrices(A), g, lr, 2), rtol=1e-6, atol=1e-9)


# Degenerate input.


def test_equal_terms_leave_the_bowl():
    H = np.diag([4.0, 1.0])
    Q = np.broadcast_to(H, (5, 2, 2))
    assert second_moment_limit(Q, 2) == pytest.approx(0.5)
    assert second_moment_radius(Q, 0.3, 2) == pytest.approx(0.49)  # (1 − 0.3 · 1)²
    np.testing.assert_allclose([*explicit_bounds(Q, 2), one_step_limit(Q, 2)], 0.5)


def test_directions_that_no_term_curves_are_left_out():
    Q = np.zeros((4, 3, 3))
    Q[:, :2, :2] = TERMS["full rank"]
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    Q, flat = turn @ Q @ turn.T, turn[:, 2]
    limit = second_moment_limit(TERMS["full rank"], 2)
    for function in (second_moment_limit, one_step_limit, lambda *given: explicit_bounds(*given)[0]):
        assert function(Q, 2) == pytest.approx(function(TERMS["full rank"], 2))
    assert second_moment_radius(Q, limit / 2, 2) == pytest.approx(
        second_moment_radius(TERMS["full rank"], limit / 2, 2)
    )
    g = centered(4, 2) @ turn[:, :2].T
    sigma = second_moment_covariance(Q, g, limit / 2, 2)
    np.testing.assert_allclose(sigma @ flat, 0, atol=1e-12)
    with pytest.raises(ValueError, match="no term has curvature"):
        second_moment_covariance(Q, g + centered(4, 1) * flat, limit / 2, 2)
    with pytest.raises(ValueError, match="all 4 curvatures are 0"):
        line_limit(Q, flat, 2)


@pytest.mark.parametrize("Q", [
    [np.diag([1.0, 1.0]), np.diag([1.0, -1.0])],
    [[[1.0, 1.0], [1.0, 0.0]], [[1.0, -1.0], [-1.0, 0.0]]],
    [[[1.0]], [[-1.0]]],
])  # fmt: skip
def test_where_the_mean_is_flat_and_single_terms_are_not(Q):
    assert second_moment_limit(Q, 1) == 0
    assert second_moment_limit(np.concatenate([Q, Q]), 3, replacement=False) == 0
    assert one_step_limit(Q, 1) == explicit_bounds(Q, 1)[0] == 0
    for lr in (1e-3, 0.1):
        assert second_moment_radius(Q, lr, 1) > 1
        exact = radius(enumerated(np.array(Q), lr, 1, True)[0])
        assert second_moment_radius(Q, lr, 1) == pytest.approx(exact, rel=1e-9)
    with pytest.raises(ValueError, match="infinite variance"):
        second_moment_covariance(Q, np.zeros(np.shape(Q)[:2]), 0.1, 1)


def test_at_the_limit_the_second_moment_neither_shrinks_nor_has_a_stationary_value():
    Q = TERMS["rank 1"]
    limit = second_moment_limit(Q, 2)
    assert second_moment_radius(Q, limit, 2) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="infinite variance; use 0 < lr <"):
        second_moment_covariance(Q, centered(4, 3), limit, 2)
    near, nearer = (np.trace(second_moment_covariance(Q, centered(4, 3), limit * (1 - d), 2)) for d in (1e-5, 1e-6))
    assert nearer == pytest.approx(10 * near, rel=0.01)


def test_a_saddle_has_a_radius_but_no_limit():
    assert second_moment_radius(SADDLE, 0.1, 1) == pytest.approx(1.01**2)
    for call in (second_moment_limit, one_step_limit, explicit_bounds, simple_limits):
        with pytest.raises(ValueError, match=r"eigenvalue -0.1.*no minimum"):
            call(SADDLE, 1)


GOOD = TERMS["full rank"]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("batch_size=5 cannot be drawn", lambda: second_moment_limit(GOOD, 5, replacement=False)),
        ("batch_size=0", lambda: second_moment_limit(GOOD, 0)),
        ("not symmetric", lambda: second_moment_limit(GOOD + np.triu(np.ones((2, 2)), 1), 1)),
        ("all 3 curvatures are 0", lambda: second_moment_limit(np.zeros((3, 2, 2)), 1)),
        ("all 3 curvatures are 0", lambda: second_moment_limit(Factors(np.zeros((3, 1, 2))), 1)),
        ("use finite", lambda: second_moment_limit(GOOD[0], 1)),
        ("use finite", lambda: second_moment_limit(Factors(np.full((2, 1, 2), np.nan)), 1)),
        ("n=3 terms", lambda: Factors.from_gram(np.eye(4), 3)),
        ("A Aᵀ has none below 0", lambda: Factors.from_gram(np.diag([1.0, -1.0]), 2)),
        ("lr=0 is no step", lambda: second_moment_radius(GOOD, 0, 1)),
        ("gradients of shape", lambda: second_moment_covariance(GOOD, np.zeros((4, 3)), 0.1, 1)),
        ("take them at the minimum", lambda: second_moment_covariance(GOOD, np.ones((4, 2)), 0.1, 1)),
        ("direction of shape", lambda: line_limit(GOOD, [1.0], 1)),
        ("not all 0", lambda: line_limit(GOOD, [0.0, 0.0], 1)),
    ],
)  # fmt: skip
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
