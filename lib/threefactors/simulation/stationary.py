"""Experiments on the stationary state: trajectories left alone until they have settled, then averaged over time.

Each makes a tidy table with one row for each cell and seed. Cells draw from streams of their own, so that their
errors are independent; nothing is known here of what theory predicts. How long to wait is told by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from threefactors.simulation.bowl import bowl, height, regression, time_average
from threefactors.simulation.ensemble import Dynamics, simulate

Array = NDArray[np.float64]
SETTLE, WATCH = 8, 16  # relaxation times that are waited, leaving e⁻⁸ of the start, and that are then averaged over


def settled(
    dynamics: Dynamics,
    observe: Callable[[Array], Array],
    dimension: int,
    relaxation: float,
    *,
    seeds: int,
    trajectories: int,
    stream: str,
    every: int | None = None,
) -> Array:
    """Stationary means (seeds, k) of what is observed, over trajectories and time, from a start at the origin.

    relaxation: time in steps in which the second moment forgets its start by 1/e; every: steps between two looks (None:
    half a relaxation time). Errors: ValueError for a relaxation time that is infinite, negative or no number.
    """
    if not 0 <= relaxation < np.inf:
        raise ValueError(f"relaxation={relaxation} is no number of steps to wait; use a finite one >= 0")
    first = int(np.ceil(SETTLE * relaxation)) + 1
    times = range(first, first + int(np.ceil(WATCH * relaxation)) + 1, every or int(relaxation / 2) + 1)
    paths = (
        simulate(
            dynamics, np.zeros(dimension), times[-1], trajectories=trajectories, seed=seed, stream=stream,
            observe=observe, at=times,
        )
        for seed in range(seeds)
    )  # fmt: skip
    return np.array([time_average(path) for path in paths])


def bowl_table(
    hessian: Array,
    noises: Mapping[str, Array],
    relaxation: Callable[[float], float],
    *,
    lr: Sequence[float],
    batch_size: Sequence[int],
    seeds: int,
    trajectories: int,
) -> pd.DataFrame:
    """Heights and variances in one bowl under several noise covariances, by name, over a grid of lr and batch_size.

    relaxation: lr → steps. Columns: ``noise``, ``lr``, ``batch_size``, ``ratio``, ``seed``, ``excess_loss``, and
    ``variance_1`` … along the axes.
    """
    rise, rows = height(hessian), []
    for name, eta, batch in product(noises, lr, batch_size):
        means = settled(
            bowl(hessian, noises[name], eta, batch), lambda x: np.vstack([rise(x), x**2]), len(hessian),
            relaxation(eta), seeds=seeds, trajectories=trajectories, stream=f"bowl {name}, {eta}, {batch}",
        )  # fmt: skip
        cell = {"noise": name, "lr": eta, "batch_size": batch, "ratio": eta / batch}
        for seed, (loss, *variances) in enumerate(means):
            along = {f"variance_{i}": variance for i, variance in enumerate(variances, start=1)}
            rows.append(cell | {"seed": seed, "excess_loss": loss} | along)
    return pd.DataFrame(rows)


def relaxation_table(
    hessian: Array,
    noise: Array,
    lr: float,
    steps: Sequence[int],
    *,
    batch_size: Sequence[int],
    seeds: int,
    trajectories: int,
) -> pd.DataFrame:
    """Heights after so many steps from the bottom of the bowl: ``batch_size``, ``steps``, ``seed``, ``excess_loss``."""
    rows = []
    for batch, seed in product(batch_size, range(seeds)):
        path = simulate(
            bowl(hessian, noise, lr, batch), np.zeros(len(hessian)), max(steps), trajectories=trajectories,
            seed=seed, stream=f"relaxation {batch}", observe=height(hessian), at=list(steps),
        )  # fmt: skip
        for t, (loss,) in zip(steps, path.means, strict=True):
            rows.append({"batch_size": batch, "steps": t, "seed": seed, "excess_loss": loss})
    return pd.DataFrame(rows)


def regression_table(
    variances: Array,
    label_noise: float,
    relaxation: Callable[[float, int], float],
    *,
    ratio: Sequence[float],
    batch_size: Sequence[int],
    seeds: int,
    trajectories: int,
) -> pd.DataFrame:
    """Heights in linear regression over a grid of ratio = lr/batch_size and batch_size.

    relaxation: (lr, batch_size) → steps. Columns: ``ratio``, ``batch_size``, ``lr``, ``seed``, ``excess_loss``.
    """
    rows = []
    for scale, batch in product(ratio, batch_size):
        lr = scale * batch
        means = settled(
            regression(variances, label_noise, lr, batch), height(np.diag(variances)), len(variances),
            relaxation(lr, batch), seeds=seeds, trajectories=trajectories, stream=f"regression {scale}, {batch}",
        )  # fmt: skip
        cell = {"ratio": scale, "batch_size": batch, "lr": lr}
        rows += [cell | {"seed": seed, "excess_loss": loss} for seed, (loss,) in enumerate(means)]
    return pd.DataFrame(rows)


def epochs_table(
    curvature: Array, lr: float, batches_per_epoch: int | None, relaxation: float, *, seeds: int, trajectories: int
) -> pd.DataFrame:
    """Variances along directions of these curvatures, with batch noise of variance 1, over all phases of the epoch.

    batches_per_epoch: None draws with replacement; else the time averaged over is rounded up to whole epochs.
    Columns: ``curvature``, ``seed``, ``variance``.
    """
    M = batches_per_epoch or 1
    # every step of WATCH·relaxation + 1 counts: all phases alike where that is a multiple of M
    whole = (np.ceil(WATCH * relaxation / M) * M - 1) / WATCH
    means = settled(
        bowl(np.diag(curvature), np.eye(len(curvature)), lr, 1, batches_per_epoch), np.square, len(curvature), whole,
        seeds=seeds, trajectories=trajectories, stream=f"epochs of {batches_per_epoch}", every=1,
    )  # fmt: skip
    return pd.DataFrame(
        {"curvature": at, "seed": seed, "variance": variance}
        for seed, row in enumerate(means)
        for at, variance in zip(curvature, row, strict=True)
    )
