"""Stochastic differential equations: the laws of the schemes in closed form, and the competitors of the benchmark."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec
from scipy.linalg import expm
from threefactors._rng import numpy_generator
from threefactors.simulation.diffusion import euler_maruyama, ornstein_uhlenbeck
from threefactors.simulation.ensemble import simulate

from tests.bench import simulation as bench

N = 20_000
A = np.array([[1.0, 0.6], [-0.4, 2.0]])
R = np.array([[1.0, 0.0], [0.8, 0.3]])
A.flags.writeable = R.flags.writeable = False


def deviations(x, mean, covariance):
    """Largest deviations of sample mean and covariance of normal x (d, n) from theirs, in known standard errors."""
    n, variance = x.shape[1], np.diag(covariance)
    centered = x - mean[:, None]
    errors = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
    return (
        np.max(np.abs(centered.mean(1)) / np.sqrt(variance / n)),
        np.max(np.abs(centered @ centered.T / n - covariance) / errors),
    )


@pytest.mark.parametrize("hλ", [0.02, 0.5, 1.0, 1.9])
def test_euler_on_ornstein_uhlenbeck_follows_its_own_recursion(hλ):
    """a = 1 − hλ: E X_t = aᵗ x₀, Var X_t = σ²h (1 − a²ᵗ)/(1 − a²), at all times and for every step that is stable."""
    rate, sigma, start = 2.0, 0.7, 3.0
    h, a, times = hλ / rate, 1 - hλ, np.array([0, 1, 2, 10, 60])
    dynamics = euler_maruyama(lambda x: -rate * x, sigma, h)
    moments = lambda x: np.vstack([x, x**2])  # noqa: E731
    path = simulate(dynamics, [start], 60, trajectories=N, seed=0, at=times, observe=moments)
    mean = np.where(times > 0, a ** times.astype(float), 1) * start
    variance = sigma**2 * h * (1 - a ** (2.0 * times)) / (1 - a**2)
    assert (np.abs(path.means[:, 0] - mean) <= 4 * np.sqrt(variance / N)).all()
    # Var X² = 2v² + 4vm² for a normal law of mean m and variance v
    error = np.sqrt((2 * variance**2 + 4 * variance * mean**2) / N)
    assert (np.abs(path.means[:, 1] - variance - mean**2) <= 4 * error + 1e-12).all()
    if hλ >= 0.5:  # and the diffusion itself has another law, which 20 000 trajectories tell apart
        exact = sigma**2 / (2 * rate)
        assert abs(np.mean(path.final**2) - exact) > 10 * exact * np.sqrt(2 / N)


def test_a_matrix_correlates_the_components_as_it_should():
    """S' = (I − hA) S (I − hA)ᵀ + h R Rᵀ, and not with RᵀR, nor with h² for h."""
    h, steps, start = 0.2, 12, np.array([1.0, -2.0])

    def law(noise):
        mean, covariance, step = start, np.zeros((2, 2)), np.eye(2) - h * A
        for _ in range(steps):
            mean, covariance = step @ mean, step @ covariance @ step.T + noise
        return mean, covariance

    x = simulate(euler_maruyama(lambda x: -A @ x, R, h), start, steps, trajectories=N, seed=0).final
    assert max(deviations(x, *law(h * R @ R.T))) < 4
    assert deviations(x, *law(h * R.T @ R))[1] > 10
    assert deviations(x, *law(h**2 * R @ R.T))[1] > 10


def test_three_ways_to_give_the_same_diffusion():
    ways = [0.5, 0.5 * np.eye(2), lambda x: np.full_like(x, 0.5)]
    ends = [simulate(euler_maruyama(lambda x: -x, way, 0.1), [1, 2], 20, trajectories=50, seed=0).final for way in ways]
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=1e-12)


def test_noise_that_depends_on_the_state_is_that_of_ito():
    """dX = μX dt + σX dW by Euler: X_t a product of a + bξ, a = 1 + μh, b = σ√h; so E Xᵏ = (E (a + bξ)ᵏ)ᵗ."""
    mu, sigma, h, steps = 0.5, 0.4, 0.05, 20
    a, b = 1 + mu * h, sigma * np.sqrt(h)
    first, second, fourth = (m**steps for m in (a, a**2 + b**2, a**4 + 6 * a**2 * b**2 + 3 * b**4))
    x = simulate(euler_maruyama(lambda x: mu * x, lambda x: sigma * x, h), [1.0], steps, trajectories=N, seed=0).final
    error = np.sqrt((second - first**2) / N)
    assert abs(x.mean() - first) < 4 * error
    assert abs(np.mean(x**2) - second) < 4 * np.sqrt((fourth - second**2) / N)
    assert abs(x.mean() - first * np.exp(sigma**2 / 2 * h * steps)) > 10 * error  # the mean by Stratonovich


