"""A noise scale that goes up and down: what a constant one would have to be to do the same on the same clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def noise_on_clock(noise_scale: ArrayLike) -> float:
    """Mean of the noise scale n = η/S over the clock, for a schedule given epoch by epoch: n* = Σ n²/Σ n.

    An epoch advances the clock by N n, so that averages over the clock weigh each epoch by its n; n* ≥ mean n.
    noise_scale (epochs,): n of each epoch, > 0, in any unit, which is that of the result.
    Errors: ValueError for values that are not finite and > 0.

    >>> round(noise_on_clock([1.0, 0.2]), 3)
    0.867
    """
    n = _positive("noise_scale", noise_scale)
    return float((n**2).sum() / n.sum())


def noise_after_square_cycle(curvature: ArrayLike, clock: float, low: float, high: float = 1.0) -> Array:
    """The constant noise scale that gives a direction the variance it has at the end of each period of a square cycle.

        n(λ) = n_l + (n_h − n_l) e^{−2λT_l} (1 − e^{−2λT_h})/(1 − e^{−2λT_p}),   T_h = T_p n_h/(n_h + n_l) = T_p − T_l

    Half of the epochs at n_h = ``high``, then half at n_l = ``low``; T_p = ``clock`` of a whole period. The variance
    v of the direction of curvature λ has dv/dT = −2λv + n c, and is c n(λ)/2λ after many periods. From n* =
    (n_h² + n_l²)/(n_h + n_l) where λT_p ≪ 1 down to n_l where λT_p ≫ 1.
    curvature: λ > 0, 1/clock. Errors: ValueError for anything that is not finite and > 0, or low > high.
    """
    rate, T = 2 * _positive("curvature", curvature), float(_positive("clock", clock))
    n_l, n_h = float(_positive("low", low)), float(_positive("high", high))
    if n_l > n_h:
        raise ValueError(f"low={low} is above high={high}; the period ends with its low phase, so give low <= high")
    T_h = T * n_h / (n_h + n_l)
    kept = np.exp(-rate * (T - T_h)) * np.expm1(-rate * T_h) / np.expm1(-rate * T)
    return n_l + (n_h - n_l) * kept


def _positive(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name}={values!r}: must be finite and > 0")
    return array
