"""The data behind a figure as one tidy table, read off what is drawn: whoever sees a point can have its number.

Nothing is computed here. A row is a datum: ``panel``, ``series`` and ``mark`` (point, line, band, bar, map; level for
level lines, arrow), then its place and, where they are drawn, the ends of its interval. In a notebook the table goes
along with the picture, as an output of its own media type.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryLocator
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from threefactors.presentation.artists import Shown, shown

FIGURE_MIME = "application/vnd.threefactors.figure+json"
KEYS = ("panel", "series", "mark")
NUMBERS = ("x", "y", "x_low", "x_high", "y_low", "y_high", "value", "u", "v")
DIGITS = 6


def drawn(figure: Figure) -> pd.DataFrame:
    """What a figure shows, one row a datum; columns that are empty throughout are left out.

    Categories and the places of a map are the words or numbers at their ticks. Colorbars, remarks, guides and axes'
    own decoration are no data.
    """
    tables = []
    for ax, panel in _panels(figure).items():
        found = []
        for series, one in _named(list(shown(ax))):
            table = pd.DataFrame(one.columns)
            ends = [name for name in table if str(name).endswith(("_low", "_high"))]
            there = table.notna()
            whole = there.any(axis=1) if one.mark == "band" else there.drop(columns=ends).all(axis=1)
            table = table.loc[whole].map(_short)
            for axis in (ax.xaxis, ax.yaxis):
                if axis.axis_name in table:
                    table[axis.axis_name] = _at_ticks(axis, table[axis.axis_name], one.mark)
            found.append(table.assign(panel=panel, series=series, mark=one.mark))
        tables += _with_bands(found)
    return _tidy(pd.concat(tables, ignore_index=True) if tables else pd.DataFrame())


def together(figures: Mapping[str, Figure]) -> pd.DataFrame:
    """The tables of several figures under each other, with the name of each in the first column ``frame``."""
    tables = [drawn(figure).assign(frame=name) for name, figure in figures.items()]
    return _tidy(pd.concat(tables, ignore_index=True))


def axis_labels(figure: Figure) -> dict[str, dict[str, str]]:
    """By panel, what x, y and the value of a map are; axes that share a label have it once, and all are told it."""
    panels = _panels(figure)
    bars = [ax.get_ylabel() or ax.get_xlabel() for ax in figure.axes if _is_colorbar(ax)]
    value = next(filter(None, bars), "")
    found = {}
    for ax, panel in panels.items():
        below, beside = _neighbors(ax, panels)
        x = next(filter(None, (one.get_xlabel() for one in [ax, *reversed(below)])), "")
        y = next(filter(None, (one.get_ylabel() for one in [ax, *beside])), "")
        found[panel] = {name: " ".join(text.split()) for name, text in (("x", x), ("y", y), ("value", value))}
    return found


def payload(table: pd.DataFrame, labels: Mapping[str, Mapping[str, str]], **more: str) -> dict[str, Any]:
    """The table as plain JSON, with the axes' labels; what does not exist is None."""
    data = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return {"columns": list(table.columns), "data": data, "labels": dict(labels), **more}


def in_notebooks() -> bool:
    """Let every figure that this notebook shows bring its table along; False where there is no notebook."""
    with suppress(ImportError):
        from IPython import get_ipython

        if shell := get_ipython():  # type: ignore[no-untyped-call]
            shell.display_formatter.mimebundle_formatter.for_type(Figure, _bundle)
            return True
    return False


def _bundle(figure: Figure, include: object = None, exclude: object = None) -> dict[str, Any]:
    table = drawn(figure)
    return {FIGURE_MIME: payload(table, axis_labels(figure))} if len(table) else {}


def _tidy(table: pd.DataFrame) -> pd.DataFrame:
    columns = [name for name in ("frame", *KEYS, *NUMBERS) if name in table]
    empty = [name for name in columns if table[name].isna().all() or (table[name] == "").all()]
    return table[[name for name in columns if name not in empty or name == "mark"]].reset_index(drop=True)


