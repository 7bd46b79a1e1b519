# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which minimum?
#
# **Question.** A landscape has two minima, one deep and narrow, one shallow and wide. In which of them does SGD spend
# its time, and how long does it take to get from one to the other?
#
# Near one minimum the noise of SGD decides how high it floats. Between two minima it decides *which one*. The paper
# answers with Boltzmann's law for noise that is the same everywhere and in all directions: more noise favors width over
# depth {cite}`jastrzebski2018`. That law is a theorem; this chapter proves it and measures it where its
# assumption holds. Then it drops the assumption, because the noise of real networks is nothing of the kind.
#
# ## The law under isotropic noise
#
# Let every component of one example's gradient have the same variance $\sigma^2$, independently of the others and of
# the parameters: $C = \sigma^2 I$. With the noise scale $n = \eta/S$, SGD is the Euler–Maruyama scheme, with step
# $\eta$, of
#
# ```{math}
# :label: eq-which-sde
# \mathrm{d}\theta = -\nabla L\,\mathrm{d}t + \sqrt{n\sigma^2}\;\mathrm{d}W , \qquad T = \tfrac12 n\sigma^2 .
# ```
#
# The abbreviation $T$ is the {term}`temperature` (in this chapter alone; elsewhere $T$ is the clock): it has the unit
# of the loss, and {eq}`eq-which-sde` is the motion of an overdamped particle in the potential $L$ with that thermal
# energy.
#
# The density $p(\theta, t)$ of the parameters follows from Itô's formula. For a smooth function $f$ that vanishes far
# out, $\mathrm{d}\,\mathbb{E}[f]/\mathrm{d}t = \mathbb{E}[-\nabla L\cdot\nabla f + T\,\Delta f]$; integrating by parts
# moves the derivatives from $f$ to $p$, and since $f$ is arbitrary this is the {term}`Fokker–Planck equation`
#
# ```{math}
# :label: eq-which-fokker-planck
# \partial_t\, p = -\nabla\cdot J , \qquad J = -p\,\nabla L - T\,\nabla p .
# ```
#
# The stationary solution is the {term}`Boltzmann distribution`.
#
# :::{admonition} Theorem (Boltzmann)
# :class: tip
# If $Z = \int e^{-L/T}\,\mathrm{d}\theta$ is finite, then $p = e^{-L/T}/Z = e^{-2L/(n\sigma^2)}/Z$ is stationary, and
# its current $J$ vanishes everywhere. If far out $\theta\cdot\nabla L \ge c\,|\theta|$ with some $c > 0$, every start
# leads to it.
# :::
#
# :::{dropdown} Proof
# $\nabla p = -p\,\nabla L/T$, so that $J = -p\nabla L + p\nabla L = 0$ and $\partial_t p = 0$. To see that nothing
# else is stationary, write any density as $q = p\,u$. Then $J = -T p\,\nabla u$, and the weighted distance $D = \int
# p\,(u-1)^2$ changes by $\dot D = 2\int (u-1)\,\partial_t q = -2T\int p\,|\nabla u|^2 \le 0$, with equality only for
# constant $u$, that is $q = p$: from any start of finite $D$. If $L$ rises as stated, $p$ obeys a Poincaré inequality, $D \le K\int p\,|\nabla u|^2$
# with some $K$, and $D$, once finite, decays exponentially.
# :::
#
# A density is not yet a preference. The probability of a minimum is that of its basin, and there {term}`Laplace's
# method` replaces $L$ by its quadratic part.
#
# :::{admonition} Theorem (depth against width)
# :class: tip
# Let $A$ and $B$ be minima with losses $L_A, L_B$ and positive definite Hessians $H_A, H_B$. As $n\sigma^2 \to 0$,
#
# ```{math}
# :label: eq-which-odds
# \frac{p_A}{p_B} = \sqrt{\frac{\det H_B}{\det H_A}}\;
# \exp\!\Bigl[\frac{2\,(L_B - L_A)}{n\sigma^2}\Bigr]\,\bigl(1 + O(n\sigma^2)\bigr) ,
# ```
#
# so that to leading order $A$ is the likelier one if and only if
#
# ```{math}
# :label: eq-which-flip
# L_A - L_B < \tfrac14\, n\sigma^2 \,\ln\frac{\det H_B}{\det H_A} .
# ```
# :::
#
# :::{dropdown} Proof
# Put $\theta = \theta_A + \sqrt{T}\,z$. In the basin of $A$,
#
# $$L = L_A + \tfrac{T}{2} z^\top H_A z + T^{3/2} c_3(z) + T^2 c_4(z) + \dots$$
#
# with homogeneous polynomials of degree 3 and 4, hence
#
# $$\int_A e^{-L/T}\mathrm{d}\theta = T^{d/2}e^{-L_A/T}\int e^{-z^\top H_A z/2}\bigl(1 - \sqrt{T}\,c_3
# + T(\tfrac12 c_3^2 - c_4) + \dots\bigr)\mathrm{d}z .$$
#
# The term with $c_3$ is odd and integrates to zero, and the Gaussian integral is $(2\pi)^{d/2}/\sqrt{\det H_A}$. What
# the basin cuts off is exponentially small. Dividing the two integrals gives {eq}`eq-which-odds`; its logarithm,
# compared with 0, gives {eq}`eq-which-flip`.
# :::
#
# A narrow minimum has the larger determinant, so the right-hand side of {eq}`eq-which-flip` is negative for it: it must
# be deeper by more than that to win. Below the noise scale of equality depth decides, above it width. Only the product
# $n\sigma^2 = \eta\sigma^2/S$ matters. At a fixed learning rate the log-odds are a straight line in the batch size.
#
# **In one dimension and in many.** One coordinate $x$ leads from $A$ at $x=-1$ to $B$ at $x=+1$ through a potential
# $V(x)$; the other $d-1$ coordinates $y$ are bound with a stiffness that changes on the way:
#
# ```{math}
# :label: eq-which-transverse
# L(x, y) = V(x) + \tfrac12 k(x)\,|y|^2 , \qquad
# p(x) \propto e^{-F(x)/T}, \quad F = V + \tfrac{d-1}{2}\,T \ln k .
# ```
#
# The integral over $y$ is Gaussian, and so the marginal density is exact. $F$ is a {term}`free energy`: its second term
# is entropy, the logarithm of how much room there is across. The narrow pass repels although no gradient of $V$ does;
# what pushes is the mean of the force $-\tfrac12 k'(x)\,|y|^2$. With $\ln k$ linear in $x$, the entropy is a constant
# slope that grows with the noise and with the dimension.
#
# ```{index} escape; time of
# ```
#
# ```{index} Eyring–Kramers law
# ```
#
# ## How long does it take?
#
# The mean time $\tau(x)$ to reach $b$ from $x < b$ obeys the backward equation $T\tau'' - L'\tau' = -1$ with
# $\tau(b) = 0$: after a time $\mathrm{d}t$ the time still to go has shrunk by $\mathrm{d}t$. Multiplied by
# $e^{-L/T}/T$ the left side is the derivative of $e^{-L/T}\tau'$, and integrating twice gives, in one dimension and
# exactly,
#
# ```{math}
# :label: eq-which-passage
# \tau(a) = \frac1T\int_a^b \mathrm{d}y\; e^{L(y)/T}\int_{-\infty}^{y}\mathrm{d}z\; e^{-L(z)/T} .
# ```
#
# For small $T$ the first integral comes from around the barrier $s$ and the second from around the minimum. Both are
# Gaussian by Laplace's method, and the result is {term}`Kramers' law` {cite}`kramers1940`, here in the form of Eyring
# for any dimension {cite}`berglund2011`:
#
# ```{math}
# :label: eq-which-kramers
# \frac1\tau \simeq \frac{|\lambda_s|}{2\pi}\sqrt{\frac{\det H_A}{|\det H_s|}}\; e^{-2\,\Delta L/(n\sigma^2)} ,
# \qquad \Delta L = L_s - L_A .
# ```
#
# $H_s$ is the Hessian at the saddle and $\lambda_s$ its only negative eigenvalue. The relative error is of the order of
# $T/\Delta L$. At an equal barrier a narrow minimum is left faster: it has little room to stay in. And the rate out of
# $B$ over the rate out of $A$ is {eq}`eq-which-odds` again, as {term}`detailed balance` demands.
#
# ```{index} probability current
# ```
#
# ## When the noise is not isotropic
#
# The noise of SGD is closer to $C = H$ than to $C = \sigma^2 I$, and then it depends on the place and on the
# direction. Both matter.
#
# :::{admonition} Theorem (noise that depends on the place)
# :class: tip
# In one dimension let $\mathrm{d}\theta = -L'\,\mathrm{d}t + \sqrt{n\,C(\theta)}\,\mathrm{d}W$ in the sense of Itô,
# which is the limit of SGD, where each step draws its noise at the place where it starts. If it can be normalized, the
# stationary density is
#
# ```{math}
# :label: eq-which-ito
# p(\theta) \propto \frac{1}{C(\theta)}\,\exp\!\Bigl(-\frac2n\int^\theta \frac{L'}{C}\Bigr) .
# ```
# :::
#
# :::{dropdown} Proof
# The Fokker–Planck equation now has the current $J = -L'p - \tfrac n2 (Cp)'$. A stationary current is constant, and
# zero because it vanishes far out. Then $(Cp)'/(Cp) = -2L'/(nC)$, and integrating gives {eq}`eq-which-ito`.
# :::
#
# The loss is replaced by the quasi-potential $\int L'/C$. With $C$ equal to the curvature at each minimum, the way
# out of a minimum costs about its barrier *divided by its curvature*: now the exponent itself favors width, and not
# the prefactor alone {cite}`xie2021`. An exponent wins as the noise falls, so that a minimum can be preferred for its
# width at every noise scale, where Boltzmann's law would flip.
#
# :::{admonition} Theorem (noise that depends on the direction)
# :class: tip
# In a bowl with Hessian $H$ let $C$ be constant and positive definite, and $H\Sigma + \Sigma H = nC$. The stationary
# density is Gaussian with covariance $\Sigma$, and probability flows with the velocity
#
# ```{math}
# :label: eq-which-current
# \frac{J}{p} = A\,\theta , \qquad A = \tfrac n2\, C\,\Sigma^{-1} - H .
# ```
#
# $A\Sigma$ is antisymmetric: the flow follows the lines of equal density. It is zero if and only if $HC = CH$.
# :::
#
# :::{dropdown} Proof
# $J = -H\theta\,p - \tfrac n2 C\nabla p$ and $\nabla p = -\Sigma^{-1}\theta\,p$ give the velocity. By the equation for
# $\Sigma$, $A\Sigma = \tfrac n2 C - H\Sigma = \tfrac12(\Sigma H - H\Sigma)$, which is antisymmetric, so that
# $\theta^\top\Sigma^{-1}A\theta = 0$: the velocity is along the level lines of $p$. It vanishes iff $H\Sigma = \Sigma
# H$; then $\Sigma = \tfrac n2 H^{-1}C$, so that $H^{-1}C$ is symmetric, which is $HC = CH$. Conversely, if these
# commute, $\tfrac n2 H^{-1}C$ solves the equation and commutes with $H$.
# :::
#
# ```{margin} Less noise, as fast
# $\Sigma$ is proportional to $n$, so that $A$ does not depend on it: less noise makes the cloud smaller, and does not
# slow its turning.
# ```
#
# A current means that *no* function of the loss and a temperature describes the stationary state: SGD goes round in
# circles for ever {cite}`chaudhari2018`.
#
# ## Finite steps
#
# SGD takes steps of length $\eta$ and is only close to its diffusion. The first correction is known; it is derived here
# for one dimension, and holds in any with $|\nabla L|^2$ for $L'^2$ and $\Delta L$ for $L''$.
#
# :::{admonition} Theorem (the density of finite steps)
# :class: tip
# For fixed $T$ and small $\eta$ the iteration $\theta' = \theta - \eta L' + \sqrt{2T\eta}\,\xi$ has the stationary
# density
#
# ```{math}
# :label: eq-which-step
# p(\theta) \propto \exp\Bigl[-\frac1T\Bigl(L - \frac{\eta}{4} L'^2 + \frac{\eta T}{2}\, L''\Bigr)\Bigr]
# \bigl(1 + O(\eta^2)\bigr) .
# ```
# :::
#
# :::{dropdown} Proof
# By Taylor's formula one step changes the mean of a smooth $f$ by
#
# $$\eta\,\mathbb{E}\bigl[-L'f' + Tf''\bigr] + \eta^2\,\mathbb{E}\bigl[\tfrac12 L'^2 f'' - T L' f^{(3)}
# + \tfrac12 T^2 f^{(4)}\bigr] + O(\eta^3) ,$$
#
# which must vanish. Let $p_0 \propto e^{-L/T}$ and $p = p_0(1 + \eta h)$. At order $\eta^2$, after integrating by parts
# and using $-p_0L' = Tp_0'$ twice, this says $(p_0 h')' = -\tfrac12 (p_0 L'')''$. Hence
# $h' = -\tfrac12 (p_0L'')'/p_0 = -\tfrac12 L^{(3)} + L'L''/(2T)$, and $h = -\tfrac12 L'' + L'^2/(4T)$.
# :::
#
# At a minimum $L' = 0$. The sharper one loses the factor $e^{-\eta\lambda/2}$, with $\lambda = L''$ there; and since
# $L - \frac\eta4 L'^2$ is a bowl of curvature $\lambda(1-\frac12\eta\lambda)$, it regains half of that. Altogether
# finite steps move the log-odds by $-\frac\eta4(\lambda_A - \lambda_B)$, in $d$ dimensions with traces. They favor
# width as well, but without the factor $1/T$.
#
# ## Predictions
#
# The claims were written before the experiment ran, with the reasons for their margins
# (`threefactors.inference.claims.which_minimum`). All constants are known; nothing is fitted. The landscapes and batch
# sizes were chosen with the exact law at hand, so that the odds change sides within the range that is simulated.
#
# | claim | prediction | where |
# |---|---|---|
# | **C14a** | log-odds of {eq}`eq-which-transverse` by quadrature, each batch size | 1 and 5 dimensions; where it must fail |
# | **C14b** | the batch size of the flip | 1 and 5 dimensions |
# | **C14c** | mean escape time {eq}`eq-which-passage` | 1 dimension |
# | **C14d** | slope 1 of $\ln\tau$ on $2\Delta L/(n\sigma^2)$ | 1 and 3 dimensions |
# | **C14e** | log-odds of {eq}`eq-which-ito` | noise like the curvature |
# | **C14f** | circulation from {eq}`eq-which-current` | $HC \ne CH$ |
#
# C14a is also judged on the noise that follows the curvature. There Boltzmann's law is *expected to be refuted*.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %% [markdown]
# ## The experiment
#
# SGD with Gaussian gradient noise of known covariance, at one learning rate. The batch size sets the noise. Half of the
# trajectories start in each well, five relaxation times are thrown away, and two are watched.

