"""Linear stability on a line: every law against every possible batch, and the simulators of quadratic sums."""

import itertools

import numpy as np
import pytest
from threefactors._rng import numpy_generator
from threefactors.simulation.ensemble import simulate
from threefactors.simulation.growth import _parents, growth_rate, growth_rates
from threefactors.simulation.quadratic_problems import flatter, lines, spaces, standard_kicks
from threefactors.simulation.quadratic_sums import absorbed, quadratic_sum
from threefactors.theory.linear_stability import (
    almost_sure_limit,
    batch_means,
    lyapunov_exponent,
    mean_square_factor,
    mean_square_limit,
    moment_limit,
    stationary_variance,
    tail_exponent,
)
from threefactors.theory.noise import batch_covariance, variance_factor
from threefactors.theory.second_moment import second_moment_radius

Q = np.array([-0.5, 1.0, 1.0, 3.0])
G = np.array([1.0, -2.0, 0.5, 0.5])
DRAWING = [(S, replacement) for S in (1, 2, 3, 4) for replacement in (True, False)]


def batches(S, replacement):
    """Every batch of S out of four terms, each as likely as any other."""
    return np.array(list(itertools.product(range(4), repeat=S) if replacement else itertools.combinations(range(4), S)))


# --- closed forms against enumeration ------------------------------------------------------------


@pytest.mark.parametrize(("S", "replacement"), DRAWING)
def test_every_batch(S, replacement):
    q = Q[batches(S, replacement)].mean(1)
    same = {"replacement": replacement}
    assert q.var() == pytest.approx(variance_factor(S, None if replacement else 4) * Q.var())
    assert batch_covariance(Q.var(), 4, S, replacement) == pytest.approx(q.var())
    atoms, chances = batch_means(Q, S, **same)
    assert (np.diff(atoms) > 1e-9).all()
    for power in range(1, 6):
        assert chances @ atoms**power == pytest.approx((q**power).mean())
    for lr in (0.3, 0.9):
        assert mean_square_factor(Q, lr, S, **same) == pytest.approx(((1 - lr * q) ** 2).mean())
        assert lyapunov_exponent(Q, lr, S, **same) == pytest.approx(np.log(abs(1 - lr * q)).mean())
    limit = mean_square_limit(Q, S, **same)
    assert ((1 - limit * q) ** 2).mean() == pytest.approx(1)
    first = almost_sure_limit(Q, S, **same)
    assert first >= limit * (1 - 1e-12)
    grid = np.linspace(limit, first, 4001)[1:-1]
    assert (np.log(abs(1 - grid[:, None] * q)).mean(1) < 1e-9).all()  # the first zero, and no later one
    assert np.log(abs(1 - first * q)).mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("S", "replacement"), [(1, True), (2, True), (3, False)])
def test_stationary_variance_is_the_fixed_point_of_the_moments_even_where_curvature_and_gradient_are_correlated(
    S, replacement
):
    chosen, lr = batches(S, replacement), 0.5
    q, g = Q[chosen].mean(1), G[chosen].mean(1)
    assert abs(np.mean(q * g)) > 0.05 or S == 3
    mean, square = 3.0, 10.0
    for _ in range(400):
        mean, square = (
            ((1 - lr * q) * mean).mean(),
            ((1 - lr * q) ** 2 * square - 2 * lr * (1 - lr * q) * g * mean + lr**2 * g**2).mean(),
        )
    assert stationary_variance(Q, np.mean(G**2), lr, S, replacement=replacement) == pytest.approx(square)


def test_many_draws_from_few_values_stay_cheap_and_many_from_many_are_refused():
    atoms, chances = batch_means(lines()["many values"], 32)
    assert len(atoms) < 1000
    assert chances.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="use at most 200000"):
        batch_means(numpy_generator(0, "values").normal(size=40) + 2, 8)


def test_exponents_in_closed_form():
    # |1 − q| is 1/2 with chance 3/4 and 2 with chance 1/4: x = 2^ϑ solves (3/4)/x + x/4 = 1, x = 3
    assert tail_exponent([0.5, 0.5, 0.5, 3.0], 1.0, 1) == pytest.approx(np.log2(3))
    assert lyapunov_exponent([0.5, 0.5, 0.5, 3.0], 1.0, 1) == pytest.approx(-np.log(2) / 2)
    # (1 − η)(10η − 1) = 1 at the end of the first stretch of stability
    assert almost_sure_limit([1.0, 10.0], 1) == pytest.approx((11 - np.sqrt(41)) / 20)


