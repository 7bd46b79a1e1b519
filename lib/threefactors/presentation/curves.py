"""Learning curves, how far apart those of a pair are, and what of it the clock explains."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from threefactors.presentation.figures import COLORS, GRAY, LABELS

XLABELS = {
    "epoch": "epochs",
    "at_clock": "clock  $T = \\Sigma\\,\\eta$",
    "train_loss": "training loss",
    "share": "share of the way",
}
MEASURES = {**LABELS, "train_accuracy": "training accuracy (%)"}
STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)))


def learning_curves(
    curves: pd.DataFrame, *, x: str, measure: str, logx: bool = False, lost: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Curves ``value``, ``low``, ``high`` at ``x`` by ``curve``; without ``noise``, dotted in the color of their curve.

    lost: how many runs of how many diverged, said in the panel.
    """
    ax = ax or plt.figure(figsize=(5.2, 3.6)).add_subplot()
    percent = 100 if measure.endswith("accuracy") else 1
    names = [name for name in dict.fromkeys(curves["curve"]) if name]
    colors = dict(zip(names, COLORS, strict=False)) | {"": GRAY}
    for (name, noise), curve in curves.groupby(["curve", "noise"], sort=False):
        y, low, high = (percent * curve[column] for column in ("value", "low", "high"))
        if noise:
            ax.fill_between(curve["x"], low, high, color=colors[name], alpha=0.2, lw=0)
            ax.plot(curve["x"], y, color=colors[name], ls=STYLES[names.index(name)], lw=1.6, label=name)
        else:
            label = f"_{name}, no noise" if name else "_no noise"
            ax.plot(curve["x"], y, color=colors[name] if name else GRAY, ls=":", lw=1.2 if name else 2, label=label)
    if not curves["noise"].all():
        ax.plot([], [], color=GRAY, ls=":", label="no noise")
    ax.set(xlabel=XLABELS[x], ylabel=MEASURES.get(measure, measure))
    if logx:
        ax.set_xscale("log")
    if percent == 1:
        ax.set_yscale("log")
    if lost:
        ax.text(0.01, 0.01, f"{lost[0]} of {lost[1]} runs diverged", transform=ax.transAxes, fontsize=7.5)
    ax.legend(handlelength=2.2)
    return ax


def at_losses(points: pd.DataFrame, *, measure: str, ax: Axes | None = None) -> Axes:
    """A measure where each ``curve`` has come down to the same training losses ``x``; training goes to the right."""
    ax = ax or plt.figure(figsize=(5.2, 3.6)).add_subplot()
    percent = 100 if measure.endswith("accuracy") else 1
    for (name, curve), color in zip(points.groupby("curve", sort=False), COLORS, strict=False):
        bars = [percent * (curve["value"] - curve["low"]), percent * (curve["high"] - curve["value"])]
        ax.errorbar(curve["x"], percent * curve["value"], yerr=bars, fmt="o-", ms=4, lw=1.2, color=color, label=name)
    ax.set(xscale="log", xlabel=XLABELS["train_loss"], ylabel=MEASURES.get(measure, measure))
    if percent == 1:
        ax.set_yscale("log")
        low, high = points["low"].min(), points["high"].max()
        ticks = [m * 10**k for k in range(-4, 6) for m in (1, 1.5, 2, 3, 5, 7) if low <= m * 10**k <= high]
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    levels = sorted(points["x"].unique())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(levels, [f"{level:g}" for level in levels], fontsize=8)
    if ax.get_xlim()[0] < ax.get_xlim()[1]:
        ax.invert_xaxis()
    ax.legend(handlelength=1.3)
    return ax


def gap_bands(gaps: pd.DataFrame, *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Differences ``value``, ``low``, ``high`` of each ``pair`` at ``share`` of the way, in half-widths of the band.

    The band is −1 to 1; beyond 1 the axis is logarithmic, so that what is far outside does not hide what is inside.
    """
    ax = ax or plt.figure(figsize=(5.2, 3.6)).add_subplot()
    ax.axhspan(-1, 1, color=COLORS[2], alpha=0.13, lw=0)
    ax.axhline(0, color=GRAY, lw=0.8)
    names = list(dict.fromkeys(gaps["pair"]))
    for i, (name, color) in enumerate(zip(names, COLORS, strict=False)):
        one = gaps[gaps["pair"] == name]
        bars = [one["value"] - one["low"], one["high"] - one["value"]]
        x = one["share"] + 0.012 * (i - (len(names) - 1) / 2)
        ax.errorbar(x, one["value"], yerr=bars, fmt="o-", ms=3, lw=1, color=color, label=name)
    ax.set_yscale("symlog", linthresh=1, linscale=1)
    ax.set_yticks([-10, -3, -1, 0, 1, 3, 10], ["−10", "−3", "−1", "0", "1", "3", "10"])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=XLABELS["share"], ylabel=ylabel, xlim=(0, 1.06))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.legend(handlelength=1.3)
    return ax


def distances(table: pd.DataFrame, *, band: float, ax: Axes | None = None) -> Axes:
    """Root-mean-square distances ``value``, ``low``, ``high`` by ``what`` (rows), ``arm`` (color); band dashed."""
    ax = ax or plt.figure(figsize=(7.2, 3.4)).add_subplot()
    rows, arms = list(dict.fromkeys(table["what"])), list(dict.fromkeys(table["arm"]))
    floor = 3e-3  # smaller distances are none
    for k, (arm, color) in enumerate(zip(arms, COLORS, strict=False)):
        one = table[table["arm"] == arm]
        at = [len(rows) - 1 - rows.index(what) + 0.2 * ((len(arms) - 1) / 2 - k) for what in one["what"]]
        value, low, high = (one[c].clip(lower=floor) for c in ("value", "low", "high"))
        ax.errorbar(value, at, xerr=[value - low, high - value], fmt="o", ms=4.5, lw=1.3, color=color, label=arm)
    ax.axvline(band, color=GRAY, ls="--", lw=1.1, label="half-width of the band")
    ax.set_yticks(range(len(rows)), rows[::-1])
    ax.set(xscale="log", xlabel="distance of two mean curves (log training loss, root mean square)")
    ax.set_xlim(left=floor)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.3)
    return ax
