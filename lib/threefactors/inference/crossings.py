"""Where a curve that was looked at now and then first reaches a level."""

from __future__ import annotations

import numpy as np

from threefactors.inference.estimates import Floats


def first_reach(x: Floats, y: Floats, level: float) -> float:
    """Where y first reaches a level from below, on straight lines between looks; NaN if it starts there or never does.

    x (T,) ascending, y (T,) of the same length. For lines over ln x give ln x; for a falling curve give −y and −level.

    >>> first_reach(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 0.0]), 1.0)
    0.5
    """
    reached = np.flatnonzero(y >= level)
    if len(reached) == 0 or reached[0] == 0:
        return float("nan")
    k = reached[0]
    share = (level - y[k - 1]) / (y[k] - y[k - 1])
    return float(x[k - 1] + share * (x[k] - x[k - 1]))
