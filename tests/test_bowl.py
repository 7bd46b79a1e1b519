"""The simulators of the stationary state: exact where their random numbers drop out, else within standard errors."""

import numpy as np
import pytest
from threefactors.simulation import simulate
from threefactors.simulation.bowl import _bridge, bowl, height, regression, time_average
from threefactors.simulation.ensemble import Draws
from threefactors.theory.epochs import epoch_variance
from threefactors.theory.ou import stationary_loss
from threefactors.theory.quadratic import covariance_after, excess_loss
from threefactors.theory.regression import regression_excess_loss

SEEDS = 8


def heights(dynamics, hessian, settle, look=20, every=5, trajectories=2000):
    """Stationary height for each of the seeds (SEEDS,)."""
    at = range(settle, settle + look * every, every)

    def one(seed):
        path = simulate(
            dynamics,
            np.zeros(len(hessian)),
            at[-1],
            trajectories=trajectories,
            seed=seed,
            observe=height(hessian),
            at=at,
        )
        return time_average(path)[0]

    return np.array([one(seed) for seed in range(SEEDS)])


def distance(values, expected):
    """Of the mean over seeds from what is expected, in standard errors."""
    return abs(values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values)))


PROBLEMS = {
    "matrices": (np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[2.0, -0.5], [-0.5, 1.0]])),
    "diagonal": (np.diag([4.0, 1.0]), np.diag([1.0, 3.0])),
    "noise in one direction": (np.diag([4.0, 1.0]), np.ones((2, 2))),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_bowl_settles_at_the_law_and_not_at_its_planted_errors(problem):
    H, C = PROBLEMS[problem]
    eta, S = 0.35, 4
    seen = heights(bowl(H, C, eta, S), H, settle=60)
    exact = excess_loss(H, C, eta, S)
    assert distance(seen, exact) < 4
    for wrong in (2 * exact, exact / 2, excess_loss(H, C, eta, 2), stationary_loss(C, eta, S)):  # 2, ½, √S, no ηHΣH
        assert distance(seen, wrong) > 8


def test_covariance_of_the_bowl_on_its_way():
    H, C = PROBLEMS["matrices"]
    n = 50_000
    x = simulate(bowl(H, C, 0.35, 4), np.zeros(2), 3, trajectories=n, seed=0, threads=1).final
    expected = covariance_after(H, C, 0.35, 4, 3)
    # Var of a sample covariance of normal numbers: (Σ_ij² + Σ_ii Σ_jj)/n
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
    assert (np.abs(x @ x.T / n - expected) < 4 * error).all()
    assert (np.abs(x @ x.T / n - 2 * expected) > 4 * error).any()


@pytest.mark.parametrize("M", [2, 3, 8])
def test_bridge_has_the_law_of_draws_less_their_mean(M):
    """It is linear in the draws: its matrix B, seen by feeding unit vectors, has BBᵀ = I − 11ᵀ/M."""
    turn, draws = _bridge(M, np.zeros((1, M))), np.eye(M)
    for epoch in range(2):  # the second must not remember the first
        B = np.empty((M, M))
        for m in range(M):
            z = draws[m : m + 1].copy()
            turn(z, epoch * M + m)
            B[m] = z[0]
        np.testing.assert_allclose(B @ B.T, np.eye(M) - np.ones((M, M)) / M, atol=1e-12)


@pytest.mark.parametrize("C", [np.diag([1.0, 2.0]), PROBLEMS["matrices"][1]])
def test_an_epoch_on_flat_ground_comes_back_to_where_it_began(C):
    M, n, flat = 6, 20_000, np.zeros((2, 2))
    path = simulate(
        bowl(flat, C, 0.5, 4, batches_per_epoch=M), [1.0, -2.0], 3 * M, trajectories=n, seed=0, threads=1,
        observe=lambda x: (x - [[1.0], [-2.0]]) ** 2, at=range(3 * M + 1),
    )  # fmt: skip
    np.testing.assert_allclose(path.means[::M], 0, atol=1e-24)
    m = np.arange(3 * M + 1) % M
    walk = 0.25 / 4 * np.outer(m * (M - m) / (M - 1), np.diag(C))
    assert (np.abs(path.means - walk) <= 4.5 * walk * np.sqrt(2 / n) + 1e-24).all()