# %%
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pandas as pd

from threefactors.inference import judge_family
from threefactors.inference.claims import which_minimum as claims
from threefactors.inference.effective import effective_size, log_odds
from threefactors.simulation.diffusion import euler_maruyama
from threefactors.simulation.passage import circulation_rate, first_passage
from threefactors.simulation.wells import DoubleWell, noisy_descent, sojourns
from threefactors.theory import boltzmann, escape
from threefactors.theory.ou import lyapunov_covariance

SIZES = {
    "smoke": dict(seeds=5, trajectories=64, odds=2, escapes=2, steps=200),
    "laptop": dict(seeds=8, trajectories=600, odds=4, escapes=3, steps=1500),
    "paper": dict(seeds=16, trajectories=6000, odds=4, escapes=3, steps=20_000),
}
size = SimpleNamespace(**SIZES[scale])
lr, variance = 0.04, 20.0  # η and σ²
wells = {
    "1 dimension": DoubleWell(height=0.2, saddle=-0.2, sharpness=12),
    "5 dimensions": DoubleWell(saddle=0.2, stiffness=(1, 0.25), dimension=5),
}
batch_sizes = {"1 dimension": (2, 4, 6, 7), "5 dimensions": (2, 3, 4, 5)}

# %% [markdown]
# The narrow minimum $A$ of the first landscape has {glue:text}`wells-curvature-ratio:.0f` times the curvature of $B$;
# in the second it has only half as much again along $x$, and four times as much across. The relaxation time between the
# wells is known from {eq}`eq-which-passage`: it is $1/(1/\tau_A + 1/\tau_B)$.

