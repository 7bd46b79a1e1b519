"""Figures of two minima: where the density lies, which is the likelier, and how probability goes round."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.comparison import points_on_law
from threefactors.presentation.figures import COLORS, GRAY, shades


def densities(curves: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Stationary densities ``density`` at ``x``, one for each ``label``, over the ``loss`` (gray, its own scale)."""
    ax = ax or plt.figure(figsize=(5.2, 3.4)).add_subplot()
    labels = list(dict.fromkeys(curves["label"]))
    first = curves[curves["label"] == labels[0]]
    top = curves["density"].max()
    ground = first["loss"] - first["loss"].min()
    ground *= 0.9 * top / ground.max()
    ax.fill_between(first["x"], ground, color=GRAY, alpha=0.15, lw=0, label=GUIDE)
    ax.plot(first["x"], ground, color=GRAY, ls="--", lw=1.4, label="loss $V$")
    for label, color in zip(labels, shades(len(labels)), strict=True):
        curve = curves[curves["label"] == label]
        ax.plot(curve["x"], curve["density"], color=color, label=label)
    ax.set(xlabel="$x$", ylabel="probability density", ylim=(0, 1.05 * top))
    ax.legend(handlelength=1.3)
    return ax


def odds(
    points: pd.DataFrame,
    law: pd.DataFrame,
    *,
    x: str = "inverse_noise",
    by: str | None = None,
    flips: Sequence[float] = (),
    ax: Axes | None = None,
) -> Axes:
    """Log-odds of the narrow minimum against 1/(nσ²), as ``points_on_law``; a vertical line at each of ``flips``."""
    ax = points_on_law(
        points,
        law,
        x=x,
        by=by,
        xlabel="$1/(n\\sigma^2)$",
        ylabel="$\\ln(p_A/p_B)$, narrow over wide",
        scales=("linear", "linear"),
        ax=ax,
    )
    ax.axhline(0, color=GRAY, lw=0.8)
    for flip in flips:
        ax.axvline(flip, color=COLORS[2], lw=1.1, ls=":", label="_predicted flip")
    return ax


def escapes(points: pd.DataFrame, law: pd.DataFrame, *, by: str, ax: Axes | None = None) -> Axes:
    """Mean escape time against 1/(nσ²), as ``points_on_law``: a straight line is Arrhenius' law."""
    return points_on_law(
        points,
        law,
        x="inverse_noise",
        by=by,
        xlabel="$1/(n\\sigma^2)$",
        ylabel="mean escape time (steps)",
        scales=("linear", "log"),
        ax=ax,
    )


def current(field: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Stationary density in two dimensions and its current, on a grid ``x``, ``y``: ``density``, ``u``, ``v``.

    Lines of equal density, and arrows whose length is the current, the longest about two spaces of the drawn grid.
    """
    ax = ax or plt.figure(figsize=(4.0, 5.0)).add_subplot()
    grid = {name: field.pivot(index="y", columns="x", values=name) for name in ("density", "u", "v")}
    X, Y = grid["density"].columns.to_numpy(), grid["density"].index.to_numpy()
    ax.contour(X, Y, grid["density"], levels=5, colors=GRAY, linewidths=0.9)
    coarse = slice(1, None, 3)
    u, v = (grid[name].to_numpy()[coarse, coarse] for name in ("u", "v"))
    longest = 2 * 3 * max(X[1] - X[0], Y[1] - Y[0])
    scale = np.hypot(u, v).max() / longest
    ax.quiver(X[coarse], Y[coarse], u, v, color=COLORS[0], angles="xy", scale_units="xy", scale=scale, width=0.008)
    ax.set(xlabel="$\\theta_1$", ylabel="$\\theta_2$")
    ax.set_aspect("equal")
    ax.grid(False)
    return ax
