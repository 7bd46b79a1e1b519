"""How long a minimum holds: mean escape times, exact in one dimension and asymptotic in any."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson, trapezoid

from threefactors.theory.boltzmann import POINTS, Function, log_scale, temperature


def mean_escape_time(
    drift: Function, noise: Function | float, noise_scale: float, *, start: float, target: float, wall: float
) -> float:
    """Mean first-passage time of dθ = b(θ) dt + √(n C(θ)) dW (Itô) from ``start`` to ``target``, by quadrature.

    τ = (2/n) ∫_start^target dy e^{−φ(y)} ∫_wall^y dz e^{φ(z)}/C(z),   φ = (2/n) ∫ b/C.

    It is the solution of the backward equation (n/2) C τ″ + b τ′ = −1 with τ(target) = 0 and τ′(wall) = 0. drift b and
    noise C: θ (m,) to (m,), or a number for C; ``wall`` reflects: put it behind the start, as far out as the process
    never goes. The unit is that of dt, in which one step of SGD takes η. Errors: ValueError unless start lies between
    wall and target and C > 0, or for a time beyond the range of numbers.
    Source: C. W. Gardiner, Stochastic Methods (Springer).
    """
    if not (wall <= start <= target or wall >= start >= target) or wall == target:
        raise ValueError(f"start={start} is not between wall={wall} and target={target}; put the wall behind the start")
    x = np.linspace(wall, target, POINTS)
    if target < wall:  # cumulative_simpson wants rising x: look at the line from the other side
        return mean_escape_time(
            lambda y: -drift(-y),
            (lambda y: noise(-y)) if callable(noise) else noise,
            noise_scale,
            start=-start,
            target=-target,
            wall=-wall,
        )
    slope, C = log_scale(drift, noise, noise_scale, x)
    φ = cumulative_simpson(slope, x=x, initial=0)
    φ -= φ.max()
    behind = cumulative_simpson(np.exp(φ) / C, x=x, initial=0)
    ahead = x >= start  # e^{−φ} is only wanted here, where no loss is as high as at the wall
    first = np.interp(start, x, behind), np.interp(start, x, φ)
    behind, φ, x = (np.insert(v[ahead], 0, v0) for v, v0 in ((behind, first[0]), (φ, first[1]), (x, start)))
    with np.errstate(over="ignore", invalid="ignore"):
        time = float(2 / noise_scale * trapezoid(np.exp(-φ) * behind, x))
    if not np.isfinite(time):
        raise ValueError(f"noise_scale={noise_scale} makes the escape longer than any number; use more noise")
    return time


def kramers_rate(
    hessian_minimum: ArrayLike,
    hessian_saddle: ArrayLike,
    barrier: float,
    noise_scale: float,
    noise_variance: float,
) -> float:
    """Rate at which isotropic noise carries SGD over a saddle, 1/τ to the other minimum, by Eyring and Kramers.

    1/τ = (|λ_s|/2π) √(det H/|det H_s|) e^{−2ΔL/(nσ²)},   λ_s the one negative eigenvalue at the saddle.

    Hessians H at the minimum and H_s at the saddle, (d, d) or numbers; barrier ΔL = L_s − L > 0. Valid as nσ² → 0 with
    ΔL ≫ nσ²/2; the relative error is of order nσ²/ΔL. In one dimension 1/τ = √(L″ |L_s″|)/2π · e^{−ΔL/T}.
    Errors: ValueError for a minimum that is not positive definite, a saddle that has not exactly one negative and
    otherwise positive eigenvalues, or a barrier that is not > 0.
    Source: H. A. Kramers, doi:10.1016/S0031-8914(40)90098-2; N. Berglund, arXiv 1106.5799.
    """
    T = temperature(noise_scale, noise_variance)
    H, S = (np.atleast_2d(np.asarray(m, dtype=float)) for m in (hessian_minimum, hessian_saddle))
    for name, m in (("hessian_minimum", H), ("hessian_saddle", S)):
        if m.shape != H.shape or m.shape[0] != m.shape[1] or not np.allclose(m, m.T):
            raise ValueError(f"{name} of shape {m.shape} is not symmetric, or not of the shape of the other")
    at_minimum, at_saddle = np.linalg.eigvalsh(H), np.linalg.eigvalsh(S)
    if at_minimum[0] <= 0:
        raise ValueError(f"hessian_minimum has the eigenvalue {at_minimum[0]:.3g}; at a minimum all are > 0")
    if not (at_saddle[0] < 0 and (at_saddle[1:] > 0).all()):
        raise ValueError(
            f"hessian_saddle has {(at_saddle < 0).sum()} negative eigenvalues and {(at_saddle == 0).sum()} zeros; the "
            "lowest pass between two minima has one negative eigenvalue and no zero"
        )
    if not barrier > 0:
        raise ValueError(f"barrier={barrier} is not > 0; use the loss at the saddle minus that at the minimum")
    log_width = (np.log(at_minimum).sum() - np.log(np.abs(at_saddle)).sum()) / 2
    return float(abs(at_saddle[0]) / (2 * np.pi) * np.exp(log_width - barrier / T))
