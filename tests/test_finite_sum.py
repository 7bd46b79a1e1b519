"""SGD on a finite sum, simulated: against exact expectations, with standard errors that are known."""

import numpy as np
import pytest
from threefactors.simulation import Draws, simulate
from threefactors.simulation.finite_sum import finite_sum_sgd, sgd_mean, shadow_variance, shadowed_sgd
from threefactors.theory.noise import batch_covariance
from threefactors.theory.weak import sgd_expectation

WEIGHT, ANGLE = np.array([1.0, 1.5, 2.0, 0.5]), np.array([0.0, 1.2, -1.0, 2.6])


def gradient(i, x):
    return WEIGHT[i] * np.sin(x - ANGLE[i])


def curvature(i, x):
    return WEIGHT[i] * np.cos(x - ANGLE[i])


def number(i, x):
    """The example's own number: after one step with lr = 1 from 0, −x is the mean of the numbers drawn."""
    return i + 0.0 * x


@pytest.mark.parametrize("S", [1, 2, 5])
@pytest.mark.parametrize(("sampling", "replacement"), [("replacement", True), ("without", False), ("epoch", False)])
def test_the_first_step_has_the_covariance_of_its_sampling(sampling, replacement, S):
    n = 40_000
    drawn = -simulate(finite_sum_sgd(number, 6, 1.0, S, sampling), [0.0], 1, trajectories=n, seed=0).final[0]
    expected = batch_covariance(np.var(range(6)), 6, S, replacement)
    assert drawn.mean() == pytest.approx(2.5, abs=4 * np.sqrt(expected / n))
    assert drawn.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / n))


def test_an_epoch_shows_every_example_once_and_shuffles_again():
    dynamics = finite_sum_sgd(number, 6, 1.0, 2, "epoch")
    at = (3, 6)
    path = simulate(dynamics, [0.0], 6, trajectories=50, seed=0, at=at, observe=lambda x: np.stack([x[0], x[0] ** 2]))
    np.testing.assert_allclose(path.means, [[-7.5, 7.5**2], [-15, 15**2]])  # 15/2 in each epoch, for all of them
    first = simulate(dynamics, [0.0], 1, trajectories=50, seed=0).final[0]
    fourth = simulate(dynamics, [0.0], 4, trajectories=50, seed=0).final[0] + 7.5
    assert len(np.unique(first)) > 3
    assert (first != fourth).any()


def test_more_than_one_parameter():
    """g_i = x − c_i in the plane: the full batch contracts towards the mean of the c_i."""
    centers = np.array([[1.0, 2.0], [3.0, -2.0], [2.0, 0.0]])
    toward = lambda i, x: x - np.moveaxis(centers[i[:, 0]], -1, 1)  # noqa: E731
    final = simulate(finite_sum_sgd(toward, 3, 0.5, 3, "without"), [0.0, 0.0], 3, trajectories=5, seed=0).final
    np.testing.assert_allclose(final, np.array([[2.0], [0.0]]) * (1 - 0.5**3) * np.ones(5), atol=1e-12)


def test_the_shadow_follows_and_its_moments_are_known():
    lr, S, steps, n = 0.1, 2, 20, 40_000
    final = simulate(shadowed_sgd(gradient, curvature, 4, lr, S), [1.5, 1.5, 0.0], steps, trajectories=n, seed=0).final
    x, y, z = final
    assert np.ptp(y) == 0
    v = shadow_variance(gradient, curvature, 4, 1.5, lr, S, steps)
    assert abs(z.mean()) < 4 * np.sqrt(v / n)
    assert (z**2).mean() == pytest.approx(v, rel=4 * np.sqrt(3 / n))
    assert np.corrcoef(x - y, z)[0, 1] > 0.95
    plain = simulate(finite_sum_sgd(gradient, 4, lr, S), [1.5], steps, trajectories=n, seed=0).final
    np.testing.assert_allclose(x, plain[0], atol=1e-12)  # the same batches, the same path


@pytest.mark.parametrize(("observable", "lr", "S"), [(np.sin, 0.1, 2), (np.cos, 0.2, 1)])
def test_means_against_the_transfer_operator(observable, lr, S):
    setting = {"gradient": gradient, "examples": 4, "start": 1.5, "lr": lr, "batch_size": S, "clock": 2.0}
    means = [sgd_mean(observable, curvature=curvature, **setting, trajectories=4000, seed=s) for s in range(8)]
    error = np.std(means, ddof=1) / np.sqrt(8)
    assert abs(np.mean(means) - sgd_expectation(observable, **setting)) < 4.5 * error
    plain = simulate(finite_sum_sgd(gradient, 4, lr, S), [1.5], round(2 / lr), trajectories=4000, seed=0).final
    assert np.std(means, ddof=1) < 0.5 * observable(plain).std() / np.sqrt(4000)  # what the controls are for


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("sampling='sorted' is unknown", lambda: finite_sum_sgd(number, 6, 0.1, 2, "sorted")),
        ("batch_size=7 exceeds the 6 examples", lambda: finite_sum_sgd(number, 6, 0.1, 7, "epoch")),
        ("use lr > 0", lambda: finite_sum_sgd(number, 6, 0.0, 2)),
        ("at least 1 of each", lambda: finite_sum_sgd(number, 0, 0.1, 2)),
        (
            "do not carry a regression",
            lambda: sgd_mean(
                np.sin, gradient, curvature, 4, 0.0, lr=0.1, batch_size=1, clock=1.0, trajectories=5, seed=0
            ),
        ),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_batches_are_drawn_per_trajectory():
    advance = finite_sum_sgd(number, 100, 1.0, 1)(1000, Draws(0, "test", 0))
    x = np.zeros((1, 1000))
    advance(x, 0)
    assert len(np.unique(x)) > 90
