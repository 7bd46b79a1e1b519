"""The edge of stability: its limits in closed form, climbing runs, and claims that notice planted bugs."""

import math

import numpy as np
import pandas as pd
import pytest
from threefactors import MLP, Task
from threefactors._rng import numpy_generator
from threefactors.experiments.edge import climb, climbs, highest_level, levels, warm_up
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, judge
from threefactors.inference.claims.depth import D1a, D1b, D2a, D2b, D3a, D3b
from threefactors.inference.claims.width import C4, C3a, C3b
from threefactors.presentation import depth, figures
from threefactors.simulation.edge import self_stabilization
from threefactors.simulation.ensemble import simulate
from threefactors.theory.edge import gaussian_limit, sharpness_gap
from threefactors.theory.regression import regression_limit

from tests.tables import shuffled, sweep

# --- the limit of a step ---------------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.01, 0.3, 2.0])
def test_a_step_lowers_the_loss_by_how_far_its_curvature_is_below_two_over_lr(lr):
    """L' − L = −½‖s‖²(2/η − h̄), h̄ by Gauss–Legendre: exact for a quartic, on both sides of 2/η."""
    rng = numpy_generator(0, "quartic")
    A, b = rng.normal(size=(6, 3)), rng.normal(size=6)

    def loss(theta):
        return ((A @ theta - b) ** 4).sum() / 24 + ((A @ theta) ** 2).sum() / 2

    theta = rng.normal(size=3)
    u = A @ theta
    s = -lr * A.T @ ((u - b) ** 3 / 6 + u)
    nodes, weights = np.polynomial.legendre.leggauss(5)
    tau, weights = (nodes + 1) / 2, weights / 2
    along = [(A @ s) ** 2 @ ((A @ (theta + t * s) - b) ** 2 / 2 + 1) for t in tau]
    h = (weights * 2 * (1 - tau)) @ along / (s @ s)
    assert loss(theta + s) - loss(theta) == pytest.approx(-(s @ s) / 2 * (2 / lr - h), rel=1e-10)
    assert (h < 2 / lr) == (loss(theta + s) < loss(theta)) == (lr == 0.01)


def test_the_third_derivative_along_the_sharpest_direction_is_the_gradient_of_the_sharpness():
    """What the model of two variables rests on: ∇³L(u, u) = ∇λ_max, for a quartic, by finite differences."""
    rng = numpy_generator(7, "quartic")
    A, b, theta = rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=3)

    def hessian(at):
        return A.T @ ((((A @ at - b) ** 2) / 2 + 1)[:, None] * A)

    u = np.linalg.eigh(hessian(theta))[1][:, -1]
    third = A.T @ ((A @ theta - b) * (A @ u) ** 2)
    steps = 1e-5 * np.eye(3)
    sharper = [np.linalg.eigvalsh(hessian(theta + e))[-1] - np.linalg.eigvalsh(hessian(theta - e))[-1] for e in steps]
    np.testing.assert_allclose(np.array(sharper) / 2e-5, third, rtol=1e-5)


# --- where the sharpness rests ---------------------------------------------------------------

MODEL = {"lr": 0.1, "sharpening": 0.005, "restoring": 2.0}


@pytest.mark.parametrize("noise", [0.1, 0.2])
def test_the_model_rests_where_the_closed_form_says(noise):
    """2/η − Δ, in the limit in which λ moves slowly; planted: without the square root's factor of 2 it is outside."""
    at = np.arange(8000, 12001, 50)
    dynamics = self_stabilization(**MODEL, noise=noise)
    path = simulate(dynamics, [0.05, 19.0], int(at[-1]), trajectories=256, seed=0, at=at, threads=1)
    rest, gap = path.means[:, 1].mean(), sharpness_gap(**MODEL, noise=noise)
    assert gap > 1
    assert 20 - rest == pytest.approx(gap, rel=0.1)
    assert abs(20 - rest - 2 * gap) > 0.5 * gap
    assert abs(20 - rest - gap / 2) > 0.25 * gap


def test_without_noise_it_rests_at_two_over_lr():
    at = np.arange(4000, 12001)
    path = simulate(self_stabilization(**MODEL), [0.05, 19.0], int(at[-1]), trajectories=1, seed=0, at=at, threads=1)
    assert path.means[:, 1].mean() == pytest.approx(20, rel=0.02)
    assert sharpness_gap(**MODEL, noise=0.0) == 0


def test_the_gap_solves_its_balance_and_is_inverse_to_the_batch_size():
    eta, alpha, beta, v = 0.2, 0.3, 1.5, 2.0
    gap = sharpness_gap(eta, v, alpha, beta)
    sharpness = 2 / eta - gap
    assert eta * v / (sharpness * (2 - eta * sharpness)) == pytest.approx(2 * alpha / beta)
    small = [sharpness_gap(eta, 1e-3 * v / S, alpha, beta) for S in (1, 10)]
    assert small[0] / small[1] == pytest.approx(10, rel=1e-3)
    assert small[0] == pytest.approx(eta * beta * 1e-3 * v / (4 * alpha), rel=1e-3)


