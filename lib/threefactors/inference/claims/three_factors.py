"""All runs of the book in one regression: which factor carries the width, and how much is the clock?"""

from __future__ import annotations

import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Estimated, Greater, Less
from threefactors.inference.estimates import SeedMean, SeedRatio
from threefactors.inference.laws import mean

OWN = "the paper's claim (arXiv 1711.04623), with the clock and the loss held fixed"
WIDTHS = ("sharpness", "trace", "frobenius")


def ratio_only(table: pd.DataFrame, measure: str) -> Estimated:
    """q = (a + b)/(a − b) of <width>_on_ratio, from the columns <width>_on_lr, a, and <width>_on_batch_size, b."""
    width = measure.removesuffix("_on_ratio")
    a, b = (table[f"{width}_on_{name}"].to_numpy(float) for name in ("lr", "batch_size"))
    return SeedRatio(SeedMean(a + b), SeedMean(a - b))


# The table has one row a replicate; a column is a slope of ln width in the joint regression on ln η, ln S, ln T and
# ln L. As in C3a all three measures have to agree, and the claims give directions and no sizes.
F1a = Claim(
    id="F1a",
    statement="At equal batch size, clock and loss, a larger η gives a wider minimum",
    source=OWN,
    prediction="the slopes of ln λ_max, ln Tr H and ln ‖H‖_F on ln η are negative",
    measures=tuple(f"{width}_on_lr" for width in WIDTHS),
    quantity="slope {measure}",
    statistic=mean,
    rule=Less(0.0),
    axes=(),
)
F1b = Claim(
    id="F1b",
    statement="At equal learning rate, clock and loss, a larger S gives a narrower minimum",
    source=OWN,
    prediction="the slopes of ln λ_max, ln Tr H and ln ‖H‖_F on ln S are positive",
    measures=tuple(f"{width}_on_batch_size" for width in WIDTHS),
    quantity="slope {measure}",
    statistic=mean,
    rule=Greater(0.0),
    axes=(),
)

# The margin is that of C3b, for the reasons given there.
F1c = Claim(
    id="F1c",
    statement="At equal clock and loss, the width depends on η and S only through η/S",
    source=OWN,
    prediction="the two slopes are opposite: |a + b| < |a − b|/4",
    measures=tuple(f"{width}_on_ratio" for width in WIDTHS),
    quantity="asymmetry (a+b)/(a-b) of the slopes, {measure},",
    statistic=ratio_only,
    rule=Equivalent(0.25),
    axes=(),
    needs=tuple(f"{width}_on_{name}" for width in WIDTHS for name in ("lr", "batch_size")),
)

# Only runs in which C was changed at fixed η and S, with the strength of the noise that was set, not the Tr C that was
# measured: a narrow minimum makes its own noise larger. The loss is held fixed, which C12c does not do.
F2 = Claim(
    id="F2",
    statement="At equal η, S, clock and loss, more gradient noise gives a wider minimum",
    source="argued, not measured, in arXiv 1711.04623",
    prediction="the slopes of ln λ_max, ln Tr H and ln ‖H‖_F on the log of the injected noise are negative",
    measures=tuple(f"{width}_on_noise_dial" for width in WIDTHS),
    quantity="slope {measure}",
    statistic=mean,
    rule=Less(0.0),
    axes=(),
)

# Held-out R² of groups that were not in the fit: "most of it is the clock" means that clock and loss alone predict an
# unseen network's widths better than η and S do.
F3 = Claim(
    id="F3",
    statement="Clock and loss say more of the width of an unseen network's minima than η and S do",
    source="the objection of this book; arXiv 1711.04623 does not separate them",
    prediction="R²(T, L) − R²(η, S) > 0, for λ_max, Tr H and ‖H‖_F",
    measures=tuple(f"{width}_gap" for width in WIDTHS),
    quantity="difference of held-out R², {measure},",
    statistic=mean,
    rule=Greater(0.0),
    axes=(),
)
F4 = Claim(
    id="F4",
    statement="At equal clock and loss, a higher η/S gives a better validation accuracy",
    source=PAPER,
    prediction="the slope of the validation accuracy on ln η/S is positive",
    measures=("validation_accuracy_on_ratio",),
    quantity="slope {measure}",
    statistic=mean,
    rule=Greater(0.0),
    axes=(),
)
