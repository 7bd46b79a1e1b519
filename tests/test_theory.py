"""Closed forms, each checked in a way of its own: simulation, integration, a second derivation."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from threefactors._rng import numpy_generator
from threefactors.theory import excess_loss, separable_flow, stability_limit, stationary_covariance


def random_problem(seed, p=4):
    rng = numpy_generator(seed, "problem")
    a, b = rng.normal(size=(p, p)), rng.normal(size=(p, 2))
    return a @ a.T + 0.5 * np.eye(p), b @ b.T


@pytest.mark.parametrize("seed", range(5))
def test_covariance_solves_its_equation(seed):
    H, C = random_problem(seed)
    eta = 1.5 / np.linalg.eigvalsh(H)[-1]
    S = stationary_covariance(H, C, eta, 8)
    np.testing.assert_allclose(H @ S + S @ H - eta * H @ S @ H, eta / 8 * C, atol=1e-12)
    step = np.eye(4) - eta * H
    np.testing.assert_allclose(step @ S @ step.T + eta**2 * C / 8, S, atol=1e-12)  # the recursion itself


def test_commuting_case_in_closed_form():
    H = np.diag([0.5, 1.0, 3.0])
    np.testing.assert_allclose(
        stationary_covariance(H, H, 0.4, 16), np.diag(0.4 / 16 / (2 - 0.4 * np.diag(H))), rtol=1e-12
    )


def test_excess_loss_against_simulation():
    """10 000 chains of discrete SGD; the standard error is known, and so is what a missing ηHΣH would give."""
    H, C = np.diag([1.0, 4.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    eta, S, rng = 0.3, 4, numpy_generator(0, "chains")
    root = np.linalg.cholesky(C / S)
    theta = np.zeros((10_000, 2))
    for _ in range(200):
        theta = theta - eta * (theta @ H + rng.normal(size=theta.shape) @ root.T)
    losses = 0.5 * np.einsum("ni,ij,nj->n", theta, H, theta)
    error = losses.std() / 100
    exact, first_order = excess_loss(H, C, eta, S), eta / (4 * S) * np.trace(C)
    assert abs(losses.mean() - exact) < 4 * error
    assert abs(losses.mean() - first_order) > 10 * error


def test_excess_loss_to_first_order_knows_only_the_trace_of_the_noise():
    """E[L] − L* → (η/4S) Tr C for any C, measured: the relative deviation shrinks in proportion to η."""
    H, C = random_problem(1)
    deviations = [excess_loss(H, C, eta, 8) / (eta / 32 * np.trace(C)) - 1 for eta in (1e-3, 1e-4)]
    assert deviations[0] / deviations[1] == pytest.approx(10, rel=0.02)
    assert abs(deviations[1]) < 1e-3


@pytest.mark.parametrize("start", [-3.0, 0.0, 2.0])
def test_flow_against_integration(start):
    times = np.array([0.0, 0.1, 1.0, 10.0, 300.0])
    ode = solve_ivp(lambda t, m: 1 / (1 + np.exp(m)), (0, 300), [start], t_eval=times, rtol=1e-10, atol=1e-12)
    flow = separable_flow(times, start)
    np.testing.assert_allclose(flow.margin, ode.y[0], rtol=1e-7, atol=1e-8)
    h = 1e-4
    loss = lambda m: np.log1p(np.exp(-m))  # noqa: E731
    second = (loss(flow.margin + h) - 2 * loss(flow.margin) + loss(flow.margin - h)) / h**2
    np.testing.assert_allclose(flow.curvature, second, atol=2e-7)


def test_flow_flattens_like_one_over_time():
    flow = separable_flow(np.array([1e3, 1e4, 1e6]))
    np.testing.assert_allclose(flow.curvature * [1e3, 1e4, 1e6], 1, rtol=0.02)
    assert np.isfinite(separable_flow(1e9).margin)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("ηλ=2.4, outside 0 … 2; use 0 < lr < 0.5", lambda: stationary_covariance(4 * np.eye(1), np.eye(1), 0.6, 1)),
        ("eigenvalue -1", lambda: stationary_covariance(-np.eye(1), np.eye(1), 0.6, 1)),
        ("a covariance has none below 0", lambda: stationary_covariance(np.eye(1), -np.eye(1), 0.6, 1)),
        ("not a symmetric matrix", lambda: stationary_covariance(np.array([[1.0, 2.0], [0, 1]]), np.eye(2), 0.1, 1)),
        ("equal shapes", lambda: stationary_covariance(np.eye(2), np.eye(1), 0.1, 1)),
        ("batch_size=0", lambda: stationary_covariance(np.eye(1), np.eye(1), 0.1, 0)),
        ("sharpness=0 is not > 0", lambda: stability_limit(0)),
        ("runs backwards", lambda: separable_flow(-1.0)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
