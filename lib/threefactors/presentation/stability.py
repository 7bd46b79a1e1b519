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
LIMITS = {"share": (0.0, 1.0), "growth": (-1.0, 1.0)}  # what a map shows, and where its colors end


def maps(panels: Mapping[str, pd.DataFrame], boundaries: pd.DataFrame) -> Figure:
    """Maps over learning rate and batch size, by title: the ``share`` that has left, or the ``growth`` ln ρ per step.

    Tables with ``lr``, ``batch_size``, both on geometric grids, and one of the two columns. boundaries: ``kind`` of
    BOUNDARIES, ``batch_size``, ``lr``, drawn as lines. Growth is cut off at ±1.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.0 * len(panels), 3.9), sharex=True, sharey=True)
    for ax, (title, table) in zip(axes, panels.items(), strict=True):
        _map(ax, table, boundaries, "batch_size")
        ax.set_title(title)
        ticks_at(ax.yaxis, sorted(table["batch_size"].unique()))
    axes[0].set_ylabel("batch size  $S$")
    _legend(figure, boundaries)
    plt.close(figure)
    return figure


def spread_map(
    cells: pd.DataFrame, boundaries: pd.DataFrame, paths: pd.DataFrame, rates: pd.DataFrame, *, at: tuple[float, float]
) -> Figure:
    """Left, growth over learning rate and spread of the curvatures with its limits; right, how the marked point fares.

    cells: ``lr``, ``spread``, ``growth`` as in ``maps``; boundaries: ``kind``, ``spread``, ``lr``. at: the marked (lr,
    spread). paths: ``step``, ``size`` |e| by ``trajectory`` there; rates: ``kind`` and the predicted growth ``y`` of
    ln|e| per step, drawn as lines from 1: "mean square" solid, any other dashed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.9))
    _map(left, cells, boundaries, "spread")
    left.plot(*at, "o", ms=9, mfc="white", mec="black", mew=1.8, label="_followed on the right")
    left.set(ylabel="spread  $s/\\lambda$", xlabel="learning rate  $\\eta\\lambda$", title="growth $\\ln\\rho$ a step")
    plain_numbers(left.yaxis)
    for name, path in paths.groupby("trajectory"):
        right.plot(path["step"], path["size"], color=COLORS[0], lw=0.8, alpha=0.55, label=f"_trajectory {name}")
    steps = np.arange(paths["step"].max() + 1)
    for row, color in zip(rates.to_dict("records"), COLORS[1:], strict=False):
        style = "-" if row["kind"] == "mean square" else "--"
        right.plot(steps, np.exp(row["y"] * steps), style, color=color, lw=2, label=f"{row['kind']}, predicted")
    right.set(yscale="log", ylim=(1e-8, 1e8), xlim=(0, steps[-1]), xlabel="step", ylabel="$|e|$")
    right.set_title("trajectories of the marked point")
    legend = right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=1.8)
    legend.set_in_layout(False)  # there is room beside the color bar
    _legend(figure, boundaries)
    plt.close(figure)
    return figure


def _map(ax: Axes, table: pd.DataFrame, boundaries: pd.DataFrame, rows: str) -> None:
    """Cells over learning rate and ``rows``, both on geometric grids, with limits as lines and a bar below."""
    column = next(name for name in LIMITS if name in table)
    grid = table.pivot(index=rows, columns="lr", values=column)
    low, high = LIMITS[column]
    edges = [_edges(values.to_numpy(float)) for values in (grid.columns, grid.index)]
    mesh = ax.pcolormesh(*edges, grid.clip(low, high), vmin=low, vmax=high, cmap=STAY_LEAVE, rasterized=True)
    for kind, line in boundaries.groupby("kind", sort=False):
        color, style = BOUNDARIES[str(kind)]
        ax.plot(line["lr"], line[rows], color=color, ls=style, lw=1.8, label=f"_{kind}")
    ax.set(xscale="log", yscale="log", xlabel="learning rate  $\\eta$")
    ax.set(xlim=(edges[0][0], edges[0][-1]), ylim=(edges[1][0], edges[1][-1]))
    ax.grid(False)
    plain_numbers(ax.xaxis)
    ax.figure.colorbar(mesh, ax=ax, orientation="horizontal", shrink=0.85, aspect=25)


def _legend(figure: Figure, boundaries: pd.DataFrame) -> None:
    kinds = list(dict.fromkeys(boundaries["kind"]))
    patches = [plt.Line2D([], [], color=BOUNDARIES[k][0], ls=BOUNDARIES[k][1], lw=1.8, label=k) for k in kinds]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(kinds), facecolor="#8fa9b8", framealpha=1,
                  labelcolor="black", frameon=True)  # fmt: skip


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
            line["batch_size"], line["converges_below"], line["diverges_above"], color=color, alpha=0.15, lw=0,
            label=f"_{name}, explicit bounds",
        )  # fmt: skip
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
        law = meet * (ends / anchor) ** (-1 / curve["predicted_exponent"].iloc[0])
        ax.plot(law, ends, color=color, ls="--", lw=1, label=f"_{cell}, power law")
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
