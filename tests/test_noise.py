"""The noise of a batch against an enumeration of every batch there is."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from threefactors._rng import generator, numpy_generator
from threefactors.measurement import gradient_covariance
from threefactors.measurement.projections import projections
from threefactors.presentation.comparison import points_on_law
from threefactors.simulation.batches import means_of_batches
from threefactors.theory.noise import batch_covariance, batch_kurtosis, tail_probability
from threefactors.training.losses import StackLosses
from threefactors.training.models import MLP

N = 6


def population(seed, features=3):
    return numpy_generator(seed, "population").normal(size=(N, features)) ** 3


def all_means(values, S, replacement):
    """The mean of every batch, each as likely as any other."""
    draws = itertools.product(range(N), repeat=S) if replacement else itertools.combinations(range(N), S)
    return np.array([values[list(batch)].mean(0) for batch in draws])


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("S", [1, 2, 3, 5])
def test_covariance_over_all_batches(S, replacement):
    values = population(S)
    means = all_means(values, S, replacement)
    C = np.cov(values.T, bias=True)
    expected = np.cov(means.T, bias=True)
    np.testing.assert_allclose(batch_covariance(C, N, S, replacement), expected, atol=1e-12)
    # what a wrong formula would say lies far outside
    wrong = [batch_covariance(C, N, S, not replacement), 2 * batch_covariance(C, N, S, replacement), C / math.sqrt(S)]
    for other in wrong[S == 1 : 3 if S > 1 else 2]:
        assert np.abs(other - expected).max() > 0.05 * np.abs(expected).max()


def test_the_full_batch_has_no_noise_and_one_example_has_all():
    C = np.cov(population(0).T, bias=True)
    np.testing.assert_allclose(batch_covariance(C, N, N), 0, atol=1e-15)
    np.testing.assert_allclose(batch_covariance(C, N, 1), C)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("S", [1, 2, 3, 5])
def test_kurtosis_over_all_batches(S, replacement):
    values = population(S + 10, features=1)
    kurtosis = lambda v: (v**4).mean() / (v**2).mean() ** 2 - 3  # noqa: E731
    means = all_means(values, S, replacement) - values.mean()
    found = batch_kurtosis(kurtosis(values - values.mean()), N, S, replacement)
    assert found == pytest.approx(kurtosis(means), abs=1e-12)


def test_tails_over_all_batches_and_of_a_gaussian():
    values = population(3, features=1)[:, 0]
    means = all_means(values, 4, True) - values.mean()
    sigma = values.std() / 2
    for u in (0.5, 1.5, 2.5):
        assert tail_probability(values, 4, [u])[0] == pytest.approx((np.abs(means) > u * sigma).mean(), abs=0.03)
    coins = tail_probability([-1.0, 1.0], 64, [2.1, 3.1])  # binomial: more than 8.4 or 12.4 of 32 too many
    for u, p in zip((2.1, 3.1), coins, strict=True):
        beyond = sum(math.comb(64, k) for k in range(65) if abs(2 * k - 64) > 8 * u) / 2**64
        assert p == pytest.approx(beyond, rel=1e-6)
    normal = norm.ppf((np.arange(4000) + 0.5) / 4000)
    np.testing.assert_allclose(tail_probability(normal, 64, [3.0, 4.0]), 2 * norm.sf([3, 4]), rtol=0.05)


def test_shuffled_passes_draw_as_the_laws_say():
    values = numpy_generator(0, "values").exponential(size=(2, 96))
    drawn = means_of_batches(values, [4, 8, 24], beyond=[2.0], passes=4000, seed=1)
    kappa = ((values - values.mean(1, keepdims=True)) ** 4).mean(1) / values.var(1) ** 2 - 3
    for S, found in drawn.items():
        assert found.batches == 4000 * 96 // S
        np.testing.assert_allclose(found.variance, batch_covariance(1.0, 96, S) * values.var(1), rtol=0.05)
        np.testing.assert_allclose(found.excess_kurtosis, batch_kurtosis(kappa, 96, S), atol=0.12)
    np.testing.assert_allclose(drawn[4].tails[:, 0], [tail_probability(v, 4, [2.0])[0] for v in values], rtol=0.1)
    again = means_of_batches(values, [4], beyond=[2.0], passes=4000, seed=1)
    np.testing.assert_array_equal(again[4].tails, drawn[4].tails)


def test_projections_are_those_of_each_examples_gradient():
    losses = StackLosses(MLP((5,)), "cross-entropy", 4, 3)
    R, B, V = 3, 7, 2
    P = losses.model.parameters(4, 3)
    gen = generator(0, "test")
    theta, x, u = (torch.randn(s, generator=gen, dtype=torch.float64) for s in ((R, P), (R, B, 4), (R, P, V)))
    y = torch.randint(3, (R, B), generator=gen)
    found = projections(losses, theta, x, y, u, chunk=2)
    for r, b in itertools.product(range(R), range(B)):
        leaf = theta[r : r + 1].clone().requires_grad_()
        (g,) = torch.autograd.grad(losses(leaf, x[r : r + 1, b : b + 1], y[r : r + 1, b : b + 1]).sum(), leaf)
        torch.testing.assert_close(found[r, :, b], g[0] @ u[r])
    along = (gradient_covariance(losses, theta, x, y) @ u * u).sum(1)  # uᵀCu
    torch.testing.assert_close(found.var(-1, correction=0), along)


def test_the_axis_names_the_settings_that_were_measured():
    points = pd.DataFrame({"lr": [0.05, 0.4, 0.05], "value": 1.0, "low": 0.5, "high": 2.0})
    ax = points_on_law(
        points, pd.DataFrame({"lr": [0.05, 0.4], "y": 1.0}), x="lr", xlabel="x", ylabel="y", ticks="points"
    )
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.05", "0.4"]
    assert len(ax.get_xticks(minor=True)) == 0


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("batch_size=7 cannot be drawn without replacement from 6", lambda: batch_covariance(1.0, 6, 7)),
        ("batch_size=0 is no batch", lambda: batch_covariance(1.0, 6, 0, True)),
        ("a covariance has none below 0", lambda: batch_covariance(-np.eye(2), 6, 2)),
        ("not a symmetric matrix", lambda: batch_covariance([[1.0, 2.0], [0.0, 1.0]], 6, 2)),
        ("below −2", lambda: batch_kurtosis(-2.5, 6, 2)),
        ("leaves no noise", lambda: batch_kurtosis(1.0, 6, 6)),
        ("without spread", lambda: tail_probability([1.0, 1.0], 2, [3.0])),
        ("must be > 0", lambda: tail_probability([1.0, 2.0], 2, [0.0])),
        ("use 1 <= S < N = 6", lambda: means_of_batches(np.eye(6), [6], beyond=[1.0], passes=1, seed=0)),
        (
            "directions has shape",
            lambda: projections(None, torch.ones(1, 2), torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1, 3, 1)),
        ),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
