from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from threefactors._rng import numpy_generator
from threefactors.inference import SeedMean, SeedRatio, loglog_slopes, seed_bootstrap, slope_on_ratio
from threefactors.inference.estimates import bootstrap_interval
from threefactors.inference.slopes import Unmeasurable, slopes_per_seed

from tests.tables import sweep

SETS = 200  # simulated data sets for each statement about coverage


def test_exponents_without_noise_are_exact():
    slopes = loglog_slopes(sweep(numpy_generator(0, "t"), a=-0.7, b=0.2, noise=0, slope_sd=0), "trace")
    np.testing.assert_allclose([slopes.lr.value, slopes.batch_size.value], [-0.7, 0.2], rtol=1e-10)
    assert slopes.asymmetry.value == pytest.approx(-0.5 / -0.9)
    assert (slopes.runs, slopes.missing) == (128, 0)


def test_slope_on_ratio_is_the_exponent_of_a_pure_ratio_law_and_points_are_per_tenfold():
    table = sweep(numpy_generator(0, "t"), a=-0.3, b=0.3, noise=0, slope_sd=0)
    assert slope_on_ratio(table, "sharpness").value == pytest.approx(-0.3, abs=1e-10)
    table["validation_accuracy"] = 0.9 + 0.02 * np.log10(table["ratio"])
    assert slope_on_ratio(table, "validation_accuracy", log=False).value == pytest.approx(0.02, abs=1e-10)


def test_mean_of_the_seeds_slopes_is_the_pooled_least_squares_slope_of_a_full_grid():
    table = sweep(numpy_generator(1, "t"))
    design = np.column_stack([np.ones(len(table)), np.log(table["lr"]), np.log(table["batch_size"])])
    pooled = np.linalg.lstsq(design, np.log(table["sharpness"]), rcond=None)[0]
    slopes = loglog_slopes(table, "sharpness")
    np.testing.assert_allclose([slopes.lr.value, slopes.batch_size.value], pooled[1:], rtol=1e-10)


def test_slopes_per_seed_equal_one_dense_fit_a_seed_on_ragged_rows():
    rng = numpy_generator(2, "t")
    seed = rng.permutation(np.repeat([3, 5, 9], [12, 20, 7]))
    x, y = rng.normal(size=(2, len(seed))) + 1e3, rng.normal(size=len(seed))  # far from the origin
    dense = [
        np.linalg.lstsq(np.column_stack([x[:, s == seed].T, np.ones((s == seed).sum())]), y[s == seed])[0][:2]
        for s in (3, 5, 9)
    ]
    np.testing.assert_allclose(slopes_per_seed(seed, list(x), y), dense, rtol=1e-6)


def test_order_of_rows_and_unit_of_the_measure_do_not_matter():
    rng = numpy_generator(3, "t")
    table = sweep(rng)
    other = table.sample(frac=1, random_state=rng).assign(sharpness=lambda t: 17 * t["sharpness"])
    for first, second in zip(
        (loglog_slopes(table, "sharpness").lr, loglog_slopes(table, "sharpness").asymmetry),
        (loglog_slopes(other, "sharpness").lr, loglog_slopes(other, "sharpness").asymmetry),
        strict=True,
    ):
        np.testing.assert_allclose(
            [first.interval().low, first.interval().high], [second.interval().low, second.interval().high]
        )


def test_student_interval_and_p_values_agree_with_scipy():
    values = numpy_generator(4, "t").normal(0.5, 1, size=8)
    mean = SeedMean(values)
    reference = stats.ttest_1samp(values, 0.1, alternative="less")
    assert mean.p_below(0.1) == pytest.approx(reference.pvalue, rel=1e-10)
    assert mean.p_above(0.1) == pytest.approx(1 - reference.pvalue, rel=1e-10)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (mean.interval(0.9).low, mean.interval(0.9).high) == pytest.approx((low, high))


def test_fieller_limits_are_where_the_p_values_cross_the_level():
    rng = numpy_generator(5, "t")
    ratio = SeedRatio(SeedMean(rng.normal(0.2, 0.1, 8)), SeedMean(rng.normal(-1, 0.2, 8)))
    interval = ratio.interval(0.9)
    assert interval.low < ratio.value < interval.high < 0
    assert ratio.p_above(interval.low) == pytest.approx(0.05, rel=1e-6)
    assert ratio.p_below(interval.high) == pytest.approx(0.05, rel=1e-6)


def test_ratio_over_a_denominator_around_zero_has_no_bounded_interval_and_no_small_p():
    numerator = SeedMean(np.linspace(0.9, 1.1, 8))
    ratio = SeedRatio(numerator, SeedMean(np.array([-1.0, 1, -1, 1, -1, 1, -1, 1.2])))
    assert ratio.interval(0.95).low == -np.inf
    assert ratio.interval(0.95).high == np.inf
    assert min(ratio.p_below(0.25), ratio.p_above(0.25), ratio.p_below(-0.25)) > 0.5
    assert "not distinguishable from 0" in ratio.undefined(0.05)


def covered(hits: list[bool]) -> float:
    return float(np.mean(hits))


