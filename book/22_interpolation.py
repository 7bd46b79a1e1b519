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
# # Between two minima
#
# **Question.** Draw a straight line from the network that SGD found at a small ratio $\eta/S$ to the one that it found
# at a large ratio. Is the first end the sharper one? And are the two ends equally wide where the ratios are equal?
#
# The paper shows such lines and answers yes to both {cite}`jastrzebski2018`; the picture goes back to
# {cite}`keskar2017`. It is persuasive, because one sees with one's own eyes how the loss rises on one side and not on
# the other. This chapter draws it again, with many seeds and a number for what the eye sees. Then it asks, as in
# {doc}`20_width`, what the same line looks like when there is no noise at all.
#
# ## The law
#
# Let $\theta_1$ and $\theta_2$ be two networks of one architecture, $d = \theta_2 - \theta_1$ and
# $u = d/\lVert d\rVert$. The cut through the loss is
#
# ```{math}
# :label: eq-cut
# f(\alpha) = L\big((1-\alpha)\,\theta_1 + \alpha\,\theta_2\big), \qquad -1 \le \alpha \le 2 .
# ```
#
# $L$ has to be a function of $\theta$ alone. With batch normalization it is one only if the means and variances are
# taken from the training set anew at every $\alpha$. Running averages belong to the end at which they were collected,
# and would make any other point of the line look bad. Here the statistics are always those of the whole training set
# at the very point at which the loss is wanted, for the validation examples too.
#
# How sharp is an end? Two measures of the cut, one at the end itself, one over the end's own half of the line, with
# $r = \lVert d\rVert/2$ and $H$ the Hessian of $L$:
#
# ```{math}
# :label: eq-cut-measures
# \kappa(\theta) = u^\top H(\theta)\, u ,
# \qquad
# R(\theta) = \tfrac12\big[L(\theta + r u) + L(\theta - r u)\big] - L(\theta) .
# ```
#
# :::{admonition} Theorem (what a cut sees)
# :class: tip
#
# Let $L$ be twice continuously differentiable on the line.
#
# 1. $f'' = \lVert d\rVert^2\,\kappa$, and $\lambda_{\min}(H) \le \kappa \le \lambda_{\max}(H)$.
# 2. $R(\theta) = \frac{r^2}{2} \int_{-r}^{r} w(s)\, \kappa(\theta + s u)\, ds$ with $w(s) = (r - |s|)/r^2$, a
#    weight that integrates to 1. The slope of the cut has no part in it.
# 3. In a bowl with curvature $\kappa$ whose cut has the slope $g$ at $\theta$, the loss has risen by $\delta$ at the
#    distance $\big(\sqrt{g^2 + 2\kappa\delta} - g\big)/\kappa$ on the one side, and with $-g$ on the other.
# :::
#
# :::{dropdown} Proof
# *1.* The chain rule, twice; and a Rayleigh quotient with a unit vector lies between the extreme eigenvalues.
#
# *2.* Let $\phi(s) = L(\theta + su)$, so that $\phi'' = \kappa(\theta + su)$. Taylor's formula with the remainder as an
# integral is $\phi(\pm r) = \phi(0) \pm r\,\phi'(0) + \int_0^r (r-s)\,\phi''(\pm s)\,ds$. In the mean of the two
# $\phi'(0)$ cancels, and what is left is $\tfrac12\int_{-r}^{r}(r-|s|)\,\phi''(s)\,ds$.
#
# *3.* Solve $g t + \tfrac12\kappa t^2 = \delta$ for $t > 0$, and with $-g$ for the other side. $\square$
# :::
#
# ```{margin} Kinks
# The cut of a ReLU network has kinks. There part 2 holds with the jump of the slope as a point mass of curvature;
# part 1 does not see them. That is a reason to have both.
# ```
#
# Part 3 is why the distance at which the loss has risen by so much, outward or inward, is reported below but not
# judged. Where $g^2$ is not small against $2\kappa\delta$ it is a measure of slope. Trained networks are no exact
# minima, and valleys can be steep on one side and flat on the other {cite}`he2019`: a point on the flat side then looks
# wide in one direction only.
#
# ### What the clock alone does
#
# Take the smallest problem again, one margin $m$ with the loss $\ln(1 + e^{-m})$ in gradient flow, and let the two ends
# be two times $T_1 < T_2$ of *one* trajectory. The curvature falls like $1/T$. At equal epochs the clock
# $T = \sum\eta$ is proportional to the ratio, so that a $k$-fold ratio gives
#
# ```{math}
# :label: eq-cut-clock
# \frac{\kappa_1}{\kappa_2} \to \frac{T_2}{T_1} = k ,
# \qquad
# q = \frac{\kappa_1 - \kappa_2}{\kappa_1 + \kappa_2} \to \frac{k-1}{k+1} .
# ```
#
# The *contrast* $q$ is the number for "sharper" in this chapter. It is 0 where both ends are alike, and $\pm 1$ where all
# of the sharpness is on one side; a factor of $e^{\ell}$ is $q = \tanh(\ell/2)$. It is taken seed by seed; a cut that
# bends downward counts as having no sharpness.
#
# ```{index} rescaling of weights
# ```
#
# ### What rescaling does
#
# :::{admonition} Theorem (rescaling)
# :class: tip
#
# Let $D$ be a linear map with $L(D\theta) = L(\theta)$ for all $\theta$.
#
# 1. Applied to both ends, $D$ changes neither $f(\alpha)$ nor the contrasts of $\kappa$ and $R$.
# 2. Applied to one end only, it changes all of them. It can take the contrast of $\kappa$ away.
# 3. Let $D$ multiply all the weights that feed a unit (a *filter* $F$) by one number $c_F > 0$, and let the
#    direction $v$ have $v_F = \lVert\theta_F\rVert\, g_F/\lVert g_F\rVert$ for each filter, with $g$ Gaussian, and 0
#    elsewhere. Then the cut through $\theta$ along $v$ is unchanged, even if $D$ is applied to one end only.
# :::
#
# :::{dropdown} Proof
# *1.* The line from $D\theta_1$ to $D\theta_2$ is the image of the line from $\theta_1$ to $\theta_2$, point by point;
# so $f$ is the same function of $\alpha$, and so is $R$, taken at $\alpha = \pm\tfrac12$ from an end. And
# $\kappa = f''/\lVert d\rVert^2$ changes by the same factor at both ends, which the contrast does not see.
#
# *2.* Take $L = \tfrac12(ab - 1)^2 + g(e)$, a unit with the weights $a$ and $b$ beside an independent parameter $e$, and
# $D(a,b,e) = (ca, b/c, e)$, the rescaling that ReLU networks admit {cite}`dinh2017`. Let the ends be $(1,1,e_1)$ and
# $(1,1,e_2)$; then $q = (g_1''-g_2'')/(g_1''+g_2'')$ with $g_i'' = g''(e_i)$. With $D$ applied to the first, both
# $\lVert d\rVert^2\kappa_i$ gain $X = (c + 1/c - 2)^2$ over $g_i''\,(e_2-e_1)^2$, and so
# $q = (g_1''-g_2'')/\big(g_1''+g_2''+2X/(e_2-e_1)^2\big)$, which goes to 0 for $c\to\infty$.
#
# *3.* The direction that belongs to $D\theta$ with the same $g$ has $c_F\lVert\theta_F\rVert\, g_F/\lVert g_F\rVert$ in
# $F$: it is $Dv$. So $L(D\theta + tDv) = L(D(\theta + tv)) = L(\theta + tv)$. $\square$
# :::
#
# In a ReLU network part 3 covers the rescaling of whole layers, and with batch normalization of every single filter
# before it (up to the $\varepsilon$ under the root). Random directions with {term}`filter normalization`
# {cite}`lixu2018` are therefore the third measure: the mean rise at $\theta \pm v/4$ over 16 directions, the same draws
# for both ends.
#
# ## Predictions
#
# The lines are drawn from the lower to the higher ratio (C5), and from $\beta = 1$ to $\beta = 4$ where $\eta$ and $S$
# are multiplied by the same $\beta$ (C6). Both ends start from the same initialization.
#
# | contrast $q$ | if noise widens | if only the clock counts |
# |---|---|---|
# | C5, equal epochs | above 0 | $(k-1)/(k+1)$, and that of the control without noise |
# | C5, equal clock, equal loss | above 0 | 0 |
# | C6, all protocols | 0 | 0 |
#
# The claims and their rules are in `threefactors.inference.claims.interpolation`. **C5a**: the end of the lower ratio is
# sharper in both measures of the line, $\kappa$ and $R$; **C5b**: it is in random directions, relative to its filters.
# **C6a** and **C6b**: ends of equal ratio agree in the same measures within a factor of $1.5$, which is $|q| \le 0.2$.
# Each must hold for both pairs of its kind. C6 is expected from both mechanisms, and cannot decide between them.
#
# Learning rates, sizes, the reach of $R$ and the form of the contrast were settled on pilots with four other seeds, in
# which the directions of C5 could be seen, and which showed that two ends of equal ratio lie so close together at small
# ratios that the curvature along the line is mostly that of kinks. The rules were then fixed in code before the first
# run that is judged here.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
images = "cifar10"  # or cifar10-jpeg: at scale paper

