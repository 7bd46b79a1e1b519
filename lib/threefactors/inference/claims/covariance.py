"""Gradient covariance against Hessian along training: Assumption 2 of the paper, C = H, and what holds instead.

Tables have one row for each seed and ``stage``, the clock at which the network was looked at. Every claim is judged
stage by stage (``each``), since an average over the whole of training could hide that C passes H on its way down.
"""

from __future__ import annotations

from math import log

import numpy as np
import pandas as pd

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Greater, Less
from threefactors.inference.estimates import SeedMean
from threefactors.inference.laws import mean
from threefactors.inference.slopes import Unmeasurable

DERIVED = "derived in this book"


def log_ratio(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean over seeds of ln measure. Errors: Unmeasurable for a measure ≤ 0, or fewer than two seeds."""
    if not (table[measure] > 0).all():
        raise Unmeasurable(f"{measure} has values <= 0, which have no logarithm")
    return mean(table.assign(**{measure: np.log(table[measure])}), measure)


def log_error(table: pd.DataFrame, measure: str) -> SeedMean:
    """Mean over seeds of ln(measure/predicted), with the column ``predicted_<measure>``. Errors: as ``log_ratio``."""
    return log_ratio(table.assign(**{measure: table[measure] / table[f"predicted_{measure}"]}), measure)


# Assumption 2 enters the paper's theorem only by its trace: E[L] − L* = (η/4S) Tr C, for which the paper writes Tr H.
# A quarter up or down would still let Tr H stand for Tr C, as the height above the minimum would then be right to the
# same quarter; the logarithm makes too much noise and too little count alike.
A2a = Claim(
    id="A2a",
    statement="Tr C = Tr H within 25 % at every stage of training",
    source=PAPER,
    prediction="ln(Tr C/Tr H) within ±ln 1.25 at every stage",
    measures=("trace_ratio",),
    quantity="log of Tr C/Tr H ({measure})",
    statistic=log_ratio,
    rule=Equivalent(log(1.25)),
    axes=("stage",),
    each="stage",
)

# The assumption speaks of a minimum, so that the end of training has a verdict of its own: the last two stages.
A2e = Claim(
    id="A2e",
    statement="Tr C = Tr H within 25 % at the minimum that training ends in",
    source=PAPER,
    prediction="ln(Tr C/Tr H) within ±ln 1.25 at each of the last two stages",
    measures=("trace_ratio",),
    quantity="log of Tr C/Tr H ({measure})",
    statistic=log_ratio,
    rule=Equivalent(log(1.25)),
    axes=("stage",),
    each="stage",
)

# Where noise goes matters as much as how much of it there is. One half: on average, more than half of the squared
# length of a leading eigenvector of H lies in the leading eigenspace of C. Chance would give k/P, less than 1 %.
A2b = Claim(
    id="A2b",
    statement="The leading eigenspaces of C and H mostly coincide",
    source=PAPER,
    prediction="the mean squared cosine of their principal angles is above one half at every stage",
    measures=("overlap",),
    quantity="mean squared cosine of the principal angles ({measure})",
    statistic=mean,
    rule=Greater(0.5),
    axes=("stage",),
    each="stage",
)

# A theorem. What is measured is that two programs that share nothing but the network agree: first derivatives averaged
# over the model's labels, and the linearized network. Single precision carries seven digits, of which a probability of
# 1 − 1e-4 loses four in 1 − p; one percent leaves room for that, and a wrong factor is far outside.
A2c = Claim(
    id="A2c",
    statement="With labels drawn from the model, the gradients' second moment is the Gauss–Newton matrix",
    source=DERIVED,
    prediction="‖Fu − Gu‖/‖Gu‖ is rounding, below 1 %, in a random direction u",
    measures=("fisher_error",),
    quantity="relative difference of Fu and Gu ({measure})",
    statistic=mean,
    rule=Less(0.01),
    axes=("stage",),
    each="stage",
)

# No constant is fitted, and the ratio is expected to fall over more than an order of magnitude. The prediction is exact
# if all examples have equal Jacobians up to rotation; how unequal they are, theory does not say. A factor of 1.5 is
# small against that range, and smaller than the factor 2 of a lost ½.
A2d = Claim(
    id="A2d",
    statement="The network's outputs alone predict the ratio of noise to curvature",
    source=DERIVED,
    prediction="Tr(C + ggᵀ)/Tr G = E‖∂ℓ/∂z‖²/E Tr ∂²ℓ/∂z² within a factor of 1.5, in all layers and in the last one",
    measures=("noise_ratio", "noise_ratio_last"),
    quantity="log of {measure} over its prediction",
    statistic=log_error,
    rule=Equivalent(log(1.5)),
    axes=("stage",),
    each="stage",
    needs=("predicted_noise_ratio", "predicted_noise_ratio_last"),
)

# Also a theorem (for ReLU networks), of which the two sides are measured apart: Tr H by probes, with an error of a few
# percent a run, Tr G exactly. Ten percent covers that error, averaged over seeds, and is below any factor in question.
A2f = Claim(
    id="A2f",
    statement="In a ReLU network Tr H = Tr G: what the Hessian has beyond Gauss–Newton has no trace",
    source=DERIVED,
    prediction="ln(Tr H/Tr G) within ±ln 1.1 at every stage",
    measures=("residual_free",),
    quantity="log of Tr H/Tr G ({measure})",
    statistic=log_ratio,
    rule=Equivalent(log(1.1)),
    axes=("stage",),
    each="stage",
)