def test_intervals_for_exponents_and_their_ratio_cover():
    rng = numpy_generator(6, "t")
    slope, exponent, asymmetry, single_runs = [], [], [], []
    for _ in range(SETS):
        table = sweep(rng, a=-0.4, b=0.25)
        slopes = loglog_slopes(table, "sharpness")
        for hits, interval, truth in (
            (exponent, slopes.lr.interval(), -0.4),
            (asymmetry, slopes.asymmetry.interval(), -0.15 / -0.65),
            (slope, slope_on_ratio(table, "sharpness").interval(), -0.325),
        ):
            hits.append(interval.low <= truth <= interval.high)
        # the planted bug: runs counted as if they were independent
        fit = stats.linregress(np.log(table["ratio"]), np.log(table["sharpness"]))
        single_runs.append(abs(fit.slope + 0.325) <= stats.t.ppf(0.975, len(table) - 2) * fit.stderr)
    assert 0.90 <= covered(slope) <= 0.99
    assert 0.90 <= covered(exponent) <= 0.99
    assert 0.90 <= covered(asymmetry) <= 0.99
    assert not 0.90 <= covered(single_runs) <= 0.99


def test_bootstrap_of_a_linear_statistic_is_the_student_interval():
    table = sweep(numpy_generator(7, "t"))
    exact = slope_on_ratio(table, "sharpness").interval()
    drawn = seed_bootstrap(
        table,
        lambda t: slope_on_ratio(t, "sharpness").value,
        resamples=500,
        generator=numpy_generator(0, "b"),
    )
    assert drawn.value == pytest.approx(exact.value)
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.12)
    assert drawn.n == 8


def test_bootstrap_interval_of_all_resamples_of_a_mean_is_exactly_the_student_interval():
    values = numpy_generator(7, "t").normal(size=5)
    means = np.array([np.mean(resample) for resample in product(values, repeat=5)])
    every, exact = bootstrap_interval(values.mean(), means, 0.95, 5), SeedMean(values).interval(0.95)
    assert (every.low, every.high) == pytest.approx((exact.low, exact.high), rel=1e-10)


def test_bootstrap_covers_for_a_ratio_of_means():
    rng = numpy_generator(8, "t")
    hits = []
    for _ in range(SETS):
        table = sweep(rng, seeds=8)[["seed"]].drop_duplicates()
        table = table.assign(top=rng.normal(0.3, 0.3, 8), bottom=rng.normal(1, 0.2, 8))

        def ratio(t):
            return t["top"].to_numpy().mean() / t["bottom"].to_numpy().mean()

        interval = seed_bootstrap(table, ratio, resamples=50, generator=rng)
        hits.append(interval.low <= 0.3 <= interval.high)
    assert 0.90 <= covered(hits) <= 0.99


def test_bootstrap_repeats_with_its_generator_and_counts_a_seed_drawn_twice_as_two():
    table = sweep(numpy_generator(9, "t"))
    seeds_seen = []

    def statistic(t):
        seeds_seen.append(t["seed"].nunique())
        return t["trace"].mean()

    first, second = (
        seed_bootstrap(table, statistic, resamples=20, generator=numpy_generator(1, "b")) for _ in range(2)
    )
    assert first == second
    assert set(seeds_seen) == {8}


def test_lost_runs_are_left_out_and_counted():
    table = sweep(numpy_generator(10, "t"), noise=0, slope_sd=0)
    table.loc[3, "sharpness"] = np.nan
    table.loc[7, "sharpness"] = np.inf
    table.loc[[20, 21], "diverged"] = True
    table.loc[[20, 30], "finished"] = False
    table.loc[[20, 21, 30], "sharpness"] = 1e9  # must not be looked at
    slopes = loglog_slopes(table, "sharpness")
    assert (slopes.runs, slopes.missing) == (123, 5)
    assert slopes.lr.value == pytest.approx(-0.4)


def test_a_seed_whose_runs_do_not_identify_the_slopes_is_not_counted():
    table = sweep(numpy_generator(11, "t"))
    keep = (table["seed"] != 2) | (table["lr"] == 0.01)
    assert loglog_slopes(table[keep], "sharpness").lr.n == 7


def test_bad_input_is_told_with_a_remedy():
    table = sweep(numpy_generator(12, "t"))
    with pytest.raises(Unmeasurable, match=r"trace=-1.*1 of 128.*positive there"):
        loglog_slopes(table.assign(trace=np.where(table.index == 5, -1.0, 1.0)), "trace")
    with pytest.raises(KeyError, match=r"no column \['width'\]"):
        loglog_slopes(table, "width")
    with pytest.raises(Unmeasurable, match="0 seeds identify the slopes of trace; use at least 2"):
        loglog_slopes(table[table["lr"] == 0.01], "trace")
    with pytest.raises(Unmeasurable, match="0 seeds"):
        slope_on_ratio(table.assign(trace=np.nan), "trace")
    with pytest.raises(ValueError, match="level=95"):
        slope_on_ratio(table, "trace").interval(95)
    with pytest.raises(ValueError, match="use n >= 2 seeds"):
        SeedMean(np.array([1.0]))
    with pytest.raises(ValueError, match="use n >= 2 seeds"):
        seed_bootstrap(table[table["seed"] == 0], len, generator=numpy_generator(0, "b"))