# %% tags=["remove-cell"]
from itertools import product

from scipy.integrate import quad

from threefactors.inference import summarize
from threefactors.presentation import figures, wells as pictures
from threefactors.presentation.prose import by_id, glue, in_words

SPAN, EPS = (-2.5, 3.0), 1e-4
narrow, across = wells.values()


def free_energy(well, S):
    return boltzmann.free_energy(well.loss, well.transverse, well.dimension, lr / S, variance)


def force(well, S):
    F = free_energy(well, S)
    return lambda x: (F(x - EPS) - F(x + EPS)) / (2 * EPS)


def noise_like(well, shape):
    return variance if shape is None else lambda x: variance * shape(x)


@cache
def relaxation(well, S, shape=None):
    """Steps that the occupation takes to forget its start."""
    how = dict(drift=force(well, S), noise=noise_like(well, shape), noise_scale=lr / S)
    a = escape.mean_escape_time(**how, start=-1, target=1, wall=-2)
    b = escape.mean_escape_time(**how, start=1, target=-1, wall=2.5)
    return round(1 / (1 / a + 1 / b) / lr)


def grid(cell, batch_sizes, how_many):
    rows = product(batch_sizes[:how_many], range(size.seeds))
    table = pd.DataFrame([cell(S, seed) | dict(batch_size=S, seed=seed) for S, seed in rows])
    return table.assign(inverse_noise=table.batch_size / (lr * variance))


