"""The stationary state of SGD: the law of the mean height above a minimum (C13), and two later laws (L1, L2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent
from threefactors.inference.laws import relative_error
from threefactors.inference.summaries import summarize


def within_own_interval(
    table: pd.DataFrame, measure: str, by: Sequence[str], *, points: int, level: float = 0.95
) -> pd.DataFrame:
    """Each cell's mean with an interval that holds for all points at once, beside the prediction.

    Bonferroni: every one of ``points`` intervals has confidence 1 − (1 − level)/points, so that all of them together
    hold the true means with at least ``level``. Columns: those of ``summarize``, ``predicted``, ``error`` = value over
    predicted − 1, and ``inside``. Errors: ValueError for fewer ``points`` than this table alone has.
    """
    predicted = table.groupby(list(by), as_index=False)[f"predicted_{measure}"].first()
    if points < len(predicted):
        raise ValueError(f"points={points}, but this table alone has {len(predicted)}; count the points of all tables")
    cells = summarize(table, measure, by=by, log=False, level=1 - (1 - level) / points).merge(predicted, on=list(by))
    cells = cells.rename(columns={f"predicted_{measure}": "predicted"})
    inside = (cells["low"] <= cells["predicted"]) & (cells["predicted"] <= cells["high"])
    return cells.assign(error=cells["value"] / cells["predicted"] - 1, inside=inside)


# The law is the first order in η, and the next order is known: it adds at most ηλ/(2 − ηλ) to the height, 2 % at the
# largest ηλ = 0.04 of its experiment. Five percent leaves room for that and for little else: a factor of 2 is off by
# 50 % or 100 %, and √S for S by 65 % or 180 % at S = 8 already. It must hold at every batch size by itself, so that an
# error in one direction at a small batch cannot make up for one in the other at a large batch.
C13a = Claim(
    id="C13a",
    statement="In the stationary state the mean loss lies (η/4S) Tr C above the minimum, whatever C is",
    source=PAPER + ", for C = H; that the law needs no such assumption is derived here",
    prediction="E[L] − L* = (η/4S) Tr C without a fitted constant, for ηλ up to 0.04",
    measures=("excess_loss",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.05),
    each="batch_size",
    needs=("predicted_excess_loss",),
)

# No approximation is left in the law of the discrete steps, so only the error of the simulation has to fit into the
# margin: below 1 % by design. The term ηHΣH, left out, makes an error of 2.5 % at ηλ = 0.05, but of 90 % at 1.9.
C13b = replace(
    C13a,
    id="C13b",
    statement="Discrete SGD in a bowl obeys HΣ + ΣH − ηHΣH = (η/S)C up to the limit of stability",
    source="derived here; Liu, Ziyin & Ueda (arXiv 2012.03636)",
    prediction="E[L] − L* = ½ Tr HΣ without a fitted constant, at every ηλ from 0.05 to 1.9",
    rule=Equivalent(0.03),
    each="lr",
)

# The same margin as where the first-order law is valid. The theory itself expects this one to be REFUTED.
C13c = replace(
    C13a,
    id="C13c",
    statement="The first-order law (η/4S) Tr C holds at any stable learning rate",
    source="the law of C13a, taken beyond its validity",
    prediction="to be refuted: for C = H the height is 2/(2 − ηλ) times as large in a direction of curvature λ",
    each="lr",
)

# What C = H does buy: a round cloud. For another C the round cloud of the same height has (η/2S) Tr C/Tr H, and that is
# what it is held against, so that shape alone is judged. Margin as in C13a, whose experiment it shares.
C13d = replace(
    C13a,
    id="C13d",
    statement="The stationary cloud is round: Σ = (η/2S) I",
    source=PAPER + ", for C = H",
    prediction="the same variance in every eigendirection of H where C = H; to be refuted for any other C",
    measures=("variance",),
    quantity="relative error of a round cloud's {measure}",
    axes=("direction", "lr", "batch_size"),
    each="direction",
    needs=("predicted_variance",),
)

# The law on the way to the stationary state has no approximation either: margin as in C13b.
C13e = replace(
    C13b,
    id="C13e",
    statement="The cloud relaxes by the factor (1 − ηλ_i)(1 − ηλ_j) a step, entry by entry",
    source="derived here",
    prediction="the mean height after t steps from the bottom, at each t from a tenth of the relaxation time to three",
    axes=("steps", "batch_size"),
    each="steps",
)

# Products of random matrices have heavier tails than sums of noise, and the averages converge more slowly: 5 %.
L1 = replace(
    C13a,
    id="L1",
    statement="In linear regression the Hessian of the batch is noise too, and raises the loss further",
    source="Liu, Ziyin & Ueda (arXiv 2012.03636); Ziyin et al. (arXiv 2102.05375); derived here",
    prediction="isotropic inputs: variance ησ²/(S[2 − ηa(1 + (D+1)/S)]), at fixed η/S and every S",
    axes=("ratio", "batch_size"),
)

# The rival that the same runs refute, if L1 is right: additive noise with the same C, exact in η.
L1b = replace(
    L1,
    id="L1b",
    statement="In linear regression noise that does not depend on θ is description enough",
    source="the law of C13b with the C of the minimum",
    prediction="to be refuted: it misses the factor 1 + (D+1)/S on ηa",
)

# The exact sum over the lags of the noise is the prediction; plateau and crossover are its limits, and are drawn but
# not judged. Five percent tells it from the law with replacement, which is off by about 2 at the crossover and without
# bound below.
L2 = Claim(
    id="L2",
    statement="Sampled by epochs, flat directions fluctuate less: their variance levels off near η²σ²M/6",
    source="Kühn & Rosenow (arXiv 2306.05300); derived here",
    prediction="variance for noise of covariance C at lag 0 and −C(M−|h|)₊/(M(M−1)) at lag h ≠ 0, at every curvature",
    measures=("variance",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("curvature",),
    each="curvature",
    needs=("predicted_variance",),
)

L2b = replace(
    L2,
    id="L2b",
    statement="Sampled by epochs, SGD fluctuates as if it were sampled with replacement",
    source="what the stochastic differential equation assumes",
    prediction="to be refuted: below the crossover λ ≈ 3/(ηM) the noise is paid back before it is forgotten",
)
