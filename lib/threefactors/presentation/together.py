"""Slopes and shares of variance of one regression over many runs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.figures import GRAY, shades

SYMBOLS = {"sharpness": "$\\lambda_{\\max}$", "trace": "$\\mathrm{Tr}\\,H$", "frobenius": "$\\Vert H\\Vert_F$"}


def coefficients(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Slopes ``value``, ``low``, ``high``: a row for each ``factor``, a color for each ``width``."""
    ax = ax or plt.figure(figsize=(5.6, 3.4)).add_subplot()
    _dots(ax, table, "factor")
    ax.axvline(0, color=GRAY, lw=0.8)
    ax.set(xlabel="slope of ln width")
    return ax


def r2_of_models(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Held-out R² ``value``, ``low``, ``high`` by model (the index), a color for each ``width``."""
    ax = ax or plt.figure(figsize=(5.6, 3.4)).add_subplot()
    floor = -0.5  # how bad a bad model is does not matter
    table = table.rename_axis("model").reset_index()
    table[["value", "low", "high"]] = table[["value", "low", "high"]].clip(lower=floor)
    _dots(ax, table, "model")
    ax.axvline(0, color=GRAY, lw=0.8)
    ax.set(xlabel="share of variance, groups left out", xlim=(floor, 1))
    return ax


def _dots(ax: Axes, table: pd.DataFrame, by: str) -> None:
    names, widths = list(dict.fromkeys(table[by])), list(dict.fromkeys(table["width"]))
    offsets = np.linspace(-0.2, 0.2, len(widths)) if len(widths) > 1 else np.zeros(1)
    for width, color, offset in zip(widths, shades(len(widths)), offsets, strict=True):
        rows = table[table["width"] == width].set_index(by).reindex(names)
        y = np.arange(len(names)) + offset
        bars = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        label = SYMBOLS.get(width, width)
        ax.errorbar(rows["value"], y, xerr=bars, fmt="o", ms=4, lw=1.4, color=color, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(handlelength=1.3)
