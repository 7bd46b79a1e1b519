"""Sampling by epochs: the closed forms against every permutation, and against a recursion that knows no lags."""

from itertools import permutations

import numpy as np
import pytest
from threefactors._rng import numpy_generator
from threefactors.theory.epochs import crossover, epoch_autocovariance, epoch_variance, plateau


def phase_average(joint, lag):
    """Mean of E ε_m ε_{m+lag} over the M phases m at which a pair can begin; joint (2M, 2M) as in two_epochs."""
    M = len(joint) // 2
    return np.mean([joint[m, m + lag] for m in range(M)])


def two_epochs(orders):
    """E ε_m ε_n (2M, 2M) over two epochs, each in one of the orders (n, M), independent of one another."""
    one, mean = orders.T @ orders / len(orders), orders.mean(axis=0)
    apart = np.outer(mean, mean)
    return np.block([[one, apart], [apart, one]])


@pytest.mark.parametrize("M", [2, 3, 4, 5, 6])
def test_autocovariance_over_every_order_of_the_batches(M):
    noises = numpy_generator(M, "noises").normal(size=M)
    noises -= noises.mean()
    joint = two_epochs(np.array(list(permutations(noises)))) / np.mean(noises**2)
    expected = [phase_average(joint, lag) for lag in range(M + 1)]
    np.testing.assert_allclose(epoch_autocovariance(np.arange(M + 1), M), expected, atol=1e-12)
    np.testing.assert_array_equal(
        epoch_autocovariance(np.arange(-M, 0), M)[::-1], epoch_autocovariance(range(1, M + 1), M)
    )


def test_autocovariance_over_every_permutation_of_the_examples():
    """Batches of 2 out of 6 examples, cut from a fresh permutation; their variance is (C/S)(N − S)/(N − 1)."""
    examples = numpy_generator(0, "examples").normal(size=6)
    examples -= examples.mean()
    batches = np.array(list(permutations(examples))).reshape(-1, 3, 2).mean(axis=2)
    joint = two_epochs(batches)
    variance = np.mean(examples**2) / 2 * (6 - 2) / (6 - 1)
    expected = [phase_average(joint, lag) / variance for lag in range(4)]
    np.testing.assert_allclose(epoch_autocovariance(np.arange(4), 3), expected, atol=1e-12)


@pytest.mark.parametrize("M", [2, 3, 10, 101])
def test_over_long_times_the_noise_does_no_work(M):
    assert epoch_autocovariance(np.arange(-2 * M, 2 * M + 1), M).sum() == pytest.approx(0, abs=1e-12)


def periodic(x, lr, batch_noise, M):
    """E θ² at each phase from the covariance of one epoch's noises alone, E θ_0² being the same an epoch later."""
    a, noises = 1 - x, batch_noise * (np.eye(M) - (1 - np.eye(M)) / (M - 1))
    grown = np.tril(a ** np.maximum(np.subtract.outer(np.arange(M), np.arange(M)), 0))  # what each noise has become
    kicked = lr**2 * np.einsum("mi,ij,mj->m", grown, noises, grown)
    start = kicked[-1] / (1 - a ** (2 * M))
    return np.mean(a ** (2 * np.arange(1, M + 1)) * start + kicked)


@pytest.mark.parametrize("M", [2, 3, 12, 60])
def test_variance_against_the_recursion_of_an_epoch(M):
    x = np.array([1e-3, 0.05, 0.3, 0.5, 0.8, 1.0, 1.5, 1.9])
    expected = [periodic(each, 0.2, 0.7, M) for each in x]
    np.testing.assert_allclose(epoch_variance(x / 0.2, 0.2, 0.7, M), expected, rtol=1e-9)


@pytest.mark.parametrize("M", [2, 7, 40])
def test_variance_is_the_closed_form_where_that_does_not_cancel(M):
    x = np.array([0.1, 0.7, 1.4])
    a = 1 - x
    bracket = 1 - 2 * a * (M - 1 - M * a + a**M) / (M * (M - 1) * x**2)
    np.testing.assert_allclose(epoch_variance(x / 0.2, 0.2, 0.7, M), 0.04 * 0.7 / (1 - a**2) * bracket, rtol=1e-10)
    by_lags = [1 + 2 * np.sum(each ** np.arange(1, M) * epoch_autocovariance(np.arange(1, M), M)) for each in a]
    np.testing.assert_allclose(bracket, by_lags, rtol=1e-10)


@pytest.mark.parametrize("M", [2, 5, 300])
def test_flat_directions_share_a_plateau(M):
    walk = np.arange(M) * (M - np.arange(M)) / (M - 1)  # a bridge after m of its M steps
    assert plateau(0.2, 0.7, M) == pytest.approx(0.04 * 0.7 * walk.mean())
    np.testing.assert_allclose(epoch_variance([1e-9, 1e-12], 0.2, 0.7, M), plateau(0.2, 0.7, M), rtol=1e-6)


def test_between_the_plateau_and_the_law_without_epochs():
    lr, noise, M = 0.1, 2.0, 10_000
    curvature = crossover(lr, M)
    free = lr * noise / (2 * curvature)
    assert free == pytest.approx(plateau(lr, noise, M), rel=2 / M)  # where the two asymptotes meet
    steep, flat = epoch_variance([1000 * curvature, curvature / 1000], lr, noise, M)
    x = 1000 * curvature * lr
    assert steep == pytest.approx(lr**2 * noise / (x * (2 - x)), rel=2e-3)
    assert flat == pytest.approx(plateau(lr, noise, M), rel=2e-3)
    assert epoch_variance(curvature, lr, noise, M) < 0.7 * free


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("batches_per_epoch=1 has no noise", lambda: epoch_autocovariance(0, 1)),
        ("batches_per_epoch=2.5", lambda: plateau(0.1, 1.0, 2.5)),
        ("whole numbers", lambda: epoch_autocovariance(0.5, 4)),
        ("ηλ=2", lambda: epoch_variance(20.0, 0.1, 1.0, 4)),
        ("ηλ=0", lambda: epoch_variance(0.0, 0.1, 1.0, 4)),
        ("batch_noise=-1", lambda: epoch_variance(1.0, 0.1, -1.0, 4)),
        ("lr=0 is no step", lambda: crossover(0, 4)),
        ("lr=-1 is no step", lambda: plateau(-1, 1.0, 4)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
