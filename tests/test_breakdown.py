"""Where scaling η and S breaks: conditions against enumeration, breaks that were planted, censoring, and the claims."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from threefactors._rng import numpy_generator
from threefactors.experiments.breakdown import SignalAndNoise, full_batch, protocols, scaled, with_train_size
from threefactors.experiments.runner import run
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, judge
from threefactors.inference.breakdown import (
    BoundedMean,
    BoundedSlope,
    breaking_points,
    breaks,
    log_ratio,
    predictions,
    scored,
)
from threefactors.inference.claims.breakdown import C7, C8, FALL, PLATEAU, C11a, C11b, C11c, C11d
from threefactors.inference.estimates import SeedMean
from threefactors.presentation.breakdown import falls, fingerprint, predicted_breaks
from threefactors.theory.noise import batch_covariance
from threefactors.theory.validity import finite_set_batch, signal_batch, stability_scale
from threefactors.training import MLP, Clock, Sweep, Task, Trainer, load

# --- the conditions --------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [0.3, 4.0])
def test_beyond_the_stable_scale_descent_grows(curvature):
    lr = 0.05
    edge = float(stability_scale(curvature, lr))
    for beta, shrinks in ((0.99 * edge, True), (1.01 * edge, False)):
        x = 1.0
        for _ in range(50):
            x -= beta * lr * curvature * x
        assert (abs(x) < 1) == shrinks


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_finite_set_leaves_the_share_of_the_noise(share):
    """Against every batch without replacement, where the batch size is a whole number."""
    values = np.array([0.3, -1.0, 2.0, 0.7, 1.1])
    size = finite_set_batch(len(values), share)
    assert size == pytest.approx(5 - 4 * share)
    batches = [np.mean(b) for b in itertools.combinations(values, int(size))]
    assert np.var(batches) == pytest.approx(share * values.var() / size, abs=1e-12)
    assert np.var(batches) == pytest.approx(float(batch_covariance(values.var(), len(values), int(size))), abs=1e-12)


def test_a_step_is_signal_and_noise_in_equal_parts_at_the_signal_batch():
    """E‖Δθ‖²/η = η‖g‖² + (η/S) Tr C over every batch with replacement; Tr C is chosen so that S = 2 is the meeting."""
    g = np.array([[2.0, 0.5], [0.0, -0.5], [1.0, 1.0]])
    mean, C = g.mean(0), np.cov(g.T, bias=True)
    mean = mean * np.sqrt(np.trace(C) / 2) / np.linalg.norm(mean)
    g = g - g.mean(0) + mean
    S, lr = 2, 0.1
    steps = [lr * g[list(b)].mean(0) for b in itertools.product(range(3), repeat=S)]
    whole = np.mean([step @ step for step in steps]) / lr
    assert float(signal_batch(np.trace(C), mean @ mean)) == pytest.approx(S)
    assert whole == pytest.approx(lr * mean @ mean + lr / S * np.trace(C))
    assert whole == pytest.approx(2 * lr * mean @ mean)


def test_signal_and_noise_of_networks_against_a_gradient_for_each_example():
    task = Task("digits", MLP((5,)), train_size=12, label_noise=0.3)
    sweep = Sweep.grid(task, lr=[0.1, 0.2], batch_size=4, seed=[3], until=Clock(1.0))
    trainer = Trainer(sweep.stacks()[0], load("digits", None)).train()
    found = SignalAndNoise().measure(trainer, [0, 1])
    for i in (0, 1):
        theta = trainer.theta[i].double()
        rows = []
        for x, y in zip(trainer.data.x_train.double(), trainer.labels[i], strict=True):
            leaf = theta.clone().requires_grad_()
            trainer.losses(leaf[None], x[None, None], y[None, None]).sum().backward()
            rows.append(leaf.grad)
        g = torch.stack(rows)
        assert found["gradient_squared"][i].item() == pytest.approx(g.mean(0).square().sum().item(), rel=1e-9)
        assert found["noise_trace"][i].item() == pytest.approx(g.var(0, correction=0).sum().item(), rel=1e-9)
    alone = SignalAndNoise().measure(trainer, [1])
    assert alone["gradient_squared"][0] == found["gradient_squared"][1]


def test_along_a_curve_equal_epochs_is_equal_clock(tmp_path):
    rules = protocols(epochs=3, clock=2.0, loss=0.5)
    task, ratios = Task("digits", MLP((4,))), (0.01, 0.005)
    batches, until = (4, 9, 16, 48, 96), rules["equal epochs"]
    sweep = scaled(task, train_sizes=(48, 96), ratios=ratios, batch_sizes=batches, seeds=[0], until=until)
    table = with_train_size(run(sweep, [], store=tmp_path, progress=False))
    assert set(table.batch_size) == {4, 16, 48, 96}  # 9 divides neither
    assert len(table) == 2 * (3 + 4)
    assert set(table.ratio) == set(ratios)
    np.testing.assert_allclose(table.clock, 3 * table.train_size * table.ratio, rtol=1e-12)
    assert rules["equal clock"](48, 0.01) == Clock(2.0)
    assert rules["equal loss"](48, 0.01).at_most.n == 5  # 2/(48 · 0.01) epochs, rounded up
    still = full_batch(task, train_sizes=(48, 96), rates=(0.1, 0.2), seeds=[0], until=Clock(1.0))
    assert {(r.task.train_size, r.sgd.batch_size, r.sgd.lr) for r in still} == {
        (n, n, lr) for n in (48, 96) for lr in (0.1, 0.2)
    }


# --- breaks ----------------------------------------------------------------------------------

BETAS = np.array([1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 72])


def curve(score, **columns):
    return pd.DataFrame({"beta": BETAS.astype(float), "score": score, "curve": 0, "seed": 0} | columns)


def test_a_planted_break_is_found_where_it_was_planted():
    """On a score that is linear in ln β beyond the plateau interpolation is exact, wherever the grid lies."""
    planted = 14.0
    score = 0.9 - np.clip(0.05 * (1 + np.log(BETAS / planted)), 0, None)
    assert breaking_points(curve(score), "score", by=["curve"], fall=0.05).breaking[0] == pytest.approx(planted)


def test_a_diverged_run_breaks_its_curve_between_its_neighbors():
    table = curve(0.9).assign(validation_accuracy=0.9, diverged=BETAS >= 18, finished=BETAS < 18, clock=5.0)
    table.loc[table.diverged, "validation_accuracy"] = np.nan
    row = breaking_points(scored(table, "equal clock", chance=0.1, at_most=9.0), "score", by=["curve"], fall=0.05).iloc[
        0
    ]
    assert row.breaking == pytest.approx(12 * 1.5 ** (0.05 / 0.8))
    assert row.censored == 0
    late = scored(table, "equal loss", chance=0.1, at_most=9.0)
    assert set(np.exp(-late.score).round(9)) == {5.0, 9.0}


def test_what_was_not_seen_is_a_bound():
    never = breaking_points(curve(0.9), "score", by=["curve"], fall=0.05).iloc[0]
    assert (never.breaking, never.breaking_low, never.breaking_high, never.censored) == (72, 72, np.inf, 1)
    at_once = breaking_points(curve(np.where(BETAS == 1, 0.1, 0.9)), "score", by=["curve"], fall=0.05).iloc[0]
    assert (at_once.breaking, at_once.breaking_low, at_once.breaking_high, at_once.censored) == (1, 0, 1, -1)


def test_a_plateau_that_cannot_fall_so_far_tells_nothing():
    table = scored(curve(0.0, validation_accuracy=0.12, diverged=False), "equal epochs", chance=0.1, at_most=1.0)
    row = breaking_points(table, "score", by=["curve"], fall=0.05).iloc[0]
    assert (row.breaking_low, row.breaking_high, row.censored) == (0, np.inf, 2)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("do not drop them", lambda: breaking_points(curve(np.nan), "score", by=["curve"], fall=0.05)),
        ("fall=0", lambda: breaking_points(curve(0.9), "score", by=["curve"], fall=0)),
        ("is all plateau", lambda: breaking_points(curve(0.9), "score", by=["curve"], fall=0.1, plateau=12)),
        ("sharpness=-1.0", lambda: stability_scale(-1.0, 0.1)),
        ("share=1.5", lambda: finite_set_batch(10, 1.5)),
        ("gradient_squared=0", lambda: signal_batch(1.0, 0)),
        (
            "divides train_size=10",
            lambda: scaled(Task(), train_sizes=[10], ratios=[0.1], batch_sizes=[4], seeds=[0], until=None),
        ),
    ],
)
def test_bad_input_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_bounds_cost_power_and_never_decide():
    values = np.array([1.0, 1.2, 0.9, 1.1, 1.3])
    known = BoundedMean(values, values, values)
    assert known.interval() == SeedMean(values).interval()
    assert known.p_above(0.5) == SeedMean(values).p_above(0.5)
    open_above = BoundedMean(values, values, np.where(values > 1.25, np.inf, values))
    assert open_above.p_above(0.5) == known.p_above(0.5)  # where it is censored does not matter for being above
    assert open_above.p_below(2.0) == 1.0
    assert open_above.interval().high == np.inf
    assert open_above.interval().low == known.interval().low
    wider = BoundedMean(values, values - 0.2, values + 0.2)
    assert wider.p_above(0.8) > known.p_above(0.8)
    assert wider.p_below(1.4) > known.p_below(1.4)


def test_predictions_from_a_path_in_closed_form():
    """λ falls like 1/(1 + t) from 8, Tr C = 6 and ‖g‖² = 2 throughout: β from (η λ = 2), from 3 = S, and from N."""
    t = np.linspace(0, 3, 4)
    path = pd.DataFrame({"at_clock": t, "sharpness": 8 / (1 + t), "noise_trace": 6.0, "gradient_squared": 2.0})
    path = path.assign(train_size=101, ratio=0.01, lr=0.04, seed=0)
    found = predictions(path.sample(frac=1, random_state=1), base=4).set_index("condition").predicted_breaking
    assert found.to_dict() == pytest.approx(
        {"path": 2 / (0.04 * 8), "end": 2 / (0.04 * 2), "finite set": 51 / 4, "noise to signal": 3 / 4}
    )


# --- the claims, on planted tables -----------------------------------------------------------

SIZES, RATIOS, SEEDS = (288, 576, 1152), (0.016, 0.008), 8


def sweep(a=0.0, b=-1.0, *, base=4, spread=0.1, chance=0.1, sudden=False):
    """Runs on the chapter's grid whose curves break at β = 12 (N/576)^a (ratio/0.012)^b.

    They fall gradually, all are lost beyond twice that β; or, if ``sudden``, they are well until they are lost.
    """
    rng, rows = numpy_generator(7, f"break {a} {b}"), []
    for seed, size, ratio in itertools.product(range(SEEDS), SIZES, RATIOS):
        planted = 12 * (size / 576) ** a * (ratio / 0.012) ** b * np.exp(spread * rng.normal())
        for batch in [base * beta for beta in (*BETAS, 96, 144, 288) if size % (base * beta) == 0]:
            lost = batch / base > (1 if sudden else 2) * planted
            fallen = 0 if sudden else np.clip(0.05 * (1 + 3 * np.log(batch / base / planted)), 0, 0.8)
            rows.append({"seed": seed, "train_size": size, "ratio": ratio, "batch_size": batch, "beta": batch / base,
                         "lr": ratio * batch, "epochs": 16.0, "clock": 16 * size * ratio, "diverged": lost,
                         "finished": not lost, "validation_accuracy": np.nan if lost else 0.95 - fallen
                         + 0.003 * rng.normal()})  # fmt: skip
    return scored(pd.DataFrame(rows), "equal epochs", chance=chance, at_most=1.0)


def broken(table, **more):
    return breaks(table, "epochs", fall=FALL["accuracy"], plateau=PLATEAU, **more)


@pytest.mark.parametrize(
    ("claim", "a", "b", "verdicts"),
    [
        (C7, 0.5, -1.0, {SUPPORTED}),
        (C7, 0.0, -1.0, {UNDECIDED, REFUTED}),
        (C7, -0.5, -1.0, {REFUTED}),
        (C8, 0.0, -1.0, {SUPPORTED}),
        (C8, 0.0, 0.0, {UNDECIDED, REFUTED}),
        (C8, 0.0, 1.0, {REFUTED}),
        (C11a, 0.0, -1.0, {SUPPORTED}),
        (C11a, 0.0, 0.0, {REFUTED}),
        (C11b, 0.0, -1.0, {SUPPORTED}),
        (C11b, 0.6, -1.0, {REFUTED}),
    ],
)
def test_planted_exponents(claim, a, b, verdicts):
    assert judge(claim.at("equal epochs"), broken(sweep(a, b))).verdict in verdicts


def test_the_planted_exponent_is_in_its_interval():
    found = broken(sweep(0.2, -0.7))
    for column, exponent in (("train_size", 0.2), ("ratio", -0.7)):
        interval = BoundedSlope(column)(found, "breaking").interval(0.99)
        assert interval.low < exponent < interval.high


def test_scaling_with_the_square_root_is_noticed():
    """The planted bug √S for S: β as the root of what it is halves every exponent."""
    table = sweep()
    assert judge(C11a.at("equal epochs"), broken(table)).verdict == SUPPORTED
    wrong = table.assign(beta=np.sqrt(table.beta))
    assert judge(C11a.at("equal epochs"), broken(wrong)).verdict == REFUTED


def test_dropping_the_diverged_runs_would_hide_the_break():
    table = sweep(sudden=True)
    assert judge(C11a.at("equal epochs"), broken(table)).verdict == SUPPORTED
    survivors = broken(table[~table.diverged])
    assert (survivors.censored == 1).all()
    assert judge(C11a.at("equal epochs"), survivors).verdict == UNDECIDED


def test_curves_that_never_break_support_nothing():
    table = sweep().assign(score=0.95)
    for claim in (C7, C8, C11a, C11b):
        assert judge(claim.at("equal epochs"), broken(table)).verdict == UNDECIDED


@pytest.mark.parametrize(
    ("bug", "verdict"),
    [("none", SUPPORTED), ("S₀ forgotten", REFUTED), ("√η for η", REFUTED), ("another condition", REFUTED)],
)
def test_planted_bugs_in_a_prediction_are_refuted(bug, verdict):
    """The truth is finite steps, with 2/λ = 0.576 on all curves: they break at β = 12 in the middle."""
    wrong = {"S₀ forgotten": lambda lr: lr / 4, "√η for η": np.sqrt}.get(bug, lambda lr: lr)
    table = broken(sweep())
    path = table[["train_size", "ratio", "seed"]].assign(sharpness=2 / 0.576, lr=wrong(4 * table.ratio), at_clock=0.0)
    found = predictions(path, base=4)
    found = found[found.condition == ("finite set" if bug == "another condition" else "path")]
    table = table.merge(found, on=["train_size", "ratio", "seed"])
    table["curve"] = [f"{n}, {r:g}" for n, r in zip(table.train_size, table.ratio, strict=True)]
    assert judge(C11c.at("equal epochs"), table).verdict == verdict


@pytest.mark.parametrize(("moved", "verdict"), [(3.5, SUPPORTED), (1.0, REFUTED), (0.5, REFUTED)])
def test_an_intervention_moves_the_break_or_not(moved, verdict):
    plain = broken(sweep()).query("train_size == 576 and ratio == 0.016").reset_index(drop=True)
    table = plain.assign(**{f"predicted_{name}": plain[name] for name in ("breaking", "breaking_low", "breaking_high")})
    noise = np.exp(0.05 * numpy_generator(8, "moved").normal(size=len(table)))
    for name in ("breaking", "breaking_low", "breaking_high"):
        table[name] = moved * noise * table[name]
    assert judge(C11d.at("equal epochs"), table).verdict == verdict
    unseen = table.assign(breaking_high=np.inf)  # it moved beyond the end of the curve: a bound is enough to be above
    assert judge(C11d.at("equal epochs"), unseen).verdict == (SUPPORTED if moved == 3.5 else UNDECIDED)
    assert log_ratio(unseen, "breaking").interval().high == np.inf


# --- figures ---------------------------------------------------------------------------------


def test_figures_show_every_run_and_every_curve():
    cells = pd.DataFrame({"train_size": [1, 1, 2, 2], "ratio": 0.1, "beta": [1.0, 2.0, 1.0, 2.0], "n": 8,
                          "value": [0.9, 0.1, 0.9, 0.8], "diverged": [0, 8, 0, 1]})  # fmt: skip
    cells = cells.assign(low=cells.value - 0.01, high=cells.value + 0.01)
    marks = pd.DataFrame({"train_size": [1, 2], "ratio": 0.1, "value": [1.5, 2.0], "low": 1.2, "high": 2.0, "n": 8,
                          "censored": [0, 8]})  # fmt: skip
    ax = falls(cells, marks)
    assert "9 of 32 runs diverged" in [text.get_text() for text in ax.texts]
    kinds = [line.get_marker() for line in ax.lines]
    assert kinds.count("x") == 2
    assert kinds.count("^") == kinds.count(">") == 1
    limits = {f"{name}{end}": 0.1 * k for name in ("size", "ratio") for k, end in ((-1, "_low"), (0, ""), (1, "_high"))}
    plane = fingerprint(pd.DataFrame([{"arm": "plain", "protocol": "equal clock"} | limits]), {"finite steps": (0, -1)})
    assert [text.get_text() for text in plane.texts] == ["finite steps"]
    points = {"condition": ["path", "end"], "predicted": [1.0, 8.0], "value": [2.0, 9.0], "low": 1.5, "high": 10.0}
    against = predicted_breaks(pd.DataFrame(points))
    assert against.get_legend_handles_labels()[1] == ["path", "end"]
    plt.close("all")
