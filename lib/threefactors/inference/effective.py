"""How many independent samples are there in correlated ones?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def effective_size(samples: ArrayLike) -> float:
    """Number of independent samples whose mean would be as uncertain as the mean of these.

    N_eff = K · Var(x)/Var(x̄_k): samples (T, K) are K independent trajectories seen at T equally spaced times, and the
    means x̄_k over time of trajectories vary as much as the correlation in time, whatever its form, makes them. No
    correlation function has to be estimated or cut off. Valid for a stationary process and K ≫ 1: the relative standard
    error is about √(2/K). Errors: ValueError for fewer than 2 trajectories, or samples that never vary.
    """
    x = np.asarray(samples, dtype=float)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"samples of shape {x.shape} are not (times, trajectories); use 2 trajectories or more")
    spread = x.mean(axis=0).var(ddof=1)
    if not spread > 0:
        raise ValueError("no trajectory differs from another, so that nothing was learnt; run for longer")
    return float(x.shape[1] * x.var() / spread)


def autocorrelation_time(samples: ArrayLike) -> float:
    """Samples in a row that are worth one independent one: T·K/N_eff = 1 + 2 Σ_h (1 − h/T) ρ_h.

    Arguments, validity and errors as in ``effective_size``.
    """
    return np.asarray(samples).size / effective_size(samples)


def log_odds(samples: ArrayLike) -> float:
    """ln p/(1 − p) for the share p of True among the samples; ±∞ where all are alike."""
    p = float(np.mean(np.asarray(samples, dtype=bool)))
    with np.errstate(divide="ignore"):
        return float(np.log(p) - np.log1p(-p)) if p < 1 else np.inf
