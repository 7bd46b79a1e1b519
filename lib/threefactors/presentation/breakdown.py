"""Figures of a scaling that breaks: curves that leave a plateau, exponents as fingerprints, predicted breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.axes import bars, plain_numbers
from threefactors.presentation.figures import COLORS, GRAY, shades

STYLES = (("o", "-"), ("s", "--"), ("^", ":"))


def falls(
    cells: pd.DataFrame,
    breaks: pd.DataFrame | None = None,
    *,
    x: str = "beta",
    xlabel: str = "$\\beta$",
    ylabel: str = "validation accuracy (%)",
    percent: float = 100,
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Means ``value`` with ``low``, ``high`` at ``x``: a color for each ``train_size``, a marker for each ``ratio``.

    ``diverged`` (if it is there) of ``n`` runs of a cell: crosses, and a count in the corner. breaks: ``value``,
    ``low``, ``high`` of the breaking point for each curve, drawn as triangles on the lower edge, and ``censored``, in
    how many seeds no break of the curve was seen: a triangle that points to the right if in all of them. limit: a
    horizontal line, and a logarithmic axis.
    """
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    sizes, ratios = sorted(cells["train_size"].unique()), sorted(cells["ratio"].unique(), reverse=True)
    colors = dict(zip(sizes, shades(len(sizes)), strict=True))
    for (size, ratio), curve in cells.groupby(["train_size", "ratio"], sort=True):
        curve = curve.sort_values(x)
        y, low, high = (percent * curve[name] for name in ("value", "low", "high"))
        if percent == 100:
            low, high = low.clip(lower=0), high.clip(upper=100)
        marker, line = STYLES[ratios.index(ratio)]
        label = f"$N={size}$" + (f", $\\eta/S={ratio:g}$" if len(ratios) > 1 else "")
        ax.plot(curve[x], y, marker + line, ms=3.5, lw=1.2, color=colors[size], label=label)
        ax.fill_between(curve[x], low, high, color=colors[size], alpha=0.15, lw=0, label=f"_{label}")
        if "diverged" in curve:
            lost = curve["diverged"] > 0
            ax.plot(curve[x][lost], y[lost], "x", ms=6, color=colors[size], label=f"_{label}: some diverged")
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    _few_numbers(ax.xaxis)
    if limit is not None:
        ax.axhline(limit, color=GRAY, lw=1.2, ls="--")
        ax.set(yscale="log", ylim=(cells["value"].min() / 2, cells["value"].max() * 2))
        _few_numbers(ax.yaxis)
    if breaks is not None:
        _tell_breaks(ax, breaks, colors)
    if "diverged" in cells:
        told = f"{cells['diverged'].sum():.0f} of {cells['n'].sum():.0f} runs diverged"
        ax.text(0.99, 0.99, told, transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    ax.legend(handlelength=2.2, loc="best" if limit is None else "lower right")
    return ax


def collapse(cells: pd.DataFrame, views: Sequence[tuple[str, str]]) -> Figure:
    """``falls`` of the same curves against several columns, (column, label), each panel with an axis of its own."""
    figure, axes = plt.subplots(1, len(views), figsize=(3.1 * len(views), 3.6), sharey=True)
    for ax, (x, label) in zip(axes, views, strict=True):
        falls(cells, x=x, xlabel=label, ylabel="validation accuracy (%)" if ax is axes[0] else "", ax=ax)
        ax.get_legend().remove()
    sizes, ratios = sorted(cells["train_size"].unique()), sorted(cells["ratio"].unique(), reverse=True)
    handles = [Line2D([], [], color=c, lw=2, label=f"$N={n}$") for n, c in zip(sizes, shades(len(sizes)), strict=True)]
    for ratio, (marker, line) in zip(ratios, STYLES, strict=False):
        handles.append(Line2D([], [], color=GRAY, marker=marker, ls=line, ms=4, label=f"$\\eta/S={ratio:g}$"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=2.2)
    plt.close(figure)
    return figure


def _few_numbers(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    plain_numbers(axis, (1.0, 3.0) if high / low < 1000 else (1.0,))


def _tell_breaks(ax: Axes, breaks: pd.DataFrame, colors: Mapping[int, object]) -> None:
    low, high = ax.get_ylim()
    for row in breaks.to_dict("records"):
        level = low + (0.03 + 0.05 * list(colors).index(row["train_size"])) * (high - low)
        color = colors[row["train_size"]]
        marker = ">" if row["censored"] == row["n"] else "^"
        label = f"_breaking point, $N={row['train_size']}$"
        ax.hlines(level, row["low"], row["high"], color=color, lw=1.6, label=label)
        ax.plot(row["value"], level, marker, color=color, ms=6, label=label)


def fingerprint(exponents: pd.DataFrame, laws: Mapping[str, tuple[float, float]], *, ax: Axes | None = None) -> Axes:
    """Exponents of N and of η/S in the breaking β, against those that each mechanism would have (gray diamonds).

    A row each: ``arm`` (color), ``protocol`` (marker), ``size`` and ``ratio`` with _low and _high.
    """
    ax = ax or plt.figure(figsize=(6.4, 4.0)).add_subplot()
    for name, (size, ratio) in laws.items():
        ax.plot(size, ratio, "D", ms=11, mfc="none", mew=1.6, color=GRAY, label=f"_law: {name}")
        ax.annotate(name, (size, ratio), xytext=(-9, 5), textcoords="offset points", color=GRAY, ha="right")
    colors = dict(zip(exponents["arm"].unique(), COLORS, strict=False))
    markers = dict(zip(exponents["protocol"].unique(), "os^", strict=False))
    for row in exponents.to_dict("records"):
        across, up = (
            [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]] for name in ("size", "ratio")
        )
        ax.errorbar(row["size"], row["ratio"], xerr=across, yerr=up, fmt=markers[row["protocol"]],
                    color=colors[row["arm"]], ms=5, lw=1.2, label=f"_{row['arm']}, {row['protocol']}")  # fmt: skip
    for arm, color in colors.items():
        ax.plot([], [], "s", color=color, label=arm)
    for protocol, marker in markers.items():
        ax.plot([], [], marker, color=GRAY, mfc="none", label=protocol)
    ax.axhline(0, color=GRAY, lw=0.8, zorder=0)
    ax.axvline(0, color=GRAY, lw=0.8, zorder=0)
    ax.set(xlabel="exponent of $N$ in the breaking $\\beta$", ylabel="exponent of $\\eta/S$", ylim=(-1.85, 0.35))
    ax.set_xlim(-0.75, 1.35)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.2)
    return ax


def predicted_breaks(points: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Measured against predicted breaking β: ``predicted``, ``value``, ``low``, ``high``, a color for each condition.

    On the dashed diagonal they agree; the band is a factor of 2.
    """
    ax = ax or plt.figure(figsize=(6.4, 4.0)).add_subplot()
    most = [points["predicted"].min() / 1.6, points["predicted"].max() * 1.6]
    ax.plot(most, most, color=GRAY, ls="--", lw=1.2, label=GUIDE)
    ax.fill_between(most, [v / 2 for v in most], [v * 2 for v in most], color=GRAY, alpha=0.15, lw=0, label=GUIDE)
    for (name, some), color in zip(points.groupby("condition", sort=False), COLORS, strict=False):
        ax.errorbar(some["predicted"], some["value"], yerr=bars(some), fmt="o", ms=5, lw=1.2, color=color, label=name)
    ax.set(xscale="log", yscale="log", xlabel="predicted breaking $\\beta$", ylabel="measured breaking $\\beta$")
    ax.set_ylim(points["low"].min() / 1.8, points["high"].max() * 1.8)
    _few_numbers(ax.xaxis)
    _few_numbers(ax.yaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.2)
    return ax
