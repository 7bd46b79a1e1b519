"""Deep networks and the edge of stability: claims of our own, D1 to D3, beside C3 and C4 of the width chapter."""

from __future__ import annotations

import pandas as pd

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, Estimated, Greater, SlopeIs
from threefactors.inference.laws import SlopeOn, mean, relative_error
from threefactors.inference.slopes import loglog_slopes

COHEN = "Cohen et al., arXiv 2103.00065"
RIVAL = "the rival reading of C3: step stability in place of noise (this book)"


def lr_exponent(table: pd.DataFrame, measure: str) -> Estimated:
    """a of measure ∝ lr^a · batch_size^b."""
    return loglog_slopes(table, measure).lr


def batch_size_exponent(table: pd.DataFrame, measure: str) -> Estimated:
    """b of measure ∝ lr^a · batch_size^b."""
    return loglog_slopes(table, measure).batch_size


# Each learning rate by itself. "At, or just above" 2/η is what the source reports, and the swing itself moves λ_max,
# so that exact equality is not to be expected. A sharpness that does not know η, placed as well as possible, misses by
# a factor of 2 at the ends of a grid of four in η, and by √2 at those of a grid of two; a quarter is less than either.
D1a = Claim(
    id="D1a",
    statement="Full-batch gradient descent sharpens until λ_max = 2/η",
    source=COHEN,
    prediction="the level at which λ_max stops rising is 2/η: to 25 %, at each learning rate",
    measures=("plateau",),
    quantity="relative error of the predicted {measure} of λ_max",
    statistic=relative_error,
    rule=Equivalent(0.25),
    axes=("lr",),
    each="lr",
    needs=("predicted_plateau",),
)

# The law says −1; half of the way to −1/2, the exponent that noise of the strength η/S with λ ∝ 1/√η would give, and
# a quarter of the way to 0, a sharpness of the task alone.
D1b = Claim(
    id="D1b",
    statement="Without any noise, the sharpness reached is inversely proportional to η",
    source=COHEN,
    prediction="the slope of ln λ_max on ln η is −1, within 1/4",
    measures=("plateau",),
    quantity="slope of log {measure} on log η",
    statistic=SlopeOn("lr"),
    rule=SlopeIs(-1.0, 0.25),
    axes=("lr",),
)

# ``gap`` is 1 − ηλ_max/2. Each of the small batches (an eighth of the examples or less) by itself; no margin.
D2a = Claim(
    id="D2a",
    statement="With small batches λ_max stays below 2/η",
    source=COHEN + "; the mean-square limit of SGD",
    prediction="1 − ηλ_max/2 > 0 at each batch size of at most an eighth of the training set",
    measures=("gap",),
    quantity="mean {measure} 1 − ηλ_max/2",
    statistic=mean,
    rule=Greater(0.0),
    axes=("lr", "batch_size"),
    each="batch_size",
)

# All batch sizes, the full batch among them, each learning rate by itself; a direction and not a size.
D2b = Claim(
    id="D2b",
    statement="The smaller the batch, the further below 2/η",
    source=COHEN + "; the mean-square limit of SGD",
    prediction="at each fixed η, λ_max rises with S",
    measures=("plateau",),
    quantity="slope of log {measure} on log S",
    statistic=SlopeOn("batch_size"),
    rule=Greater(0.0),
    axes=("lr", "batch_size"),
    each="lr",
)

# If step stability alone set the width, λ_max ∝ η⁻¹ S⁰; if the ratio did, the two exponents would be opposite. The two
# claims test the first reading, one exponent each. The margin of a quarter is the one of D1b; for S it is half of the
# exponent 1/2 that a law of √(η/S) would have.
D3a = Claim(
    id="D3a",
    statement="The width found by SGD is set by step stability: λ_max ∝ 1/η at fixed S",
    source=RIVAL,
    prediction="the exponent of η in λ_max, with S beside it, is −1, within 1/4",
    measures=("sharpness",),
    quantity="exponent of η in {measure}, S beside it,",
    statistic=lr_exponent,
    rule=SlopeIs(-1.0, 0.25),
)
D3b = Claim(
    id="D3b",
    statement="The width found by SGD is set by step stability: λ_max does not depend on S at fixed η",
    source=RIVAL,
    prediction="the exponent of S in λ_max, with η beside it, is 0, within 1/4",
    measures=("sharpness",),
    quantity="exponent of S in {measure}, η beside it,",
    statistic=batch_size_exponent,
    rule=Equivalent(0.25),
)
