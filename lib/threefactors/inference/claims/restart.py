"""A network's minima, left a little: does their own curvature tell at which learning rate SGD leaves them? (P5)"""

from __future__ import annotations

from dataclasses import replace

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, Greater, Less
from threefactors.inference.laws import SlopeOn, mean, relative_error

PATEL = "Patel, arXiv 1709.04718: local geometry and batch size decide; "
LEFT = "relative error of the predicted {measure}"

# The minima fit all labels, so that the gradient noise is zero there: kicks by noise alone would let them hold up to
# 2/λ_max, at every S. In pilots on seeds of their own the two predictions were a factor of 4 apart at S = 1 and a tenth
# or less at S = 8. Where the transition is expected: in 2000 steps the loss has to rise ten thousandfold, so that the
# exponent must exceed 0.002, which at S = 1 is 2 to 4 % in η; the simulated limit itself is good to 3 % a seed. The
# margin is a little more than the sum. In pilots the errors were 1 to 5 %, and 8 % for batches by epochs, whose law the
# prediction does not know. At S = 8 the rival may pass as well; each claim has to hold at every S.
P5a = Claim(
    id="P5a",
    statement="SGD leaves a network's minimum where a typical path of its linearization starts to grow",
    source=PATEL + "for a network derived here",
    prediction="the learning rate at which half of the restarts leave, to 10 % at every batch size",
    measures=("transition",),
    quantity=LEFT,
    statistic=relative_error,
    rule=Equivalent(0.1),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_transition",),
)

# Below the almost-sure limit by Jensen's inequality; how far below, nothing promises. A factor of 2 or √S in the
# variance of a batch, or S − 1 for S, moves this limit by more than a fifth somewhere on S = 1 … 4.
P5b = replace(
    P5a,
    id="P5b",
    statement="The mean-square limit, from the Gram matrix of output gradients alone, tells where a minimum is left",
    prediction="the learning rate at which half of the restarts leave, to 20 % at every batch size",
    rule=Equivalent(0.2),
)

# The inequality itself, so no margin.
P5c = Claim(
    id="P5c",
    statement="Below the mean-square limit a minimum holds",
    source="derived here: growth of a typical path is growth of its mean square (Jensen)",
    prediction="half of the restarts leave at a learning rate above the mean-square limit, at every batch size",
    measures=("transition",),
    quantity=LEFT,
    statistic=relative_error,
    rule=Greater(0.0),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_transition",),
)

# The rival of P5a, with the same margin. Expected: refuted.
P5d = replace(
    P5a,
    id="P5d",
    statement="Without gradient noise at the minimum, SGD leaves it where noise-free descent does, at every batch size",
    source="escape by noise kicks, the mechanism of arXiv 1711.04623, at a minimum with C = 0",
    prediction="the learning rate at which half of the restarts leave is 2/λ_max, to 10 % at every batch size",
)

# Where both stories agree: it tells that network and measurement of λ_max are in order.
P5e = Claim(
    id="P5e",
    statement="With the full batch a minimum is left at 2/λ_max",
    source="both mechanisms",
    prediction="the learning rate at which descent leaves is 2/λ_max, to 10 %",
    measures=("transition",),
    quantity=LEFT,
    statistic=relative_error,
    rule=Equivalent(0.1),
    axes=(),
    needs=("predicted_transition",),
)

# The same start and the same batches: what is left to differ is what linearization leaves out. The loss rises or falls
# by four decades, so that a fate hangs on a hair near the transition only. In pilots, 0 to 2.4 % of them differed.
P5f = Claim(
    id="P5f",
    statement="The fate of a single restart is that of the linearized system on the same batches",
    source="derived here",
    prediction="more than 90 % of the fates agree, at every batch size",
    measures=("replayed",),
    quantity="mean over seeds of the share of fates that agree",
    statistic=mean,
    rule=Greater(0.9),
    axes=("batch_size",),
    each="batch_size",
)

# Kicks at C = 0 predict the exponent 0, a law in η/S alone predicts 1. The prediction of this one is different for each
# minimum, and its own exponent is taken off. The margin is a tenth of what lies between the other two.
P5g = Claim(
    id="P5g",
    statement="The learning rate at which a minimum is left moves with the batch size as the mean-square limit does",
    source=PATEL + "for a network derived here",
    prediction="measured over predicted goes with S to the power of 0, to 0.1",
    measures=("ratio",),
    quantity="slope of log measured/predicted transition on log S",
    statistic=SlopeOn("batch_size"),
    rule=Equivalent(0.1),
    axes=("batch_size",),
)

# How the rival explains that SGD prefers flat minima: it cannot rest elsewhere. A network can rest beyond its
# mean-square limit, up to the almost-sure one, which in pilots was 4 to 8 % higher. So the bound is 10 %. There is none
# from below: nothing makes SGD look for more than a limit above η, but a loss that has risen far may come down
# anywhere. In pilots nearly all ended between 0.8 and 1.1.
P5h = Claim(
    id="P5h",
    statement="SGD that has left a minimum comes to rest only where its learning rate is below the new minimum's limit",
    source=PATEL + "for a network derived here",
    prediction="η over the mean-square limit of the minimum that is found is at most 1.1, for every S and multiple",
    measures=("after",),
    quantity="mean over seeds of η over the new mean-square limit",
    statistic=mean,
    rule=Less(1.1),
    axes=("batch_size", "multiple"),
    each="batch_size",
)

P5 = (P5a, P5b, P5c, P5d, P5e, P5f, P5g, P5h)
