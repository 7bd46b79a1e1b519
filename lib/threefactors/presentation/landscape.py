"""Figures of the landscape cut open: along a line between two networks, in a plane; and the contrast of two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from threefactors.presentation.axes import bars
from threefactors.presentation.figures import COLORS, GRAY

ROWS = {"train_loss": "training loss", "validation_accuracy": "validation accuracy (%)"}
MARKERS = "osD^v"


def cut(curves: pd.DataFrame, *, quantity: str = "train_loss", ax: Axes | None = None) -> Axes:
    """``value`` with its band ``low``, ``high`` against ``alpha``; a color for each ``label``, "no noise" dashed.

    The two ends are marked; accuracies come as fractions.
    """
    ax = ax or plt.figure(figsize=(5.2, 3.4)).add_subplot()
    percent = 100 if quantity.endswith("accuracy") else 1
    colors = iter(COLORS)
    for label, curve in curves.groupby("label", sort=False):
        alone = label == "no noise"
        color = GRAY if alone else next(colors)
        ax.plot(curve["alpha"], percent * curve["value"], color=color, ls="--" if alone else "-", label=label)
        low, high = percent * curve["low"], percent * curve["high"]
        ax.fill_between(curve["alpha"], low, high, color=color, alpha=0.18, lw=0)
    for end in (0, 1):
        ax.axvline(end, color=GRAY, lw=0.9, ls=":")
    ax.set(xlabel="$\\alpha$", ylabel=ROWS.get(quantity, quantity))
    ax.set_xticks([-1, 0, 1, 2])
    return ax


def cuts(panels: Mapping[str, Mapping[str, pd.DataFrame]], *, note: str = "", width: float = 2.75) -> Figure:
    """A column for each panel, a row for each quantity: ``cut`` of panels[name][quantity], each on its own scale.

    note: a remark beside the legend, such as how many runs were lost.
    """
    rows = list(next(iter(panels.values())))
    figure, axes = plt.subplots(
        len(rows), len(panels), figsize=(width * len(panels), 2.35 * len(rows) + 0.5), sharex=True, squeeze=False
    )
    for j, (name, panel) in enumerate(panels.items()):
        for i, quantity in enumerate(rows):
            cut(panel[quantity], quantity=quantity, ax=axes[i, j])
            axes[i, j].set_xlabel("$\\alpha$" if i == len(rows) - 1 else "")
            axes[i, j].set_ylabel(ROWS.get(quantity, quantity) if j == 0 else "")
        axes[0, j].set_title(name)
    handles: dict[str, Line2D] = {}
    for ax in axes[0]:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    names, marks = [*handles, *([note] if note else [])], [*handles.values(), Line2D([], [], lw=0)]
    figure.legend(marks[: len(names)], names, loc="outside lower center", ncols=len(names), handlelength=1.6)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def contrasts(
    points: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    margin: float | None = None,
    limits: tuple[float, float] = (-1.05, 1.05),
    ax: Axes | None = None,
) -> Axes:
    """Contrast ``value`` with ``low``, ``high`` for each ``row``; color and marker for each ``label``.

    "no noise" is gray. order: the rows, from above; margin: a band about 0; limits: of the axis.
    """
    ax = ax or plt.figure(figsize=(5.6, 3.4)).add_subplot()
    rows = list(order or dict.fromkeys(points["row"]))
    labels = list(dict.fromkeys(points["label"]))
    if margin is not None:
        ax.axvspan(-margin, margin, color=COLORS[2], alpha=0.18, lw=0, label="margin")
    colors = dict(zip([label for label in labels if label != "no noise"], COLORS, strict=False))
    for k, label in enumerate(labels):
        some = points[points["label"] == label]
        shift = 0.5 * ((k + 0.5) / len(labels) - 0.5)
        y = np.array([rows.index(row) for row in some["row"]]) + shift
        ax.errorbar(
            some["value"], y, xerr=bars(some), fmt=MARKERS[k % len(MARKERS)], ms=4.5, lw=1.3,
            color=colors.get(label, GRAY), label=label,
        )  # fmt: skip
    ax.axvline(0, color=GRAY, lw=0.9)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), xlabel="contrast of the ends  $q$")
    ax.grid(axis="y", visible=False)
    ax.legend(handlelength=1.2)
    return ax


def plane(grid: pd.DataFrame, corners: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Level lines of ``train_loss`` over ``a``, ``b``, a constant factor apart, and the ``corner`` networks by name."""
    ax = ax or plt.figure(figsize=(5.4, 4.2)).add_subplot()
    heights = grid.pivot(index="b", columns="a", values="train_loss")
    logs = np.log10(heights.to_numpy())
    levels = np.linspace(logs.min(), min(logs.max(), logs.min() + 3), 13)
    image = ax.contourf(heights.columns, heights.index, logs, levels=levels, cmap="viridis", extend="max", alpha=0.85)
    ax.contour(heights.columns, heights.index, logs, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
    for row, marker in zip(corners.to_dict("records"), MARKERS, strict=False):
        ax.plot(row["a"], row["b"], marker, ms=8, color="white", mec="black", label=row["corner"])
    ax.set(xlabel="distance in parameter space", ylabel="distance across")
    ax.set_aspect("equal")
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="log$_{10}$ training loss", shrink=0.85, format="%.1f")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handletextpad=0.3, columnspacing=1.2)
    return ax
