"""First-passage times: when does a trajectory first arrive?"""

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
    """Number of steps (trajectories,) until each trajectory has first arrived; ∞ for one that had not after ``at_most``.

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
