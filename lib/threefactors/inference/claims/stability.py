"""Linear stability on quadratic sums, the rival of noise kicks: where SGD lets go, how fast, what tails: P1–P3."""

from __future__ import annotations

from dataclasses import replace

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, Greater, SlopeIs
from threefactors.inference.laws import SlopeOn, mean, relative_error

PATEL = "what the mechanism of Patel (arXiv 1709.04718) implies"
DERIVED = "the mechanism: Patel, arXiv 1709.04718; the exact law: derived here"
KICKS = "noise kicks: no gradient noise, no escape (arXiv 1711.04623 read for a minimum where all gradients vanish)"

# --- P1: one dimension ---------------------------------------------------------------------------

# Each problem and batch size by itself, and the worst decides. The law is exact; 2 % is for the finite number of
# clones. Of the neighbors, S − 1 or S + 1 for S moves the limit by a tenth or more in the smallest batches, a factor
# of 2 by more; 1/S in place of (n − S)/(S(n − 1)) by 3 to 25 % at S = n, by problem.
P1a = Claim(
    id="P1a",
    statement="In one dimension the mean square ceases to shrink at η = 2λ/(λ² + p s²)",
    source=DERIVED,
    prediction="measured change of sign of ln ρ at the predicted η: to 2 %, for each problem and batch size",
    measures=("limit",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.02),
    axes=("cell",),
    each="cell",
    needs=("predicted_limit",),
)

# The same demand on the typical trajectory. The limits of the mean square are 10 to 80 % lower at S = 1.
P1b = replace(
    P1a,
    id="P1b",
    statement="In one dimension the typical trajectory ceases to shrink where E ln|1 − ηq̄| = 0",
    source="derived here; random products: Furstenberg & Kesten (1960), doi:10.1214/aoms/1177705909",
    prediction="measured change of sign of E ln|1 − ηq̄| at the predicted η: to 2 %, for each problem and batch size",
)

# From a quarter to twice the limit, where no rate is near 0. 5 %: the rate is a
# mean of ln|1 − ηq̄|, whose terms of both signs nearly cancel at some multiples. A missing η² p s² is off by far more.
P1c = Claim(
    id="P1c",
    statement="Deviations shrink and grow exponentially in steps, at the predicted rate",
    source=DERIVED,
    prediction="½ ln ρ of the mean square, E ln|1 − ηq̄| of a typical trajectory: to 5 %, at each multiple of the limit",
    measures=("growth",),
    quantity="relative error of the predicted {measure} per step",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("cell",),
    each="cell",
    needs=("predicted_growth",),
)

# The rival's answer to the same measurement, under the same rule: where all gradients vanish at the minimum nothing
# kicks, and only gradient descent's own limit is left.
P1d = Claim(
    id="P1d",
    statement="Without gradient noise at the minimum, SGD leaves it only where gradient descent does",
    source=KICKS,
    prediction="measured change of sign at η = 2/λ_1: to 2 %, for each problem and batch size",
    measures=("limit",),
    quantity="relative error of 2/λ_1 as the {measure}",
    statistic=relative_error,
    rule=Equivalent(0.02),
    axes=("cell",),
    each="cell",
    needs=("predicted_limit",),
)

# Kicks of standard deviation σ take a trajectory over a barrier ½λb² in a given time at η ∝ b²/σ²: the slope −2.
# Instability says 0. A finite time and basin make it a little negative: noise brings a trajectory back to where it
# can start again, so that the wait counts, but only through the logarithm of b/σ. 0.1 leaves room for that; it is a
# twentieth of the way to the rival, who gets a quarter of it.
P1e = Claim(
    id="P1e",
    statement="The place of the transition does not depend on the amplitude of the gradient noise",
    source=PATEL,
    prediction="slope 0 of ln η, at which half of the trajectories leave, on the log of the amplitude: within 0.1",
    measures=("limit",),
    quantity="slope of log {measure} on log amplitude",
    statistic=SlopeOn("amplitude"),
    rule=SlopeIs(0.0, 0.1),
    axes=("amplitude",),
)
P1f = Claim(
    id="P1f",
    statement="The transition comes at an η that is inversely proportional to the variance of the gradient noise",
    source="noise kicks: the exponent of Kramers (1940), doi:10.1016/S0031-8914(40)90098-2, at a fixed time to escape",
    prediction="slope −2 of ln η, at which half of the trajectories leave, on the log of the amplitude: within 0.5",
    measures=("limit",),
    quantity="slope of log {measure} on log amplitude",
    statistic=SlopeOn("amplitude"),
    rule=SlopeIs(-2.0, 0.5),
    axes=("amplitude",),
)

# Hill's estimator looks at the largest 0.5 % and takes them for a pure power, which they are only in the limit: 15 %.
# The exponents asked for, 1.5, 2, 3 and 4, are a quarter and more apart; constant noise has no power law at all.
P1g = Claim(
    id="P1g",
    statement="Between the limits, and below them, |e| has a power law with the exponent of E|1 − ηq̄|^ϑ = 1",
    source="Kesten (1973), doi:10.1007/BF02392040; for SGD derived here",
    prediction="Hill's estimate of ϑ, at ϑ from 1.5 to 4: to 15 %, for each ϑ and batch size",
    measures=("exponent",),
    quantity="relative error of the predicted {measure} of the tail",
    statistic=relative_error,
    rule=Equivalent(0.15),
    axes=("cell",),
    each="cell",
    needs=("predicted_exponent",),
)

