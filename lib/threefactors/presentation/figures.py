"""Figures: each takes a table and draws it. No statistics are computed here, and no line is fitted.

``figure(data, *, ax=None) -> Axes``; importing this module sets the book's style. Tables with ``value``, ``low`` and
``high`` come from ``threefactors.inference.summarize``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, NullFormatter

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.axes import plain_numbers
from threefactors.presentation.drawn import in_notebooks

plt.style.use(str(files("threefactors.presentation") / "threefactors.mplstyle"))

try:  # in a notebook figures are drawn as vectors; nowhere else does it matter
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")
    in_notebooks()  # and bring their data along
except (ImportError, AttributeError):  # no IPython, or not at work
    pass

GRAY = "#7d7d7d"
# Distinguishable without color vision, and of middling lightness so that they show on white and on black.
COLORS = ("#3b8bd0", "#d9822b", "#2a9d6f", "#c05a9d", "#8f7f2a")
_ORDERED = LinearSegmentedColormap.from_list("ordered", ["#4a78e8", "#9a63d6", "#d65c9a", "#e07748", "#c9961f"])
LABELS = {
    "sharpness": "$\\lambda_{\\max}$",
    "trace": "Tr $H$",
    "frobenius": "$\\|H\\|_F$",
    "normalized_sharpness": "$\\|w\\|^2\\lambda_{\\max}$",
    "adaptive_sharpness": "$\\lambda_{\\max}(|\\theta| H |\\theta|)$",
    "validation_accuracy": "validation accuracy (%)",
    "train_loss": "training loss",
}
RATIO = "noise scale  $\\eta/S$"


def side_by_side(draw: Callable[..., Axes], tables: Mapping[str, Any], *, width: float = 2.75, **more: Any) -> Figure:
    """One panel for each table, with its name as title; the panels share their axes and one legend below them.

    Where a keyword's value is a mapping with the tables' names, each panel gets its own.
    """
    figure, axes = plt.subplots(
        1, len(tables), figsize=(width * len(tables), 3.5), sharex=True, sharey=True, squeeze=False
    )
    for i, (ax, (name, table)) in enumerate(zip(axes[0], tables.items(), strict=True)):
        own = {k: v[name] if isinstance(v, Mapping) and set(tables) <= set(v) else v for k, v in more.items()}
        draw(table, ax=ax, **own)
        ax.set_title(name)
        if i:
            ax.set_ylabel("")
        if legend := ax.get_legend():
            legend.remove()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), handlelength=1.4)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def alone(ax: Axes) -> Figure:
    """The figure of a single panel, to be shown once, as the value of its cell."""
    assert isinstance(ax.figure, Figure)
    plt.close(ax.figure)
    return ax.figure


def against_ratio(
    summary: pd.DataFrame, measure: str, *, control: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """A measure against η/S: each point a cell of the grid with its interval over seeds, its color the batch size.

    control: ``ratio``, ``value``, ``low``, ``high`` of noise-free descent at the same clock, drawn as a band.
    """
    ax = ax or plt.figure().add_subplot()
    percent = 100 if measure.endswith("accuracy") else 1
    sizes = sorted(summary["batch_size"].unique())
    if control is not None:
        band = control.sort_values("ratio")
        ax.fill_between(band["ratio"], percent * band["low"], percent * band["high"], color=GRAY, alpha=0.25, lw=0)
        ax.plot(band["ratio"], percent * band["value"], color=GRAY, ls="--", lw=1.4, label="no noise")
    for size, color in zip(sizes, shades(len(sizes)), strict=True):
        cell = summary[summary["batch_size"] == size].sort_values("ratio")
        _points(ax, cell["ratio"], cell, color, percent, label=f"$S={size}$")
    ax.set_xscale("log")
    if summary["ratio"].max() < 30 * summary["ratio"].min():  # else the labels run into each other
        plain_numbers(ax.xaxis)
    if percent == 1:
        ax.set_yscale("log")
        _plain_decades(ax)
    ax.set(xlabel=RATIO, ylabel=LABELS.get(measure, measure))
    ax.legend(title=None, loc="best", handlelength=1.2, labelspacing=0.25)
    return _tell_losses(ax, summary)


def over_grid(summary: pd.DataFrame, measure: str, *, limits: tuple[float, float], ax: Axes | None = None) -> Axes:
    """Map of log₁₀ measure over the η × S grid; thin diagonals join cells of equal η/S."""
    ax = ax or plt.figure().add_subplot()
    grid = summary.pivot(index="batch_size", columns="lr", values="value")
    low, high = limits
    image = ax.imshow(np.log10(grid), origin="lower", vmin=np.log10(low), vmax=np.log10(high), aspect="equal")
    rows, columns = grid.shape
    for start in range(-rows, columns):
        ends = [start - 0.5, start + rows - 0.5], [-0.5, rows - 0.5]
        ax.plot(*ends, color="white", lw=0.6, alpha=0.45, label=GUIDE)
    for (i, j), value in np.ndenumerate(grid.to_numpy()):
        dark = np.log10(value) < (np.log10(low) + np.log10(high)) / 2
        ax.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    ax.set_xticks(range(columns), [f"{lr:g}" for lr in grid.columns])
    ax.set_yticks(range(rows), [f"{size:g}" for size in grid.index])
    ax.set(
        xlabel="learning rate  $\\eta$", ylabel="batch size  $S$", xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5)
    )
    ax.grid(False)
    place = ax.get_subplotspec()
    if place is None or place.is_last_col():  # one scale serves a row of panels
        ax.figure.colorbar(image, ax=ax, label=f"log$_{{10}}$ {LABELS.get(measure, measure)}", shrink=0.8)
    return ax


def exponent_plane(exponents: pd.DataFrame, *, margin: float, ax: Axes | None = None) -> Axes:
    """Exponents a of η and −b of S, measure ∝ η^a S^b: on the diagonal only η/S matters, on an axis only one does.

    A color for each measure, a marker for each protocol. The wedge holds the points with |a + b| ≤ margin · |a − b|,
    the rule of the collapse claim.
    """
    ax = ax or plt.figure(figsize=(7.2, 4.8)).add_subplot()
    least = min(exponents["lr_low"].min(), -exponents["batch_size_high"].max(), -0.1) * 1.08
    most = max(exponents["lr_high"].max(), -exponents["batch_size_low"].min(), 0.05) * 1.3
    line = np.array([least, 0.0])
    slope = (1 - margin) / (1 + margin)
    ax.fill_between(
        line, line * slope, line / slope, color=COLORS[2], alpha=0.16, lw=0, label="ratio, within the margin"
    )
    ax.plot([least, most], [least, most], color=COLORS[2], lw=1, ls="--", label="ratio only")
    ax.axhline(0, color=GRAY, lw=0.8)
    ax.axvline(0, color=GRAY, lw=0.8)
    colors = dict(zip(exponents["measure"].unique(), COLORS, strict=False))
    markers = dict(zip(exponents["protocol"].unique(), "osD^v", strict=False))
    for row in exponents.to_dict("records"):
        x, y = row["lr"], -row["batch_size"]
        across = [[x - row["lr_low"]], [row["lr_high"] - x]]
        up = [[y + row["batch_size_high"]], [-row["batch_size_low"] - y]]
        ax.errorbar(
            [x], [y], xerr=across, yerr=up, fmt=markers[row["protocol"]], color=colors[row["measure"]], ms=5,
            label=f"_{LABELS.get(row['measure'], row['measure'])}, {row['protocol']}",
        )  # fmt: skip
    for measure, color in colors.items():
        ax.plot([], [], "s", color=color, label=LABELS.get(measure, measure))
    for protocol, marker in markers.items():
        ax.plot([], [], marker, color=GRAY, mfc="none", label=protocol)
    ax.set(xlabel="exponent of $\\eta$", ylabel="minus the exponent of $S$", xlim=(least, most), ylim=(least, most))
    ax.set_aspect("equal")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.2)
    return ax


def spectra(densities: pd.DataFrame, *, only: str | None = None, ax: Axes | None = None) -> Axes:
    """Spectral density: ``group``, ``eigenvalue``, ``value``, ``low``, ``high`` along ln λ; a curve for each group.

    only: the group to be seen, behind which all others stay as thin gray lines.
    """
    ax = ax or plt.figure().add_subplot()
    groups = densities["group"].unique()
    for group, color in zip(groups, shades(len(groups)), strict=True):
        curve = densities[densities["group"] == group]
        if only not in (None, group):
            ax.plot(curve["eigenvalue"], curve["value"], color=GRAY, lw=0.9, alpha=0.8, zorder=1, label=GUIDE)
            continue
        ax.plot(curve["eigenvalue"], curve["value"], color=color, label=group)
        ax.fill_between(
            curve["eigenvalue"], curve["low"].clip(lower=1e-12), curve["high"], color=color, alpha=0.2, lw=0
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="eigenvalue  $\\lambda$",
        ylabel="share of eigenvalues per unit of ln $\\lambda$",
    )
    ax.set_ylim(bottom=densities["value"].max() * 1e-4)
    ax.legend()
    return ax


def laws(curves: pd.DataFrame, *, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Predicted curves ``x``, ``y`` by ``label``, on logarithmic axes."""
    ax = ax or plt.figure(figsize=(5.2, 3.4)).add_subplot()
    for (label, curve), color in zip(curves.groupby("label", sort=False), COLORS, strict=False):
        ax.plot(curve["x"], curve["y"], color=color, label=label)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def held_out(comparison: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Held-out R² of each model, from the table of ``held_out_comparison``; above 0 a model knows something."""
    ax = ax or plt.figure().add_subplot()
    rows = comparison.iloc[::-1]
    floor = -0.25  # how bad a bad model is does not matter
    value, low, high = (rows[name].clip(lower=floor, upper=1) for name in ("r2", "low", "high"))
    ax.barh(range(len(rows)), value, color=COLORS[0], alpha=0.55, height=0.6, label="_held out")
    ax.hlines(range(len(rows)), low, high, color=GRAY, lw=1.6, label="_held out")
    ax.set_yticks(
        range(len(rows)), [f"{name} (= {twin})" if twin else f"{name}" for name, twin in rows["same_as"].items()]
    )
    ax.axvline(0, color=GRAY, lw=0.8)
    ax.set(xlabel="held-out $R^2$", xlim=(floor, 1))
    ax.grid(axis="y", visible=False)
    return ax


def timings(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Time per model and step against the number of models: ``variant``, ``models``, ``microseconds``."""
    ax = ax or plt.figure().add_subplot()
    for (variant, rows), color in zip(table.groupby("variant", sort=False), COLORS, strict=False):
        ax.plot(rows["models"], rows["microseconds"], "o-", color=color, label=variant)
    ax.set(xscale="log", yscale="log", xlabel="networks trained at once", ylabel="microseconds per network and step")
    ax.set_xticks(sorted(table["models"].unique()), [str(n) for n in sorted(table["models"].unique())])
    ax.xaxis.set_minor_formatter(NullFormatter())
    _plain_decades(ax)
    ax.legend()
    return ax


def _points(ax: Axes, x: pd.Series, cell: pd.DataFrame, color: Any, percent: float, label: str) -> None:
    y, low, high = (percent * cell[name] for name in ("value", "low", "high"))
    bars = [(y - low).fillna(0).clip(lower=0), (high - y).fillna(0).clip(lower=0)]
    ax.errorbar(x, y, yerr=bars, fmt="o", ms=4.5, color=color, lw=1.2, label=label)


def _tell_losses(ax: Axes, summary: pd.DataFrame) -> Axes:
    """No run is dropped in silence: the panel says how many are not in its points."""
    lost, total = int(summary["lost"].sum()), int((summary["lost"] + summary["n"]).sum())
    ax.text(0.99, 0.99, f"{lost} of {total} runs lost", transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    return ax


def shades(n: int) -> Sequence[Any]:
    """n colors in order, all of middling lightness: the ends of the usual maps vanish on white or on black."""
    return [_ORDERED(x) for x in np.linspace(0, 1, n)]


def _plain_decades(ax: Axes) -> None:
    """Label more than decades where an axis spans few of them."""
    low, high = ax.get_ylim()
    if high / low < 30:
        ax.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 1)))
        ax.tick_params(axis="y", which="minor", labelsize=8)
