"""Figures of cyclic schedules: their course, where runs stop in it, and their minima beside those of constant ones."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.axes import plain_numbers
from threefactors.presentation.figures import COLORS, GRAY, LABELS

SCHEDULES = ("square η", "square S", "triangle η", "triangle S")
_STYLE = dict(zip(SCHEDULES, zip(COLORS, "osD^", strict=False), strict=False))
_AGAINST = {"low": COLORS[3], "mean": COLORS[0], "matched": COLORS[2], "high": COLORS[1]}


def courses(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Noise scale ``noise`` over one period at ``share``, a line for each ``profile``; dashed: its ``average``."""
    ax = ax or plt.figure().add_subplot()
    for (profile, line), color in zip(table.groupby("profile", sort=False), (COLORS[0], COLORS[1]), strict=False):
        ax.plot(line["share"], line["noise"], color=color, label=str(profile))
        ax.axhline(line["average"].iloc[0], color=color, ls="--", lw=1.2, label=f"_{profile}, average")
    ax.set(xlabel="share of a period", ylabel="noise scale, relative to the highest", ylim=(0, 1.08), xlim=(0, 1))
    ax.legend()
    return ax


def stops(table: pd.DataFrame, courses: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Where in its period each run stopped: ``phase`` in (0, 1], a row of dots for each ``schedule``.

    courses: as for ``courses``; the shape behind a row is the noise scale of the profile that its name begins with.
    """
    ax = ax or plt.figure(figsize=(6.2, 3.1)).add_subplot()
    names = list(dict.fromkeys(table["schedule"]))
    for i, name in enumerate(names):
        line = courses[courses["profile"] == name.split()[0]]
        shape = i + 0.4 - 0.8 * line["noise"]
        ax.fill_between(line["share"], i + 0.4, shape, color=GRAY, alpha=0.18, lw=0, label=GUIDE)
        x = np.sort(table.loc[table["schedule"] == name, "phase"].to_numpy(float))
        color, marker = _STYLE.get(name, (GRAY, "o"))
        # dots of a row are spread a little, in turn, so that none hides another
        y = i + 0.1 + 0.09 * (np.arange(len(x)) % 3 - 1)
        ax.plot(x, y, marker, color=color, ms=4.5, alpha=0.85, ls="", label=f"_{name}")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="share of the period at the stop", xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


def ratios(table: pd.DataFrame, *, measure: str = "sharpness", ax: Axes | None = None) -> Axes:
    """Width under a cycle over that under a constant schedule: ``log_ratios``, drawn as factors.

    A row for each cycle, a color for each constant it is held ``against``; left of 1 the cycle is wider.
    """
    ax = ax or plt.figure().add_subplot()
    names = [name for name in SCHEDULES if name in set(table["schedule"])]
    groups = list(dict.fromkeys(table["against"]))
    for k, against in enumerate(groups):
        some = table[table["against"] == against].set_index("schedule")
        y = [names.index(name) + 0.16 * (k - (len(groups) - 1) / 2) for name in some.index]
        value, low, high = (np.exp(some[column].to_numpy(float)) for column in ("value", "low", "high"))
        ax.errorbar(
            value, y, xerr=[value - low, high - value], fmt="o", ms=4.5, lw=1.3, color=_AGAINST.get(against, GRAY),
            label=against,
        )  # fmt: skip
    ax.axvline(1, color=GRAY, lw=0.9)
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", xlabel=f"{LABELS.get(measure, measure)}, cycle / constant", ylim=(len(names) - 0.5, -0.5))
    plain_numbers(ax.xaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    ax.grid(axis="y", visible=False)
    lost = int(table["lost"].sum())
    ax.text(0.99, 0.99, f"{lost} runs lost", transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    ax.legend(title="constant")
    return ax


def on_the_curve(
    constants: pd.DataFrame,
    *,
    cycles: pd.DataFrame,
    control: float | None = None,
    measure: str = "sharpness",
    ax: Axes | None = None,
) -> Axes:
    """A width against the noise scale: constant schedules as a curve, each cycle at its two averages.

    constants: ``noise``, ``value``, ``low``, ``high``; cycles: the same with ``schedule`` and ``on_clock``: a hollow
    marker at the mean over epochs, ``noise``, joined to a full one at the mean over the clock. control: no noise.
    """
    ax = ax or plt.figure().add_subplot()
    for name, curve in constants.groupby("turned", sort=False):
        curve = curve.sort_values("noise")
        bars = [curve["value"] - curve["low"], curve["high"] - curve["value"]]
        style = "-" if name == "η" else ":"
        ax.errorbar(
            curve["noise"], curve["value"], yerr=bars, fmt="." + style, color=GRAY, lw=1.1, ms=5,
            label=f"constant, by {name}",
        )  # fmt: skip
    for row in cycles.to_dict("records"):
        color, marker = _STYLE[row["schedule"]]
        ax.plot([row["noise"], row["on_clock"]], [row["value"]] * 2, color=color, lw=0.9, label=GUIDE)
        label = f"_{row['schedule']}, at its mean over epochs"
        ax.plot(row["noise"], row["value"], marker, color=color, mfc="none", ms=5, label=label)
        bar = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        ax.errorbar(
            row["on_clock"], row["value"], yerr=bar, fmt=marker, color=color, ms=5, lw=1.2, label=row["schedule"]
        )
    if control is not None:
        ax.axhline(control, color=GRAY, ls="--", lw=1.3, label="no noise")
    ax.set(xscale="log", yscale="log", xlabel="$\\eta/S$, relative to the highest", ylabel=LABELS.get(measure, measure))
    for axis in (ax.xaxis, ax.yaxis):
        plain_numbers(axis)
    ax.legend()
    return ax
