"""What the axes of all figures share: ticks in plain numbers, and bars from intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator


def plain_numbers(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """1, 2, 5, 10, 20 … on a logarithmic axis of a decade or two; subs: what is named within a decade."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def ticks_at(axis: Axis, values: Iterable[float]) -> None:
    """A tick at each of the values that occur, and no other."""
    settings = sorted(set(values))
    axis.set_ticks(settings, [f"{value:g}" for value in settings])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def bars(table: pd.DataFrame) -> list[pd.Series]:
    """How far ``low`` is below and ``high`` above ``value``, for ``errorbar``; 0 where there is no interval."""
    sides = (table["value"] - table["low"], table["high"] - table["value"])
    return [side.fillna(0).clip(lower=0) for side in sides]