class Replay:
    """Draws that hand out given numbers (T, n) one time after another."""

    def __init__(self, xi):
        self.rows = iter(xi[:, None].copy())

    def normal(self, *shape):
        return next(self.rows)


SIGMA = 0.8
EQUATIONS = {  # drift, diffusion, and the order in which Euler's paths come to those of the equation
    "multiplicative": (lambda x: 0.3 * x, lambda x: SIGMA * x, 0.5),
    "additive": (lambda x: np.sin(2 * x), SIGMA, 1.0),
}


@pytest.mark.parametrize("noise", EQUATIONS)
def test_strong_order(noise):
    """E|X_h − X| at time 1 on the same Brownian paths, against h: order ½, but 1 where σ is constant.

    X is known for geometric Brownian motion; for the additive equation, a step of 1/1024 stands in for it.
    """
    drift, diffusion, order = EQUATIONS[noise]
    finest, n = 1024, 2000
    xi = numpy_generator(0, "Brownian paths").standard_normal((finest, n))

    def end(steps):
        draws = Replay(xi.reshape(steps, -1, n).sum(1) * np.sqrt(steps / finest))
        x, advance = np.ones((1, n)), euler_maruyama(drift, diffusion, 1 / steps)(n, draws)
        for t in range(steps):
            advance(x, t)
        return x[0]

    brownian = xi.sum(0) / np.sqrt(finest)
    exact = np.exp(0.3 - SIGMA**2 / 2 + SIGMA * brownian) if noise == "multiplicative" else end(finest)
    steps = np.array([8, 16, 32, 64])
    errors = [np.abs(end(k) - exact).mean() for k in steps]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


def test_ornstein_uhlenbeck_has_no_error_of_discretization():
    """Against the integral ∫ e^{−As} R Rᵀ e^{−Aᵀs} ds by quadrature, at one step and at three, however long."""
    start = np.array([2.0, -1.0])
    for h in (0.1, 1.5):
        for steps in (1, 3):
            x = simulate(ornstein_uhlenbeck(A, R, h), start, steps, trajectories=N, seed=steps).final
            covariance = quad_vec(lambda s: expm(-A * s) @ R @ R.T @ expm(-A * s).T, 0, h * steps)[0]
            assert max(deviations(x, expm(-A * h * steps) @ start, covariance)) < 4


def test_ornstein_uhlenbeck_where_nothing_is_stationary():
    """dX = V dt, dV = σ dW: covariance σ² [[t³/3, t²/2], [t²/2, t]], from a diffusion matrix of rank one."""
    t, sigma = 3.0, 0.5
    dynamics = ornstein_uhlenbeck([[0, -1], [0, 0]], [[0, 0], [0, sigma]], t / 2)
    x = simulate(dynamics, [1.0, 2.0], 2, trajectories=N, seed=0).final
    covariance = sigma**2 * np.array([[t**3 / 3, t**2 / 2], [t**2 / 2, t]])
    assert max(deviations(x, np.array([1 + 2 * t, 2.0]), covariance)) < 4


def test_ornstein_uhlenbeck_over_times_at_which_exponentials_overflow():
    rates = np.diag([1e4, 1.0])
    x = simulate(ornstein_uhlenbeck(rates, 1.0, 100.0), [1.0, 1.0], 1, trajectories=N, seed=0).final
    assert max(deviations(x, np.zeros(2), np.diag([0.5e-4, 0.5]))) < 4


