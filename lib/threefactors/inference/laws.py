"""Statistics that hold a measured law against a predicted one, for claims of the theory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from threefactors.inference.estimates import SeedMean
from threefactors.inference.slopes import Unmeasurable, log_measure, slopes_per_seed, usable


def relative_error(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean over seeds of measure/predicted − 1, where the column ``predicted_<measure>`` holds the prediction.

    Rows of one seed are averaged first. Without a fitted constant: 0 is agreement, 1 is a missing factor of 2.
    Errors: Unmeasurable for a prediction of 0, or fewer than two seeds.
    """
    predicted = table[f"predicted_{measure}"].to_numpy(float)
    if not np.all(np.isfinite(predicted) & (predicted != 0)):
        raise Unmeasurable(f"predicted_{measure} is 0 or not finite in a row, and nothing can be relative to it")
    return mean(table.assign(**{measure: table[measure] / predicted - 1}), measure)


def mean(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean of a column over seeds; rows of one seed are averaged first. Errors: Unmeasurable below two seeds."""
    per_seed = table.groupby("seed")[measure].mean().to_numpy(float)
    if len(per_seed) < 2:
        raise Unmeasurable(f"{len(per_seed)} seed of {measure} gives no interval; use at least 2")
    return SeedMean(per_seed)


@dataclass(frozen=True)
class SlopeOn:
    """Slope of log measure on the log of a column, fitted for each seed: the exponent of a power law."""

    column: str

    def __call__(self, table: pd.DataFrame, measure: str) -> SeedMean:
        good = usable(table, self.column, measure)
        x, y = log_measure(table, self.column, good), log_measure(table, measure, good)
        slopes = slopes_per_seed(table["seed"].to_numpy()[good], [x], y)
        if len(slopes) < 2:
            raise Unmeasurable(f"{len(slopes)} seeds identify the slope of {measure} on {self.column}; use at least 2")
        return SeedMean(slopes[:, 0])
