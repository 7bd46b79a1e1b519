"""Expectations without Monte Carlo: against brute force, closed forms, and the orders that theory predicts."""

import itertools
from functools import partial

import numpy as np
import pytest
from scipy.special import ive
from threefactors.simulation import simulate
from threefactors.simulation.diffusion import euler_maruyama
from threefactors.theory.weak import Circle, diffusion_expectation, equation, equation_expectation, sgd_expectation

WEIGHT, ANGLE = np.array([1.0, 1.5, 2.0, 0.5]), np.array([0.0, 1.2, -1.0, 2.6])
CIRCLE = Circle()


def gradient(i, x):
    return WEIGHT[i] * np.sin(x - ANGLE[i])


PROBLEM = {"gradient": gradient, "examples": 4, "start": 1.5}


@pytest.mark.parametrize("S", [1, 2, 3])
def test_transfer_operator_against_every_batch_of_every_step(S):
    lr, steps = 0.3, 2 if S > 1 else 4
    points = np.array([1.5])
    for _ in range(steps):
        batches = itertools.product(range(4), repeat=S)
        points = np.concatenate([points - lr * np.mean([gradient(i, points) for i in batch], 0) for batch in batches])
    found = sgd_expectation(np.sin, **PROBLEM, lr=lr, batch_size=S, clock=lr * steps)
    assert found == pytest.approx(np.sin(points).mean(), abs=1e-10)


def test_descent_without_noise():
    x = 1.5
    for _ in range(20):
        x -= 0.1 * gradient(np.arange(4), x).mean()
    none = sgd_expectation(np.cos, **PROBLEM, lr=0.1, batch_size=1, clock=2.0, noise="none")
    assert none == pytest.approx(np.cos(x), abs=1e-8)  # a point of the circle moved, not smeared


def test_gaussian_noise_is_the_euler_maruyama_scheme():
    lr, S = 0.2, 3
    exact = sgd_expectation(np.cos, **PROBLEM, lr=lr, batch_size=S, clock=2.0, noise="gaussian")
    scheme = euler_maruyama(
        lambda x: -gradient(np.arange(4)[:, None], x).mean(0, keepdims=True),
        lambda x: np.sqrt(lr / S * gradient(np.arange(4)[:, None], x).var(0, keepdims=True)),
        lr,
    )
    final = np.cos(simulate(scheme, [1.5], 10, trajectories=40_000, seed=0).final)
    assert abs(final.mean() - exact) < 4 * final.std() / 200
    shifted = sgd_expectation(np.cos, **PROBLEM, lr=lr, batch_size=2 * S, clock=2.0, noise="gaussian")
    assert abs(final.mean() - shifted) > 10 * final.std() / 200  # a factor of 2 in the noise is seen


def test_brownian_motion_with_drift():
    """X_T ~ N(x + vT, DT), so E cos X_T = cos(x + vT) exp(−DT/2)."""
    ones = np.ones(CIRCLE.points)
    found = diffusion_expectation(np.cos, 0.7 * ones, 0.4 * ones, [0.3, 2.0], clock=1.5)
    np.testing.assert_allclose(found, np.cos(np.array([0.3, 2.0]) + 1.05) * np.exp(-0.3), atol=1e-12)


def test_long_after_the_start_the_law_is_von_mises():
    """dX = −sin X dt + √(2D) dW has the density ∝ exp(cos x/D): E cos X = I₁(1/D)/I₀(1/D), from any start."""
    D = 0.3
    drift, variance = -np.sin(CIRCLE.x), np.full(CIRCLE.points, 2 * D)
    found = diffusion_expectation(np.cos, drift, variance, [0.0, 1.0, 3.0], clock=60.0)
    np.testing.assert_allclose(found, ive(1, 1 / D) / ive(0, 1 / D), atol=1e-10)


def test_on_a_large_circle_it_is_the_ornstein_uhlenbeck_process():
    """y = kX on the circle, dX = −λ sin(kX)/k dt + s dW: the Ornstein–Uhlenbeck process with an error of order k²."""
    lam, s, start, clock = 1.3, 0.8, 0.9, 1.1
    exact = start**2 * np.exp(-2 * lam * clock) + s**2 / (2 * lam) * (1 - np.exp(-2 * lam * clock))
    found = []
    for k in (0.4, 0.2, 0.1):
        variance = np.full(CIRCLE.points, (k * s) ** 2)
        square = partial(lambda k, y: (2 - 2 * np.cos(y)) / k**2, k)  # X²
        found.append(diffusion_expectation(square, -lam * np.sin(CIRCLE.x), variance, k * start, clock=clock))
    errors = np.array(found) - exact
    np.testing.assert_allclose(errors[:-1] / errors[1:], 4, rtol=0.06)
    once = (4 * np.array(found[1:]) - found[:-1]) / 3  # the terms in k², then in k⁴, cancel
    assert (16 * once[1] - once[0]) / 15 == pytest.approx(exact, abs=2e-5)