def foretold(table, measure, law):
    """The table with what the law, a function of the batch size, says of the measure."""
    return table.assign(**{f"predicted_{measure}": table.batch_size.map({S: law(S) for S in set(table.batch_size)})})


@cache
def exact_time(well, S):
    """Mean steps from one bottom to the other; beyond one dimension, if y were always at rest in its own law."""
    how = dict(noise=variance, noise_scale=lr / S, start=-1, target=1, wall=-3)
    return escape.mean_escape_time(force(well, S), **how) / lr


@cache
def general_log_odds(well, S, shape):
    p = boltzmann.stationary_density_1d(force(well, S), noise_like(well, shape), lr / S, SPAN)
    return p.log_odds(well.saddle)


A, B = (lambda well: float(well.loss(-1.0))), (lambda well: float(well.loss(1.0)))
hessians = {name: (well.hessian(-1.0), well.hessian(1.0)) for name, well in wells.items()}
glue(**{"wells-curvature-ratio": hessians["1 dimension"][0][0, 0] / hessians["1 dimension"][1][0, 0]})

# %%
def occupation(well, S, seed, shape=None):
    steps = relaxation(well, S, shape)
    sgd = noisy_descent(well, lr, S, variance, shape=shape)
    watch = dict(burn=5 * steps, samples=32, every=max(1, steps // 16))
    many = size.trajectories * (1 if shape is None else 4)  # B is rarely left then
    left = sojourns(sgd, well, **watch, trajectories=many, seed=seed)
    return dict(log_odds=log_odds(left), effective=effective_size(left))


def boltzmann_log_odds(well, S):
    p = boltzmann.gibbs_density(free_energy(well, S), lr / S, variance, SPAN)
    return p.log_odds(well.saddle)


occupied = {}
for name, well in wells.items():
    table = grid(partial(occupation, well), batch_sizes[name], size.odds)
    occupied[name] = foretold(table, "log_odds", partial(boltzmann_log_odds, well))

# %% [markdown]
# What the noise does to the density is seen before anything is simulated.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-wells-densities", "caption": "Two landscapes (gray, own scale) and the exact stationary density along x at several noise scales. Left, one dimension: the left well is deeper and eight times as sharply curved. Right, five dimensions: the left well is deeper and narrow across, which the picture along x cannot show. What to see: with more noise the weight moves from the deep narrow minimum to the shallow wide one, most strongly in five dimensions, where the entropy of four coordinates across pulls."}, "image": {"alt": "Two double wells with the stationary density at four noise scales, whose weight moves from the left to the right well as the noise grows.", "classes": "dark-light"}}
x = np.linspace(-1.75, 2.1, 400)


def curves(well, S):
    p = boltzmann.gibbs_density(free_energy(well, S), lr / S, variance, SPAN)
    label = f"$n\\sigma^2={lr * variance / S:.2g}$"
    shown = np.where(np.abs(x) < 1.75, well.loss(x), np.nan)
    shown = np.where(shown < 1.3 * well.loss(well.saddle), shown, np.nan)
    return pd.DataFrame({"x": x, "loss": shown, "density": np.interp(x, p.x, p.values), "label": label})


shown = {name: pd.concat([curves(well, S) for S in (2, 4, 7, 12)]) for name, well in wells.items()}
figures.side_by_side(pictures.densities, shown, width=4.0)

# %% [markdown]
# ## Depth against width

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-wells-odds", "caption": "Log-odds of the deep narrow minimum over the shallow wide one against the inverse noise, with 95 % intervals over seeds. Solid: the exact law by quadrature. Dashed: its limit for small noise, by Laplace. Dotted: where Laplace predicts the flip. Nothing is fitted. What to see: right of the zero, little noise, depth wins; left of it, width; the points are on the exact law, and the dashed line lies below it because the wells are not quadratic as far as the noise reaches."}, "image": {"alt": "Two panels of log-odds against inverse noise: points on a rising line that crosses zero, with the line of Laplace's method a little below.", "classes": "dark-light"}}
def laws(name):
    well, (a, b), S = wells[name], hessians[name], np.linspace(min(batch_sizes[name]), max(batch_sizes[name]), 15)
    laplace = [boltzmann.laplace_log_odds(A(well), B(well), a, b, lr / s, variance) for s in S]
    lines = {"simulation and exact law": [boltzmann_log_odds(well, s) for s in S], "Laplace": laplace}
    frames = [pd.DataFrame(dict(inverse_noise=S / (lr * variance), y=y, kind=k, label=k)) for k, y in lines.items()]
    return pd.concat(frames)


points = {
    name: summarize(t, "log_odds", by=["inverse_noise"], log=False).assign(kind="simulation and exact law")
    for name, t in occupied.items()
}
flips = {name: [1 / boltzmann.flip_noise(A(w), B(w), *hessians[name])] for name, w in wells.items()}
figures.side_by_side(
    pictures.odds, points, law={name: laws(name) for name in wells}, flips=flips, by="kind", width=3.6
)

# %% tags=["remove-cell"]
for key, table in zip(("wells-1d", "wells-5d"), occupied.values()):
    error = (table.log_odds - table.predicted_log_odds).groupby(table.batch_size).mean()
    share = 1 / (1 + np.exp(-table.predicted_log_odds))
    own = 1 / np.sqrt(table.effective * share * (1 - share))
    spread = table.groupby("batch_size").log_odds.std()
    glue(**{
        f"{key}-error": error.abs().max(), f"{key}-ess-min": table.groupby("batch_size").effective.mean().min(),
        f"{key}-ess-max": table.groupby("batch_size").effective.mean().max(),
        f"{key}-own": own.mean(), f"{key}-spread": np.sqrt((spread**2).mean()), f"{key}-total": table.effective.sum(),
    })  # fmt: skip
shift = -lr / 4 * (np.trace(hessians["1 dimension"][0]) - np.trace(hessians["1 dimension"][1]))
shift5 = -lr / 4 * (np.trace(hessians["5 dimensions"][0]) - np.trace(hessians["5 dimensions"][1]))
glue(**{"wells-step-1d": shift, "wells-step-5d": shift5})

# %% [markdown]
# How much do the points weigh? A trajectory stays where it is for hundreds or thousands of steps, so that the samples
# of a cell are far from independent. The trajectories are, and the variance of their means tells how many independent
# samples the cell is worth: {glue:text}`wells-1d-ess-min:.0f` to {glue:text}`wells-1d-ess-max:.0f` a seed in one
# dimension and {glue:text}`wells-5d-ess-min:.0f` to {glue:text}`wells-5d-ess-max:.0f` in five. The standard error that
# follows for one seed, {glue:text}`wells-1d-own:.3f` and {glue:text}`wells-5d-own:.3f`, is of the size of the spread
# over seeds, {glue:text}`wells-1d-spread:.3f` and {glue:text}`wells-5d-spread:.3f`. The largest error of the log-odds
# at any batch size is {glue:text}`wells-1d-error:.3f` and {glue:text}`wells-5d-error:.3f`. At small noise, finite
# steps should move them by {glue:text}`wells-step-1d:+.3f` and {glue:text}`wells-step-5d:+.3f`, by {eq}`eq-which-step`.
#
# ## Escape
#
# A symmetric double well, from one bottom to the other. In three dimensions the way starts in a well that is twice as
# stiff across as the other. The end is the bottom of the other well, not the barrier: a trajectory that crosses a
# boundary and comes back within one step is not seen, and at the bottom that does not matter.

# %%
pairs = {"1 dimension": DoubleWell(height=1.5)}
pairs["3 dimensions"] = DoubleWell(height=1.5, stiffness=(1, 0.5), dimension=3)
ΔL = pairs["1 dimension"].loss(0.0) - pairs["1 dimension"].loss(-1.0)


def escape_time(well, S, seed):
    start, sgd = -np.eye(well.dimension)[0], noisy_descent(well, lr, S, variance)
    many = dict(trajectories=size.trajectories, seed=seed)
    steps = first_passage(sgd, start, lambda x: x[0] >= 1, **many)
    return dict(escape_time=steps.mean(), barrier=2 * ΔL / (lr / S * variance))


escaped = {}
for name, well in pairs.items():
    table = grid(partial(escape_time, well), (2, 3, 4), size.escapes)
    escaped[name] = foretold(table, "escape_time", partial(exact_time, well))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-wells-escape", "caption": "Mean escape time against the inverse noise, an Arrhenius plot, with 95 % intervals over seeds. Solid: the exact mean first-passage time in one dimension; in three, the same integral along x with the free energy, which is exact only if y relaxes at once. Dashed: the law of Eyring and Kramers. What to see: straight lines with the slope of twice the barrier; Kramers' times are too short by an amount that shrinks with the noise; a well that is narrow across is left sooner."}, "image": {"alt": "Escape times on a logarithmic axis against inverse noise: two rising, nearly straight lines with points on them and dashed lines a little below.", "classes": "dark-light"}}
def times(name, well):
    S = np.linspace(1.9, 4.3, 13)
    rate = [escape.kramers_rate(well.hessian(-1.0), well.hessian(0.0), ΔL, lr / s, variance) for s in S]
    x, kramers = S / (lr * variance), 1 / np.array(rate) / lr
    solid = pd.DataFrame(dict(inverse_noise=x, y=[exact_time(well, s) for s in S], where=name, label=name))
    label = "Eyring–Kramers" if name == "1 dimension" else "_also"
    return pd.concat([solid, pd.DataFrame(dict(inverse_noise=x, y=kramers, where=f"Kramers {name}", label=label))])


points = pd.concat(
    [summarize(t, "escape_time", by=["inverse_noise"]).assign(where=name) for name, t in escaped.items()]
)
law = pd.concat([times(name, well) for name, well in pairs.items()])
figures.alone(pictures.escapes(points, law, by="where"))

# %% tags=["remove-cell"]
means = {name: t.groupby("batch_size").escape_time.mean() for name, t in escaped.items()}
cold = max(means["1 dimension"].index)
quartic = pairs["1 dimension"]
kramers = 1 / escape.kramers_rate(quartic.hessian(-1.0), quartic.hessian(0.0), ΔL, lr / cold, variance) / lr
law = {name: t.groupby("batch_size").predicted_escape_time.first() for name, t in escaped.items()}
glue(**{
    "wells-escape-error": 100 * (means["1 dimension"] / law["1 dimension"] - 1).abs().max(),
    "wells-kramers-short": 100 * (1 - kramers / law["1 dimension"][cold]),
    "wells-adiabatic": 100 * (means["3 dimensions"] / law["3 dimensions"] - 1).mean(),
})  # fmt: skip

# %% [markdown]
# In one dimension the measured means differ from the exact times by at most {glue:text}`wells-escape-error:.1f` %;
# Kramers' law is still {glue:text}`wells-kramers-short:.0f` % short at the smallest noise. In three dimensions
# the integral along $x$ with the free energy would be exact if the transverse coordinates relaxed at once. The measured
# times differ from it by {glue:text}`wells-adiabatic:+.0f` % on average.
#
# ## Noise that follows the curvature
#
# Now the first landscape again, with $C(x)$ proportional to $L''$ at both minima and interpolated geometrically
# between them: the paper's assumption $C = H$, as far as it can hold, since on a barrier $L'' < 0$ is no variance.
# Halfway it is the $\sigma^2$ of before.

# %%
shaped = grid(partial(occupation, narrow, shape=narrow.like_curvature), (2, 3, 4), 3)
by_boltzmann = foretold(shaped, "log_odds", partial(boltzmann_log_odds, narrow))
general = partial(general_log_odds, narrow, shape=narrow.like_curvature)
by_general = foretold(shaped, "log_odds", general)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-wells-noise", "caption": "The same landscape, with noise that is equal halfway between the wells: log-odds of the narrow minimum under noise that is everywhere the same and under noise proportional to the curvature. Lines: the two exact laws. What to see: noise like the curvature prefers the wide minimum far more strongly, and with less noise it does so more, not less: there is no flip."}, "image": {"alt": "Log-odds against inverse noise for two kinds of noise; one line rises through zero, the other falls far below it.", "classes": "dark-light"}}
kinds = {"C constant": occupied["1 dimension"], "C like the curvature": shaped}
points = pd.concat([summarize(t, "log_odds", by=["inverse_noise"], log=False).assign(noise=k) for k, t in kinds.items()])
S = np.linspace(2, 7, 21)
law = [general(s) for s in S[S <= 5]]
lines = {"C constant": (S, [boltzmann_log_odds(narrow, s) for s in S]), "C like the curvature": (S[S <= 5], law)}
law = pd.concat([pd.DataFrame(dict(inverse_noise=s / (lr * variance), y=y, noise=k)) for k, (s, y) in lines.items()])
figures.alone(pictures.odds(points, law, by="noise"))

# %% tags=["remove-cell"]
quasi = quad(lambda x: narrow.slope(x) / narrow.like_curvature(x), -1, 1)[0]
worst = (by_general.log_odds - by_general.predicted_log_odds).groupby(by_general.batch_size).mean()
off = (by_boltzmann.log_odds - by_boltzmann.predicted_log_odds).groupby(by_boltzmann.batch_size).mean()
glue(**{
    "wells-depth": -A(narrow), "wells-quasi-higher": -quasi,
    "wells-general-error": worst.abs().max(), "wells-boltzmann-off": off.abs().max(),
    "wells-shaped-ess": shaped.groupby("batch_size").effective.mean().min(),
})  # fmt: skip

# %% [markdown]
# The narrow minimum is deeper by {glue:text}`wells-depth:.3f` in the loss; in the quasi-potential $\int L'/C$ it is the
# *higher* one, by {glue:text}`wells-quasi-higher:.3f`. The general law {eq}`eq-which-ito` is met to
# {glue:text}`wells-general-error:.2f` in the log-odds (at least {glue:text}`wells-shaped-ess:.0f` independent samples a
# seed), while Boltzmann's law is off by up to {glue:text}`wells-boltzmann-off:.1f`.
#
# ## Noise that turns

# %%
H = np.diag([1.0, 0.3])
C = variance * np.array([[1.0, 0.8], [0.8, 1.0]])  # HC ≠ CH


def circulation(S, seed):
    sgd = euler_maruyama(lambda x: -H @ x, np.linalg.cholesky(lr / S * C), lr)
    much = dict(burn=500, steps=size.steps, trajectories=size.trajectories)
    return dict(circulation=circulation_rate(sgd, step=lr, **much, seed=seed))


def rate(S):
    Σ = lyapunov_covariance(H, C, lr, S)
    AΣ = boltzmann.circulation(H, C, lr / S) @ Σ
    return AΣ[1, 0] - AΣ[0, 1]


turning = foretold(grid(circulation, (2, 4, 8), 3), "circulation", rate)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-wells-current", "caption": "Stationary density (lines of equal density) and probability current (arrows) in a bowl whose Hessian does not commute with the noise covariance. What to see: the density stands still while probability goes round along its level lines for ever."}, "image": {"alt": "Elliptic level lines of a density with arrows of the probability current that run along them in one sense.", "classes": "dark-light"}}
axis = np.linspace(-1, 1, 41)
Σ = lyapunov_covariance(H, C, lr, 2)
X, Y = np.meshgrid(2.6 * axis * np.sqrt(Σ[0, 0]), 2.6 * axis * np.sqrt(Σ[1, 1]))
points = np.array([X.ravel(), Y.ravel()])
density = np.exp(-0.5 * np.einsum("in,ij,jn->n", points, np.linalg.inv(Σ), points))
u, v = density * (boltzmann.circulation(H, C, lr / 2) @ points)
field = pd.DataFrame(dict(x=points[0], y=points[1], density=density, u=u, v=v))
figures.alone(pictures.current(field))

# %% tags=["remove-cell"]
relative = turning.circulation / turning.predicted_circulation - 1
glue(**{"wells-turning": 100 * relative.groupby(turning.batch_size).mean().abs().max()})

# %% [markdown]
# Twice the area that a trajectory sweeps in a unit of time,
# $\mathbb{E}[\theta_1\mathrm{d}\theta_2 - \theta_2\mathrm{d}\theta_1]/\mathrm{d}t = (A\Sigma)_{21} - (A\Sigma)_{12}$,
# measures the current. Under detailed balance it would be zero. It is as {eq}`eq-which-current` says, to
# {glue:text}`wells-turning:.1f` %.
#
# ## Verdicts

# %%
like_H = "1 dimension, C like H"
cases = [(claims.C14a, where, occupied[where]) for where in wells]
cases += [(claims.C14a, like_H, by_boltzmann)]  # expected to fail
cases += [(claims.C14b, where, occupied[where]) for where in wells]
cases += [(claims.C14c, where, escaped[where]) for where in list(pairs)[:1]]
cases += [(claims.C14d, where, escaped[where]) for where in pairs]
cases += [(claims.C14e, like_H, by_general), (claims.C14f, "2 dimensions", turning)]
family = [claim.at("simulation", arm) for claim, arm, _ in cases]
verdicts = judge_family(family, [table for _, _, table in cases])
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"wells-{claim}": in_words(own)})

