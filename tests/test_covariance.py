"""Gradient covariance against Hessian: theory, products by hand, the probe, and the claims with planted bugs."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from threefactors._rng import generator, numpy_generator
from threefactors.experiments import run
from threefactors.experiments.covariance_probe import Covariance, FromStart, stages
from threefactors.experiments.first_order import FirstOrder, noise_traces, traces
from threefactors.inference import REFUTED, SUPPORTED, VOID, judge, summarize
from threefactors.inference.claims import covariance as claims
from threefactors.measurement import hessian
from threefactors.presentation.alignment import along_training, in_eigenbasis
from threefactors.theory import separable_flow
from threefactors.theory.interpolation import one_logit_ratio, softmax_ratio
from threefactors.training import MLP, Clock, Sweep, Task, Trainer, load
from threefactors.training.losses import StackLosses

from tests.oracles import (
    dense_gauss_newton,
    dense_gradient_covariance,
    dense_hessian,
    per_example_gradients,
    relative_error,
)

INPUTS, CLASSES, STAGES = 5, 3, (0.5, 1.0)
TASK = Task(model=MLP((6,)), train_size=64)


def problem(loss="cross-entropy", hidden=(6, 4), R=2, N=23):
    model, g = MLP(hidden), generator(0, "problem")
    x = torch.randn(R, N, INPUTS, generator=g, dtype=torch.float64)
    y = torch.randint(CLASSES, (R, N), generator=g)
    theta = torch.stack([model.initial(INPUTS, CLASSES, generator(i, "init"), torch.float64) for i in range(R)])
    theta = theta + 0.1 * torch.randn(theta.shape, generator=g, dtype=torch.float64)  # biases too
    return StackLosses(model, loss, INPUTS, CLASSES), theta, x, y


def trace(matrices):
    return torch.einsum("rii->r", matrices)


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


# Theory


def test_labels_drawn_from_the_model_make_noise_equal_curvature():
    """By enumeration: the mean of ρ's numerator over all labels, weighted by p, is its denominator."""
    p = softmax(numpy_generator(0, "t").normal(size=(1, 4)))
    assert sum(p[0, c] * softmax_ratio(p, [c]) for c in range(4)) == pytest.approx(1, abs=1e-14)
    assert sum(softmax_ratio(p, [c]) for c in range(4)) / 4 > 1.01  # labels that know nothing: overconfident


def test_the_ratio_is_one_where_confidence_is_what_the_model_expects():
    rng = numpy_generator(1, "t")
    p, y = softmax(2 * rng.normal(size=(50, 5))), rng.integers(5, size=50)
    expected = 2 * ((p**2).sum(1).mean() - p[np.arange(50), y].mean()) / (1 - (p**2).sum(1)).mean()
    assert softmax_ratio(p, y) - 1 == pytest.approx(expected, rel=1e-12)


def test_two_classes_are_one_logit():
    m = 3 * numpy_generator(2, "t").normal(size=40)
    e = 1 / (1 + np.exp(m))
    assert softmax_ratio(np.stack([1 - e, e], 1), np.zeros(40, int)) == pytest.approx(one_logit_ratio(m), rel=1e-12)
    assert one_logit_ratio(m) <= np.exp(-m).max()


def test_one_margin_alone_falls_with_its_loss_and_one_over_the_clock():
    for T in (10.0, 100.0, 1e4):
        flow = separable_flow(np.array([T]))
        margin = -np.log(np.expm1(flow.loss))
        assert one_logit_ratio(margin) == pytest.approx(np.expm1(flow.loss[0]), rel=1e-9)
        assert one_logit_ratio(margin) * T == pytest.approx(1, rel=4 * np.log(T) / T)
    assert one_logit_ratio([800.0]) == 0.0  # far out, where e^m would overflow


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([[0.5, 0.6]], [0], "sum to 1"),
        ([[1.2, -0.2]], [0], "sum to 1"),
        ([0.5, 0.5], [0], "use a softmax"),
        ([[0.5, 0.5]], [2], "0 … 1"),
        ([[0.5, 0.5]], [0, 1], "0 … 1"),
        ([[1.0, 0.0]], [0], "train less"),
    ],
)
def test_probabilities_that_are_none_are_refused(p, y, message):
    with pytest.raises(ValueError, match=message):
        softmax_ratio(p, y)


@pytest.mark.parametrize("margins", [[], [np.nan], [np.inf]])
def test_margins_that_are_none_are_refused(margins):
    with pytest.raises(ValueError, match="finite"):
        one_logit_ratio(margins)


