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
# # Nonconvex sums, and a network
#
# **Question.** SGD starts at a minimum and leaves it. Was it carried out by noise, or was it never stable there? Can
# either be told from the minimum alone, before anything has run?
#
# Two mechanisms are on offer. *Noise kicks*: a trajectory wanders in its basin until a rare run of luck takes it over
# the barrier; this is the picture behind the temperature $\eta/S$ {cite}`jastrzebski2018`, and its law is Kramers'
# {cite}`kramers1940`. *Linear instability*, the loss of {term}`linear stability`: beyond a learning rate that local
# geometry and batch size fix, every small deviation grows; this is Patel's proposal, for which he names a deterministic
# relation of these quantities {cite}`patel2017`. (Of his paper only the abstract was at hand here. The thresholds are
# those of the chapter before, and everything below is derived here unless a source is named.) On a parabola the two
# cannot meet, since it has no barrier. So we need basins, several of them, and a way to take each mechanism away.
#
# ## The law
#
# Let $f = \langle f_i\rangle$ be the mean of $n$ terms, $x^*$ one of its minima, and $e = x - x^*$. Write
# $g_i(e) = \nabla f_i(x^* + e)$, $g_B$ for the mean over a batch $B$ of $S$ independent draws and $g$ for the mean over
# all, so that $g(0) = 0$. The gradient of a batch is, exactly,
#
# ```{math}
# :label: eq-fate-split
# g_B(e) = g(e) + \underbrace{\bigl[\,g_B(e) - g(e) - g_B(0)\,\bigr]}_{\text{Hessian noise}}
# + \underbrace{g_B(0)}_{\text{gradient noise}} .
# ```
#
# The bracket vanishes at the minimum and is $(Q_B - \bar Q)\,e$ to first order, with the terms' Hessians $Q_i$ at $x^*$,
# their batch mean $Q_B$ and their mean $\bar Q$, whose largest eigenvalue is $\lambda$. The last part does not depend on
# $e$. Two switches take the noise of SGD apart:
#
# ```{math}
# :label: eq-fate-arms
# e' = e - \eta\,\bigl(g(e) + h\,[\,\cdot\,] + \kappa\, g_B(0)\bigr) , \qquad
# \begin{array}{ll}
# h = \kappa = 1: & \text{plain SGD},\\
# h = 1,\ \kappa = 0: & \text{Hessian noise only},\\
# h = 0: & \text{gradient noise only}.
# \end{array}
# ```
#
# With $\kappa = 0$ all terms share the minimum, as where a network fits every label. All arms see the same batches.
#
# ### Instability
#
# Near the minimum {eq}`eq-fate-arms` is the sum of parabolas of the chapter before. With $h = 1$ the mean square of $e$
# shrinks below $\eta_{\mathrm{ms}}(S)$, and a typical trajectory below
# $\eta_{\mathrm{as}}(S) \ge \eta_{\mathrm{ms}}(S)$, where the Lyapunov exponent $G$ (in one dimension
# $\mathbb{E}\ln|1-\eta Q_B|$) turns positive. Without Hessian noise both are $2/\lambda$. Which of them decides a fate?
#
# :::{admonition} Theorem (the chance to get out, and its time)
# :class: tip
# Let $e' = (1 - \eta Q_B)\,e$ in one dimension, with a bounded factor $|1-\eta Q_B| \le m$ and $m > 1$. Let $T$ be the
# first time with $|e| \ge b$, from $|e| = \delta < b$.
#
# 1. If $G < 0$, and $\vartheta > 0$ is the tail exponent, $\mathbb{E}|1-\eta Q_B|^\vartheta = 1$, then
#    $(\delta/mb)^{\vartheta} \le P(T < \infty) \le (\delta/b)^{\vartheta}$.
# 2. If $G > 0$, then $P(T<\infty) = 1$ and $\ln(b/\delta) \le G\;\mathbb{E}T \le \ln(mb/\delta)$.
# :::
#
# :::{dropdown} Proof
# *1.* $M_t = |e_t|^\vartheta$ is a martingale, since its factor has the mean 1. Stopped at $T$ it is bounded by
# $(mb)^\vartheta$, and where $T = \infty$ it tends to 0, because $\ln|e_t|$ is a random walk with the drift $G < 0$.
# Hence $\delta^\vartheta = \mathbb{E}\bigl[|e_T|^\vartheta;\, T<\infty\bigr]$, and $b \le |e_T| \le mb$ gives both
# bounds. *2.* The random walk has the drift $G > 0$ and passes every level. By Wald's identity
# $\mathbb{E}\ln(|e_T|/\delta) = G\,\mathbb{E}T$, with the same bounds for $|e_T|$. (If a batch can have
# $\eta Q_B = 1$, $G$ is $-\infty$ and $e$ stays 0 from then on; $\vartheta$ and 1. remain.) $\square$
# :::
#
# ```{margin} More dimensions
# There $G$ and $\vartheta$ are those of products of matrices; the bounds are proved here for one.
# ```
#
# Half of the trajectories get out where $\vartheta = \ln 2/\ln(b/\delta)$, up to the factor $m$. At
# $\eta_{\mathrm{ms}}$ the exponent is 2, and hardly anyone does: the mean square is carried by trajectories that do not
# occur. As $\delta\to 0$ the place moves to $\vartheta = 0$, which is $\eta_{\mathrm{as}}$. So for starts close to a
# minimum that all terms share, fate turns at the *almost sure* limit, and beyond it the way out is exponential: its
# time grows with the logarithm of the distance. With gradient noise there is no such start: the noise itself
# sets $\delta$, at every step.
#
# ```{index} noise kicks
# ```
#
# ### Kicks
#
# Gradient noise alone is the diffusion with the noise scale $\eta/S$ and the covariance $\kappa^2 C$, $C$ that of
# the $g_i(0)$. Its mean escape time $\tau$, in units of the clock $\eta t$, is an integral over the mean loss up to the
# barrier in one dimension, and Kramers' formula in two; both are from the chapter on which minimum. Waiting
# for a rare event has no memory: $P(T > t) = e^{-\eta t/\tau}$, and half have left within $t$ steps where
#
# ```{math}
# :label: eq-fate-kicks
# \tau\bigl(\tfrac{\eta}{S}\,\kappa^2 C\bigr)\,\ln 2 = \eta\, t .
# ```
#
# The diffusion cannot be unstable. Even with Hessian noise, as $\mathrm{d}e = -\lambda e\,\mathrm{d}t +
# \sqrt{\eta/S}\, s\, e\,\mathrm{d}W$ with the variance $s^2$ of the $Q_i$, Itô's formula gives
# $\mathrm{d}\ln|e| = -(\lambda + \eta s^2/2S)\,\mathrm{d}t + \dots$, which decays at *every* learning rate: what throws
# a trajectory out is that a single step can lead beyond the other side, and a diffusion takes no steps. That is why the
# two mechanisms are rivals, and not two names.
#
# ### Both at once
#
# In the parabola with both noises the stationary variance is, in one dimension (chapter before),
#
# ```{math}
# :label: eq-fate-amplified
# \mathbb{E}e^2 = \frac{\eta\,\kappa^2 C}{S\,\bigl(2\lambda - \eta(\lambda^2 + s^2/S)\bigr)}
# = \frac{\eta\,\kappa^2 C}{2\lambda S}\cdot\frac{1}{1 - \eta/\eta_{\mathrm{ms}}} ,
# ```
#
# since $\eta_{\mathrm{ms}} = 2\lambda/(\lambda^2 + s^2/S)$. The first factor is what the diffusion gives; instability
# that is still to come multiplies it. A prediction of *amplified kicks* uses {eq}`eq-fate-kicks` with $C$ multiplied by
# the second factor. It is no theorem, since far from the minimum the factor is another one.
#
# ### Unstable is not yet out
#
# Losing a minimum is a matter of its Hessians. Leaving the basin is not: a trajectory may go round inside.
#
# :::{admonition} Theorem (cycles beyond the limit)
# :class: tip
# Descent without noise in one dimension, $e' = e - \eta f'(x^* + e)$. If $3 f'''^2 > \lambda f''''$ at the minimum, a
# cycle of two steps is born at $\eta = 2/\lambda$, and it is stable for some way beyond.
# If $f' = k e\,\exp(-(e/R)^8)$, the cycle is stable up to $\eta = e^{1/8}\cdot 2/\lambda$, some 13 % beyond.
# :::
#
# :::{dropdown} Proof
# With $\eta\lambda = 2 + \mu$ the step is $F(e) = -(1+\mu)e + a e^2 + b e^3 + \dots$, $a = -\eta f'''/2$,
# $b = -\eta f''''/6$. Two steps are $F(F(e)) = (1+2\mu)\,e + O(\mu e^2) - 2(a^2+b)\,e^3 + \dots$. For $a^2 + b > 0$
# there are fixed points $e^2 = \mu/(a^2+b)$ beside $e = 0$, at which the slope is $1 - 4\mu$: stable for small $\mu > 0$.
# At $\eta = 2/\lambda$, $a^2 + b = f'''^2/\lambda^2 - f''''/(3\lambda)$. For the second, $f'$ is odd and the cycle is
# $\pm e$ with $\eta f'(e) = 2e$, that is $\eta k\, e^{-w} = 2$, $w = (e/R)^8$. Its factor for two steps is
# $(1-\eta f'')^2$, and $f'' = k e^{-w}(1 - 8w)$, so that $1 - \eta f'' = -1 + 16 w$: stable while $w < 1/8$. $\square$
# :::
#
# Local geometry to *second* order thus bounds from below where a basin is left; how much later it happens is written in
# the third and fourth derivatives, and at small $S$ noise will not let a trajectory rest in a cycle.
#
# ## Two landscapes
#
# *Styblinski–Tang*: $f_i = \tfrac12(a_i x^4 - 16\, b_i x^2 + 5\, c_i x)$, after a test function of global optimization
# {cite}`styblinski1990`, with random $a_i, b_i, c_i > 0$ of mean 1 and standard deviation one half. At its minima
# $\lambda$ is $34.58$ and $29.27$, and $3f'''^2 - \lambda f'''' = 12\,(36 x^{*2} - \lambda) > 0$: cycles. The noise of
# its gradients is not small.
#
# *Circles*: a quadratic and two circular basins in the plane,
# $f_i = \tfrac12 x^\top A_i x + b_{i1} V_1 + b_{i2} V_2$, where $V_w$ depends on the distance $\rho$ from a center, with
# $V_w' = k_w\,\rho\, \exp(-(\rho/R)^8)$: a bowl up to a rim, and nothing beyond. $A_i = z_i z_i^\top$ with normal $z_i$
# has the mean $I$, so that the $Q_i$ do not commute; $k = 12$ and $6$.
#
# Both have a sharp and a wide minimum (the circles a third, the bottom of the quadratic itself, where no run starts),
# and the sharp one is the *deeper*. That makes the order of escape tell:
# instability empties the sharp one first, kicks the shallow one. Every seed draws its own 64 terms; the mean is the
# same for all.
#
# ## Predictions
#
# Nothing is fitted: what enters is $Q_i$ and $g_i(0)$ at the minimum, and for kicks the mean loss up to the barrier.
# The rules are in `threefactors.inference.claims.nonconvex`, fixed before the runs that are judged, which have seeds of
# their own. Pilots on one to five random sums chose the learning rates, horizon, start and amplitudes, and margins were set with
# them in view. The first had starts at $10^{-5}$ of the way; at $S=1$ it found P4a's transitions 2 to 5 % below the limit,
# as the theorem says, and the start was moved closer. All outcomes that are called expected below were seen in pilots; those of
# P4a to P4d and of P4j follow from the theory as well, the rest does not. No rule was changed afterwards. What was: the
# search for $\eta_{\mathrm{as}}$, which had found none in one place, was given a wider range before the first run at this
# size; after it, for time, 48 trajectories took the place of 64 and fewer clones estimated the Lyapunov exponent of P4i,
# and learning rates were rounded to a grid that all seeds share. No verdict turned by that.
#
# - **P4a**, Hessian noise only: a minimum is lost at $\eta_{\mathrm{as}}(S)$, to 5 %, each minimum and $S$ by itself.
# - **P4b**, the rival within the mechanism: at $\eta_{\mathrm{ms}}(S)$. Expected: refuted, at small $S$.
# - **P4c**, its *basin* is left at $\eta_{\mathrm{as}}(S)$, to 15 %. Expected: supported for circles; refuted for
#   Styblinski–Tang, by cycles at large $S$.
# - **P4d**, the sharper minimum is left at the lower learning rate. Expected: supported without gradient noise, refuted
#   where it is strong. (Its arms with plain SGD were added after a first run of all others.)
# - **P4e**, gradient noise only, four times as large as it is ($\kappa = 4$), where the diffusion is valid: the basin
#   is left at {eq}`eq-fate-kicks`, to 15 %. **P4f**, the rival: at $2/\lambda$.
# - **P4g**, plain SGD and $\kappa = \tfrac14, 4$: the named mechanism predicts the transition to a factor of 1.5, at each
#   $S$. Arms: instability alone ($\eta_{\mathrm{ms}}$, where the variance ends), kicks alone, whichever comes first, and
#   amplified kicks. Expected: the first two refuted.
# - **P4h**, the transition does not move with the amplitude of the gradient noise. Expected: refuted.
# - **P4i**, Hessian noise only, beyond the limit: exponential growth, at the Lyapunov exponent, to 10 %.
# - **P4j**, escape times have the spread of an exponential distribution. Expected: supported for kicks, refuted for
#   instability.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %%
from types import SimpleNamespace

