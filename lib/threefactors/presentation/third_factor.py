"""Points on a law whose axes span a decade or two, with plain numbers as ticks."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from threefactors.presentation.comparison import points_on_law


def points_on_short_law(points: pd.DataFrame, law: pd.DataFrame, **how: Any) -> Axes:
    """``points_on_law`` on logarithmic axes with ticks at 1, 2 and 5 of each decade, written without powers of ten."""
    ax = points_on_law(points, law, **how)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    return ax
