"""SGD on linear regression: the closed forms against exact integration over all inputs, without Isserlis' theorem."""

from itertools import product

import numpy as np
import pytest
from threefactors.theory.quadratic import excess_loss, stability_limit, stationary_covariance
from threefactors.theory.regression import regression_covariance, regression_excess_loss, regression_limit

CASES = [([1.0], 1), ([1.0], 3), ([1.0, 1.0], 2), ([2.0, 0.5], 1), ([2.0, 0.5], 3), ([3.0, 1.0, 0.2], 2)]


def moments_step(variances, lr, batch_size):
    """E[(I − ηQ) ⊗ (I − ηQ)] and E[ηg ⊗ ηg] for labels of variance 1, over every batch of a Gauss–Hermite rule.

    Three nodes an input integrate polynomials up to degree five exactly, and these have degree four; labels are ±1.
    """
    a, D, S = np.array(variances), len(variances), batch_size
    nodes, weights = np.array([-np.sqrt(3), 0, np.sqrt(3)]), np.array([1, 4, 1]) / 6
    grid = np.array(list(product(range(3), repeat=S * D)))
    X = nodes[grid].reshape(-1, S, D) * np.sqrt(a)
    p = weights[grid].prod(axis=1)
    steps = np.eye(D) - lr * np.einsum("bsi,bsj->bij", X, X) / S
    carried = np.einsum("b,bij,bkl->ikjl", p, steps, steps).reshape(D * D, D * D)
    kicks = np.zeros((D, D))
    for labels in product((-1, 1), repeat=S):
        g = lr / S * np.einsum("s,bsi->bi", labels, X)
        kicks += np.einsum("b,bi,bj->ij", p, g, g) / 2**S
    return carried, kicks.ravel()


@pytest.mark.parametrize(("variances", "batch_size"), CASES)
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_covariance_is_the_fixed_point_over_all_batches(variances, batch_size, fraction):
    lr, D = fraction * regression_limit(variances, batch_size), len(variances)
    carried, kicks = moments_step(variances, lr, batch_size)
    fixed = np.linalg.solve(np.eye(D * D) - carried, 0.7 * kicks).reshape(D, D)
    s = regression_covariance(variances, 0.7, lr, batch_size)
    np.testing.assert_allclose(fixed, np.diag(s), rtol=1e-9, atol=1e-12)
    loss = regression_excess_loss(variances, 0.7, lr, batch_size)
    assert loss == pytest.approx(0.5 * np.trace(np.diag(variances) @ fixed), rel=1e-9)
    rates = 2 - lr * (1 + 1 / batch_size) * np.array(variances)
    np.testing.assert_allclose(s * rates, lr / batch_size * (0.7 + 2 * loss))  # s_i = k_i (σ² + τ)


@pytest.mark.parametrize(("variances", "batch_size"), CASES)
def test_limit_is_where_the_second_moment_stops_contracting(variances, batch_size):
    limit = regression_limit(variances, batch_size)
    below, at, beyond = (
        np.abs(np.linalg.eigvals(moments_step(variances, limit * f, batch_size)[0])).max() for f in (0.99, 1, 1.01)
    )
    assert below < 1 < beyond
    assert at == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_equal_variances_in_closed_form(batch_size):
    a, D, S, noise = 1.5, 7, batch_size, 0.3
    assert regression_limit(np.full(D, a), S) == pytest.approx(2 * S / (a * (S + D + 1)))
    lr = 0.6 * regression_limit(np.full(D, a), S)
    expected = lr * noise / (S * (2 - lr * a * (1 + (D + 1) / S)))
    np.testing.assert_allclose(regression_covariance(np.full(D, a), noise, lr, S), expected)


def test_large_batches_leave_the_bowl_and_small_ones_stop_sooner():
    a = np.array([3.0, 1.0, 0.2])
    assert regression_limit(a, 10**9) == pytest.approx(stability_limit(3.0), rel=1e-8)
    limits = [regression_limit(a, S) for S in (1, 2, 8, 64)]
    assert limits == sorted(limits)
    assert limits[-1] < stability_limit(3.0)
    bowl = np.diag(stationary_covariance(np.diag(a), 0.5 * np.diag(a), 0.4, 10**7))
    np.testing.assert_allclose(regression_covariance(a, 0.5, 0.4, 10**7), bowl, rtol=1e-6)


def test_noise_that_grows_with_the_distance_costs_more_than_additive_noise():
    """Both agree to first order in η; the deviation from the additive law shrinks in proportion to η."""
    a = np.array([3.0, 1.0, 0.2])
    ratios = [
        regression_excess_loss(a, 0.5, lr, 4) / excess_loss(np.diag(a), 0.5 * np.diag(a), lr, 4) - 1
        for lr in (1e-3, 1e-4)
    ]
    assert ratios[1] > 0
    assert ratios[0] / ratios[1] == pytest.approx(10, rel=0.02)


def test_directions_without_inputs_cost_nothing():
    assert regression_excess_loss([2.0, 0.0], 1.0, 0.1, 2) == pytest.approx(regression_excess_loss([2.0], 1.0, 0.1, 2))
    assert regression_limit([2.0, 0.0], 2) == pytest.approx(regression_limit([2.0], 2))
    assert regression_excess_loss([2.0], 0.0, 0.1, 2) == 0  # no label noise: an interpolating minimum is at rest


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("infinite variance; use 0 < lr < 0.5", lambda: regression_covariance([1.0, 1.0], 1.0, 0.5, 1)),
        ("infinite variance; use 0 < lr < 0.5", lambda: regression_excess_loss([1.0, 1.0], 1.0, 1.9, 1)),
        ("lr=0 is no step", lambda: regression_excess_loss([1.0], 1.0, 0, 1)),
        ("batch_size=0", lambda: regression_limit([1.0], 0)),
        ("label_noise=-1", lambda: regression_covariance([1.0], -1, 0.1, 1)),
        ("not those of inputs", lambda: regression_limit([1.0, -1.0], 1)),
        ("not all of them 0", lambda: regression_limit([0.0, 0.0], 1)),
        ("never moves", lambda: regression_covariance([1.0, 0.0], 1.0, 0.1, 1)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
