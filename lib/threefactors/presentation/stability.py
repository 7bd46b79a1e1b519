"""Figures of linear stability: who stays and who leaves, limits between their bounds, and heavy tails."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from threefactors.presentation.axes import bars, plain_numbers, ticks_at
from threefactors.presentation.figures import COLORS, GRAY, shades

# from what stays to what leaves; the middle is as dark as a line on it needs
STAY_LEAVE = LinearSegmentedColormap.from_list("stay_leave", ["#2f6fae", "#8fa9b8", "#d9822b"])
BOUNDARIES = {"mean square": ("white", "-"), "typical trajectory": ("black", "--"), "gradient descent": ("black", ":")}


def maps(panels: Mapping[str, pd.DataFrame], boundaries: pd.DataFrame) -> Figure:
    """Maps over learning rate and batch size, by title: the ``share`` that has left, or the ``growth`` ln ρ per step.

    Tables with ``lr``, ``batch_size``, both on geometric grids, and one of the two columns. boundaries: ``kind`` of
    BOUNDARIES, ``batch_size``, ``lr``, drawn as lines. Growth is cut off at ±1.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels), 3.9), sharex=True, sharey=True)
    limits = {"share": (0, 1), "growth": (-1, 1)}
    for ax, (title, table) in zip(axes, panels.items(), strict=True):
        column = next(name for name in limits if name in table)
        grid = table.pivot(index="batch_size", columns="lr", values=column)
        low, high = limits[column]
        edges = [_edges(values.to_numpy(float)) for values in (grid.columns, grid.index)]
        mesh = ax.pcolormesh(*edges, grid.clip(low, high), vmin=low, vmax=high, cmap=STAY_LEAVE, rasterized=True)
        for kind, line in boundaries.groupby("kind", sort=False):
            color, style = BOUNDARIES[str(kind)]
            ax.plot(line["lr"], line["batch_size"], color=color, ls=style, lw=1.8)
        ax.set(xscale="log", yscale="log", xlabel="learning rate  $\\eta$", title=title)
        ax.set(xlim=(edges[0][0], edges[0][-1]), ylim=(edges[1][0], edges[1][-1]))
        ax.grid(False)
        plain_numbers(ax.xaxis)
        ticks_at(ax.yaxis, grid.index)
        figure.colorbar(mesh, ax=ax, orientation="horizontal", shrink=0.85, aspect=25)
    axes[0].set_ylabel("batch size  $S$")
    kinds = list(dict.fromkeys(boundaries["kind"]))
    patches = [plt.Line2D([], [], color=BOUNDARIES[k][0], ls=BOUNDARIES[k][1], lw=1.8, label=k) for k in kinds]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(kinds), facecolor="#8fa9b8", framealpha=1,
                  labelcolor="black", frameon=True)  # fmt: skip
    plt.close(figure)
    return figure


def limits_between_bounds(points: pd.DataFrame, law: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Measured limits over the batch size, each problem's prediction as a line, and its explicit bounds as a band.

    points: ``problem``, ``batch_size``, ``value``, ``low``, ``high``. law: ``problem``, ``batch_size``,
    ``predicted_limit``, ``converges_below``, ``diverges_above``; ``without_noise`` is drawn dotted.
    """
    ax = ax or plt.figure(figsize=(5.8, 3.8)).add_subplot()
    problems = list(dict.fromkeys(law["problem"]))
    for name, color in zip(problems, COLORS, strict=False):
        line = law[law["problem"] == name].sort_values("batch_size")
        some = points[points["problem"] == name]
        ax.fill_between(
            line["batch_size"], line["converges_below"], line["diverges_above"], color=color, alpha=0.15, lw=0
        )
        ax.plot(line["batch_size"], line["predicted_limit"], color=color, lw=1.3)
        ax.errorbar(some["batch_size"], some["value"], yerr=bars(some), fmt="o", ms=4, lw=1.2, color=color, label=name)
    plain = law.drop_duplicates("batch_size").sort_values("batch_size")
    label = "gradient descent, $2/\\lambda_1$"
    ax.plot(plain["batch_size"], plain["without_noise"], color=GRAY, ls=":", lw=1.4, label=label)
    ax.set(xscale="log", yscale="log", xlabel="batch size  $S$", ylabel="limit of the learning rate  $\\eta$")
    ticks_at(ax.xaxis, points["batch_size"])
    plain_numbers(ax.yaxis)
    ax.legend()
    return ax


def zero_line(ax: Axes, *, low: float) -> Axes:
    """A line at growth 0, what is below ``low`` cut off, and plain numbers on the learning rate's axis."""
    ax.axhline(0, color=GRAY, lw=0.8)
    ax.set_ylim(bottom=low)
    plain_numbers(ax.xaxis)
    return ax


def survival(curves: pd.DataFrame, *, anchor: float = 0.005, ax: Axes | None = None) -> Axes:
    """P(|e| > u) by ``cell``: ``size`` u, ``survival``; dashed: power laws of the ``predicted_exponent``.

    A power law's exponent is predicted and its height is not: each is made to meet its curve where ``anchor`` survive.
    """
    ax = ax or plt.figure(figsize=(5.8, 3.8)).add_subplot()
    cells = list(dict.fromkeys(curves["cell"]))
    for cell, color in zip(cells, shades(len(cells)), strict=True):
        curve = curves[curves["cell"] == cell].sort_values("survival")
        meet = np.exp(np.interp(np.log(anchor), np.log(curve["survival"]), np.log(curve["size"])))
        ax.plot(curve["size"], curve["survival"], color=color, lw=1.8, label=cell)
        ends = np.array([curve["survival"].min(), 0.1])
        ax.plot(meet * (ends / anchor) ** (-1 / curve["predicted_exponent"].iloc[0]), ends, color=color, ls="--", lw=1)
    ax.set(xscale="log", yscale="log", ylabel="share beyond  $P(|e| > u)$")
    ax.set_xlabel("size  $u$, in units of what one in ten exceeds")
    plain_numbers(ax.xaxis)
    ax.legend(handlelength=1.3)
    return ax


def _edges(centers: np.ndarray) -> np.ndarray:
    """Edges of the cells around the points of a geometric grid."""
    logs = np.log(centers)
    half = np.diff(logs) / 2
    return np.exp(np.concatenate([[logs[0] - half[0]], logs[:-1] + half, [logs[-1] + half[-1]]]))