@pytest.mark.parametrize("name", lines())
@pytest.mark.parametrize("S", [1, 4])
def test_the_exponent_falls_from_two_at_one_limit_to_zero_at_the_other(name, S):
    q = lines()[name]
    low, high = mean_square_limit(q, S), almost_sure_limit(q, S)
    assert tail_exponent(q, low, S) == pytest.approx(2)
    assert moment_limit(q, 2.0, S) == pytest.approx(low)
    assert tail_exponent(q, high * (1 - 1e-9), S) == pytest.approx(0, abs=1e-6)
    for theta in (1.0, 1.7, 3.5):
        assert tail_exponent(q, moment_limit(q, theta, S), S) == pytest.approx(theta)
    between = (low + high) / 2
    assert lyapunov_exponent(q, between, S) <= 0.5 * np.log(mean_square_factor(q, between, S))


def test_beyond_the_limit_there_are_islands_of_stability():
    q = lines()["two values"]
    assert almost_sure_limit(q, 1) < 2
    assert lyapunov_exponent(q, 2.0, 1) > 0
    assert lyapunov_exponent(q, 4.0, 1) == -np.inf


def test_the_chance_to_get_far_is_bounded_by_the_power_law():
    q, lr, far = lines()["rare steep"], 0.8, 8.0
    theta = tail_exponent(q, lr, 1)
    left = absorbed(quadratic_sum(q, None, lr, 1), far)
    final = simulate(left, [1.0], 150, trajectories=8000, seed=0, stream="ville", threads=1).final
    share, bound = np.isnan(final).mean(), far**-theta
    assert bound / 4 < share <= bound + 3 * np.sqrt(bound / 8000)


# --- what degenerates ----------------------------------------------------------------------------


def test_equal_terms_are_gradient_descent():
    q = [2.0, 2.0, 2.0]
    for replacement in (True, False):
        assert mean_square_limit(q, 2, replacement=replacement) == 1.0
        assert almost_sure_limit(q, 2, replacement=replacement) == 1.0
    assert lyapunov_exponent(q, 0.3, 1) == pytest.approx(np.log(0.4))
    assert tail_exponent(q, 0.3, 1) == np.inf


def test_a_factor_of_constant_size_has_one_limit_for_both():
    assert mean_square_limit([0.0, 2.0], 1) == almost_sure_limit([0.0, 2.0], 1) == 1.0  # 1 − ηq is 1 or −1


def test_equal_terms_have_the_variance_of_the_bowl():
    q = [2.0, 2.0, 2.0]
    assert stationary_variance(q, 1.0, 0.3, 2) == pytest.approx(0.15 / (4 - 0.3 * 4))


def test_the_full_batch_without_replacement_has_no_noise():
    assert mean_square_limit(Q, 4, replacement=False) == pytest.approx(2 / Q.mean())
    assert stationary_variance(Q, 1.0, 0.5, 4, replacement=False) == 0


