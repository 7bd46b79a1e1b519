"""Measured points against a predicted line: the figure of every law of the theory."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.axes import bars, plain_numbers, ticks_at
from threefactors.presentation.figures import GRAY, shades


def points_on_law(
    points: pd.DataFrame,
    law: pd.DataFrame,
    *,
    x: str,
    xlabel: str,
    ylabel: str,
    by: str | None = None,
    scales: tuple[str, str] = ("log", "log"),
    ticks: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Points ``value``, ``low``, ``high`` at column ``x``, one color for each value of ``by``; lines ``y`` at ``x``.

    A line belongs to the points that share its value of ``by`` and takes their color; one whose value no point has, or
    without ``by``, is gray and dashed, and is named in the legend by its ``label`` where it has that column. ticks:
    ``points`` names each x that was measured and no other, ``1-2-5`` both axes of a decade or two in plain numbers.
    """
    if ticks not in ("", "points", "1-2-5"):
        raise ValueError(f"ticks={ticks!r} is unknown; use '', 'points' or '1-2-5'")
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    groups = list(dict.fromkeys(points[by])) if by else [None]
    colors = dict(zip(groups, shades(len(groups)), strict=True))
    keys = [key for key in (by, "label") if key and key in law]
    for _, line in law.groupby(keys, sort=False) if keys else [(None, law)]:
        first = line.iloc[0]
        color = colors.get(first[by]) if by and by in law else None
        style = {"color": color} if color else {"color": GRAY, "ls": "--", "label": first.get("label")}
        ax.plot(line[x], line["y"], lw=1.3, **style)
    for name in groups:
        some = points[points[by] == name] if by else points
        label = None if name is None else str(name)
        ax.errorbar(some[x], some["value"], yerr=bars(some), fmt="o", ms=4, lw=1.2, color=colors[name], label=label)
    ax.set(xscale=scales[0], yscale=scales[1], xlabel=xlabel, ylabel=ylabel)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(handlelength=1.3)
    if ticks == "points":
        ticks_at(ax.xaxis, points[x])
    elif ticks:
        plain_numbers(ax.xaxis)
        plain_numbers(ax.yaxis)
    return ax
