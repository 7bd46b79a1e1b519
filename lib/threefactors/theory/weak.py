"""Expectations along SGD and along its diffusion equations, without Monte Carlo, for one parameter on a circle.

SGD with replacement is a Markov chain. Its transfer operator (P u)(x) = E u(x') takes an observable one step back,
and on the waves e_k(x) = exp(ikx) it is a product, since the S draws of a batch are independent:

    (P e_k)(x) = e^{ikx} ψ(kη/S, x)^S,    ψ(s, x) = (1/N) Σ_i exp(−i s g_i(x)).

A diffusion has the backward equation ∂_t u = b ∂u + ½ v ∂²u instead. With trigonometric interpolation on m points
both are m × m matrices, and for smooth g_i and some noise their errors fall faster than any power of m: the orders
in η can be read off many digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import expm_multiply

Array = NDArray[np.float64]
Observable = Callable[[Array], Array]
PerExample = Callable[[NDArray[np.int64], Array], Array]
"""gradient(i, x): the gradients of the examples i at x, shapes as they broadcast."""

NOISES = ("batch", "gaussian", "none")


@dataclass(frozen=True)
class Circle:
    """m equidistant points (odd) on the circle of length 2π, and the waves between −(m−1)/2 and (m−1)/2 on them.

    Everything here is a Fourier transform or a product of matrix and vector: products of matrices this small are
    slowed down a hundredfold where two processes let BLAS use all cores.
    """

    points: int = 95

    def __post_init__(self) -> None:
        if self.points < 5 or self.points % 2 == 0:
            raise ValueError(f"points={self.points}: use an odd number >= 5, so that waves come in pairs")

    @property
    def x(self) -> Array:
        return 2 * np.pi * np.arange(self.points) / self.points

    @property
    def waves(self) -> Array:
        return np.arange(self.points) - self.points * (np.arange(self.points) > self.points // 2) + 0.0

    def derivative(self, values: Array, order: int = 1) -> Array:
        """Derivative along the first axis, exact for the waves of the grid; values (m, ...)."""
        factors = ((1j * self.waves) ** order).reshape(-1, *[1] * (values.ndim - 1))
        return np.real(np.fft.ifft(factors * np.fft.fft(values, axis=0), axis=0))

    def at(self, values: Array, start: ArrayLike) -> Array:
        """The trigonometric polynomial through the values (m,), anywhere."""
        amplitudes = np.fft.fft(values) / self.points
        return np.real(np.exp(1j * np.multiply.outer(np.asarray(start, float), self.waves)) @ amplitudes)


def sgd_expectation(
    observable: Observable,
    gradient: PerExample,
    examples: int,
    start: ArrayLike,
    *,
    lr: float,
    batch_size: float,
    clock: float,
    noise: str = "batch",
    circle: Circle = Circle(),
) -> Array:
    """E φ(θ_n) after n = clock/lr steps of SGD from ``start``, exactly up to interpolation.

    noise ``batch``: batches with replacement, ψ^S. ``gaussian``: ε ~ N(0, C(θ)/S), the Euler–Maruyama scheme of the
    first-order equation, where S may be any number > 0. ``none``: full-batch descent.
    observable φ and gradient g_i have period 2π and are smooth; examples N; lr η, a whole fraction of ``clock``.
    Errors: ValueError for an unknown noise, S < 1 or not whole (batch), η ≤ 0, a clock that is no multiple of η.
    """
    steps = whole_steps(clock, lr)
    if noise not in NOISES:
        raise ValueError(f"noise={noise!r} is unknown; use one of {', '.join(NOISES)}")
    if not batch_size > 0 or (noise == "batch" and batch_size != int(batch_size)):
        raise ValueError(f"batch_size={batch_size} is no batch; use a whole number >= 1 (any number > 0 if gaussian)")
    each, mean, variance = _moments(gradient, examples, circle)
    k = circle.waves
    if noise == "batch":
        draw = np.exp(-1j * (lr / batch_size) * np.multiply.outer(k, each)).mean(1)
        factor = draw ** int(batch_size)
    else:
        spread = variance / batch_size if noise == "gaussian" else 0 * variance
        factor = np.exp(-1j * lr * np.outer(k, mean) - 0.5 * lr**2 * np.outer(k**2, spread))
    back = (np.exp(1j * np.outer(k, circle.x)) * factor).T  # amplitudes of u → values of P u
    transfer = np.real(np.fft.fft(back, axis=1)) / circle.points
    u = observable(circle.x)
    for _ in range(steps):
        u = transfer @ u
    return circle.at(u, start)


def equation(
    gradient: PerExample,
    examples: int,
    *,
    lr: float,
    batch_size: float,
    order: int,
    circle: Circle = Circle(),
) -> tuple[Array, Array]:
    """Drift b and variance v of dX = b dt + √v dW at the points of the circle, for the learning rate η.

    order 0: gradient flow, b = −f', v = 0. order 1: b = −f', v = (η/S) C. order 2: b = −(f + (η/4) f'²)',
    v = (η/S) C. f' the mean gradient, C(x) the covariance of one example's. The weak error is of order 1, 1 and 2
    in η at fixed S. Errors: ValueError for another order, η < 0 or S ≤ 0.
    Source: Li, Tai & E, arXiv 1511.06251, theorem 1.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order={order} has no equation here; use 0 (gradient flow), 1 or 2")
    if not lr >= 0 or not batch_size > 0:
        raise ValueError(f"lr={lr} and batch_size={batch_size} give negative noise; use lr >= 0 and batch_size > 0")
    _, mean, variance = _moments(gradient, examples, circle)
    drift = -mean
    if order == 2:
        drift = drift - lr / 4 * circle.derivative(mean**2)
    return drift, variance * (lr / batch_size if order else 0.0)


def equation_expectation(
    observable: Observable,
    gradient: PerExample,
    examples: int,
    start: ArrayLike,
    *,
    lr: float,
    batch_size: float,
    clock: float,
    order: int,
    circle: Circle = Circle(),
) -> Array:
    """E φ(X_T), T = clock, of the ``equation`` of the given order; arguments and errors as there and in the others."""
    drift, variance = equation(gradient, examples, lr=lr, batch_size=batch_size, order=order, circle=circle)
    return diffusion_expectation(observable, drift, variance, start, clock=clock, circle=circle)


def diffusion_expectation(
    observable: Observable,
    drift: Array,
    variance: Array,
    start: ArrayLike,
    *,
    clock: float,
    circle: Circle = Circle(),
) -> Array:
    """E φ(X_T) of dX = b dt + √v dW (Itô) from ``start``: u = exp(T (b ∂ + ½ v ∂²)) φ, the backward equation.

    drift b (m,) and variance v (m,) ≥ 0 at the points of the circle. Without any noise, v = 0, it is φ at the end of
    the flow, which is integrated. Errors: ValueError for negative variance, a negative clock, fields of another size.
    """
    if drift.shape != circle.x.shape or variance.shape != circle.x.shape:
        raise ValueError(f"drift {drift.shape} and variance {variance.shape}: give both at the {circle.points} points")
    if not (variance >= 0).all() or not clock >= 0:
        raise ValueError(f"variance down to {variance.min():.3g}, clock={clock}: noise and time must be >= 0")
    if not variance.any():
        begin = np.atleast_1d(np.asarray(start, dtype=float))
        flow = solve_ivp(lambda t, x: circle.at(drift, x), (0, clock), begin, method="DOP853", rtol=1e-12, atol=1e-13)
        return observable(flow.y[:, -1]).reshape(np.shape(start))
    waves = np.eye(circle.points)
    generator = drift[:, None] * circle.derivative(waves) + variance[:, None] / 2 * circle.derivative(waves, 2)
    return circle.at(expm_multiply(clock * generator, observable(circle.x)), start)


def whole_steps(clock: float, lr: float) -> int:
    """The number of steps n = T/η. Errors: ValueError for η ≤ 0, T < 0, or an n that is not whole."""
    if not lr > 0 or not clock >= 0:
        raise ValueError(f"lr={lr}, clock={clock}: use lr > 0 and clock >= 0")
    steps = round(clock / lr)
    if abs(steps * lr - clock) > 1e-9 * max(clock, lr):
        raise ValueError(f"clock={clock} is {clock / lr:.6g} steps of lr={lr}; use a whole number of steps")
    return steps


def _moments(gradient: PerExample, examples: int, circle: Circle) -> tuple[Array, Array, Array]:
    """g_i (N, m), their mean and their variance at the points."""
    if examples < 1:
        raise ValueError(f"examples={examples} is no data; use at least 1")
    each = gradient(np.arange(examples)[:, None], circle.x)
    return each, each.mean(0), each.var(0)