# %% [markdown]
# ## The experiment

# %%
from types import SimpleNamespace

from threefactors import MLP, Accuracy, AtClock, Clock, Epochs, Loss, Moments
from threefactors import Sharpness, Step, Sweep, Task, TrainLoss, run
from threefactors.experiments.landscape import RandomRise, Travel, lines, lines_in_time
from threefactors.experiments.probes import Weights

SIZES = {
    "smoke": dict(
        data="digits", network=(12,), seeds=5, examples=None, tol=1e-3,
        lr=0.16, batch_size=16, gap=4, small=[(0.04, 16), (0.04, 4)],
        ghost=4, descent=0.02,
        epochs=2, clock=3.0, loss=0.8, at_most=60, looks=80,
    ),
    "laptop": dict(
        data="digits", network=(48, 48), seeds=12, examples=None, tol=1e-3,
        lr=0.16, batch_size=16, gap=8, small=[(0.04, 16), (0.04, 8)],
        ghost=8, descent=0.05,
        epochs=40, clock=40.0, loss=0.02, at_most=2000, looks=80,
    ),
    "paper": dict(
        data=images, network="VGG-11", seeds=5, examples=512, tol=1e-2,
        lr=0.1, batch_size=128, gap=8, small=[(0.0125, 128), (0.025, 128)],
        ghost=128, descent=0.05,
        epochs=12, clock=12.0, loss=0.1, at_most=120, looks=20,
    ),
}
size = SimpleNamespace(**SIZES[scale])
lr, S, k = size.lr, size.batch_size, size.gap
unequal = {  # C5: θ₁ has a k-th of the ratio of θ₂
    "ratio by batch size": ((lr, k * S), (lr, S)),
    "ratio by learning rate": ((lr / k, S), (lr, S)),
}
equal = {  # C6: β = 1 and β = 4
    f"ratio {a / b:g}": ((a, b), (4 * a, 4 * b)) for a, b in size.small
}
settings = sorted({end for pair in (unequal | equal).values() for end in pair})