def test_miscalibration_shifts_noise_by_a_term_linear_in_it():
    """Theorem 3 by enumeration over labels; and its exception, a coin that may be biased unseen."""
    rng = numpy_generator(3, "t")
    p, q = softmax(rng.normal(size=(2, 4)))

    def shift(p, q):
        K = len(p)
        mean = sum(q[c] * np.outer(p - np.eye(K)[c], p - np.eye(K)[c]) for c in range(K))
        return mean - (np.diag(p) - np.outer(p, p))

    u = q - p
    np.testing.assert_allclose(shift(p, q), np.diag(u) - np.outer(p, u) - np.outer(u, p), atol=1e-15)
    assert abs(shift(p, p)).max() < 1e-15 < abs(shift(p, q)).max()
    assert abs(shift(np.array([0.5, 0.5, 0.0]), np.array([0.9, 0.1, 0.0]))).max() < 1e-15


# Products and traces by hand


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 4)], ids=str)
def test_products_and_traces_against_dense_matrices(loss, hidden):
    args = losses, theta, x, y = problem(loss, hidden)
    by_hand = FirstOrder(*args)
    C, G = dense_gradient_covariance(*args), dense_gauss_newton(*args)
    assert relative_error(by_hand.covariance().dense(), C) < 1e-12
    assert relative_error(by_hand.gauss_newton().dense(), G) < 1e-12
    found, g = traces(*args), per_example_gradients(*args)
    torch.testing.assert_close(found["trace_c"], trace(C))
    torch.testing.assert_close(noise_traces(*args), trace(C))
    torch.testing.assert_close(found["trace_g"], trace(G))
    torch.testing.assert_close(found["trace_g"], trace(dense_hessian(*args)))  # the residual has no trace
    torch.testing.assert_close(found["second_moment"], g.square().sum(-1).mean(1))
    torch.testing.assert_close(found["gradient_squared"], g.mean(1).square().sum(-1))
    last = slice(-(losses.model.widths(INPUTS, CLASSES)[-2] + 1) * CLASSES, None)
    ratio = g[..., last].square().sum(-1).mean(1) / trace(G[:, last, last])
    torch.testing.assert_close(found["noise_ratio_last"], ratio)
    torch.testing.assert_close(found["train_loss"], losses(theta, x, y).mean(1))


