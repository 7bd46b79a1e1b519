"""Two nonconvex sums under three kinds of noise: who leaves which minimum, beside what two mechanisms predict.

Everything that is predicted comes from the curvatures and gradients of the terms *at* the minimum, and for noise kicks
also from the mean loss on the way to the barrier. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from threefactors.inference.crossings import first_reach
from threefactors.simulation.growth import growth_rates
from threefactors.simulation.nonconvex import Circles, Fates, Landscape, StyblinskiTang, circles, fates, styblinski_tang
from threefactors.simulation.quadratic_sums import quadratic_sum
from threefactors.theory.escape import kramers_rate, mean_escape_time
from threefactors.theory.quadratic import stability_limit
from threefactors.theory.second_moment import second_moment_limit

Array = NDArray[np.float64]
SUMS: dict[str, Callable[[int, int], Landscape]] = {"Styblinski–Tang": styblinski_tang, "circles": circles}
MINIMA = {"sharp": 0, "wide": 1}
TERMS = 64
NEAR = 0.1  # of the way to the barrier: within it the terms are parabolas, to a tenth
START = 1e-8  # of the way to the barrier
CLOSER = 1e4  # times as far, the second start for a rate of growth


def deterministic_limit(landscape: Landscape, minimum: int) -> float:
    """2/λ_max, where the descent without noise becomes unstable."""
    return float(stability_limit(np.linalg.eigvalsh(landscape.curvatures(minimum).mean(0))[-1]))


def mean_square_threshold(landscape: Landscape, minimum: int, batch_size: int, *, hessian_noise: bool = True) -> float:
    """η_ms of the terms' Hessians at the minimum, or of their mean without Hessian noise, which is 2/λ_max."""
    if not hessian_noise:
        return deterministic_limit(landscape, minimum)
    return float(second_moment_limit(landscape.curvatures(minimum), batch_size))


def almost_sure_threshold(landscape: Landscape, minimum: int, batch_size: int, seed: int) -> float:
    """η_as, where the Lyapunov exponent of products of the terms' I − ηQ̄ first becomes positive, by sampling them.

    The exponents of 48 learning rates on common batches, each known to about 0.006, give η_as to about half a percent.
    """
    lrs = mean_square_threshold(landscape, minimum, batch_size) * np.geomspace(0.95, 4.2, 48)
    growth = lyapunov(landscape, minimum, lrs, batch_size, seed)
    return crossing(lrs, growth, 0.0)


@cache
def _almost_sure(kind: str, seed: int, minimum: str, batch_size: int) -> float:
    return almost_sure_threshold(SUMS[kind](TERMS, seed), MINIMA[minimum], batch_size, seed)


def lyapunov(landscape: Landscape, minimum: int, lrs: Array, batch_size: int, seed: int, clones: int = 600) -> Array:
    """Largest Lyapunov exponents per step (E,) of e' = (I − ηQ̄)e at the learning rates lrs (E,)."""
    Q = landscape.curvatures(minimum)
    linear = quadratic_sum(Q, None, lrs, batch_size)
    return growth_rates(
        linear, Q.shape[1], power=0, clones=clones, steps=25, settle=10, seed=seed, replicas=len(lrs), stream="lyapunov"
    )


def crossing(x: Array, y: Array, level: float) -> float:
    """Where y first reaches the level, on straight lines over ln x; NaN where it starts above or never does."""
    return float(np.exp(first_reach(np.log(x), y, level)))


