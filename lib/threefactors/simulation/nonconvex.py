"""SGD on two nonconvex sums, started at a minimum, with either half of its noise taken away.

A sum is the mean of n terms whose gradients are linear in a few random coefficients θ_i, so that a batch is known by
the mean θ_B of its coefficients. At the deviation e from a minimum x* of the mean, its gradient g_B splits exactly:

    g_B(e) = g(e) + [g_B(e) − g(e) − g_B(0)] + g_B(0).

The bracket vanishes at the minimum and changes with e: *Hessian noise*. The last part is the same everywhere: *gradient
noise*. A step e' = e − η(g(e) + h [·] + κ g_B(0)) can switch the first off (h = 0) and turn the second up or down (κ);
h = κ = 1 is plain SGD. Nothing is known here of what theory says about stability or escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gamma, gammaincc

from threefactors._rng import numpy_generator

Array = NDArray[np.float64]
STEPS_AT_ONCE = 50  # whose batches are drawn together
SETTLED = 1e-100  # a deviation below is set to 0: it will not come back, and numbers near 1e-308 are slow


class Landscape(Protocol):
    """A sum of terms: coefficients (n, c), minima (M, d), and basins |x − center| < reach around each of them."""

    @property
    def coefficients(self) -> Array: ...
    @property
    def minima(self) -> Array: ...
    @property
    def centers(self) -> Array: ...
    @property
    def reach(self) -> Array: ...
    def at_minimum(self, theta: Array, minimum: int) -> Array:
        """Gradients (d, ...) at a minimum, of coefficients (c, ...)."""
        ...

    def change(self, theta: Array, minimum: int, e: Array) -> Array:
        """Gradients at the deviation e (d, ...) from a minimum less those at the minimum itself."""
        ...

    def curvatures(self, minimum: int) -> Array:
        """Hessians (n, d, d) of the terms at a minimum."""
        ...


def random_coefficients(terms: int, columns: int, spread: float, seed: int, stream: str) -> Array:
    """Positive coefficients (terms, columns), gamma distributed, of mean exactly 1 and standard deviation ``spread``.

    Errors: ValueError for fewer than two terms, or a spread that is not > 0.
    """
    if terms < 2 or not spread > 0:
        raise ValueError(f"terms={terms}, spread={spread}: use at least 2 terms and spread > 0")
    drawn = numpy_generator(seed, stream).gamma(spread**-2, spread**2, size=(terms, columns))
    return np.asarray(drawn / drawn.mean(0))


@dataclass(frozen=True, eq=False)
class StyblinskiTang:
    """f_i(x) = ½(a_i x⁴ − 16 b_i x² + 5 c_i x) with random a, b, c of mean 1: two minima, the deeper one is sharper.

    coefficients (n, 3): a, b, c. The mean is the same for all: minima near −2.9035 and 2.7468, barrier near 0.1567.
    """

    coefficients: Array

    @cached_property
    def minima(self) -> Array:
        return np.sort(_STATIONARY)[[0, 2]][:, None]

    @cached_property
    def centers(self) -> Array:
        return self.minima

    @cached_property
    def reach(self) -> Array:
        return np.abs(self.minima[:, 0] - np.sort(_STATIONARY)[1])

    def at_minimum(self, theta: Array, minimum: int) -> Array:
        x, (a, b, c) = self.minima[minimum, 0], theta
        return np.asarray(2 * x**3 * a - 16 * x * b + 2.5 * c)[None]

    def change(self, theta: Array, minimum: int, e: Array) -> Array:
        # 2a(x+e)³ − 16b(x+e) less its value at e = 0, so that small e keep all their digits
        x, (a, b, _) = self.minima[minimum, 0], theta
        out = 2 * e
        out += 6 * x
        out *= a
        out *= e
        out += 6 * x**2 * a - 16 * b
        out *= e
        return np.asarray(out)

    def curvatures(self, minimum: int) -> Array:
        a, b, _ = self.coefficients.T
        return (6 * self.minima[minimum, 0] ** 2 * a - 16 * b)[:, None, None]

    def loss(self, x: Array) -> Array:
        """Losses (n, len(x)) of the terms."""
        a, b, c = self.coefficients.T[:, :, None]
        return np.asarray((a * x**4 - 16 * b * x**2 + 5 * c * x) / 2)


_STATIONARY = np.roots([2.0, 0.0, -16.0, 2.5]).real


@dataclass(frozen=True, eq=False)
class Circles:
    """f_i(x) = ½ x'A_i x + Σ_w b_iw V_w(|x − c_w|): a wide quadratic with two circular basins, x in the plane.

    V_w' = k_w ρ exp(−(ρ/R)⁸): a bowl of curvature k_w up to the rim R, nothing beyond. coefficients (n, 5):
    A_11, A_12, A_22 of mean I, then b_i of the sharp and the wide basin, of mean 1.
    """

    coefficients: Array
    stiffness: tuple[float, float] = (12.0, 6.0)
    radius: float = 1.5
    away: float = 4.0

    @cached_property
    def centers(self) -> Array:
        return np.array([[-self.away, 0.0], [self.away, 0.0]])

    @cached_property
    def minima(self) -> Array:
        return self.centers * (1 - self._inward(0.0, 0.7)[:, None] / self.away)

    @cached_property
    def reach(self) -> Array:
        return self._inward(0.77, 1.5)

    def _inward(self, low: float, high: float) -> Array:
        """Where on the line from a center to the origin well and bowl balance: k ρ e^{−(ρ/R)⁸} = away − ρ."""
        R = self.radius

        def pull(rho: float, k: float) -> float:
            return float(k * rho * np.exp(-((rho / R) ** 8)) + rho - self.away)

        return np.array([brentq(pull, low * R, high * R, args=(k,), xtol=1e-14) for k in self.stiffness])

    def at_minimum(self, theta: Array, minimum: int) -> Array:
        a, b, c = theta[:3]
        (x, y), off = self.minima[minimum], self.minima[minimum] - self.centers[minimum]
        well = self.stiffness[minimum] * theta[3 + minimum] * np.exp(-((off @ off / self.radius**2) ** 4))
        return np.stack([a * x + b * y + well * off[0], b * x + c * y + well * off[1]])

    def change(self, theta: Array, minimum: int, e: Array) -> Array:
        a, b, c = theta[:3]
        off = (self.minima[minimum] - self.centers[minimum]).reshape(2, *[1] * (e.ndim - 1))
        out = e + off
        well = out[0] * out[0]
        well += out[1] * out[1]
        well /= self.radius**2
        well *= well
        well *= -well  # −(ρ/R)⁸; the other basin is too far to be felt
        out *= np.exp(well, out=well)
        # in differences, which leave rounding errors of 1e-16, far below any start
        out -= off * np.exp(-((float(np.sum(off**2)) / self.radius**2) ** 4))
        out *= self.stiffness[minimum] * theta[3 + minimum]
        out[0] += a * e[0]
        out[0] += b * e[1]
        out[1] += b * e[0]
        out[1] += c * e[1]
        return np.asarray(out)

    def curvatures(self, minimum: int) -> Array:
        return self.hessians(minimum, self.minima[minimum])

    def hessians(self, minimum: int, x: Array) -> Array:
        """Hessians (n, 2, 2) of the terms at x (2,), where the basin of the given minimum alone is felt."""
        a, b, c = self.coefficients.T[:3]
        quadratic = np.moveaxis(np.array([[a, b], [b, c]]), 2, 0)
        off = x - self.centers[minimum]
        w = (off @ off / self.radius**2) ** 4
        bend = np.exp(-w) * (np.eye(2) - 8 * w * np.outer(off, off) / max(off @ off, 1e-300))
        return np.asarray(quadratic + self.stiffness[minimum] * self.coefficients[:, 3 + minimum, None, None] * bend)

    def loss(self, x: Array) -> Array:
        """The mean loss at places x (2, ...)."""
        total = (x**2).sum(0) / 2
        for k, center in zip(self.stiffness, self.centers, strict=True):
            rho = np.hypot(x[0] - center[0], x[1] - center[1]) / self.radius
            # ∫_ρ^∞ s e^{−(s/R)⁸} ds = (R²/8) Γ(¼, (ρ/R)⁸)
            total = total - k * self.radius**2 / 8 * gamma(0.25) * gammaincc(0.25, rho**8)
        return np.asarray(total)


def styblinski_tang(terms: int, seed: int, spread: float = 0.5) -> StyblinskiTang:
    """A random sum of so many terms; its mean does not depend on the seed."""
    return StyblinskiTang(random_coefficients(terms, 3, spread, seed, "Styblinski–Tang"))


def circles(terms: int, seed: int, spread: float = 0.5) -> Circles:
    """A random sum of so many terms, A_i = z z' with normal z, whitened so that the mean is the same for all seeds."""
    z = numpy_generator(seed, "circles/quadratic").normal(size=(terms, 2))
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / terms)).T
    depths = random_coefficients(terms, 2, spread, seed, "circles/depth")
    return Circles(np.column_stack([z[:, 0] ** 2, z[:, 0] * z[:, 1], z[:, 1] ** 2, depths]))


