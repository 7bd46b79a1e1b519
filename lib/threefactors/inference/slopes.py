"""Slopes of a measure on the learning rate, the batch size and their ratio, seed by seed.

When every seed has the full grid, the pooled least-squares slope equals the mean of the slopes
fitted to each seed alone: same design, and least squares is linear in the response. The seeds'
slopes are independent and identically distributed, so Student's t over them is exact for Gaussian
slopes and close for others, each being an average over dozens of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from threefactors.inference.estimates import Floats, SeedMean, SeedRatio


class Unmeasurable(ValueError):
    """The table does not allow this statistic; the message says why and what to do."""


@dataclass(frozen=True)
class Slopes:
    """Exponents of measure ∝ lr^a · batch_size^b, and what they say about the ratio.

    ``lr`` is a, ``batch_size`` is b; ``asymmetry`` is q = (a + b)/(a − b): 0 if only the ratio lr/batch_size
    matters, +1 if only lr does, −1 if only batch_size does. ``runs`` were fitted, ``missing`` were not.
    """

    lr: SeedMean
    batch_size: SeedMean
    asymmetry: SeedRatio
    runs: int
    missing: int


def usable(table: pd.DataFrame, *columns: str) -> NDArray[np.bool_]:
    """Mask of the runs that finished, did not diverge, and have a finite value in each column.

    Errors: KeyError names the columns that the table lacks.
    """
    absent = [c for c in columns if c not in table]
    if absent:
        raise KeyError(f"the table has no column {absent}; it has {list(table.columns)}")
    good = np.logical_and.reduce([np.isfinite(table[c].to_numpy(float)) for c in columns])
    if "diverged" in table:
        good &= ~table["diverged"].to_numpy(bool)
    if "finished" in table:
        good &= table["finished"].eq(True).to_numpy()
    return good


def log_measure(table: pd.DataFrame, measure: str, good: NDArray[np.bool_]) -> Floats:
    """Natural logarithm of a column, in its ``good`` rows.

    Errors: Unmeasurable where a value is not positive.
    """
    values = table[measure].to_numpy(float)[good]
    if (values <= 0).any():
        raise Unmeasurable(
            f"{measure}={values.min():.3g}, and {(values <= 0).sum()} of {len(values)} values <= 0 have no "
            "logarithm; train closer to a minimum, or use a measure that is positive there"
        )
    return np.log(values)


def slopes_per_seed(seed: ArrayLike, regressors: Sequence[ArrayLike], response: ArrayLike) -> Floats:
    """Least-squares slopes fitted to each seed alone, each with its own intercept.

    ``seed`` (rows,), ``regressors`` k arrays (rows,), ``response`` (rows,) → (n, k), seeds ascending.
    Seeds whose remaining runs do not identify all k slopes are left out.
    """
    _, group = np.unique(np.asarray(seed), return_inverse=True)
    columns = np.column_stack([*regressors, response]).astype(float)
    size = np.bincount(group)
    sums = np.stack([np.bincount(group, weights=c) for c in columns.T], axis=1)
    columns = columns - (sums / size[:, None])[group]
    order = np.argsort(group, kind="stable")
    products = np.einsum("ri,rj->rij", columns, columns)[order]
    moments = np.add.reduceat(products, np.cumsum(size) - size, axis=0)  # (n, k + 1, k + 1), response last
    gram, cross = moments[:, :-1, :-1], moments[:, :-1, -1]
    scale = np.sqrt(np.einsum("nii->ni", gram))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = gram / (scale[:, :, None] * scale[:, None, :])
    determinant = np.linalg.det(np.nan_to_num(correlation, nan=0.0))
    identified = (scale > 1e-9).all(axis=1) & (determinant > 1e-9)
    return np.linalg.solve(gram[identified], cross[identified][..., None])[..., 0]


def loglog_slopes(table: pd.DataFrame, measure: str) -> Slopes:
    """Exponents of the learning rate and of the batch size, fitted side by side.

    log measure = a log lr + b log batch_size + c_seed, by least squares for each seed.

    ``table`` has one row a run with ``lr``, ``batch_size``, ``seed`` and ``measure`` (> 0, any unit).
    Diverged, unfinished and NaN rows are left out and counted in ``missing``. Valid where every seed
    covers the same grid; a few missing runs cost little.
    Errors: Unmeasurable for a measure ≤ 0, or where fewer than two seeds identify both exponents.
    """
    good = usable(table, "lr", "batch_size", measure)
    regressors = [log_measure(table, axis, good) for axis in ("lr", "batch_size")]
    a, b = _fit(table, good, regressors, log_measure(table, measure, good), measure).T
    ratio = SeedRatio(SeedMean(a + b), SeedMean(a - b))
    return Slopes(SeedMean(a), SeedMean(b), ratio, int(good.sum()), int((~good).sum()))


def slope_on_ratio(table: pd.DataFrame, measure: str, *, log: bool = True) -> SeedMean:
    """Slope of a measure on the ratio lr/batch_size.

    ``log=True``: of log measure on log ratio, an exponent. ``log=False``: of the measure itself on
    log₁₀ ratio, in the measure's unit per tenfold ratio. Least squares for each seed, then Student's t.

    It is the trend along the ratio whatever drives it: if only lr mattered it would still not be 0;
    ``loglog_slopes`` tells the two apart. Rows left out, and errors, as there.
    """
    good = usable(table, "lr", "batch_size", measure)
    ratio = log_measure(table, "lr", good) - log_measure(table, "batch_size", good)
    if log:
        return SeedMean(_fit(table, good, [ratio], log_measure(table, measure, good), measure)[:, 0])
    response = table[measure].to_numpy(float)[good]
    return SeedMean(_fit(table, good, [ratio / np.log(10)], response, measure)[:, 0])


def _fit(
    table: pd.DataFrame, good: NDArray[np.bool_], regressors: Sequence[Floats], response: Floats, measure: str
) -> Floats:
    slopes = slopes_per_seed(table["seed"].to_numpy()[good], regressors, response)
    if len(slopes) < 2:
        raise Unmeasurable(
            f"{len(slopes)} seeds identify the slopes of {measure}; use at least 2 seeds, each with "
            "2 or more learning rates and batch sizes"
        )
    return slopes
