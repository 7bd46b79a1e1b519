"""What the clock does without any noise: gradient flow on a separable problem flattens as it goes.

The smallest case has a closed form. Logistic loss with margin m, L = ln(1 + e^{−m}), and dm/dt = −dL/dm = 1/(1 + e^m):
then m + e^m grows at the rate 1, so m + e^m = T + m_0 + e^{m_0}, solved by Lambert's W. The curvature
L'' = p(1 − p), p = 1/(1 + e^m), falls like 1/T. No noise, no choice of minimum: only time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeparableFlow:
    """Margin, loss and curvature along the flow, each with the shape of the times asked for."""

    margin: Array
    loss: Array
    curvature: Array


def separable_flow(clock: Array | float, start: float = 0.0) -> SeparableFlow:
    """Gradient flow of L(m) = ln(1 + e^{−m}) after the time T = Σ η: m = c − W(e^c), c = T + m_0 + e^{m_0}.

    clock T ≥ 0 of any shape; start m_0. Validity: exact for the one-dimensional problem. For T ≫ 1, L ≈ 1/T and
    L'' ≈ 1/T, so that both fall along a line of slope −1 in a log–log plot against the clock.
    Raises ValueError for T < 0.
    """
    T = np.asarray(clock, dtype=float)
    if np.any(~(T >= 0)):
        raise ValueError(f"clock={clock} runs backwards; use T >= 0")
    c = T + start + np.exp(start)
    # W(e^c) overflows for large c; there w + ln w = c is solved by Newton steps from w = c − ln c instead.
    small = c < 500
    w = np.where(small, np.real(lambertw(np.exp(np.where(small, c, 0.0)))), c - np.log(np.where(small, 1.0, c)))
    for _ in range(3):
        w = w - (w + np.log(w) - c) / (1 + 1 / w)
    margin = c - w
    p = 1 / (1 + np.exp(margin))
    return SeparableFlow(margin, np.log1p(np.exp(-margin)), p * (1 - p))