import numpy as np
import pandas as pd

from threefactors.inference import nonconvex as sums

SIZES = {
    "smoke": dict(
        seeds=5, trajectories=16, steps=200, points=14, waiting=48, batch_sizes=[1, 16]
    ),
    "laptop": dict(
        seeds=8, trajectories=48, steps=600, points=36, waiting=128,
        batch_sizes=[1, 4, 16, 64],
    ),
    "paper": dict(
        seeds=16, trajectories=256, steps=1000, points=60, waiting=512,
        batch_sizes=[1, 2, 4, 8, 16, 32, 64],
    ),
}
size = SimpleNamespace(**SIZES[scale])
seeds, batch_sizes = range(size.seeds), size.batch_sizes
grid = dict(steps=size.steps, trajectories=size.trajectories, points=size.points)

# %% tags=["remove-cell"]
from threefactors.inference import SIMULATION, judge_family, summarize
from threefactors.presentation import fates, figures
from threefactors.presentation.comparison import points_on_law
from threefactors.presentation.prose import by_id, glue, in_words
from threefactors.simulation.nonconvex import circles, styblinski_tang

ST = "Styblinski–Tang"
line, plane = styblinski_tang(24, 0), circles(24, 0)
x = np.linspace(-4, 4, 161)
curves = [pd.DataFrame({"x": x, "loss": loss, "term": i}) for i, loss in enumerate(line.loss(x))]
curves.append(pd.DataFrame({"x": x, "loss": line.loss(x).mean(0), "term": -1}))
X, Y = np.meshgrid(np.linspace(-6, 6, 121), np.linspace(-3.5, 3.5, 71))
ground = pd.DataFrame({"x": X.ravel(), "y": Y.ravel(), "loss": plane.loss(np.stack([X, Y])).ravel()})
marks = {
    "line": pd.DataFrame({"x": line.minima[:, 0], "y": line.loss(line.minima[:, 0]).mean(0)}),
    "plane": pd.DataFrame(plane.minima, columns=["x", "y"]),
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-landscapes", "caption": "Left: 24 terms of a Styblinski–Tang sum and their mean. Right: level lines of the mean of the circles. What to see: two minima each, the sharp one deeper; the terms do not agree on where it is."}, "image": {"alt": "A curve with two minima amid many thin curves that scatter around it, and level lines of two circular basins in a wide bowl.", "classes": "dark-light"}}
marks = {name: places.assign(minimum=list(sums.MINIMA)) for name, places in marks.items()}
fates.landscapes(pd.concat(curves), ground, marks)

# %% [markdown]
# ## The maps of fate
#
# Trajectories start at $10^{-8}$ of the way to the barrier. A minimum is *lost* when a trajectory gets a tenth of the
# way, its basin is *left* at the barrier, within {glue:text}`fate-steps:.0f` steps. The transition is the learning rate
# at which half of the trajectories have done so, on a fixed grid.

# %%
alone = {k: sums.without_gradient_noise(k, seeds, batch_sizes, **grid) for k in sums.SUMS}
amplitudes = [0.25, 1.0, 4.0]
plain = {
    k: sums.with_gradient_noise(k, seeds, batch_sizes, amplitudes, **grid)
    for k in sums.SUMS
}
additive = sums.with_gradient_noise(
    ST, seeds, batch_sizes, [1.0, 4.0], hessian_noise=False, **grid
)
wait = dict(trajectories=size.waiting)
growing = {
    k: sums.waiting_times(
        k, seeds, batch_sizes, mechanism="instability", steps=250, **wait
    )
    for k in sums.SUMS
}
small = [S for S in batch_sizes if S <= 16]
waiting = sums.waiting_times(
    ST, seeds, small, mechanism="kicks", steps=2000, **wait
)

# %% tags=["remove-cell"]
LOCAL, BOTH = {"almost_sure": "linear instability"}, {"instability": "linear instability", "kicks": "noise kicks"}


def one(table, amplitude=1.0):
    return table[table.amplitude == amplitude]


def arms(kind, noise):
    named = {"Hessian noise only": (alone[kind], LOCAL), "plain SGD": (one(plain[kind]), BOTH)}
    return named | ({"gradient noise only": (one(noise), BOTH)} if noise is not None else {})


def maps(kind, noise, span):
    every = arms(kind, noise)
    cells = {arm: sums.cells(table) for arm, (table, _) in every.items()}
    laws = {arm: sums.boundaries(table, names) for arm, (table, names) in every.items()}
    return fates.fate_maps(cells, laws, span=span)


glue(**{"fate-steps": size.steps})
for key, kind in (("st", ST), ("ci", "circles")):
    a, S = alone[kind], [batch_sizes[0], batch_sizes[-1]]
    for name, k in zip(("small", "large"), S, strict=True):
        b = a[a.batch_size == k]
        glue(**{f"fate-{key}-lost-{name}": 100 * (b.lost_at / b.almost_sure - 1).mean()})
        glue(**{f"fate-{key}-left-{name}": 100 * (b.left_at / b.almost_sure - 1).mean()})
        glue(**{f"fate-{key}-gap-{name}": (b.almost_sure / b.mean_square).mean()})
        glue(**{f"fate-{key}-sharper-{name}": (b.almost_sure / b.deterministic).mean()})
    for law in ("instability", "kicks", "either", "amplified"):
        glue(**{f"fate-{key}-{law}": 100 * sums.agreement(plain[kind], law)})
        by_size = sums.misses(plain[kind], law).groupby("batch_size").miss.mean()
        glue(**{f"fate-{key}-{law}-miss": np.exp(by_size.max())})
    move = plain[kind].groupby(["batch_size", "amplitude"]).left_at.mean().unstack()
    for name, k in zip(("small", "large"), S, strict=True):
        glue(**{f"fate-{key}-moves-{name}": move.loc[k, 0.25] / move.loc[k, 4.0]})
    glue(**{f"fate-{key}-growth-spread": growing[kind].groupby("batch_size").spread.mean().max()})
glue(**{"fate-wait-spread": waiting.spread.mean(), "fate-wait-time": (waiting.time / waiting.predicted_time).mean()})
strong = one(additive, 4.0)
bottom = strong.groupby("minimum").deterministic.first()
forget = (waiting.minimum.map(bottom) / 2 / waiting.lr)[waiting.batch_size == small[0]]
glue(**{"fate-forget": forget.mean(), "fate-wait": waiting.predicted_time.iloc[0]})
glue(**{"fate-wait-least": waiting.groupby("batch_size").spread.mean().min()})
valid = strong.groupby("batch_size").filter(lambda t: (t.kicks < t.deterministic / 2).all())
glue(**{"fate-kicks-worst": 100 * (valid.left_at / valid.kicks - 1).groupby(valid.place).mean().abs().max()})
glue(**{"fate-kicks-below": (valid.deterministic / valid.left_at).max()})

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-map", "caption": "Who has left a minimum of the Styblinski–Tang sums (shade: share of trajectories, mean over seeds), over learning rate and batch size, under three kinds of noise. Lines: predictions from the terms at the minimum, not fitted; of instability the almost sure limit on the left, else the mean-square limit. What to see: without gradient noise (left) the edge is that of instability, save at the largest batch, where cycles hold; without Hessian noise (right) it follows the kicks at small batches; in plain SGD (middle) whichever comes first, and somewhat before both where they meet."}, "image": {"alt": "Six maps of learning rate against batch size; the shaded region of escape begins at a steep line for Hessian noise only and at a slanted line for gradient noise at small batches.", "classes": "dark-light"}}
maps(ST, additive, (0.004, 0.16))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-circles", "caption": "The same for the circles, without and with gradient noise. What to see: with Hessian noise only, the sharp minimum (top) is left at about half the learning rate of the wide one; in plain SGD at small batches the order is reversed."}, "image": {"alt": "Four maps of learning rate against batch size for the sharp and the wide circle; with gradient noise the escape region reaches to smaller learning rates at small batches, and further for the wide circle.", "classes": "dark-light"}}
maps("circles", None, (0.02, 0.4))

# %% [markdown]
# With Hessian noise only ({numref}`fig-fate-map` and {numref}`fig-fate-circles`, left) a minimum is lost at the almost
# sure limit. For Styblinski–Tang the transition deviates from $\eta_{\mathrm{as}}$ by {glue:text}`fate-st-lost-small:.1f` % at the
# smallest batch and {glue:text}`fate-st-lost-large:.1f` % at the largest, on average over seeds and minima; for circles by
# {glue:text}`fate-ci-lost-small:.1f` % and {glue:text}`fate-ci-lost-large:.1f` %. The mean-square limit is smaller by a
# factor of {glue:text}`fate-st-gap-small:.2f` and {glue:text}`fate-ci-gap-small:.2f` at the smallest batch. There the
# almost sure limit even lies above $2/\lambda$, by a factor of {glue:text}`fate-st-sharper-small:.2f` and
# {glue:text}`fate-ci-sharper-small:.2f`: Hessian noise holds what descent without noise would lose, because a batch with
# $\eta Q_B$ near 1 undoes many others.
#
# Losing is not leaving. At the largest batch the basin of Styblinski–Tang is left {glue:text}`fate-st-left-large:.0f` %
# beyond the limit, that of the circles {glue:text}`fate-ci-left-large:.0f` %, where the theorem on cycles allows 13 %. In between
# trajectories go round inside, without noise for ever.
#
# ## What the amplitude of the gradient noise moves

# %% tags=["remove-cell"]
panels, laws = {}, {}
for kind in sums.SUMS:
    both = pd.concat([alone[kind].assign(amplitude=0.0, either=alone[kind].almost_sure), plain[kind]])
    both = both[both.minimum == "sharp"].assign(kappa=lambda t: t.amplitude.map("κ = {:g}".format))
    panels[f"{kind}, sharp"] = summarize(both, "left_at", by=["batch_size", "kappa"])
    law = both.groupby(["batch_size", "kappa"], sort=False).either.mean().rename("y").reset_index()
    laws[f"{kind}, sharp"] = law.assign(label="")

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-amplitude", "caption": "Where the sharp minimum is left, against batch size, for plain SGD with its gradient noise multiplied by κ. Points: geometric mean over seeds with 95 % interval. Lines: whichever mechanism comes first, for κ = 0 instability alone; nothing is fitted. What to see: the instability line is nearly level, and the stronger the gradient noise, the larger the batch from which on it counts."}, "image": {"alt": "Learning rate of the transition against batch size, both logarithmic, in two panels; four series that fan out at small batches and meet at large ones.", "classes": "dark-light"}}
figures.side_by_side(
    points_on_law, panels, law=laws, x="batch_size", by="kappa", ticks="points", width=3.6,
    xlabel="batch size  $S$", ylabel="transition  $\\eta$",
)

# %% [markdown]
# Which mechanism explains which escape? On {numref}`fig-fate-amplitude` a factor of 16 in the amplitude moves the
# transition by a factor of {glue:text}`fate-st-moves-small:.0f` at the smallest batch of Styblinski–Tang, and by
# {glue:text}`fate-st-moves-large:.1f` at the largest ({glue:text}`fate-ci-moves-small:.0f` and
# {glue:text}`fate-ci-moves-large:.1f` for circles). Small batches and strong noise: kicks. Large batches or little
# noise: instability. The table gives the share of the cells (sum, minimum, $S$, $\kappa$, $\eta$) whose fate is predicted, and
# the factor by which the transition is missed, in the mean over minima and amplitudes, at the worst $S$.
#
# | predicted from | Styblinski–Tang, cells | worst factor | circles, cells | worst factor |
# |---|---|---|---|---|
# | instability alone | {glue:text}`fate-st-instability:.0f` % | {glue:text}`fate-st-instability-miss:.1f` | {glue:text}`fate-ci-instability:.0f` % | {glue:text}`fate-ci-instability-miss:.1f` |
# | kicks alone | {glue:text}`fate-st-kicks:.0f` % | {glue:text}`fate-st-kicks-miss:.1f` | {glue:text}`fate-ci-kicks:.0f` % | {glue:text}`fate-ci-kicks-miss:.1f` |
# | whichever comes first | {glue:text}`fate-st-either:.0f` % | {glue:text}`fate-st-either-miss:.1f` | {glue:text}`fate-ci-either:.0f` % | {glue:text}`fate-ci-either-miss:.1f` |
# | amplified kicks | {glue:text}`fate-st-amplified:.0f` % | {glue:text}`fate-st-amplified-miss:.1f` | {glue:text}`fate-ci-amplified:.0f` % | {glue:text}`fate-ci-amplified-miss:.1f` |
#
# (The share of cells depends on how far the grid reaches, the factor does not: it is the factor that is judged.) Where
# the two lines meet, trajectories leave before either: kicks that an instability to come has amplified.
#
# The manner of leaving differs as well. Out of an unstable minimum the time is nearly the same for all: standard
# deviation over mean is at most {glue:text}`fate-st-growth-spread:.2f` for Styblinski–Tang and
# {glue:text}`fate-ci-growth-spread:.2f` for circles, at any batch size. Kicked trajectories wait with a ratio of
# {glue:text}`fate-wait-spread:.2f`, at the worst batch size {glue:text}`fate-wait-least:.2f`, and on average
# {glue:text}`fate-wait-time:.2f` times as long as the diffusion says. That the ratio is below 1 has a reason which was
# overlooked when P4j was written: before its first chance a trajectory has to spread from the bottom of the basin, for
# some multiples of $1/(\eta\lambda)$, here {glue:text}`fate-forget:.0f` steps at the smallest batch, out of a mean wait of
# {glue:text}`fate-wait:.0f`. The rule stays as it was.
# With gradient noise only and $\kappa=4$, where the diffusion is valid, its transition is right to
# {glue:text}`fate-kicks-worst:.0f` % at the worst minimum and batch size; $2/\lambda$ is up to
# {glue:text}`fate-kicks-below:.0f` times as large.
#
# ## Verdicts on the sums
#
# Every claim is judged on the tables of its arms, all of them as one family, with Holm's correction.

# %% tags=["remove-cell"]
from threefactors.inference.claims import nonconvex as claims


def at(claim, table, arm, law="", measure=""):
    new = {f"predicted_{measure}": table[law]} if law else {}
    return claim.at(SIMULATION, arm), table.assign(**new)


first = {"either": "whichever comes first", "amplified": "amplified kicks"}
first |= {"instability": "instability alone", "kicks": "kicks alone"}
judged = [
    at(claims.P4e, valid, "κ = 4", "kicks", "left_at"),
    at(claims.P4f, valid, "κ = 4", "deterministic", "left_at"),
    at(claims.P4d, sums.orders(strong), f"{ST}, gradient noise only, κ = 4"),
    at(claims.P4j, waiting, f"{ST}, gradient noise only"),
]
for k in sums.SUMS:
    judged += [
        at(claims.P4a, alone[k], k, "almost_sure", "lost_at"),
        at(claims.P4b, alone[k], k, "mean_square", "lost_at"),
        at(claims.P4c, alone[k], k, "almost_sure", "left_at"),
        at(claims.P4d, sums.orders(alone[k]), f"{k}, Hessian noise only"),
        at(claims.P4d, sums.orders(one(plain[k])), f"{k}, plain SGD"),
        at(claims.P4h, sums.shifts(plain[k]), k),
        at(claims.P4i, growing[k], k),
        at(claims.P4j, growing[k], f"{k}, Hessian noise only"),
    ]
    for law, words in first.items():
        judged.append(at(claims.P4g, sums.misses(plain[k], law), f"{k}, {words}"))

# %%
verdicts = judge_family(*zip(*judged))
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"fate-{claim}": in_words(own)})

