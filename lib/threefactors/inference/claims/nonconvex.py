"""Nonconvex sums: which mechanism carries SGD out of a minimum, linear instability or noise kicks (P4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, Less, SlopeIs
from threefactors.inference.laws import mean, relative_error

PATEL = "the mechanism: Patel, arXiv 1709.04718; the threshold: derived here"
IMPLIED = "what the mechanism of Patel (arXiv 1709.04718) implies"
DERIVED = "derived here"
KRAMERS = "Kramers (1940), doi:10.1016/S0031-8914(40)90098-2, for the noise scale η/S of arXiv 1711.04623"

# Every minimum and batch size by itself, on random sums that differ from seed to seed. Half of the trajectories get
# out where the tail exponent is ln 2/ln(b/δ) = 0.04 for the start that is used, one to three percent below η_as, and
# η_as is sampled to half a percent: 5 % leaves room for both. At S = 1 the mean-square limit is less than three
# quarters of η_as, and at the largest S the two agree to 2 %, so that the small batches decide between them.
P4a = Claim(
    id="P4a",
    statement="Where all terms share a minimum, trajectories that start near it lose it at the almost sure limit",
    source=PATEL,
    prediction="half of them leave its neighborhood at η_as(S) of the terms' Hessians, within 5 %, "
    "at each minimum and batch size",
    measures=("lost_at",),
    quantity="relative error of the predicted learning rate",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("place",),
    each="place",
    needs=("predicted_lost_at",),
)
P4b = replace(
    P4a,
    id="P4b",
    statement="Where all terms share a minimum, trajectories that start near it lose it at the mean-square limit",
    prediction="half of them leave its neighborhood at η_ms(S) of the terms' Hessians, within 5 %, "
    "at each minimum and batch size",
)

# To lose a minimum is not to leave its basin: beyond the limit there may be stable cycles inside. In a circle with the
# profile ρ exp(−(ρ/R)⁸) a cycle of two steps is stable up to η = e^{1/8} · 2/λ, and 15 % allows for it. Where
# 3 f‴² > λ f⁗ > 0, as at both minima of Styblinski and Tang, the cycle is born stable too, and nothing bounds its
# range by 15 %.
P4c = Claim(
    id="P4c",
    statement="Where all terms share a minimum, its basin is left at the almost sure limit",
    source=PATEL,
    prediction="half of the trajectories cross the barrier at η_as(S) of the terms' Hessians, within 15 %, "
    "at each minimum and batch size",
    measures=("left_at",),
    quantity="relative error of the predicted learning rate",
    statistic=relative_error,
    rule=Equivalent(0.15),
    axes=("place",),
    each="place",
    needs=("predicted_left_at",),
)

# Opposite predictions: instability asks for the curvature, kicks for the barrier. In both landscapes the sharper
# minimum is the deeper one. No margin: the claim gives a direction.
P4d = Claim(
    id="P4d",
    statement="The sharper minimum is left at the lower learning rate, although it is the deeper one",
    source=IMPLIED,
    prediction="ln(η_sharp/η_wide) of the transitions is negative at each batch size",
    measures=("order",),
    quantity="ln(η_sharp/η_wide)",
    statistic=mean,
    rule=Less(0.0),
    axes=("batch_size",),
    each="batch_size",
)

# Gradient noise alone, so strong that the diffusion lets half of the trajectories out below η = 1/λ, half of the limit
# of stability: only there are steps small beside the relaxation. Finite steps raise the temperature near the minimum by
# ηλ/2, at most a half, and lower it on the barrier; the two are taken to cancel but for 15 %. The rival, 2/λ, is at
# least twice as large in every cell.
P4e = replace(
    P4c,
    id="P4e",
    statement="Without Hessian noise and with strong gradient noise, the basin is left where kicks carry over its edge",
    source=KRAMERS,
    prediction="half of the trajectories are out where the diffusion's mean escape time is horizon/ln 2, within 15 %, "
    "at each minimum and batch size",
)
P4f = replace(
    P4c,
    id="P4f",
    statement="Without Hessian noise and with strong gradient noise, the basin is left where descent is unstable",
    source=IMPLIED,
    prediction="half of the trajectories are out at η = 2/λ, within 15 %, at each minimum and batch size",
)

# Plain SGD, and with a quarter and four times its gradient noise. Predictions without a fitted number, over a grid on
# which the transition moves by a factor of 30 or more; one that is right to a factor of 1.5, in the mean of the
# logarithm over minima and amplitudes, names the mechanism. Instability means η_ms here, where the stationary variance
# ends. Loose on purpose: cycles in the basin alone delay by up to a third. "Never" counts as the end of the grid.
P4g = Claim(
    id="P4g",
    statement="The named mechanism predicts where SGD with both kinds of noise leaves a basin",
    source=DERIVED,
    prediction="|ln(η measured/η predicted)|, mean over minima and amplitudes, below ln 1.5 at each batch size",
    measures=("miss",),
    quantity="mean of |ln(measured/predicted)|",
    statistic=mean,
    rule=Less(float(np.log(1.5))),
    axes=("batch_size", "minimum", "amplitude"),
    each="batch_size",
)

# What a deterministic mechanism says of gradient noise: nothing. A tenth is the distance of two learning rates on
# the grid; kicks alone would move the transition by a factor of 16.
P4h = Claim(
    id="P4h",
    statement="Where SGD leaves a basin does not depend on the amplitude of the gradient noise",
    source=IMPLIED,
    prediction="ln of the transition at κ = 1 over that at κ = 1/4 is 0, within 0.1, at each batch size",
    measures=("shift",),
    quantity="ln(η at κ = 1 / η at κ = 1/4)",
    statistic=mean,
    rule=Equivalent(0.1),
    axes=("batch_size", "minimum"),
    each="batch_size",
)

# Two starts, so that what happens at the end of the way out cancels. The sample of trajectories asks for 10 %. Had the
# mean square the say, the rate would be ½ ln ρ, more than half as large again at S = 1.
P4i = Claim(
    id="P4i",
    statement="Beyond the limit trajectories leave exponentially fast, at the rate of the Lyapunov exponent",
    source=PATEL,
    prediction="ln(10⁴) over the difference of mean escape times from starts 10⁴ apart is E ln of a step's factor, "
    "within 10 %, at each batch size",
    measures=("rate",),
    quantity="relative error of the predicted {measure} per step",
    statistic=relative_error,
    rule=Equivalent(0.1),
    axes=("batch_size", "minimum"),
    each="batch_size",
    needs=("predicted_rate",),
)

# Waiting without memory has a standard deviation equal to its mean. A way out of constant growth takes its time with
# little spread: variance over mean squared is var(ln factor)/(G ln(b/δ)), below a half here.
P4j = Claim(
    id="P4j",
    statement="Escape times are distributed exponentially: trajectories wait for a rare kick, without memory",
    source=KRAMERS,
    prediction="standard deviation over mean of the escape times is 1, within 0.15, at each batch size",
    measures=("spread",),
    quantity="standard deviation over mean of the escape times",
    statistic=mean,
    rule=SlopeIs(1.0, 0.15),
    axes=("batch_size", "minimum"),
    each="batch_size",
)
