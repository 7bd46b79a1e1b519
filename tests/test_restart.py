"""Minima of a network, left a little: their Gram matrix, SGD from there, and claims that notice what is planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from threefactors._rng import generator, numpy_generator
from threefactors.experiments import restart as experiment
from threefactors.experiments.restart import (
    batches,
    descend,
    displacements,
    fate,
    find_minima,
    nearest,
    replay,
    restart,
)
from threefactors.inference import REFUTED, SUPPORTED, judge
from threefactors.inference import restart as inference
from threefactors.inference.claims.restart import P5a, P5b, P5c, P5d, P5e, P5f, P5g, P5h
from threefactors.measurement import hessian
from threefactors.measurement.jacobian import example_hessians, example_products, jacobian_gram
from threefactors.presentation import restart as drawn
from threefactors.theory.linear_stability import lyapunov_exponent
from threefactors.theory.second_moment import Factors, matrix_free_limit, second_moment_limit
from threefactors.training import MLP, Epochs, Steps, Sweep, Task, Trainer, TrainLoss, load
from threefactors.training.engines import Plan
from threefactors.training.losses import StackLosses

B, D, K = 5, 3, 2
LOSSES = StackLosses(MLP((6, 5)), "squared", D, K)
THETA = torch.stack([LOSSES.model.initial(D, K, generator(s, "init"), torch.float64) for s in (0, 1)])
X, Y = torch.randn(B, D, generator=generator(0, "x"), dtype=torch.float64), torch.arange(B) % K


# --- curvature of single examples, against automatic differentiation -------------------------


def test_gram_matrix_is_that_of_the_dense_jacobian_whatever_the_blocks():
    gram = jacobian_gram(LOSSES, THETA, X)
    for theta, own in zip(THETA, gram, strict=True):
        J = torch.func.jacrev(lambda t: LOSSES.outputs(t[None], X[None])[0].flatten())(theta)
        torch.testing.assert_close(own, J @ J.T)
    row = THETA.shape[1] * 8 * K
    for examples in (1, 2, 3):
        torch.testing.assert_close(jacobian_gram(LOSSES, THETA, X, budget=2 * row * examples), gram)


def test_hessian_of_each_example_with_its_part_of_second_order():
    theta, V = THETA[0], torch.randn(THETA.shape[1], 3, generator=generator(1, "v"), dtype=torch.float64)
    exact = torch.stack(
        [torch.func.hessian(lambda t, i=i: LOSSES(t[None], X[None, [i]], Y[None, [i]]).sum())(theta) for i in range(B)]
    )
    chunks = list(example_products(LOSSES, theta, X, Y, at_once=2)(V.numpy()))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(chunks), (exact @ V).numpy(), atol=1e-12)
    whole = hessian(LOSSES, THETA[:1], X[None], Y[None]).dense()[0]
    torch.testing.assert_close(example_hessians(LOSSES, theta, X, Y).dense().mean(0), whole)
    J = torch.func.jacrev(lambda t: LOSSES.outputs(t[None], X[None])[0])(theta)
    assert (exact - J.mT @ J).abs().max() > 0.1  # the labels are not fitted here, and the second part counts


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("depend on the other examples", lambda: jacobian_gram(
            StackLosses(MLP((4,), batch_norm=5), "squared", D, K), torch.ones(1, 30, dtype=torch.float64), X)),
        ("use floating", lambda: jacobian_gram(LOSSES, THETA[0], X)),
        ("use floating", lambda: jacobian_gram(LOSSES, THETA, X[:0])),
        ("at_once=0", lambda: example_products(LOSSES, THETA[0], X, Y, at_once=0)),
    ],
)  # fmt: skip
def test_what_has_no_curvature_of_its_own_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


# --- minima, restarts, and the linearized system ---------------------------------------------


@pytest.fixture(scope="module")
def minima(tmp_path_factory):
    task = Task("digits", MLP((48,)), train_size=5, loss="squared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEFACTORS_STORE", str(tmp_path_factory.mktemp("store")))
        until = TrainLoss(1e-3, Epochs(1500), every=0.5)
        return find_minima(task, range(2), until, lr=0.003, batch_size=5, momentum=0.9)


def test_a_minimum_fits_all_labels_and_its_gram_matrix_has_the_spectrum_of_the_hessian(minima):
    assert minima.residuals(minima.theta).square().sum(1).max() / 10 < 1e-20
    data = (minima.x.expand(2, *minima.x.shape), minima.y.expand(2, -1))
    top = hessian(minima.losses, minima.theta, *data)
    gram = np.linalg.eigvalsh(minima.gram)[:, -1] / 5
    np.testing.assert_allclose(minima.sharpness, gram)
    J = torch.func.jacrev(lambda t: minima.outputs(t[None])[0].flatten())(minima.theta[0])
    v = J.T @ torch.linalg.eigh(J @ J.T)[1][:, -1]  # the true Hessian's product, second order and all
    Hv = (top @ torch.stack([v, v]))[0]
    torch.testing.assert_close(Hv, minima.sharpness[0] * v, rtol=1e-8, atol=1e-8)


def test_limit_from_products_of_the_true_hessians_is_that_of_the_gram_matrix(minima):
    products = example_products(minima.losses, minima.theta[0], minima.x, minima.y)
    found = matrix_free_limit(products, minima.theta.shape[1], 5, 1, tolerance=1e-3)
    exact = second_moment_limit(Factors.from_gram(minima.gram[0], 5), 1)
    assert found.converged
    assert found.value == pytest.approx(exact, rel=2e-3)
    assert exact < 2 / minima.sharpness[0]


def test_a_restart_is_plain_sgd_bit_by_bit(minima):
    """The batches of a run of the one training loop, from the same start; and steps by automatic differentiation."""
    task = Task("digits", MLP((48,)), train_size=5, loss="squared")
    stack = Sweep.grid(task, lr=0.01, batch_size=2, seed=[0, 1], sampling="replacement", until=Steps(20)).stacks()[0]
    trainer = Trainer(stack, load("digits"), dtype=torch.float64)
    start = minima.theta + displacements(minima, 0)[0]
    trainer.theta = start.clone()
    orders = [torch.cat([trainer.sampler(i).epoch(2).order for _ in range(1)]) for i in range(2)]
    steps = len(orders[0])
    theta = start.clone()
    rate = torch.full((steps,), 0.01, dtype=torch.float64)
    path = descend(minima, theta, [Plan(i, order, rate) for i, order in enumerate(orders)], 1, lambda loss: loss < 0)
    trainer.runs = tuple(replace(run, until=Steps(steps)) for run in trainer.runs)
    torch.testing.assert_close(trainer.train().theta, theta, rtol=0, atol=0)
    for i in range(2):
        plain = start[i].clone()
        for batch in orders[i]:
            at = plain.clone().requires_grad_()
            minima.losses(at[None], minima.x[None, batch], minima.y[None, batch]).mean().backward()
            plain = plain - 0.01 * at.grad
        torch.testing.assert_close(theta[i], plain, rtol=1e-12, atol=1e-12)
        loss = minima.losses(plain[None], minima.x[None], minima.y[None]).mean()
        assert path[-1][i] == pytest.approx(float(loss), rel=1e-6)


def test_replay_is_linear_sgd_in_the_parameters(minima):
    order = batches(0, 0, 2, 70, 5, "independent")
    rates = np.array([0.01, 0.3])  # one shrinks, one explodes
    delta, change = displacements(minima, 0)
    path = replay(minima.gram[0], change[0], rates, order.numpy(), 5, 7)
    J = torch.func.jacrev(lambda t: minima.outputs(t[None])[0])(minima.theta[0])  # (5, 10, P)
    torch.testing.assert_close(torch.from_numpy(change[0]), (J @ delta[0]).flatten())
    assert path[0] == pytest.approx(np.log(experiment.START))
    for g, lr in enumerate(rates):
        e, seen = delta[0].clone(), []
        for t in range(71):
            if t % 10 == 0:
                seen.append(float((J @ e).square().sum() / 10))
            if t < 70:
                e = e - lr / 2 * sum(J[i].T @ (J[i] @ e) for i in order[t])
        np.testing.assert_allclose(path[:, g], np.log(seen), rtol=1e-8)


@pytest.mark.parametrize("S", [1, 3])
def test_replay_grows_at_the_lyapunov_exponent_on_a_line(S):
    """One output and one direction: K = a aᵀ, q_i = a_i², and the theory's own E ln|1 − ηq̄|."""
    a = np.sqrt([0.5, 1.0, 2.0, 4.0])
    rates, steps = np.array([1.6, 2.2]), 10_000  # that grow: in a plane of rank one, rounding errors do not shrink
    order = batches(0, 0, S, steps, 4, "independent").numpy()
    path = replay(np.outer(a, a), a, rates, order, 4, 20)
    blocks = np.diff(path, axis=0) / 2 / (steps / 20)
    for g, lr in enumerate(rates):
        G = lyapunov_exponent(a**2, float(lr), S)
        error = blocks[:, g].std(ddof=1) / np.sqrt(20)
        assert abs(blocks[:, g].mean() - G) < 4 * error


