"""Stationary densities against closed forms, against their own equation, and against the chain of finite steps."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm
from threefactors.simulation.wells import DoubleWell
from threefactors.theory import boltzmann
from threefactors.theory.ou import lyapunov_covariance

WELL = DoubleWell(height=0.2, saddle=-0.2, sharpness=12)
SPAN = (-2.5, 3.0)


def rising(x):
    return 1 + 0.3 * np.sin(x)


def test_a_quadratic_well_is_gaussian():
    p = boltzmann.gibbs_density(lambda x: 1.5 * (x - 0.2) ** 2, 0.1, 4.0, (-3, 3))
    variance = 0.1 * 4 / 2 / 3.0  # T/L″
    exact = np.exp(-((p.x - 0.2) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    np.testing.assert_allclose(p.values, exact, atol=1e-9)
    assert p.log_odds(0.2) == pytest.approx(0, abs=1e-8)


def test_the_general_law_has_a_closed_form_for_linear_noise():
    """b = −x and C = a + x²/2: integrating −(2/n) x/C gives p ∝ C^(−1 − 2/n), a Student distribution."""
    n = 0.5
    p = boltzmann.stationary_density_1d(lambda x: -x, lambda x: 2 + x**2 / 2, n, (-60, 60))
    exact = (2 + p.x**2 / 2) ** (-1 - 2 / n)
    np.testing.assert_allclose(p.values, exact / quad(lambda x: (2 + x**2 / 2) ** (-1 - 2 / n), -60, 60)[0], rtol=1e-5)


def test_constant_noise_is_the_special_case():
    general = boltzmann.stationary_density_1d(lambda x: -WELL.slope(x), 20.0, 0.01, SPAN)
    special = boltzmann.gibbs_density(WELL.loss, 0.01, 20.0, SPAN)
    np.testing.assert_allclose(general.values, special.values, atol=1e-8)


@pytest.mark.parametrize("noise", [lambda x: np.full_like(x, 2.0), rising])
def test_the_fokker_planck_operator_annihilates_it(noise):
    """−∂(b p) + (n/2) ∂²(C p), by finite differences of second order: the error shrinks with the square of the mesh."""
    n, residuals = 0.3, []
    p = boltzmann.stationary_density_1d(lambda x: -(x**3) + x, noise, n, (-3, 3))
    for every in (100, 50):
        x, q = p.x[::every], p.values[::every]
        h, flux, diffusion = x[1] - x[0], (x - x**3) * q, n / 2 * noise(x) * q
        operator = -(flux[2:] - flux[:-2]) / (2 * h) + (diffusion[2:] - 2 * diffusion[1:-1] + diffusion[:-2]) / h**2
        residuals.append(np.abs(operator).max())
    assert residuals[0] / residuals[1] == pytest.approx(4, rel=0.05)
    assert residuals[1] < 0.02 * np.abs(flux).max() / 0.1


def test_laplace_is_exact_up_to_the_order_of_the_noise():
    a, b = float(WELL.curvature(-1.0)), float(WELL.curvature(1.0))
    errors = []
    for n in (2e-4, 1e-4):
        laplace = boltzmann.laplace_log_odds(float(WELL.loss(-1.0)), 0.0, a, b, n, 20.0)
        errors.append(boltzmann.gibbs_density(WELL.loss, n, 20.0, SPAN).log_odds(-0.2) - laplace)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)  # measured order


def test_at_the_flip_laplace_is_undecided_and_its_formula_is_the_paper_s():
    A, B = np.diag([4.0, 3.0]), np.diag([1.0, 0.5])
    flip = boltzmann.flip_noise(-0.3, 0.1, A, B)
    assert boltzmann.laplace_log_odds(-0.3, 0.1, A, B, flip, 1.0) == pytest.approx(0, abs=1e-12)
    assert flip == pytest.approx(4 * (-0.3 - 0.1) / np.log(0.5 / 12))
    assert boltzmann.laplace_log_odds(-0.3, 0.1, A, B, flip / 2, 1.0) > 0  # little noise: the deeper one
    odds = np.exp(boltzmann.laplace_log_odds(-0.3, 0.1, A, B, 0.2, 1.5))
    assert odds == pytest.approx(np.sqrt(0.5 / 12) * np.exp(2 * 0.4 / 0.3))


def test_free_energy_against_the_integral_over_the_plane():
    well = DoubleWell(saddle=0.2, stiffness=(2, 0.5), dimension=3)
    n, T = 0.02, 0.2
    F = boltzmann.free_energy(well.loss, well.transverse, 3, n, 20.0)
    for x in (-1.0, 0.3):
        # over y in two dimensions: ∫ 2πr exp(−k r²/2T) dr
        k = float(well.transverse(np.array(x)))
        across = quad(lambda r, k=k: 2 * np.pi * r * np.exp(-k * r**2 / (2 * T)), 0, 30)[0]
        exact = float(well.loss(x)) - T * np.log(across / (2 * np.pi * T))
        assert float(F(np.array(x))) == pytest.approx(exact, abs=1e-8)


def test_finite_steps_against_the_chain_itself():
    """The transition matrix of θ′ = θ − ηL′ + √(2Tη) ξ on a fine grid: what the theory misses is of second order."""
    well, T, errors = DoubleWell(saddle=0.1), 0.15, {}
    x = np.linspace(-2.2, 2.2, 441)
    for lr in (0.08, 0.04):
        center = x - lr * well.slope(x)
        move = np.exp(-((x[:, None] - center) ** 2) / (4 * T * lr))
        move /= move.sum(axis=0)
        p = np.linalg.matrix_power(move, 2**14)[:, 220]
        chain = np.log(p[x < 0.1].sum() / p[x >= 0.1].sum())
        equation = boltzmann.finite_step_equation(
            well.slope, well.curvature, lambda y: well.slope(y, 3), lr, 2 * T, 1.0
        )
        grid = lambda f, x=x: np.log(f[x < 0.1].sum() / f[x >= 0.1].sum())  # noqa: E731  the same cut as the chain's
        corrected = boltzmann.stationary_density_1d(*equation, 2 * T, (-2.2, 2.2))
        plain = boltzmann.gibbs_density(well.loss, 2 * T, 1.0, (-2.2, 2.2))
        errors[lr] = [chain - grid(np.interp(x, q.x, q.values)) for q in (corrected, plain)]
    assert errors[0.08][1] / errors[0.04][1] == pytest.approx(2, rel=0.15)  # without the correction: first order
    assert errors[0.08][0] / errors[0.04][0] == pytest.approx(4, rel=0.25)  # with it: second


def test_circulation_is_antisymmetric_and_vanishes_where_noise_and_hessian_commute():
    H, C, n = np.diag([1.0, 0.3]), np.array([[1.0, 0.8], [0.8, 1.0]]), 0.2
    turning = boltzmann.circulation(H, C, n) @ lyapunov_covariance(H, C, n, 1)
    np.testing.assert_allclose(turning, -turning.T, atol=1e-12)
    assert abs(turning[0, 1]) > 0.01
    np.testing.assert_allclose(boltzmann.circulation(C, C @ C, n), 0, atol=1e-12)


def test_circulation_against_the_correlation_in_time():
    """E[θ₁(0) θ₂(t) − θ₂(0) θ₁(t)] = antisymmetric part of e^{−Ht}Σ: its slope at 0 is what circulates."""
    H, C, n, t = np.diag([1.0, 0.3]), np.array([[1.0, 0.8], [0.8, 1.0]]), 0.2, 1e-5
    Σ = lyapunov_covariance(H, C, n, 1)
    later = expm(-H * t) @ Σ
    area = boltzmann.circulation(H, C, n) @ Σ
    assert area[1, 0] - area[0, 1] == pytest.approx((later[1, 0] - later[0, 1]) / t, rel=1e-4)


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("noise_scale=-1", lambda: boltzmann.temperature(-1, 1)),
        ("noise_variance=0", lambda: boltzmann.temperature(1, 0)),
        ("hessian_a has the eigenvalue -1", lambda: boltzmann.laplace_log_odds(0, 0, -1, 1, 0.1, 1)),
        ("use equal shapes", lambda: boltzmann.laplace_log_odds(0, 0, EYE, 1, 0.1, 1)),
        ("not a symmetric matrix", lambda: boltzmann.flip_noise(0, 1, [[1.0, 2.0], [0.0, 1.0]], EYE)),
        ("do not oppose", lambda: boltzmann.flip_noise(0, 1, 1.0, 2.0)),
        ("no density exists", lambda: boltzmann.gibbs_density(lambda x: -(x**2), 0.1, 1, (-3, 3))),
        ("no density exists", lambda: boltzmann.stationary_density_1d(lambda x: 0 * x, 1.0, 0.1, (-3, 3))),
        ("is not > 0; where it vanishes", lambda: boltzmann.stationary_density_1d(np.negative, np.tanh, 0.1, (-3, 3))),
        ("divide=5", lambda: boltzmann.gibbs_density(np.square, 0.1, 1, (-3, 3)).log_odds(5)),
        ("not finite in span", lambda: boltzmann.gibbs_density(lambda x: x * np.nan, 0.1, 1, (-3, 3))),
        ("dimension=0", lambda: boltzmann.free_energy(np.square, np.exp, 0, 0.1, 1)),
        ("binds no transverse", lambda: boltzmann.free_energy(np.square, np.negative, 2, 0.1, 1)(np.ones(2))),
        ("lr=-1", lambda: boltzmann.finite_step_equation(np.sin, np.sin, np.sin, -1, 0.1, 1)),
        ("noise has the eigenvalue", lambda: boltzmann.circulation(EYE, np.diag([1.0, 0.0]), 0.1)),
        ("hessian has the eigenvalue", lambda: boltzmann.circulation(-EYE, EYE, 0.1)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
