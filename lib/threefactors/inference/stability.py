"""Quadratic sums, simulation beside theory: where SGD lets go of a minimum, and how fast.

A measurement of the transition sees steps of SGD and the largest curvature of the mean, and nothing of the prediction:
a coarse grid between a fiftieth and three times the limit 2/λ_1 of gradient descent finds the change of sign of the
growth rate; five learning rates around it, on common batches and fresh random numbers, locate it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors.inference.crossings import first_reach
from threefactors.simulation.ensemble import simulate
from threefactors.simulation.growth import growth_rates
from threefactors.simulation.quadratic_problems import flatter, standard_kicks
from threefactors.simulation.quadratic_sums import absorbed, quadratic_sum
from threefactors.theory.linear_stability import (
    almost_sure_limit,
    lyapunov_exponent,
    mean_square_factor,
    mean_square_limit,
)
from threefactors.theory.quadratic import stability_limit
from threefactors.theory.second_moment import second_moment_limit
from threefactors.theory.stability_bounds import explicit_bounds, line_limit, one_step_limit

Array = NDArray[np.float64]
COARSE = (0.02, 3.0)  # in units of 2/λ_1
FINE = np.linspace(-1, 1, 5)
BOUNDS = {"converges_below": 1, "one_step": 1, "on_a_line": -1, "diverges_above": -1}  # +1: the limit is above it
REACH = {2.0: 0.06, 0.0: 0.03}  # in ln η: half of what the second look spans, little enough for a parabola


# --- the transition ------------------------------------------------------------------------------


def measured_limit(
    curvatures: Array,
    batch_size: int,
    *,
    power: float,
    replacement: bool,
    seed: int,
    stream: str,
    clones: int,
    steps: int,
    settle: int,
    coarse: int = 16,
) -> float:
    """Learning rate at which the measured growth rate of E|e|^power, power 2 or 0, first turns from < 0 to > 0.

    clones, steps, settle as in ``growth_rates``; coarse: learning rates of the first look, which has a quarter of the
    clones and steps. A parabola through the growth rates of the second look gives the crossing; if it has none on its
    grid, the grid moves on and widens. nan where no change of sign is seen.
    """
    m = 1 if curvatures.ndim == 1 else curvatures.shape[1]

    def growth(rates: Array, name: str, share: int) -> Array:
        sgd = quadratic_sum(curvatures, None, rates, batch_size, replacement=replacement)
        return growth_rates(sgd, m, power=power, clones=clones // share, steps=-(-steps // share), settle=settle,
                            seed=seed, replicas=len(rates), stream=f"{stream}/{name}")  # fmt: skip

    rates = gradient_descent_limit(curvatures) * np.geomspace(*COARSE, coarse)
    rate = growth(rates, "coarse", 4)
    rises = np.flatnonzero((rate[:-1] < 0) & (rate[1:] >= 0))
    if not len(rises):
        return np.nan
    i = rises[-1 if power else 0]  # ρ is convex in η and turns once; the Lyapunov exponent may turn again
    low, high = max(rate[i], -1.0), min(rate[i + 1], 1.0)
    place, reach = np.log(rates[i]) + np.log(rates[i + 1] / rates[i]) * low / (low - high), REACH[power]
    for again in range(8):
        rate = growth(np.exp(place + reach * FINE), f"fine {again}", 1)
        fit = np.polynomial.Polynomial.fit(FINE, rate, 2)
        roots = fit.roots()
        crossing = roots[(abs(roots.imag) < 1e-12) & (abs(roots) <= 1) & (fit.deriv()(roots).real > 0)].real
        if len(crossing):
            return float(np.exp(place + reach * crossing[0]))
        place -= 1.5 * reach * np.sign(rate.mean())
        reach = min(1.5 * reach, 0.3)
    return np.nan


def transitions(
    problems: Mapping[str, Array],
    batch_sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    replacement: bool = True,
    power: float = 2.0,
    **effort: int,
) -> pd.DataFrame:
    """The transition of each problem and batch size (S ≤ n without replacement), measured and predicted.

    power 2: of the mean square; 0: of the typical trajectory, in one dimension. effort: as ``measured_limit``. Columns:
    problem, batch_size, cell, dimension, seed, limit, predicted_limit; without_noise, 2/λ_1; and, for power 2, the
    bounds converges_below, one_step, on_a_line (the least over eigenvectors of the mean), diverges_above, and how far
    the limit is on the right side of each, relative to it: beyond_converges_below, ….
    """
    rows = []
    for name, Q in problems.items():
        for S in batch_sizes:
            if not replacement and len(Q) < S:
                continue
            row: dict[str, Any] = {"problem": name, "batch_size": S, "cell": f"{name}, S = {S}"}
            row |= {"dimension": 1 if Q.ndim == 1 else Q.shape[1], "without_noise": gradient_descent_limit(Q)}
            row |= _predictions(Q, S, replacement, power)
            for seed in seeds:
                limit = measured_limit(Q, S, power=power, replacement=replacement, seed=seed,
                                       stream=f"{name}/{S}/{replacement}/{power}", **effort)  # fmt: skip
                rows.append(row | {"seed": seed, "limit": limit})
    table = pd.DataFrame(rows)
    for bound, side in BOUNDS.items() if power else ():
        table[f"beyond_{bound}"] = side * (table["limit"] / table[bound] - 1)
    return table


def flatness(least: Sequence[float], batch_sizes: Sequence[int], seeds: Sequence[int], **more: Any) -> pd.DataFrame:
    """``transitions`` of two problems that differ in their least curvature alone, and what the steeper one gains.

    Further columns: advantage, the limit over that of the first, flatter problem for the same seed and batch size,
    predicted_advantage, and log_advantage. The problems are named by their least curvature.
    """
    table = transitions({f"λ = {x:g}": flatter(x) for x in least}, batch_sizes, seeds, **more)
    key = ["batch_size", "seed"]
    flat = table[table.problem == f"λ = {least[0]:g}"].set_index(key)[["limit", "predicted_limit"]]
    flat = flat.loc[table.set_index(key).index]
    table["advantage"] = table["limit"].to_numpy() / flat["limit"].to_numpy()
    table["predicted_advantage"] = table["predicted_limit"].to_numpy() / flat["predicted_limit"].to_numpy()
    return table.assign(log_advantage=np.log(table["advantage"]))


def gradient_descent_limit(curvatures: Array) -> float:
    """2/λ_1 of the mean: what the limit would be without any noise."""
    mean = curvatures.mean(axis=0)
    return float(stability_limit(mean if mean.ndim == 0 else np.linalg.eigvalsh(mean)[-1]))


def _predictions(Q: Array, S: int, replacement: bool, power: float) -> dict[str, float]:
    if power == 0:
        return {"predicted_limit": almost_sure_limit(Q, S, replacement=replacement)}
    exact, terms = (mean_square_limit, Q[:, None, None]) if Q.ndim == 1 else (second_moment_limit, Q)
    below, above = explicit_bounds(terms, S, replacement=replacement)
    axes = np.linalg.eigh(terms.mean(axis=0))[1].T
    return {
        "predicted_limit": exact(Q, S, replacement=replacement),
        "converges_below": below,
        "one_step": one_step_limit(terms, S, replacement=replacement),
        "on_a_line": min(line_limit(terms, axis, S, replacement=replacement) for axis in axes),
        "diverges_above": above,
    }


# --- how fast: growth rates, and who has left -----------------------------------------------------


def growth_table(
    problems: Mapping[str, Array], batch_size: int, factors: Sequence[float], seeds: Sequence[int], **effort: int
) -> pd.DataFrame:
    """Growth per step of the mean square and of a typical trajectory, at multiples of their limits, independent draws.

    Columns: problem, kind ("mean square" for ½ ln ρ, "typical" for G: both per step of ln|e|), factor, cell, lr, seed,
    growth, predicted_growth. effort: clones and steps.
    """
    rows = []
    for name, q in problems.items():
        for kind, power, limit in (("mean square", 2, mean_square_limit), ("typical", 0, almost_sure_limit)):
            rates = limit(q, batch_size) * np.array(factors)
            for seed in seeds:
                measured = growth_rates(quadratic_sum(q, None, rates, batch_size), 1, power=power, settle=0, seed=seed,
                                        replicas=len(rates), stream=f"growth/{name}/{kind}", **effort)  # fmt: skip
                for factor, lr, growth in zip(factors, rates, measured / max(power, 1), strict=True):
                    row = {"problem": name, "kind": kind, "factor": factor, "cell": f"{name}, {factor:g} of the limit"}
                    predicted = 0.5 * np.log(mean_square_factor(q, lr, batch_size)) if power else np.nan
                    predicted = predicted if power else lyapunov_exponent(q, lr, batch_size)
                    rows.append(row | {"lr": lr, "seed": seed, "growth": growth, "predicted_growth": predicted})
    return pd.DataFrame(rows)


def boundaries(curvatures: Array, batch_sizes: Sequence[int]) -> pd.DataFrame:
    """Predicted limits of one-dimensional sums over the batch size, independent draws: kind, batch_size, lr."""
    laws = {
        "mean square": mean_square_limit,
        "typical trajectory": almost_sure_limit,
        "gradient descent": lambda q, _: gradient_descent_limit(q),
    }
    rows = [
        {"kind": kind, "batch_size": S, "lr": law(curvatures, S)} for kind, law in laws.items() for S in batch_sizes
    ]
    return pd.DataFrame(rows)


def growth_curves(curvatures: Array, rates: Array, batch_size: int) -> pd.DataFrame:
    """Predicted growth per step of ln|e|, in the mean square and typically: kind, lr, y; cut off at −4."""
    laws = {
        "mean square": lambda lr: 0.5 * np.log(mean_square_factor(curvatures, lr, batch_size)),
        "typical": lambda lr: lyapunov_exponent(curvatures, lr, batch_size),
    }
    rows = [{"kind": kind, "lr": lr, "y": max(law(lr), -4.0)} for kind, law in laws.items() for lr in rates]
    return pd.DataFrame(rows)


def fates(
    curvatures: Array,
    rates: Array,
    batch_sizes: Sequence[int],
    *,
    trajectories: int,
    steps: int,
    basin: float,
    amplitude: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of trajectories that have left |e| < basin within so many steps from |e| = 1: lr, batch_size, share.

    One dimension, independent draws, all learning rates on the same batches. The gradients at the minimum have the
    standard deviation ``amplitude`` over the terms.
    """
    gradients, parts = amplitude * standard_kicks(len(curvatures)), []
    for S in batch_sizes:
        sgd = absorbed(quadratic_sum(curvatures, gradients, rates, S), basin)
        final = simulate(sgd, np.ones(len(rates)), steps, trajectories=trajectories, seed=seed, stream=f"fates/{S}",
                         threads=1).final  # fmt: skip
        parts.append(pd.DataFrame({"lr": rates, "batch_size": S, "share": np.isnan(final).mean(axis=1)}))
    return pd.concat(parts, ignore_index=True)