def test_batches_are_drawn_as_named():
    fresh, passes = (batches(0, 0, 4, 30, 12, draws) for draws in ("fresh", "epochs"))
    assert all(len(set(batch.tolist())) == 4 for batch in fresh)
    assert all(sorted(part.flatten().tolist()) == list(range(12)) for part in passes.split(3))
    assert not all(sorted(part.flatten().tolist()) == list(range(12)) for part in fresh.split(3))
    some = batches(0, 0, 4, 30, 12, "independent")
    assert some.shape == (30, 4)
    assert any(len(set(batch.tolist())) < 4 for batch in some)
    assert not torch.equal(some, batches(0, 1, 4, 30, 12, "independent"))


def test_descent_leaves_where_the_hessian_says_and_its_fate_is_the_replayed_one(minima):
    edge = 2 / minima.sharpness
    rates = np.outer(edge, [0.5, 0.93, 1.07, 1.3])
    table = restart(minima, rates, 5, repeats=1, steps=600, looks=12, draws="fresh")
    assert table.left.tolist() == [False, False, True, True] * 2
    assert (table.left == table.replay_left).all()
    assert not (table.left & table.back).any()
    limit = experiment.typical_limits(minima, 5, 0.8 * edge, 1.25 * edge, steps=600, draws="fresh")
    np.testing.assert_allclose(limit, edge, rtol=0.02)
    with pytest.raises(ValueError, match="seed 0 has no limit between"):
        experiment.typical_limits(minima, 5, 1.1 * edge, 1.3 * edge, steps=600, draws="fresh")


