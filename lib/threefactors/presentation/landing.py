"""The one figure of the front page: what a larger η/S does to the width of minima, as each protocol sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from threefactors.presentation.figures import COLORS, GRAY

# The slope if only the time along the gradient counted: at equal epochs that time is the ratio itself, and the
# curvature of one logistic margin falls like 1/T; under the other protocols the time is the same for every ratio.
CLOCK_ALONE = {"equal epochs": -1.0, "equal clock": 0.0, "equal loss": 0.0}
TITLES = {"equal epochs": "equal epochs (the paper's protocol)"}
STYLES: Mapping[str, Mapping[str, Any]] = {  # a mark of its own for each verdict: color is never alone
    "SUPPORTED": {"fmt": "o", "color": COLORS[2]},
    "REFUTED": {"fmt": "X", "color": COLORS[1]},
    "UNDECIDED": {"fmt": "D", "color": GRAY, "mfc": "none"},
    "VOID": {"fmt": "x", "color": GRAY},
}


def slopes(entries: Iterable[Mapping[str, Any]], claim: str = "C3a", measure: str = "sharpness") -> pd.DataFrame:
    """Of the ledger's ``entries`` those on ``claim``: ``protocol``, ``arm``, ``verdict``, ``value``, ``low``, ``high``.

    The estimate is that of ``measure`` (a verdict names the weakest of several), or the verdict's own where it keeps
    no details. Raises ValueError when there is none under a protocol that the figure shows.
    """
    rows = []
    for entry in entries:
        if entry["id"] == claim and entry["protocol"] in CLOCK_ALONE:
            own = (entry.get("details") or {}).get(measure) or entry
            low, high = own.get("interval") or (None, None)
            row = {name: entry[name] for name in ("protocol", "arm", "verdict")}
            rows.append(row | {"value": own.get("estimate"), "low": low, "high": high})
    if not rows:
        raise ValueError(f"no verdict on {claim} under {', '.join(CLOCK_ALONE)}; execute the chapter that judges it")
    table = pd.DataFrame(rows)
    return table.astype({"value": float, "low": float, "high": float})


def width_by_protocol(table: pd.DataFrame) -> Figure:
    """A panel for each protocol, a row for each network: the slope with its interval, marked by its verdict.

    table: of ``slopes``. The prediction of the clock alone is dashed and not fitted. A verdict without an estimate
    keeps its row and says so.
    """
    protocols = [name for name in CLOCK_ALONE if (table["protocol"] == name).any()]
    arms = list(dict.fromkeys(table["arm"]))
    size = (5.4, 0.8 + len(protocols) * (0.38 + 0.165 * len(arms)))
    figure, axes = plt.subplots(len(protocols), 1, figsize=size, sharex=True, squeeze=False)
    for ax, protocol in zip(axes[:, 0], protocols, strict=True):
        ax.axvline(0, color=GRAY, lw=1)
        ax.axvline(CLOCK_ALONE[protocol], color=COLORS[0], lw=2, ls=(0, (3, 2)))
        _rows(ax, table[table["protocol"] == protocol], arms)
        ax.set_title(TITLES.get(protocol, protocol), loc="left")
    axes[-1, 0].set_xlabel("slope of ln $\\lambda_{\\max}$ on ln $\\eta/S$\n← wider with the ratio      narrower →")
    figure.legend(handles=_key(table), loc="outside lower center", ncols=3, handlelength=1.6, columnspacing=1.2)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def in_brief(table: pd.DataFrame) -> dict[str, str]:
    """What the figure shows under each protocol, for those who read it or have it read to them.

    >>> row = {"protocol": "equal loss", "verdict": "SUPPORTED", "low": None, "high": None}
    >>> in_brief(pd.DataFrame([row | {"value": -0.46}, row | {"value": -0.05}]))
    {'equal loss': '−0.46 to −0.05 (2 supported)'}
    """
    brief = {}
    for protocol, own in table.groupby("protocol", sort=False):
        known = own["value"].dropna()
        ends = (
            [f"{value:.2f}".replace("-", "−") for value in known.agg(["min", "max"])] if len(known) else ["no estimate"]
        )
        found = ", ".join(
            f"{n} {str(verdict).lower()}" for verdict, n in own["verdict"].value_counts(sort=False).items()
        )
        brief[str(protocol)] = f"{' to '.join(dict.fromkeys(ends))} ({found})"
    return brief


def _rows(ax: Axes, table: pd.DataFrame, arms: list[str]) -> None:
    for row in table.to_dict("records"):
        y = arms.index(row["arm"])
        if pd.isna(row["value"]):
            ax.text(0, y, f" {row['verdict']}: no estimate", va="center", fontsize="small")
            continue
        sides = [[0.0 if pd.isna(side) else side] for side in (row["value"] - row["low"], row["high"] - row["value"])]
        label = f"_{row['verdict'].lower()}"
        ax.errorbar([row["value"]], [y], xerr=sides, ms=6.5, lw=1.6, label=label, **STYLES[row["verdict"]])
    ax.set_yticks(range(len(arms)), arms)
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def _key(table: pd.DataFrame) -> list[Line2D]:
    """What the marks and lines mean; verdicts that do not occur are not named."""
    marks = [
        Line2D([], [], marker=style["fmt"], color=style["color"], mfc=style.get("mfc"), ls="", label=verdict.lower())
        for verdict, style in STYLES.items()
        if (table["verdict"] == verdict).any()
    ]
    clock = Line2D([], [], color=COLORS[0], lw=2, ls=(0, (3, 2)), label="predicted by the clock alone")
    return [*marks, Line2D([], [], color=GRAY, lw=1, label="the ratio does not matter"), clock]
