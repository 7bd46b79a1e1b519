"""Width of minima and generalization over the η × S grid: claims C3 and C4."""

from __future__ import annotations

import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Estimated, Greater, Less
from threefactors.inference.estimates import SeedMean
from threefactors.inference.slopes import Unmeasurable, loglog_slopes, slope_on_ratio


def asymmetry(table: pd.DataFrame, measure: str) -> Estimated:
    """q = (a + b)/(a − b) for measure ∝ lr^a · batch_size^b."""
    return loglog_slopes(table, measure).asymmetry


def points_per_tenfold_ratio(table: pd.DataFrame, measure: str) -> Estimated:
    """Slope of an accuracy in [0, 1] on log₁₀ ratio, in percentage points per tenfold ratio."""
    if (table[measure] > 1).any():
        raise Unmeasurable(f"{measure}={table[measure].max():.3g} exceeds 1; give accuracies as fractions in [0, 1]")
    return SeedMean(100 * slope_on_ratio(table, measure, log=False).per_seed)


# Larger λ_max, Tr H and ‖H‖_F all mean a narrower minimum. The paper's word "wider" names no single one,
# so the slope must be negative for all three (an intersection–union test: no correction is needed to
# support, each test at full level); one that is positive suffices to refute, for which the three looks
# are paid for by Bonferroni. No margin: the claim gives a direction and not a size.
C3a = Claim(
    id="C3a",
    statement="A higher ratio η/S gives a wider minimum",
    source=PAPER,
    prediction="λ_max, Tr H and ‖H‖_F at the end of training fall with η/S",
    measures=("sharpness", "trace", "frobenius"),
    quantity="slope of log {measure} on log η/S",
    statistic=slope_on_ratio,
    rule=Less(0.0),
)

# Width ∝ η^a S^b depends on the ratio alone iff a = −b. The asymmetry q = (a + b)/(a − b) measures the
# departure on a scale that does not depend on how strong the effect is: 0 for the ratio, +1 if only η
# matters, −1 if only S does. No experiment can show q = 0 exactly, so a margin has to say what counts as
# "only through the ratio". A quarter: the sum of the exponents is at most a quarter of their difference,
# |b|/|a| between 3:5 and 5:3. It excludes the rivals η/√S (q = +1/3) and η/S² (q = −1/3), and is loose
# enough for the finite-η and finite-N corrections that the theory itself expects. Where a − b is not
# told from 0 there is no dependence on the ratio to attribute, and the claim stays UNDECIDED.
C3b = Claim(
    id="C3b",
    statement="The width of the minimum depends on η and S only through η/S",
    source=PAPER,
    prediction="the exponents of η and S in λ_max, Tr H and ‖H‖_F are opposite: |a + b| < |a − b|/4",
    measures=("sharpness", "trace", "frobenius"),
    quantity="asymmetry (a+b)/(a-b) of the exponents of η and S in {measure}",
    statistic=asymmetry,
    rule=Equivalent(0.25),
)

# Rescaling weights before a normalization layer, or between ReLU layers, changes λ_max without changing
# the function (Dinh et al. 2017, arXiv 1703.04933); these two measures undo it, each in another way,
# and so both have to agree. This claim is stronger than the paper's own.
C3c = Claim(
    id="C3c",
    statement="A higher ratio η/S gives a wider minimum, also by scale-invariant measures",
    source="the paper's claim (arXiv 1711.04623), by measures which rescaling the weights cannot change",
    prediction="‖w‖²λ_max and adaptive sharpness fall with η/S",
    measures=("normalized_sharpness", "adaptive_sharpness"),
    quantity="slope of log {measure} on log η/S",
    statistic=slope_on_ratio,
    rule=Less(0.0),
)

# The paper says "often": a trend over the grid, not an order between any two runs.
C4 = Claim(
    id="C4",
    statement="A higher ratio η/S often gives a better validation accuracy",
    source=PAPER,
    prediction="validation accuracy rises with η/S",
    measures=("validation_accuracy",),
    quantity="slope of {measure}, in percentage points per tenfold η/S,",
    statistic=points_per_tenfold_ratio,
    rule=Greater(0.0),
)