def test_after_an_escape_the_network_rests_at_another_minimum(minima):
    rates = 1.5 * 2 / minima.sharpness
    found, path = experiment.aftermath(minima, rates, 5, steps=4000, looks=40, draws="fresh")
    assert len(found.seeds) == 2
    assert (path.max(0) > 10 * experiment.START).all()  # it rises and comes down between two looks
    assert (found.sharpness < 2 / rates * 1.01).all()
    with pytest.raises(ValueError, match="no network is at rest"):
        experiment.aftermath(minima, rates, 5, steps=40, looks=1, draws="fresh")


def test_rest_is_measured_against_the_minimum_that_is_found(minima):
    """With the full batch the mean-square limit is 2/λ, so that both units are one."""
    edge = 2 / minima.sharpness
    begun = pd.DataFrame({"seed": minima.seeds, "batch_size": 5, "transition": 0.75 * edge, "mean_square": edge})
    found = inference.resting(minima, begun, [2.0], steps={5: 4000}, draws="fresh")
    np.testing.assert_allclose(found.lr, 1.5 * edge)
    np.testing.assert_allclose(found[["before", "sharp_before"]], 1.5)
    np.testing.assert_allclose(found.after, found.sharp_after)
    assert (found.after < 1.01).all()
    assert (found.moved > 0).all()


