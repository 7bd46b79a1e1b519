"""The claims on the stationary state: supported by what simulations give, refuted once a law is spoiled."""

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, judge
from threefactors.inference.claims import stationary as claims
from threefactors.inference.claims.stationary import within_own_interval
from threefactors.simulation import simulate
from threefactors.simulation.bowl import bowl
from threefactors.simulation.stationary import bowl_table, epochs_table, regression_table, relaxation_table, settled
from threefactors.theory.epochs import epoch_variance
from threefactors.theory.ou import stationary_loss
from threefactors.theory.quadratic import covariance_after, excess_loss, relaxation_steps
from threefactors.theory.regression import regression_excess_loss

H = np.diag([1.0, 0.5])
NOISES = {"C = H": H, "C = I": np.eye(2), "tilted": np.array([[3.0, 1.5], [1.5, 1.0]])}


def slowest(lr):
    return relaxation_steps(np.diag(H), lr).max()


def verdict(claim, table, predicted, measure="excess_loss"):
    return judge(claim.at("simulation"), table.assign(**{f"predicted_{measure}": predicted})).verdict


def height(table, law):
    """The law's height in every row."""
    return [law(NOISES[row.noise], row.lr, row.batch_size) for row in table.itertuples()]


@pytest.fixture(scope="module")
def small():
    grid = {"lr": [0.02, 0.04], "batch_size": [4, 64]}
    return bowl_table(H, NOISES, slowest, **grid, seeds=5, trajectories=512)


@pytest.fixture(scope="module")
def large():
    """Learning rates up to the limit of stability."""
    grid = {"lr": [0.2, 1.0, 1.9], "batch_size": [4, 64]}
    return bowl_table(H, {"C = H": H, "tilted": NOISES["tilted"]}, slowest, **grid, seeds=5, trajectories=4096)


# --- verdicts: the law, and the law with a planted bug ------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
def test_the_mean_height_needs_only_the_trace_of_the_noise(small, noise):
    table = small[small.noise == noise]
    law = np.array(height(table, stationary_loss))
    assert verdict(claims.C13a, table, law) == SUPPORTED
    assert verdict(claims.C13a, table, 2 * law) == REFUTED
    assert verdict(claims.C13a, table, law * np.sqrt(table.batch_size)) == REFUTED  # √S for S
    if noise != "C = H":  # the three factors alone
        assert verdict(claims.C13a, table, law * np.trace(H) / np.trace(NOISES[noise])) == REFUTED


@pytest.mark.parametrize("noise", ["C = H", "tilted"])
def test_the_discrete_law_up_to_the_limit_of_stability(large, noise):
    table = large[large.noise == noise]
    exact = height(table, lambda C, lr, batch: excess_loss(H, C, lr, batch))
    first_order = height(table, stationary_loss)  # the missing ηHΣH
    assert verdict(claims.C13b, table, exact) == SUPPORTED
    assert verdict(claims.C13b, table, first_order) == REFUTED
    assert verdict(claims.C13c, table, first_order) == REFUTED
    wrong_sign = height(table, lambda C, lr, batch: lr / (2 * batch) * (np.diag(C) / (2 + lr * np.diag(H))).sum())
    assert verdict(claims.C13b, table, wrong_sign) == REFUTED


@pytest.mark.parametrize(("noise", "expected"), [("C = H", SUPPORTED), ("C = I", REFUTED), ("tilted", REFUTED)])
def test_the_cloud_is_round_for_one_noise_only(small, noise, expected):
    table = small[small.noise == noise].melt(
        ["lr", "batch_size", "ratio", "seed"], ["variance_1", "variance_2"], "direction", "variance"
    )
    round_one = table.ratio / 2 * np.trace(NOISES[noise]) / np.trace(H)
    assert verdict(claims.C13d, table, round_one, "variance") == expected
    assert verdict(claims.C13d, table, round_one * 2, "variance") == REFUTED


