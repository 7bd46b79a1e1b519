"""Random labels: the probe recounted, the theorems enumerated, landmarks by hand, claims that notice planted bugs."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from threefactors._rng import numpy_generator
from threefactors.experiments import run
from threefactors.experiments.memorization import Memorization, quenches
from threefactors.experiments.probes import AtClock, Loss
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, judge
from threefactors.inference.claims.memorization import C10a, C10b, C10c, C10d, C10e
from threefactors.inference.memorization import (
    after_quench,
    at_best,
    at_equal_memorization,
    by_ratio,
    detectable,
    effective,
    gain_by_level,
    half_quenched,
    moments_around_half,
    with_landmarks,
)
from threefactors.presentation.memorization import against_memorized, gains
from threefactors.training import MLP, SGD, Clock, Epochs, Run, Stack, Sweep, Task, Trainer, load

SMALL = Task("digits", MLP((8,)), train_size=64, label_noise=0.5)


# --- the probe -------------------------------------------------------------------------------


def trained(task, seeds=(0, 1), epochs=20):
    runs = tuple(Run(task, SGD(0.1, 16), seed, Epochs(epochs)) for seed in seeds)
    return Trainer(Stack(runs), load("digits")).train()


def test_the_probe_counts_what_a_loop_counts():
    trainer = trained(SMALL)
    counted = Memorization().measure(trainer, [1, 0])
    for j, i in enumerate([1, 0]):
        answers = trainer.engine.outputs(trainer.theta, [i])[0].argmax(-1).tolist()
        cases = list(zip(answers, trainer.labels[i].tolist(), trainer.data.y_train.tolist(), strict=True))
        wrong = [(f, z, y) for f, z, y in cases if z != y]
        clean = [(f, z) for f, z, y in cases if z == y]
        assert counted["memorized"][j] == pytest.approx(sum(f == z for f, z, _ in wrong) / len(wrong))
        assert counted["corrected"][j] == pytest.approx(sum(f == y for f, _, y in wrong) / len(wrong))
        assert counted["clean_fit"][j] == pytest.approx(sum(f == z for f, z in clean) / len(clean))


def test_a_redrawn_label_that_is_right_by_chance_is_no_memory():
    trainer = trained(SMALL, seeds=(0,), epochs=0)
    lucky = trainer.corrupted[0] & (trainer.labels[0] == trainer.data.y_train)
    assert lucky.any()  # there is something to get wrong
    trainer.engine.outputs = lambda theta, runs: torch.nn.functional.one_hot(trainer.data.y_train, 10)[None].float()
    counted = Memorization().measure(trainer, [0])
    assert counted["memorized"].item() == 0  # one who knows only the truth has memorized nothing
    assert counted["clean_fit"].item() == counted["corrected"].item() == 1


def test_without_wrong_labels_there_is_nothing_to_memorize():
    with pytest.raises(ValueError, match=r"label_noise=0.0 leaves 0 of 64 labels wrong"):
        Memorization().measure(trained(Task("digits", MLP((8,)), train_size=64), epochs=0), [0])


# --- the theorems ----------------------------------------------------------------------------

RNG = numpy_generator(0, "memorization")
PHI, Z, RATE, STEPS = RNG.normal(size=(3, 2)), RNG.normal(size=3), 0.2, 3


def descend(batches, labels, residual=lambda f, z: f - z):
    theta = np.zeros(2)
    for batch in batches:
        rows = list(batch)
        theta = theta - RATE * PHI[rows].T @ residual(PHI[rows] @ theta, labels[rows]) / len(rows)
    return theta


def mean_of_sgd(**more):
    return np.mean([descend(b, Z, **more) for b in itertools.product([(0,), (1,), (2,)], repeat=STEPS)], axis=0)


def test_noise_does_not_move_the_mean_of_a_linear_model():
    """All 27 orders in which three single examples can be drawn; a logistic model is moved."""
    whole = [(0, 1, 2)] * STEPS
    np.testing.assert_allclose(mean_of_sgd(), descend(whole, Z), atol=1e-14)
    logistic = {"residual": lambda f, z: 1 / (1 + np.exp(-3 * f)) - (z > 0)}
    assert np.abs(mean_of_sgd(**logistic) - descend(whole, Z, **logistic)).max() > 1e-4


def test_the_share_of_the_noise_that_a_linear_model_learns():
    """All signs of the random parts of the labels, which are ±1."""
    eigenvalues = np.linalg.eigvalsh(PHI @ PHI.T / 3)
    learnt = [
        np.array(e) @ PHI @ descend([(0, 1, 2)] * STEPS, Z + np.array(e)) for e in itertools.product([1, -1], repeat=3)
    ]
    assert np.mean(learnt) / 3 == pytest.approx(np.mean(1 - (1 - RATE * eigenvalues) ** STEPS))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_spread_under_momentum(momentum):
    rate, curvature, batch, noise = 0.1, 3.0, 4, 2.0
    # v' = μv + λθ + ξ, θ' = θ − ηv'
    A = np.array([[1 - rate * curvature, -rate * momentum], [curvature, momentum]])
    b = np.array([[-rate], [1.0]])
    exact = solve_discrete_lyapunov(A, noise / batch * b @ b.T)[0, 0]
    stiff = rate * curvature
    law = rate / (batch * (1 - momentum)) * noise / curvature * (1 + momentum) / (2 * (1 + momentum) - stiff)
    assert law == pytest.approx(exact, rel=1e-10)
    assert law == pytest.approx(rate / (batch * (1 - momentum)) * noise / (2 * curvature), rel=0.2)


def test_momentum_and_plain_descent_meet_at_equal_effective_clock():
    """Without noise; the distance is of first order in the learning rate, and without 1 − μ they do not meet."""
    task = Task("digits", MLP(()), train_size=64, loss="squared")

    def end(lr, momentum, clock=1.0):
        one = Run(task, SGD(lr, 64, momentum=momentum), 0, Clock((1 - momentum) * clock))
        trainer = Trainer(Stack((one,)), load("digits"), dtype=torch.float64).train()
        table = pd.DataFrame({"momentum": [momentum], "lr": [lr], "clock": trainer.clock})
        return trainer.theta[0], effective(table).iloc[0]

    distances = []
    for lr in (0.01, 0.005):
        (plain, a), (heavy, b) = end(lr, 0.0), end(lr * 0.5, 0.5)
        assert (a.lr, a.clock) == pytest.approx((b.lr, b.clock))
        distances.append((plain - heavy).norm().item())
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.15)
    assert (plain - end(0.0025, 0.5, clock=2.0)[0]).norm() > 10 * distances[1]


# --- landmarks -------------------------------------------------------------------------------


def path(memorized, validation, test=None, seed=0, lr=0.1, batch_size=16):
    n = len(memorized)
    return pd.DataFrame(
        {"label_noise": 0.5, "momentum": 0.0, "lr": lr, "batch_size": batch_size, "ratio": lr / batch_size}
        | {"seed": seed, "step": range(n), "epoch": range(n), "at_clock": 10.0 * np.arange(n), "memorized": memorized}
        | {"validation_accuracy": validation, "test_accuracy": validation if test is None else test}
    )


def test_levels_are_interpolated_at_the_first_crossing_and_censored_elsewhere():
    looks = path([0.1, 0.3, 0.7, 0.4, 0.8], [0.9, 0.8, 0.6, 0.5, 0.4]).sample(frac=1, random_state=1)
    there = at_equal_memorization(looks, [0.05, 0.3, 0.5, 0.9]).set_index("level")
    assert there.validation_accuracy.loc[[0.3, 0.5]].tolist() == pytest.approx([0.8, 0.7])
    assert there.at_clock.loc[[0.3, 0.5]].tolist() == pytest.approx([10, 15])
    assert there.reached.tolist() == [False, True, True, False]
    assert there.validation_accuracy.isna().tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        at_equal_memorization(looks, [50])


def test_the_best_moment_is_chosen_on_one_set_and_scored_on_another():
    best = at_best(path([0.1, 0.2, 0.3], [0.7, 0.9, 0.8], test=[0.99, 0.6, 0.98])).iloc[0]
    assert (best.peak_accuracy, best.peak_clock) == (0.6, 10)


def test_a_run_without_landmarks_keeps_its_row():
    series = pd.concat([path([0.1, 0.6], [0.9, 0.8]), path([0.1, 0.2], [0.9, 0.8], seed=1)])
    table = pd.concat([series.groupby("seed").head(1), path([0], [0], seed=2)])
    table = table[["label_noise", "momentum", "lr", "batch_size", "seed"]]
    landmarks = with_landmarks(table, series)
    assert landmarks.reached.tolist() == [True, False, False]
    assert landmarks.peak_accuracy.isna().tolist() == [False, False, True]


def test_lines_end_where_the_first_run_does():
    series = pd.concat([path([0.1, 0.9], [0.9, 0.5]), path([0.1, 0.5], [0.9, 0.7], seed=1)])
    line = by_ratio(at_equal_memorization(series, [0.3, 0.5, 0.7]), "validation_accuracy")
    assert line.level.tolist() == [0.3, 0.5]
    assert line.n.tolist() == [2, 2]


# --- quenches --------------------------------------------------------------------------------


def test_a_quench_ends_the_noise_at_its_moment(tmp_path):
    sweep = quenches(SMALL, 0.1, 16, [0, 1], moments=[2, 4, 4], still=0.05, clock=0.5, examples=64)
    assert len(sweep) == 4
    table = run(sweep, [Memorization(), Loss()], store=tmp_path).table()
    # 4 steps an epoch at 0.1, then 10 steps at 0.05
    assert sorted(set(table.steps)) == [18, 26]
    assert table.clock.tolist() == pytest.approx((table.steps - 10) * 0.1 + 0.5)
    noisy = run(Sweep.grid(SMALL, lr=0.1, batch_size=16, seed=[0], until=Epochs(2)), [Loss()], store=tmp_path).table()
    assert table.train_loss.iloc[0] < noisy.train_loss.iloc[0]


def test_moments_lie_around_half_memorization():
    series = pd.concat([path([0.0, 0.1, 0.2, 0.4, 0.6, 0.8], np.linspace(1, 0.5, 6), seed=s) for s in (0, 1)])
    series["epoch"] *= 10
    assert moments_around_half(series, 0.1, 16, (0.5, 1.0, 1.01, 1.5)) == [18, 35, 52]


# --- claims ----------------------------------------------------------------------------------


def world(gain=0.0, delay=0.5, wobble=0.0, seeds=8, looks=40, last=400.0):
    """Runs that memorize along the clock, later by ratio^delay, with ``gain`` points at equal memorization.

    wobble: how much more the accuracies of a high ratio fluctuate from look to look.
    """
    rng = numpy_generator(3, "world")
    rows, ends = [], []
    for seed, lr, batch_size in itertools.product(range(seeds), (0.05, 0.2), (16, 64)):
        ratio = lr / batch_size
        clock = np.geomspace(1, last * ratio / 0.0008, looks)  # equal epochs
        m = 1 / (1 + (40 * (ratio / 0.0008) ** delay * np.exp(rng.normal(0, 0.03)) / clock) ** 3)
        a = 0.8 - 0.4 * m + gain / 100 * np.log10(ratio / 0.0008) + rng.normal(0, 0.004)
        scatter = 0.002 + wobble * (ratio > 0.01)
        series = path(m, a + rng.normal(0, scatter, looks), a + rng.normal(0, scatter, looks), seed, lr, batch_size)
        rows.append(series.assign(at_clock=clock))
        end = {"memorized": m[-1], "validation_accuracy": a[-1], "clock": clock[-1], "epochs": 100.0}
        ends.append(series[["label_noise", "momentum", "lr", "batch_size", "ratio", "seed"]].head(1).assign(**end))
    series = pd.concat(rows)
    return with_landmarks(pd.concat(ends).assign(diverged=False, finished=True), series), series


def verdict(claim, table, protocol="equal epochs"):
    return judge(claim.at(protocol), table).verdict


@pytest.mark.parametrize(("gain", "expected"), [(3, SUPPORTED), (0, UNDECIDED), (-3, REFUTED)])
def test_effect_null_and_the_reverse_are_told_apart(gain, expected):
    table, series = world(gain)
    assert verdict(C10a, table) == expected
    levels = gain_by_level(at_equal_memorization(series, [0.3, 0.5]))
    assert levels.value.tolist() == pytest.approx([gain, gain], abs=0.8)
    assert levels.censored.tolist() == [0, 0]


def test_bugs_turn_the_verdict_on_equal_memorization():
    table, _ = world(3, last=60.0)
    assert verdict(C10a, table) == SUPPORTED
    # the end of training in place of equal memorization: there the clock speaks
    assert verdict(C10a, table.assign(accuracy_at_half=table.validation_accuracy)) == REFUTED
    assert verdict(C10a, table.assign(lr=table.batch_size, batch_size=table.lr)) == REFUTED  # S/η for η/S


def test_censored_runs_make_the_claim_void():
    table, _ = world(3, last=40.0)
    assert 0.1 < 1 - table.reached.mean() < 1
    assert verdict(C10a, table) == VOID


def test_memorization_at_the_end_hangs_on_the_protocol():
    epochs, series = world()
    assert verdict(C10b, epochs) == REFUTED  # a higher ratio has trained for longer
    early = series[series.at_clock <= 50.0].groupby(["lr", "batch_size", "seed"]).tail(1).assign(clock=50.0)
    early = early.assign(diverged=False, finished=True)
    assert verdict(C10b, early, "equal clock") == SUPPORTED
    assert verdict(C10d, early, "equal clock") == SUPPORTED  # less memorized is more accurate
    assert verdict(C10b, early.assign(memorized=0.5), "equal clock") == UNDECIDED
    assert verdict(C10b, epochs, "equal clock") == VOID


def test_the_best_of_noisy_looks_is_not_taken_for_a_gain():
    table, series = world(wobble=0.05)
    assert verdict(C10c, table) == UNDECIDED
    chosen = series.groupby(["lr", "batch_size", "seed"]).validation_accuracy.max().rename("peak_accuracy")
    naive = table.drop(columns="peak_accuracy").merge(chosen.reset_index(), on=["lr", "batch_size", "seed"])
    assert verdict(C10c, naive) == SUPPORTED  # the winner's curse: scored on the set that chose
    assert verdict(C10c, world(3)[0]) == SUPPORTED
    assert verdict(C10c, world(-3)[0]) == REFUTED


@pytest.mark.parametrize(("gain", "expected"), [(3, SUPPORTED), (0, UNDECIDED), (-3, REFUTED)])
def test_quenched_runs_are_judged_at_equal_loss(gain, expected):
    series = world(gain)[1]
    looks = series.assign(train_loss=1.2 - series.memorized, clock=series.at_clock, steps=series.step)
    table = half_quenched(after_quench(looks.assign(diverged=False, finished=True)))
    assert table.train_loss.to_numpy() == pytest.approx(0.7)
    assert verdict(C10e, table, "equal loss") == expected
    unequal = table.assign(train_loss=table.train_loss * np.where(table.lr > 0.1, 3, 1))
    assert verdict(C10e, unequal, "equal loss") == VOID
    lost = looks.assign(diverged=looks.seed < 3, finished=looks.seed >= 3)
    assert verdict(C10e, half_quenched(after_quench(lost)), "equal loss") == VOID


def test_what_could_have_been_found():
    table = world()[0]
    spread = np.std(C10a.statistic(table, "accuracy_at_half").per_seed, ddof=1)
    assert detectable(C10a, table) > spread * 2.4 / np.sqrt(8)
    assert detectable(C10a, table, power=0.9) > detectable(C10a, table)
    assert detectable(C10b, table.assign(memorized=1.0)) == 0


# --- from training to the table --------------------------------------------------------------


def test_a_tiny_sweep_with_random_labels_goes_all_the_way(tmp_path):
    from threefactors import Accuracy

    at = AtClock(tuple(np.geomspace(1, 60, 12)))
    probes = [Memorization(at=at), Accuracy(at=at), Accuracy("test", at=at), Memorization(), Accuracy()]
    task = Task("digits", MLP((32,)), train_size=64, label_noise=0.5)
    sweep = Sweep.grid(task, lr=[0.1, 0.2], batch_size=[8, 16], seed=range(5), until=Epochs(80))
    result = run(sweep, probes, store=tmp_path)
    table = with_landmarks(result.table(), result.series())
    assert len(table) == 20
    assert table.reached.mean() > 0.9
    assert (table.memorized > 0.5).mean() > 0.9
    assert verdict(C10a, table) != VOID


# --- figures ---------------------------------------------------------------------------------


def test_figures_draw_a_line_for_each_ratio_and_arm():
    crossings = at_equal_memorization(world(2)[1], [0.3, 0.5])
    curves = by_ratio(crossings, "validation_accuracy")
    ax = against_memorized(curves, ylabel="accuracy", control=curves[curves.ratio == curves.ratio.min()])
    assert [line.get_linestyle() for line in ax.lines] == ["--", *["-"] * curves.ratio.nunique()]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 100 * curves[curves.ratio == curves.ratio.min()].value)
    table = pd.concat([gain_by_level(crossings).assign(label=label) for label in ("a", "b")])
    assert len(gains(table, at=0.5).containers) == 2