@dataclass(frozen=True, eq=False)
class Fates:
    """Shares (T, K, E) of trajectories that had not been out after ``steps`` (T,), for each κ and η.

    Not out of the basin: ``inside``; nor of the neighborhood of the minimum: ``near``.
    """

    steps: NDArray[np.int64]
    inside: Array
    near: Array


def fates(
    landscape: Landscape,
    minimum: int,
    lrs: ArrayLike,
    batch_size: int,
    *,
    gradient_noise: ArrayLike = (1.0,),
    hessian_noise: bool = True,
    start: float,
    radius: float,
    steps: int,
    trajectories: int,
    seed: int,
    every: int = 10,
    stream: str = "fates",
) -> Fates:
    """Who leaves a minimum and its basin, and when: SGD from a distance ``start``, for every κ and η at once.

    lrs η (E,); gradient_noise κ (K,); hessian_noise h; batches are independent draws. Near is |x − x*| < radius, inside
    |x − center| < reach; both are counted ``every`` so many steps. All κ and η see the same batches, so that they
    differ in nothing else.
    Errors: ValueError for lr ≤ 0, κ < 0, counts below 1, or unless 0 < start < radius < the way to the barrier.
    """
    eta, kappa = np.asarray(lrs, dtype=float), np.asarray(gradient_noise, dtype=float)
    if not (eta > 0).all() or not (kappa >= 0).all():
        raise ValueError(f"lrs={eta.tolist()}, gradient_noise={kappa.tolist()}: use lr > 0 and gradient_noise >= 0")
    if min(batch_size, steps, trajectories, every) < 1:
        raise ValueError(
            f"batch_size={batch_size}, steps={steps}, trajectories={trajectories}, every={every}: use >= 1"
        )
    d, n, theta = landscape.minima.shape[1], trajectories, landscape.coefficients
    shift, reach = landscape.minima[minimum] - landscape.centers[minimum], float(landscape.reach[minimum])
    if not 0 < start < radius < reach - np.linalg.norm(shift):
        raise ValueError(
            f"start={start}, radius={radius}: use 0 < start < radius < {reach - np.linalg.norm(shift):.3g}, the way out"
        )
    rng = numpy_generator(seed, f"{stream}/{batch_size}")
    way = rng.normal(size=(d, 1, 1, n))
    e = np.tile(start * way / np.linalg.norm(way, axis=0), (1, len(kappa), len(eta), 1))
    going, inside, near = np.arange(len(eta)), np.ones(e.shape[1:], dtype=bool), np.ones(e.shape[1:], dtype=bool)
    times = np.unique([*range(0, steps + 1, every), steps])
    left = np.zeros((2, len(times), len(kappa), len(eta)))
    left[:, 0] = 1
    for t in range(steps):
        k = t % STEPS_AT_ONCE
        if k == 0:
            batches = rng.integers(len(theta), size=(min(STEPS_AT_ONCE, steps - t), batch_size, n))
            means = np.take(theta, batches, axis=0).mean(1) if batch_size > 1 else theta[batches[:, 0]]
            means = np.ascontiguousarray(np.moveaxis(means, 2, 0))  # (c, steps, n)
            kicks = landscape.at_minimum(means, minimum)
            some = inside.any((0, 2))
            if not some.any():
                break
            if not some.all():  # learning rates at which nobody is left
                going, e = going[some], np.ascontiguousarray(e[:, :, some])
                inside, near = inside[:, some], near[:, some]
        move = landscape.change(means[:, k] if hessian_noise else theta.mean(0), minimum, e)
        if kappa.any():
            move += kappa[:, None, None] * kicks[:, k, None, None]
        move *= eta[going, None]
        e -= move
        near &= _distance(e) < radius
        inside &= _distance(e, shift) < reach
        e *= inside  # who is out rests at the minimum, uncounted
        if (t + 1) % every == 0 or t + 1 == steps:
            k = -(-(t + 1) // every)
            left[0, k][:, going], left[1, k][:, going] = inside.mean(-1), near.mean(-1)
            e[np.abs(e) < SETTLED] = 0
    return Fates(times, left[0], left[1])


def _distance(e: Array, shift: Array | None = None) -> Array:
    """|e + shift| (K, E, n), the shift along the line of the centers."""
    if len(e) == 1:
        return np.abs(e[0])
    x = e[0] + (0 if shift is None else shift[0])
    x *= x
    x += e[1] * e[1]
    return np.asarray(np.sqrt(x, out=x))
