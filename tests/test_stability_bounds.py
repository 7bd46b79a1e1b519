"""Bounds of the stability threshold: their order, and what a single step does, by enumeration."""

from itertools import product

import numpy as np
import pytest
from threefactors.theory.second_moment import second_moment_limit
from threefactors.theory.stability_bounds import explicit_bounds, line_limit, one_step_limit, simple_limits

from tests.quadratics import DRAWS, TERMS, batches, problems


def test_bounds_are_in_their_order():
    loose = exceeded = 0
    for Q, S, replacement, rng in problems(200):
        limit = second_moment_limit(Q, S, replacement=replacement)
        below, above = explicit_bounds(Q, S, replacement=replacement)
        one_step = one_step_limit(Q, S, replacement=replacement)
        sharpness, non_uniformity = simple_limits(Q, S, replacement=replacement)
        line = min(line_limit(Q, v, S, replacement=replacement) for v in rng.standard_normal((10, Q.shape[1])))
        slack = 1 + 1e-9
        assert below <= one_step * slack
        assert one_step <= limit * slack
        assert limit <= min(line, above) * slack
        assert above <= sharpness * slack
        assert one_step <= min(sharpness, non_uniformity) * slack
        if Q.shape[1] == 1:
            np.testing.assert_allclose([below, one_step, line, above], limit)
        loose += below < 0.9 * one_step < 0.81 * limit < 0.7 * above
        exceeded += limit > 1.01 * non_uniformity
    assert loose > 5  # none of the orders is an equality in disguise
    assert exceeded > 1  # non-uniformity alone bounds one step, not η_ms


@pytest.mark.parametrize(("batch_size", "replacement"), DRAWS)
@pytest.mark.parametrize("name", TERMS)
def test_bounds_say_what_a_step_does(name, batch_size, replacement):
    """By enumeration: no deviation grows in mean square below one bound, none shrinks above another."""
    Q = TERMS[name]
    m = Q.shape[1]

    def growth(lr):
        """Least and largest E|e'|²/|e|²."""
        steps = [np.eye(m) - lr * Q[list(b)].mean(0) for b in batches(len(Q), batch_size, replacement)]
        return np.linalg.eigvalsh(np.mean([F @ F for F in steps], axis=0))[[0, -1]]

    below, above = explicit_bounds(Q, batch_size, replacement=replacement)
    assert growth(below)[1] <= 1 + 1e-9
    assert growth(one_step_limit(Q, batch_size, replacement=replacement))[1] == pytest.approx(1)
    if above < 2 / np.linalg.eigvalsh(Q.mean(0))[-1] * (1 - 1e-9):
        assert growth(above * (1 + 1e-9))[0] >= 1 - 1e-9


def test_explicit_bounds_in_closed_form_and_their_two_regimes():
    """Σ = σ²I exactly: terms diag(λ) ± σ along each axis, on top of unequal means."""
    means, sigma = np.array([3.0, 1.0, 0.2]), 0.7
    Q = np.array([np.diag(means + sigma * np.array(signs)) for signs in product([-1, 1], repeat=3)])
    for S in (1, 4, 1000):
        limits = 2 * means / (means**2 + sigma**2 / S)
        below, above = explicit_bounds(Q, S)
        assert below == pytest.approx(min(limits))
        assert above == pytest.approx(min(max(limits), 2 / 3))
        assert one_step_limit(Q, S) == pytest.approx(min(limits))
        assert second_moment_limit(Q, S) == pytest.approx(min(limits))
    assert explicit_bounds(Q, 10**6)[0] == pytest.approx(2 / 3, rel=1e-5)  # blind to all but the sharpest direction
    noisy = np.concatenate([Q + 40 * np.eye(3), Q - 40 * np.eye(3)])
    np.testing.assert_allclose(explicit_bounds(noisy, 2), 2 * np.array(explicit_bounds(noisy, 1)), rtol=0.01)  # ∝ S


def test_full_batches_are_gradient_descent():
    for Q in TERMS.values():
        limit = 2 / np.linalg.eigvalsh(Q.mean(0))[-1]
        n = len(Q)
        assert second_moment_limit(Q, n, replacement=False) == pytest.approx(limit)
        assert one_step_limit(Q, n, replacement=False) == pytest.approx(limit)
        np.testing.assert_allclose(explicit_bounds(Q, n, replacement=False), limit)
        assert simple_limits(Q, n, replacement=False) == (pytest.approx(limit), np.inf)
