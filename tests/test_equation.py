"""Claims E1 to E5 on small tables: right ones are SUPPORTED, the same with a planted bug REFUTED."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, VOID, judge
from threefactors.inference.claims.equation import E1, E2, E3, E5, E4a, E4b
from threefactors.simulation.batches import means_of_batches
from threefactors.simulation.finite_sum import sgd_mean
from threefactors.theory.weak import diffusion_expectation, equation, equation_expectation

WEIGHT, ANGLE = np.array([1.0, 1.5, 2.0, 0.5]), np.array([0.0, 1.2, -1.0, 2.6])
LRS, SEEDS = (0.1, 0.2, 0.4), range(5)


def gradient(i, x):
    return WEIGHT[i] * np.sin(x - ANGLE[i])


def curvature(i, x):
    return WEIGHT[i] * np.cos(x - ANGLE[i])


PROBLEM = {"gradient": gradient, "examples": 4, "start": 1.5}


def simulated(observable, batch_of, clock, lr_of=lambda lr: lr):
    """One row a seed and learning rate: the mean over trajectories."""
    rows = [
        {"lr": lr, "seed": seed, "sgd": sgd_mean(
            observable, curvature=curvature, **PROBLEM, lr=lr_of(lr), batch_size=batch_of(lr), clock=clock,
            trajectories=2000, seed=seed,
        )}
        for lr in LRS for seed in SEEDS
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def early():
    return simulated(np.sin, lambda lr: 2, 2.0)


def weak_error(table, value):
    return table.assign(weak_error=[abs(m - value(lr)) for lr, m in zip(table.lr, table.sgd, strict=True)])


def test_orders_one_and_two(early):
    for claim, order in ((E1, 1), (E2, 2), (E1, 0)):
        table = weak_error(
            early,
            lambda lr, order=order: equation_expectation(
                np.sin, **PROBLEM, lr=lr, batch_size=2, clock=2.0, order=order
            ),
        )
        assert judge(claim.at("simulation"), table).verdict == SUPPORTED


def test_twice_the_correction_refutes_the_second_order(early):
    def wrong(lr):
        first, _ = equation(gradient, 4, lr=lr, batch_size=2, order=1)
        second, variance = equation(gradient, 4, lr=lr, batch_size=2, order=2)
        return diffusion_expectation(np.sin, 2 * second - first, variance, 1.5, clock=2.0)

    assert judge(E2.at("simulation"), weak_error(early, wrong)).verdict == REFUTED


def test_a_factor_two_or_the_root_of_the_batch_size_in_the_noise_refutes_the_first_order_at_fixed_ratio():
    ratio = 0.0125
    late = simulated(np.cos, lambda lr: round(lr / ratio), 4.0)
    verdicts = {}
    for name, spoil in {"right": lambda S: S, "factor 2": lambda S: S / 2, "√S": np.sqrt}.items():
        table = weak_error(
            late,
            lambda lr, spoil=spoil: equation_expectation(
                np.cos, **PROBLEM, lr=lr, batch_size=spoil(lr / ratio), clock=4.0, order=1
            ),
        )
        verdicts[name] = judge(E1.at("simulation"), table).verdict
    assert verdicts["right"] == SUPPORTED
    assert verdicts["factor 2"] == REFUTED
    assert verdicts["√S"] == REFUTED


def test_equal_ratio_is_told_from_equal_ratio_to_the_root():
    ratio = 0.0125
    table = simulated(np.cos, lambda lr: round(lr / ratio), 4.0)
    same = simulated(np.cos, lambda lr: round(lr / ratio) // 4, 4.0, lambda lr: lr / 4)
    root = simulated(np.cos, lambda lr: round(lr / ratio) // 4, 4.0, lambda lr: lr / 2)
    for partner, verdict in ((same, SUPPORTED), (root, REFUTED)):
        pairs = table.assign(difference=(table.sgd - partner.sgd).abs())
        assert judge(E3.at("simulation"), pairs).verdict == verdict


@pytest.fixture(scope="module")
def noise():
    """Kurtosis and 4σ tail of batches of values with long tails."""
    rows = []
    for seed in range(8):
        values = numpy_generator(seed, "values").exponential(size=(2, 1152)) ** 2
        for S, found in means_of_batches(values, [4, 8, 16, 32], beyond=[4.0], passes=800, seed=seed).items():
            for v, direction in enumerate(("leading", "random")):
                rows.append((seed, direction, S, found.excess_kurtosis[v], found.tails[v, 0] / (2 * norm.sf(4))))
    return pd.DataFrame(rows, columns=["seed", "direction", "batch_size", "excess_kurtosis", "tail_ratio"])


def test_kurtosis_falls_like_one_over_the_batch_and_not_like_its_root(noise):
    assert judge(E4a.at("simulation"), noise).verdict == SUPPORTED
    root = noise.assign(excess_kurtosis=noise.excess_kurtosis * np.sqrt(noise.batch_size))
    assert judge(E4a.at("simulation"), root).verdict == REFUTED
    assert judge(E4b.at("simulation"), noise.query("batch_size == 32")).verdict == REFUTED


def test_a_gaussian_tail_is_recognized():
    rng = numpy_generator(0, "ratios")
    rows = [{"seed": s, "direction": d, "tail_ratio": rng.normal(1, 0.2)} for s in range(8) for d in ("a", "b")]
    assert judge(E4b.at("simulation"), pd.DataFrame(rows)).verdict == SUPPORTED


def test_svag_needs_both_measures_and_the_same_clock():
    table = pd.DataFrame([(seed, svag) for seed in range(8) for svag in (1, 2, 8)], columns=["seed", "svag"])
    spread = np.exp(numpy_generator(0, "svag").normal(0, 0.05, size=(2, len(table))))
    table = table.assign(train_loss=0.04 * spread[0], sharpness=7 * spread[1], clock=40.0)
    table = table.assign(sharpness_converged=True, diverged=False, finished=True)
    claim = E5.at("equal clock")
    assert judge(claim, table).verdict == SUPPORTED
    doubled = table.assign(sharpness=table.sharpness * np.where(table.svag == 8, 2, 1))
    assert judge(claim, doubled).verdict == REFUTED
    # the planted bug: l times as many steps of the full learning rate
    assert judge(claim, table.assign(clock=40.0 * table.svag)).verdict == VOID
