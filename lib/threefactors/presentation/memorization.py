"""Figures of training on random labels: what is measured against the share of wrong labels that is memorized."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.axes import plain_numbers
from threefactors.presentation.figures import COLORS, GRAY, shades

MEMORIZED = "wrong labels memorized (%)"


def against_memorized(
    curves: pd.DataFrame,
    *,
    ylabel: str,
    control: pd.DataFrame | None = None,
    percent: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Lines ``value`` with bands ``low`` to ``high`` at each ``level`` of memorization, a color for each ``ratio``.

    control: the same of noise-free descent, dashed. percent: accuracies, drawn in percent; else on a logarithmic axis.
    """
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    unit = 100 if percent else 1
    if control is not None:
        _band(ax, control, GRAY, unit, ls="--", label="no noise")
    ratios = sorted(curves["ratio"].unique())
    for ratio, color in zip(ratios, shades(len(ratios)), strict=True):
        _band(ax, curves[curves["ratio"] == ratio], color, unit, label=f"$\\eta/S$ = {ratio:.1e}")
    ax.set(xlabel=MEMORIZED, ylabel=ylabel, yscale="linear" if percent else "log")
    if not percent:  # a decade or two, in plain numbers
        plain_numbers(ax.yaxis)
    ax.legend(handlelength=1.3)
    return ax


def gains(table: pd.DataFrame, *, at: float | None = None, ax: Axes | None = None) -> Axes:
    """Gain ``value`` (``low``, ``high``) in points per tenfold ratio at each share ``memorized``, by ``label``.

    Above the gray line a higher ratio is better on clean data. at: the level that is judged, dotted.
    """
    ax = ax or plt.figure(figsize=(6.4, 3.6)).add_subplot()
    ax.axhline(0, color=GRAY, lw=1)
    if at is not None:
        ax.axvline(100 * at, color=GRAY, lw=1, ls=":")
    groups = table.groupby("label", sort=False)
    for i, ((label, rows), color, marker) in enumerate(zip(groups, COLORS, "os^Dv", strict=False)):
        x = 100 * rows["memorized"] + 1.2 * (i - (groups.ngroups - 1) / 2)  # side by side, not on top of one another
        bars = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        ax.errorbar(x, rows["value"], yerr=bars, fmt=marker + "-", ms=4, lw=1.1, color=color, label=label)
    ax.set(xlabel=MEMORIZED, ylabel="points of clean accuracy\nper tenfold $\\eta/S$")
    ax.legend(handlelength=1.3, ncols=groups.ngroups, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return ax


def _band(ax: Axes, curve: pd.DataFrame, color: object, unit: float, *, label: str, ls: str = "-") -> None:
    curve = curve.sort_values("level")
    x = 100 * curve["level"]
    ax.fill_between(x, unit * curve["low"], unit * curve["high"], color=color, alpha=0.16, lw=0)
    ax.plot(x, unit * curve["value"], color=color, ls=ls, lw=1.5, label=label)