def test_a_mean_of_zero_has_the_limit_zero_and_a_batch_may_forget_everything():
    assert mean_square_limit([-1.0, 1.0], 1) == 0
    assert lyapunov_exponent([1.0, 4.0], 0.25, 1) == -np.inf
    assert tail_exponent([1.0, 4.0, 12.0], 0.25, 1) > 0


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("mean -1 < 0", lambda: mean_square_limit([-3.0, 1.0], 1)),
        ("all 2 curvatures are 0", lambda: mean_square_limit([0.0, 0.0], 1)),
        ("nothing moves", lambda: mean_square_limit([-1.0, 1.0], 2, replacement=False)),
        ("for every batch", lambda: tail_exponent([0.0, 2.0], 1.0, 1)),
        ("for every batch", lambda: tail_exponent([2.0, 2.0], 1.0, 1)),
        ("the mean 0", lambda: almost_sure_limit([-1.0, 1.0], 1)),
        ("cannot be drawn without replacement", lambda: mean_square_limit(Q, 5, replacement=False)),
        ("cannot be drawn without replacement", lambda: batch_means(Q, 5, replacement=False)),
        ("batch_size=0", lambda: mean_square_limit(Q, 0)),
        ("batch_size=0", lambda: variance_factor(0)),
        ("lr=0", lambda: mean_square_factor(Q, 0.0, 1)),
        ("finite numbers", lambda: mean_square_factor([np.nan], 0.1, 1)),
        ("finite numbers", lambda: batch_means(np.eye(2), 1)),
        ("infinite variance", lambda: stationary_variance(Q, 1.0, mean_square_limit(Q, 1), 1)),
        ("infinite variance", lambda: stationary_variance([2.0, 2.0], 1.0, 1.0, 1)),
        ("no variance", lambda: stationary_variance(Q, -1.0, 0.1, 1)),
        ("below almost_sure_limit", lambda: tail_exponent(Q, 1.01 * almost_sure_limit(Q, 1), 1)),
        ("order=0.5", lambda: moment_limit(Q, 0.5, 1)),
        ("finite numbers", lambda: quadratic_sum(np.ones((2, 3)), None, 0.1, 1)),
        ("not symmetric", lambda: quadratic_sum([[[1.0, 2.0], [0.0, 1.0]]], None, 0.1, 1)),
        ("do not sum to 0", lambda: quadratic_sum(Q, [1.0, 1.0, 1.0, 0.0], 0.1, 1)),
        ("do not belong", lambda: quadratic_sum(np.eye(2)[None].repeat(2, 0), [1.0, -1.0], 0.1, 1)),
        ("is no step", lambda: quadratic_sum(Q, None, [0.1, -1.0], 1)),
        ("without replacement <= 4", lambda: quadratic_sum(Q, None, 0.1, 5, replacement=False)),
        ("radius=0", lambda: absorbed(quadratic_sum(Q, None, 0.1, 1), 0)),
        ("clones=0", lambda: growth_rate(quadratic_sum(Q, None, 0.1, 1), 1, power=2, clones=0, steps=1, settle=0,
                                         seed=0)),
    ],
)  # fmt: skip
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


# --- the simulators ------------------------------------------------------------------------------

MATRICES = numpy_generator(1, "matrices").normal(size=(4, 2, 2))
MATRICES = MATRICES + MATRICES.transpose(0, 2, 1) + 2 * np.eye(2)
KICKS = np.stack([G, G[::-1]], axis=1)


@pytest.mark.parametrize(("S", "replacement"), DRAWING)
def test_a_step_is_that_of_one_of_the_batches_and_each_is_as_likely(S, replacement):
    n, lr, start = 6000, 0.3, np.array([1.0, -0.5])
    after = simulate(quadratic_sum(MATRICES, KICKS, lr, S, replacement=replacement), start, 1, trajectories=n, seed=0,
                     threads=1, block=n).final  # fmt: skip
    chosen = batches(S, replacement)
    exact = start - lr * (MATRICES[chosen].mean(1) @ start + KICKS[chosen].mean(1))
    _, which, count = np.unique(exact.round(9), axis=0, return_inverse=True, return_counts=True)
    sums = np.array([exact[which.ravel() == k][0] for k in range(len(count))])
    distance = np.abs(after.T[:, None] - sums).max(-1)
    assert distance.min(1).max() < 1e-12
    seen = np.bincount(distance.argmin(1), minlength=len(sums)) / n
    chance = count / len(chosen)
    assert (abs(seen - chance) <= 4.5 * np.sqrt(chance * (1 - chance) / n)).all()


def test_large_batches_have_the_right_moments():
    S, n = 100, 20_000
    q = 1 - simulate(quadratic_sum(Q, None, 1.0, S), [1.0], 1, trajectories=n, seed=0, threads=1).final[0]
    assert q.mean() == pytest.approx(Q.mean(), abs=4 * np.sqrt(Q.var() / S / n))
    assert q.var() == pytest.approx(Q.var() / S, rel=4 * np.sqrt(2 / n))


def test_learning_rates_side_by_side_see_the_same_batches_and_do_not_disturb_each_other():
    rates = np.array([0.1, 0.3])
    both = simulate(quadratic_sum(MATRICES, KICKS, rates, 2), np.ones(4), 5, trajectories=50, seed=3, threads=1).final
    for k, lr in enumerate(rates):
        alone = simulate(quadratic_sum(MATRICES, KICKS, lr, 2), np.ones(2), 5, trajectories=50, seed=3, threads=1).final
        np.testing.assert_allclose(both[2 * k : 2 * k + 2], alone)


