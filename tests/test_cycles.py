"""Cyclic schedules: their law against the recursion of SGD, their tables, and claims that notice what is planted."""

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.experiments.cycles import BatchFor, Design, Then, phase, run_schedules
from threefactors.experiments.probes import Loss
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, judge
from threefactors.inference.claims.cycles import WIDTHS, C9a, C9b, C9c, C9d, C9e
from threefactors.inference.cycles import CONSTANT, CYCLE, LogRatio, beside, by_knob, log_ratios
from threefactors.inference.slopes import Unmeasurable
from threefactors.presentation import cycles as drawn
from threefactors.theory.cycles import noise_after_square_cycle, noise_on_clock
from threefactors.training import MLP, SGD, Epochs, Task
from threefactors.training.schedules import SquareCycle, TriangularCycle

LOW, MEAN = 0.2, 0.6
SQUARE, TRIANGLE = SquareCycle(8, 1.0, LOW), TriangularCycle(8, LOW, 1.0)

# --- the law ---------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [0.003, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("turned", ["learning rate", "batch size"])
def test_variance_after_a_square_cycle_is_that_of_sgd_step_by_step(curvature, turned):
    """v ← (1 − ηλ)² v + η² c/S over many periods, whichever of the two is turned; errors of order ηλ are left."""
    rate, batch, steps, v = 1e-3, 10.0, 1800, 0.0
    high = [(rate, batch)] * steps
    low = [(LOW * rate, batch)] * steps if turned == "learning rate" else [(rate, batch / LOW)] * round(LOW * steps)
    period = high + low
    kept = np.prod([(1 - eta * curvature) ** 2 for eta, _ in period])
    for eta, size in period:
        v = (1 - eta * curvature) ** 2 * v + eta**2 / size
    v /= 1 - kept  # the fixed point of v ← kept·v + gained: what infinitely many periods lead to
    clock = sum(eta for eta, _ in period)
    n = noise_after_square_cycle(curvature, clock, LOW) * rate / batch
    assert v == pytest.approx(float(n) / (2 * curvature), rel=3e-3)


def test_slow_directions_see_the_mean_over_the_clock_and_steep_ones_the_end():
    flat, steep = noise_after_square_cycle([1e-7, 1e4], 10.0, LOW)
    assert flat == pytest.approx(noise_on_clock([1.0, LOW]), rel=1e-5)
    assert steep == pytest.approx(LOW)
    np.testing.assert_allclose(noise_after_square_cycle([0.1, 1.0], 10.0, 0.7, 0.7), 0.7)  # no cycle at all


def test_mean_over_the_clock_is_the_mean_over_equal_stretches_of_clock():
    """By brute force: read the triangle at equally spaced times of the clock; and by its integral."""
    epochs = (np.arange(200_000) + 0.5) / 25_000
    n = np.array([TRIANGLE(e) for e in epochs])
    at = np.interp(np.linspace(0, n.sum(), 20_001), n.cumsum(), n)
    assert noise_on_clock(n) == pytest.approx(at.mean(), rel=1e-3)
    assert noise_on_clock(n) == pytest.approx(2 * (1 + LOW + LOW**2) / (3 * (1 + LOW)), rel=1e-6)
    assert noise_on_clock([0.3] * 5) == pytest.approx(0.3)


# --- schedules -------------------------------------------------------------------------------


