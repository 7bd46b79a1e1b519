"""Escape times against closed forms, the backward equation on a grid, and each other as the noise falls."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.linalg import solve_banded
from scipy.special import erf
from threefactors.simulation.wells import DoubleWell
from threefactors.theory.boltzmann import gibbs_density
from threefactors.theory.escape import kramers_rate, mean_escape_time

WELL = DoubleWell(height=0.2, saddle=-0.2, sharpness=12)


def test_free_diffusion_from_a_wall():
    """D τ″ = −1 with τ′(0) = 0, τ(1) = 0: τ = (1 − x²)/2D, D = nσ²/2."""
    time = mean_escape_time(np.zeros_like, 3.0, 0.2, start=0.25, target=1, wall=0)
    assert time == pytest.approx((1 - 0.25**2) / (2 * 0.3), rel=1e-6)


def test_constant_drift():
    """D τ″ + b τ′ = −1 from a wall at 0: τ(x) = (1 − x)/b − (D/b²)(e^{−bx/D} − e^{−b/D})."""
    b, D, x = 0.7, 0.1, 0.2
    exact = (1 - x) / b - D / b**2 * (np.exp(-b * x / D) - np.exp(-b / D))
    assert mean_escape_time(lambda y: b + 0 * y, 1.0, 2 * D, start=x, target=1, wall=0) == pytest.approx(
        exact, rel=1e-6
    )


def test_ornstein_uhlenbeck():
    """From 0 to a in units of the standard deviation: τ = √(π/2) ∫₀ᵃ e^{u²/2} (1 + erf(u/√2)) du."""
    u = np.linspace(0, 1.5, 20_001)
    exact = np.sqrt(np.pi / 2) * trapezoid(np.exp(u**2 / 2) * (1 + erf(u / np.sqrt(2))), u)
    assert mean_escape_time(np.negative, 1.0, 2.0, start=0, target=1.5, wall=-9) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("to", [1, -1])
def test_against_the_backward_equation_on_a_grid(to):
    """(n/2) C τ″ + b τ′ = −1 by central differences, with noise that depends on the place."""
    n, wall, target, m = 0.01, -to * 1.8, to * 1.0, 4001
    drift, noise = (lambda x: -WELL.slope(x)), (lambda x: 20 * WELL.like_curvature(x))
    x = np.linspace(wall, target, m)
    h = x[1] - x[0]
    D, b = n / 2 * noise(x) / h**2, drift(x) / (2 * h)
    bands = np.zeros((3, m))
    bands[0, 1:], bands[1], bands[2, :-1] = (D + b)[:-1], -2 * D, (D - b)[1:]
    bands[0, 1] = 2 * D[0]  # the wall: the point behind it equals the one before it
    bands[1, -1], bands[2, -2] = 1, 0  # the target: τ = 0
    right = np.full(m, -1.0)
    right[-1] = 0
    τ = solve_banded((1, 1), bands, right)
    start = np.interp(-to, x if to > 0 else x[::-1], τ if to > 0 else τ[::-1])
    exact = mean_escape_time(drift, noise, n, start=-to, target=target, wall=wall)
    assert exact == pytest.approx(start, rel=2e-4)


def test_kramers_becomes_exact_at_the_first_order_of_the_noise():
    well, errors = DoubleWell(), []
    for n in (0.02, 0.01):
        exact = mean_escape_time(lambda x: -well.slope(x), 1.0, n, start=-1, target=1, wall=-2.5)
        errors.append(exact * kramers_rate(well.hessian(-1), well.hessian(0), 0.25, n, 1.0) - 1)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
    assert abs(errors[1]) < 0.03


def test_rates_and_occupation_are_in_detailed_balance():
    n = 2e-3
    drift = lambda x: -WELL.slope(x)  # noqa: E731
    a = mean_escape_time(drift, 20.0, n, start=-1, target=1, wall=-2)
    b = mean_escape_time(drift, 20.0, n, start=1, target=-1, wall=3)
    assert np.log(a / b) == pytest.approx(gibbs_density(WELL.loss, n, 20.0, (-2.5, 3)).log_odds(-0.2), abs=2e-3)


def test_directions_across_multiply_the_rate_by_the_ratio_of_their_widths():
    one = kramers_rate(2.0, -1.0, 0.25, 0.1, 1.0)
    assert one == pytest.approx(np.sqrt(2) / (2 * np.pi) * np.exp(-5))
    three = kramers_rate(np.diag([2.0, 4, 4]), np.diag([-1.0, 1, 1]), 0.25, 0.1, 1.0)
    assert three == pytest.approx(4 * one)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("start=2", lambda: mean_escape_time(np.negative, 1.0, 0.1, start=2, target=1, wall=-1)),
        ("noise_scale=0", lambda: mean_escape_time(np.negative, 1.0, 0.0, start=0, target=1, wall=-1)),
        ("not > 0", lambda: mean_escape_time(np.negative, -1.0, 0.1, start=0, target=1, wall=-1)),
        ("longer than any number", lambda: mean_escape_time(np.negative, 1.0, 1e-4, start=0, target=1, wall=-1)),
        ("hessian_minimum has the eigenvalue", lambda: kramers_rate(-1.0, -1.0, 1, 0.1, 1)),
        ("0 negative eigenvalues", lambda: kramers_rate(1.0, 1.0, 1, 0.1, 1)),
        ("2 negative eigenvalues", lambda: kramers_rate(np.eye(2), -np.eye(2), 1, 0.1, 1)),
        ("1 zeros", lambda: kramers_rate(np.eye(2), np.diag([-1.0, 0.0]), 1, 0.1, 1)),
        ("barrier=-1", lambda: kramers_rate(1.0, -1.0, -1, 0.1, 1)),
        ("not of the shape", lambda: kramers_rate(1.0, np.diag([-1.0, 1.0]), 1, 0.1, 1)),
        ("noise_variance=-1", lambda: kramers_rate(1.0, -1.0, 1, 0.1, -1)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