@cache
def _log_escape_times(kind: type[Landscape], minimum: int) -> tuple[Array, Array]:
    """ln τ of the mean loss's diffusion against ln(nC), n the noise scale and C the variance of the gradient noise."""
    if kind is StyblinskiTang:
        mean: Landscape = StyblinskiTang(np.ones((1, 3)))
        x, out = float(mean.minima[minimum, 0]), mean.reach[minimum] * (1 if minimum == 0 else -1)
        noise = np.geomspace(0.7, 2000, 60)

        def force(y: Array) -> Array:
            return -(2 * y**3 - 16 * y + 2.5)

        times = [mean_escape_time(force, 1.0, n, start=x, target=x + out, wall=x - 0.8 * out) for n in noise]
        return np.log(noise), np.log(times)
    well = Circles(np.array([[1.0, 0.0, 1.0, 1.0, 1.0]]))
    center, bottom = well.centers[minimum], well.minima[minimum]
    saddle = center * (1 - well.reach[minimum] / np.abs(center[0]))
    barrier = float(well.loss(saddle) - well.loss(bottom))
    bends = [well.hessians(minimum, place)[0] for place in (bottom, saddle)]
    noise = barrier * np.geomspace(0.03, 10, 60)
    return np.log(noise), -np.log([kramers_rate(bends[0], bends[1], barrier, n, 1.0) for n in noise])


def kick_threshold(
    landscape: Landscape, minimum: int, batch_size: int, amplitude: float, steps: int, limit: float = np.inf
) -> float:
    """Learning rate at which noise kicks carry half of the trajectories over the barrier within so many steps.

    Escape times of the diffusion with the noise scale η/S and the gradients' covariance at the minimum, κ²C, are
    exponentially distributed, so that half are out where τ ln 2 = η · steps. limit: the mean-square limit η_ms, to
    amplify the noise by 1/(1 − η/η_ms), as the stationary variance is; ∞ for the diffusion alone. Never: ∞.
    """
    gradients = landscape.at_minimum(landscape.coefficients.T, minimum)
    C = amplitude**2 * float(gradients[0].var())  # along the way out
    log_noise, log_time = _log_escape_times(type(landscape), minimum)
    top = 20 * deterministic_limit(landscape, minimum) if limit == np.inf else limit * (1 - 1e-9)
    lrs = np.geomspace(1e-5 * top, top, 4000)
    noise = np.log(lrs / batch_size * C) - np.log1p(-lrs / limit)
    ahead = np.interp(noise, log_noise, log_time, left=np.inf) + np.log(np.log(2)) - np.log(lrs * steps)
    found = crossing(lrs, -np.minimum(ahead, 50.0), 0.0)
    return found if np.isfinite(found) else np.inf


def _everywhere(work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> list[Any]:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(lambda task: work(*task), tasks))


def _grid(limit: float, low: float, points: int) -> Array:
    """Learning rates from low to 2.6 times a limit, the same for all seeds, whose means differ by rounding alone."""
    return float(f"{limit:.10g}") * np.geomspace(low, 2.6, points)


def without_gradient_noise(
    kind: str,
    seeds: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    steps: int,
    trajectories: int,
    points: int = 28,
) -> pd.DataFrame:
    """Where each minimum of a sum is lost, and where its basin is left, when all terms share the minimum.

    One row a seed (its own random sum), minimum and batch size. lost_at: η at which half of the trajectories get NEAR
    times as far as the barrier; left_at: over it. Predictions mean_square, almost_sure and deterministic; ``place``
    names minimum and batch size.
    """

    def work(seed: int, name: str, S: int) -> dict[str, Any]:
        landscape, m = SUMS[kind](TERMS, seed), MINIMA[name]
        limit, reach = deterministic_limit(landscape, m), float(landscape.reach[m])
        lrs = _grid(limit, 0.55, points)
        found = fates(
            landscape, m, lrs, S, gradient_noise=[0.0], start=START * reach, radius=NEAR * reach,
            steps=steps, trajectories=trajectories, seed=seed,
        )  # fmt: skip
        left = 1 - found.inside[-1, 0]
        return {
            "seed": seed,
            "minimum": name,
            "batch_size": S,
            "place": f"{name}, S = {S}",
            "lost_at": crossing(lrs, 1 - found.near[-1, 0], 0.5),
            "left_at": crossing(lrs, left, 0.5),
            "mean_square": mean_square_threshold(landscape, m, S),
            "almost_sure": _almost_sure(kind, seed, name, S),
            "deterministic": limit,
            "lrs": lrs,
            "share": left,
        }

    return pd.DataFrame(_everywhere(work, [(s, m, S) for s in seeds for m in MINIMA for S in batch_sizes]))