def test_sampling_by_epochs_holds_flat_directions_back():
    curvature, eta, M = 0.2, 0.1, 40
    H = np.array([[curvature]])
    seen = heights(bowl(H, 3 * np.eye(1), eta, 2, batches_per_epoch=M), H, settle=15 * M, look=M, every=1)
    assert distance(2 / curvature * seen, epoch_variance(curvature, eta, 1.5, M)) < 4
    assert distance(seen, excess_loss(H, 3 * np.eye(1), eta, 2)) > 20


@pytest.mark.parametrize(("lr", "batch_size"), [(0.2, 1), (0.6, 4)])
def test_regression_settles_at_its_own_law(lr, batch_size):
    a, noise = np.array([1.0, 0.5]), 0.8
    seen = heights(regression(a, noise, lr, batch_size), np.diag(a), settle=60, trajectories=1000)
    assert distance(seen, regression_excess_loss(a, noise, lr, batch_size)) < 4
    assert distance(seen, excess_loss(np.diag(a), noise * np.diag(a), lr, batch_size)) > 8  # additive noise alone


def test_regression_moves_as_if_written_out_for_each_example():
    a, n, S = np.array([2.0, 0.5, 1.0]), 5, 4
    start = np.arange(15.0).reshape(3, 5)
    x, draws = start.copy(), Draws(3, "written out", 0)
    regression(a, 0.8, 0.1, S)(n, Draws(3, "written out", 0))(x, 0)
    gradient = np.zeros((3, n))
    for _ in range(S):
        label = np.sqrt(0.8) * draws.normal(n)
        inputs = np.sqrt(a)[:, None] * draws.normal(3, n)
        gradient += inputs * ((inputs * start).sum(axis=0) - label) / S
    np.testing.assert_allclose(x, start - 0.1 * gradient, rtol=1e-12)


def test_height_and_average():
    H, x = PROBLEMS["matrices"][0], np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(height(H)(x), [[0.5 * c @ H @ c for c in x.T]])
    path = simulate(lambda n, draws: lambda x, t: x.__iadd__(1.0), [0.0], 4, trajectories=3, seed=0, at=[1, 4])
    assert time_average(path) == pytest.approx([2.5])


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("hessian of shape .* is not a symmetric", lambda: bowl([[1.0, 2.0], [0, 1]], np.eye(2), 0.1, 1)),
        ("noise of shape .* is not a symmetric", lambda: bowl(np.eye(2), np.ones(2), 0.1, 1)),
        ("equal shapes", lambda: bowl(np.eye(2), np.eye(1), 0.1, 1)),
        ("a covariance has none below 0", lambda: bowl(np.eye(1), -np.eye(1), 0.1, 1)),
        ("a covariance has none below 0", lambda: bowl(np.eye(2), [[0.0, 1.0], [1.0, 0.0]], 0.1, 1)),
        ("lr=0 is no step", lambda: bowl(np.eye(1), np.eye(1), 0, 1)),
        ("batch_size=0", lambda: regression([1.0], 1.0, 0.1, 0)),
        ("batches_per_epoch=1", lambda: bowl(np.eye(1), np.eye(1), 0.1, 1, batches_per_epoch=1)),
        ("not those of inputs", lambda: regression([-1.0], 1.0, 0.1, 1)),
        ("label_noise=-1", lambda: regression([1.0], -1, 0.1, 1)),
        ("3 components", lambda: bowl(np.eye(1), np.eye(1), 0.1, 1)(2, Draws(0, "", 0))(np.ones((3, 2)), 0)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
