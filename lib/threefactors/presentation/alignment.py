"""Figures of two matrices along training: their traces and angles, and one in the eigenvectors of the other."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from threefactors.presentation.axes import bars
from threefactors.presentation.figures import COLORS, GRAY, shades

_MARKERS = "os^Dv"


def along_training(
    curves: pd.DataFrame,
    *,
    ylabel: str,
    law: pd.DataFrame | None = None,
    band: tuple[float, float] | None = None,
    level: float | None = None,
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """``value``, ``low``, ``high`` at each ``stage`` of the clock, the start included; a color for each ``label``.

    law: a prediction ``y`` at ``stage``, dashed; band: a margin around what is claimed; level: a dotted line at chance.
    """
    ax = ax or plt.figure(figsize=(5.6, 3.6)).add_subplot()
    if band is not None:
        ax.axhspan(*band, color=COLORS[2], alpha=0.18, lw=0, label="margin")
    if level is not None:
        ax.axhline(level, color=GRAY, ls=":", lw=1.2, label="chance")
    for (label, curve), color, marker in zip(curves.groupby("label", sort=False), COLORS, _MARKERS, strict=False):
        ax.errorbar(
            curve["stage"], curve["value"], yerr=bars(curve), fmt=marker + "-", ms=4, lw=1.2, color=color, label=label
        )
    if law is not None:
        ax.plot(law["stage"], law["y"], color=GRAY, ls="--", lw=1.4, zorder=5, label="predicted from the outputs")
    _clock_axis(ax, np.unique(curves["stage"]))
    ax.set(ylabel=ylabel, yscale="log" if log else "linear")
    ax.legend(handlelength=1.4)
    return ax


def in_eigenbasis(quotients: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """``quotient`` vᵀCv against ``eigenvalue`` λ of H, for its leading eigenvectors v; a color for each ``label``.

    On the dashed diagonal C acts on v as H does; above it the noise is larger than the curvature, below it smaller.
    """
    ax = ax or plt.figure(figsize=(4.4, 4.0)).add_subplot()
    groups = quotients.groupby("label", sort=False)
    for (label, some), color, marker in zip(groups, shades(groups.ngroups), _MARKERS, strict=False):
        ax.plot(some["eigenvalue"], some["quotient"], marker, ms=3.5, alpha=0.75, mew=0, color=color, label=label)
    ends = np.array([quotients["eigenvalue"].min() / 2, quotients["eigenvalue"].max() * 2])
    ax.plot(ends, ends, color=GRAY, ls="--", lw=1.2, label="$C = H$")
    ax.set(xscale="log", yscale="log", xlabel="eigenvalue $\\lambda$ of $H$", ylabel="$v^{\\top} C\\,v$")
    ax.legend(handlelength=1.0)
    return ax


def _clock_axis(ax: Axes, stages: np.ndarray) -> None:
    """Logarithmic in the clock, with the start, which no logarithm has, one step to the left."""
    first = stages[stages > 0].min()
    ax.set_xscale("symlog", linthresh=first, linscale=0.4)
    decades = 10.0 ** np.arange(np.ceil(np.log10(first)), np.floor(np.log10(stages.max())) + 1)
    ax.xaxis.set_major_locator(FixedLocator([0.0, *decades]))
    ax.xaxis.set_major_formatter(FixedFormatter(["start", *(f"{decade:g}" for decade in decades)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="clock  $T$", xlim=(-0.25 * first, stages.max() * 1.7))