def with_gradient_noise(
    kind: str,
    seeds: Sequence[int],
    batch_sizes: Sequence[int],
    amplitudes: Sequence[float],
    *,
    hessian_noise: bool = True,
    steps: int,
    trajectories: int,
    points: int = 40,
) -> pd.DataFrame:
    """Where each basin of a sum is left under gradient noise of several amplitudes κ, with or without Hessian noise.

    One row a seed, minimum, batch size and amplitude. left_at: η at which half of the trajectories are over the
    barrier within ``steps``. Predictions: instability (η_ms), kicks (of the diffusion), either (whichever comes first)
    and amplified (kicks, the noise amplified as the stationary variance is). ``lrs`` and ``share`` hold the curve.
    """

    def work(seed: int, name: str, S: int) -> list[dict[str, Any]]:
        landscape, m = SUMS[kind](TERMS, seed), MINIMA[name]
        lrs = _grid(deterministic_limit(landscape, m), 0.006, points)
        limit = mean_square_threshold(landscape, m, S, hessian_noise=hessian_noise)
        reach = float(landscape.reach[m])
        found = fates(
            landscape, m, lrs, S, gradient_noise=amplitudes, hessian_noise=hessian_noise, start=START * reach,
            radius=NEAR * reach, steps=steps, trajectories=trajectories, seed=seed,
        )  # fmt: skip
        rows = []
        for kappa, share in zip(amplitudes, 1 - found.inside[-1], strict=True):
            kicks = kick_threshold(landscape, m, S, kappa, steps)
            rows.append(
                {
                    "seed": seed,
                    "minimum": name,
                    "batch_size": S,
                    "amplitude": kappa,
                    "place": f"{name}, S = {S}, κ = {kappa:g}",
                    "left_at": crossing(lrs, share, 0.5),
                    "instability": limit,
                    "kicks": kicks,
                    "either": min(limit, kicks),
                    "amplified": kick_threshold(landscape, m, S, kappa, steps, limit),
                    "deterministic": deterministic_limit(landscape, m),
                    "lrs": lrs,
                    "share": share,
                }
            )
        return rows

    tasks = [(s, m, S) for s in seeds for m in MINIMA for S in batch_sizes]
    return pd.DataFrame([row for rows in _everywhere(work, tasks) for row in rows])


def waiting_times(
    kind: str,
    seeds: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    mechanism: str,
    amplitude: float = 4.0,
    steps: int = 2000,
    trajectories: int,
) -> pd.DataFrame:
    """Mean and spread of escape times, by ``kicks`` (gradient noise alone) or ``instability`` (Hessian noise alone).

    Kicks: at the learning rate whose predicted mean escape time is a tenth of ``steps``, over the barrier. Instability:
    at 1.2 η_as, NEAR times as far as the barrier, from START and from CLOSER times that: growth at the rate G makes the
    difference of the two mean times ln CLOSER/G. Columns: time, spread (standard deviation over mean), rate of growth,
    and predicted_time or predicted_rate.
    """

    def work(seed: int, name: str, S: int) -> dict[str, Any]:
        landscape, m = SUMS[kind](TERMS, seed), MINIMA[name]
        reach = float(landscape.reach[m])
        row = {"seed": seed, "minimum": name, "batch_size": S, "place": f"{name}, S = {S}"}

        def escape(lr: float, start: float, **noise: Any) -> Fates:
            return fates(
                landscape, m, [lr], S, start=start, radius=NEAR * reach, steps=steps, trajectories=trajectories,
                seed=seed, stream="waiting", **noise,
            )  # fmt: skip

        if mechanism == "kicks":
            lr = kick_threshold(landscape, m, S, amplitude, round(steps / 10 * np.log(2)))
            found = escape(lr, START * reach, gradient_noise=[amplitude], hessian_noise=False)
            time, spread = moments(found.steps, found.inside[:, 0, 0])
            return row | {"time": time, "spread": spread, "lr": lr, "predicted_time": steps / 10}
        lr = 1.2 * _almost_sure(kind, seed, name, S)
        far, closer = (escape(lr, START * reach * f, gradient_noise=[0.0], every=1) for f in (1, CLOSER))
        time, spread = moments(far.steps, far.near[:, 0, 0])
        rate = np.log(CLOSER) / (time - moments(closer.steps, closer.near[:, 0, 0])[0])
        exponent = lyapunov(landscape, m, np.array([lr]), S, seed, clones=1500)[0]
        return row | {"time": time, "spread": spread, "lr": lr, "rate": rate, "predicted_rate": exponent}

    return pd.DataFrame(_everywhere(work, [(s, m, S) for s in seeds for m in MINIMA for S in batch_sizes]))


