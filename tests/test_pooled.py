"""The regression over all runs: slopes and held-out groups on tables whose law is known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, judge
from threefactors.inference.claims import three_factors as claims
from threefactors.inference.pooled import held_out_groups, intervals, partial_slopes, pool, slopes_table
from threefactors.inference.slopes import Unmeasurable

N, REGRESSORS = 1152, ["lr", "batch_size", "clock", "train_loss"]
WIDTHS = ("sharpness", "trace", "frobenius")
MODELS = {"clock and loss": ["clock", "train_loss"], "η and S": ["lr", "batch_size"]}


def book(lr=0.0, batch_size=0.0, clock=0.0, train_loss=0.0, noise=0.2, seeds=8, groups=3, dial=None):
    """Runs of several groups under three protocols, with ln width = Σ slope · ln regressor + own of the group."""
    rng, rows = numpy_generator(0, "book of runs"), []
    slopes = dict(zip(REGRESSORS, (lr, batch_size, clock, train_loss), strict=True))
    for g, protocol, eta, S, seed in product(
        range(groups), ("epochs", "clock", "loss"), (0.01, 0.04, 0.16), (8, 32, 128), range(seeds)
    ):
        T = {"epochs": 100 * N * eta / S, "clock": 60.0, "loss": 20 * (eta / S) ** -0.3}[protocol]
        L = {"epochs": T**-1.0, "clock": 0.02 * (eta / S) ** 0.2, "loss": 0.01}[protocol]
        x = {"lr": eta, "batch_size": S, "clock": T * rng.lognormal(0, 0.1), "train_loss": L * rng.lognormal(0, 0.1)}
        log_width = g + 0.3 * seed + sum(slopes[name] * np.log(x[name]) for name in slopes)
        widths = {w: np.exp(log_width + noise * rng.normal()) for w in WIDTHS}
        rows.append(
            {
                "chapter": f"{g}",
                "arm": "plain",
                "seed": seed + 10 * g,
                "finished": True,
                "diverged": False,
                **x,
                **widths,
            }
        )
    return pd.DataFrame(rows)


def test_slopes_are_those_of_the_law_whatever_groups_and_seeds_add():
    found = partial_slopes(pool(book(-0.4, 0.5, -1.0, 0.7, noise=1e-9), "trace", REGRESSORS))
    np.testing.assert_allclose(found, np.tile([-0.4, 0.5, -1.0, 0.7], (8, 1)), atol=1e-6)


def test_intervals_cover_as_often_as_they_say():
    rng, inside = numpy_generator(1, "coverage"), []
    runs = book(-0.4, 0.5, -1.0, 0.7, noise=0.0)
    for _ in range(150):
        noisy = runs.assign(trace=runs.trace * rng.lognormal(0, 0.3, len(runs)))
        row = intervals(partial_slopes(pool(noisy, "trace", REGRESSORS))).loc["lr"]
        inside.append(row.low < -0.4 < row.high)
    assert 0.9 <= np.mean(inside) <= 0.99


def judged(claim, runs):
    return judge(claim.at("all protocols"), slopes_table(runs, WIDTHS, REGRESSORS)).verdict


@pytest.mark.parametrize(
    ("slopes", "lr", "batch_size", "ratio"),
    [
        ((-0.4, 0.4, -1.0, 0.5), SUPPORTED, SUPPORTED, SUPPORTED),
        ((0.4, -0.4, -1.0, 0.5), REFUTED, REFUTED, SUPPORTED),
        ((-0.4, 0.0, -1.0, 0.5), SUPPORTED, UNDECIDED, REFUTED),  # planted: only η matters
        ((-0.4, 0.2, -1.0, 0.5), SUPPORTED, SUPPORTED, REFUTED),  # planted: η/√S
    ],
)
def test_planted_effects_turn_the_verdicts(slopes, lr, batch_size, ratio):
    runs = book(*slopes)
    assert (judged(claims.F1a, runs), judged(claims.F1b, runs), judged(claims.F1c, runs)) == (lr, batch_size, ratio)


def test_an_effect_of_the_clock_alone_is_not_taken_for_one_of_the_noise():
    """The null: a width that knows only clock and loss, in runs whose ratio goes with the clock."""
    runs = book(0.0, 0.0, -1.0, 0.5)
    assert judged(claims.F1a, runs) == judged(claims.F1b, runs) == judged(claims.F1c, runs) == UNDECIDED
    one = runs[runs.clock.between(59, 61) == False]  # noqa: E712 (pandas)
    naive = partial_slopes(pool(one, "trace", ["lr", "batch_size"]))
    assert intervals(naive).loc["lr", "high"] < -0.3  # without them in the fit, it would be


def gaps(runs):
    table = held_out_groups(runs, "trace", MODELS).pivot(index="replicate", columns="model", values="r2")
    return (
        pd.DataFrame({f"{w}_gap": table["clock and loss"] - table["η and S"] for w in WIDTHS})
        .rename_axis("seed")
        .reset_index()
    )


def test_a_group_is_predicted_by_what_its_law_knows():
    by_clock, by_ratio = book(0.0, 0.0, -1.0, 0.5), book(-0.8, 0.8, 0.0, 0.0)
    r2 = held_out_groups(by_clock, "trace", MODELS).groupby("model").r2.mean()
    assert r2["clock and loss"] > 0.9 > r2["η and S"]
    assert judge(claims.F3.at("all protocols"), gaps(by_clock)).verdict == SUPPORTED
    assert judge(claims.F3.at("all protocols"), gaps(by_ratio)).verdict == REFUTED


def test_a_group_with_a_law_of_its_own_is_not_predicted():
    runs = book(0.0, 0.0, -1.0, 0.0)
    odd = runs.chapter == "0"
    runs.loc[odd, "trace"] = runs[odd].clock ** 1.0
    r2 = held_out_groups(runs[odd | (runs.chapter == "1")], "trace", MODELS)
    assert (r2[r2.model == "clock and loss"].r2 < 0).all()


def test_lost_runs_are_counted_and_small_groups_left_out():
    runs = book(-0.4, 0.4, -1.0, 0.5)
    runs.loc[:6, "diverged"] = True
    small = (runs.chapter == "2") & (runs.seed >= 24)
    data = pool(runs[~small], "trace", REGRESSORS)
    assert data.groups == 2
    assert data.left_out == 7 + int(((runs.chapter == "2") & ~small).sum())


def test_what_cannot_be_told_apart_is_refused():
    runs = book(-0.4, 0.4, -1.0, 0.5)
    with pytest.raises(Unmeasurable, match="do not tell lr, batch_size, ratio apart"):
        partial_slopes(pool(runs.assign(ratio=runs.lr / runs.batch_size), "trace", ["lr", "batch_size", "ratio"]))
    with pytest.raises(Unmeasurable, match="in 5 seeds; keep more runs"):
        pool(runs[runs.seed % 10 < 3], "trace", REGRESSORS)
    with pytest.raises(Unmeasurable, match="only one group"):
        held_out_groups(runs[runs.chapter == "0"], "trace", MODELS)


@pytest.mark.parametrize(("slope", "verdict"), [(0.05, SUPPORTED), (0.0, UNDECIDED), (-0.05, REFUTED)])
def test_accuracy_is_judged_by_its_slope_on_the_ratio(slope, verdict):
    rng, runs = numpy_generator(2, "accuracy"), book()
    ln_ratio, ln_clock = np.log(runs.lr / runs.batch_size), np.log(runs.clock)
    runs["validation_accuracy"] = 0.9 + slope * ln_ratio - 0.02 * ln_clock + 0.02 * rng.normal(size=len(runs))
    table = slopes_table(runs, ["validation_accuracy"], REGRESSORS, log=False)
    assert table.validation_accuracy_on_ratio.mean() == pytest.approx(slope, abs=0.005)
    assert judge(claims.F4.at("all protocols"), table).verdict == verdict


@pytest.mark.parametrize(("slope", "verdict"), [(-0.3, SUPPORTED), (0.0, UNDECIDED), (0.3, REFUTED)])
def test_noise_that_was_set_is_judged_at_equal_loss(slope, verdict):
    """Width falls with the loss, and the loss rises with the noise: that alone is no effect of the noise."""
    rng, rows = numpy_generator(3, "noise dial"), []
    for arm, dial, seed in product(("a", "b"), (1.0, 2.0, 4.0), range(8)):
        loss = 1.7 * dial**0.02 * rng.lognormal(0, 0.02)
        common = {"chapter": "13", "arm": arm, "seed": seed, "finished": True, "diverged": False}
        width = {w: dial**slope * loss**-2 * rng.lognormal(0, 0.05) for w in WIDTHS}
        rows.append(common | {"noise_dial": dial, "train_loss": loss} | width)
    table = slopes_table(pd.DataFrame(rows), WIDTHS, ["noise_dial", "train_loss"])
    assert judge(claims.F2.at("all protocols"), table).verdict == verdict