# %% [markdown]
# - **P4a**, lost at the almost sure limit: {glue:text}`fate-P4a`.
# - **P4b**, lost at the mean-square limit: {glue:text}`fate-P4b`.
# - **P4c**, left at the almost sure limit: {glue:text}`fate-P4c`.
# - **P4d**, the sharper minimum first: {glue:text}`fate-P4d`.
# - **P4e**, left where kicks say: {glue:text}`fate-P4e`.
# - **P4f**, left at $2/\lambda$: {glue:text}`fate-P4f`.
# - **P4g**, the named mechanism to a factor of 1.5: {glue:text}`fate-P4g`.
# - **P4h**, the amplitude of the gradient noise does not matter: {glue:text}`fate-P4h`.
# - **P4i**, exponential growth at the Lyapunov exponent: {glue:text}`fate-P4i`.
# - **P4j**, waiting without memory: {glue:text}`fate-P4j`.
#
# So neither story is the whole. Patel's mechanism is right where the terms agree on the minimum, as in
# networks that fit their data, and where batches are large; what decides there is not the mean square but the typical
# trajectory, and instability is not yet departure. Where the terms disagree and batches are small, the temperature $\eta/S$
# empties the *shallower* basin long before the sharper one becomes unstable.

# %% [markdown]
# ## A network
#
# Networks that fit every label are sums whose terms share a minimum, with thousands of dimensions and Hessians that do
# not commute. Can the fate of SGD there be told from measured curvature?
#
# Let $z_i(\theta)$ be the outputs for example $i$ of $n$, $J_i = \partial z_i/\partial\theta$ their Jacobian, and
# $\ell_i = \tfrac12\lVert z_i - y_i\rVert^2$. Then
#
# ```{math}
# :label: eq-fate-network
# \nabla\ell_i = J_i^\top (z_i - y_i), \qquad
# \nabla^2\ell_i = J_i^\top J_i + \sum_k (z_i - y_i)_k\,\nabla^2 z_{ik} .
# ```
#
# Where all labels are fitted, $\nabla\ell_i = 0$ for every example: the gradient noise is $C = 0$, kicks have nothing to
# kick with, and by themselves let the minimum hold for every $\eta < 2/\lambda$, whatever $S$. The second part of
# the Hessian is gone as well, $Q_i = J_i^\top J_i$.
#
# :::{admonition} Theorem (the Gram matrix decides)
# :class: tip
# Let $J$ be all $J_i$, one below the other, and $K = J J^\top$, with blocks $K_{ij} = J_i J_j^\top$. Near a minimum that fits
# all labels,
#
# 1. the residuals $u = J e$ obey $u' = u - \frac{\eta}{S}\sum_{i\in B} K_{\cdot i}\,u_i$, and the loss is
#    $\lVert u\rVert^2/2n$;
# 2. $\eta_{\mathrm{ms}}(S)$ and $\eta_{\mathrm{as}}(S)$ are functions of $K$ alone;
# 3. a direction that only one example curves, with curvature $q$, has the limit $2/q$ at $S = 1$ (either one), and
#    $2n/q$ with the full batch.
# :::
#
# :::{dropdown} Proof
# *1.* Multiply $e' = e - \frac{\eta}{S}\sum_{i\in B} J_i^\top J_i\, e$ by $J$; and
# $\ell_i = \tfrac12\lVert J_i e\rVert^2$ to second order. *2.* What is orthogonal to all rows of $J$ never moves. On the
# span of the rows, with an orthonormal basis $V$ of it, the terms are $V^\top Q_i V = A_i^\top A_i$ with $A = JV$. Any
# other factor of $AA^\top = K$ of full column rank is $A$ times an orthogonal matrix, which rotates all terms alike and
# changes no limit. *3.* There $\lambda = q/n$ and $s^2 = q^2/n - q^2/n^2$, so that
# $2\lambda/(\lambda^2+s^2) = 2/q$; and of the factors 1 and $1-\eta q$ that a step can have, $\mathbb{E}\ln$ changes its
# sign at $\eta q = 2$, too. With the full batch the limit is $2/\lambda$. $\square$
# :::
#
# So a matrix with as many rows as there are outputs, $10\,n$ for the ten digits, replaces $n$ matrices of $P\times P$.
# (Where that is too large as well, `theory.matrix_free_limit` finds $\eta_{\mathrm{ms}}$ from products $Q_i V$ alone.)
# The third part says what to expect: as long as examples pull in directions of their own, small batches see
# $\lambda_{\max}(Q_i)$ where the full batch sees an $n$-th of it.
#
# **Predictions**, with rules in `threefactors.inference.claims.restart`, fixed before the runs. Sizes, levels and margins were
# chosen on pilots with 24 and 32 examples on seeds of their own, in which the outcomes were seen: all claims were supported
# there but P5d, and P5a for batches by epochs, which stayed undecided.
#
# - **P5a**: a minimum is left where the linearized system's Lyapunov exponent turns positive, to 10 %. Arms:
#   independent draws, and batches by epochs, whose law depends on what is left of the epoch and is not covered.
# - **P5b**: it is left at $\eta_{\mathrm{ms}}$, to 20 %; **P5c**: and never below.
# - **P5d**, the rival: it is left at $2/\lambda$, to 10 %, at every $S$. Expected: refuted. **P5e**: with the full
#   batch, where both stories agree, it is.
# - **P5f**: more than 90 % of single fates are those of the linearized system on the same batches.
# - **P5g**: the transition moves with $S$ as $\eta_{\mathrm{ms}}$ does.
# - **P5h**: SGD that has left comes to rest only where $\eta$ is at most 1.1 of the new minimum's $\eta_{\mathrm{ms}}$.
#
# A network is trained for each seed, with a small learning rate, and carried by Gauss–Newton steps to a minimum with
# a loss below $10^{-20}$. SGD starts beside it, in a random direction, at the loss $10^{-8}$. It has *left* when the loss
# is $10^{-4}$ and is *back* at $10^{-12}$.