def test_the_second_order_drift_is_the_gradient_of_the_modified_loss():
    """−(f + (η/4) f'²)' = −f' − (η/2) f' f'', with f'' known."""
    drift, variance = equation(gradient, 4, lr=0.2, batch_size=2, order=2)
    each = gradient(np.arange(4)[:, None], CIRCLE.x)
    bend = (WEIGHT[:, None] * np.cos(CIRCLE.x - ANGLE[:, None])).mean(0)
    np.testing.assert_allclose(drift, -each.mean(0) * (1 + 0.1 * bend), atol=1e-12)
    np.testing.assert_allclose(variance, 0.1 * each.var(0), atol=1e-12)


def errors(order, lrs, batch=lambda lr: 2, noise="batch", observable=np.sin, clock=2.0):
    setting = dict(observable=observable, clock=clock, **PROBLEM)
    return np.array(
        [
            equation_expectation(**setting, lr=lr, batch_size=batch(lr), order=order)
            - sgd_expectation(**setting, lr=lr, batch_size=batch(lr), noise=noise)
            for lr in lrs
        ]
    )


SMALL = (0.01, 0.005)


@pytest.mark.parametrize(("order", "slope"), [(0, 1), (1, 1), (2, 2)])
def test_weak_orders_at_fixed_batch_size(order, slope):
    coarse, fine = errors(order, SMALL)
    assert np.log2(coarse / fine) == pytest.approx(slope, abs=0.02)


def test_at_fixed_ratio_the_flow_fails_and_gaussian_noise_is_of_first_order():
    ratio = lambda lr: lr / 0.1  # noqa: E731
    gaussian = errors(1, SMALL, ratio, "gaussian")
    assert np.log2(gaussian[0] / gaussian[1]) == pytest.approx(1, abs=0.02)
    flow = errors(0, SMALL, ratio, "gaussian")
    assert np.log2(flow[0] / flow[1]) == pytest.approx(0, abs=0.1)
    assert abs(flow[1]) > 20 * abs(gaussian[1])


def test_a_wrong_factor_in_the_correction_costs_an_order():
    """η/2 or η/8 in place of η/4, with everything else right, leaves first order."""
    for wrong in (0.5, 2.0):
        found = []
        for lr in SMALL:
            setting = {"lr": lr, "batch_size": 2}
            drift, _ = equation(gradient, 4, **setting, order=1)
            better, variance = equation(gradient, 4, **setting, order=2)
            value = diffusion_expectation(np.sin, drift + wrong * (better - drift), variance, 1.5, clock=2.0)
            found.append(value - sgd_expectation(np.sin, **PROBLEM, **setting, clock=2.0))
        assert np.log2(found[0] / found[1]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("2.5 steps", lambda: sgd_expectation(np.sin, **PROBLEM, lr=0.4, batch_size=1, clock=1.0)),
        ("use lr > 0", lambda: sgd_expectation(np.sin, **PROBLEM, lr=0.0, batch_size=1, clock=1.0)),
        ("batch_size=1.5 is no batch", lambda: sgd_expectation(np.sin, **PROBLEM, lr=0.5, batch_size=1.5, clock=1.0)),
        (
            "noise='loud' is unknown",
            lambda: sgd_expectation(np.sin, **PROBLEM, lr=0.5, batch_size=1, clock=1.0, noise="loud"),
        ),
        ("order=3", lambda: equation(gradient, 4, lr=0.1, batch_size=1, order=3)),
        ("negative noise", lambda: equation(gradient, 4, lr=0.1, batch_size=-1, order=1)),
        ("no data", lambda: equation(gradient, 0, lr=0.1, batch_size=1, order=1)),
        ("must be >= 0", lambda: diffusion_expectation(np.sin, CIRCLE.x, -CIRCLE.x - 1, 0.0, clock=1.0)),
        ("give both at the 95 points", lambda: diffusion_expectation(np.sin, CIRCLE.x[1:], CIRCLE.x, 0.0, clock=1.0)),
        ("odd number", lambda: Circle(100)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
