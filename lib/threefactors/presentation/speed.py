"""Figures of speed: who needs how long for a step, and how time grows with the number of networks."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from threefactors.presentation.artists import GUIDE
from threefactors.presentation.axes import plain_numbers
from threefactors.presentation.figures import COLORS, GRAY


def contenders(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Time by ``variant``, the fastest row of each kind: a dot on a logarithmic axis; library in color.

    table: ``variant`` and ``microseconds_per_model_step``. A kind is what stands before the comma of a variant's name.
    """
    ax = ax or plt.figure(figsize=(6.2, 3.2)).add_subplot()
    kinds = table["variant"].str.strip().str.replace(r",? \d+ (thread|of them).*", "", regex=True)
    kinds = kinds.str.replace(r"^\(\w\) ", "", regex=True)
    best = table.groupby(kinds, sort=False)["microseconds_per_model_step"].min().sort_values(ascending=False)
    for i, (kind, us) in enumerate(best.items()):
        ours, bound = "library" in str(kind), str(kind).startswith(("floor", "ceiling"))
        color = COLORS[0] if ours else GRAY if bound else COLORS[1]
        ax.plot([best.min() / 2, us], [i, i], color=color, lw=0.8, alpha=0.5, label=GUIDE)
        label = "_library" if ours else "_bound" if bound else "_others"
        ax.plot(us, i, "D" if bound else "o", color=color, mfc="none" if bound else color, ms=6, label=label)
        ax.annotate(f"{us:.3g}", (us, i), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(best)), [str(kind) for kind in best.index])
    ax.set(xscale="log", xlabel="µs for a step of one network", xlim=(best.min() / 2, best.max() * 2.2))
    plain_numbers(ax.xaxis, (1.0,))
    ax.grid(axis="y", visible=False)
    return ax


def scaling(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Time for a step of one network against how many are trained at once; dashed: the loop over one network.

    table: ``variant`` ("library, 8 networks", "sliced loop, …", "floor: …"), ``microseconds_per_model_step``.
    """
    ax = ax or plt.figure().add_subplot()
    counts = table["variant"].str.extract(r"^library, (\d+) network")[0]
    ours = table[counts.notna()].assign(count=counts.dropna().astype(int))
    ax.plot(ours["count"], ours["microseconds_per_model_step"], "o-", color=COLORS[0], label="library")
    for start, color, style, label in (
        ("sliced loop", COLORS[1], "--", "one after another"), ("floor", GRAY, ":", "products alone"),
    ):  # fmt: skip
        for us in table.loc[table["variant"].str.match(re.escape(start)), "microseconds_per_model_step"]:
            ax.axhline(us, color=color, ls=style, lw=1.3, label=label)
    ax.set(xscale="log", yscale="log", xlabel="networks at once", ylabel="µs for a step of one network")
    for axis in (ax.xaxis, ax.yaxis):
        plain_numbers(axis, (1.0, 2.0, 5.0))
    ax.legend()
    return ax