def test_outputs_give_the_predicted_ratio():
    args = losses, theta, x, y = problem()
    found, p = traces(*args), losses.outputs(theta, x).softmax(-1)
    predicted = [softmax_ratio(a, b) for a, b in zip(p.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(found["residual_squared"] / found["output_curvature"], predicted, rtol=1e-12)
    squared = traces(*problem("squared"))
    torch.testing.assert_close(squared["output_curvature"], torch.full((2,), float(CLASSES), dtype=torch.float64))


def test_a_network_of_output_biases_alone_obeys_the_prediction_exactly():
    """Inputs of zero: every J_i J_iᵀ is the identity."""
    losses, theta, x, y = problem(hidden=())
    found = traces(losses, theta, torch.zeros_like(x), y)
    torch.testing.assert_close(found["noise_ratio"], found["residual_squared"] / found["output_curvature"])


def test_the_largest_mistake_bounds_noise_by_curvature():
    """Theorem 4, with every eigenvalue: C ⪯ max ε/(1 − ε) G; and it is sharp for one example of two classes."""
    for stretch in (1.0, 4.0):
        losses, theta, x, y = problem(hidden=())
        theta = stretch * theta
        y = losses.outputs(theta, x).argmax(-1)  # all are classified correctly, by margins that grow
        e = -torch.expm1(-losses(theta, x, y))
        bound = (e / (1 - e)).amax(1)[:, None, None] * dense_gauss_newton(losses, theta, x, y)
        gap = torch.linalg.eigvalsh(bound - dense_gradient_covariance(losses, theta, x, y))
        assert (gap > -1e-12 * bound.norm(dim=(1, 2))[:, None]).all()
        halved = torch.linalg.eigvalsh(0.02 * bound - dense_gradient_covariance(losses, theta, x, y))
        assert (halved.amin(1) < 0).all()
    r, A = np.array([-0.2, 0.2]), 0.16 * np.array([[1, -1], [-1, 1]])
    np.testing.assert_allclose(np.outer(r, r), 0.2 / 0.8 * A, atol=1e-15)


def test_scaling_the_loss_scales_C_twice_as_much_as_H():
    losses, theta, x, y = problem()
    tripled = lambda t, a, b: 3 * losses(t, a, b)  # noqa: E731
    C, H = dense_gradient_covariance(losses, theta, x, y), dense_hessian(losses, theta, x, y)
    assert relative_error(dense_gradient_covariance(tripled, theta, x, y), 9 * C) < 1e-13
    assert relative_error(hessian(tripled, theta, x, y).dense(), 3 * H) < 1e-12


def test_batch_normalization_is_refused():
    losses, theta, x, y = problem()
    losses = replace(losses, model=MLP((6, 4), batch_norm=8))
    for refused in (traces, FirstOrder):
        with pytest.raises(ValueError, match="batch_norm=8 ties"):
            refused(losses, theta, x, y)


# The probe


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    sweep = Sweep.grid(TASK, lr=0.05, batch_size=16, seed=range(3), until=Clock(STAGES[-1]))
    probe = Covariance(k=3, probes=20, tol=1e-5, at=FromStart(STAGES))
    return run(sweep, [probe, replace(probe, at="end")], store=tmp_path_factory.mktemp("s"), progress=False)


def test_stages_are_the_start_and_the_given_clocks(result):
    table = stages(result)
    assert sorted(table.stage.unique()) == [0.0, 0.6, 1.0]  # the end of the epoch that reaches 0.5 is at 0.6
    assert len(table) == 9
    assert (table.clock == result.table().clock.iloc[0]).all()
    np.testing.assert_allclose(table.trace_ratio * table.residual_free, table.trace_c / table.trace_g)
    with pytest.raises(ValueError, match="share seeds"):
        stages(replace(result, runs=result.runs * 2, records=result.records * 2))


def test_columns_against_dense_matrices(result):
    """The last stage once more, in float64, with every matrix written out."""
    data, row = load("digits").first(64), result.table().iloc[1]
    trainer = Trainer(Sweep((result.runs[1],)).stacks()[0], data)
    trainer.train()
    x, y = data.x_train.double().flatten(1)[None], data.y_train[None]
    args = trainer.losses, trainer.theta.double(), x, y
    C, H = dense_gradient_covariance(*args)[0], dense_hessian(*args)[0]
    (mu, U), (lam, V) = torch.linalg.eigh(C), torch.linalg.eigh(H)
    U, V = U[:, -3:], V[:, -3:]
    assert row.trace_c == pytest.approx(float(C.trace()), rel=1e-5)
    assert row.trace_h == pytest.approx(float(H.trace()), abs=4 * row.trace_h_stderr)
    np.testing.assert_allclose(row.eigenvalues_c, mu[-3:].flip(0), rtol=1e-4)
    np.testing.assert_allclose(row.eigenvalues_h, lam[-3:].flip(0), rtol=1e-4)
    np.testing.assert_allclose(row.c_along_h, torch.einsum("pk,pq,qk->k", V, C, V).flip(0), rtol=1e-3)
    assert row.overlap == pytest.approx(float((U.T @ V).square().sum() / 3), abs=1e-3)
    assert row.captured == pytest.approx(float((V.T @ C @ V).trace() / mu[-3:].sum()), abs=1e-3)
    cosine = float((C * H).sum() / (C.norm() * H.norm()))
    assert row.cosine_ch == pytest.approx(cosine, abs=max(4 * row.cosine_ch_stderr, 1e-3))
    assert row.scale_ch == pytest.approx(
        float((C * H).sum() / H.square().sum()), abs=max(4 * row.scale_ch_stderr, 1e-3)
    )
    assert row.fisher_error < 1e-4
    assert row.overlap_by_chance == pytest.approx(3 / len(C))


def test_company_changes_no_number(result, tmp_path):
    alone = run(Sweep(result.runs[2:]), [Covariance(k=3, probes=20, tol=1e-5)], store=tmp_path, progress=False)
    for name, value in alone.records[0]["end"].items():
        np.testing.assert_array_equal(value, result.records[2]["end"][name], err_msg=name)


# The claims


def simulated(seed, *, fit=0.0, N=3000, K=4, P=6):
    """Softmax regression with labels drawn from itself, of which a share ``fit`` is then fitted; weights grow."""
    rng, rows = numpy_generator(seed, "softmax regression"), []
    for run_seed in range(8):
        W = rng.normal(size=(P, K)) / P**0.5
        for stage in (1.0, 2.0, 3.0):
            x = rng.normal(size=(N, P))
            p = softmax(stage * x @ W)
            y = (p.cumsum(1) < rng.random((N, 1))).sum(1)
            y = np.where(rng.random(N) < fit, p.argmax(1), y)
            r, sizes = p - np.eye(K)[y], (x**2).sum(1)
            g = (x[:, :, None] * r[:, None, :]).reshape(N, -1)
            F = (sizes * (1 - (p**2).sum(1))).mean()  # the Hessian's trace
            noise = {"trace_ratio": g.var(0).sum() / F, "noise_ratio": (sizes * (r**2).sum(1)).mean() / F}
            noise["predicted_noise_ratio"] = softmax_ratio(p, y)
            rows.append({"seed": run_seed, "stage": stage, "clock": 3.0, "diverged": False, "finished": True} | noise)
    table = pd.DataFrame(rows)
    both = {f"{prefix}noise_ratio_last": table[f"{prefix}noise_ratio"] for prefix in ("", "predicted_")}
    return table.assign(residual_free=1.0, fisher_error=1e-6, overlap=0.9, **both)


JUDGED = {name: getattr(claims, name).at("equal clock") for name in ("A2a", "A2b", "A2c", "A2d", "A2e", "A2f")}


@pytest.fixture(scope="module")
def honest():
    return simulated(0)


@pytest.fixture(scope="module")
def fitted():
    return simulated(1, fit=0.8)


def test_a_model_whose_labels_are_its_own_supports_every_claim(honest):
    assert {name: judge(claim, honest).verdict for name, claim in JUDGED.items()} == dict.fromkeys(JUDGED, SUPPORTED)


def test_fitted_labels_refute_C_is_H_and_still_obey_the_prediction(fitted):
    assert judge(JUDGED["A2a"], fitted).verdict == REFUTED
    assert judge(JUDGED["A2d"], fitted).verdict == SUPPORTED


@pytest.mark.parametrize(
    ("name", "measure", "bug"),
    [
        ("A2a", "trace_ratio", lambda t: 2 * t.trace_ratio),
        ("A2a", "trace_ratio", lambda t: t.trace_ratio.where(t.stage > 1, t.trace_ratio / 2)),  # at one stage alone
        ("A2e", "trace_ratio", lambda t: t.trace_ratio / 32**0.5),
        ("A2b", "overlap", lambda t: t.overlap.where(t.stage < 3, 0.01 + t.seed / 1e4)),
        ("A2c", "fisher_error", lambda t: 0.5 + t.seed / 1e4),
        ("A2d", "noise_ratio", lambda t: 2 * t.noise_ratio),
        ("A2d", "noise_ratio_last", lambda t: t.noise_ratio_last**0.5 / 2),
        ("A2f", "residual_free", lambda t: 1.25 + t.seed / 1e4),
    ],
)
def test_planted_bugs_are_refuted(honest, name, measure, bug):
    assert judge(JUDGED[name], honest).verdict == SUPPORTED
    assert judge(JUDGED[name], honest.assign(**{measure: bug(honest)})).verdict == REFUTED


def test_an_average_over_training_cannot_hide_a_crossing(honest):
    """C far above H early and as far below it late: nought on average, refuted at each stage."""
    crossing = honest.trace_ratio * np.exp(honest.stage - 2)
    assert judge(JUDGED["A2a"], honest.assign(trace_ratio=crossing)).verdict == REFUTED


def test_what_was_not_measured_is_void(honest):
    assert judge(JUDGED["A2b"], honest.assign(overlap=np.nan)).verdict == VOID
    assert judge(JUDGED["A2a"], honest.assign(trace_ratio=0.0)).verdict == VOID
    assert judge(JUDGED["A2a"], honest.iloc[1:]).verdict == VOID
    assert judge(JUDGED["A2a"], honest.assign(clock=honest.seed + 1.0)).verdict == VOID  # no equal clock
    assert judge(JUDGED["A2a"], honest.assign(clock=honest.stage)).verdict == SUPPORTED  # equal at each stage


# Figures


def test_figures_draw_every_stage_and_label(honest):
    points = summarize(honest, "trace_ratio", by=["stage"])
    curves = pd.concat([points.assign(label="a"), points.assign(label="b")])
    law = pd.DataFrame({"stage": points.stage, "y": 1.0})
    ax = along_training(curves, ylabel="ratio", law=law, band=(0.8, 1.25), level=0.01)
    assert {"a", "b", "margin", "chance", "predicted from the outputs"} == set(ax.get_legend_handles_labels()[1])
    low, high = ax.get_xlim()
    assert low < 0
    assert high > points.stage.max()
    table = pd.DataFrame({"eigenvalue": [1.0, 2.0], "quotient": [0.5, 1.0], "label": ["early", "late"]})
    ax = in_eigenbasis(table)
    assert [line.get_xydata().tolist() for line in ax.lines[:2]] == [[[1.0, 0.5]], [[2.0, 1.0]]]
    np.testing.assert_array_equal(ax.lines[2].get_xdata(), ax.lines[2].get_ydata())
    plt.close("all")
