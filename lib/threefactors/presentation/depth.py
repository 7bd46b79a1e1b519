"""Figures of the edge of stability: the sharpness along training beside 2/η, and η λ_max against the batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from threefactors.presentation.axes import bars, plain_numbers, ticks_at
from threefactors.presentation.figures import GRAY, LABELS, shades


def apart(draw: Callable[..., Axes], tables: Mapping[str, Any], *, width: float = 3.6, **more: Any) -> Figure:
    """Panels side by side, each with axes and a legend of its own, for tables whose settings differ.

    Where a keyword's value is a mapping with the tables' names, each panel gets its own.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(width * len(tables), 3.3), squeeze=False)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        own = {k: v[name] if isinstance(v, Mapping) and set(tables) <= set(v) else v for k, v in more.items()}
        draw(table, ax=ax, **own).set_title(name)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def along_the_clock(
    looks: pd.DataFrame,
    *,
    limits: Mapping[str, float],
    xlabel: str = "clock  $T$",
    scale: str = "log",
    ax: Axes | None = None,
) -> Axes:
    """Sharpness ``value`` with its band ``low``, ``high`` at ``x``, a color for each ``label``.

    limits: the sharpness 2/η beyond which gradient descent is unstable, by label; dashed, in the color of its curve.
    A label that ``limits`` lacks is a control, drawn in gray.
    """
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    colors = dict(zip(limits, shades(len(limits)), strict=True))
    for label, curve in looks.groupby("label", sort=False):
        color = colors.get(str(label), GRAY)
        ax.plot(curve["x"], curve["value"], color=color, lw=1.3, label=label)
        if {"low", "high"} <= set(curve):
            ax.fill_between(curve["x"], curve["low"], curve["high"], color=color, alpha=0.2, lw=0)
    for label, limit in limits.items():
        ax.axhline(limit, color=colors[label], lw=1.1, ls="--", label=f"_limit, {label}")
    ax.set(yscale=scale, xlabel=xlabel, ylabel=LABELS["sharpness"])
    if scale == "log":
        plain_numbers(ax.yaxis)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4, handlelength=1.1, columnspacing=1.0)
    return ax


def steps_across(
    points: pd.DataFrame,
    *,
    marks: Mapping[float, str],
    ylabel: str = "$\\eta\\,\\lambda_{\\max}$",
    ax: Axes | None = None,
) -> Axes:
    """ηλ_max: ``value``, ``low``, ``high`` against the batch size, a color for each ``lr``; ``marks``: lines."""
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    for level, style in marks.items():
        ax.axhline(level, color=GRAY, lw=1.1, ls=style)
    rates = sorted(points["lr"].unique())
    for lr, color in zip(rates, shades(len(rates)), strict=True):
        some = points[points["lr"] == lr].sort_values("batch_size")
        ax.errorbar(
            some["batch_size"],
            some["value"],
            yerr=bars(some),
            fmt="o-",
            ms=4,
            lw=1.2,
            color=color,
            label=f"$\\eta={lr:g}$",
        )
    ax.set(xscale="log", yscale="log", xlabel="batch size  $S$", ylabel=ylabel)
    ticks_at(ax.xaxis, points["batch_size"])
    plain_numbers(ax.yaxis)
    lost, total = int(points["lost"].sum()), int((points["lost"] + points["n"]).sum())
    ax.text(0.99, 0.01, f"{lost} of {total} runs lost", transform=ax.transAxes, ha="right", va="bottom", fontsize=7.5)
    ax.legend(handlelength=1.2)
    return ax
