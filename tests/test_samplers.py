"""Batches drawn in four ways: against enumeration of every batch, and against the law of the bowl they drive."""

import itertools

import numpy as np
import pytest
from threefactors._rng import numpy_generator
from threefactors.simulation.ensemble import Draws
from threefactors.simulation.samplers import Flips, Importance, Pairs, Uniform, sampled_bowl, stationary_squares
from threefactors.theory.quadratic import stationary_covariance
from threefactors.theory.third_factor import example_noise

N, S, MANY = 6, 4, 40_000
VALUES = np.array([-2.0, -1.0, 0.5, 1.0, 3.0, 4.5])
Q = np.array([0.3, 0.1, 0.1, 0.2, 0.2, 0.1])
PARTNER = np.array([5, 4, 3, 2, 1, 0])


def frequencies(sampler):
    """How often each (index, weight) occurs among the draws, and the mean of w·b over each batch."""
    index, weight = sampler(Draws(0, "t", 0), N, S, MANY)
    weight = np.broadcast_to(weight, index.shape)
    pairs, counts = np.unique(np.stack([index.ravel(), weight.ravel()]), axis=1, return_counts=True)
    table = {(int(i), round(float(w), 9)): c / index.size for (i, w), c in zip(pairs.T, counts, strict=True)}
    return table, (weight * VALUES[index]).mean(0)


FLIPPED = {(i, w): p / N for i in range(N) for w, p in ((1.0, 0.36), (0.0, 0.48), (-1.0, 0.16))}  # two labels, p = 0.4


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Uniform(), {(i, 1.0): 1 / N for i in range(N)}),
        (Flips(0.4, 2), FLIPPED),
        (Importance(Q), {(i, round(1 / (N * q), 9)): q for i, q in enumerate(Q)}),
        (Pairs(PARTNER), {(i, 1.0): 1 / N for i in range(N)}),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_draw_comes_as_often_as_it_should(sampler, expected):
    table, means = frequencies(sampler)
    assert set(table) == set(expected)
    for key, p in expected.items():
        assert abs(table[key] - p) < 5 * np.sqrt(p * (1 - p) / MANY), key  # batches count, not draws: pairs depend
    mean = sum(p * w * VALUES[i] for (i, w), p in expected.items())
    assert abs(means.mean() - mean) < 5 * means.std() / np.sqrt(MANY)


def test_partners_stand_together():
    index, _ = Pairs(PARTNER)(Draws(0, "t", 0), N, S, 50)
    assert (np.sort(index, axis=0) == np.sort(PARTNER[index], axis=0)).all()


def test_a_batch_of_pairs_against_enumeration_of_all_batches():
    """The variance of the mean of a batch, from each of the N² batches of two pairs."""
    batches = [np.mean(VALUES[[i, PARTNER[i], j, PARTNER[j]]]) for i, j in itertools.product(range(N), repeat=2)]
    _, means = frequencies(Pairs(PARTNER))
    spread = np.var((means - means.mean()) ** 2) ** 0.5 / np.sqrt(MANY)
    assert abs(means.var() - np.var(batches)) < 5 * spread


def test_the_bowl_reaches_its_stationary_law():
    """Diagonal and coupled noise, plain sampling and added noise; the seeds give the standard error."""
    rng = numpy_generator(0, "bowl")
    data, H, eta = rng.normal(size=(20, 2)) + [1.0, 0.0], np.diag([0.5, 2.0]), 0.4  # noqa: RUF005
    D = np.array([[0.5, 0.2], [0.2, 0.3]])
    bowl = sampled_bowl(H, data, eta, S, added=D)
    start, how = np.linalg.solve(H, data.mean(0)), {"settle": 60, "observe": 150, "trajectories": 200, "stream": "t"}
    found = np.array([stationary_squares(bowl, start, seed=s, **how) for s in range(8)])
    exact = np.diag(stationary_covariance(H, example_noise(data) + S * D, eta, S))
    assert (np.abs(found.mean(0) - exact) < 4.5 * found.std(0, ddof=1) / np.sqrt(8)).all()
    assert (np.abs(found.mean(0) / exact - 1) < 0.03).all()


def test_same_seed_same_numbers():
    bowl = sampled_bowl(np.eye(1), VALUES[:, None], 0.1, S, Importance(Q))
    how = {"settle": 3, "observe": 2, "trajectories": 5, "stream": "t"}
    assert stationary_squares(bowl, [0.0], seed=1, **how) == stationary_squares(bowl, [0.0], seed=1, **how)
    assert stationary_squares(bowl, [0.0], seed=1, **how) != stationary_squares(bowl, [0.0], seed=2, **how)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("fraction=1.2", lambda: Flips(1.2)),
        ("label_draws=0", lambda: Flips(0.1, 0)),
        ("batch_size=3 cannot be split", lambda: Pairs(PARTNER)(Draws(0, "t", 0), N, 3, 1)),
        ("lr=0", lambda: sampled_bowl(np.eye(1), VALUES[:, None], 0.0, S)),
        (r"data \(6,\)", lambda: sampled_bowl(np.eye(1), VALUES, 0.1, S)),
        ("sum to 0.9", lambda: Importance(Q - 0.1 / 6)),
        ("no permutation", lambda: Pairs(np.zeros(6, int))),
    ],
)
def test_what_cannot_be_drawn_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