# %% tags=["remove-cell"]
pace = {}  # how many times as long an arm takes as the others
if scale == "paper":
    from threefactors.training.convolution import RESNET56, VGG11

    # 6144 images, which all three can fit, without augmentation: the loss has to come down to that of a minimum.
    # The paper's networks with batch norm, at their full size; the arm without, which is ours, at a quarter of the
    # width. It needs some six times the clock to come as far, and ResNet-56 twice.
    networks = {"plain": VGG11(width=0.25), "batch norm": VGG11(size.ghost), "ResNet-56": RESNET56(size.ghost)}
    arms = {arm: Task(size.data, network, train_size=6144) for arm, network in networks.items()}
    pace = {"plain": 6, "ResNet-56": 2}
else:
    arms = {"plain": Task(size.data, MLP(size.network))}
    arms["batch norm"] = Task(size.data, MLP(size.network, batch_norm=size.ghost))

# %% [markdown]
# Two networks, without and with batch normalization (in ghost batches of the smallest batch size), three protocols as
# in {doc}`20_width`. The control without noise is full-batch descent, stopped at the two clocks that the two ratios of C5
# have at equal epochs: two points of one trajectory. Under the other two protocols a control has no line to draw. All
# runs of a seed would stop at the same clock or at the same loss, and be one and the same network.

# %%
def rules(slow=1):
    most = Epochs(slow * size.at_most)
    return {
        "equal epochs": Epochs(slow * size.epochs),
        "equal clock": Clock(slow * size.clock),
        "equal loss": TrainLoss(size.loss, most, every=slow * size.clock / size.looks),
    }


protocols, few = list(rules()), dict(examples=size.examples)
looks = [Loss(), Accuracy(), Travel(), Sharpness(size.tol, **few), Moments(**few)]
looks += [RandomRise(**few), Weights()]


def sweep(task, until, seeds=size.seeds):
    own = dict(seed=range(seeds), until=until)
    grids = [Sweep.grid(task, lr=a, batch_size=b, **own) for a, b in settings]
    return Sweep(tuple(one for grid in grids for one in grid))


# %% tags=["remove-cell"]
from threefactors.experiments.first_order import NoiseTrace

noise = {arm: [NoiseTrace()] if arm == "plain" and scale != "paper" else [] for arm in arms}

# %%
results = {
    (protocol, arm): run(sweep(task, rules(pace.get(arm, 1))[protocol]), looks + noise[arm])
    for protocol in protocols
    for arm, task in arms.items()
}
on = few | dict(held_out=size.examples)
cut = {where: lines(result, unequal, **on) for where, result in results.items()}
twins = {where: lines(result, equal, **on) for where, result in results.items()}

# %% tags=["remove-cell"]
import numpy as np
import pandas as pd

from threefactors.settings import Settings
from threefactors.training import load

N = arms["plain"].train_size or len(load(size.data, Settings.from_environment().data).y_train)
whole = N if scale != "paper" else 2048  # of 6144: little noise, in place of none