def _named(artists: Sequence[Shown]) -> list[tuple[str, Shown]]:
    """Artists with data and the names of their series.

    A label names a series. What has none and is drawn otherwise than the one series of its color belongs to it, as a
    band to its line; whatever is left is numbered where there are several.
    """
    of_color: dict[Any, set[str]] = defaultdict(set)
    for one in artists:
        if one.label:
            of_color[one.color].add(one.label)
    taken = {(one.label, one.mark) for one in artists if one.label and len(one)}
    names = []
    for one in artists:
        name, *others = of_color.get(one.color, ()) or ("",)
        names.append(one.label or ("" if others or (name, one.mark) in taken else name))
    count = Counter((name, one.mark) for name, one in zip(names, artists, strict=True) if not one.label)
    number: Counter[tuple[str, str]] = Counter()
    found = []
    for name, one in zip(names, artists, strict=True):
        if not one.label and count[name, one.mark] > 1:
            number[name, one.mark] += 1
            name = f"{name} {number[name, one.mark]}".strip()
        if len(one):
            found.append((name, one))
    return found


def _with_bands(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """A band along the whole of its line, or part of it, are the intervals of the line's points: one row for both."""
    kept = list(tables)
    for band in [table for table in tables if set(table["mark"]) == {"band"} and table.notna().all(axis=None)]:
        for place, low, high in (("x", "y_low", "y_high"), ("y", "x_low", "x_high")):
            if {place, low, high} - set(band) or band[place].duplicated().any():
                continue
            ends = band.set_index(place)[[low, high]]
            for k, line in enumerate(kept):
                of_it = set(line["series"]) == set(band["series"]) and set(line["mark"]) != {"band"}
                if of_it and low not in line and line[place].is_unique and set(ends.index) <= set(line[place]):
                    kept[k] = line.join(ends, on=place)
                    kept = [table for table in kept if table is not band]
                    break
    return kept


def _panels(figure: Figure) -> dict[Axes, str]:
    """Axes with data and their names: the title, of rows and columns both heads, or else a number."""
    axes = [ax for ax in figure.axes if not _is_colorbar(ax) and any(map(len, shown(ax)))]
    if len(axes) < 2:
        return {ax: _first_line(_title(ax)) for ax in axes}
    names = []
    for ax in axes:
        above, beside = _neighbors(ax, axes)
        title = next(filter(None, map(_title, [ax, *above])), "")
        row = next(filter(None, (one.get_ylabel() for one in [ax, *beside])), "") if len(above) > 1 else ""
        names.append("; ".join(filter(None, map(_first_line, (title, row)))))
    often = Counter(names)
    return {
        ax: name if name and often[name] == 1 else f"{name} {number}".strip()
        for number, (ax, name) in enumerate(zip(axes, names, strict=True), start=1)
    }


def _neighbors(ax: Axes, axes: Sequence[Axes] | Mapping[Axes, str]) -> tuple[list[Axes], list[Axes]]:
    """The axes in the same column of the grid, and those in the same row, itself included."""
    place = ax.get_subplotspec()
    if place is None:
        return [ax], [ax]
    spots = [(one, one.get_subplotspec()) for one in axes]
    same = [(one, spot) for one, spot in spots if spot and spot.get_gridspec() is place.get_gridspec()]
    column = [one for one, spot in same if spot.colspan.start == place.colspan.start]
    return column, [one for one, spot in same if spot.rowspan.start == place.rowspan.start]


def _is_colorbar(ax: Axes) -> bool:
    return ax.get_label() == "<colorbar>"


def _title(ax: Axes) -> str:
    return ax.get_title() or ax.get_title("left") or ax.get_title("right")


def _first_line(text: str) -> str:
    """Further lines of a title tell results, which change from build to build."""
    return " ".join(text.split("\n")[0].split())


def _at_ticks(axis: Axis, places: pd.Series, mark: str) -> pd.Series:
    """Places on an axis of categories, ticks at 0, 1, 2 … with names, as these names; numbers where all are numbers.

    Points stand a little beside a tick where there are several of a category; a curve that does is no category's.
    """
    names, nearest = _categories(axis), places.round()
    if not names or (mark not in ("point", "bar", "map") and not places.dropna().isin(range(len(names))).all()):
        return places
    inside = nearest.between(0, len(names) - 1)
    return pd.Series(
        [names[int(k)] if ok else place for k, ok, place in zip(nearest, inside, places, strict=True)], places.index
    )


def _categories(axis: Axis) -> Sequence[Any]:
    locator, ticks = axis.get_major_locator(), np.asarray(axis.get_majorticklocs())
    if not isinstance(locator, FixedLocator | StrCategoryLocator) or not np.array_equal(ticks, np.arange(len(ticks))):
        return []
    names = [" ".join(name.split()) for name in axis.get_major_formatter().format_ticks(ticks.tolist())]
    with suppress(ValueError):
        numbers = [float(re.sub("^−", "-", name)) for name in names]
        return numbers if numbers != list(ticks) else []
    return names


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
