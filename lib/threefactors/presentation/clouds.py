"""The stationary cloud of two parameters over the level lines of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.figures import COLORS, GRAY

Array = NDArray[np.float64]


class Cloud(NamedTuple):
    """What one panel shows: ``points`` (2, n), the predicted ``covariance`` (2, 2), the mean ``height`` and its law."""

    points: Array
    covariance: Array
    height: float
    law: float


def cloud(seen: Cloud, hessian: Array, *, reach: tuple[float, float], ax: Axes | None = None) -> Axes:
    """Points, level lines of ½θᵀHθ, the predicted ellipses of one and two standard deviations, the mean height.

    reach: half the width and half the height of the axes, so that frames of a row can share them.
    """
    ax = ax or plt.figure(figsize=(3.6, 3.6)).add_subplot()
    x, y = (np.linspace(-r, r, 121) for r in reach)
    loss = 0.5 * np.einsum("iyx,ij,jyx->yx", grid := np.array(np.meshgrid(x, y)), hessian, grid)
    levels = loss.max() * np.linspace(0.06, 1, 9) ** 2
    ax.contour(x, y, loss, levels=levels, colors=GRAY, linewidths=0.6, alpha=0.55).set_label(GUIDE)
    ax.plot(*seen.points, ".", ms=2.6, color=COLORS[0], alpha=0.75, mew=0, label="_simulated")
    values, vectors = np.linalg.eigh(seen.covariance)
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = np.array([np.cos(angle), np.sin(angle)])
    for sigmas in (1, 2):
        label = "predicted $\\Sigma$: 1 and 2 standard deviations" if sigmas == 1 else "_predicted $\\Sigma$: 2"
        ax.plot(*(sigmas * vectors @ (np.sqrt(values)[:, None] * circle)), color=COLORS[1], lw=1.8, label=label)
    values, vectors = np.linalg.eigh(hessian)
    level = vectors @ (np.sqrt(2 * seen.law / values)[:, None] * circle)  # ½θᵀHθ = the law's height
    ax.plot(*level, color=COLORS[3], lw=1.4, ls="--", label="where $L = \\mathrm{E}[L]$")
    ax.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), xlabel="$\\theta_1$  (flat)")
    ax.set_aspect("equal")
    ax.grid(False)
    return ax


def clouds(panels: Mapping[str, Cloud], hessian: Array, *, reach: tuple[float, float]) -> Figure:
    """One panel for each cloud, with its name, the mean height measured and the law's."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.5 * len(panels), 3.2), sharey=True, squeeze=False)
    for ax, (name, seen) in zip(axes[0], panels.items(), strict=True):
        cloud(seen, hessian, reach=reach, ax=ax)
        ax.set_title(f"{name}\nmean height {seen.height:.2e}, law {seen.law:.2e}", fontsize=9.5)
    axes[0, 0].set_ylabel("$\\theta_2$  (steep)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=1.6)
    plt.close(figure)
    return figure
