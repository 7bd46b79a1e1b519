"""Landscapes with two minima, one narrow and one wide, and where SGD with isotropic noise spends its time in them.

V′(x) = c (x² − 1)(x − s)(1 + (ρ − 1)(1 − x)²/4) has its minima at x = −1 and x = +1 and its barrier at s, exactly; ρ
sharpens the left one. In d dimensions L(x, y) = V(x) + ½k(x)|y|², with ln k linear in x, so that k is k_A at the
left minimum and k_B at the right one. Nothing is known here of what theory says about them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from threefactors.simulation.diffusion import euler_maruyama
from threefactors.simulation.ensemble import Draws, Dynamics

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DoubleWell:
    """Minima A at x = −1 and B at x = +1, barrier at ``saddle`` s.

    height c > 0, in units of the loss; sharpness ρ ≥ 1; stiffness (k_A, k_B) > 0 of the dimension − 1 transverse
    directions. Errors: ValueError for values outside these, or |s| ≥ 1.
    """

    height: float = 1.0
    saddle: float = 0.0
    sharpness: float = 1.0
    stiffness: tuple[float, float] = (1.0, 1.0)
    dimension: int = 1

    def __post_init__(self) -> None:
        if not (self.height > 0 and self.sharpness >= 1 and min(self.stiffness) > 0 and self.dimension >= 1):
            raise ValueError(f"{self} is no double well; use height > 0, sharpness >= 1, stiffness > 0, dimension >= 1")
        if not -1 < self.saddle < 1:
            raise ValueError(f"saddle={self.saddle} is not between the minima; use -1 < saddle < 1")

    @cached_property
    def _slope(self) -> Polynomial:
        x = Polynomial([0, 1])
        return self.height * (x**2 - 1) * (x - self.saddle) * (1 + (self.sharpness - 1) / 4 * (1 - x) ** 2)

    @cached_property
    def _falling(self) -> list[float]:
        return (-self._slope.coef[::-1]).tolist()  # of −V′, highest power first; plain numbers meet arrays fastest

    @cached_property
    def _tilt(self) -> float:
        return float(np.log(self.stiffness[1] / self.stiffness[0])) / 2  # d ln k/dx

    def loss(self, x: Array) -> Array:
        """V(x), which is 0 at the right minimum."""
        return self._slope.integ(lbnd=1.0)(np.asarray(x, dtype=float))

    def slope(self, x: Array, order: int = 1) -> Array:
        """V′(x), or a higher derivative."""
        return self._slope.deriv(order - 1)(np.asarray(x, dtype=float))

    def curvature(self, x: Array) -> Array:
        """V″(x)."""
        return self.slope(x, 2)

    def transverse(self, x: Array) -> Array:
        """k(x), the curvature across."""
        return np.sqrt(self.stiffness[0] * self.stiffness[1]) * np.exp(self._tilt * np.asarray(x, dtype=float))

    def hessian(self, x: float) -> Array:
        """Hessian (d, d) of the whole loss at (x, y = 0)."""
        across = np.full(self.dimension - 1, float(self.transverse(np.array(x))))
        return np.diag([float(self.curvature(np.array(x))), *across])

    def drift(self, state: Array) -> Array:
        """−∇L at the states (d, n)."""
        x, y = state[0], state[1:]
        top, *others, last = self._falling
        push = top * x  # Horner's rule for −V′
        for coefficient in others:
            np.add(push, coefficient, out=push)
            np.multiply(push, x, out=push)
        np.add(push, last, out=push)
        if not len(y):
            return push[None]
        k = self.transverse(x)
        force = np.empty_like(state)
        np.multiply(y, -k, out=force[1:])
        # −½ k′|y|² with k′ = (d ln k/dx) k
        force[0] = push + 0.5 * self._tilt * np.einsum("in,in->n", y, force[1:])
        return force

    def like_curvature(self, x: Array) -> Array:
        """A noise variance proportional to V″ at both minima, positive between, 1 halfway: C = H where it can be."""
        a, b = float(self.curvature(np.array(-1.0))), float(self.curvature(np.array(1.0)))
        return np.exp(-np.log(a / b) / 2 * np.asarray(x, dtype=float))


def noisy_descent(
    well: DoubleWell,
    lr: float,
    batch_size: int,
    noise_variance: float,
    *,
    shape: Callable[[Array], Array] | None = None,
) -> Dynamics:
    """SGD with Gaussian gradient noise: θ′ = θ − η∇L + η √(σ²/S) ξ, one step each of length η.

    This is Euler–Maruyama for dθ = −∇L dt + √(ησ²/S) dW. ``shape`` multiplies σ² by a function of x, in one dimension:
    C(x) = σ² shape(x). Errors: ValueError for batch_size < 1, noise_variance < 0, or a shape in more dimensions.
    """
    if batch_size < 1 or not noise_variance >= 0:
        raise ValueError(f"batch_size={batch_size}, noise_variance={noise_variance}: use >= 1 and >= 0")
    size = float(np.sqrt(lr / batch_size * noise_variance))
    if shape is None:
        return euler_maruyama(well.drift, size, lr)
    if well.dimension > 1:
        raise ValueError(f"dimension={well.dimension} with a shape of the noise; use one dimension")
    return euler_maruyama(well.drift, lambda x: size * np.sqrt(shape(x)), lr)


def sojourns(
    dynamics: Dynamics,
    well: DoubleWell,
    *,
    burn: int,
    samples: int,
    every: int,
    trajectories: int,
    seed: int,
    stream: str = "sojourns",
) -> NDArray[np.bool_]:
    """Is a trajectory in well A, left of the barrier? (samples, trajectories), after ``burn`` steps, ``every`` so many.

    Half the trajectories start at each minimum, so that only what ``burn`` leaves of the start can bias the share: a
    part exp(−burn/relaxation time). Errors: ValueError for counts below 1 (burn: 0) or an odd number of trajectories.
    """
    if min(samples, every) < 1 or burn < 0 or trajectories < 2 or trajectories % 2:
        raise ValueError(
            f"burn={burn}, samples={samples}, every={every}, trajectories={trajectories}: use burn >= 0, samples and "
            "every >= 1, and an even number of trajectories"
        )
    x = np.zeros((well.dimension, trajectories))
    x[0] = np.where(np.arange(trajectories) % 2, 1.0, -1.0)
    advance = dynamics(trajectories, Draws(seed, stream, 0))
    inside = np.empty((samples, trajectories), dtype=bool)
    for t in range(burn):
        advance(x, t)
    for i in range(samples):
        for t in range(every):
            advance(x, burn + i * every + t)
        inside[i] = x[0] < well.saddle
    return inside