def test_batches_take_the_levels_and_both_cycles_have_one_clock():
    levels = (LOW, MEAN, 1.0)
    square, stairs = (BatchFor(profile, levels) for profile in (SQUARE, TRIANGLE))
    sizes = [[SGD(0.1, 24, batch_schedule=s).batch_at(e) for e in range(8)] for s in (square, stairs)]
    assert sizes == [[24] * 4 + [120] * 4, [120, 40, 40, 24, 24, 40, 40, 120]]
    steps = [sum(1080 // s for s in of) for of in sizes]
    rates = sum(TRIANGLE(e + t / 45) for e in range(8) for t in range(45))
    assert steps == [216, 216]
    assert rates == pytest.approx(216)
    quenched = Then(SQUARE, 16, LOW)
    assert [quenched(e) for e in (0, 5, 15.9, 16, 17, 20)] == [1.0, LOW, LOW, LOW, LOW, LOW]
    table = pd.DataFrame({"epochs": [8.0, 4.0, 13.0]})
    assert list(phase(table, 8)) == [1.0, 0.5, 0.625]


def test_every_schedule_is_trained_to_the_same_clock(tmp_path, monkeypatch):
    """Cycles by either knob and the constant of their mean: equal epochs and equal clock at once, quenched or not."""
    monkeypatch.setenv("THREEFACTORS_STORE", str(tmp_path))
    monkeypatch.setenv("THREEFACTORS_JOBS", "0")
    design, task = Design(0.1, 12, 180, 8, LOW), Task("digits", MLP((4,)), train_size=180)
    same = {"lr": 0.1, "batch_size": 12, "seed": [0]}
    assert design.clock == pytest.approx(8 * 15 * MEAN * 0.1)
    for quench, epochs in ((0, 8), (1, 8 + 8 * MEAN / LOW)):
        own = design.schedules(quenched_after=1 if quench else None)
        until = design.stopping(1, 0.2, 99, quench=quench)
        table = run_schedules(task, own, [Loss()], until=until["equal clock"], **same)
        assert list(table.schedule) == list(own)
        np.testing.assert_allclose(table.clock, (1 + quench) * design.clock, rtol=0.02)  # ends with a whole step
        shared = table.schedule.str.contains("square|triangle|mean")
        assert shared.sum() == 6
        np.testing.assert_allclose(table.epochs[shared], epochs)
        assert until["equal epochs"] == Epochs(round(epochs))


def test_the_constants_have_the_cycles_means():
    levels, cycles = Design(0.1, 12, 180, 8, LOW).levels, Design(0.1, 12, 180, 8, LOW).schedules()
    waves = {
        name: [cycles[f"{name} η"]["lr_schedule"](e / 500) for e in range(4000)] for name in ("square", "triangle")
    }
    assert np.mean(waves["square"]) == pytest.approx(levels["mean"])
    assert np.mean(waves["triangle"]) == pytest.approx(levels["mean"])
    assert noise_on_clock(waves["square"]) == pytest.approx(levels["matched"])


# --- tables and claims -----------------------------------------------------------------------

CYCLES = ("square η", "square S", "triangle η", "triangle S")


def planted(*, cycle=-0.4, high=-0.5, low=0.5, matched=-0.4, knob=0.0, noise=0.08, seeds=8, seed=0, **columns):
    """Runs whose log width is as told, relative to the constant of the same mean; a seed shifts all of its runs."""
    log = dict.fromkeys(CYCLES, cycle) | {"mean η": 0.0, "mean S": 0.0, "low η": low, "low S": low}
    log |= {"high η": high, "matched η": matched}
    log = {name: value + knob * name.endswith("η") * (name in CYCLES) for name, value in log.items()}
    rng, rows = numpy_generator(seed, "planted"), []
    for s in range(seeds):
        shift = rng.normal()
        for name, value in log.items():
            width = {m: np.exp(value + shift + noise * rng.normal()) for m in WIDTHS}
            rows.append({"schedule": name, "seed": s, **width})
    flags = {"sharpness_converged": True, "diverged": False, "finished": True}
    return pd.DataFrame(rows).assign(train_loss=0.2, clock=100.0, epochs=50.0, **flags, **columns)


def against(kind, runs, cycles=CYCLES):
    known = set(runs.schedule)
    return beside(runs, {c: f"{kind} {c[-1]}" if f"{kind} {c[-1]}" in known else f"{kind} η" for c in cycles})


@pytest.mark.parametrize(("claim", "kind"), [(C9a, "mean"), (C9b, "low"), (C9e, "high")])
@pytest.mark.parametrize(("effect", "verdict"), [(-0.4, SUPPORTED), (0.4, REFUTED)])
def test_wider_is_found_where_it_is_planted_and_refuted_where_the_reverse_is(claim, kind, effect, verdict):
    runs = planted(cycle=effect, low=0.0, high=0.0)
    assert judge(claim.at("equal loss"), against(kind, runs)).verdict == verdict


def test_one_cycle_that_is_not_wider_keeps_the_claim_from_support():
    runs = planted()
    one = runs.schedule == "triangle S"
    for m in WIDTHS:
        runs.loc[one, m] *= np.exp(0.4)  # as wide as the mean
    assert judge(C9a.at("equal loss"), against("mean", runs)).verdict != SUPPORTED
    for m in WIDTHS:
        runs.loc[one, m] *= np.exp(0.4)  # narrower
    assert judge(C9a.at("equal loss"), against("mean", runs)).verdict == REFUTED


def test_without_an_effect_the_claim_is_supported_no_more_often_than_its_level():
    verdicts = [judge(C9a.at("equal loss"), against("mean", planted(cycle=0.0, seed=i))).verdict for i in range(8)]
    assert verdicts.count(SUPPORTED) == 0
    assert verdicts.count(UNDECIDED) >= 7


def test_equal_widths_by_either_knob():
    def judged(runs):
        return judge(C9c.at("equal loss"), by_knob(runs, CYCLES[:2])).verdict

    assert judged(planted()) == SUPPORTED
    assert judged(planted(knob=-0.5 * np.log(5))) == REFUTED  # √S for S: the low phases differ by √5 in η/S


def test_the_matched_constant_has_the_mean_over_the_clock():
    """Widths that go as 1/n: right with n* for the cycle; with the mean over the epochs in its place, refuted."""
    n = {"cycle": noise_on_clock([1.0, LOW]), "matched": noise_on_clock([1.0, LOW]), "low": LOW, "high": 1.0}
    runs = planted(**{name: -np.log(value / MEAN) for name, value in n.items()})
    assert judge(C9d.at("equal clock"), against("matched", runs, CYCLES[:2])).verdict == SUPPORTED
    assert judge(C9e.at("equal clock"), against("high", runs)).verdict == REFUTED
    bug = planted(**{name: -np.log(value / MEAN) for name, value in (n | {"cycle": MEAN}).items()})
    assert judge(C9d.at("equal clock"), against("matched", bug, CYCLES[:2])).verdict == REFUTED


def test_runs_that_are_not_at_one_loss_are_not_judged():
    runs = planted()
    runs.loc[runs.schedule == "mean S", "train_loss"] = 0.5
    assert judge(C9a.at("equal loss"), against("mean", runs)).verdict == VOID
    few = judge(C9a.at("equal loss"), against("mean", planted(seeds=4)))
    assert few.verdict == VOID
    assert "4 seeds" in few.reason


def test_log_ratio_is_paired_by_seed_and_leaves_lost_runs_out():
    """The seeds' shifts, of standard deviation 1, cancel; a lost run takes its partner with it."""
    table = against("mean", planted(seeds=30), ["square η"])
    ratio = LogRatio("role", CYCLE, CONSTANT)
    found = ratio(table, "trace")
    assert found.value == pytest.approx(-0.4, abs=4 * found.stderr)
    assert found.stderr == pytest.approx(0.08 * np.sqrt(2 / 30), rel=0.5)
    assert LogRatio("role", CONSTANT, CYCLE)(table, "trace").value == pytest.approx(-found.value)
    table.loc[0, "diverged"] = True
    assert ratio(table, "trace").n == 29
    (row,) = log_ratios({"mean": table}, "trace").to_dict("records")
    assert (row["against"], row["schedule"], row["n"], row["lost"]) == ("mean", "square η", 29, 1)


def test_figures_show_what_the_tables_say():
    runs = planted()
    ax = drawn.ratios(log_ratios({"mean": against("mean", runs), "high": against("high", runs)}, "sharpness"))
    assert [t.get_text() for t in ax.get_yticklabels()] == list(CYCLES)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["mean", "high"]
    ends = pd.DataFrame({"schedule": ["square η", "triangle S"], "phase": [0.7, 1.0]})
    wave = pd.DataFrame({"profile": "square", "share": [0.0, 0.5, 1.0], "noise": [1.0, 1.0, 0.2]})
    ax = drawn.stops(ends, wave)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["square η", "triangle S"]
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [0.7, 1.0]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("levels=\\(\\)", lambda: BatchFor(SQUARE, ())),
        ("levels=\\(1.5,\\)", lambda: BatchFor(SQUARE, (1.5,))),
        ("last=0", lambda: Then(SQUARE, 8, 0)),
        ("at=-1", lambda: Then(SQUARE, -1, 0.2)),
        ("low=1.0 makes no cycle", lambda: Design(0.1, 12, 180, 8, 1.0)),
        ("period=3", lambda: Design(0.1, 12, 180, 3, 0.2)),
        ("period=12 .*6, 8, 10", lambda: Design(0.1, 12, 180, 12, 0.2)),
        ("low=0.5 is above high=0.2", lambda: noise_after_square_cycle(1.0, 1.0, 0.5, 0.2)),
        ("clock=0", lambda: noise_after_square_cycle(1.0, 0, 0.5)),
        ("noise_scale", lambda: noise_on_clock([1.0, -1.0])),
        ("noise_scale", lambda: noise_on_clock([])),
        ("no runs with schedule \\['cosine'\\]", lambda: beside(planted(), {"square η": "cosine"})),
        ("0 seeds have trace", lambda: LogRatio("schedule", "square η", "cosine")(planted(), "trace")),
    ],
)
def test_what_makes_no_sense_is_refused(message, call):
    with pytest.raises((ValueError, Unmeasurable), match=message):
        call()


@pytest.mark.parametrize("period", [6, 8, 10, 14, 16, 18, 22, 24, 26, 30])
def test_every_cycle_has_the_mean_noise_scale_of_its_constant(period):
    design = Design(0.1, 12, 180, period, 0.2)
    for name, own in design.schedules().items():
        if name.split()[0] in ("square", "triangle", "mean"):
            (knob, schedule), epochs = next(iter(own.items())), np.arange(period)
            at = epochs if knob == "batch_schedule" else epochs + 0.5
            factors = np.array([schedule(epoch) for epoch in at])
            scale = 1 / factors if knob == "batch_schedule" else factors
            assert scale.mean() == pytest.approx(design.mean), (name, period)