def moments(steps: NDArray[np.int64], left: Array) -> tuple[float, float]:
    """Mean time of escape and standard deviation over mean, from shares still there (T,); NaN if a tenth stays."""
    if left[-1] > 0.1:
        return float("nan"), float("nan")
    when, chance = (steps[1:] + steps[:-1]) / 2, -np.diff(left) / (1 - left[-1])
    mean = float(when @ chance)
    return mean, float(np.sqrt((when - mean) ** 2 @ chance) / mean)


def misses(table: pd.DataFrame, predictor: str) -> pd.DataFrame:
    """The table with ``miss`` = |ln(measured/predicted)|; a transition predicted to be nowhere is at the grid's end."""
    end = np.array([lrs[-1] for lrs in table["lrs"]])
    return table.assign(miss=np.abs(np.log(table["left_at"] / np.minimum(table[predictor], end))))


def agreement(table: pd.DataFrame, predictor: str) -> float:
    """Share of the cells (seed, minimum, S, κ, η) whose fate is predicted: most leave beyond it, most stay below."""
    hits = [
        ((share >= 0.5) == (lrs >= place)).mean()
        for share, lrs, place in zip(table["share"], table["lrs"], table[predictor], strict=True)
    ]
    return float(np.mean(hits))


def orders(table: pd.DataFrame) -> pd.DataFrame:
    """``order`` = ln of where the sharp minimum is left over where the wide one is, for each seed and batch size."""
    wide = table.pivot(index=["seed", "batch_size"], columns="minimum", values="left_at")
    return (wide["sharp"] / wide["wide"]).map(np.log).rename("order").reset_index()


def shifts(table: pd.DataFrame) -> pd.DataFrame:
    """``shift`` = ln of where a basin is left at κ = 1 over where it is at κ = 1/4, for each seed, minimum and S."""
    wide = table.pivot(index=["seed", "batch_size", "minimum"], columns="amplitude", values="left_at")
    return (wide[1.0] / wide[0.25]).map(np.log).rename("shift").reset_index()


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """Share of trajectories that left, mean over seeds: one row a minimum, batch size and learning rate, for a map."""
    long = table[["minimum", "batch_size", "lrs", "share"]].explode(["lrs", "share"]).astype({"share": float})
    long["lr"] = long.pop("lrs").astype(float)
    return long.groupby(["minimum", "batch_size", "lr"], sort=False).share.mean().reset_index()


def boundaries(table: pd.DataFrame, laws: dict[str, str]) -> pd.DataFrame:
    """Predicted transitions, mean over seeds: a row a minimum, batch size and law; ``laws`` names the columns."""
    mean = table.groupby(["minimum", "batch_size"], sort=False)[list(laws)].mean().rename(columns=laws)
    return mean.reset_index().melt(["minimum", "batch_size"], var_name="law", value_name="lr")