def test_the_height_on_the_way():
    lr, times = 0.04, [2, 6, 20, 60]
    table = relaxation_table(H, H, lr, times, batch_size=[4, 64], seeds=5, trajectories=16384)

    def law(steps):
        return [
            np.trace(H @ covariance_after(H, H, lr, b, t)) / 2 for t, b in zip(steps, table.batch_size, strict=True)
        ]

    assert verdict(claims.C13e, table, law(table.steps)) == SUPPORTED
    assert verdict(claims.C13e, table, law(table.steps // 2)) == REFUTED  # relaxes like the mean, half as fast
    assert verdict(claims.C13e, table, law(table.steps + 1)) == REFUTED  # one step off


def test_regression_has_more_noise_than_its_minimum_shows():
    a, D = np.ones(4), 4
    table = regression_table(
        a, 1.0, lambda lr, S: -1 / np.log(1 - lr * (2 - lr * (1 + (D + 1) / S))), ratio=[0.05, 0.1],
        batch_size=[1, 8], seeds=5, trajectories=1024,
    )  # fmt: skip
    law = [regression_excess_loss(a, 1.0, row.lr, row.batch_size) for row in table.itertuples()]
    additive = [excess_loss(np.eye(D), np.eye(D), row.lr, row.batch_size) for row in table.itertuples()]
    assert verdict(claims.L1, table, law) == SUPPORTED
    assert verdict(claims.L1b, table, additive) == REFUTED
    assert verdict(claims.L1, table, np.multiply(law, 2)) == REFUTED


def test_noise_is_paid_back_within_an_epoch():
    lr, M = 0.1, 8
    curvature = 3 / (lr * M) * np.array([0.1, 1.0, 4.0])
    table = epochs_table(curvature, lr, M, relaxation_steps(curvature, lr).max(), seeds=5, trajectories=1024)
    law, white = epoch_variance(table.curvature, lr, 1.0, M), lr / (table.curvature * (2 - lr * table.curvature))
    assert verdict(claims.L2, table, law, "variance") == SUPPORTED
    assert verdict(claims.L2b, table, white, "variance") == REFUTED
    assert verdict(claims.L2, table, epoch_variance(table.curvature, lr, 1.0, M + 1), "variance") == REFUTED


# --- the experiments themselves -----------------------------------------------------------------


def test_the_start_is_forgotten_before_anything_is_averaged():
    """Looks at the time since the start: all of it lies after the settling, evenly spread."""
    seen = []
    settled(
        lambda n, draws: lambda x, t: np.add(x, 1, out=x), lambda x: seen.append(x[0, 0]) or x, 1, 10.0,
        seeds=1, trajectories=1, stream="count",
    )  # fmt: skip
    assert seen[0] >= 80
    assert seen[-1] - seen[0] >= 150
    assert len(set(np.diff(seen))) == 1


def test_epochs_are_averaged_over_all_phases_alike():
    """A flat direction is back at its start when an epoch ends: unequal phases would show at once."""
    M, flat = 4, np.array([1e-7, 1.0])
    got = epochs_table(flat, 1.0, M, 0.3, seeds=5, trajectories=4096).query("curvature < 1").variance
    bridge = np.mean([m * (M - m) / (M - 1) for m in range(M)])
    assert got.mean() == pytest.approx(bridge, rel=0.03)


@pytest.mark.parametrize("relaxation", [np.inf, np.nan, -1.0])
def test_what_never_settles_is_refused(relaxation):
    with pytest.raises(ValueError, match="no number of steps to wait"):
        settled(bowl(H, H, 0.1, 1), np.square, 2, relaxation, seeds=1, trajectories=1, stream="never")


def test_cells_draw_numbers_of_their_own(small):
    """The dynamics is linear: on shared numbers the height times S would be the same for both batch sizes."""
    scaled = (small.excess_loss * small.batch_size).to_numpy().reshape(len(NOISES), 2, 2, 5)
    assert not np.isclose(scaled[:, :, 0], scaled[:, :, 1], rtol=1e-6).any()
    again = simulate(bowl(H, H, 0.1, 1), [0, 0], 5, trajectories=8, seed=0, stream="x").final
    assert np.array_equal(again, simulate(bowl(H, H, 0.1, 1), [0, 0], 5, trajectories=8, seed=0, stream="x").final)


# --- every point within its own interval --------------------------------------------------------


def _cells(rng, bias=0.0, seeds=8, points=10):
    cell, seed = (x.ravel() for x in np.meshgrid(np.arange(points), np.arange(seeds), indexing="ij"))
    y = 1 + 0.1 * rng.normal(size=cell.size) + bias * (cell == 3)
    return pd.DataFrame({"cell": cell, "seed": seed, "y": y, "predicted_y": 1.0})


def test_simultaneous_intervals_hold_all_points_at_their_level():
    rng, trials = numpy_generator(0, "simultaneous"), 150
    all_inside = [within_own_interval(_cells(rng), "y", ["cell"], points=10).inside.all() for _ in range(trials)]
    assert 0.90 <= np.mean(all_inside) <= 0.99  # nominal 0.95; Bonferroni loses next to nothing where cells are alone
    one_off = [within_own_interval(_cells(rng, bias=0.5), "y", ["cell"], points=10) for _ in range(20)]
    assert all(not table.inside[3] for table in one_off)
    assert np.mean([table.error[3] for table in one_off]) == pytest.approx(0.5, abs=0.05)


def test_points_are_counted_over_all_tables():
    table = _cells(numpy_generator(1, "simultaneous"))
    alone, among = (within_own_interval(table, "y", ["cell"], points=n) for n in (10, 1000))
    assert (among.high - among.low > alone.high - alone.low).all()
    with pytest.raises(ValueError, match="points=5, but this table alone has 10"):
        within_own_interval(table, "y", ["cell"], points=5)
