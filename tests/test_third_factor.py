"""The third factor: closed forms of C against every possible batch, C = H/m, and claims that notice planted bugs."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from threefactors._rng import generator, numpy_generator
from threefactors.experiments.flipped import SoftLosses, soft_labels
from threefactors.inference import REFUTED, SUPPORTED, judge
from threefactors.inference.claims.third_factor import C12a, C12b, C12c, C12d, C12e, C12f
from threefactors.measurement import hessian
from threefactors.simulation.samplers import Flips, Importance, Pairs, sampled_bowl, stationary_squares
from threefactors.theory.quadratic import excess_loss, stationary_covariance
from threefactors.theory.third_factor import (
    added_noise,
    example_noise,
    importance_noise,
    opposite_partners,
    paired_noise,
    quietest_probabilities,
    relabeled_noise,
)
from threefactors.training.losses import StackLosses
from threefactors.training.models import MLP

G = numpy_generator(0, "gradients").normal(size=(4, 2)) + [1.0, 0.0]  # noqa: RUF005
N, S = len(G), 2


def covariance(outcomes, chances):
    """S × covariance of a batch gradient that takes the given values with the given chances."""
    values, p = np.array(outcomes), np.array(chances)
    assert p.sum() == pytest.approx(1)
    off = values - p @ values
    return S * (p[:, None] * off).T @ off


# --- every batch, enumerated -----------------------------------------------------------------


def test_plain_sampling():
    batches = list(itertools.product(range(N), repeat=S))
    exact = covariance([G[list(b)].mean(0) for b in batches], [N**-S] * len(batches))
    np.testing.assert_allclose(example_noise(G), exact, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2])
def test_fresh_labels(m):
    """Three labels, of chances that differ between examples; each drawn example gets m of them."""
    rng = numpy_generator(1, "gradients")
    g, q = rng.normal(size=(2, 3, 2)), rng.dirichlet(np.ones(3), size=2)
    one = [(g[i, list(labels)].mean(0), 0.5 * q[i, list(labels)].prod())
           for i in range(2) for labels in itertools.product(range(3), repeat=m)]  # fmt: skip
    batches = list(itertools.product(one, repeat=S))
    exact = covariance([np.mean([v for v, _ in b], 0) for b in batches], [np.prod([p for _, p in b]) for b in batches])
    np.testing.assert_allclose(relabeled_noise(g, q, m), exact, atol=1e-12)


def test_importance_weights():
    q = np.array([0.1, 0.2, 0.3, 0.4])
    weighted = G / (N * q[:, None])
    batches = list(itertools.product(range(N), repeat=S))
    chances = [q[list(b)].prod() for b in batches]
    outcomes = [weighted[list(b)].mean(0) for b in batches]
    np.testing.assert_allclose(np.array(chances) @ outcomes, G.mean(0), atol=1e-12)  # the mean is kept
    np.testing.assert_allclose(importance_noise(G, q), covariance(outcomes, chances), atol=1e-12)
    np.testing.assert_allclose(importance_noise(G, np.full(N, 1 / N)), example_noise(G), atol=1e-12)


@pytest.mark.parametrize("partner", [[1, 0, 3, 2], [2, 0, 3, 1], [0, 1, 2, 3]])
def test_pairs(partner):
    """A batch of S = 2 is one pair; a cycle of three is no involution, and the mean is kept all the same."""
    outcomes = [(G[i] + G[j]) / 2 for i, j in enumerate(partner)]
    np.testing.assert_allclose(paired_noise(G, partner), covariance(outcomes, [1 / N] * N), atol=1e-12)
    C, A = example_noise(G), (G - G.mean(0)).T @ (G - G.mean(0))[partner] / N
    np.testing.assert_allclose(paired_noise(G, partner), C + (A + A.T) / 2, atol=1e-12)
    assert np.linalg.eigvalsh(2 * C - paired_noise(G, partner))[0] > -1e-12


def test_added_noise():
    D = np.array([[2.0, 0.5], [0.5, 1.0]])
    root = np.linalg.cholesky(D)
    # ± each column of √2·root, at random, has the covariance D: a noise that can be enumerated
    kicks = [sign * np.sqrt(2) * column for column in root.T for sign in (1, -1)]
    batches = list(itertools.product(range(N), repeat=S))
    outcomes = [G[list(b)].mean(0) + kick for b in batches for kick in kicks]
    exact = covariance(outcomes, [1 / len(outcomes)] * len(outcomes))
    np.testing.assert_allclose(added_noise(example_noise(G), D, S), exact, atol=1e-12)


# --- what is the best that weights and pairs can do ------------------------------------------


def test_no_weights_are_quieter_than_those_by_the_norm():
    best = np.trace(importance_noise(G, quietest_probabilities(G)))
    assert best == pytest.approx(np.linalg.norm(G, axis=1).mean() ** 2 - np.sum(G.mean(0) ** 2))
    others = numpy_generator(2, "q").dirichlet(np.ones(N), size=200)
    assert all(np.trace(importance_noise(G, q)) >= best - 1e-12 for q in others)


def test_no_partners_are_quieter_than_the_opposite_ones():
    best = np.trace(paired_noise(G, opposite_partners(G)))
    traces = [np.trace(paired_noise(G, partner)) for partner in itertools.permutations(range(N))]
    assert best == pytest.approx(min(traces))


# --- C = H/m where the flipped labels are fitted ---------------------------------------------


@pytest.mark.parametrize("m", [1, 3])
def test_covariance_is_the_hessian_over_m_where_the_labels_are_fitted(m):
    """Softmax regression: gradients from their definition, the Hessian from Jᵀ(diag p − ppᵀ)J; and off the fit, not."""
    rng = numpy_generator(3, "softmax")
    jacobians, q = rng.normal(size=(5, 3, 4)), rng.dirichlet(np.ones(3), size=5)

    def c_and_h(p):
        g = np.einsum("nkp,nyk->nyp", jacobians, p[:, None, :] - np.eye(3))
        spread = np.einsum("nk,kl->nkl", p, np.eye(3)) - p[:, :, None] * p[:, None, :]
        return relabeled_noise(g, q, m), np.einsum("nki,nkl,nlj->ij", jacobians, spread, jacobians) / 5

    C, H = c_and_h(q)
    np.testing.assert_allclose(C, H / m, atol=1e-12)
    C, H = c_and_h(np.full((5, 3), 1 / 3))
    assert np.abs(C - H / m).max() > 0.03


def test_hessian_of_the_flipped_loss_is_the_mean_over_the_labels():
    losses, p = StackLosses(MLP((3,)), "cross-entropy", 2, 3), 0.3
    theta = MLP((3,)).initial(2, 3, generator(0, "init"), torch.float64)[None]
    x, y = torch.randn(1, 7, 2, generator=generator(0, "x"), dtype=torch.float64), torch.arange(7)[None] % 3
    soft = hessian(SoftLosses(losses), theta, x, soft_labels(y, torch.tensor([p], dtype=torch.float64), 3)).dense()
    hard = [hessian(losses, theta, x, labels).dense() for labels in (y, *(torch.full_like(y, k) for k in range(3)))]
    torch.testing.assert_close(soft, (1 - p) * hard[0] + p / 3 * sum(hard[1:]))


# --- the claims, on a small simulation, and with planted bugs --------------------------------

H, ETA, BATCH, SEEDS = np.diag([0.5, 2.0]), 0.4, 8, 6
DATA = numpy_generator(4, "data").normal(size=(16, 2)) * np.linspace(0.5, 2, 16)[:, None] + [1.0, 0.5]
BOTH = np.stack([-DATA, DATA], 1)
BY_NORM, OPPOSITE = quietest_probabilities(DATA), opposite_partners(DATA)
CHANGES = {
    "flips": (Flips(0.25, 2), None, 0.5),
    "noise": (None, 0.2 * np.eye(2), 1.0),
    "importance": (Importance(BY_NORM), None, 1.0),
    "pairs": (Pairs(OPPOSITE), None, 1.0),
}
RIGHT = {
    "flips": relabeled_noise(BOTH, [0.75, 0.25], 2),
    "noise": added_noise(example_noise(DATA), 0.2 * np.eye(2), BATCH),
    "importance": importance_noise(DATA, BY_NORM),
    "pairs": paired_noise(DATA, OPPOSITE),
}


@pytest.fixture(scope="module")
def measured():
    rows = []
    for change, (sampler, added, keep) in CHANGES.items():
        bowl = sampled_bowl(H, DATA, ETA, BATCH, sampler, added)
        bottom = np.linalg.solve(H, keep * DATA.mean(0))
        for seed in range(SEEDS):
            squares = stationary_squares(
                bowl, bottom, settle=40, observe=200, trajectories=400, seed=seed, stream=f"test {change}"
            )
            rows.append({"change": change, "seed": seed, "loss": 0.5 * float(np.diag(H) @ squares)})
    return pd.DataFrame(rows)


def against(table, law):
    predicted = {change: law(change) for change in RIGHT}
    return judge(C12a.at("simulation"), table.assign(predicted_loss=table.change.map(predicted))).verdict


def test_the_closed_forms_are_supported(measured):
    assert against(measured, lambda change: excess_loss(H, RIGHT[change], ETA, BATCH)) == SUPPORTED


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        ("a factor of 2", lambda change: 2 * excess_loss(H, RIGHT[change], ETA, BATCH)),
        ("√S for S", lambda change: np.sqrt(BATCH) * excess_loss(H, RIGHT[change], ETA, BATCH)),
        ("no ηHΣH", lambda change: ETA / (4 * BATCH) * np.trace(RIGHT[change])),
        ("C as if nothing had changed", lambda change: excess_loss(H, example_noise(DATA), ETA, BATCH)),
    ],
)
def test_a_planted_bug_in_the_law_is_refuted(measured, bug, law):
    assert against(measured, law) == REFUTED


MEAN = np.outer(DATA.mean(0), DATA.mean(0))
WRONG = {
    "weights not squared": {"importance": DATA.T @ DATA / len(DATA) - MEAN},
    "flips without their average over labels": {"flips": relabeled_noise(BOTH, [0.75, 0.25], 1)},
    "added noise divided by S": {"noise": example_noise(DATA) + 0.2 * np.eye(2)},
    "pairs counted as independent": {"pairs": example_noise(DATA)},
    "pairs twice as quiet": {"pairs": paired_noise(DATA, OPPOSITE) / 2},
}


@pytest.mark.parametrize("bug", WRONG)
def test_a_planted_bug_in_one_closed_form_is_refuted(measured, bug):
    forms = RIGHT | WRONG[bug]
    assert against(measured, lambda change: excess_loss(H, forms[change], ETA, BATCH)) == REFUTED


def test_only_the_general_relation_knows_a_cloud_whose_noise_is_not_the_hessian():
    rng, rows = numpy_generator(5, "cloud"), []  # made up from the law: this tests the rules, the chapter tests the law
    for k, exact in enumerate(np.diag(stationary_covariance(H, np.eye(2), ETA, BATCH))):
        for seed in range(SEEDS):
            rows.append(
                {"direction": f"λ = {H[k, k]}", "k": k, "seed": seed, "spread": exact * (1 + 0.01 * rng.normal())}
            )
    table = pd.DataFrame(rows)
    for claim, noise, verdict in ((C12d, np.eye(2), SUPPORTED), (C12e, H, REFUTED)):
        law = np.diag(stationary_covariance(H, noise, ETA, BATCH))
        assert judge(claim.at("simulation"), table.assign(predicted_spread=law[table.k])).verdict == verdict


def test_the_trace_of_the_hessian_sets_the_loss_only_where_it_is_that_of_the_noise(measured):
    table = measured.assign(predicted_loss=excess_loss(H, H, ETA, BATCH))
    assert judge(C12f.at("simulation"), table).verdict == REFUTED
    same = table.assign(loss=table.predicted_loss * (1 + 0.001 * table.seed))
    assert judge(C12f.at("simulation"), same).verdict == SUPPORTED


@pytest.mark.parametrize(("exponent", "verdict"), [(1.0, SUPPORTED), (0.5, REFUTED), (2.0, REFUTED), (0.0, REFUTED)])
def test_height_of_a_network_on_the_trace_of_its_noise(exponent, verdict):
    rng = numpy_generator(6, "network")
    rows = [{"noise_dial": d, "seed": s, "noise_trace": 40 * d**0.6, "clock": 200.0, "finished": True, "diverged": False,  # noqa: E501
                 "excess": 0.01 * (d**0.6) ** exponent * np.exp(0.1 * rng.normal())}
            for d in (1.0, 0.5, 0.25, 0.125) for s in range(8)]  # fmt: skip
    assert judge(C12b.at("equal clock"), pd.DataFrame(rows)).verdict == verdict


@pytest.mark.parametrize(("slope", "verdict"), [(-0.3, SUPPORTED), (0.3, REFUTED)])
def test_width_of_a_network_on_the_dial(slope, verdict):
    rng = numpy_generator(7, "network")
    common = {"clock": 200.0, "finished": True, "diverged": False, "sharpness_converged": True}
    rows = [dict(noise_dial=d, seed=s, **common, **{m: 3 * d**slope * np.exp(0.05 * rng.normal())
                 for m in ("sharpness", "trace", "frobenius")})
            for d in (1.0, 0.5, 0.25) for s in range(8)]  # fmt: skip
    assert judge(C12c.at("equal clock"), pd.DataFrame(rows)).verdict == verdict


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("gradients of shape", lambda: example_noise([1.0, 2.0])),
        ("use finite numbers", lambda: example_noise([[np.nan]])),
        ("of the labels run from -0.1", lambda: relabeled_noise(BOTH, [1.1, -0.1])),
        ("label_draws=0", lambda: relabeled_noise(BOTH, [0.5, 0.5], 0)),
        ("sum to 0.5", lambda: importance_noise([[1.0]], [0.5])),
        ("with minimum 0; use 2", lambda: importance_noise([[1.0], [2.0]], [0.0, 1.0])),
        ("gradient 1 is 0", lambda: quietest_probabilities([[1.0], [0.0]])),
        ("no permutation", lambda: paired_noise([[1.0], [2.0]], [0, 0])),
        ("equal shapes", lambda: added_noise(np.eye(2), np.eye(1), 1)),
        ("positive semidefinite", lambda: added_noise(np.eye(2), -np.eye(2), 1)),
        ("batch_size=0", lambda: added_noise(np.eye(2), np.eye(2), 0)),
    ],
)
def test_outside_validity_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