def test_who_has_left_does_not_come_back():
    sgd = absorbed(quadratic_sum([3.0], None, [0.1, 1.0, 2.0 / 3], 1), 5.0)
    steps = simulate(sgd, np.ones(3), 4, trajectories=2, seed=0, observe=np.abs, at=range(5), threads=1).means
    np.testing.assert_allclose(steps[:, 0], 0.7 ** np.arange(5))
    assert np.isnan(steps[:, 1]).tolist() == [False, False, False, True, True]  # |e| = 1, 2, 4, 8
    np.testing.assert_allclose(steps[:, 2], 1)


def test_copies_are_in_proportion_to_the_weights():
    weight = numpy_generator(2, "weights").random((3, 50)) ** 4
    offsets = (np.arange(400) + 0.5) / 400
    copies = np.mean([[np.bincount(p, minlength=50) for p in _parents(weight, u)] for u in offsets], axis=0)
    np.testing.assert_allclose(copies, 50 * weight / weight.sum(1, keepdims=True), atol=1 / 400)
    assert _parents(np.array([[0.0, 2.0, 0.0, 2.0]]), 0.3).tolist() == [[1, 1, 3, 3]]


@pytest.mark.parametrize(("power", "law"), [(2, lambda lr: np.log(mean_square_factor(Q, lr, 2))),
                                            (0, lambda lr: lyapunov_exponent(Q, lr, 2))])  # fmt: skip
def test_growth_on_a_line(power, law):
    rates = np.array([0.2, 0.7, 1.6])
    sgd = quadratic_sum(Q, None, rates, 2)
    runs = np.array([growth_rates(sgd, 1, power=power, clones=1000, steps=20, settle=0, seed=s, replicas=3)
                     for s in range(10)])  # fmt: skip
    error = runs.std(0, ddof=1) / np.sqrt(10)
    assert (abs(runs.mean(0) - [law(lr) for lr in rates]) < 4.5 * error).all()
    assert error.max() < 0.02


@pytest.mark.parametrize("replacement", [True, False])
def test_growth_of_the_mean_square_in_a_plane_is_the_spectral_radius(replacement):
    problem, lr = flatter(0.3, spread=1.0), 0.9
    sgd = quadratic_sum(problem, None, lr, 2, replacement=replacement)
    runs = [growth_rate(sgd, 2, power=2, clones=600, steps=60, settle=15, seed=s) for s in range(6)]
    exact = np.log(second_moment_radius(problem, lr, 2, replacement=replacement))
    assert abs(np.mean(runs) - exact) < 4.5 * np.std(runs, ddof=1) / np.sqrt(6) + 0.002
    assert np.std(runs) < 0.02


def test_without_copies_the_typical_direction_wins():
    """Terms that commute: the largest Lyapunov exponent is the larger one of the two axes."""
    axes = np.array([[0.2, 1.0], [0.6, 3.0]])
    problem = axes[:, :, None] * np.eye(2)
    exact = [lyapunov_exponent(axis, 0.5, 1) for axis in axes.T]
    runs = [growth_rate(quadratic_sum(problem, None, 0.5, 1), 2, power=0, clones=200, steps=60, settle=40, seed=s)
            for s in range(6)]  # fmt: skip
    assert np.mean(runs) == pytest.approx(max(exact), abs=0.01)
    assert min(exact) < max(exact) - 0.2


def test_deterministic_growth_is_exact_and_a_dead_population_is_told():
    assert growth_rate(quadratic_sum([3.0], None, 1.0, 1), 1, power=2, clones=3, steps=2, settle=1, seed=0) == (
        pytest.approx(np.log(4))
    )
    for power in (0, 2):
        assert growth_rate(quadratic_sum([2.0], None, 0.5, 1), 1, power=power, clones=3, steps=2, settle=0, seed=0) == (
            -np.inf
        )


def test_the_problems_are_what_they_say():
    for name, q in lines().items():
        assert q.shape == (16,), name
        assert q.mean() == pytest.approx(1, abs=0.03), name
    for name, terms in spaces().items():
        np.testing.assert_allclose(terms, terms.transpose(0, 2, 1), atol=1e-12, err_msg=name)
        assert np.linalg.eigvalsh(terms.mean(0))[-1] == pytest.approx(1), name
    off = flatter(0.2) - np.diag([1.0, 0.2])
    np.testing.assert_allclose((off @ off).mean(0), 4 * np.eye(2), atol=1e-12)
    assert standard_kicks(16).mean() == pytest.approx(0)
    assert standard_kicks(16).std() == pytest.approx(1)
