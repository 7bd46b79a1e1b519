"""The third factor: what the gradient covariance does at fixed learning rate and batch size (C12)."""

from __future__ import annotations

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import Equivalent, Less, SlopeIs
from threefactors.inference.laws import SlopeOn, relative_error

ARGUED = "argued, not measured, in arXiv 1711.04623"
LUO = "Luo et al., arXiv 2009.11858"

# Every change by itself, and the worst decides. The mildest change of the experiment moves Tr C, and with it the
# height, by a tenth, so that 2 % tells each from no change at all; an error of the theory (a weight not squared, a
# factor of 2 or of S) is far outside. The closed form is exact: the margin is for the finite number of trajectories.
C12a = Claim(
    id="C12a",
    statement="The stationary loss follows the gradient covariance, whichever way that is changed",
    source=ARGUED,
    prediction="E[L] − L* = ½ Tr HΣ with HΣ + ΣH − ηHΣH = (η/S) C and the closed form of C: to 2 %, for each change",
    measures=("loss",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.02),
    axes=("change",),
    each="change",
    needs=("predicted_loss",),
)

# The law says 1. If the height followed the standard deviation of the noise the slope would be 1/2, if its square, 2;
# the margin reaches half of the way to the nearer one. It is not smaller because a network is no bowl: the curvature
# that holds the noise changes along with it, and slow directions have not become stationary.
C12b = Claim(
    id="C12b",
    statement="At fixed η and S, the height of the loss above its minimum is proportional to Tr C",
    source=ARGUED,
    prediction="the slope of ln(E[L] − L*) on ln Tr C is 1, within 1/4",
    measures=("excess",),
    quantity="slope of log {measure} on log Tr C",
    statistic=SlopeOn("noise_trace"),
    rule=SlopeIs(1.0, 0.25),
    axes=("noise_dial",),
    needs=("noise_trace",),
)

# Regressed on the dial that was turned and not on the measured Tr C: a narrow minimum has larger gradients, and so a
# larger Tr C, and the regression would find that. All three measures have to agree, as in C3a. No margin: the claim
# gives a direction.
C12c = Claim(
    id="C12c",
    statement="At fixed η and S, more gradient noise leads to a wider minimum",
    source=ARGUED,
    prediction="λ_max, Tr H and ‖H‖_F fall with the strength of the injected noise",
    measures=("sharpness", "trace", "frobenius"),
    quantity="slope of log {measure} on the log of the injected noise",
    statistic=SlopeOn("noise_dial"),
    rule=Less(0.0),
    axes=("noise_dial",),
)

# Every eigendirection of H by itself. Where C is not H, the three-factor relation is off by a factor of 2 or more in
# some direction, and by a sixteenth at least in each: 5 % tells the two relations apart everywhere.
C12d = Claim(
    id="C12d",
    statement="General relation: Hessian and gradient covariance together shape the stationary cloud",
    source=LUO,
    prediction="⟨θ_k²⟩ from HΣ + ΣH − ηHΣH = (η/S) C: to 5 %, along every eigenvector of H, for C ∈ {H, I, H²}",
    measures=("spread",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("direction",),
    each="direction",
    needs=("predicted_spread",),
)
C12e = Claim(
    id="C12e",
    statement="Three-factor relation: the stationary cloud is round, whatever the gradient covariance",
    source="what C = H gives in arXiv 1711.04623; that it fails elsewhere: " + LUO,
    prediction="⟨θ_k²⟩ = η/(S(2 − ηλ_k)), close to η/2S: to 5 %, along every eigenvector of H",
    measures=("spread",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("direction",),
    each="direction",
    needs=("predicted_spread",),
)

# The same margin as for the cloud; at equal trace the exact laws of the three covariances differ by 2 %.
C12f = Claim(
    id="C12f",
    statement="Three-factor relation: the stationary loss is set by Tr H, whatever the gradient covariance",
    source="what C = H gives in arXiv 1711.04623; that it fails elsewhere: " + LUO,
    prediction="E[L] − L* = (η/4S) Tr H: to 5 %, for each covariance",
    measures=("loss",),
    quantity="relative error of the predicted {measure}",
    statistic=relative_error,
    rule=Equivalent(0.05),
    axes=("change",),
    each="change",
    needs=("predicted_loss",),
)
