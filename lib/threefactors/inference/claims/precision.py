"""Numbers of fewer digits within a step: whether they change what the book says about minima (N1, N2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from threefactors.inference.claim import Claim
from threefactors.inference.cycles import LogRatio
from threefactors.inference.decisions import Equivalent
from threefactors.inference.estimates import SeedMean
from threefactors.inference.slopes import Unmeasurable, slope_on_ratio

WIDTHS = ("sharpness", "trace", "frobenius")
REDUCED, FULL = "bfloat16", "float32"


@dataclass(frozen=True)
class SlopeChange:
    """Exponent of η/S where column = of, less that where column = to, for each seed.

    Errors: Unmeasurable where the two sides do not have the same number of seeds that identify a slope.
    """

    column: str
    of: str
    to: str

    def __call__(self, table: pd.DataFrame, measure: str) -> SeedMean:
        sides = [slope_on_ratio(table[table[self.column] == side], measure).per_seed for side in (self.of, self.to)]
        if len(sides[0]) != len(sides[1]):
            raise Unmeasurable(
                f"{len(sides[0])} seeds identify the slope of {measure} for {self.of}, {len(sides[1])} for {self.to}; "
                f"use the same seeds on full grids"
            )
        return SeedMean(np.asarray(sides[0]) - np.asarray(sides[1]))


# Margin 0.1 in the natural logarithm, 10 %: half of what doubling η/S does to λ_max where the exponent is −0.3, the
# weakest that the book calls an effect. A precision that moved widths by more could feign or hide one. Written before
# any run at this size; a trial of two seeds at a fifteenth of the clock had shown the two within some per cent.
N1 = Claim(
    id="N1",
    statement="Trained in bfloat16, networks come to minima as wide as in float32",
    source="what replacing float32 by bfloat16 within a step asks for; no claim of the paper",
    prediction="λ_max, Tr H and ‖H‖_F, all measured in float32, are equal to 0.1 in the natural logarithm",
    measures=WIDTHS,
    quantity="log of the ratio bfloat16/float32 of {measure}",
    statistic=LogRatio("precision", REDUCED, FULL),
    rule=Equivalent(0.1),
    axes=("precision", "lr", "batch_size"),
)

# Margin 0.1: C3a asks whether the exponent is below 0, and exponents of a few tenths are what the chapters find.
N2 = Claim(
    id="N2",
    statement="The exponent with which width follows η/S is the same in bfloat16 as in float32",
    source=N1.source,
    prediction="the exponents of λ_max, Tr H and ‖H‖_F differ by less than 0.1",
    measures=WIDTHS,
    quantity="exponent of {measure} on η/S in bfloat16, less that in float32",
    statistic=SlopeChange("precision", REDUCED, FULL),
    rule=Equivalent(0.1),
    axes=N1.axes,
)
