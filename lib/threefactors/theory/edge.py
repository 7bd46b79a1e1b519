"""The edge of stability: how sharp a place gradient descent can stay in, and how much less noise allows.

Along the sharpest direction u of the Hessian let x be the displacement and λ the sharpness. To third order in x the
gradient is ∇L + λx u + ½x² ∇λ, since ∇³L(u, u) = ∇λ. So each step of learning rate η, with a gradient noise of
variance v along u, gives

    x' = (1 − ηλ) x + η√v ξ,        λ' = λ + η(α − ½β x²),        α = −∇L·∇λ,  β = ‖∇λ‖²:

λ rises at the rate α (progressive sharpening), and the swing in x pushes it back. It comes to rest where ⟨x²⟩ = 2α/β.
Sources: Cohen et al., arXiv 2103.00065; Damian, Nichani & Lee, arXiv 2209.15594 (self-stabilization).
"""

from __future__ import annotations

import numpy as np

from threefactors.theory.quadratic import check_step


def sharpness_gap(lr: float, noise: float, sharpening: float, restoring: float) -> float:
    """How far below 2/η the sharpness rests under noise: Δ = (1 − √(1 − η²βv/2α))/η ≈ ηβv/4α.

    lr η; noise v ≥ 0, the variance of the batch gradient along u (σ²/S for a batch of S); sharpening α > 0, the rise of
    λ per unit of clock without a swing; restoring β > 0. With ⟨x²⟩ = ηv/(λ(2 − ηλ)) of a direction at rest, λ stops
    rising where λ(2 − ηλ) = ηβv/2α, and 2/η − Δ is the upper root. Valid where λ moves slowly beside x.
    Raises ValueError for values outside these, or noise so strong that λ has no place of rest above 1/η.
    Source: see the module; arXiv 2604.21016 gives the first order.

    >>> sharpness_gap(0.5, noise=0.0, sharpening=1.0, restoring=1.0)
    0.0
    """
    eta, v, alpha, beta = lr, noise, sharpening, restoring
    check_step(eta, 1)
    if not (0 <= v < np.inf and 0 < alpha < np.inf and 0 < beta < np.inf):
        raise ValueError(f"noise={v}, sharpening={alpha}, restoring={beta}: use noise >= 0, and the others > 0")
    strength = eta**2 * beta * v / (2 * alpha)
    if strength > 1 + 1e-9:
        most = 2 * alpha / (eta**2 * beta)
        raise ValueError(f"noise={v} lets λ rest nowhere above 1/lr; use noise <= {most:.3g}")
    return float((1 - np.sqrt(max(1 - strength, 0.0))) / eta)


def gaussian_limit(sharpness: float, trace: float, frobenius: float, batch_size: int) -> float:
    """Largest ηλ_max with a finite second moment, for SGD on a regression whose Hessian has these three moments.

    The spectrum is modelled as λ_max and k equal eigenvalues μ with the same trace and norm: μ = (F² − λ²)/(Tr − λ),
    k = (Tr − λ)/μ. For Gaussian inputs ``regression_limit`` is the largest root x = 2/η of

        Σ_i (a_i/S) / (x − (1 + 1/S) a_i) = 1,

    which for two levels is quadratic in x. sharpness λ > 0, trace ≥ λ, frobenius F ≥ λ of H, and S. 2 for S → ∞.
    Raises ValueError for moments that no such spectrum has, or S < 1. Source: the module ``regression``.

    >>> round(gaussian_limit(1.0, trace=1.0, frobenius=1.0, batch_size=2), 12)  # 2S/(S + D + 1) with D = 1
    1.0
    """
    lam, S = sharpness, batch_size
    check_step(1.0, S)
    rest, square = trace - lam, frobenius**2 - lam**2
    if not (0 < lam < np.inf and rest >= -1e-9 * lam and square >= -1e-9 * lam**2):
        given = f"sharpness={lam}, trace={trace}, frobenius={frobenius}"
        raise ValueError(f"{given} belong to no Hessian without negative curvature; use 0 < sharpness <= both")
    rest, square = max(rest, 0.0), max(square, 0.0)
    mu = square / rest if rest > 0 else 0.0
    high, low, tail = (1 + 1 / S) * lam, (1 + 1 / S) * mu, rest / S
    # (λ/S)(x − low) + tail(x − high) = (x − high)(x − low), whose larger root lies above both poles
    middle = high + low + lam / S + tail
    product = high * low + lam / S * low + tail * high
    return float(4 * lam / (middle + np.sqrt(middle**2 - 4 * product)))
