"""SGD on a finite sum of functions, thousands of trajectories at once, and its means to high precision.

A problem is its per-example gradient: gradient(i, x) for examples i (S, 1, n) and parameters x (d, n) gives
(S, d, n), one column for each trajectory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from threefactors.simulation.ensemble import Advance, Draws, Dynamics, simulate

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
PerExample = Callable[[Indices, Array], Array]
SAMPLINGS = ("replacement", "without", "epoch")


def finite_sum_sgd(
    gradient: PerExample, examples: int, lr: float, batch_size: int, sampling: str = "replacement"
) -> Dynamics:
    """One step: x ← x − (η/S) Σ over the batch of g_i(x), each trajectory with a batch of its own.

    sampling ``replacement``: S independent draws. ``without``: S different examples, afresh at every step. ``epoch``:
    the examples in an order that is shuffled anew every ⌊N/S⌋ steps.
    Errors: ValueError for an unknown sampling, lr ≤ 0, S < 1, or S > N unless with replacement.
    """
    draw_of = _sampler(examples, batch_size, sampling)
    if not lr > 0:
        raise ValueError(f"lr={lr} makes no step; use lr > 0")

    def dynamics(n: int, draws: Draws) -> Advance:
        draw = draw_of(n, draws)

        def advance(x: Array, t: int) -> None:
            x -= lr * gradient(draw(t), x).mean(0)

        return advance

    return dynamics


def shadowed_sgd(gradient: PerExample, curvature: PerExample, examples: int, lr: float, batch_size: int) -> Dynamics:
    """SGD with replacement for one parameter, and beside it a process whose moments are known: its shadow.

    x ← x − η g_B(x),   y ← y − η g(y),   z ← (1 − η h_B(y)) z − η (g_B(y) − g(y)),

    rows of the state (3, n): x, the descent y without noise, and z, the linearization of x − y along y with the
    *same* batches B. E z = 0, and E z² is given by ``shadow_variance``, so that z and z² − E z² are control variates.
    curvature(i, y) = g_i'(y). Errors: as ``finite_sum_sgd``.
    """
    draw_of = _sampler(examples, batch_size, "replacement")
    everyone = np.arange(examples)[:, None, None]

    def dynamics(n: int, draws: Draws) -> Advance:
        draw = draw_of(n, draws)

        def advance(state: Array, t: int) -> None:
            x, y, z = state
            batch = draw(t)
            here = y[:1]  # all trajectories share it, so that gradients along it are a table
            slopes, bends = gradient(everyone, here)[:, 0, 0], curvature(everyone, here)[:, 0, 0]
            z *= 1 - lr * bends[batch].mean(0)[0]
            z -= lr * (slopes[batch].mean(0)[0] - slopes.mean())
            x -= lr * gradient(batch, x[None]).mean(0)[0]
            y -= lr * slopes.mean()

        return advance

    return dynamics


def shadow_variance(
    gradient: PerExample, curvature: PerExample, examples: int, start: float, lr: float, batch_size: int, steps: int
) -> float:
    """E z² of ``shadowed_sgd`` after so many steps: v ← [(1 − ηh)² + η² Var(h_i)/S] v + η² Var(g_i)/S along y."""
    y, v, everyone = np.array([start]), 0.0, np.arange(examples)[:, None, None]
    for _ in range(steps):
        g, h = gradient(everyone, y), curvature(everyone, y)
        v = ((1 - lr * h.mean()) ** 2 + lr**2 * h.var() / batch_size) * v + lr**2 * g.var() / batch_size
        y = y - lr * g.mean()
    return float(v)


def sgd_mean(
    observable: Callable[[Array], Array],
    gradient: PerExample,
    curvature: PerExample,
    examples: int,
    start: float,
    *,
    lr: float,
    batch_size: int,
    clock: float,
    trajectories: int,
    seed: int,
) -> float:
    """Monte-Carlo mean of φ(θ_T) over trajectories of SGD with replacement, T = clock, with control variates.

    φ(x) is regressed on z and z² − E z², whose means are known to be 0; the intercept is the estimate. Its variance is
    that of the residual, a tenth to a thousandth of φ's own, and its bias, of order 1/trajectories of that, is far
    below its error. One number for each seed; the spread over seeds is its uncertainty.
    Errors: ValueError for too few trajectories (< 10), and as ``finite_sum_sgd``.
    """
    if trajectories < 10:
        raise ValueError(f"trajectories={trajectories} do not carry a regression; use at least 10")
    steps = round(clock / lr)
    final = simulate(
        shadowed_sgd(gradient, curvature, examples, lr, batch_size),
        [start, start, 0.0],
        steps,
        trajectories=trajectories,
        seed=seed,
        stream=f"sgd/{lr}/{batch_size}",
    ).final
    variance = shadow_variance(gradient, curvature, examples, start, lr, batch_size, steps)
    z = final[2]
    controls = np.stack([np.ones_like(z), z, z**2 - variance], axis=1)
    return float(np.linalg.lstsq(controls, observable(final[0]), rcond=None)[0][0])


def _sampler(examples: int, batch_size: int, sampling: str) -> Callable[[int, Draws], Callable[[int], Indices]]:
    """(n, draws) → t ↦ the batches (S, 1, n) of step t."""
    N, S = examples, batch_size
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling={sampling!r} is unknown; use one of {', '.join(SAMPLINGS)}")
    if N < 1 or S < 1:
        raise ValueError(f"examples={N}, batch_size={S}: use at least 1 of each")
    if sampling != "replacement" and S > N:
        raise ValueError(f"batch_size={S} exceeds the {N} examples; use batch_size <= {N}, or sampling='replacement'")

    def start(n: int, draws: Draws) -> Callable[[int], Indices]:
        order = np.broadcast_to(np.arange(N)[:, None], (N, n))
        per_epoch = N // S if sampling == "epoch" else 1

        def draw(t: int) -> Indices:
            nonlocal order
            if sampling == "replacement":
                return draws.integers(N, S, 1, n)
            if t % per_epoch == 0:
                order = draws.numpy.permuted(order, axis=0)
            at = t % per_epoch * S
            return order[at : at + S, None]

        return draw

    return start
