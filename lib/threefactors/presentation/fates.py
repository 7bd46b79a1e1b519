"""Figures of who leaves a minimum: landscapes made of many terms, and maps of fate with predicted boundaries."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.axes import plain_numbers
from threefactors.presentation.figures import COLORS, GRAY

LEFT = "#b79bdc"  # who left; who stays is the background, in light and in dark
_SHARE = LinearSegmentedColormap.from_list("share", [(0.72, 0.61, 0.86, 0.0), (0.72, 0.61, 0.86, 0.85)])
STYLES = {"linear instability": (COLORS[1], "-"), "noise kicks": (COLORS[0], "--"), "mean-square limit": (GRAY, ":")}


def landscapes(line: pd.DataFrame, plane: pd.DataFrame, marks: Mapping[str, pd.DataFrame]) -> Figure:
    """Left: terms (thin) and mean (thick) of a sum on a line; right: level lines of the mean of one in the plane.

    line: ``x``, ``loss``, ``term`` (-1: the mean). plane: ``x``, ``y``, ``loss`` on a grid. marks: the ``minimum``,
    ``x``, ``y`` of the minima, for "line" (y: the loss) and "plane".
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), width_ratios=[1.1, 1])
    for term, curve in line.groupby("term"):
        mean = term == -1
        style = {"color": COLORS[0], "lw": 2.2, "zorder": 3} if mean else {"color": GRAY, "lw": 0.6, "alpha": 0.55}
        left.plot(curve["x"], curve["loss"], **style, label="_mean" if mean else f"_term {term}")
    left.plot([], [], color=GRAY, lw=0.8, label="terms")
    left.plot([], [], color=COLORS[0], lw=2.2, label="mean")
    span = line.loc[line["term"] == -1, "loss"]
    left.set(xlabel="$x$", ylabel="loss", ylim=(2.2 * span.min(), 1.5 * abs(span.min())))
    left.legend(loc="upper center", ncols=2, handlelength=1.3)
    grid = plane.pivot(index="y", columns="x", values="loss")
    right.contour(grid.columns, grid.index, grid, levels=16, colors=GRAY, linewidths=0.8, linestyles="-")
    right.set(xlabel="$x_1$", ylabel="$x_2$")
    right.set_aspect("equal")
    right.grid(False)
    for ax, places, up in ((left, marks["line"], (0, -17)), (right, marks["plane"], (0, 32))):
        ax.plot(places["x"], places["y"], "o", color=COLORS[1], ms=5, zorder=4, label="_minima")
        for place in places.to_dict("records"):
            ax.annotate(
                place["minimum"], (place["x"], place["y"]), up, textcoords="offset points", ha="center",
                color=COLORS[1], fontsize=9,
            )  # fmt: skip
    plt.close(figure)
    return figure


def fate_map(cells: pd.DataFrame, laws: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of trajectories that left, over η and S; a line for each predicted boundary ``law`` at its ``lr``."""
    ax = ax or plt.figure(figsize=(3.4, 3)).add_subplot()
    grid = cells.pivot(index="batch_size", columns="lr", values="share")
    middle = np.log(grid.columns.to_numpy(float))
    step = (middle[-1] - middle[0]) / (len(middle) - 1)
    edges = np.exp(np.append(middle - step / 2, middle[-1] + step / 2))
    ax.pcolormesh(edges, np.arange(len(grid) + 1) - 0.5, grid, cmap=_SHARE, vmin=0, vmax=1, rasterized=True)
    rows = {size: i for i, size in enumerate(grid.index)}
    for law, line in laws.groupby("law", sort=False):
        color, style = STYLES[str(law)]
        at = line["batch_size"].map(rows).to_numpy()
        # a predicted place for each row of the map, joined by a thin line
        ax.plot(line["lr"], at, color=color, ls=style, lw=1, alpha=0.8, label=f"_{law}")
        ax.vlines(line["lr"], at - 0.5, at + 0.5, color=color, ls=style, lw=2.2, label=GUIDE)
    ax.set_yticks(range(len(grid)), [f"{size:g}" for size in grid.index])
    ax.set(xscale="log", ylim=(-0.5, len(grid) - 0.5), xlabel="learning rate  $\\eta$", ylabel="batch size  $S$")
    ax.grid(False)
    return ax


def fate_maps(
    cells: Mapping[str, pd.DataFrame], laws: Mapping[str, pd.DataFrame], *, span: tuple[float, float]
) -> Figure:
    """Maps of fate: a column for each arm, a row for each ``minimum``; ``span`` is the range of η that is shown."""
    minima = list(dict.fromkeys(next(iter(cells.values()))["minimum"]))
    figure, axes = plt.subplots(
        len(minima), len(cells), figsize=(2.75 * len(cells), 2.3 * len(minima) + 0.4), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for column, (arm, table) in zip(axes.T, cells.items(), strict=True):
        for ax, minimum in zip(column, minima, strict=True):
            law = laws[arm]
            fate_map(table[table["minimum"] == minimum], law[law["minimum"] == minimum], ax=ax)
            ax.set(xlim=span, xlabel="" if ax is not column[-1] else ax.get_xlabel(), ylabel="")
            if ax is column[0]:
                ax.set_title(arm)
            if ax in axes[:, 0]:
                ax.set_ylabel(f"{minimum} minimum\nbatch size  $S$")
            plain_numbers(ax.xaxis, (1.0, 3.0))
    drawn = dict.fromkeys(law for table in laws.values() for law in table["law"])
    handles: list[Patch | Line2D] = [Patch(color=LEFT, alpha=0.85, label="left the basin")]
    handles += [Line2D([], [], color=STYLES[law][0], ls=STYLES[law][1], lw=2.2, label=law) for law in drawn]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.8)
    plt.close(figure)
    return figure
