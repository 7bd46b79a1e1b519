"""Random labels: how much of them is learnt by heart, and at what price for the clean ones. Claim C10."""

from __future__ import annotations

from dataclasses import replace

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.claims.width import points_per_tenfold_ratio
from threefactors.inference.decisions import Greater, Less

POINTS = "slope of {measure}, in percentage points per tenfold η/S,"

# The paper compares runs at the same accuracy on the random labels, whenever they reach it. The level is one half, far
# from chance and from the end, where all labels are memorized and nothing is left to compare. Both accuracies are
# interpolated between the looks around the first crossing. "Equal epochs" is the protocol because all runs are given
# the same number of epochs to come that far; a run that does not is censored, and counts as lost. No margin: the claim
# gives a direction.
C10a = Claim(
    id="C10a",
    statement="At equal memorization of random labels, a higher ratio η/S gives a better accuracy on clean data",
    source=PAPER,
    prediction="validation accuracy, where half of the wrong labels are memorized, rises with η/S",
    measures=("accuracy_at_half",),
    quantity=POINTS,
    statistic=points_per_tenfold_ratio,
    rule=Greater(0.0),
)

# The shorter form in which the claim is usually told. What "at the end of training" means is the protocol's to say, and
# the clock alone should refute it at equal epochs, where a higher ratio has trained for longer.
C10b = Claim(
    id="C10b",
    statement="A higher ratio η/S leads to less memorization of random labels",
    source=PAPER,
    prediction="the share of wrong labels memorized at the end of training falls with η/S",
    measures=("memorized",),
    quantity=POINTS,
    statistic=points_per_tenfold_ratio,
    rule=Less(0.0),
)

# What stopping early could gain. The largest of many noisy accuracies is too large, the more so the noisier they are,
# and a high ratio makes them noisier. So the moment is chosen on the validation set, and scored on the test set.
C10c = replace(
    C10a,
    id="C10c",
    statement="The best accuracy on clean data along training rises with the ratio η/S",
    source="what the paper's claim (arXiv 1711.04623) would mean for stopping early",
    prediction="test accuracy, at the moment of the best validation accuracy, rises with η/S",
    measures=("peak_accuracy",),
)

C10d = replace(
    C10a,
    id="C10d",
    statement="With random labels, a higher ratio η/S gives a better accuracy on clean data at the end of training",
    prediction="validation accuracy at the end of training rises with η/S",
    measures=("validation_accuracy",),
)

# The same claim of the place and not of the point: what a run passes through is a place, and how far it floats from it
# is another effect of the same noise. Descent without noise for a short clock takes the second away. Runs are then
# compared at half memorization *after* the quench, where their training losses, interpolated in the same way, have to
# be equal too: hence "equal loss".
C10e = replace(
    C10a,
    id="C10e",
    statement="At equal memorization, with the noise quenched, a higher η/S has led to better accuracy on clean data",
    source="the paper's claim (arXiv 1711.04623), of the place that a run has come to",
    prediction="after a quench, validation accuracy where half of the wrong labels are memorized rises with η/S",
)
