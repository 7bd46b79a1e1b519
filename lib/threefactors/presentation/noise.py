"""Points at the few settings of an experiment, which are what the axis should name."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from threefactors.presentation.comparison import points_on_law


def points_at_settings(points: pd.DataFrame, law: pd.DataFrame, *, x: str, **more: Any) -> Axes:
    """``points_on_law`` with a tick at each x that was measured, and at no other; arguments as there."""
    ax = points_on_law(points, law, x=x, **more)
    settings = sorted(points[x].unique())
    ax.set_xticks(settings, [f"{value:g}" for value in settings])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    return ax
