"""The data of figures in two builds side by side: what was lost, and what moved by more than other seeds would move it.

Points carry intervals over seeds. Two builds with different seeds differ by some of it, and one such difference is no
change: |new − old| is therefore measured in √(h² + h′²), with h and h′ the half-widths of the two intervals on the
sides that face each other, and a *series* by the median over its points, so that no single point decides. Above
`TOLD` it is told as moved, above `DRIFTED` it has drifted. For 95 % intervals by Student's t, an independent redraw of
all seeds gives a median of about 0.25 and exceeds 1 in at most 5 % of series and 2 in at most 0.1 %, even where all
points of a series rise and fall together or there is only one (a test simulates it). A series that shifts by three
times the half-width of its intervals has drifted.

Where points without intervals are a sample, as the dots of single runs or a cloud, the unit is the Kolmogorov–Smirnov
distance that two samples of one law exceed in 5 % of cases. Where nothing of the kind is known (laws, maps), the unit
is 2 % of the panel's range, in decades where it spans two or more, and a series drifts above `FAR` of them, three
tenths of the panel. Times are a machine's: they are told only.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from scipy.stats import ks_2samp

from threefactors.publishing.built import Built
from threefactors.publishing.figure_data import KEY

TOLD, DRIFTED, FAR = 1.0, 2.0, 15.0
UNIT = 0.02  # of a panel's range, where no interval says what is much
SPREAD, SCATTER, PANEL = "the spread over seeds", "the scatter of the points", f"{UNIT:.0%} of the panel"
SEEN = 0.001  # of a panel's range: less is no change, however narrow the intervals
FAILING = ("turned", "gone", "outside", "lost", "drifted")
AXES = ("x", "y", "value", "u", "v")
_TIME = re.compile(r"\b(micro|milli)?seconds?\b|µs|\bms\b")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One difference of two builds: its ``kind``, where it is, how it was and is, and what is to be known about it."""

    kind: str
    where: str
    old: str = ""
    new: str = ""
    note: str = ""

    @property
    def failing(self) -> bool:
        return self.kind in FAILING


def figures(old: Built, new: Built) -> Iterator[Finding]:
    """What became of the figures' data. The figures that are equal byte for byte are not looked into."""
    for name, data in old.figures.items():
        if name not in new.figures:
            yield Finding("lost", name, f"{len(old.table(name))} points", "gone", "a figure")
        elif new.figures[name] != data:
            yield from _figure(name, old.table(name), new.table(name))
    for name in new.figures:
        if name not in old.figures:
            yield Finding("new", name, "", f"{len(new.table(name))} points", "a figure")


@dataclass(frozen=True)
class Shift:
    """How far a series moved along one axis, in a unit: SPREAD, SCATTER or PANEL."""

    axis: str
    times: float
    unit: str
    label: str = ""

    @property
    def share(self) -> float:
        """Of the most that is no drift."""
        return self.times / (FAR if self.unit == PANEL else DRIFTED)

    @property
    def drifted(self) -> bool:
        return self.share > 1 and not _TIME.search(self.label)

    def __str__(self) -> str:
        return f"{self.axis}: {self.times:.2g} × {self.unit}{', a time' if _TIME.search(self.label) else ''}"