@pytest.mark.parametrize(
    ("path", "left_back"),
    [([-18, -12, -8, -30], (True, False)), ([-18, -28, -8], (False, True)), ([-18, -17], (False, False)),
     ([-18, np.inf], (True, False)), ([-18, np.nan], (True, False)), ([-18, -np.inf], (False, True))],
)  # fmt: skip
def test_the_first_of_two_ends_is_the_fate(path, left_back):
    assert fate(np.array(path)) == left_back


def test_what_cannot_be_restarted_is_refused(minima, monkeypatch, tmp_path):
    monkeypatch.setenv("THREEFACTORS_STORE", str(tmp_path))
    task, until = Task("digits", MLP((4,)), train_size=5, loss="squared"), TrainLoss(1e-6, Epochs(1))
    for message, call in (
        ("loss='squared'", lambda: find_minima(Task("digits"), [0], until, lr=0.01, batch_size=5)),
        ("seeds \\[0\\] do not come", lambda: find_minima(task, [0], until, lr=0.01, batch_size=5)),
        ("no minimum nearby", lambda: nearest(replace(minima, theta=minima.theta * 0))),
        ("rates of shape", lambda: restart(minima, [[0.1]], 1, repeats=1, steps=1, looks=1, draws="fresh")),
        ("draws='some'", lambda: batches(0, 0, 1, 1, 5, "some")),
        ("1 <= S <= 5", lambda: batches(0, 0, 6, 1, 5, "fresh")),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# --- transitions, and the claims on small linear systems, with planted bugs ------------------


def test_transition_by_spearman_and_kaerber():
    def cell(left, seed=0):
        limits = dict.fromkeys([*inference.LIMITS, "sharpness", "one_step", "uniform", "along_top"], 3.0)
        rows = [{"seed": seed, "batch_size": 1, "rate": g, "lr": 2.0**g, "left": out, "back": not out,
                 "replay_left": out} | limits
                for g, several in enumerate(left) for out in several]  # fmt: skip
        return inference.transitions(pd.DataFrame(rows)).iloc[0]

    sure = cell([(False, False), (False, False), (True, True), (True, True)])
    assert sure.transition == pytest.approx(2**1.5)
    assert sure.right_typical == sure.replayed == 1
    half = cell([(False, False), (True, False), (True, False), (True, True)])
    assert half.transition == pytest.approx(2**1.5)
    assert half.right_typical == 0.75
    assert np.isnan(cell([(True, False), (True, True)]).transition)
    assert np.isnan(cell([(False, False), (True, False)]).transition)


EXAMPLES, OUTPUTS, SIZES, SEEDS = 9, 4, (1, 2, 4), 6


@pytest.fixture(scope="module")
def systems():
    """Gram matrices of examples that are somewhat alike, and where linear systems with them start to grow."""
    grams, rows = {}, []
    for seed in range(SEEDS):
        rng = numpy_generator(seed, "factors")
        A = (rng.normal(size=(EXAMPLES, OUTPUTS, 60)) + 0.5 * rng.normal(size=(OUTPUTS, 60))).reshape(-1, 60)
        grams[seed] = gram = A @ A.T / 60
        for S in SIZES:
            limit = second_moment_limit(Factors.from_gram(gram, EXAMPLES), S)
            rates, start = limit * np.geomspace(0.6, 2.2, 24), rng.normal(size=len(gram))
            order = batches(seed, 0, S, 1200, EXAMPLES, "independent").numpy()
            path = replay(gram, start, rates, order, EXAMPLES, 1)
            share = (path[-1] > path[0] + 9).mean()  # ten thousandfold
            at, edge = (
                rates[-1] * (rates[1] / rates[0]) ** (0.5 - 24 * share),
                2 * EXAMPLES / np.linalg.eigvalsh(gram)[-1],
            )
            rows.append({"seed": seed, "batch_size": S, "transition": at, "noise_free": edge})
    return grams, pd.DataFrame(rows)


def verdict(claim, systems, predict):
    grams, table = systems
    limits = [
        predict(Factors.from_gram(grams[r.seed], EXAMPLES), r.batch_size, r.noise_free) for r in table.itertuples()
    ]
    return judge(claim.at("simulation"), inference.against(table.assign(limit=limits), "limit")).verdict


@pytest.mark.parametrize("claim", [P5b, P5c, P5g])
def test_the_mean_square_limit_is_supported(systems, claim):
    assert verdict(claim, systems, lambda factors, S, _: second_moment_limit(factors, S)) == SUPPORTED


BUGS = {
    "a factor of 2": lambda factors, S, _: 2 * second_moment_limit(factors, S),
    "√S for S": lambda factors, S, _: second_moment_limit(factors, round(S**0.5)),
    "S − 1 for S": lambda factors, S, _: second_moment_limit(factors, max(S - 1, 1)),
    "S + 1 for S": lambda factors, S, _: second_moment_limit(factors, S + 1),
    "n S for S": lambda factors, S, _: second_moment_limit(factors, EXAMPLES * S),
    "noise-free descent": lambda factors, S, noise_free: noise_free,
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_in_the_limit_is_refuted(systems, bug):
    assert verdict(P5b, systems, BUGS[bug]) == REFUTED


def test_the_rival_is_refuted_and_does_not_move_with_the_batch(systems):
    for claim in (P5a, P5d, P5g):
        assert verdict(claim, systems, BUGS["noise-free descent"]) == REFUTED
    _, table = systems
    exact = table[table.batch_size == 1].assign(transition=lambda t: t.noise_free * (1 + 0.01 * t.seed))
    assert judge(P5e.at("simulation"), inference.against(exact, "noise_free")).verdict == SUPPORTED
    half = exact.assign(transition=exact.noise_free / 2)
    assert judge(P5e.at("simulation"), inference.against(half, "noise_free")).verdict == REFUTED


def test_fates_that_are_not_the_replayed_ones_and_rest_beyond_the_limit_are_refuted():
    shares = pd.DataFrame({"seed": s, "batch_size": S, "replayed": 0.98 - 0.004 * s} for s in range(6) for S in (1, 4))
    assert judge(P5f.at("simulation"), shares).verdict == SUPPORTED
    assert judge(P5f.at("simulation"), shares.assign(replayed=shares.replayed - 0.2)).verdict == REFUTED
    rests = pd.DataFrame({"seed": s, "batch_size": S, "multiple": m, "after": 0.95 + 0.01 * s}
                         for s in range(6) for S in (1, 4) for m in (1.3, 2.0))  # fmt: skip
    assert judge(P5h.at("simulation"), rests).verdict == SUPPORTED
    assert judge(P5h.at("simulation"), rests.assign(after=rests.after * 2)).verdict == REFUTED


def test_figures_show_every_batch_size_and_every_law():
    shares = pd.DataFrame({"batch_size": S, "x": x, "left": float(x > 1)} for S in (1, 4) for x in (0.5, 2.0))
    lines = drawn.leaving(shares).get_lines()
    assert [line.get_label() for line in lines[:2]] == ["$S=1$", "$S=4$"]
    points = pd.DataFrame({"batch_size": [1, 4], "value": [0.3, 0.7], "low": [0.2, 0.6], "high": [0.4, 0.8]})
    laws = pd.DataFrame({"law": law, "batch_size": S, "y": 0.5} for law in drawn.LAWS for S in (1, 4))
    names = drawn.transitions_between_limits(points, laws).get_legend_handles_labels()[1]
    assert names == [*(label for label, _, _ in drawn.LAWS.values()), "measured"]
    rests = pd.DataFrame({"seed": s, "batch_size": S, "multiple": m, "before": 2.0, "after": 1.0, "sharp_before": 1.0,
                          "sharp_after": 0.2} for s in range(3) for S in (1, 4) for m in (1.3, 2.0))  # fmt: skip
    left, right = drawn.coming_to_rest(rests).axes
    assert len(left.get_yticklabels()) == 4
    assert "mean-square" in left.get_xlabel()
    assert "lambda" in right.get_xlabel()