def growth_map(curvatures: Array, rates: Array, batch_sizes: Sequence[int], **effort: int) -> pd.DataFrame:
    """Measured growth ln ρ of the mean square over the grid of ``fates``: lr, batch_size, growth. effort: as there."""
    parts = []
    for S in batch_sizes:
        growth = growth_rates(quadratic_sum(curvatures, None, rates, S), 1, power=2, settle=0, seed=0,
                              replicas=len(rates), stream=f"map/{S}", **effort)  # fmt: skip
        parts.append(pd.DataFrame({"lr": rates, "batch_size": S, "growth": growth}))
    return pd.concat(parts, ignore_index=True)


def half_left(
    curvatures: Array, amplitudes: Sequence[float], batch_size: int, seeds: Sequence[int], **run: Any
) -> pd.DataFrame:
    """Learning rate at which half of the trajectories leave the basin, for gradient noise of several amplitudes.

    The gradients at the minimum have the standard deviation ``amplitude`` over the terms, in units of the start.
    run: trajectories, steps, basin of ``fates``. The grid is that of ``measured_limit``, in steps of 4 %.
    Columns: amplitude, seed, limit, and moved = ln(limit/limit without gradient noise) for the same seed.
    """
    rates = gradient_descent_limit(curvatures) * np.exp(np.arange(np.log(COARSE[0]), np.log(COARSE[1]), 0.04))
    rows = []
    for seed in seeds:
        for amplitude in amplitudes:
            table = fates(curvatures, rates, [batch_size], seed=seed, amplitude=amplitude, **run)
            limit = np.exp(first_reach(np.log(rates), table.share.to_numpy(), 0.5))
            rows.append({"amplitude": float(amplitude), "seed": seed, "limit": limit})
    table = pd.DataFrame(rows)
    still = table[table.amplitude == 0].set_index("seed").limit
    return table.assign(moved=np.log(table.limit / table.seed.map(still)))
