"""Where scaling η and S together breaks: claims C7, C8 and C11."""

from __future__ import annotations

from math import log

from threefactors.inference.breakdown import BoundedSlope, log_ratio
from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Greater, Less, SlopeIs

# What counts as a break. 5 points of accuracy: the seeds' plateaus vary by about one, so that 5 are no accident, and
# the full fall to chance is 80. A factor of 2 in the clock that a training loss takes: no curve of equal ratio would
# be called invariant that needs twice the time. A run that diverged has the accuracy of chance, and has never come
# to its loss. The plateau is the first three β.
FALL = {"accuracy": 0.05, "clock": log(2)}
PLATEAU = 3

NEEDS = ("breaking_low", "breaking_high")

# The paper shows three curves and gives no law: a direction, without margin. The exponent is that of all ratios
# together, since they share their axis.
C7 = Claim(
    id="C7",
    statement="Scaling η and S together breaks later for larger training sets",
    source=PAPER,
    prediction="the breaking β grows with N",
    measures=("breaking",),
    quantity="exponent of N in the {measure} β",
    statistic=BoundedSlope("train_size"),
    rule=Greater(0.0),
    axes=("train_size", "ratio"),
    needs=NEEDS,
)

C8 = Claim(
    id="C8",
    statement="Scaling η and S together breaks later for the smaller ratio",
    source=PAPER,
    prediction="the breaking β falls with η/S",
    measures=("breaking",),
    quantity="exponent of η/S in the {measure} β",
    statistic=BoundedSlope("ratio"),
    rule=Less(0.0),
    axes=("train_size", "ratio"),
    needs=NEEDS,
)

# Each condition of the theory has exponents of its own: finite steps (0, −1), the finite set (1, 0), noise to signal
# (0, 0) as long as λ, C and the gradient do not depend on N and η/S. A quarter is half of the way to where two of them
# would be equally near.
C11a = Claim(
    id="C11a",
    statement="The break comes at one learning rate, whatever the ratio",
    source="finite steps, as a mechanism of the break; arXiv 1711.04623 names it among others",
    prediction="the exponent of η/S in the breaking β is −1, within 1/4",
    measures=("breaking",),
    quantity="exponent of η/S in the {measure} β",
    statistic=BoundedSlope("ratio"),
    rule=SlopeIs(-1.0, 0.25),
    axes=("train_size", "ratio"),
    needs=NEEDS,
)
C11b = Claim(
    id="C11b",
    statement="The break comes at one learning rate, whatever the training-set size",
    source="finite steps, as a mechanism of the break; against C7, and against the finite set, which says N",
    prediction="the exponent of N in the breaking β is 0, within 1/4",
    measures=("breaking",),
    quantity="exponent of N in the {measure} β",
    statistic=BoundedSlope("train_size"),
    rule=Equivalent(0.25),
    axes=("train_size", "ratio"),
    needs=NEEDS,
)

# Without a fitted constant, every curve (N and ratio) by itself, and the worst decides. Neighbors on the grid of
# training-set sizes and ratios are a factor of 2 apart, and its ends 4: a prediction good to 2 still tells these apart.
# Named beforehand as the best: full-batch descent.
C11c = Claim(
    id="C11c",
    statement="The breaking β can be predicted from what was measured elsewhere",
    source="conditions of arXiv 1711.04623 and arXiv 2102.12470, put into numbers",
    prediction="measured over predicted breaking β is between 1/2 and 2, for each curve",
    measures=("breaking",),
    quantity="logarithm of measured over predicted {measure} β",
    statistic=log_ratio,
    rule=Equivalent(log(2)),
    axes=("curve",),
    each="curve",
    needs=(*NEEDS, *(f"predicted_breaking{end}" for end in ("", "_low", "_high"))),
)

# An intervention that takes one mechanism away must move the break, if that mechanism sets it: a quarter of the step
# with the same noise by up to 4, independent draws by whatever the lost noise did. Less than half as much again is
# called not moved.
C11d = Claim(
    id="C11d",
    statement="Taking the mechanism away moves the break",
    source="the test of a mechanism by intervention; smaller steps of equal noise are arXiv 2102.12470's",
    prediction="the breaking β grows by at least a half",
    measures=("breaking",),
    quantity="logarithm of the {measure} β over that of plain SGD",
    statistic=log_ratio,
    rule=Greater(log(1.5)),
    axes=(),
    needs=(*NEEDS, *(f"predicted_breaking{end}" for end in ("", "_low", "_high"))),
)
