"""The swing along the sharpest direction and the sharpness that it holds back: two numbers in place of a network."""

from __future__ import annotations

import numpy as np

from threefactors.simulation.ensemble import Advance, Array, Draws, Dynamics


def self_stabilization(lr: float, sharpening: float, restoring: float, noise: float = 0.0) -> Dynamics:
    """Dynamics of state (2, n), displacement x and sharpness λ: x' = (1 − ηλ)x + η√v ξ, λ' = λ + η(α − ½βx²).

    lr η, sharpening α, restoring β, all > 0; noise v ≥ 0, the variance of the gradient noise along x.
    Raises ValueError for values outside these. Source: Damian, Nichani & Lee, arXiv 2209.15594.
    """
    if not (min(lr, sharpening, restoring) > 0 and noise >= 0):
        raise ValueError(
            f"lr={lr}, sharpening={sharpening}, restoring={restoring}, noise={noise}: use > 0, and noise >= 0"
        )

    def dynamics(n: int, draws: Draws) -> Advance:
        def advance(state: Array, t: int) -> None:
            x, sharpness = state
            rise = lr * (sharpening - restoring / 2 * x**2)
            x *= 1 - lr * sharpness
            if noise:
                x += lr * np.sqrt(noise) * draws.normal(n)
            sharpness += rise

        return advance

    return dynamics