def descend(slow):
    """SGD settings of the control, and the two clocks at which it is looked at."""
    last = slow * size.epochs * (N // S) * lr
    first, step, passes = last / k, size.descent, N // whole
    # steps grow threefold at the first clock, and again at thrice it
    grow = [first / step, first / step + 2 / 3 * first / step]
    schedule = Step(at=tuple(max(1, round(n / passes)) for n in grow), factor=3)
    own = dict(lr=step, lr_schedule=schedule, batch_size=whole, seed=range(min(size.seeds, 8)))
    return own | dict(until=Clock(last * 1.001)), (first, last)


descents = {arm: descend(pace.get(arm, 1)) for arm in arms}
step, (descent, (first, last)) = size.descent, descents["plain"]

# %%
def looks_at(a, b):
    at, path = AtClock((a, b)), AtClock((a / 3, a, 3 * a, b))
    return [Weights(at), RandomRise(at=at, **few), Loss(at), Sharpness(size.tol, at=path, **few)]


quiet = {
    arm: run(Sweep.grid(arms[arm], **own), looks_at(*two))
    for arm, (own, two) in descents.items()
}
alone = {
    arm: lines_in_time(result, {"no noise": descents[arm][1]}, **on)
    for arm, result in quiet.items()
}

# %% tags=["remove-cell"]
from threefactors.experiments.landscape import contours
from threefactors.inference import judge_family, required_effect, summarize
from threefactors.inference.claims import interpolation as claims
from threefactors.inference.claims.interpolation import contrast
from threefactors.presentation import figures
from threefactors.presentation.landscape import contrasts, cuts, plane
from threefactors.presentation.prose import by_id, glue, in_words

tables = {where: result.table().drop(columns="theta") for where, result in results.items()}
runs = pd.concat(t.assign(protocol=p, arm=arm) for (p, arm), t in tables.items())
lost = int((runs.diverged | ~runs.finished).sum())
note = f"{lost} of {len(runs)} runs lost"
glue(**{"cut-runs": len(runs), "cut-lost": lost, "cut-clock": (k - 1) / (k + 1), "cut-first": first, "cut-last": last})
MEASURES = {
    "line_curvature": "curvature $\\kappa$", "line_rise": "rise $R$", "random_rise": "random rise",
    "sharpness": "$\\lambda_{\\max}$",
}


def drawn(found, arm, control=None):
    """Curves over all seeds, for each protocol and quantity."""
    def one(curves, quantity):
        log = quantity == "train_loss"
        return summarize(curves, quantity, by=["pair", "alpha"], log=log).rename(columns={"pair": "label"})

    panels = {}
    for protocol in protocols:
        curves = [found[protocol, arm].curves] + ([control.curves] if control and protocol == "equal epochs" else [])
        quantities = ("train_loss", "validation_accuracy")
        panels[protocol] = {q: pd.concat(one(c, q) for c in curves) for q in quantities}
    return panels


def numbers(found, control=None):
    """Contrast of every measure, with its interval over seeds, for each protocol."""
    panels = {}
    for protocol in protocols:
        parts = {arm: [found[protocol, arm].ends] for arm in arms}
        if control and protocol == "equal epochs":
            parts = {arm: [*own, control[arm].ends] for arm, own in parts.items()}
        rows = []
        for arm, tables_ in parts.items():
            for table in tables_:
                for pair, ends in table.groupby("pair", sort=False):
                    for measure, name in MEASURES.items():
                        i = contrast(ends, measure).interval()
                        limits = {"value": i.value, "low": i.low, "high": i.high}
                        rows.append({"row": f"{name}, {arm}", "label": pair, **limits})
        panels[protocol] = pd.DataFrame(rows)
    return panels


def span(panels):
    """Limits of an axis that shows every interval, and 0."""
    low, high = min(p.low.min() for p in panels.values()), max(p.high.max() for p in panels.values())
    return min(low - 0.05, -0.25), max(high + 0.05, 0.25)


order = [f"{name}, {arm}" for arm in arms for name in MEASURES.values()]
found_unequal, found_equal = numbers(cut, alone), numbers(twins)
for arm in arms:
    distance = {"quiet": alone[arm].ends, "noisy": cut["equal epochs", arm].ends}
    glue(**{f"cut-apart-{kind}-{arm.replace(' ', '-')}": ends.separation.mean() for kind, ends in distance.items()})

# %% tags=["remove-cell"]
from threefactors.publishing.records import keep

keep(runs)

# %% [markdown]
# ## Different ratios
#
# {numref}`fig-cut-plain` is the paper's picture, three times. The first column is its own protocol. The loss rises
# steeply beyond the end of the lower ratio and hardly at all beyond the other. The dashed line, which never saw any
# noise, is bent in the same sense on a smaller scale. Its ends are {glue:text}`cut-apart-quiet-plain:.1f` apart and
# those with noise {glue:text}`cut-apart-noisy-plain:.1f`, and $\alpha$ counts in that distance, whose square multiplies
# the curvature in what one sees.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-plain", "caption": "Training loss (geometric mean over seeds) and validation accuracy (mean) of plain networks on the straight line from the lower ratio (α = 0) to the higher one (α = 1), with 95 % intervals. The lower ratio is made by a larger batch or by a smaller learning rate. Dashed: full-batch gradient descent, from an earlier to a later time of one trajectory. What to see: at equal epochs the left end is the sharper one, with noise and (on a smaller scale) without; in the other two columns the time is taken out. Scales differ between columns."}, "image": {"alt": "Three columns, one for each protocol, of training loss and of validation accuracy along the line between two plain networks, with the control without noise dashed in the first.", "classes": "dark-light"}}
cuts(drawn(cut, "plain", alone["plain"]), note=note)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-bn", "caption": "The same with batch normalization, whose means and variances are taken from the training set anew at every point of the line. What to see: the middle column, where the loss beyond the higher ratio is a slope and not a wall, and the eye would take that end for the sharper one."}, "image": {"alt": "Three columns, one for each protocol, of training loss and validation accuracy along the line between two networks with batch normalization.", "classes": "dark-light"}}
cuts(drawn(cut, "batch norm", alone["batch norm"]), note=note)

# %% [markdown]
# The number for what the eye sees is the contrast ({numref}`fig-cut-contrast`). At equal epochs one margin and a clock
# would give {glue:text}`cut-clock:.2f`. The contrast of $\kappa$, with and without noise, and that of random directions:
#
# | equal epochs | $\kappa$ | $\kappa$, no noise | random | random, no noise |
# |---|---|---|---|---|
# | plain | {glue:text}`cut-line-curvature-equal-epochs-plain:.2f` | {glue:text}`cut-quiet-line-curvature-plain:.2f` ({glue:text}`cut-quiet-line-curvature-plain_low:.2f` to {glue:text}`cut-quiet-line-curvature-plain_high:.2f`) | {glue:text}`cut-random-rise-equal-epochs-plain:.2f` | {glue:text}`cut-quiet-random-rise-plain:.2f` ({glue:text}`cut-quiet-random-rise-plain_low:.2f` to {glue:text}`cut-quiet-random-rise-plain_high:.2f`) |
# | batch norm | {glue:text}`cut-line-curvature-equal-epochs-batch-norm:.2f` | {glue:text}`cut-quiet-line-curvature-batch-norm:.2f` ({glue:text}`cut-quiet-line-curvature-batch-norm_low:.2f` to {glue:text}`cut-quiet-line-curvature-batch-norm_high:.2f`) | {glue:text}`cut-random-rise-equal-epochs-batch-norm:.2f` | {glue:text}`cut-quiet-random-rise-batch-norm:.2f` ({glue:text}`cut-quiet-random-rise-batch-norm_low:.2f` to {glue:text}`cut-quiet-random-rise-batch-norm_high:.2f`) |
#
# On the line, then, the clock without any noise makes one end sharper than the other by about the same factor; what
# noise adds to the picture is mostly distance. (The control is gradient flow
# as long as its steps $\eta$ stay well below $2/\lambda_{\max}$; the largest $\eta\lambda_{\max}$ on its way was
# {glue:text}`cut-control-plain:.2f` and {glue:text}`cut-control-batch-norm:.2f`. Larger steps, tried first, made one of
# its runs bounce, and were given up.) In random directions, relative to the filters, it is another matter: there the
# contrast of plain networks is larger with noise than without, and that of normalized ones smaller.
#
# The columns of equal clock and equal loss are the noise's own. At equal loss, though, the higher ratio has been trained
# for longer, as noise slows the descent: its clock is {glue:text}`cut-clocks-equal-loss-plain:.2f` times (plain) and
# {glue:text}`cut-clocks-equal-loss-batch-norm:.2f` times (batch norm) that of the lower one. And at equal clock its loss is
# {glue:text}`cut-losses-equal-clock-plain:.1f` and {glue:text}`cut-losses-equal-clock-batch-norm:.1f` times as high.
#
# The middle column of {numref}`fig-cut-bn` shows what a picture can do. Beyond the end of the higher ratio the loss rises
# more than beyond the other: by a hundredth of a nat after {glue:text}`cut-outward-2-equal-clock-batch-norm:.1f` units
# of distance against {glue:text}`cut-outward-1-equal-clock-batch-norm:.1f`. The curvature says the opposite
# ($q$ = {glue:text}`cut-line-curvature-equal-clock-batch-norm:.2f`). The higher end is still on its way down, and what
# one sees is the slope: the median $\lvert g\rvert$ is {glue:text}`cut-share-2-equal-clock-batch-norm:.1f` times
# $\sqrt{2\kappa\delta}$ there (part 3 of the theorem).

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-contrast", "caption": "Contrast of the two ends, lower against higher ratio, with 95 % interval over seeds: above 0 the lower ratio is the sharper end; 1/2 is a factor of three. Gray: the control without noise. What to see: at equal epochs the gray points lie close to the colored ones for the measures of the line, and not in random directions; at equal clock and equal loss only noise, and what it does to loss and time, can move a point away from 0."}, "image": {"alt": "Dot plot in three panels, one for each protocol: rows for four measures of sharpness, a dot with its interval for the contrast of two kinds of networks, gray for the control without noise, a line at zero.", "classes": "dark-light"}}
figures.side_by_side(contrasts, found_unequal, order=order, limits=span(found_unequal), width=2.9)

# %% tags=["remove-cell"]
def key(*parts):
    return "-".join(("cut", *parts)).replace(" ", "-").replace("/", "").replace("_", "-")


for arm in arms:
    path = quiet[arm].series().query("at_clock > 0")
    growth = path.epoch.map(descents[arm][0]["lr_schedule"])
    glue(**{key("control", arm): (step * growth * path.sharpness).max()})
    for measure in MEASURES:
        i = contrast(alone[arm].ends, measure).interval()
        glue(**{key("quiet", measure, arm): i})
for (protocol, arm), found in cut.items():
    ends, close = found.ends, twins[protocol, arm].ends
    for measure in MEASURES:
        q = contrast(ends, measure)
        glue(**{key(measure, protocol, arm): q.interval()})
        glue(**{key("rival", measure, protocol, arm): np.tanh(np.arctanh(min(q.value, 1 - 1e-9)) * np.log(4) / np.log(k))})
    for measure in claims.C6a.measures + claims.C6b.measures:
        glue(**{key("same", measure, protocol, arm): contrast(close, measure).interval()})
    one, two = (ends[ends.end == e] for e in (1, 2))
    glue(**{key("separation", protocol, arm): one.separation.mean(), key("twins", protocol, arm): close.separation.mean()})
    glue(**{key("travel", e, protocol, arm): t.distance_from_start.mean() for e, t in (("1", one), ("2", two))})
    glue(**{key("norm", e, protocol, arm): t.weight_norm.mean() for e, t in (("1", one), ("2", two))})
    for side in ("outward", "inward"):
        glue(**{key(side, e, protocol, arm): t[side].median() for e, t in (("1", one), ("2", two))})
        glue(**{key("never", side, protocol, arm): 100 * np.isinf(ends[side]).mean()})
    shares = ends.line_slope.abs() / np.sqrt(2 * 0.01 * ends.line_curvature.clip(lower=1e-9))
    glue(**{key("share", protocol, arm): shares.median(), key("share", "2", protocol, arm): shares[ends.end == 2].median()})
    glue(**{key("clocks", protocol, arm): two.clock.mean() / one.clock.mean()})
    glue(**{key("losses", protocol, arm): two.train_loss.mean() / one.train_loss.mean()})
    inner = found.curves.query("0 <= alpha <= 1").groupby(["pair", "seed"]).train_loss
    outer = found.curves[found.curves.alpha.isin([0.0, 1.0])].groupby(["pair", "seed"]).train_loss.max()
    glue(**{key("barrier", protocol, arm): (inner.max() - outer).mean()})


def spread(claim, found):
    """Largest standard deviation over seeds among the contrasts that a claim judges."""
    estimates = [contrast(ends, m).per_seed for _, ends in found.ends.groupby("pair") for m in claim.measures]
    return max(per_seed.std(ddof=1) for per_seed in estimates)


for protocol in protocols:
    for claim in (claims.C5a, claims.C5b):
        need = [required_effect(claim, size.seeds, spread(claim, cut[protocol, arm])) for arm in arms]
        glue(**{key("power", claim.id, protocol): max(need)})
    for claim in (claims.C6a, claims.C6b):
        halves = [
            contrast(ends, m).interval(0.9)
            for arm in arms for _, ends in twins[protocol, arm].ends.groupby("pair") for m in claim.measures
        ]
        glue(**{key("power", claim.id, protocol): max((i.high - i.low) / 2 for i in halves)})

# %% [markdown]
# What else the lines tell, plain networks (distances in parameter space, means over seeds; the distances at which the
# loss has risen by a hundredth of a nat are medians, and inf where more than half of the seeds never get there):
#
# | | equal epochs | equal clock | equal loss |
# |---|---|---|---|
# | distance of the ends from each other | {glue:text}`cut-separation-equal-epochs-plain:.1f` | {glue:text}`cut-separation-equal-clock-plain:.1f` | {glue:text}`cut-separation-equal-loss-plain:.1f` |
# | from the start, lower ratio | {glue:text}`cut-travel-1-equal-epochs-plain:.1f` | {glue:text}`cut-travel-1-equal-clock-plain:.1f` | {glue:text}`cut-travel-1-equal-loss-plain:.1f` |
# | from the start, higher ratio | {glue:text}`cut-travel-2-equal-epochs-plain:.1f` | {glue:text}`cut-travel-2-equal-clock-plain:.1f` | {glue:text}`cut-travel-2-equal-loss-plain:.1f` |
# | half-width outward, lower ratio | {glue:text}`cut-outward-1-equal-epochs-plain:.1f` | {glue:text}`cut-outward-1-equal-clock-plain:.1f` | {glue:text}`cut-outward-1-equal-loss-plain:.1f` |
# | half-width outward, higher ratio | {glue:text}`cut-outward-2-equal-epochs-plain:.1f` | {glue:text}`cut-outward-2-equal-clock-plain:.1f` | {glue:text}`cut-outward-2-equal-loss-plain:.1f` |
# | no half-width inward, % of ends | {glue:text}`cut-never-inward-equal-epochs-plain:.0f` | {glue:text}`cut-never-inward-equal-clock-plain:.0f` | {glue:text}`cut-never-inward-equal-loss-plain:.0f` |
# | slope $\lvert g\rvert$ over $\sqrt{2\kappa\delta}$, median | {glue:text}`cut-share-equal-epochs-plain:.1f` | {glue:text}`cut-share-equal-clock-plain:.1f` | {glue:text}`cut-share-equal-loss-plain:.1f` |
# | highest loss between the ends, above the higher end | {glue:text}`cut-barrier-equal-epochs-plain:.3f` | {glue:text}`cut-barrier-equal-clock-plain:.3f` | {glue:text}`cut-barrier-equal-loss-plain:.3f` |
#
# Since both ends share their initialization, they are closer to each other than to it, and there is next to no barrier
# between them, as is known of networks that share the early part of their training {cite}`frankle2020`. "Two minima" is
# a manner of speaking: the line stays in one valley.
#
# ## Equal ratios

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-twins", "caption": "Training loss and validation accuracy between networks of equal ratio, β = 1 (α = 0) and β = 4 (α = 1), plain networks, for two ratios; means over seeds with 95 % intervals, as in the figures before. What to see: curves that are symmetric about the middle."}, "image": {"alt": "Three columns, one for each protocol; the upper row shows the training loss and the lower the validation accuracy along the line between two networks of equal ratio, for two ratios, with bands.", "classes": "dark-light"}}
cuts(drawn(twins, "plain"), note=note)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-equal", "caption": "Contrast of the two ends for β = 1 against β = 4, with 95 % interval over seeds. The band is the margin fixed beforehand, a factor of 1.5. What to see: whether intervals lie within the band; a wide interval says that the ends are so close together that this measure cannot tell."}, "image": {"alt": "Dot plot in three panels, one for each protocol: rows for four measures of sharpness, a dot with its interval for the contrast of networks of equal ratio, and the margin as a shaded band around zero.", "classes": "dark-light"}}
figures.side_by_side(
    contrasts, found_equal, order=order, margin=claims.MARGIN, limits=span(found_equal), width=2.9
)

# %% [markdown]
# What does the margin of $0.2$ exclude? If only $\eta$, or only $S$, decided, then $\beta = 4$ would do what a fourfold
# ratio does. From the contrasts measured above for a {glue:text}`cut-gap:.0f`-fold ratio, with the same power law, that
# would be for $\kappa$ and, behind the stroke, for random directions:
#
# | if one of $\eta$ and $S$ decided | equal epochs | equal clock | equal loss |
# |---|---|---|---|
# | plain | {glue:text}`cut-rival-line-curvature-equal-epochs-plain:.2f` / {glue:text}`cut-rival-random-rise-equal-epochs-plain:.2f` | {glue:text}`cut-rival-line-curvature-equal-clock-plain:.2f` / {glue:text}`cut-rival-random-rise-equal-clock-plain:.2f` | {glue:text}`cut-rival-line-curvature-equal-loss-plain:.2f` / {glue:text}`cut-rival-random-rise-equal-loss-plain:.2f` |
# | batch norm | {glue:text}`cut-rival-line-curvature-equal-epochs-batch-norm:.2f` / {glue:text}`cut-rival-random-rise-equal-epochs-batch-norm:.2f` | {glue:text}`cut-rival-line-curvature-equal-clock-batch-norm:.2f` / {glue:text}`cut-rival-random-rise-equal-clock-batch-norm:.2f` | {glue:text}`cut-rival-line-curvature-equal-loss-batch-norm:.2f` / {glue:text}`cut-rival-random-rise-equal-loss-batch-norm:.2f` |
#
# Where such a number lies below $0.2$, a SUPPORTED verdict for C6 does not speak against the rival: everything is nearly
# equally wide there, whatever the ratio.
#
# On the line, the two ends of equal ratio are only {glue:text}`cut-twins-equal-loss-plain:.1f` (plain) and
# {glue:text}`cut-twins-equal-loss-batch-norm:.1f` (batch norm) apart at equal loss, where the ends of C5 are
# {glue:text}`cut-separation-equal-loss-plain:.1f` and {glue:text}`cut-separation-equal-loss-batch-norm:.1f`. A cut so
# short sees the kinks of single units as much as the valley, with either sign, and the intervals of C6a are wide. In
# random directions the answer is sharp. With batch normalization the contrast at equal loss is
# {glue:text}`cut-same-random-rise-equal-loss-batch-norm:.3f` ({glue:text}`cut-same-random-rise-equal-loss-batch-norm_low:.3f`
# to {glue:text}`cut-same-random-rise-equal-loss-batch-norm_high:.3f`), without it
# {glue:text}`cut-same-random-rise-equal-loss-plain:.3f` ({glue:text}`cut-same-random-rise-equal-loss-plain_low:.3f` to
# {glue:text}`cut-same-random-rise-equal-loss-plain_high:.3f`). Plain networks of equal ratio are *not* equally wide to the
# last digit; those of $\beta = 4$ are a little wider. They are within the margin that was agreed on.
#
# ## A plane through three minima
#
# A line shows one direction. {numref}`fig-cut-plane` shows the plane through three networks of one seed that were
# stopped at the same training loss.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cut-plane", "caption": "Training loss in the plane through three plain networks of one seed, all stopped at the same loss; level lines are a constant factor apart. What to see: one valley with all three in it; the two networks of the lower ratio, made in different ways, are close together."}, "image": {"alt": "Level lines of the training loss in a plane, with three marked networks: all lie in one elongated valley, with the steepest walls across it.", "classes": "dark-light"}}
corners = {"lower ratio, large S": (lr, k * S), "lower ratio, small η": (lr / k, S), "higher ratio": (lr, S)}
figures.alone(plane(*contours(results["equal loss", "plain"], corners, seed=0)))

# %% [markdown]
# ## Verdicts

# %%
where = list(cut)
family = [c.at(*w) for c in (claims.C5a, claims.C5b) for w in where]
family += [c.at(*w) for c in (claims.C6a, claims.C6b) for w in where]
ends = [cut[w].ends for w in where] * 2 + [twins[w].ends for w in where] * 2
verdicts = judge_family(family, ends)
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"cut-{claim}": in_words(own)})
glue(**{"cut-gap": k})

