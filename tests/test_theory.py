"""Closed forms, each checked in a way of its own: simulation, integration, a second derivation."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_lyapunov
from threefactors._rng import numpy_generator
from threefactors.theory import excess_loss, separable_flow, stability_limit, stationary_covariance
from threefactors.theory.ou import (
    covariance_at,
    lyapunov_covariance,
    relaxation_time,
    stationary_loss,
    three_factor_loss,
)
from threefactors.theory.quadratic import covariance_after, relaxation_steps


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


@pytest.mark.parametrize("fraction", [0.1, 0.9, 1.9])  # of λ_max: beyond ηλ = 1 the steps overshoot
def test_covariance_on_its_way_is_the_recursion(fraction):
    H, C = random_problem(2)
    start, _ = random_problem(3)
    eta = fraction / np.linalg.eigvalsh(H)[-1]
    step, covariance, seen = np.eye(4) - eta * H, start, [start]
    for _ in range(40):
        covariance = step @ covariance @ step + eta**2 * C / 8
        seen.append(covariance)
    np.testing.assert_allclose(covariance_after(H, C, eta, 8, np.arange(41), start), seen, atol=1e-12)
    np.testing.assert_allclose(covariance_after(H, C, eta, 8, 1), eta**2 * C / 8, atol=1e-14)  # from one point
    np.testing.assert_allclose(covariance_after(H, C, eta, 8, 10**7), stationary_covariance(H, C, eta, 8), atol=1e-12)


def test_the_start_is_forgotten_at_the_rate_foretold():
    for curvature in (0.1, 2.0, 4.9):
        H, C, eta = np.array([[curvature]]), np.eye(1), 0.4
        left = covariance_after(H, C, eta, 1, np.array([0, 1]), 9 * np.eye(1)) - stationary_covariance(H, C, eta, 1)
        assert np.log(left[0, 0, 0] / left[1, 0, 0]) == pytest.approx(1 / relaxation_steps(curvature, eta))
    assert relaxation_steps(2.5, 0.4) == 0  # ηλ = 1: one step forgets all
    np.testing.assert_allclose(relaxation_steps(np.array([1e-6, 1e-9]), 0.1) * 0.1, relaxation_time([1e-6, 1e-9]))


@pytest.mark.parametrize("seed", range(3))
def test_continuous_time_against_scipy(seed):
    H, C = random_problem(seed)
    start, _ = random_problem(seed + 10)
    stationary = lyapunov_covariance(H, C, 0.3, 8)
    np.testing.assert_allclose(stationary, solve_continuous_lyapunov(H, 0.3 / 8 * C), atol=1e-12)
    assert 0.5 * np.trace(H @ stationary) == pytest.approx(stationary_loss(C, 0.3, 8), rel=1e-12)  # H drops out

    def flow(T, flat):
        S = flat.reshape(4, 4)
        return (0.3 / 8 * C - H @ S - S @ H).ravel()

    times = np.array([0.0, 0.05, 0.4, 3.0])
    ode = solve_ivp(flow, (0, 3), start.ravel(), t_eval=times, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(covariance_at(H, C, 0.3, 8, times, start), ode.y.T.reshape(-1, 4, 4), atol=1e-8)


def test_with_noise_like_the_hessian_all_directions_are_equally_wide():
    H, _ = random_problem(4)
    np.testing.assert_allclose(lyapunov_covariance(H, H, 0.3, 8), 0.3 / 16 * np.eye(4), atol=1e-14)
    assert three_factor_loss(H, 0.3, 8) == pytest.approx(0.5 * np.trace(H @ lyapunov_covariance(H, H, 0.3, 8)))


def test_continuous_time_is_the_limit_of_small_steps():
    """At the same clock and noise scale the distance to discrete SGD is proportional to η, on the way and at rest."""
    H, C = random_problem(5)
    for clock in (0.2, 50.0):
        way = [
            np.abs(
                covariance_after(H, C, eta, batch, round(clock / eta)) - covariance_at(H, C, eta, batch, clock)
            ).max()
            for eta, batch in ((1e-3, 10), (1e-4, 1))
        ]
        assert way[0] / way[1] == pytest.approx(10, rel=0.05)


def test_relaxation_time_is_where_the_excess_has_fallen_by_e():
    H, C, start = np.array([[0.7]]), np.eye(1), 5 * np.eye(1)
    rest = lyapunov_covariance(H, C, 0.1, 2)
    later = covariance_at(H, C, 0.1, 2, relaxation_time(0.7), start)
    assert ((later - rest) / (start - rest)).item() == pytest.approx(np.exp(-1))


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
        ("lr=0 is no step", lambda: stationary_covariance(np.eye(1), np.eye(1), 0, 1)),
        ("outside 0 … 2; use 0 < lr < 0.5", lambda: covariance_after(4 * np.eye(1), np.eye(1), 0.6, 1, 3)),
        ("steps=-1", lambda: covariance_after(np.eye(1), np.eye(1), 0.6, 1, -1)),
        ("whole numbers", lambda: covariance_after(np.eye(1), np.eye(1), 0.6, 1, 1.5)),
        ("start has the eigenvalue -1", lambda: covariance_after(np.eye(1), np.eye(1), 0.6, 1, 1, -np.eye(1))),
        ("start has shape", lambda: covariance_at(np.eye(2), np.eye(2), 0.6, 1, 1.0, np.eye(1))),
        ("outside 0 … 2; use 0 < lr < 2/λ", lambda: relaxation_steps(4.0, 0.6)),
        ("eigenvalue 0;", lambda: lyapunov_covariance(np.zeros((1, 1)), np.eye(1), 0.1, 1)),
        ("noise has the eigenvalue -1", lambda: stationary_loss(-np.eye(1), 0.1, 1)),
        ("lr=-0.1 is no step", lambda: stationary_loss(np.eye(1), -0.1, 1)),
        ("batch_size=0", lambda: three_factor_loss(np.eye(1), 0.1, 0)),
        ("hessian has the eigenvalue -1", lambda: three_factor_loss(-np.eye(1), 0.1, 1)),
        ("runs backwards", lambda: covariance_at(np.eye(1), np.eye(1), 0.1, 1, -1.0)),
        ("curvature=0.0 is not > 0", lambda: relaxation_time(0.0)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