def test_too_much_noise_is_refused_with_the_most_there_may_be():
    with pytest.raises(ValueError, match=r"rests? nowhere above 1/lr; use noise <= 60"):
        sharpness_gap(0.1, 61.0, 0.3, 1.0)
    assert sharpness_gap(0.1, 60.0, 0.3, 1.0) == pytest.approx(10.0, rel=1e-6)
    with pytest.raises(ValueError, match="use noise >= 0"):
        sharpness_gap(0.1, -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="use > 0, and noise >= 0"):
        self_stabilization(0.1, 0.0, 1.0)


# --- the limit of a noisy step ---------------------------------------------------------------


@pytest.mark.parametrize("variances", [[3.0], [3.0, 1.0, 1.0], [5.0, 0.2, 0.2, 0.2, 0.2], [2.0, 2.0, 2.0]])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_three_moments_give_the_limit_of_a_spectrum_of_two_levels(variances, batch_size):
    a = np.array(variances)
    limit = gaussian_limit(a.max(), a.sum(), np.linalg.norm(a), batch_size)
    assert limit == pytest.approx(a.max() * regression_limit(a, batch_size))
    assert limit < 2


def test_for_other_spectra_it_is_close():
    a = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.1])
    limit = gaussian_limit(a.max(), a.sum(), np.linalg.norm(a), 4)
    assert limit == pytest.approx(a.max() * regression_limit(a, 4), rel=0.03)


@pytest.mark.parametrize("moments", [(0.0, 1.0, 1.0), (2.0, 1.0, 2.0), (2.0, 3.0, 1.0), (math.nan, 1.0, 1.0)])
def test_moments_that_no_hessian_has_are_refused(moments):
    with pytest.raises(ValueError, match="use 0 < sharpness <= both"):
        gaussian_limit(*moments, 4)


def test_a_step_of_one_dimension_by_enumeration():
    """E(1 − ηq̄)² over every batch is below 1 exactly where η < 2/(λ + s²/(Sλ)); with √S for S it is not."""
    q, S = np.array([0.5, 1.0, 4.0]), 3
    means = np.array(np.meshgrid(*[q] * S)).reshape(S, -1).mean(0)

    def limit(size):
        return 2 / (q.mean() + q.var() / (size * q.mean()))

    for lr in (0.999 * limit(S), 1.001 * limit(S), 0.999 * limit(math.sqrt(S))):
        assert (np.mean((1 - lr * means) ** 2) < 1) == (lr < limit(S))


# --- runs that climb -------------------------------------------------------------------------

TASK = Task("digits", MLP((8,)), train_size=96, loss="squared")


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return climb(TASK, [0.02, 0.04], 4.0, range(2), [32, 96], looks=8, store=store, progress=False)


def test_a_climb_goes_through_one_clock_at_every_rate_and_batch(climbed):
    table = climbed.table()
    assert len(table) == 8
    assert table.finished.all()
    assert table.clock.between(3.99, 4.05).all()
    assert table.sharpness_converged.all()
    assert (table.trace > 0).all()
    assert set(climbs(climbed).lr) == {0.02, 0.04}
    with pytest.raises(ValueError, match="give the task a train_size"):
        climb(Task("digits", MLP((8,))), [0.1], 1.0, [0])


def test_the_warm_up_ends_at_the_rate_asked_for_after_as_many_steps_for_every_batch():
    for size in (32, 96):
        settings = warm_up(0.04, size, 96, doublings=3, hold=4)
        per_epoch = 96 // size
        rates = [settings["lr"] * settings["lr_schedule"](step / per_epoch) for step in range(16)]
        np.testing.assert_allclose(rates, np.repeat([0.005, 0.01, 0.02, 0.04], 4))
    with pytest.raises(ValueError, match="use whole numbers >= 1"):
        warm_up(0.1, 8, 96, doublings=0)


def test_levels_are_medians_of_the_second_half_or_peaks(climbed):
    table, looks = levels(climbed), climbs(climbed)
    assert sorted(table.lr.unique()) == [0.02, 0.04]
    assert len(table) == 8
    np.testing.assert_allclose(table.predicted_plateau, 2 / table.lr)
    np.testing.assert_allclose(table.gap, 1 - table.plateau / table.predicted_plateau)
    for row in table.itertuples():
        own = looks[(looks.lr == row.lr) & (looks.batch_size == row.batch_size) & (looks.seed == row.seed)]
        assert own.look.tolist() == list(range(len(own)))
        late = own[own.at_clock > own.at_clock.max() / 2]
        assert row.plateau == late.sharpness.median()
    assert (levels(climbed, peak=True).plateau <= looks.sharpness.max()).all()


def test_a_spike_is_no_level_but_a_stay_is():
    values = np.ones(40)
    values[10:14] = 100.0
    assert highest_level(values) == 1
    values[20:26] = 5.0
    assert highest_level(values) == 5
    assert highest_level(np.array([1.0, 3.0, 2.0])) == 2


