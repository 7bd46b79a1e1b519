"""How far η and S can be scaled together before SGD stops being the process that only η/S describes.

With η = β η_0 and S = β S_0 the noise scale η/S is that of β = 1. Three conditions of the continuous description do
not scale, and each, taken by itself, says at which batch it fails. None has a constant to be fitted.

*Finite steps.* Along an eigenvector of H with the curvature λ a step multiplies a deviation by 1 − ηλ; it is no
discretization of the flow any more, which shrinks by e^{−ηλ}, once |1 − ηλ| ≥ 1.

*Finite set.* The noise of a batch drawn without replacement is (N − S)/(N − 1) times the C/S of independent draws.

*Signal against noise.* E ‖Δθ‖² = η² (‖∇L‖² + Tr C/S) for one step, so that for each unit of the clock Σ η

    E ‖Δθ‖² / η  =  η ‖∇L‖²  +  (η/S) Tr C.

The second term is the diffusion's own and does not change along β. The first is what a finite step adds; the limit
η → 0 has none of it, and it grows like β.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def stability_scale(sharpness: ArrayLike, lr: float) -> Array:
    """β at which the scaled step βη meets the curvature: βηλ = 2.

    sharpness λ > 0, of any shape; lr η > 0 of β = 1. Below it every deviation along that direction shrinks. A network
    may pass it: its curvature is not constant, and training can be pushed to where it is smaller.
    Errors: ValueError for λ ≤ 0 or η ≤ 0. Source: arXiv 1711.04623 names the condition; Cohen et al., arXiv 2103.00065.

    >>> float(stability_scale(4.0, lr=0.1))
    5.0
    """
    curvature = np.asarray(sharpness, dtype=float)
    if np.any(~(curvature > 0)) or not 0 < lr < np.inf:
        raise ValueError(f"sharpness={curvature} and lr={lr} must be > 0; only positive curvature limits a step")
    return np.asarray(2 / (lr * curvature))


def finite_set_batch(examples: int, share: float = 0.5) -> float:
    """Batch size that leaves the given share of the noise of independent draws: (N − S)/(N − 1) = share.

    examples N ≥ 2; share of C/S between 0 (the full batch, S = N) and 1 (S = 1). Exact for every training set.
    Errors: ValueError for N < 2 or a share outside [0, 1].
    Source: ``noise.batch_covariance`` divided by C/S.

    >>> finite_set_batch(101)
    51.0
    """
    if examples < 2 or not 0 <= share <= 1:
        raise ValueError(f"examples={examples}, share={share}: use at least 2 examples and 0 <= share <= 1")
    return float(examples - share * (examples - 1))


def signal_batch(noise_trace: ArrayLike, gradient_squared: ArrayLike) -> Array:
    """Batch size at which signal and noise move θ alike: S ‖∇L‖² = Tr C, the ratio of noise to signal at S = 1.

    noise_trace Tr C ≥ 0, gradient_squared ‖∇L‖² > 0, each at one θ or integrated over the same stretch of the clock.
    For S far below it E ‖Δθ‖² is the diffusion's, for S far above it that of gradient descent.
    Errors: ValueError for a negative trace or a vanishing gradient.
    Source: the module; Li, Malladi & Arora, arXiv 2102.12470, whose condition for scaling η with S is of this kind.

    >>> float(signal_batch(noise_trace=60.0, gradient_squared=2.0))
    30.0
    """
    C, g2 = np.asarray(noise_trace, dtype=float), np.asarray(gradient_squared, dtype=float)
    if np.any(~(C >= 0)) or np.any(~(g2 > 0)):
        raise ValueError(f"noise_trace={C} must be >= 0 and gradient_squared={g2} > 0")
    return np.asarray(C / g2)
