"""SGD and its stochastic differential equation: claims E1 to E5.

The rules were written before the experiments; what the exact calculation of ``theory.weak`` says of each was known.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, SlopeIs
from threefactors.inference.estimates import SeedMean
from threefactors.inference.laws import SlopeOn, mean
from threefactors.inference.slopes import Unmeasurable

# Orders are whole numbers: a margin of a quarter keeps 1 and 2 well apart. It leaves room for the next power of the
# learning rate, which moves the exponent by less than a tenth over the factor of 8 in lr that is looked at.
E1 = Claim(
    id="E1",
    statement="The expectations of the equation differ from those of SGD by a term of first order in η",
    source="Li, Tai & E (arXiv 1511.06251)",
    prediction="exponent of η in the weak error: 1",
    measures=("weak_error",),
    quantity="slope of log {measure} on log η",
    statistic=SlopeOn("lr"),
    rule=SlopeIs(1.0, 0.25),
    axes=("lr",),
)

E2 = Claim(
    id="E2",
    statement="With the drift −∇(L + (η/4)‖∇L‖²) the difference is of second order in η",
    source="Li, Tai & E (arXiv 1511.06251)",
    prediction="exponent of η in the weak error: 2",
    measures=("weak_error",),
    quantity="slope of log {measure} on log η",
    statistic=SlopeOn("lr"),
    rule=SlopeIs(2.0, 0.25),
    axes=("lr",),
)

# At fixed η/S, runs with (η, S) and (η/4, S/4) see the same examples in the same number, four batches in place of
# one: what differs is that θ is frozen meanwhile, which is of first order in η. Under a rule that is wrong for the
# noise the difference does not vanish with η at all, exponent 0.
E3 = Claim(
    id="E3",
    statement="Runs with the same η/S have the same law at equal clock, up to first order in η",
    source=PAPER,
    prediction="exponent of η in the difference between (η, S) and its partner with a quarter of S: 1",
    measures=("difference",),
    quantity="slope of log {measure} on log η",
    statistic=SlopeOn("lr"),
    rule=SlopeIs(1.0, 0.25),
    axes=("lr",),
)

# The law itself gives −1 with replacement, and −1.06 without for S from 4 to 32 out of 1152, as the full batch has no
# noise. Were the noise of batches dominated by a few examples that come in every batch, the exponent would be 0.
E4a = Claim(
    id="E4a",
    statement="The noise of a batch comes closer to a Gaussian like 1/S",
    source="cumulants of a mean of S draws",
    prediction="exponent of S in the excess kurtosis of projections of the noise: −1",
    measures=("excess_kurtosis",),
    quantity="slope of log {measure} on log S",
    statistic=SlopeOn("batch_size"),
    rule=SlopeIs(-1.0, 0.15),
    axes=("direction", "batch_size"),
    each="direction",
)

# "Gaussian" has to say how far out. Within a factor 1 ± ½ of the Gaussian's probability beyond 4σ is generous, and
# still hard: by the first term of Edgeworth's expansion an excess kurtosis of 0.06 moves that probability by a half.
# So a population of gradients with an excess kurtosis above 2 is expected to fail at S = 32.
E4b = Claim(
    id="E4b",
    statement="At S = 32 the noise of a batch is Gaussian to its 4σ tail",
    source=PAPER + ", by the central limit theorem",
    prediction="probability beyond 4σ, in units of the Gaussian's: 1",
    measures=("tail_ratio",),
    quantity="mean of {measure}",
    statistic=mean,
    rule=SlopeIs(1.0, 0.5),
    axes=("direction",),
    each="direction",
)


def log_change(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean over seeds of ln(measure at the largest svag / measure at svag = 1)."""
    wide = table.pivot_table(index="seed", columns="svag", values=measure).dropna()
    if len(wide) < 2 or 1 not in wide or len(wide.columns) < 2:
        raise Unmeasurable(f"{len(wide)} seeds have {measure} at svag = 1 and above; use at least 2")
    if not (wide > 0).all(axis=None):
        raise Unmeasurable(f"{measure} is not positive in a run and has no logarithm")
    return SeedMean(np.log(wide[wide.columns.max()].to_numpy() / wide[1].to_numpy()))


# SVAG keeps drift and noise of the equation and shrinks the step. If SGD follows the equation, nothing changes from
# l = 1 to l = 8. A fifth, in loss and in sharpness: about the spread between seeds, and small beside the twofold and
# larger changes that the learning rate itself makes over the grids of this book.
E5 = Claim(
    id="E5",
    statement="SGD has already reached the limit of its equation: SVAG with l = 8 gives the same",
    source="Li, Malladi & Arora (arXiv 2102.12470)",
    prediction="training loss and sharpness at equal clock change by less than a fifth from l = 1 to l = 8",
    measures=("train_loss", "sharpness"),
    quantity="ln of {measure} at l = 8 over l = 1",
    statistic=log_change,
    rule=Equivalent(0.2),
    axes=("svag",),
)