# Where the fourth moment is finite, so that a mean of squares has an error at all. At three tenths of the limit,
# leaving out η p s² in the denominator changes the variance by a tenth and more at S = 1.
P1h = Claim(
    id="P1h",
    statement="Gradient noise gives the stationary variance ηpσ²/(2λ − η(λ² + ps²)), correlated with q or not",
    source=DERIVED,
    prediction="E e²: to 3 %, for each problem and batch size",
    measures=("variance",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.03),
    axes=("cell",),
    each="cell",
    needs=("predicted_variance",),
)

# --- P2: many dimensions -------------------------------------------------------------------------

# As P1a. Where terms do not commute, one step's limit is 6 to 14 % too low at S = 1 and the best line's 13 % or more
# too high.
P2a = replace(
    P1a,
    id="P2a",
    statement="In many dimensions the mean square ceases to shrink at η = 1/μ_max of M(X) = μ L(X)",
)

# Bounds may be attained, so that a measured limit may lie beyond them by its own error: the same 2 %.
P2b = Claim(
    id="P2b",
    statement="The limit lies between that of one step and that of a line",
    source="one step: Wu, Ma & E (NeurIPS 2018); the line: derived here",
    prediction="measured limit above one step's and below the best line's, up to 2 %, for each problem and batch size",
    measures=("beyond_one_step", "beyond_on_a_line"),
    quantity="relative distance on the right side, {measure}",
    statistic=mean,
    rule=Greater(-0.02),
    axes=("cell",),
    each="cell",
)

# As P1h.
P2c = replace(
    P1h,
    id="P2c",
    statement="In many dimensions the stationary covariance is the fixed point of the second-moment operator",
    prediction="E|e|²: to 3 %, for each problem and batch size",
)

# --- P3: small batches and large ones ------------------------------------------------------------

# √S would give ½, the noiseless limit 0. The exact law of these problems has slopes from 0.91 to 0.97 between S = 1 and
# 4, since λ² is not negligible beside s²/S: 0.15.
P3a = Claim(
    id="P3a",
    statement="For small batches the limit is proportional to the batch size",
    source=PATEL,
    prediction="slope 1 of ln η on ln S from S = 1 to 4: within 0.15, for each problem",
    measures=("limit",),
    quantity="slope of log {measure} on log S",
    statistic=SlopeOn("batch_size"),
    rule=SlopeIs(1.0, 0.15),
    axes=("problem", "batch_size"),
    each="problem",
)
P3b = replace(
    P3a,
    id="P3b",
    statement="For large batches the limit does not depend on the batch size",
    prediction="slope 0 of ln η on ln S: within 0.05, for each problem",
    rule=SlopeIs(0.0, 0.05),
)

# At the batch sizes used the exact limits are within 0.9 % of 2/λ_1.
P3c = replace(
    P1d,
    id="P3c",
    statement="For large batches the limit is that of gradient descent, 2/λ_1",
    source=PATEL,
    prediction="measured limit over 2/λ_1: to 2 %, for each problem and batch size",
)

# Two problems that differ in their least curvature alone. 5 % is for the error of a quotient of two measurements; by
# how much the limits differ falls from 75 % at S = 1 to nothing.
P3d = Claim(
    id="P3d",
    statement="What flatness costs: the limits of two minima that differ in their least curvature alone",
    source=DERIVED,
    prediction="quotient of the two limits as predicted: to 5 %, for each batch size",
    measures=("advantage",),
    quantity="relative error of the predicted {measure} of the less flat one",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("batch_size",),
    each="batch_size",
    needs=("predicted_advantage",),
)

# What a limit says that knows nothing but λ_1, as gradient descent's and that of noise kicks without gradient noise.
# Patel's statement for large batches is this one, too. 2 %, as for every limit.
P3e = Claim(
    id="P3e",
    statement="The limit is blind to flatness: minima of equal largest curvature are left at the same η",
    source=f"{PATEL}, for large batches; noise kicks, for all",
    prediction="ln of the quotient of the two limits is 0: within 0.02, for each batch size",
    measures=("log_advantage",),
    quantity="mean {measure}",
    statistic=mean,
    rule=Equivalent(0.02),
    axes=("batch_size",),
    each="batch_size",
)

# As P2b.
P3f = Claim(
    id="P3f",
    statement="Bounds from λ_1, λ_m and the least and largest eigenvalue of E(Q − Q̄)² hold the limit between them",
    source=f"{PATEL}; in the form given here derived",
    prediction="measured limit between the bounds, up to 2 %, for each problem and batch size",
    measures=("beyond_converges_below", "beyond_diverges_above"),
    quantity="relative distance on the right side, {measure}",
    statistic=mean,
    rule=Greater(-0.02),
    axes=("cell",),
    each="cell",
)