# %%
from threefactors.experiments.restart import find_minima
from threefactors.inference import restart as net
from threefactors.training import MLP, Epochs, Task, TrainLoss

NETWORKS = {
    "smoke": dict(examples=6, hidden=(64,), lr=0.003, loss=1e-3, seeds=5,
                  batch_sizes=[1, 2], steps=400, long=1000, rest=20000),
    "laptop": dict(examples=24, hidden=(128,), lr=0.005, loss=1e-6, seeds=8,
                   batch_sizes=[1, 2, 4, 8], steps=2000, long=8000, rest=60000),
    "paper": dict(examples=64, hidden=(256,), lr=0.005, loss=1e-6, seeds=16,
                  batch_sizes=[1, 2, 4, 8, 16], steps=4000, long=16000, rest=200000),
}
own = SimpleNamespace(**NETWORKS[scale])
task = Task("digits", MLP(own.hidden), train_size=own.examples, loss="squared")
gently = dict(lr=own.lr, batch_size=own.examples // 2, momentum=0.9)
enough = TrainLoss(own.loss, at_most=Epochs(3000), every=0.5)
minima = find_minima(task, range(own.seeds), enough, **gently)

# %%
small, N = [1, own.batch_sizes[len(own.batch_sizes) // 2]], own.examples
limits = net.limits(minima, own.batch_sizes, steps=own.long)
fresh = net.limits(minima, [*small, N], steps=own.long, draws="fresh")
walk = dict(rates=12, repeats=3, steps=own.steps, looks=20)
left = net.fates(minima, limits, **walk)
epochs = net.fates(minima, fresh.query("batch_size < @N"), draws="epochs", **walk)
walk["repeats"] = 1
whole = net.fates(minima, fresh.query("batch_size == @N"), draws="fresh", **walk)

# %% tags=["remove-cell"]
from threefactors.presentation import restart as restarted

moved, in_epochs, at_full = (net.transitions(table) for table in (left, epochs, whole))
every = pd.concat([left, whole])
panels = {"in units of noise-free descent": "noise_free", "in units of the typical path": "typical"}
units = dict(zip(panels, ["$\\eta\\,/\\,(2/\\lambda_{\\max})$", "$\\eta/\\eta_{\\mathrm{as}}$"], strict=True))
both = pd.concat([moved, at_full])
both = both.assign(relative=both.transition / both.noise_free)
law = pd.concat([both.assign(law=name, y=both[name] / both.noise_free) for name in restarted.LAWS])
law = summarize(law[np.isfinite(law.y)], "y", by=["law", "batch_size"]).rename(columns={"value": "y"})
first = moved[moved.batch_size == 1]
glue(**{
    "net-parameters": task.model.parameters(64, 10), "net-examples": own.examples, "net-outputs": 10 * own.examples,
    "net-factor": (first.noise_free / first.transition).mean(), "net-factor-most": (first.noise_free / first.transition).max(),
    "net-top": (first.along_top / first.transition).mean(), "net-step": 100 * (1 - first.one_step / first.transition).mean(),
    "net-uniform": 100 * (first.uniform / first.transition - 1).mean(),
    "net-replayed": 100 * moved.replayed.mean(), "net-undecided": 100 * moved.undecided.mean(),
    "net-least": minima.sharpness.min(), "net-most": minima.sharpness.max(),
    **{f"net-right-{name}": 100 * moved[f"right_{name}"].mean() for name in net.LIMITS},
    **{f"net-{name}-{k}": 100 * (t.transition / t[law_] - 1).mean() for name, law_ in (("as", "typical"), ("ms", "mean_square"))
       for k, t in (("small", first), ("large", moved[moved.batch_size == own.batch_sizes[-1]]), ("epochs", in_epochs))},
})

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-network", "caption": "Share of restarts that left their minimum, mean over seeds, against the learning rate: in units of 2/λ of the minimum (left), and of the limit of a typical path of its linearization (right). The largest S is the full batch. What to see: the curves, far apart on the left, fall on one another on the right."}, "image": {"alt": "Five rising curves, one for each batch size, far apart in the left panel and on top of each other at one in the right panel.", "classes": "dark-light"}}
curves = {title: net.shares(every, limit) for title, limit in panels.items()}
figures.side_by_side(restarted.leaving, curves, width=3.7, xlabel=units)

# %% [markdown]
# The networks have {glue:text}`net-parameters:.0f` parameters, {glue:text}`net-examples:.0f` examples and so
# {glue:text}`net-outputs:.0f` outputs, and $\lambda$ between {glue:text}`net-least:.0f` and {glue:text}`net-most:.0f`. At
# $S=1$ they are left at a learning rate {glue:text}`net-factor:.1f` times smaller than $2/\lambda$ on average over seeds,
# and {glue:text}`net-factor-most:.1f` times for one. The limit of the typical path is exceeded by
# {glue:text}`net-as-small:.0f` % there and by {glue:text}`net-as-large:.0f` % at the largest $S$ of
# {numref}`fig-fate-network` but the full one, the mean-square limit by {glue:text}`net-ms-small:.0f` % and
# {glue:text}`net-ms-large:.0f` %. With batches by epochs it is {glue:text}`net-as-epochs:.0f` % and
# {glue:text}`net-ms-epochs:.0f` %: examples that take turns are somewhat more stable than independent ones.
# Given the batches, {glue:text}`net-replayed:.1f` % of single fates are those of the linearized system. From
# learning rate and minimum alone, $\eta_{\mathrm{as}}$ tells {glue:text}`net-right-typical:.0f` % of them,
# $\eta_{\mathrm{ms}}$ {glue:text}`net-right-mean_square:.0f` %, and $2/\lambda$ {glue:text}`net-right-noise_free:.0f` %.
# ({glue:text}`net-undecided:.1f` % neither left nor came back in time, and count as not having left.)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-limits", "caption": "Where half of the restarts left (points, geometric mean over seeds with 95 % interval, most of which is the difference between minima), and what local geometry predicts: typical path and mean square, the largest learning rate at which no step raises the mean square, the simple condition of non-uniformity, the mean-square limit on the line along the top eigenvector of the Hessian, and noise-free descent. What to see: neither sharpness nor the line along the top eigenvector knows what small batches do."}, "image": {"alt": "Learning rates in units of noise-free descent, rising with batch size; the points lie on the line of the typical path, just above that of the mean square.", "classes": "dark-light"}}
points = summarize(both, "relative", by=["batch_size"])
figures.alone(restarted.transitions_between_limits(points, law))

# %% [markdown]
# The conditions of Wu, Ma and E {cite}`wu2018` are on {numref}`fig-fate-limits` as well. Their sufficient one, that no step raises the
# mean square, is {glue:text}`net-step:.0f` % too careful at $S=1$. Of the two simple ones that they draw from it,
# sharpness is $2/\lambda$ itself, and non-uniformity, which is no limit by itself, differs by
# {glue:text}`net-uniform:.0f` %. And the direction of escape is not the top eigenvector of the Hessian: SGD kept on that
# line would hold up to {glue:text}`net-top:.1f` times the measured learning rate. It is the examples' own
# directions that give way, as the third part of the theorem lets expect.
#
# ### After the escape
#
# And then? The same SGD goes on, at 1.3 and 2 times the learning rate at which its minimum gives way, until it is at rest.

# %%
sought = dict(zip(small, [own.rest, own.rest // 2]))
found = net.resting(minima, moved, [1.3, 2.0], steps=sought, draws="independent")

# %% tags=["remove-cell"]
glue(**{
    "net-after": found.after.mean(), "net-after-most": found.after.max(), "net-after-least": found.after.min(),
    "net-before": found.before.mean(), "net-lost": found.after.isna().sum(), "net-begun": len(found),
    "net-sharp-small": found[found.batch_size == 1].sharp_after.mean(),
    "net-flatter": (found.sharp_before / found.sharp_after)[found.multiple == 2].mean(),
})

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-fate-rest", "caption": "The learning rate in units of the limits of the minimum that was left (hollow) and of the one in which SGD came to rest (full); a dot is a seed, a row a batch size and a multiple of the learning rate at which half left. What to see: in units of the mean-square limit (left) SGD comes to rest close to 1, whatever it began with; in units of sharpness (right) the same minima have nothing in common."}, "image": {"alt": "Two panels of dots in four rows; in the left one all full dots lie near one and all hollow dots to the right of it, in the right one both are scattered.", "classes": "dark-light"}}
restarted.coming_to_rest(found)

# %% [markdown]
# It stops as soon as it can ({numref}`fig-fate-rest`). The loss rises, the network moves to where examples curve it
# less, and it rests where its learning rate is {glue:text}`net-after:.2f` of the new mean-square limit on average
# ({glue:text}`net-after-least:.2f` to {glue:text}`net-after-most:.2f`; before, {glue:text}`net-before:.2f`). At $S=1$
# that is at {glue:text}`net-sharp-small:.2f` of $2/\lambda$: by sharpness alone these minima look far from any edge. From twice
# the limit the new minima are flatter by a factor of {glue:text}`net-flatter:.1f`. {glue:text}`net-lost:.0f` of
# {glue:text}`net-begun:.0f` runs were not at rest in time. So this is how linear instability selects flat minima without
# any noise at the minimum: not by preferring them, but by leaving the others, until one holds.
#
# ### Verdicts on the network

# %% tags=["remove-cell"]
from threefactors.inference.claims import restart as rules

stage = {"independent draws": moved, "epochs": in_epochs}
rivals = {rules.P5a: "typical", rules.P5b: "mean_square", rules.P5c: "mean_square"}
rivals |= {rules.P5d: "noise_free", rules.P5g: "mean_square"}
cases = [
    (claim.at(SIMULATION, arm), net.against(table, name))
    for arm, table in stage.items() for claim, name in rivals.items()
]
cases += [(rules.P5f.at(SIMULATION, arm), table) for arm, table in stage.items()]
cases.append((rules.P5e.at(SIMULATION, "full batch"), net.against(at_full, "noise_free")))
cases.append((rules.P5h.at(SIMULATION, "independent draws"), found))

# %%
fate_of_networks = judge_family(*zip(*cases))
fate_of_networks

# %% tags=["remove-cell"]
for claim, reached in by_id(fate_of_networks).items():
    glue(**{f"fate-{claim}": in_words(reached)})
tight = by_id(fate_of_networks)["P5c"][0]
glue(**{"net-p": tight.p, "net-p-adjusted": tight.p_adjusted, "net-family": len(fate_of_networks)})

# %% [markdown]
# - **P5a**, left where a typical path grows: {glue:text}`fate-P5a`.
# - **P5b**, left at the mean-square limit: {glue:text}`fate-P5b`.
# - **P5c**, never below it: {glue:text}`fate-P5c`.
# - **P5d**, left at $2/\lambda$ at every $S$: {glue:text}`fate-P5d`.
# - **P5e**, left at $2/\lambda$ with the full batch: {glue:text}`fate-P5e`.
# - **P5f**, single fates by the linearized system: {glue:text}`fate-P5f`.
# - **P5g**, moved by $S$ as predicted: {glue:text}`fate-P5g`.
# - **P5h**, at rest only below the new limit: {glue:text}`fate-P5h`.
#
# P5c is a matter of the smallest batch, where the transition is nearest to $\eta_{\mathrm{ms}}$: for independent draws
# its p-value is {glue:text}`net-p:.3f` by itself and {glue:text}`net-p-adjusted:.3f` after the correction for the
# {glue:text}`net-family:.0f` verdicts of this family.
#
# What all this does not say: that networks which do *not* fit their labels leave in the same way (there $C \ne 0$, and
# the first half of the chapter applies); that cross-entropy does (fitted, it has no minimum); or that everything is
# decided near the minimum. How far the loss rises before SGD finds a new one is not local. In pilots with the level of
# departure at a tenth, most restarts just beyond the limit never came there: they were at rest elsewhere before.

# %% [markdown]
# ## What would change our mind
#
# - *That Hessian noise alone acts through instability.* A sum with a shared minimum that is lost well below
#   $\eta_{\mathrm{as}}$ from starts ever closer to it.
# - *That kicks empty a basin in the absence of Hessian noise.* Escape times that do not change with the height of the
#   barrier at fixed curvature, or whose spread stays far from their mean.
# - *That the two together explain plain SGD to a factor of 1.5.* The terms here are of moderate spread. With a few
#   terms much sharper than the rest, the tail between $\eta_{\mathrm{ms}}$ and $\eta_{\mathrm{as}}$ is heavy, and neither
#   Kramers' law nor its amplified form needs hold.
# - *That a fitted network is left because of its own curvature.* Restarts ever closer to a minimum that leave it well
#   below $\eta_{\mathrm{ms}}$ or hold well above $\eta_{\mathrm{as}}$; SGD at rest in a minimum far beyond its limit.
#
# ## Exercises
#
# 1. Show that with $h = 0$ and Gaussian noise the amplified kicks have, near the minimum, the exact stationary variance
#    of the discrete steps. Which curvature would the factor need on the barrier?
# 2. Set `spread` of `styblinski_tang` to 1, and predict before you run what happens to $\eta_{\mathrm{as}}$ at $S=1$.
# 3. Move the start from $10^{-8}$ to $10^{-2}$ of the way. How far does the theorem let the transition at $S = 1$ fall?
# 4. Without any noise, at which learning rate does descent leave the wide minimum of Styblinski and Tang? (The image of
#    the band beyond the cycles has to touch the barrier.)
# 5. At a minimum that fits all labels, show that $\eta_{\mathrm{ms}}(S) \ge 2/\max_i\lambda_{\max}(Q_i)$ for every $S$, and
#    that at $S=1$ the third part of the theorem on Gram matrices attains it.
# 6. With cross-entropy, $Q_i = J_i^\top(\operatorname{diag} p_i - p_i p_i^\top) J_i$ once labels are fitted. What becomes of
#    $\eta_{\mathrm{ms}}$ as the loss goes to zero, and why is there nothing to restart from?
