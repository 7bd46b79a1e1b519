"""How fast moments grow, measured without any theory of them: a population of clones.

The mean of |e_t|² over an ensemble is carried by ever fewer trajectories, and after some tens of steps a simulation
has none of those that count. So the population is renewed after every step: a clone that a step has stretched by a
factor f is copied in proportion to f^power, and all are brought back to length 1. The mean of f^power over the
population, multiplied over steps, is E|e_t|^power; it needs nothing but steps of the dynamics.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefactors.simulation.ensemble import Draws, Dynamics

Array = NDArray[np.float64]


def growth_rates(
    dynamics: Dynamics,
    dimension: int,
    *,
    power: float,
    clones: int,
    steps: int,
    settle: int,
    seed: int,
    replicas: int = 1,
    stream: str = "growth",
) -> Array:
    """(1/t) ln E|e_t|^power per step (replicas,), for each of so many copies of a linear system in one state.

    power 2: the logarithm ln ρ of the mean square's factor; 0: E ln|e_t|/t, the largest Lyapunov exponent.
    dynamics: linear and homogeneous in e, of state (replicas · dimension, clones), such as ``quadratic_sum`` with a
    learning rate for each replica; replicas share their random numbers. settle: steps for the directions to forget
    how they began, before ``steps`` are counted. The error is of the order of 1/√(clones · steps), with a bias of the
    order of 1/clones. −∞ where all lengths are 0.
    Errors: ValueError for clones, replicas, dimension or steps < 1, settle < 0, or power < 0.
    Source: cloning as in Grassberger (2002), doi:10.1016/S0010-4655(02)00205-9.
    """
    if min(clones, steps, replicas, dimension) < 1 or settle < 0 or not power >= 0:
        raise ValueError(
            f"clones={clones}, steps={steps}, replicas={replicas}, dimension={dimension}, settle={settle}, "
            f"power={power}: use >= 1, but for settle >= 0 and power >= 0"
        )
    draws = Draws(seed, stream, 0)
    advance = dynamics(clones, draws)
    e = np.repeat(draws.numpy.normal(size=(1, dimension, clones)), replicas, axis=0)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    total = np.zeros(replicas)
    for t in range(settle + steps):
        advance(e.reshape(-1, clones), t)
        length = np.sqrt(np.einsum("rdn,rdn->rn", e, e)) if dimension > 1 else np.abs(e[:, 0])
        weight = length**power if power > 0 else None
        if t >= settle:
            total += _mean_log(length) if weight is None else _log_mean(weight)
        if (dead := length == 0).any():
            length[dead], e[:, 0][dead] = 1.0, 1.0
        e /= length[:, None]
        if weight is not None and dimension > 1:  # in one dimension clones of one length are all alike
            weight[~weight.any(axis=1)] = 1.0
            e = np.take_along_axis(e, _parents(weight, draws.numpy.random())[:, None], axis=2)
    return total / steps


def growth_rate(dynamics: Dynamics, dimension: int, *, power: float, **more: int | str) -> float:
    """The same for a single system: (1/t) ln E|e_t|^power per step. Arguments and errors as in ``growth_rates``."""
    return float(growth_rates(dynamics, dimension, power=power, **more)[0])  # type: ignore[arg-type]


def _log_mean(weight: Array) -> Array:
    """ln of the mean over clones, whose own variance v makes it too small by v/2 to first order: added back."""
    n = weight.shape[1]
    mean, square = weight.mean(axis=1), np.einsum("rn,rn->r", weight, weight) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(mean > 0, (square / mean**2 - 1) / n, 0.0)
        return np.log(mean) + relative / 2


def _mean_log(length: Array) -> Array:
    with np.errstate(divide="ignore"):
        mean: Array = np.log(length).mean(axis=1)
    return mean


def _parents(weight: Array, offset: float) -> NDArray[np.int64]:
    """Who each clone (replicas, clones) descends from: copies by the share of the weight, rounded up or down at random.

    Systematic resampling: as many copies as there are marks u, u + 1, u + 2, … in a clone's part of a line of length n.
    """
    replicas, n = weight.shape
    ends = np.cumsum(weight, axis=1)
    ends *= n / ends[:, -1:]
    ends[:, -1] = n
    marks = np.ceil(ends - offset).astype(np.int64)
    copies = marks.copy()
    copies[:, 1:] -= marks[:, :-1]
    parents: NDArray[np.int64] = np.repeat(np.tile(np.arange(n), replicas), copies.ravel()).reshape(replicas, n)
    return parents