# %% [markdown]
# In words, from the table above and not typed:
#
# - **C5a**, the end of the lower ratio is sharper on the line: {glue:text}`cut-C5a`.
# - **C5b**, and in random directions: {glue:text}`cut-C5b`.
# - **C6a**, ends of equal ratio are equally wide on the line: {glue:text}`cut-C6a`.
# - **C6b**, and in random directions: {glue:text}`cut-C6b`.
#
# What these seeds could have found: for C5 the smallest contrast that would be SUPPORTED with a probability of four in
# five (for one claim alone), for C6 half the width of the widest interval, to be held against the margin of $0.2$;
# each for the noisier of the two networks.
#
# | | equal epochs | equal clock | equal loss |
# |---|---|---|---|
# | C5a | {glue:text}`cut-power-C5a-equal-epochs:.2f` | {glue:text}`cut-power-C5a-equal-clock:.2f` | {glue:text}`cut-power-C5a-equal-loss:.2f` |
# | C5b | {glue:text}`cut-power-C5b-equal-epochs:.2f` | {glue:text}`cut-power-C5b-equal-clock:.2f` | {glue:text}`cut-power-C5b-equal-loss:.2f` |
# | C6a | {glue:text}`cut-power-C6a-equal-epochs:.2f` | {glue:text}`cut-power-C6a-equal-clock:.2f` | {glue:text}`cut-power-C6a-equal-loss:.2f` |
# | C6b | {glue:text}`cut-power-C6b-equal-epochs:.2f` | {glue:text}`cut-power-C6b-equal-clock:.2f` | {glue:text}`cut-power-C6b-equal-loss:.2f` |
#
# Of {glue:text}`cut-runs:.0f` runs, {glue:text}`cut-lost:.0f` diverged or did not finish.
#
# ## At the paper's own size
#
# All of the above is the work of the machine on which this page was made. At scale `paper` the same code wants a GPU;
# what it found there is kept in `book/records`, with the definition of its runs, and stands here beside our own verdicts.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import recorded

