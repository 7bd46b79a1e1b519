"""What a figure shows of a table: the mean of each cell of the grid, with its interval over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from threefactors.inference.estimates import t_quantile
from threefactors.inference.slopes import loglog_slopes, usable

CELL = ("lr", "batch_size")


def summarize(
    table: pd.DataFrame, measure: str, by: Sequence[str] = CELL, *, log: bool = True, level: float = 0.95
) -> pd.DataFrame:
    """Mean of a measure in each cell with Student's t limits over seeds; the geometric mean if ``log``.

    One row a cell: the columns of ``by``, ``value``, ``low``, ``high`` (in the unit of the measure), ``n`` runs and
    ``lost`` ones (diverged, unfinished or without a number), and ``ratio`` where lr and batch_size are known.
    Cells with one run have no limits, cells with none no value; no cell is left out.
    """
    good = usable(table, measure)
    values = table[measure].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(values) if log else values
    frame = table[list(by)].assign(y=np.where(good & np.isfinite(y), y, np.nan))
    cells = frame.groupby(list(by)).y.agg(["mean", "std", "count", "size"]).reset_index()
    half = [t_quantile(level, n) if n > 1 else np.nan for n in cells["count"]] * cells["std"] / np.sqrt(cells["count"])
    limits = {"value": cells["mean"], "low": cells["mean"] - half, "high": cells["mean"] + half}
    result = cells[list(by)].assign(
        **{name: np.exp(limit) if log else limit for name, limit in limits.items()},
        n=cells["count"],
        lost=cells["size"] - cells["count"],
    )
    return result.assign(ratio=result["lr"] / result["batch_size"]) if set(CELL) <= set(by) else result


def level_line(table: pd.DataFrame, measure: str, ratios: Sequence[float], *, level: float = 0.95) -> pd.DataFrame:
    """The geometric mean over all runs of a table, as a ``summarize`` table that is constant over the given ratios.

    For a control that knows no ratio: full-batch descent stopped at one clock, or at one loss.
    """
    one = summarize(table.assign(all=0), measure, by=("all",), level=level)
    return one.merge(pd.DataFrame({"ratio": list(ratios)}), how="cross")


def exponents(tables: Mapping[str, pd.DataFrame], measures: Sequence[str], *, level: float = 0.95) -> pd.DataFrame:
    """Exponents of measure ∝ lr^a · batch_size^b with intervals over seeds, for each table and measure.

    One row each: ``protocol`` (the name of the table), ``measure``, ``lr``, ``lr_low``, ``lr_high`` for a,
    ``batch_size``, ``batch_size_low``, ``batch_size_high`` for b. Errors: as ``loglog_slopes``.
    """
    rows = []
    for name, table in tables.items():
        for measure in measures:
            slopes = loglog_slopes(table, measure)
            row: dict[str, object] = {"protocol": name, "measure": measure}
            for axis in CELL:
                interval = getattr(slopes, axis).interval(level)
                row |= {axis: interval.value, f"{axis}_low": interval.low, f"{axis}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)


def spectral_summary(
    table: pd.DataFrame,
    group: str,
    *,
    span: tuple[float, float],
    points: int = 200,
    width: float = 0.25,
    level: float = 0.95,
) -> pd.DataFrame:
    """Density of the positive eigenvalues over ln λ in each group of runs, from their quadratures.

    Each node of weight w at λ > 0 counts as a Gaussian of standard deviation ``width`` around ln λ, so that the curve
    integrates over ln λ to the share of positive eigenvalues; averaged over a run's probes, then over runs with
    Student's t limits. span: smallest and largest λ. Columns: ``group``, ``eigenvalue``, ``value``, ``low``, ``high``.
    """
    grid = np.linspace(np.log(span[0]), np.log(span[1]), points)
    parts = []
    for name, runs in table[table["spectrum_nodes"].notna()].groupby(group, sort=False):
        curves = []
        for nodes, weights in zip(runs["spectrum_nodes"], runs["spectrum_weights"], strict=True):
            share = np.where(nodes > 0, weights, 0.0) / len(nodes)  # a probe's weights sum to 1
            log = np.log(np.where(nodes > 0, nodes, 1.0))
            bumps = np.exp(-0.5 * ((grid[:, None, None] - log) / width) ** 2) / (width * np.sqrt(2 * np.pi))
            curves.append((share * bumps).sum((1, 2)))
        mean, spread = np.mean(curves, 0), np.std(curves, 0, ddof=1) / np.sqrt(len(curves))
        half = t_quantile(level, len(curves)) * spread
        part = {"group": name, "eigenvalue": np.exp(grid), "value": mean, "low": mean - half, "high": mean + half}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
