"""The claims of C14 on small simulated tables: supported as they are, refuted with a planted error."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from threefactors.inference import REFUTED, SUPPORTED, VOID, judge
from threefactors.inference.claims.which_minimum import C14a, C14b, C14c, C14d, C14e, C14f, difference
from threefactors.inference.effective import log_odds
from threefactors.inference.slopes import Unmeasurable
from threefactors.simulation.diffusion import euler_maruyama
from threefactors.simulation.passage import circulation_rate, first_passage
from threefactors.simulation.wells import DoubleWell, noisy_descent, sojourns
from threefactors.theory import boltzmann, escape
from threefactors.theory.ou import lyapunov_covariance

LR, VARIANCE, SEEDS, SPAN = 0.04, 20.0, range(5), (-2.5, 3.0)
QUICK = DoubleWell(height=0.2, saddle=-0.1, sharpness=12, stiffness=(1, 0.5), dimension=3)
ALONG = DoubleWell(height=0.2, saddle=-0.1, sharpness=12)
SIZES = (2, 4)


def table(cell, sizes=SIZES, seeds=SEEDS):
    return pd.DataFrame([cell(S, seed) | {"batch_size": S, "seed": seed} for S, seed in product(sizes, seeds)])


def with_law(rows, measure, law):
    return rows.assign(**{f"predicted_{measure}": [law(S) for S in rows.batch_size]})


def verdict(claim, rows):
    return judge(claim.at("simulation"), rows).verdict


def exact(S, well=QUICK, *, heat=1.0, power=1.0):
    """The law, with what can be planted: a factor in the temperature, √S for S."""
    n = heat * LR / S**power
    F = boltzmann.free_energy(well.loss, well.transverse, well.dimension, n, VARIANCE)
    return boltzmann.gibbs_density(F, n, VARIANCE, (-3.5, 4.5)).log_odds(well.saddle)


def occupation(well, shape=None, trajectories=1600):
    def cell(S, seed):
        sgd = noisy_descent(well, LR, S, VARIANCE, shape=shape)
        where = sojourns(sgd, well, burn=1500, samples=6, every=150, trajectories=trajectories, seed=seed)
        return {"log_odds": log_odds(where)}

    return table(cell)


@pytest.fixture(scope="module")
def occupied():
    return with_law(occupation(QUICK), "log_odds", exact)


@pytest.fixture(scope="module")
def shaped():
    return occupation(ALONG, shape=ALONG.like_curvature, trajectories=2000)


def test_boltzmann_is_supported_under_isotropic_noise(occupied):
    assert verdict(C14a, occupied) == SUPPORTED
    assert (np.sign(occupied.groupby("batch_size").log_odds.mean()) == [-1, 1]).all()  # the preference flips
    assert verdict(C14b, occupied) == SUPPORTED


@pytest.mark.parametrize(
    "law",
    [
        lambda S: exact(S, heat=2),
        lambda S: exact(S, heat=0.5),
        lambda S: exact(S, power=0.5),
        lambda S: exact(S) + 0.5 * np.linalg.slogdet(QUICK.hessian(-1.0) @ np.linalg.inv(QUICK.hessian(1.0)))[1],
        lambda S: exact(S) - 0.5 * np.linalg.slogdet(QUICK.hessian(-1.0) @ np.linalg.inv(QUICK.hessian(1.0)))[1],
    ],
    ids=["twice the temperature", "half of it", "√S for S", "no determinants", "determinants without the root"],
)
@pytest.mark.parametrize("claim", [C14a, C14b], ids=lambda c: c.id)
def test_planted_errors_are_refuted(occupied, claim, law):
    assert verdict(claim, with_law(occupied, "log_odds", law)) == REFUTED


def test_noise_like_the_curvature_refutes_boltzmann_and_supports_the_general_law(shaped):
    def general(S, power=1):
        noise = lambda x: VARIANCE * ALONG.like_curvature(x) ** power  # noqa: E731
        drift = lambda x: -ALONG.slope(x)  # noqa: E731
        return boltzmann.stationary_density_1d(drift, noise, LR / S, SPAN).log_odds(ALONG.saddle)

    def stratonovich(S):  # p ∝ C^(−1/2) exp(…)
        noise = lambda x: VARIANCE * ALONG.like_curvature(x)  # noqa: E731
        p = boltzmann.stationary_density_1d(lambda x: -ALONG.slope(x), noise, LR / S, SPAN)
        return boltzmann.Density(p.x, p.values * np.sqrt(noise(p.x))).log_odds(ALONG.saddle)

    assert verdict(C14e, with_law(shaped, "log_odds", general)) == SUPPORTED
    assert verdict(C14a, with_law(shaped, "log_odds", lambda S: exact(S, ALONG))) == REFUTED
    assert verdict(C14e, with_law(shaped, "log_odds", stratonovich)) == REFUTED
    assert verdict(C14e, with_law(shaped, "log_odds", lambda S: general(S, power=0.5))) == REFUTED


@pytest.fixture(scope="module")
def escaped():
    well = DoubleWell(height=1.5)

    def cell(S, seed):
        sgd = noisy_descent(well, LR, S, VARIANCE)
        steps = first_passage(sgd, [-1.0], lambda x: x[0] >= 1, trajectories=1500, seed=seed)
        return {"escape_time": steps.mean(), "barrier": 2 * 0.375 / (LR / S * VARIANCE)}

    def law(S):
        return escape.mean_escape_time(lambda x: -well.slope(x), VARIANCE, LR / S, start=-1, target=1, wall=-2.5) / LR

    return with_law(table(cell, sizes=(1, 2)), "escape_time", law)


def test_escape_times_are_supported_and_planted_errors_refuted(escaped):
    assert verdict(C14c, escaped) == SUPPORTED
    doubled = escaped.assign(predicted_escape_time=2 * escaped.predicted_escape_time)
    assert verdict(C14c, doubled) == REFUTED
    to_the_barrier = escaped.assign(predicted_escape_time=escaped.predicted_escape_time / 2)
    assert verdict(C14c, to_the_barrier) == REFUTED


def arrhenius(slope, rng):
    barrier, seed = (v.ravel() for v in np.meshgrid([2.0, 3.0, 4.0], np.arange(8)))
    times = 50 * np.exp(slope * barrier + rng.normal(0, 0.03, len(barrier)))
    return pd.DataFrame({"barrier": barrier, "batch_size": barrier, "seed": seed, "escape_time": times})


def test_arrhenius_slope_tells_a_temperature_from_twice_it():
    rng = np.random.default_rng(0)
    assert verdict(C14d, arrhenius(0.97, rng)) == SUPPORTED
    assert verdict(C14d, arrhenius(0.5, rng)) == REFUTED
    assert verdict(C14d, arrhenius(2.0, rng)) == REFUTED


def test_an_escape_that_did_not_happen_is_a_lost_run(escaped):
    lost = escaped.assign(escape_time=escaped.escape_time.where(escaped.batch_size == 1, np.inf))
    assert verdict(C14c, lost) == VOID


def test_circulation_is_supported_and_detailed_balance_refuted():
    H, C = np.diag([1.0, 0.3]), VARIANCE * np.array([[1.0, 0.8], [0.8, 1.0]])

    def cell(S, seed):
        sgd = euler_maruyama(lambda x: -H @ x, np.linalg.cholesky(LR / S * C), LR)
        return {"circulation": circulation_rate(sgd, step=LR, burn=300, steps=300, trajectories=2000, seed=seed)}

    def law(S):
        area = boltzmann.circulation(H, C, LR / S) @ lyapunov_covariance(H, C, LR, S)
        return area[1, 0] - area[0, 1]

    rows = with_law(table(cell), "circulation", law)
    assert verdict(C14f, rows) == SUPPORTED
    assert verdict(C14f, with_law(rows, "circulation", lambda S: law(S) * np.sqrt(S))) == REFUTED
    assert verdict(C14f, rows.assign(circulation=0.01 * rows.circulation)) == REFUTED


def test_difference_and_flip_have_their_own_errors(occupied):
    per_seed = occupied.log_odds - occupied.predicted_log_odds
    np.testing.assert_allclose(difference(occupied, "log_odds").per_seed, per_seed.groupby(occupied.seed).mean())
    with pytest.raises(Unmeasurable, match="give no flip"):
        C14b.statistic(occupied[occupied.batch_size == 2], "log_odds")
    with pytest.raises(Unmeasurable, match="never changes its sign"):
        C14b.statistic(occupied.assign(log_odds=1.0), "log_odds")
