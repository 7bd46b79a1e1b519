"""Between two minima: which of the two ends of a straight line is the sharper one (C5, C6)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Greater
from threefactors.inference.estimates import SeedMean
from threefactors.inference.slopes import Unmeasurable


def contrast(table: pd.DataFrame, measure: str) -> SeedMean:
    """How much sharper end 1 is than end 2: the mean over seeds of q = (s₁ − s₂)/(s₁ + s₂), s the measure or 0.

    0 where both are equally sharp, ±1 where all of the sharpness is on one side; q = tanh(½ ln(s₁/s₂)), so that ±0.2
    is a factor of 1.5. Every seed counts the same, whatever the scale of its landscape. Unlike a logarithm, q does not
    need a positive s: a cut through a ReLU network may bend downwards, which counts as no sharpness (0); where both
    ends do, neither is the sharper (q = 0).

    table: columns ``end`` (1, 2), ``seed`` and the measure; several lines of one seed are averaged first.
    Errors: Unmeasurable below two seeds with both ends.
    """
    ends = table.pivot_table(index="seed", columns="end", values=measure).reindex(columns=[1, 2]).dropna()
    if len(ends) < 2:
        raise Unmeasurable(f"{len(ends)} seeds have both ends of a line with {measure}; use at least 2")
    first, second = ends.clip(lower=0).to_numpy(float).T
    return SeedMean(np.divide(first - second, first + second, out=np.zeros(len(ends)), where=first + second > 0))


# Two cuts through the same line: at the end itself (the curvature along the line) and over each end's own half of it
# (the mean rise outward and inward, in which the slope cancels). "Sharper" names no single one, so both must say so.
# Not among the measures: the distance at which the loss has risen by a fixed amount, outward or inward alone. Half of
# it is slope wherever an end is no exact minimum, it tells the steep side of an asymmetric valley from the flat one
# (He et al., arXiv 1902.00744) and not a narrow valley from a wide one, and inward it often does not exist. The ratio
# is made in two ways, by S at one η and by η at one S, and the claim must hold for each. No margin: a direction.
C5a = Claim(
    id="C5a",
    statement="On the straight line between two minima, the end from the lower η/S is the sharper one",
    source=PAPER,
    prediction="curvature along the line, and rise over half of it, are larger at the end of lower η/S",
    measures=("line_curvature", "line_rise"),
    quantity="contrast of the {measure} of the two ends",
    statistic=contrast,
    rule=Greater(0.0),
    axes=("pair", "end"),
    each="pair",
)

# One direction says little of the others, the same step is a smaller relative change for the end with the longer
# weights, and rescaling layers changes both measures above at will (Dinh et al., arXiv 1703.04933). Random directions
# with filter normalization (Li et al., arXiv 1712.09913) change every filter by the same fraction of its length.
C5b = Claim(
    id="C5b",
    statement="The end from the lower η/S is also the sharper one in random directions, relative to its filters",
    source="the paper's claim (arXiv 1711.04623), by a measure which rescaling layers cannot change",
    prediction="mean rise along random directions with filter normalization is larger at the end of lower η/S",
    measures=("random_rise",),
    quantity="contrast of the {measure} of the two ends",
    statistic=contrast,
    rule=Greater(0.0),
    axes=("pair", "end"),
    each="pair",
)

# "Equally wide" needs a margin: a factor of 1.5 in curvature, which is 1.22 in width, about what an eye can tell from
# symmetric in a figure of the paper's kind. What it excludes: let the sharpness go with the ratio to the power −a. If
# only η (or only S) decided, β = 4 would make a factor of 4^a, and if η/√S did, 2^a. At equal epochs, where the clock
# alone makes a = 1, these are q = 0.6 and 1/3, far outside. Where the ratio acts as weakly as a = 0.3, they are factors
# of 1.5 and 1.2, and nothing is excluded; so the chapter prints beside each verdict what the measured effect of the
# ratio would make of β = 4.
MARGIN = 0.2

C6a = Claim(
    id="C6a",
    statement="On the straight line between two minima of the same η/S, both ends are equally wide",
    source=PAPER,
    prediction="curvature along the line, and rise over half of it, agree within a factor of 1.5 for β = 1 and β = 4",
    measures=("line_curvature", "line_rise"),
    quantity="contrast of the {measure} of the two ends",
    statistic=contrast,
    rule=Equivalent(MARGIN),
    axes=("pair", "end"),
    each="pair",
)
C6b = Claim(
    id="C6b",
    statement="Minima of the same η/S are equally wide also in random directions, relative to their filters",
    source="the paper's claim (arXiv 1711.04623), by a measure which rescaling layers cannot change",
    prediction="mean rise along random directions with filter normalization agrees within a factor of 1.5",
    measures=("random_rise",),
    quantity="contrast of the {measure} of the two ends",
    statistic=contrast,
    rule=Equivalent(MARGIN),
    axes=("pair", "end"),
    each="pair",
)
