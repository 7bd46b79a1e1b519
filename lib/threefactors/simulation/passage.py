"""Seen along a trajectory: when it first arrives somewhere, and how fast it goes round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors.simulation.ensemble import Draws, Dynamics

Array = NDArray[np.float64]


def first_passage(
    dynamics: Dynamics,
    start: ArrayLike,
    arrived: Callable[[Array], NDArray[np.bool_]],
    *,
    trajectories: int,
    seed: int,
    at_most: int = 10_000_000,
    stream: str = "passage",
) -> Array:
    """Steps (trajectories,) until each trajectory has first arrived; ∞ for one that had not after ``at_most``.

    start (d,); arrived maps x (d, n) to a mask (n,). A trajectory that has arrived stops: it is cut out once a quarter
    of the others have, too. What crosses and comes back within a step is not seen, so that in time h a boundary lies
    effectively 0.58 √(nσ²h) further out (Broadie, Glasserman & Kou, doi:10.1111/1467-9965.00035). Put the boundary
    where that does not matter: at the bottom of the other well, not on the barrier.
    Errors: ValueError for no trajectory, at_most < 1, a start that is no vector, or one that has arrived already.
    """
    begin = np.asarray(start, dtype=float)
    if trajectories < 1 or at_most < 1 or begin.ndim != 1:
        raise ValueError(
            f"trajectories={trajectories}, at_most={at_most}, start of shape {begin.shape}: use >= 1, >= 1 and (d,)"
        )
    x = np.repeat(begin[:, None], trajectories, axis=1)
    if arrived(x).any():
        raise ValueError(f"start={begin.tolist()} has arrived already; start outside the target")
    draws = Draws(seed, stream, 0)
    steps = np.full(trajectories, np.inf)
    who, waiting = np.arange(trajectories), np.ones(trajectories, dtype=bool)
    advance = dynamics(trajectories, draws)
    for t in range(1, at_most + 1):
        advance(x, t - 1)
        new = arrived(x)
        new &= waiting
        if new.any():
            steps[who[new]] = t
            waiting &= ~new
            left = int(waiting.sum())
            if not left:
                break
            if left < 0.75 * len(who):
                x, who = np.ascontiguousarray(x[:, waiting]), who[waiting]
                waiting = np.ones(left, dtype=bool)
                advance = dynamics(left, draws)
    return steps


def circulation_rate(
    dynamics: Dynamics,
    *,
    step: float,
    burn: int,
    steps: int,
    trajectories: int,
    seed: int,
    stream: str = "circulation",
) -> float:
    """Mean of θ₁ dθ₂ − θ₂ dθ₁ per unit of time in two dimensions: twice the area swept, with its sign.

    0 under detailed balance. Trajectories start at the origin; ``burn`` steps are not counted. step: time of one step.
    Errors: ValueError for counts below 1 (burn: 0), or a step that is not > 0.
    """
    if min(steps, trajectories) < 1 or burn < 0 or not step > 0:
        raise ValueError(
            f"burn={burn}, steps={steps}, trajectories={trajectories}, step={step}: use >= 0, >= 1, >= 1 and > 0"
        )
    x = np.zeros((2, trajectories))
    before, swept = np.empty_like(x), np.zeros(trajectories)
    advance = dynamics(trajectories, Draws(seed, stream, 0))
    for t in range(burn):
        advance(x, t)
    for t in range(burn, burn + steps):
        before[:] = x
        advance(x, t)
        # θ × dθ = θ × θ′, since θ × θ = 0
        swept += before[0] * x[1] - before[1] * x[0]
    return float(swept.mean() / (steps * step))