# %% [markdown]
# In words, from the table above and not typed:
#
# - **C14a**, occupation by Boltzmann's law: {glue:text}`wells-C14a`.
# - **C14b**, the flip: {glue:text}`wells-C14b`.
# - **C14c**, exact escape times: {glue:text}`wells-C14c`.
# - **C14d**, Arrhenius' slope: {glue:text}`wells-C14d`.
# - **C14e**, the general law: {glue:text}`wells-C14e`.
# - **C14f**, circulation: {glue:text}`wells-C14f`.
#
# ## What carries over to SGD
#
# The noise of a real network is not $\sigma^2 I$: its covariance shares large directions with the Hessian, grows with
# the curvature, and vanishes where every example is fitted exactly. From this chapter three things survive.
#
# - *The ratio $\eta/S$ is what counts*, as the scale of every exponent, as long as the steps are small.
# - *Width can be preferred more strongly* than the paper's law says: where $C$ follows $H$ the exponent favors it.
# - *There is no temperature.* {eq}`eq-which-odds` exchanges depth for width at one rate everywhere; that is the
#   law of isotropic noise. Without it minima still have probabilities, but a minimum's loss and Hessian no longer
#   determine them: $\int L'/C$ depends on the way between, and where $H$ and $C$ do not commute there is a current.
#
# Nor did any of our landscapes have a million dimensions. There the determinants in {eq}`eq-which-odds` can outweigh
# any loss, and the time to cross a barrier can outlast any training. The stationary law then says where SGD *would*
# go.
#
# ## What would change our mind
#
# - *That the temperature is $n\sigma^2/2$.* Points beside the solid lines of {numref}`fig-wells-odds`, by more than
#   finite steps explain, or a slope in {numref}`fig-wells-escape` that is not twice the barrier.
# - *That Boltzmann's law needs isotropic noise.* Points for noise like the curvature on the other line of
#   {numref}`fig-wells-noise`.
# - *That the currents are real.* A circulation that vanishes with the step $\eta$ at a fixed $\eta/S$.
#
# ## Exercises
#
# 1. Plant an error: replace `lr / S` by `lr / S**0.5` in `boltzmann_log_odds`. Which claims notice, and which need not?
# 2. Derive {eq}`eq-which-kramers` in one dimension from {eq}`eq-which-passage`. What is the next term for a quartic
#    well?
# 3. Show that the rate of {eq}`eq-which-kramers` out of $B$, divided by that out of $A$, is {eq}`eq-which-odds`. Does
#    this hold for the exact times?
# 4. Read {eq}`eq-which-ito` with Stratonovich's rule, where $1/C$ becomes $1/\sqrt C$. By how much would the log-odds
#    of {numref}`fig-wells-noise` change? Why is Itô's the right one here?
# 5. Let $C = H$ on each side of the barrier, and $C$ as small as you please on top of it. What happens to the escape
#    time?
