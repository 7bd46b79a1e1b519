"""Wells and first passages: simulated against laws with known standard errors, and effective sample sizes."""

import numpy as np
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference.effective import autocorrelation_time, effective_size, log_odds
from threefactors.simulation.diffusion import euler_maruyama, ornstein_uhlenbeck
from threefactors.simulation.passage import circulation_rate, first_passage
from threefactors.simulation.wells import DoubleWell, noisy_descent, sojourns
from threefactors.theory.boltzmann import circulation
from threefactors.theory.escape import mean_escape_time
from threefactors.theory.ou import lyapunov_covariance

WELLS = [
    DoubleWell(height=0.2, saddle=-0.2, sharpness=12),
    DoubleWell(saddle=0.2, stiffness=(1, 0.25), dimension=4),
]


@pytest.mark.parametrize("well", WELLS)
def test_drift_is_minus_the_gradient(well):
    state = numpy_generator(0, "state").normal(size=(well.dimension, 7))
    loss = lambda z: well.loss(z[0]) + well.transverse(z[0]) / 2 * (z[1:] ** 2).sum(axis=0)  # noqa: E731
    before = state.copy()
    force = well.drift(state)
    np.testing.assert_array_equal(state, before)
    for i, e in enumerate(1e-5 * np.eye(well.dimension)):
        numeric = (loss(state + e[:, None]) - loss(state - e[:, None])) / 2e-5
        np.testing.assert_allclose(force[i], -numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("well", WELLS)
@pytest.mark.parametrize("x", [-1.0, 1.0, None])
def test_minima_and_saddle_are_where_they_are_said_to_be(well, x):
    place = np.zeros((well.dimension, 1))
    place[0] = well.saddle if x is None else x
    np.testing.assert_allclose(well.drift(place), 0, atol=1e-12)
    values = np.linalg.eigvalsh(well.hessian(float(place[0, 0])))
    assert (values < 0).sum() == (1 if x is None else 0)
    step = 1e-6 * np.eye(well.dimension)
    numeric = [(well.drift(place - e[:, None]) - well.drift(place + e[:, None]))[:, 0] / 2e-6 for e in step]
    np.testing.assert_allclose(well.hessian(float(place[0, 0])), numeric, rtol=1e-6, atol=1e-9)


def test_noise_like_the_curvature_has_its_ratio():
    well = WELLS[0]
    at = well.like_curvature(np.array([-1.0, 0.0, 1.0]))
    assert at[0] / at[2] == pytest.approx(well.curvature(-1.0) / well.curvature(1.0))
    assert at[1] == 1


def test_passage_with_drift_only_takes_the_steps_it_must():
    steps = first_passage(
        euler_maruyama(np.ones_like, 0.0, 0.25), [0.0, 0.0], lambda x: x[0] >= 1, trajectories=5, seed=0
    )
    np.testing.assert_array_equal(steps, 4)
    far = first_passage(
        euler_maruyama(np.ones_like, 0.0, 0.25), [0.0], lambda x: x[0] >= 9, trajectories=3, seed=0, at_most=10
    )
    assert np.isinf(far).all()  # none is dropped in silence


def test_passage_against_the_exact_time():
    """4000 escapes: the standard error is known, and small steps keep the bias below it."""
    well, lr = DoubleWell(), 0.02
    sgd = noisy_descent(well, lr, 1, 10.0)
    steps = first_passage(sgd, [-1.0], lambda x: x[0] >= 1, trajectories=2000, seed=1)
    exact = mean_escape_time(lambda x: -well.slope(x), 10.0, lr, start=-1, target=1, wall=-2.5) / lr
    error = steps.std() / np.sqrt(len(steps))
    assert abs(steps.mean() - exact) < 4 * error
    assert abs(steps.mean() - 2 * exact) > 10 * error


def test_passage_of_exact_steps_sees_the_shifted_boundary():
    """Discrete looks at an exact process miss crossings: the boundary is 0.5826 √(2Dh) further out."""
    h, D = 0.01, 1.0
    walk = ornstein_uhlenbeck(1e-9, np.sqrt(2 * D), h)
    steps = first_passage(walk, [0.0], lambda x: np.abs(x[0]) >= 1, trajectories=8000, seed=2)
    shifted = (1 + 0.5826 * np.sqrt(2 * D * h)) ** 2 / (2 * D) / h
    error = steps.std() / np.sqrt(len(steps))
    assert abs(steps.mean() - shifted) < 4 * error
    assert abs(steps.mean() - 1 / (2 * D) / h) > 6 * error


def test_a_seed_is_a_run_of_its_own():
    sgd = noisy_descent(DoubleWell(), 0.05, 1, 10.0)
    times = [first_passage(sgd, [-1.0], lambda x: x[0] >= 1, trajectories=8, seed=s).tolist() for s in (0, 0, 1)]
    assert times[0] == times[1] != times[2]


def test_sojourns_without_noise_stay_and_with_much_noise_forget():
    well = DoubleWell()
    still = sojourns(noisy_descent(well, 0.05, 1, 0.0), well, burn=5, samples=3, every=2, trajectories=6, seed=0)
    np.testing.assert_array_equal(still, np.tile([True, False], (3, 3)))
    wild = sojourns(noisy_descent(well, 0.02, 1, 40.0), well, burn=400, samples=1, every=1, trajectories=2000, seed=0)
    assert abs(wild.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)  # symmetric


def test_circulation_rate_against_the_law():
    H, C, lr = np.diag([1.0, 0.3]), np.array([[1.0, 0.8], [0.8, 1.0]]), 0.05
    sgd = euler_maruyama(lambda x: -H @ x, np.linalg.cholesky(lr * C), lr)
    rates = [circulation_rate(sgd, step=lr, burn=300, steps=300, trajectories=500, seed=s) for s in range(6)]
    area = circulation(H, C, lr) @ lyapunov_covariance(H, C, lr, 1)
    exact = area[1, 0] - area[0, 1]
    assert abs(np.mean(rates) / exact - 1) < 0.05 + 4 * np.std(rates, ddof=1) / np.sqrt(6) / abs(exact)
    assert abs(np.mean(rates)) > 8 * np.std(rates, ddof=1) / np.sqrt(6)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_effective_size_of_a_chain_with_known_correlation(r):
    """A two-state chain that keeps its state with probability (1 + r)/2 has ρ_h = r^h."""
    T, K, rng = 60, 4000, numpy_generator(0, "chain")
    change = rng.random((T, K)) < (1 - r) / 2
    change[0] = rng.random(K) < 0.5
    states = np.cumsum(change, axis=0) % 2
    lags = np.arange(1, T)
    exact = 1 + 2 * ((1 - lags / T) * r**lags).sum()
    assert autocorrelation_time(states) == pytest.approx(exact, rel=5 * np.sqrt(2 / K))
    assert effective_size(states) == pytest.approx(T * K / exact, rel=5 * np.sqrt(2 / K))


def test_effective_size_is_what_the_spread_of_repetitions_says():
    rng = numpy_generator(1, "repeated")
    chains = np.cumsum(rng.random((30, 200, 300)) < 0.1, axis=0) % 2  # time, trajectory, repetition; starts are alike
    chains = (chains + (rng.random((200, 300)) < 0.5)) % 2
    sizes = [effective_size(chains[:, :, i]) for i in range(300)]
    assert 0.25 / chains.mean(axis=(0, 1)).var() == pytest.approx(np.mean(sizes), rel=5 * np.sqrt(2 / 300))


def test_log_odds():
    assert log_odds([True, True, True, False]) == pytest.approx(np.log(3))
    assert log_odds([False]) == -np.inf
    assert log_odds([True]) == np.inf


SGD = noisy_descent(DoubleWell(), 0.1, 1, 1.0)
ARRIVED = lambda x: x[0] >= 1  # noqa: E731


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("no double well", lambda: DoubleWell(sharpness=0.5)),
        ("no double well", lambda: DoubleWell(stiffness=(0, 1))),
        ("saddle=1", lambda: DoubleWell(saddle=1)),
        ("batch_size=0", lambda: noisy_descent(DoubleWell(), 0.1, 0, 1.0)),
        ("noise_variance=-1", lambda: noisy_descent(DoubleWell(), 0.1, 1, -1.0)),
        ("dimension=2", lambda: noisy_descent(DoubleWell(dimension=2), 0.1, 1, 1.0, shape=np.exp)),
        ("trajectories=3", lambda: sojourns(SGD, DoubleWell(), burn=0, samples=1, every=1, trajectories=3, seed=0)),
        ("trajectories=0", lambda: first_passage(SGD, [-1.0], ARRIVED, trajectories=0, seed=0)),
        ("has arrived already", lambda: first_passage(SGD, [1.5], ARRIVED, trajectories=2, seed=0)),
        ("step=0", lambda: circulation_rate(SGD, step=0, burn=0, steps=1, trajectories=1, seed=0)),
        ("2 trajectories or more", lambda: effective_size([True, False])),
        ("nothing was learnt", lambda: effective_size(np.ones((3, 4)))),
    ],
)
def test_what_makes_no_sense_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
