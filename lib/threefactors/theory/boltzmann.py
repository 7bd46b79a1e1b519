"""Which minimum? Stationary densities of dθ = b(θ) dt + √(n C(θ)) dW in the sense of Itô, n = η/S the noise scale.

In one dimension the Fokker–Planck equation ∂p/∂t = −∂J/∂θ has the current J = b p − (n/2) ∂(C p)/∂θ. A current that is
constant and vanishes at infinity vanishes everywhere, so that p ∝ (1/C) exp((2/n)∫ b/C). For b = −L′ and a constant
C = σ² this is Boltzmann's law with the temperature T = nσ²/2, in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_simpson
from scipy.linalg import solve_continuous_lyapunov

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
NEGLIGIBLE = 1e-6  # a density that ends above this part of its maximum is not all there
POINTS = 20_001


def temperature(noise_scale: float, noise_variance: float) -> float:
    """T = nσ²/2, in the unit of the loss: what kT is to a particle, for isotropic gradient noise σ²I.

    noise_scale n = η/S; noise_variance σ², of one component of one example's gradient. Errors: ValueError unless both
    are > 0 and finite. Source: arXiv 1711.04623.

    >>> temperature(noise_scale=0.25, noise_variance=2.0)
    0.25
    """
    for name, value in (("noise_scale", noise_scale), ("noise_variance", noise_variance)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name}={value} is outside 0 … ∞; without noise nothing chooses between minima, use > 0")
    return noise_scale * noise_variance / 2


@dataclass(frozen=True, eq=False)
class Density:
    """A probability density on a line: ``values`` at equally spaced ``x``."""

    x: Array
    values: Array

    def log_odds(self, divide: float) -> float:
        """ln of the probability left of ``divide`` over that right of it. Errors: ValueError for a divide outside x."""
        if not self.x[0] < divide < self.x[-1]:
            raise ValueError(f"divide={divide} is outside {self.x[0]:.3g} … {self.x[-1]:.3g}; use a point within")
        left = cumulative_simpson(self.values, x=self.x, initial=0)
        right = cumulative_simpson(self.values[::-1], x=-self.x[::-1], initial=0)[::-1]
        return float(np.log(np.interp(divide, self.x, left) / np.interp(divide, self.x, right)))


def gibbs_density(loss: Function, noise_scale: float, noise_variance: float, span: tuple[float, float]) -> Density:
    """Stationary density under isotropic noise: p(θ) ∝ exp(−2L(θ)/(nσ²)), by quadrature over ``span``.

    loss: values of θ (m,) to L (m,), in one dimension. Valid where p can be normalized and ``span`` holds all of it.
    Errors: ValueError where it still has weight at an end of span; noise as in ``temperature``.
    Source: arXiv 1711.04623; C. W. Gardiner, Stochastic Methods (Springer).
    """
    x = np.linspace(*span, POINTS)
    return _normalized(x, -loss(x) / temperature(noise_scale, noise_variance))


def stationary_density_1d(
    drift: Function, noise: Function | float, noise_scale: float, span: tuple[float, float]
) -> Density:
    """Stationary density of dθ = b(θ) dt + √(n C(θ)) dW (Itô): p ∝ (1/C) exp((2/n)∫ b/C), by quadrature over ``span``.

    drift b and noise C: θ (m,) to (m,); a number for a constant C. Valid where C > 0 and the current vanishes at both
    ends. Errors: ValueError for a C that is not > 0, or a density that cannot be normalized on ``span``.
    Source: C. W. Gardiner, Stochastic Methods (Springer).
    """
    x = np.linspace(*span, POINTS)
    slope, C = log_scale(drift, noise, noise_scale, x)
    return _normalized(x, cumulative_simpson(slope, x=x, initial=0) - np.log(C))


def log_scale(drift: Function, noise: Function | float, noise_scale: float, x: Array) -> tuple[Array, Array]:
    """(2/n) b/C and C itself at x (m,). Errors: ValueError unless n > 0 and C > 0 everywhere."""
    C = np.broadcast_to(np.asarray(noise(x) if callable(noise) else noise, dtype=float), x.shape)
    temperature(noise_scale, 1.0)
    if not (np.isfinite(C) & (C > 0)).all():
        bad = x[~(np.isfinite(C) & (C > 0))][0]
        raise ValueError(f"the noise variance at {bad:.3g} is not > 0; where it vanishes the process cannot pass")
    return 2 / noise_scale * drift(x) / C, C


def _normalized(x: Array, log_density: Array) -> Density:
    if not np.isfinite(log_density).all():
        raise ValueError("the density is not finite in span; use a loss that is finite there")
    p = np.exp(log_density - log_density.max())
    if max(p[0], p[-1]) > NEGLIGIBLE:
        raise ValueError(
            f"the density ends at {max(p[0], p[-1]):.2g} of its maximum on {x[0]:.3g} … {x[-1]:.3g}, above "
            f"{NEGLIGIBLE}; widen span, or no density exists: the drift must lead inwards from both ends"
        )
    return Density(x, p / cumulative_simpson(p, x=x)[-1])


def free_energy(
    loss: Function, stiffness: Function, dimension: int, noise_scale: float, noise_variance: float
) -> Function:
    """What x feels of L(x, y) = V(x) + ½k(x)|y|² with y of d − 1 components: F(x) = V + T (d − 1)/2 · ln k.

    Integrating exp(−L/T) over y gives exp(−V/T) (2πT/k)^((d−1)/2) without approximation, and so p(x) ∝ exp(−F/T).
    loss V and stiffness k > 0: x (m,) to (m,). Errors: ValueError for d < 1; a k that is not > 0, when called.
    """
    T = temperature(noise_scale, noise_variance)
    if dimension < 1:
        raise ValueError(f"dimension={dimension} holds no coordinate; use dimension >= 1")

    def F(x: Array) -> Array:
        k = np.asarray(stiffness(x), dtype=float)
        if not (k > 0).all():
            raise ValueError(f"stiffness={k.min():.3g} binds no transverse direction; use stiffness > 0")
        return loss(x) + T * (dimension - 1) / 2 * np.log(k)

    return F


def laplace_log_odds(
    loss_a: float,
    loss_b: float,
    hessian_a: ArrayLike,
    hessian_b: ArrayLike,
    noise_scale: float,
    noise_variance: float,
) -> float:
    """ln(p_A/p_B) = ½ ln(det H_B/det H_A) + 2(L_B − L_A)/(nσ²): width against depth, by Laplace's method.

    losses at the two minima; Hessians there, (d, d) or numbers. Valid for isotropic noise as nσ² → 0, with an error of
    order nσ²: both bowls must be quadratic over the distance √(T/λ) that the noise explores.
    Errors: ValueError for a Hessian that is not symmetric positive definite, or unequal dimensions.
    Source: arXiv 1711.04623.

    >>> round(laplace_log_odds(0.0, 0.0, 4.0, 1.0, noise_scale=0.1, noise_variance=1.0), 6)  # −ln 2
    -0.693147
    """
    T = temperature(noise_scale, noise_variance)
    return _log_width(hessian_a, hessian_b) + (loss_b - loss_a) / T


def flip_noise(loss_a: float, loss_b: float, hessian_a: ArrayLike, hessian_b: ArrayLike) -> float:
    """The nσ² at which two minima are equally likely: 4(L_A − L_B)/ln(det H_B/det H_A).

    Below it the deeper one is preferred, above it the wider one. Arguments and validity as in ``laplace_log_odds``.
    Errors: ValueError where one minimum is both deeper and wider, and is preferred at every noise.
    """
    log_width = _log_width(hessian_a, hessian_b)
    if not (loss_b - loss_a) * log_width < 0:
        raise ValueError(
            f"ln √(det H_B/det H_A)={log_width:.3g} and L_B − L_A={loss_b - loss_a:.3g} do not oppose each other; "
            "only between a deeper and a wider minimum does the preference flip"
        )
    return 2 * (loss_a - loss_b) / log_width


def finite_step_equation(
    slope: Function, curvature: Function, third: Function, lr: float, noise_scale: float, noise_variance: float
) -> tuple[Function, Function]:
    """Drift and noise variance of the diffusion that SGD with a finite learning rate follows, to first order in η.

    b = −L′ − (η/2)(L′L″ − T L‴),  C = σ²(1 + ηL″/2)²,  hence p ∝ exp(−L/T + ηL′²/(4T) − ηL″/2).

    slope, curvature, third: L′, L″, L‴ as functions of θ (m,), for θ′ = θ − ηL′ + √(η·nσ²) ξ in one dimension.
    Valid for η|L″| ≪ 1. Errors: ValueError for lr < 0, or as in ``temperature``.
    Source: the method of K. C. Zygalakis, doi:10.1137/090762336, for additive noise.
    """
    T = temperature(noise_scale, noise_variance)
    if not 0 <= lr < np.inf:
        raise ValueError(f"lr={lr} is outside 0 … ∞; use lr >= 0")
    return (
        lambda x: -slope(x) - lr / 2 * (slope(x) * curvature(x) - T * third(x)),
        lambda x: noise_variance * (1 + lr / 2 * curvature(x)) ** 2,
    )


def circulation(hessian: ArrayLike, noise: ArrayLike, noise_scale: float) -> Array:
    """Matrix A of the stationary velocity J/p = Aθ in a bowl: A = (n/2) C Σ⁻¹ − H with HΣ + ΣH = nC.

    It is 0, detailed balance, if and only if HC = CH; otherwise probability goes round in circles for ever, along the
    lines of constant density: AΣ is antisymmetric. hessian H (d, d) positive definite; noise C (d, d) positive
    definite; noise_scale n. Errors: ValueError for matrices that are not so (infinite variance, or none).
    Source: P. Chaudhari & S. Soatto, arXiv 1710.11029.
    """
    H, C = (_positive_definite(m, name) for m, name in ((hessian, "hessian"), (noise, "noise")))
    temperature(noise_scale, 1.0)
    Σ = solve_continuous_lyapunov(H, noise_scale * C)
    velocity: Array = noise_scale / 2 * C @ np.linalg.inv(Σ) - H
    return velocity


def _log_width(hessian_a: ArrayLike, hessian_b: ArrayLike) -> float:
    """½ ln(det H_B/det H_A)."""
    A, B = _positive_definite(hessian_a, "hessian_a"), _positive_definite(hessian_b, "hessian_b")
    if A.shape != B.shape:
        raise ValueError(f"hessian_a has shape {A.shape}, hessian_b {B.shape}; use equal shapes")
    return float(np.linalg.slogdet(B)[1] - np.linalg.slogdet(A)[1]) / 2


def _positive_definite(matrix: ArrayLike, name: str) -> Array:
    m = np.atleast_2d(np.asarray(matrix, dtype=float))
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not np.allclose(m, m.T):
        raise ValueError(f"{name} of shape {m.shape} is not a symmetric matrix; use (d, d), or one number")
    if (least := np.linalg.eigvalsh(m)[0]) <= 0:
        raise ValueError(f"{name} has the eigenvalue {least:.3g}; every eigenvalue must be > 0")
    return m