recorded("22_interpolation", verdicts, scale)

# %% [markdown]
# ## What would change our mind
#
# - *That the picture at equal epochs is the clock's.* A control without noise whose contrast is near 0 while that of the
#   noisy runs is not.
# - *That the noise does something of its own.* A contrast at equal clock and at equal loss that more seeds cannot tell
#   from 0, or that a random relabeling of the two ends gives as often.
# - *That the line measures width at all.* Contrasts in random directions, relative to the filters, of the opposite sign.
#   The line is not a typical direction: it is the one in which the two networks differ, which for two stages of one
#   training is the direction of descent.
#
# Three limits. The protocols hold one thing equal and let the others go: at equal clock the noisier end is higher up,
# at equal loss it has trained longer. All networks of a seed start at one point and stay in one valley; networks from
# different starts would be separated by barriers, and the middle of the line would not belong to either. And ends of
# equal ratio come close to being the same network, so that C6 asks less than it seems to.
#
# ## Exercises
#
# 1. Show that for two minima of one bowl the two ends have the same $\kappa$, whatever $H$ is. What, then, does a contrast
#    on the line measure?
# 2. Evaluate the batch-norm networks with statistics interpolated between the two ends instead of recomputed ones. How
#    high is the barrier then?
# 3. Draw the line between networks of different seeds. At which $\alpha$ does the loss reach that of guessing?
# 4. Apply the rescaling of the theorem to the hidden layers of one end, with $c = 3$, and draw {numref}`fig-cut-plain`
#    again. Which rows of {numref}`fig-cut-contrast` change?
# 5. Which contrast would $k$-fold ratios have at equal epochs if the loss were squared and the network linear?
