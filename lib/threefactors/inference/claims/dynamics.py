"""Learning curves of pairs of schedules: claims C1 and C2, and what the clock has to say about them."""

from __future__ import annotations

from dataclasses import replace

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.decisions import Equivalent, Greater
from threefactors.inference.laws import mean

# "Overlap" is a word about a picture. Here it is: at every one of eleven points along the way the mean difference of
# the two curves, seed by seed, lies within a band, for the training loss and for both accuracies. One point that is
# surely outside refutes (intersection–union: no correction is needed to support). The differences are in half-widths
# of the band, so that one rule serves all measures; the half-widths and their reasons are in ``inference.curves``:
# a factor √2 in the loss, which is half way to where equal η/√S would lie, and two points of accuracy.
#
# The first twelfth of the way is left out. There a curve falls by factors within one epoch, of which the run with the
# large batch makes a few dozen steps: the two are discretizations of one path at the roughest stretch, and neither the
# paper's argument nor the flow claims that they agree there. Later there is no excuse.
C1 = Claim(
    id="C1",
    statement="A learning-rate schedule can be replaced by the batch-size schedule with the same η/S",
    source=PAPER,
    prediction="training loss, training accuracy and validation accuracy stay within the band at every point",
    measures=("train_loss_gap", "train_accuracy_gap", "validation_accuracy_gap"),
    quantity="difference of the two curves ({measure}), in half-widths of the band,",
    statistic=mean,
    rule=Equivalent(1.0),
    axes=("point",),
    each="point",
)

C2a = replace(
    C1,
    id="C2a",
    statement="Constant learning rates and batch sizes with the same η/S have the same learning curves",
)

# The counterpart. The band must be left, and on the side where the slower clock is: the pair's second member, with
# the larger batch, has the smaller η/S. The mean over the points, since the claim is about the curve as a whole.
# The loss alone: accuracies of an easy task meet at 100 %.
C2b = Claim(
    id="C2b",
    statement="Constant learning rates and batch sizes with the same η/√S have different learning curves",
    source=PAPER,
    prediction="the training loss of the larger batch lies above by more than the band, on the mean over the points",
    measures=("train_loss_gap",),
    quantity="mean difference of the two curves ({measure}), in half-widths of the band,",
    statistic=mean,
    rule=Greater(1.0),
    axes=(),  # one row a seed: its mean over the points
)

# What the paper did not ask. If curves of equal η/S overlap because their clocks agree, then curves of any η and S
# overlap as soon as they are drawn against the clock; if the noise matters, those of different η/S do not.
T1 = replace(
    C1,
    id="T1",
    statement="Against the clock, learning curves of any learning rates and batch sizes are the same",
    source="the rival explanation of C1 and C2: gradient flow, which knows only the clock",
)

# Two curves may run at different speeds over one path. Then at equal training loss nothing is left to differ.
C2c = replace(
    C1,
    id="C2c",
    statement="At equal training loss, both networks of a pair have the same validation accuracy and curvature",
    source="the claims C1 and C2 (arXiv 1711.04623), with the progress of training taken out",
    prediction="validation accuracy and Tr H stay within the band at every training loss",
    measures=("validation_accuracy_gap", "trace_gap"),
)
