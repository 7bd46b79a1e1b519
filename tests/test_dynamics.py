"""Learning curves of pairs: comparison in closed form, claims that notice what was planted, schedules on one clock."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from threefactors import MLP, Accuracy, Epochs, Every, Loss, SquareCycle, Step, Task, TriangularCycle
from threefactors._rng import numpy_generator
from threefactors.experiments.curves import LearningCurve, Mirror, constant, follow, mirrored
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, judge
from threefactors.inference.claims.dynamics import C1, T1, C2a, C2b, C2c
from threefactors.inference.curves import (
    BANDS,
    along,
    averaged,
    clock_share,
    crossing,
    distance,
    distance_interval,
    drawn,
    gaps,
    points,
    read,
)
from threefactors.inference.slopes import Unmeasurable
from threefactors.presentation.curves import at_losses, distances, gap_bands, learning_curves

EPOCHS = 24
AT = points(EPOCHS)


def curve(ratio, *, noise_counts=0.0, seeds=8, scatter=0.03, stream=""):
    """L = e^{noise_counts · ratio}/(1 + T) with T = 1000 · ratio · epoch; accuracies and Tr H follow the loss."""
    epoch = np.arange(EPOCHS + 1)
    rng = numpy_generator(0, f"curves {ratio} {noise_counts} {stream}")
    tables = []
    for seed in range(seeds):
        clock = 1000 * ratio * epoch
        log = noise_counts * ratio - np.log1p(clock) + scatter * rng.normal(size=len(epoch))
        right = 1 - 0.2 * np.exp(log) + 0.1 * scatter * rng.normal(size=(2, len(epoch)))
        rows = {"train_loss": np.exp(log), "train_accuracy": right[0], "validation_accuracy": right[1] - 0.03}
        rows |= {"trace": 50 * np.exp(log), "epoch": epoch, "at_clock": clock, "seed": seed}
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


# --- reading a curve ---------------------------------------------------------------------------


def test_points_leave_out_the_first():
    np.testing.assert_allclose(points(24.0), 2.0 * np.arange(2, 13))
    with pytest.raises(ValueError, match="last=0"):
        points(0)
    with pytest.raises(ValueError, match="leave_out=11"):
        points(1.0, leave_out=11)


def test_a_crossing_is_exact_where_the_logarithm_of_the_loss_is_linear():
    x = np.arange(6.0)
    np.testing.assert_allclose(crossing(x, np.exp(-x), np.exp([-0.25, -3.0, -4.9])), [0.25, 3.0, 4.9])
    assert np.isnan(crossing(x, np.exp(-x), np.array([2.0, 1e-9]))).all()  # never above, never down to


def test_the_first_of_several_crossings_counts():
    assert crossing(np.arange(4.0), np.array([4.0, 1.0, 4.0, 1.0]), np.array([2.0])) == pytest.approx(0.5)


def test_curves_are_read_at_epochs_clocks_and_losses():
    one = curve(1e-3, seeds=1, scatter=0.0)  # T = epoch, L = 1/(1 + T)
    for protocol, where in (("equal epochs", [3.0, 7.0]), ("equal clock", [3.0, 7.0]), ("equal loss", [1 / 4, 1 / 8])):
        found = read(one, protocol, where, ["train_loss", "trace", "train_accuracy"])
        np.testing.assert_allclose(np.exp(found.train_loss), [1 / 4, 1 / 8])
        np.testing.assert_allclose(np.exp(found.trace), [50 / 4, 50 / 8])
        np.testing.assert_allclose(found.train_accuracy, [1 - 0.05, 1 - 0.025])
    assert read(one, "equal clock", [25.0], ["train_loss"]).train_loss.isna().all()
    with pytest.raises(ValueError, match="compares no curves"):
        read(one, "equal temper", [1.0], ["train_loss"])
    with pytest.raises(ValueError, match="names no training loss"):
        gaps(one, one, "equal loss")
    with pytest.raises(ValueError, match="has no band"):
        read(one, "equal epochs", [1.0], ["sharpness"])


def test_looks_without_a_positive_trace_are_passed_over():
    one = curve(1e-3, seeds=1, scatter=0.0)
    sparse = one.assign(trace=one.trace.where(one.epoch.isin([2, 4])).mask(one.epoch == 3, -1.0))
    value = read(sparse, "equal epochs", [3.0], ["trace"]).trace
    np.testing.assert_allclose(value, (np.log(50 / 3) + np.log(50 / 5)) / 2)


# --- pairs -------------------------------------------------------------------------------------


def test_gaps_are_second_minus_first_in_half_widths():
    """At half the ratio 1/(1 + T) is almost twice as high: ln((1 + T)/(1 + T/2)) over ½ ln 2; at equal clock, equal."""
    fast, slow = curve(4e-3, scatter=0.0), curve(2e-3, scatter=0.0)
    table = gaps(fast, slow, "equal epochs", AT)
    exact = np.log((1 + 4 * table.point) / (1 + 2 * table.point)) / (np.log(2) / 2)
    np.testing.assert_allclose(table.train_loss_gap, exact)
    np.testing.assert_allclose(table.epochs, table.point)
    assert table.finished.all()
    same = gaps(fast, slow, "equal clock")
    assert same.clock.max() == 48.0  # as far as both have come
    assert same.train_loss_gap.abs().max() < 0.1  # what interpolation leaves
    level = gaps(fast, slow, "equal loss", [0.2, 0.05], measures=["trace"])
    assert level.trace_gap.abs().max() < 1e-9


def test_no_seed_is_dropped():
    """One seed diverges (its curve ends early), one is missing in the second curve: both keep their rows."""
    first, second = curve(1e-3), curve(1e-3, stream="other")
    cut = second[~((second.seed == 2) & (second.epoch > 5)) & (second.seed != 3)]
    table = gaps(first, cut.assign(diverged=cut.seed == 2), "equal epochs")
    np.testing.assert_array_equal(table.point.unique(), AT)
    assert len(table) == 8 * len(AT)
    assert set(table[table.diverged].seed) == {2}
    assert set(table[~table.finished & ~table.diverged].seed) == {3}
    verdict = judge(C1.at("equal epochs"), table)
    assert verdict.verdict == VOID  # a quarter was lost
    assert "were lost" in verdict.reason
    assert set(averaged(table).query("not finished").seed) == {2, 3}


def test_the_distance_does_not_count_the_scatter_of_seeds():
    """Mean curves that are 0.2 apart, and equal ones, under a scatter larger than that."""
    rng = numpy_generator(1, "distance")

    def table(shift):
        gap = (shift + rng.normal(0, 0.5, size=(80, 8, 11))) / BANDS["train_loss"]
        return [
            pd.DataFrame({"seed": np.repeat(range(8), 11), "point": np.tile(range(11), 8), "train_loss_gap": g.ravel()})
            .assign(finished=True) for g in gap
        ]  # fmt: skip

    squares = np.array([distance(t) ** 2 for t in table(0.2)])
    assert abs(squares.mean() - 0.04) < 4 * squares.std() / np.sqrt(80)
    assert np.mean([distance(t) for t in table(0.0)]) < 0.08  # 0.18 with the scatter left in
    with pytest.raises(Unmeasurable, match="1 seeds of train_loss"):
        distance(table(0.0)[0].query("seed == 0"))


def test_the_clock_explains_all_none_or_part():
    rng = numpy_generator(2, "share")
    for effect, low, high in ((0.0, 0.99, 1.0), (60.0, 0.3, 0.95)):
        first, second = (curve(r, noise_counts=effect, scatter=0.01) for r in (8e-3, 4e-3))
        both = gaps(first, second, "equal epochs"), gaps(first, second, "equal clock")
        share = clock_share(*both, "train_loss", rng)
        assert low < share.value <= high
        assert share.low <= share.value <= share.high
    near = distance_interval(both[1], "train_loss", rng)
    assert near.low < 60.0 * 4e-3 < near.high  # e^{60 n} at equal clock: 0.24 in ln L
    assert share.value == pytest.approx(1 - (near.value / distance(both[0])) ** 2, abs=0.01)


# --- verdicts: planted effects and their absence -----------------------------------------------


def judged(claim, first, second, protocol):
    table = gaps(first, second, protocol, [0.2, 0.1, 0.05] if protocol == "equal loss" else None)
    return judge(claim.at(protocol), averaged(table) if claim is C2b else table).verdict


def test_curves_of_equal_ratio_overlap_and_a_planted_root_is_noticed():
    base, equal, root = curve(4e-3), curve(4e-3, stream="β = 4"), curve(2e-3)
    for claim in (C1, C2a):
        assert judged(claim, base, equal, "equal epochs") == SUPPORTED
        assert judged(claim, base, root, "equal epochs") == REFUTED  # √S for S


def test_a_single_point_outside_refutes():
    base, equal = curve(4e-3), curve(4e-3, stream="β = 4")
    spike = equal.assign(train_loss=equal.train_loss * np.where(equal.epoch == 12, 2.0, 1.0))
    assert judged(C1, base, spike, "equal epochs") == REFUTED
    early = equal.assign(train_loss=equal.train_loss * np.where(equal.epoch < 4, 2.0, 1.0))
    assert judged(C1, base, early, "equal epochs") == SUPPORTED  # nobody claims anything there


def test_equal_root_pairs_part_and_the_null_does_not():
    base, equal, root = curve(4e-3), curve(4e-3, stream="β = 4"), curve(2e-3)
    assert judged(C2b, base, root, "equal epochs") == SUPPORTED
    assert judged(C2b, base, equal, "equal epochs") == REFUTED
    assert judged(C2b, root, base, "equal epochs") == REFUTED  # reversed
    edge = equal.assign(train_loss=equal.train_loss * np.sqrt(2))
    assert judged(C2b, base, edge, "equal epochs") == UNDECIDED  # on the bound


def test_the_clock_claim_tells_whether_noise_counts():
    fast, slow = curve(4e-3), curve(2e-3)
    assert judged(T1, fast, slow, "equal clock") == SUPPORTED
    noisy = [curve(r, noise_counts=400.0) for r in (4e-3, 2e-3)]  # e^{0.8} apart at equal clock
    assert judged(T1, *noisy, "equal clock") == REFUTED
    assert judged(C2c, fast, slow, "equal loss") == SUPPORTED
    assert judged(C2c, fast, slow.assign(trace=slow.trace * 2), "equal loss") == REFUTED


# --- figures' tables ---------------------------------------------------------------------------


def test_flow_is_carried_along_the_clock_of_a_curve():
    flow, slow = curve(4e-3, scatter=0.0, seeds=2), curve(1e-3, scatter=0.0, seeds=3)
    carried = along(flow, slow).query("epoch >= 4")  # before that, its looks are too far apart
    assert len(carried) == 2 * (EPOCHS + 1 - 4)
    np.testing.assert_allclose(carried.train_loss, 1 / (1 + carried.epoch), rtol=0.05)
    on_its_own = along(slow, slow)
    np.testing.assert_allclose(on_its_own.train_loss, 1 / (1 + on_its_own.epoch), rtol=1e-9)


def test_figures_draw_every_curve_and_say_what_was_lost():
    named = {"η, S": curve(4e-3), "equal η/√S": curve(2e-3)}
    flow = curve(4e-3, scatter=0.0)
    for x, dotted in (("epoch", 2), ("at_clock", 1)):
        table = drawn(named, x, "train_loss", flow)
        ax = learning_curves(table, x=x, measure="train_loss", lost=(1, 16))
        assert isinstance(ax, Axes)
        assert len([line for line in ax.lines if len(line.get_xdata())]) == 2 + dotted
        assert "1 of 16 runs diverged" in [text.get_text() for text in ax.texts]
    levels = drawn(named, "epoch", "trace").query("x in (4, 8)")
    assert at_losses(levels, measure="trace").xaxis_inverted()
    band = pd.DataFrame({"pair": "a", "share": [0.5, 1.0], "value": [0.0, 4.0], "low": [-1.0, 3.0], "high": [1.0, 5.0]})
    assert gap_bands(band, ylabel="difference").get_yscale() == "symlog"
    dots = pd.DataFrame(
        {"what": ["a", "b"], "arm": "plain", "value": [0.1, 0.0], "low": [0.05, 0.0], "high": [0.2, 0.01]}
    )
    assert distances(dots, band=0.35).get_xscale() == "log"


# --- schedules that mirror each other, on networks ---------------------------------------------


@pytest.mark.parametrize(
    "growth", [Step((2, 4), 4), SquareCycle(period=2, low=1, high=4), TriangularCycle(period=6, low=1, high=4)]
)
def test_a_mirrored_schedule_has_the_same_ratio_at_every_epoch(growth):
    mirror = Mirror(growth)
    for epoch in np.arange(0, 8, 0.25):
        assert mirror(epoch) * growth(float(int(epoch))) == pytest.approx(1)
    with pytest.raises(TypeError, match="schedule"):
        Mirror(lambda epoch: 1.0)


def test_mirrored_runs_share_the_clock_and_the_probe_sees_what_others_see(tmp_path):
    cells = mirrored(0.05, 16, {"step": Step((1,), 4)})
    of_s, of_η = cells
    task = Task("digits", MLP((8,)), label_noise=0.25, train_size=192)
    probes = [LearningCurve(Every(1)), Loss(), Accuracy()]
    series, ends = follow(task, cells, seed=range(2), until=Epochs(3), probes=probes, store=tmp_path)
    assert list(ends.cell) == [of_s, of_s, of_η, of_η]
    assert len(series) == 4 * 4
    clocks = series.pivot_table(index=["seed", "epoch"], columns="cell", values="at_clock")
    np.testing.assert_allclose(clocks[of_s], clocks[of_η])
    last = series[series.epoch == 3].merge(ends, on=["cell", "seed"], suffixes=("", "_end"))
    np.testing.assert_allclose(last.train_loss, last.train_loss_end)
    np.testing.assert_allclose(last.validation_accuracy, last.validation_accuracy_end)
    assert ((last.train_accuracy > 0.1) & (last.train_accuracy < 0.9)).all()  # a quarter of the labels are random
    same = series[series.epoch <= 1].pivot_table(index=["seed", "epoch"], columns="cell", values="train_loss")
    np.testing.assert_array_equal(same[of_s], same[of_η])  # until the schedules part
    unseen, _ = follow(task, cells, seed=range(2), until=Epochs(1), probes=[Loss()], store=tmp_path)
    assert unseen.empty
    with pytest.raises(ValueError, match="leaves nothing to train"):
        follow(task, {}, seed=range(2), until=Epochs(1), store=tmp_path)


def test_constant_settings_keep_what_their_names_say():
    cells = constant(0.01, 16, 4)
    one = cells["η, S"]
    for name, keeps in {
        "equal η/S": lambda c: c["lr"] / c["batch_size"],
        "equal η/√S": lambda c: c["lr"] / c["batch_size"] ** 0.5,
        "equal η": lambda c: c["lr"],
        "equal S": lambda c: c["batch_size"],
    }.items():
        assert keeps(cells[name]) == pytest.approx(keeps(one))
        assert cells[name] != one
    with pytest.raises(ValueError, match="whole multiple"):
        constant(0.01, 16, 1.1)


def test_a_run_that_diverges_is_marked_in_its_curve(tmp_path):
    cells = {"calm": {"lr": 0.05, "batch_size": 16}, "wild": {"lr": 1e4, "batch_size": 16}}
    task = Task("digits", MLP((8,)), train_size=192)
    series, ends = follow(task, cells, seed=range(2), until=Epochs(2), store=tmp_path)
    assert ends.groupby("cell").diverged.sum().to_dict() == {"calm": 0, "wild": 2}
    calm, wild = (series[series.cell == name] for name in cells)
    table = gaps(calm, wild, "equal epochs", [1.0, 2.0])
    assert table.diverged.all()
    assert judge(C1.at("equal epochs"), table).verdict == VOID