# --- the claims, with effects that are planted, absent and reversed --------------------------


def climbs_to(rng, power=-1.0, size=1.0, batches=(288,), fall=0.0):
    """Plateaus size · 2 lr^power (S/N)^fall with a spread over seeds."""
    rows = [
        {"lr": lr, "batch_size": S, "seed": seed, "clock": 60.0, "epochs": 60 / lr, "diverged": False, "finished": True,
         "plateau": size * 2 * lr**power * (S / 288) ** fall * math.exp(0.05 * rng.normal())}
        for lr in (0.08, 0.16, 0.32) for S in batches for seed in range(8)
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(predicted_plateau=lambda t: 2 / t.lr)
    return table.assign(gap=1 - table.plateau / table.predicted_plateau)


@pytest.mark.parametrize(
    ("planted", "first", "second"),
    [
        ({}, SUPPORTED, SUPPORTED),
        ({"size": 0.5}, REFUTED, SUPPORTED),  # 1/η for 2/η
        ({"power": -0.5}, REFUTED, REFUTED),
        ({"power": 0.0, "size": 0.16**-1}, REFUTED, REFUTED),  # a sharpness that does not know η
    ],
)
def test_the_climb_is_judged(planted, first, second):
    table = climbs_to(numpy_generator(1, "climb"), **planted)
    assert judge(D1a.at("equal clock"), table).verdict == first
    assert judge(D1b.at("equal clock"), table).verdict == second


@pytest.mark.parametrize(
    ("planted", "first", "second"),
    [
        ({"fall": 0.3}, SUPPORTED, SUPPORTED),
        ({}, UNDECIDED, UNDECIDED),  # every batch at 2/η
        ({"fall": -0.3}, REFUTED, REFUTED),
    ],
)
def test_small_batches_are_judged(planted, first, second):
    rng = numpy_generator(2, "batches")
    table = climbs_to(rng, batches=(4, 12, 36, 288), **planted)
    assert judge(D2a.at("equal clock"), table[table.batch_size < 288]).verdict == first
    assert judge(D2b.at("equal clock"), table).verdict == second


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(-1.0, 0.0, (SUPPORTED, SUPPORTED)), (-0.5, 0.5, (REFUTED, REFUTED)), (-1.0, 1.0, (SUPPORTED, REFUTED))],
)
def test_stability_and_ratio_are_told_apart(a, b, expected):
    """λ ∝ 1/η supports step stability and refutes the ratio; λ ∝ (S/η)^p does the opposite."""
    table = sweep(numpy_generator(3, "grid"), a=a, b=b, noise=0.15)
    verdicts = tuple(judge(claim.at("equal epochs"), table).verdict for claim in (D3a, D3b))
    assert verdicts == expected
    assert judge(C3b.at("equal epochs"), table).verdict == (REFUTED if b == 0 else SUPPORTED)
    assert judge(C3a.at("equal epochs"), table).verdict == SUPPORTED  # both readings look the same along the ratio


def test_a_grid_without_any_effect_supports_no_width_claim():
    table = shuffled(sweep(numpy_generator(4, "grid")), numpy_generator(5, "deal"))
    assert judge(C3a.at("equal epochs"), table).verdict == UNDECIDED
    assert judge(C4.at("equal epochs"), table).verdict == UNDECIDED
    assert judge(D3a.at("equal epochs"), table).verdict == REFUTED


def test_too_many_lost_runs_leave_the_claim_void():
    table = climbs_to(numpy_generator(6, "climb"))
    lost = table.assign(diverged=table.lr > 0.3)
    assert judge(D1a.at("equal clock"), lost).verdict == VOID


# --- figures ---------------------------------------------------------------------------------


def test_figures_draw_limits_controls_and_lost_runs():
    curve = pd.DataFrame({"x": [1, 2, 3], "value": [5.0, 20, 21], "low": [4.0, 19, 20], "high": [6.0, 21, 22]})
    tables = {name: pd.concat([curve.assign(label="0.1"), curve.assign(label="slow")]) for name in "ab"}
    figure = depth.apart(depth.along_the_clock, tables, limits={"a": {"0.1": 20.0}, "b": {"0.1": 20.0}})
    for ax in figure.axes:
        colors = [line.get_color() for line in ax.get_lines()]
        assert colors[0] == colors[2] != figures.GRAY  # the limit has the color of its curve
        assert colors[1] == figures.GRAY
        assert ax.get_lines()[2].get_ydata()[0] == 20
    points = pd.DataFrame({"lr": [0.1, 0.1, 0.2], "batch_size": [8, 16, 8], "value": [1.0, 2, 1], "lost": [1, 0, 0],
                           "low": [0.9, 1.9, np.nan], "high": [1.1, 2.1, np.nan], "n": [7, 8, 1]})  # fmt: skip
    ax = depth.steps_across(points, marks={2.0: "--"})
    assert "1 of 17 runs lost" in [text.get_text() for text in ax.texts]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16"]
    figures.alone(ax)
