"""Cyclic schedules of the learning rate and of the batch size against constant ones (C9)."""

from __future__ import annotations

from dataclasses import replace

from threefactors.inference.claim import PAPER, Claim
from threefactors.inference.cycles import CONSTANT, CYCLE, LogRatio
from threefactors.inference.decisions import Equivalent, Less

WIDTHS = ("sharpness", "trace", "frobenius")
cycle_over_constant = LogRatio("role", CYCLE, CONSTANT)

# The paper's word is "wider", which names no single measure: all three have to agree, as in C3a, and every cyclic
# schedule by itself (intersection–union). No margin: the claim gives a direction; its "much" is left to the estimate.
# Of all constants, the one with the same mean η/S has the same clock in the same epochs: only cycling differs.
C9a = Claim(
    id="C9a",
    statement="A cyclic schedule ends in a wider minimum than the constant one of the same mean η/S",
    source="the paper's claim (arXiv 1711.04623), against the constant that shares its epochs and its clock",
    prediction="λ_max, Tr H and ‖H‖_F are smaller than for the constant of the same mean, for every cycle by itself",
    measures=WIDTHS,
    quantity="log of the ratio cycle/constant of {measure}",
    statistic=cycle_over_constant,
    rule=Less(0.0),
    axes=("schedule", "role"),
    each="schedule",
)

C9b = replace(
    C9a,
    id="C9b",
    statement="A cyclic schedule ends in a wider minimum than the constant one at its low end",
    source=PAPER,
    prediction="λ_max, Tr H and ‖H‖_F are smaller than for the constant of the lowest η/S, for every cycle by itself",
)

# Margin 0.2, a ratio of 0.82 to 1.22. It must be well below the effect that the cycles are said to have ("much
# wider"), else a cycle would be "equivalent" to no cycle at all; in pilots a square cycle and the constant of its mean
# differed by 0.3 to 0.4. It is not smaller since the η of the two cycles differs in the low phase by a factor of
# 5, and with it the terms of relative order ηλ that the equivalence neglects by its own account.
C9c = Claim(
    id="C9c",
    statement="A square cycle of the batch size is as wide as the square cycle of the learning rate with the same η/S",
    source="what depending on η/S alone means for cycles, in the spirit of arXiv 1711.04623",
    prediction="λ_max, Tr H and ‖H‖_F of the two cycles are equal, to 0.2 in the natural logarithm",
    measures=WIDTHS,
    quantity="log of the ratio learning rate/batch size of {measure}",
    statistic=LogRatio("turned", "learning rate", "batch size"),
    rule=Equivalent(0.2),
    axes=("turned",),
)

# The rival explanation of C9a, derived in the chapter: a cycle spends most of its clock where η/S is high, so that on
# the clock it injects as much noise as a constant of a higher ratio. The same margin, and square cycles only: for a
# triangle this constant and that of the same mean are too close together to be told apart by it.
C9d = replace(
    C9a,
    id="C9d",
    statement="A square cycle is as wide as the constant one that injects the same noise on the same clock",
    source="derived here: at equal clock a cycle injects the noise of a constant with η/S = ⟨(η/S)²⟩/⟨η/S⟩",
    prediction="λ_max, Tr H and ‖H‖_F are equal, to 0.2 in the natural logarithm",
    rule=Equivalent(0.2),
)

# What would make cycling worth while: that it beats not cycling at all, at the noisier of its two ends.
C9e = replace(
    C9a,
    id="C9e",
    statement="A cyclic schedule ends in a wider minimum than the constant one at its high end",
    source="stronger than arXiv 1711.04623, as far as its constants are known",
    prediction="λ_max, Tr H and ‖H‖_F are smaller than for the constant of the highest η/S, for every cycle by itself",
)
