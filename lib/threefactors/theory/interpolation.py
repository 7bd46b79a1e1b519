"""Gradient noise against curvature, from the outputs of a classifier alone.

Where every example i has outputs z_i, loss ℓ_i and Jacobian J_i = ∂z_i/∂θ, the second moment of the gradient is
M = E[J_iᵀ r_i r_iᵀ J_i] with r_i = ∂ℓ_i/∂z_i, and the Gauss–Newton matrix G = E[J_iᵀ A_i J_i] with A_i = ∂²ℓ_i/∂z_i².
If all J_i J_iᵀ are one and the same multiple of the identity, then Tr M/Tr G = E‖r_i‖²/E Tr A_i, exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def softmax_ratio(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Noise to curvature of cross-entropy: ρ = E‖p_i − e_{y_i}‖²/E[1 − ‖p_i‖²], for r = p − e_y and A = diag p − ppᵀ.

    ρ − 1 = 2 (E‖p_i‖² − E p_{i,y_i})/E[1 − ‖p_i‖²]: 1 where the mean confidence in the label equals the mean of what
    the model itself expects of it; above 1 if overconfident, below 1 if the labels are fitted better than that.

    probabilities (N, K), rows summing to 1; labels (N,) in 0 … K − 1.
    Raises ValueError for rows that are no probabilities, labels out of range, or certainty everywhere (0/0).

    >>> softmax_ratio([[0.5, 0.5]], [0])
    1.0
    """
    p, y = np.asarray(probabilities, dtype=float), np.asarray(labels)
    if p.ndim != 2 or (p < 0).any() or not np.allclose(p.sum(1), 1):
        raise ValueError(f"probabilities of shape {p.shape} are not rows >= 0 that sum to 1; use a softmax (N, K)")
    if y.shape != p.shape[:1] or (y < 0).any() or (y >= p.shape[1]).any():
        raise ValueError(
            f"labels of shape {y.shape} do not fit; use one of 0 … {p.shape[1] - 1} for each of {len(p)} rows"
        )
    spread = p.sum(1) ** 2 - (p**2).sum(1)
    if not spread.mean() > 0:
        raise ValueError("every p_i is certain, so that noise and curvature are both 0 and have no ratio; train less")
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean() / spread.mean())


def one_logit_ratio(margins: ArrayLike) -> float:
    """Noise to curvature of the logistic loss ln(1 + e^−m): ρ = E[e_i²]/E[e_i (1 − e_i)], e = 1/(1 + e^m) the mistakes.

    With one margin alone it is e^−m exactly, which falls to 0 like the loss itself. Never above the largest
    e_i/(1 − e_i). margins m_i (N,), positive where the example is classified correctly.
    Raises ValueError for margins that are empty or not finite.

    >>> float(round(one_logit_ratio([2.0]) / np.exp(-2.0), 12))
    1.0
    """
    m = np.atleast_1d(np.asarray(margins, dtype=float))
    if m.size == 0 or not np.isfinite(m).all():
        raise ValueError(f"margins={margins!r} are not finite numbers; use at least one finite margin")
    log_mistakes, right = -np.logaddexp(0, m), np.exp(-np.logaddexp(0, -m))
    largest = log_mistakes.max()  # taken out, lest e_i underflow where all margins are large
    scaled = np.exp(log_mistakes - largest)
    return float(np.exp(largest) * (scaled**2).mean() / (scaled * right).mean())
