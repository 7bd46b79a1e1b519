"""Quadratic sums below their limit, simulation beside theory: the tail of the stationary state, and its variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors._rng import numpy_generator
from threefactors.simulation.ensemble import simulate
from threefactors.simulation.quadratic_problems import standard_kicks
from threefactors.simulation.quadratic_sums import quadratic_sum
from threefactors.simulation.samplers import stationary_squares
from threefactors.theory.linear_stability import (
    mean_square_limit,
    moment_limit,
    stationary_variance,
    tail_exponent,
)
from threefactors.theory.second_moment import second_moment_covariance, second_moment_limit

Array = NDArray[np.float64]


def hill(sizes: Array, share: float) -> float:
    """Hill's estimate of a tail exponent: 1/mean of ln(|e|/u) over the largest share, u the size that begins it.

    Source: B. M. Hill (1975), doi:10.1214/aos/1176343247. Errors: ValueError for fewer than 10 sizes in the share.
    """
    count = int(len(sizes) * share)
    if count < 10:
        raise ValueError(f"share={share} of {len(sizes)} sizes is {count}; use at least 10")
    top = np.partition(sizes, len(sizes) - count - 1)[len(sizes) - count - 1 :]
    return float(1 / np.log(np.delete(top, top.argmin()) / top.min()).mean())


def tails(
    curvatures: Array,
    exponents: Sequence[float],
    batch_sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    trajectories: int,
    looks: int,
    settle: int = 200,
    apart: int = 5,
    share: float = 0.005,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stationary |e| at the learning rates whose tails are predicted to have these exponents, in one dimension.

    Every ``apart`` steps after ``settle`` of them, all trajectories are looked at; ``share`` of what was seen goes into
    ``hill``. Two tables. Estimates: batch_size, lr, cell, seed, exponent, predicted_exponent. Survival functions of the
    first seed: cell, size (in units of the size beyond which one in ten is), survival, predicted_exponent.
    """
    kicks, rows, curves = standard_kicks(len(curvatures)), [], []
    for S in batch_sizes:
        rates = np.array([moment_limit(curvatures, theta, S) for theta in exponents])
        for seed in seeds:
            seen = _stationary_sizes(curvatures, kicks, rates, S, trajectories, settle, looks, apart, seed)
            for theta, lr, sizes in zip(exponents, rates, seen, strict=True):
                cell = {"batch_size": S, "lr": lr, "cell": f"S = {S}, ϑ = {theta:g}", "predicted_exponent": theta}
                rows.append(cell | {"seed": seed, "exponent": hill(sizes, share)})
                if seed == seeds[0]:
                    survival = np.geomspace(10 / len(sizes), 0.5, 60)
                    size = np.quantile(sizes, 1 - survival) / np.quantile(sizes, 0.9)
                    curves.append(pd.DataFrame({"size": size, "survival": survival}).assign(**cell))
    return pd.DataFrame(rows), pd.concat(curves, ignore_index=True)


def _stationary_sizes(
    q: Array, kicks: Array, rates: Array, S: int, trajectories: int, settle: int, looks: int, apart: int, seed: int
) -> Array:
    """|e| (rates, looks · trajectories) in the stationary state."""
    sgd, state, seen = quadratic_sum(q, kicks, rates, S), np.zeros((len(rates), trajectories)), []
    for look in range(looks):
        steps = apart if look else settle
        state = simulate(sgd, state, steps, trajectories=trajectories, seed=seed, stream=f"tails/{S}/{look}",
                         threads=1).final  # fmt: skip
        seen.append(np.abs(state))
    return np.concatenate(seen, axis=1)


def variances(
    problems: Mapping[str, Array], batch_sizes: Sequence[int], factor: float, seeds: Sequence[int], **times: int
) -> pd.DataFrame:
    """Stationary E|e|² of each problem and batch size at ``factor`` times the mean-square limit, independent draws.

    Gradients at the minimum are normal, and made to depend on the curvatures: g_i gets the first column of Q_i added.
    times: settle, observe, trajectories of ``stationary_squares``. Columns: problem, batch_size, cell, dimension, lr,
    seed, variance, predicted_variance; and, in one dimension, tail_exponent, the predicted one.
    """
    rows = []
    for name, Q in problems.items():
        m = 1 if Q.ndim == 1 else Q.shape[1]
        g = numpy_generator(0, f"gradients/{name}").normal(size=(len(Q), m)) + Q.reshape(len(Q), m, m)[:, 0]
        g -= g.mean(axis=0)
        for S in batch_sizes:
            row: dict[str, Any] = {"problem": name, "batch_size": S, "cell": f"{name}, S = {S}", "dimension": m}
            if m == 1:
                lr = factor * mean_square_limit(Q, S)
                predicted = stationary_variance(Q, float((g**2).mean()), lr, S)
                row["tail_exponent"] = tail_exponent(Q, lr, S)
            else:
                lr = factor * second_moment_limit(Q, S)
                predicted = float(np.trace(second_moment_covariance(Q, g, lr, S)))
            for seed in seeds:
                squares = stationary_squares(quadratic_sum(Q, g, lr, S), np.zeros(m), seed=seed,
                                             stream=f"variance/{name}/{S}", **times)  # fmt: skip
                rows.append(row | {"lr": lr, "seed": seed, "variance": squares.sum(), "predicted_variance": predicted})
    return pd.DataFrame(rows)