def test_numbers_stand_for_multiples_of_the_identity():
    ends = [
        simulate(ornstein_uhlenbeck(rate, sigma, 0.4), [1, 2], 3, trajectories=20, seed=0).final
        for rate in (2.0, 2 * np.eye(2))
        for sigma in (0.5, 0.5 * np.eye(2))
    ]
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("step=0 is no step", lambda: euler_maruyama(np.negative, 1.0, 0)),
        ("step=-0.1 is no step", lambda: ornstein_uhlenbeck(1.0, 1.0, -0.1)),
        ("step=inf is no step", lambda: euler_maruyama(np.negative, 1.0, np.inf)),
        ("step=nan is no step", lambda: euler_maruyama(np.negative, 1.0, np.nan)),
        ("diffusion=-1.0 is outside", lambda: euler_maruyama(np.negative, -1.0, 0.1)),
        ("diffusion=-1.0 is outside", lambda: ornstein_uhlenbeck(1.0, -1.0, 0.1)),
        ("diffusion=nan is outside", lambda: euler_maruyama(np.negative, np.nan, 0.1)),
        (r"diffusion of shape \(2, 3\)", lambda: euler_maruyama(np.negative, np.ones((2, 3)), 0.1)),
        (r"diffusion of shape \(2,\)", lambda: euler_maruyama(np.negative, [1.0, 2.0], 0.1)),
        ("not a finite square matrix", lambda: euler_maruyama(np.negative, [[np.inf]], 0.1)),
        (r"rate of shape \(1, 2\)", lambda: ornstein_uhlenbeck([[1.0, 2.0]], 1.0, 0.1)),
        (r"rate has shape \(2, 2\), diffusion \(3, 3\)", lambda: ornstein_uhlenbeck(np.eye(2), np.eye(3), 0.1)),
    ],
)
def test_what_is_no_equation_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dynamics", [euler_maruyama(np.negative, R, 0.1), ornstein_uhlenbeck(A, R, 0.1)])
def test_a_matrix_for_other_components_is_refused(dynamics):
    with pytest.raises(ValueError, match="meets 3 components"):
        simulate(dynamics, np.zeros(3), 1, trajectories=5, seed=0)


CONTENDERS = {"library": bench.Library, "plain": bench.Plain}
if bench.INSTALLED["torchsde"]:
    CONTENDERS |= {f"torchsde {t}": lambda p, t=t: bench.TorchSDE(p, t) for t in (torch.float32, torch.float64)}
if bench.INSTALLED["diffrax"]:
    CONTENDERS |= {f"diffrax {t}": lambda p, t=t: bench.Diffrax(p, t) for t in (torch.float32, torch.float64)}
OU = bench.Problem("", bench.ornstein_uhlenbeck, (1.0,), N, steps=5, h=0.3)
WELL = bench.Problem("", bench.double_well, (-0.5, 1.0), N, steps=1, h=0.3)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_contenders_of_the_benchmark_carry_the_same_process(contender):
    """Ornstein–Uhlenbeck after five steps and the first step in the double well, whose laws are normal."""
    work, a = CONTENDERS[contender](OU), 1 - OU.h
    work.run()
    variance = OU.sigma**2 * OU.h * (1 - a**10) / (1 - a**2)
    assert max(deviations(np.asarray(work.final, float), np.array([a**5]), np.array([[variance]]))) < 4
    work = CONTENDERS[contender](WELL)
    work.run()
    x, y = WELL.start
    mean = np.array([x - WELL.h * 4 * x * (x**2 - 1), y - WELL.h * 2 * y])
    assert max(deviations(np.asarray(work.final, float), mean, WELL.sigma**2 * WELL.h * np.eye(2))) < 4


def test_a_contender_with_another_step_would_be_seen():
    work = bench.Plain(dataclasses.replace(WELL, sigma=WELL.sigma * 2**0.5))
    work.run()
    assert deviations(work.final, work.final.mean(1), WELL.sigma**2 * WELL.h * np.eye(2))[1] > 10


def test_a_missing_competitor_is_left_out_with_a_word(monkeypatch):
    monkeypatch.setattr(bench, "INSTALLED", {"torchsde": False, "diffrax": False})
    monkeypatch.setattr(bench, "MEMORY_STATE", 2**10)
    section = bench.measure(dataclasses.replace(OU, trajectories=50), rounds=1, cores=1)
    assert [row.variant.strip() for row in section.rows] == [
        "plain NumPy, float64", "library, float64, 1 thread", "normals alone", "memory alone", bench.FLOOR,
    ]  # fmt: skip
    assert section.notes == ["torchsde: not installed", "diffrax: not installed"]
    assert len(section.targets) == 1
    rows = {row.variant: row.microseconds_per_model_step for row in section.rows}
    assert rows[bench.FLOOR] == rows[bench.NORMALS] + rows[bench.MEMORY]
