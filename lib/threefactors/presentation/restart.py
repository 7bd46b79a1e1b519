"""Figures of minima that SGD was restarted beside: who left, where theory said so, and where they came to rest."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from threefactors.presentation.axes import bars, plain_numbers, ticks_at
from threefactors.presentation.figures import COLORS, GRAY, shades

LAWS = {
    "noise_free": ("$2/\\lambda_{\\max}$", GRAY, "--"),
    "along_top": ("along the top eigenvector", COLORS[4], ":"),
    "typical": ("typical path", COLORS[1], "-"),
    "mean_square": ("mean square", COLORS[0], "-"),
    "uniform": ("non-uniformity", COLORS[3], ":"),
    "one_step": ("no step up", COLORS[2], ":"),
}


def leaving(shares: pd.DataFrame, *, xlabel: str = "", ax: Axes | None = None) -> Axes:
    """Share of restarts that ``left`` against ``x``, the learning rate in units of a prediction; a line for each S."""
    ax = ax or plt.figure(figsize=(3.6, 3.2)).add_subplot()
    sizes = list(dict.fromkeys(shares["batch_size"]))
    for size, color in zip(sizes, shades(len(sizes)), strict=True):
        some = shares[shares["batch_size"] == size].sort_values("x")
        ax.plot(some["x"], some["left"], color=color, lw=1.6, label=f"$S={size}$")
    ax.axvline(1, color=GRAY, lw=0.9, ls="--")
    ax.set(xscale="log", xlabel=xlabel, ylabel="share that left the minimum", ylim=(-0.03, 1.03))
    plain_numbers(ax.xaxis)
    ax.legend()
    return ax


def transitions_between_limits(points: pd.DataFrame, laws: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Where half of the restarts left, over S, in units of 2/λ_max; and the predictions, a line for each of LAWS.

    points: ``batch_size``, ``value``, ``low``, ``high``. laws: ``law``, ``batch_size``, ``y``.
    """
    ax = ax or plt.figure(figsize=(5.8, 3.8)).add_subplot()
    for law, (label, color, style) in LAWS.items():
        line = laws[laws["law"] == law].sort_values("batch_size")
        ax.plot(line["batch_size"], line["y"], color=color, ls=style, lw=1.5, label=label)
    ax.errorbar(
        points["batch_size"], points["value"], yerr=bars(points), fmt="o", color=GRAY, ms=5, lw=1.4, label="measured"
    )
    ax.set(xscale="log", yscale="log", xlabel="batch size  $S$", ylabel="$\\eta$, in units of  $2/\\lambda_{\\max}$")
    ticks_at(ax.xaxis, points["batch_size"])
    plain_numbers(ax.yaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.6)
    return ax


def coming_to_rest(table: pd.DataFrame) -> Figure:
    """Learning rates in units of the limits of two minima: of the one that was left (hollow), and of the one found.

    table: as ``inference.restart.resting``. Left in units of the mean-square limit, right in those of 2/λ_max; a row
    for each batch size and multiple, a dot a seed. Beyond the line at 1 no minimum of this kind should hold.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), sharey=True)
    groups = list(table.groupby(["batch_size", "multiple"]))
    panels = {"the mean-square limit": ("before", "after"), "$2/\\lambda_{\\max}$": ("sharp_before", "sharp_after")}
    for ax, (unit, columns) in zip(axes, panels.items(), strict=True):
        for row, (_, some) in enumerate(groups):
            for column, offset, fill in zip(columns, (-0.16, 0.16), ("none", COLORS[row % 2]), strict=True):
                y = row + offset + 0.07 * (np.arange(len(some)) % 3 - 1)
                label = "_minimum left" if fill == "none" else "_minimum found"
                ax.plot(some[column], y, "o", color=COLORS[row % 2], mfc=fill, ms=4.5, ls="", label=label)
        ax.axvline(1, color=GRAY, lw=1, ls="--")
        ax.set(xscale="log", xlabel=f"$\\eta$, in units of {unit}")
        ax.grid(axis="y", visible=False)
        plain_numbers(ax.xaxis)
    axes[0].set_yticks(range(len(groups)), [f"$S={size}$, × {multiple:g}" for (size, multiple), _ in groups])
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    for name, fill in (("minimum left", "none"), ("minimum found", GRAY)):
        axes[0].plot([], [], "o", color=GRAY, mfc=fill, ms=4.5, label=name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    plt.close(figure)
    return figure