def _figure(name: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[Finding]:
    olds, news = (dict(list(table.groupby(KEY, sort=False))) for table in (old, new))
    panels = dict(list(old.groupby(KEY[:2], sort=False)))
    for panel, table in panels.items():
        if not any(key[:2] == panel for key in news):
            yield Finding("lost", _where(name, panel), f"{len(table)} points", "gone", "a panel")
    for key, table in olds.items():
        where = _where(name, key)
        if key in news:
            yield from _series(where, table, news[key], panels[key[:2]])
        elif any(other[:2] == key[:2] for other in news):
            yield Finding("lost", where, f"{len(table)} points", "gone", "a series")
    for key in [key for key in news if key not in olds]:
        yield Finding("new", _where(name, key), "", f"{len(news[key])} points", "a series")


def _series(where: str, old: pd.DataFrame, new: pd.DataFrame, panel: pd.DataFrame) -> Iterator[Finding]:
    if len(new) < len(old) and old["mark"].iloc[0] != "level":  # how many points make a level line means nothing
        yield Finding("lost", where, f"{len(old)} points", f"{len(new)} points", "points")
    if told := [shift for shift in shifts(old, new, panel) if shift.times > TOLD]:
        worst = max(told, key=lambda shift: (shift.drifted, shift.share))
        before, after = (_middle(table, worst.axis) for table in (old, new))
        yield Finding("drifted" if worst.drifted else "moved", where, before, after, str(worst))


def shifts(old: pd.DataFrame, new: pd.DataFrame, panel: pd.DataFrame) -> Iterator[Shift]:
    """How far a series moved along each axis along which it did; ``panel``: all rows of its panel in the old build."""
    labels = {axis: str(old.get(f"{axis}_label", pd.Series([""])).iloc[0]) for axis in AXES}
    one, other, mark = _numbers(old), _numbers(new), str(old["mark"].iloc[0])
    if _is_sample(one, other, mark):
        for axis in [name for name in AXES if all(name in table.select_dtypes("number") for table in (one, other))]:
            distance = ks_2samp(one[axis].dropna(), other[axis].dropna(), method="asymp").statistic
            critical = np.sqrt(np.log(2 / 0.05) / 2 * (1 / len(one) + 1 / len(other)))
            yield Shift(axis, float(distance / critical), SCATTER, labels[axis])
        return
    pairs = _pairs(one, other, mark)
    for axis in AXES:
        sides = [pairs.get(f"{axis} {side}") for side in ("old", "new")]
        if any(side is None or not is_numeric_dtype(side) for side in sides):
            continue  # no such axis, or one of categories
        before, after = (np.asarray(side, dtype=float) for side in sides)
        if np.array_equal(before, after, equal_nan=True):
            continue
        reach, decades = _reach(panel, axis)
        up = after > before
        spread = np.hypot(_half_width(pairs, axis, "old", up), _half_width(pairs, axis, "new", ~up))
        change = np.abs(after - before)
        if np.isfinite(spread).any():
            least = SEEN * reach * (np.abs(before) * np.log(10) if decades else 1)
            yield Shift(axis, float(np.nanmedian(change / np.maximum(spread, least))), SPREAD, labels[axis])
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            change = np.abs(np.log10(after / before)) if decades else change
        if not np.isnan(change).all():
            yield Shift(axis, float(np.nanmedian(change) / (UNIT * reach)), PANEL, labels[axis])


def _is_sample(old: pd.DataFrame, new: pd.DataFrame, mark: str) -> bool:
    """Whether these are points without intervals of which several share a place, or most are at other places now."""
    if mark != "point" or any(name.endswith(("_low", "_high")) for name in _names(old)):
        return False
    place = [name for name in _place(old, mark) if name in new]
    if not place:
        return False
    again = old[place[0]].isin(new[place[0]])
    return bool(old[place].duplicated().any() or 2 * again.sum() < len(old))


def _pairs(old: pd.DataFrame, new: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Each point of the old series beside its counterpart in the new one, columns ``x old``, ``x new`` and so on.

    Points at the same place belong together. Where most places are others, they are results: they are paired in their
    order if they are as many, and by rank along each axis otherwise.
    """
    columns = [
        name for name in _names(old) if name in new and is_numeric_dtype(old[name]) == is_numeric_dtype(new[name])
    ]
    old, new = old[columns], new[columns]
    if place := [name for name in _place(old, mark) if name in columns]:
        if old[place].equals(new[place]):
            return _beside(old, new)
        one, other = (table.assign(copy=table.groupby(place).cumcount()) for table in (old, new))
        one, other = (table.set_index([*place, "copy"], drop=False) for table in (one, other))
        both = one.index.intersection(other.index)
        if 2 * len(both) >= len(old):
            return _beside(one.loc[both], other.loc[both])
    if len(old) != len(new) or mark == "level":
        old, new = (table.select_dtypes("number").quantile(np.linspace(0, 1, 101)) for table in (old, new))
    return _beside(old, new)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of one series that hold anything, numbers as such; intervals alone get a middle."""
    columns = {}
    for name in _names(table):
        if name in KEY or name.endswith("_label") or (table[name] == "").all():
            continue
        numbers = pd.to_numeric(table[name].replace("", "nan"), errors="coerce")
        words = (numbers.isna() & (table[name] != "")).any()
        columns[name] = table[name] if words else numbers
    for axis in "xy":
        ends = [columns[name] for name in (f"{axis}_low", f"{axis}_high") if name in columns]
        if ends and axis not in columns:
            columns[axis] = pd.concat(ends, axis=1).mean(axis=1)
    return pd.DataFrame(columns).reset_index(drop=True)


def _names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table]


def _place(table: pd.DataFrame, mark: str) -> list[str]:
    """The columns that say where a datum is, as against what it is."""
    if mark in ("map", "arrow"):
        return ["x", "y"]
    uncertain = {name[0] for name in _names(table) if name.endswith(("_low", "_high"))}
    if "y" not in table or "x" not in table or uncertain == {"x", "y"}:
        return []
    return ["y"] if not is_numeric_dtype(table["y"]) or uncertain == {"x"} else ["x"]


def _beside(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    tables = {"old": old, "new": new}
    return pd.DataFrame({f"{name} {side}": table[name].to_numpy() for side, table in tables.items() for name in table})


def _half_width(pairs: pd.DataFrame, axis: str, side: str, up: NDArray[np.bool_]) -> Array:
    """From each point to the end of its interval, upwards or downwards; where it is open there, the other way."""
    nothing = pd.Series(np.nan, pairs.index)
    center = pairs[f"{axis} {side}"]
    above = pairs.get(f"{axis}_high {side}", nothing) - center
    below = center - pairs.get(f"{axis}_low {side}", nothing)
    first, second = np.where(up, above, below), np.where(up, below, above)
    return np.where(np.isnan(first), second, first)


def _reach(panel: pd.DataFrame, axis: str) -> tuple[float, bool]:
    """How far the panel's data reach along an axis: in decades, where these are two or more, and whether they are."""
    names = [name for name in (axis, f"{axis}_low", f"{axis}_high") if name in panel]
    values = panel[names].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    low, high = np.nanmin(values), np.nanmax(values)
    if low > 0 and high >= 100 * low:
        return float(np.log10(high / low)), True
    return float(high - low) or abs(float(high)) or 1.0, False


def _middle(table: pd.DataFrame, axis: str) -> str:
    return f"{_numbers(table)[axis].median():.4g}"


def _where(name: str, key: tuple[Hashable, ...]) -> str:
    """``fig-width-plain: equal clock: $S=24$ (point)``"""
    *parts, mark = map(str, key) if len(key) == len(KEY) else (*map(str, key), "")
    return ": ".join(filter(None, [name, *parts])) + (f" ({mark})" if mark else "")
