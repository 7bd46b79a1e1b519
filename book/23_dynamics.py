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
# # Learning curves
#
# **Question.** Can a schedule of the learning rate be replaced by a schedule of the batch size? And if the curves
# overlap: is it because the noise is the same, or because the clock is?
#
# The paper trains pairs of networks whose learning rate $\eta$ and batch size $S$ differ while $\eta/S$ is the same at
# every epoch, lays their learning curves over one another and finds that they match; pairs of equal $\eta/\sqrt S$ do not
# {cite}`jastrzebski2018`. The practice that follows from it, to let the batch grow where one used to let the learning
# rate decay, is well known {cite}`smith2018decay`. This chapter repeats both experiments with a number in the place of
# a look, and asks a third question of the same curves: would gradient descent *without any noise* have said so too?
#
# ## The law
#
# Write $L$ for the training loss, $\theta$ for the parameters, $N$ for the number of training examples, $C(\theta)$ for
# the covariance of one example's gradient, $e$ for the time in epochs and $n = \eta/S$ for the {term}`noise scale`. Step $k$ with
# $\eta_k$ and $S_k$ moves $\theta$ by $-\eta_k \nabla L$ on the mean, with the covariance $\eta_k^2 C/S_k = \eta_k n_k C$.
# On the clock $\tau$, the sum of the learning rates so far, each step lasts $\eta_k$. Per unit of the clock, SGD moves
# by $-\nabla L$ and collects the covariance $n C$. For small $\eta$ it is a discretization of
#
# ```{math}
# :label: eq-dynamics-sde
# d\theta = -\nabla L(\theta)\,d\tau + \sqrt{n(\tau)\, C(\theta)}\;dW_\tau ,
# \qquad
# \frac{d\tau}{de} = N\, n(e) ,
# ```
#
# the second because an epoch has $N/S$ steps. The ratio enters twice: it is the strength of the noise, and it is
# the speed of the clock.
#
# :::{admonition} Theorem (what two schedules share)
# :class: tip
#
# 1. Two schedules with the same $n(e)$ at every epoch $e$ define one and the same process {eq}`eq-dynamics-sde` in $e$.
#    Without noise, they define the same gradient flow in $e$, too.
# 2. Let $\varphi_\tau(\theta)$ be gradient flow, $\dot\varphi = -\nabla L(\varphi)$, and $L$ smooth. Then the noise adds
#    to the loss that the flow alone has at the same clock $T$
#
# ```{math}
# :label: eq-dynamics-gap
# \mathbb{E}\,L(\theta_T) - L(\varphi_T(\theta_0))
#   = \tfrac12 \int_0^T n(\tau)\; \mathbb{E}\operatorname{Tr}\!\big[\,C(\theta_\tau)\,\nabla^2 u_\tau(\theta_\tau)\big]\,d\tau ,
# \qquad u_\tau = L\circ\varphi_{T-\tau} .
# ```
# :::
#
# :::{dropdown} Proof
# *1.* In the time $e$, equation {eq}`eq-dynamics-sde` reads
# $d\theta = -N n(e) \nabla L\,de + n(e) \sqrt{N\,C}\,dW_e$; nothing but $n(e)$ is left of the schedule. Leave the last
# term out for the flow.
#
# *2.* $u_\tau(\theta)$ is the loss to which the flow would still bring $\theta$ in the time $T-\tau$. Along the flow
# it does not change, so that $\partial_\tau u = \nabla L\cdot\nabla u$. By Itô's formula
# $d\,u_\tau(\theta_\tau) = (\partial_\tau u - \nabla L\cdot\nabla u + \tfrac12 n \operatorname{Tr}[C\nabla^2 u])\,d\tau$ plus a
# martingale. The first two terms cancel. Integrate from $0$, where $u_0(\theta_0) = L(\varphi_T(\theta_0))$, to $T$, where
# $u_T(\theta_T) = L(\theta_T)$, and take the mean. $\square$
# :::
#
# ```{margin} How far it reaches
# Networks with ReLU are smooth only piece by piece, and examples are drawn by epochs, without replacement: the theorem
# is a guide to them, no more.
# ```
#
# In a bowl of curvature $\lambda$ with constant $C$ and $n$, $\nabla^2 u_\tau = \lambda e^{-2\lambda(T-\tau)}$, and
# {eq}`eq-dynamics-gap` is $\tfrac14 n C\,(1 - e^{-2\lambda T})$: the height $\tfrac14 n C$ of the stationary state,
# and how it is approached. Where all examples can be fitted, $C$ vanishes with the loss, and there may be little to add.
#
# Part 1 is the paper's claim, and it holds *with or without* the noise. An overlap of curves of equal $\eta/S$ says that
# the discretization is fine. It cannot say that noise plays a part. Part 2 tells where to look: pairs of
# *different* ratio, compared at the same clock, differ by the noise and by nothing else.
#
# ```{index} learning curves; overlap of
# ```
#
# ```{index} learning-rate schedule
# ```
#
# ```{index} batch-size schedule
# ```
#
# ## What is an overlap?
#
# A band, fixed beforehand: an {term}`equivalence margin`. Pairs of equal $\eta/\sqrt S$, with a batch $\beta$ times as
# large, have ratios that differ by $\sqrt\beta$; so do their clocks. Late in training losses fall like $1/T$
# ({numref}`fig-width-clock`), and with $\beta = 4$ the slower curve is a factor 2 higher. Half way there, at a factor
# $\sqrt2$ in the loss, overlapping ends: the band has the half-width $\tfrac12\ln 2$ in $\ln L$. For $\operatorname{Tr}
# H$, which falls with the loss, it is the same, and for accuracies two points. Two curves are compared seed by seed, at
# eleven points from two twelfths of the way to its end, and *every* point has to lie inside. Before that curves fall by
# factors within an epoch, and nobody claims anything.
#
# ## Predictions
#
# | pair | per epoch | per clock, if the clock is all | per clock, if noise counts |
# |---|---|---|---|
# | equal $\eta/S$, schedules included | inside (**C1**, **C2a**) | the same curves | the same curves |
# | equal $\eta/\sqrt S$ | outside (**C2b**) | inside (**T1**) | outside |
# | equal $\eta$, or equal $S$ | outside | inside (**T1**) | outside |
#
# For equal $\eta/S$ the clocks agree at every epoch, so that *equal epochs* and *equal clock* are one protocol, and are
# judged as one. C2b would be senseless at equal clock, and T1 at equal epochs. At *equal training loss*, **C2c** says
# that nothing is left to differ: validation accuracy and $\operatorname{Tr} H$ agree, for all pairs. The paper's word
# for C2b, that curves do not match, is made into: the training loss is outside the band on the mean over the points. The
# rules are in `threefactors.inference.claims.dynamics`.
#
# Pilots on four to six seeds, none of which is judged, set learning rates, epochs and the losses of C2c. They showed that
# on clean labels all curves lie on the clock, and that it takes noisy labels to pull them apart: the third task below
# was added for that. There, learning rates four and eight times as large were tried first and pulled even pairs of
# equal $\eta/S$ apart; they were lowered, since the claim is about small steps. At the rates used below a pilot's losses
# of equal $\eta/S$ differed by an eighth at most, and its validation accuracies ended two points apart. All this had been
# seen when the band was written down, for the reasons above. So little surprise was expected of C1, C2a and C2b, and of
# T1 that it is *supported* on clean labels and *refuted* on noisy ones.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
images = "cifar10"  # or cifar10-jpeg: at scale paper

# %% [markdown]
# ## The experiment

# %%
from types import SimpleNamespace as Plan

from threefactors import Accuracy, AtClock, Clock, Epochs, Every, Loss, Moments
from threefactors import Sharpness, SquareCycle, Step, Task, TriangularCycle
from threefactors.experiments.curves import LearningCurve, constant, follow, mirrored

SIZES = {
    "smoke": dict(
        data="digits", network=(12,), seeds=5, flow_seeds=5, beta=4, examples=None,
        clean=dict(lr=0.1, batch_size=16, epochs=12, losses=[0.3, 0.27], flow=(4, 0.1)),
        noisy=dict(lr=0.02, batch_size=4, epochs=12, losses=[1.7, 1.6], flow=(4, 0.1)),
    ),
    "laptop": dict(
        data="digits", network=(64, 64, 64), seeds=12, flow_seeds=3, beta=4, examples=None,
        clean=dict(lr=0.02, batch_size=16, epochs=60,
                   losses=[0.2, 0.1, 0.05], flow=(86.4, 0.05)),
        noisy=dict(lr=0.01, batch_size=4, epochs=96,
                   losses=[0.8, 0.6, 0.4], flow=(86.4, 0.02)),
    ),
    "paper": dict(
        data=images, network="VGG11", seeds=5, flow_seeds=2, beta=4, examples=512,
        clean=dict(lr=0.03, batch_size=128, epochs=60,
                   losses=[1.7, 1.5, 1.3], flow=(86.4, 0.05)),
        noisy=dict(lr=0.02, batch_size=64, epochs=96,
                   losses=[2.15, 2.1, 2.05], flow=(184.32, 0.05)),
    ),
}
size = Plan(**SIZES[scale])
clean, noisy = Plan(**size.clean), Plan(**size.noisy)

# %% tags=["remove-cell"]
if size.network == "VGG11":
    from threefactors.training.convolution import RESNET56, VGG11

    def network(batch_norm=None):
        """The paper's, with batch norm, at its full size; the arms without, which are ours, at a quarter of the width."""
        return VGG11(batch_norm, width=0.25 if batch_norm is None else 1.0)
else:
    from threefactors import MLP

    def network(batch_norm=None):
        return MLP(size.network, batch_norm=batch_norm)

# %% [markdown]
# `paper` has the paper's VGG-11 and its ResNet-56 with batch normalization, and wants a GPU. Its pair 128 and 640 becomes
# 128 and 512, so that every batch of every schedule divides the 6144 images, and the clock stays true; learning rates are
# larger than the paper's, which made up for them by hundreds of epochs. There is no augmentation, which would keep two of
# the four tasks from coming down to their losses.
#
# Three tasks: clean labels, without and with batch normalization (ghost batches of the smallest batch size of the
# pairs), and a quarter of the training labels replaced by random ones, which the network can fit but only late. Each is
# learned with five constant settings and three schedules. A schedule of the batch size multiplies it at the given
# epochs; its mirror image divides the learning rate instead, at the same epochs and by the same factors.

# %%
tasks = {
    "plain": (Task(size.data, network()), clean),
    "batch norm": (Task(size.data, network(batch_norm=clean.batch_size)), clean),
    "noisy labels": (Task(size.data, network(), label_noise=0.25), noisy),
}


def growth(epochs, beta):
    return {
        "step": Step((epochs // 3, 2 * epochs // 3), factor=beta),
        "square cycle": SquareCycle(period=epochs // 6, low=1, high=beta),
        "triangular cycle": TriangularCycle(period=2 * beta - 2, low=1, high=beta),
    }


# %% [markdown]
# Every setting and seed is trained once and watched on its way; epochs, clock and loss are then read off the same curves.

# %% tags=["remove-cell"]
from dataclasses import replace

from threefactors.experiments.first_order import NoiseTrace

few = dict(examples=size.examples)  # of the training set, for the curvature (None: all)
if scale == "paper":  # with batch norm the loss comes down in a fraction of the clock, and each has its own levels
    same = dict(batch_size=128, epochs=12)
    normed = Plan(lr=0.05, losses=[1.3, 1.0, 0.8], flow=(28.8, 0.1), **same)
    deep = Plan(lr=0.1, losses=[2.0, 1.9, 1.8], flow=(57.6, 0.1), **same)
    tasks["batch norm"] = (tasks["batch norm"][0], normed)
    tasks["ResNet-56"] = (Task(size.data, RESNET56(batch_norm=deep.batch_size)), deep)
    tasks = {arm: (replace(task, train_size=6144), plan) for arm, (task, plan) in tasks.items()}
at_end = {arm: [Loss(), Accuracy(), Sharpness(tol=1e-2, **few), Moments(**few)] for arm in tasks}
for arm in ("plain", "noisy labels"):  # under batch norm no example has its own gradient
    at_end[arm] += [NoiseTrace()] * (scale != "paper")  # exact for perceptrons alone

# %%
curves, ends = {}, {}
for arm, (task, plan) in tasks.items():
    η, S, E = plan.lr, plan.batch_size, plan.epochs
    cells = constant(η, S, size.beta) | mirrored(η, S, growth(E, size.beta))
    look, measure = Every(max(1, E // 48)), Every(max(2, E // 12))
    watch = [LearningCurve(look), Moments(probes=2, at=measure, **few)]
    curves[arm], ends[arm] = follow(
        task, cells, seed=range(size.seeds), until=Epochs(E), probes=watch + at_end[arm]
    )

# %% [markdown]
# The control knows no noise: full-batch descent in small steps. It is run once for each seed and read at any clock.

# %% tags=["remove-cell"]
from threefactors.settings import Settings
from threefactors.training import load

N = tasks["plain"][0].train_size or len(load(size.data, Settings.from_environment().data).y_train)
whole = N if scale != "paper" else 2048  # of 6144: little noise, in place of none

# %%
flows = {}
for arm, (task, plan) in tasks.items():
    clock, step = plan.flow
    times = tuple(clock * k / 120 for k in range(1, 121))
    watch = [LearningCurve(AtClock(times)), Sharpness(tol=1e-2, at=AtClock(times[::20]), **few)]
    flows[arm], _ = follow(
        task, {"no noise": dict(lr=step, batch_size=whole)},
        seed=range(size.flow_seeds), until=Clock(clock), probes=watch,
    )

# %% tags=["remove-cell"]
import numpy as np
import pandas as pd

from threefactors._rng import numpy_generator
from threefactors.inference import Interval, judge_family, required_effect, summarize
from threefactors.inference.claims.dynamics import C1, C2a, C2b, T1, C2c
from threefactors.inference.curves import BANDS, averaged, clock_share, distance_interval, drawn, gaps, read
from threefactors.inference.laws import mean
from threefactors.presentation import figures
from threefactors.presentation.curves import at_losses, distances, gap_bands, learning_curves
from threefactors.presentation.prose import by_id, glue, in_words

CONSTANT = list(constant(1.0, 1, size.beta))
SCHEDULES = list(growth(12, size.beta))
KEYS = {"plain": "plain", "batch norm": "bn", "noisy labels": "noisy"}
KEYS |= {"ResNet-56": "resnet"} if scale == "paper" else {}


def of(arm, *names):
    return {name: curves[arm][curves[arm].cell == name] for name in names}


lost = {arm: (int(table.diverged.sum()), len(table)) for arm, table in ends.items()}
for arm, flow in flows.items():
    glue(**{f"dynamics-descent-{KEYS[arm]}": tasks[arm][1].flow[1] * flow.sharpness.max()})
glue(**{
    "dynamics-lost": sum(k for k, _ in lost.values()), "dynamics-runs": sum(n for _, n in lost.values()),
    "dynamics-noisy-reach": noisy.flow[0] / (noisy.epochs * N * noisy.lr / noisy.batch_size) * 100,
})

# %% [markdown]
# Its steps are small enough if $\eta\lambda_{\max}$ stays below 2. On its way the largest was
# {glue:text}`dynamics-descent-plain:.2f` (plain), {glue:text}`dynamics-descent-bn:.2f` (batch norm, where a little noise
# is left, since ghost batches are put together anew at every step) and {glue:text}`dynamics-descent-noisy:.2f` (noisy
# labels, where the curvature grows while random labels are being fitted {cite}`cohen2021`, small steps are dear, and
# the control is followed for the first {glue:text}`dynamics-noisy-reach:.0f` % of the clock of the fastest setting; it was
# made again, in smaller steps, after the first attempt had gone beyond 2).
#
# ## Constant pairs
#
# First as the paper draws them, against epochs: {numref}`fig-dynamics-epochs`. Each dotted line is what the control does
# along the clock of the curve of its color. The two curves of equal $\eta/S$ lie over one another, and the one of equal
# $\eta/\sqrt S$ lies apart, as the paper says. (Equal $\eta$ and equal $S$ are a second pair of equal ratio.) On clean
# labels the dotted lines, which know of no noise, say the same.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-epochs", "caption": "Training loss against epochs for five constant settings of learning rate and batch size, geometric mean over seeds with 95 % interval; dotted: full-batch descent without noise, carried through the clock of the curve of its color. What to see: curves of equal ratio overlap, others do not; and where the dotted lines lie on their curves, the noise had no part in either."}, "image": {"alt": "Three panels, one for each task, of training loss on a logarithmic axis against epochs, five curves each, with noise-free curves dotted.", "classes": "dark-light"}}
per_epoch = {arm: drawn(of(arm, *CONSTANT), "epoch", "train_loss", flows[arm]) for arm in tasks}
figures.side_by_side(learning_curves, per_epoch, x="epoch", measure="train_loss", lost=lost, width=3.1)

# %% [markdown]
# Now the same runs against the clock. On clean labels five curves become one, whatever their ratio, and that one is the
# flow's ({numref}`fig-dynamics-clock`).

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-clock", "caption": "Clean labels: the runs of the last figure against the clock, the sum of their learning rates; dotted: descent without noise. What to see: five settings, of three ratios, on one curve, and that curve is the dotted one."}, "image": {"alt": "Two panels, plain and batch norm, of training loss against the clock, both logarithmic, five curves each and the noise-free one dotted.", "classes": "dark-light"}}
per_clock = {arm: drawn(of(arm, *CONSTANT), "at_clock", "train_loss", flows[arm]) for arm in tasks}
shown = {arm: per_clock[arm] for arm in ("plain", "batch norm")}
figures.side_by_side(learning_curves, shown, x="at_clock", measure="train_loss", logx=True, width=3.8)

# %% [markdown]
# With noisy labels they fan out by their ratio: the more noise, the later the random labels are fitted
# ({numref}`fig-dynamics-clock-noisy`). Only here does the overlap of equal $\eta/S$, which is still there, say something
# about the noise.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-clock-noisy", "caption": "Noisy labels: training loss against the clock; dotted: descent without noise. What to see: three ratios, three curves, ordered by their noise, and without noise the random labels are fitted soonest."}, "image": {"alt": "Training loss with noisy labels, logarithmic, against the clock, five curves that fan out and the noise-free one dotted below them.", "classes": "dark-light"}}
figures.alone(learning_curves(per_clock["noisy labels"], x="at_clock", measure="train_loss"))

# %% [markdown]
# Validation accuracy tells the same story. With noisy labels it rises, and falls when random labels are being fitted;
# a run with a small ratio passes the same points later.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-accuracy", "caption": "Validation accuracy on clean labels against epochs, mean over seeds with 95 % interval; dotted: without noise, along the same clock. What to see: where the dotted line falls before its curve does, the noise has kept the network from fitting random labels."}, "image": {"alt": "Three panels, one for each task, of validation accuracy against epochs: five curves with bands, one for each setting of learning rate and batch size, and noise-free curves dotted.", "classes": "dark-light"}}
floor = 0.6 if scale != "paper" else 0.2
accuracy = {
    arm: drawn(of(arm, *CONSTANT), "epoch", "validation_accuracy", flows[arm]).query("value > @floor") for arm in tasks
}
figures.side_by_side(learning_curves, accuracy, x="epoch", measure="validation_accuracy", width=3.1)

# %% [markdown]
# ## Schedules
#
# The paper's C1, in {numref}`fig-dynamics-schedules`: a step, a square wave and a triangular wave, once in $S$ and once
# in $\eta$. Shown is the task with noisy labels, where the noise has most to say.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-schedules", "caption": "Training loss with noisy labels for three schedules, each once as a schedule of the batch size and once as one of the learning rate; dotted: without noise, along the clock that both share. What to see: both curves bend together at each change, and neither follows the dotted one."}, "image": {"alt": "Three panels, for step, square cycle and triangular cycle, of training loss against epochs for two schedules and the noise-free control.", "classes": "dark-light"}}
shown = {
    name: drawn(
        dict(zip(["schedule of S", "schedule of η"], of("noisy labels", f"{name} of S", f"{name} of η").values())),
        "epoch", "train_loss", flows["noisy labels"],
    )
    for name in SCHEDULES
}
figures.side_by_side(learning_curves, shown, x="epoch", measure="train_loss", width=3.1)

# %% [markdown]
# ## Inside the band?
#
# The difference of every pair, at every point, under every protocol:

# %%
pairs = {name: ("η, S", name) for name in CONSTANT[1:]}
pairs |= {name: (f"{name} of S", f"{name} of η") for name in SCHEDULES}


def compared(protocol, arm, pair):
    losses = tasks[arm][1].losses if protocol == "equal loss" else None
    return gaps(*of(arm, *pairs[pair]).values(), protocol, losses)


protocols = ("equal epochs", "equal clock", "equal loss")
results = {
    (protocol, f"{arm}: {pair}"): compared(protocol, arm, pair)
    for protocol in protocols for arm in tasks for pair in pairs
}

# %% tags=["remove-cell"]
def evidence(claim):
    """The table of every point; for C2b, which speaks of the curve as a whole, its means over the points."""
    table = results[claim.protocol, claim.arm]
    return averaged(table) if claim.id == "C2b" else table


def in_bands(protocol, arm, measure="train_loss", names=CONSTANT[1:]):
    tables = {name: results[protocol, f"{arm}: {name}"] for name in names}
    summaries = {name: summarize(t, f"{measure}_gap", by=["point"], log=False) for name, t in tables.items()}
    return pd.concat(s.assign(pair=name, share=s.point / s.point.max()) for name, s in summaries.items())


# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-bands", "caption": "Difference of the training loss of each constant pair, in half-widths of the band (shaded), at equal clock, with 95 % intervals over seeds; beyond 1 the axis is logarithmic. What to see: on clean labels all pairs are inside from early on; with noisy labels those of unequal ratio leave the band downwards, since less noise fits the random labels sooner."}, "image": {"alt": "Three panels, one for each task, of the difference of training losses at equal clock against the share of the way, with a shaded band.", "classes": "dark-light"}}
figures.side_by_side(gap_bands, {arm: in_bands("equal clock", arm) for arm in tasks}, ylabel="difference at equal clock (half-widths)", width=3.1)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-schedule-bands", "caption": "The same for the three pairs of schedules, at equal epochs, which for them is equal clock. What to see: whether all points and intervals are inside."}, "image": {"alt": "Three panels, one for each task, of the difference of training losses of schedule pairs at equal epochs, with a shaded band.", "classes": "dark-light"}}
figures.side_by_side(gap_bands, {arm: in_bands("equal epochs", arm, names=SCHEDULES) for arm in tasks}, ylabel="difference at equal epochs (half-widths)", width=3.1)

# %% [markdown]
# ## How much of the overlap is the clock's?
#
# The distance of two mean curves is the root mean square, over the eleven points, of the difference of their $\ln L$; what
# the scatter of the seeds alone would make of it is taken off. If the distance of a curve to the *flow* is as small
# as its distance to its partner, the partner's overlap needs no noise.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-distance", "caption": "Root mean square distance of two mean curves in the logarithm of the training loss, with 95 % intervals over seeds; distances below the left end are drawn there. What to see: the first row (the paper's overlap) against the third (a curve and the flow without noise), and the second against the fourth (what the clock leaves of the difference)."}, "image": {"alt": "Dot plot of distances for four comparisons and three tasks, on a logarithmic axis, with the half-width of the band as a dashed line.", "classes": "dark-light"}}
rng = numpy_generator(0, "curve distances")
rows = []
for arm in tasks:
    start = of(arm, "η, S")["η, S"].query(f"seed < {size.flow_seeds}")
    to_flow = gaps(flows[arm], start, "equal clock")
    tables = {
        "equal η/S, per epoch": results["equal epochs", f"{arm}: equal η/S"],
        "equal η/√S, per epoch": results["equal epochs", f"{arm}: equal η/√S"],
        "η, S and no noise, per clock": to_flow,
        "equal η/√S, per clock": results["equal clock", f"{arm}: equal η/√S"],
    }
    rows += [(arm, what, distance_interval(table, "train_loss", rng)) for what, table in tables.items()]
measured = pd.DataFrame([dict(arm=arm, what=what, value=i.value, low=i.low, high=i.high) for arm, what, i in rows])
figures.alone(distances(measured, band=BANDS["train_loss"]))

# %% tags=["remove-cell"]
SHORT = {
    "equal η/S, per epoch": "pair", "equal η/√S, per epoch": "rival", "η, S and no noise, per clock": "flow",
    "equal η/√S, per clock": "rival-clock",
}
for arm, what, interval in rows:
    glue(**{f"dynamics-{SHORT[what]}-{KEYS[arm]}": interval})
for arm in tasks:
    rival = [results[protocol, f"{arm}: equal η/√S"] for protocol in ("equal epochs", "equal clock")]
    glue(**{f"dynamics-share-{KEYS[arm]}": clock_share(*rival, "train_loss", rng)})

# %% [markdown]
# | | plain | batch norm | noisy labels |
# |---|---|---|---|
# | equal $\eta/S$, per epoch | {glue:text}`dynamics-pair-plain:.2f` | {glue:text}`dynamics-pair-bn:.2f` | {glue:text}`dynamics-pair-noisy:.2f` |
# | equal $\eta/\sqrt S$, per epoch | {glue:text}`dynamics-rival-plain:.2f` | {glue:text}`dynamics-rival-bn:.2f` | {glue:text}`dynamics-rival-noisy:.2f` |
# | $\eta, S$ and the flow without noise, per clock | {glue:text}`dynamics-flow-plain:.2f` | {glue:text}`dynamics-flow-bn:.2f` | {glue:text}`dynamics-flow-noisy:.2f` |
# | equal $\eta/\sqrt S$, per clock | {glue:text}`dynamics-rival-clock-plain:.2f` | {glue:text}`dynamics-rival-clock-bn:.2f` | {glue:text}`dynamics-rival-clock-noisy:.2f` |
# | share of the separation that the clock explains | {glue:text}`dynamics-share-plain:.3f` | {glue:text}`dynamics-share-bn:.3f` | {glue:text}`dynamics-share-noisy:.3f` |
# | 95 % interval | {glue:text}`dynamics-share-plain_low:.3f` to {glue:text}`dynamics-share-plain_high:.3f` | {glue:text}`dynamics-share-bn_low:.3f` to {glue:text}`dynamics-share-bn_high:.3f` | {glue:text}`dynamics-share-noisy_low:.3f` to {glue:text}`dynamics-share-noisy_high:.3f` |
#
# The share is $1 - (D_{\text{clock}}/D_{\text{epochs}})^2$ for the pair of equal $\eta/\sqrt S$. The half-width of the band
# is {glue:text}`dynamics-band:.2f` on this scale.
#
# ## At equal training loss
#
# Last, progress itself is taken out: every curve is stopped where it first comes down to the same losses
# ({numref}`fig-dynamics-loss`).

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dynamics-loss", "caption": "Noisy labels: trace of the Hessian where each of the five constant settings has come down to the same training loss; geometric mean over seeds with 95 % interval. What to see: if the curves are one path at different speeds, all five lie together at each loss; where they do not, those with the larger ratio are the wider ones."}, "image": {"alt": "Trace of the Hessian against the training loss at which it was measured, both logarithmic, with noisy labels: five curves with intervals, one for each setting of learning rate and batch size.", "classes": "dark-light"}}


def stopped(arm, measure):
    plan, own = tasks[arm][1], of(arm, *CONSTANT)
    there = {name: read(curve, "equal loss", plan.losses, [measure]) for name, curve in own.items()}
    means = {name: summarize(t.assign(**{measure: np.exp(t[measure])}), measure, by=["point"]) for name, t in there.items()}
    return pd.concat(s.assign(curve=name) for name, s in means.items()).rename(columns={"point": "x"})


figures.alone(at_losses(stopped("noisy labels", "trace"), measure="trace"))

# %% [markdown]
# ## Verdicts

# %%
def at(claim, protocol, names):
    return [claim.at(protocol, f"{arm}: {name}") for arm in tasks for name in names]


family = at(C1, "equal epochs", SCHEDULES)
family += at(C2a, "equal epochs", ["equal η/S"])
family += at(C2b, "equal epochs", ["equal η/√S"])
family += at(T1, "equal clock", ["equal η/√S", "equal η", "equal S"])
family += at(C2c, "equal loss", pairs)
verdicts = judge_family(family, [evidence(claim) for claim in family])
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"dynamics-{claim}": in_words(own)})


def half_width(claims, arm):
    """The widest interval of an equivalence claim, in half-widths of the band: below 1 it could have been supported."""
    spans = [
        (d["interval"][1] - d["interval"][0]) / 2
        for v in verdicts if v.id in claims and v.arm.startswith(arm) for d in v.details.values() if d["interval"]
    ]
    return max(spans, default=float("nan"))


def at_last_point(protocol, pair, measure, log=True):
    """A gap with noisy labels at the end of the way, or at the lowest loss: as a factor, or in points."""
    table = results[protocol, f"noisy labels: {pair}"]
    last = table[table.point == (table.point.min() if protocol == "equal loss" else table.point.max())]
    found = mean(last, f"{measure}_gap").interval()
    ends_of = [BANDS[measure] * x for x in (found.value, found.low, found.high)]
    value, low, high = np.exp(ends_of) if log else 100 * np.array(ends_of)
    return Interval(float(value), float(low), float(high), found.level, found.n)


glue(**{
    "dynamics-band": BANDS["train_loss"],
    "dynamics-trace": at_last_point("equal loss", "equal η", "trace"),
    "dynamics-points": at_last_point("equal epochs", "equal η/S", "validation_accuracy", log=False),
})
slower = at_last_point("equal clock", "equal η/√S", "train_loss")
glue(**{"dynamics-factor": Interval(1 / slower.value, 1 / slower.high, 1 / slower.low, slower.level, slower.n)})
for arm, key in KEYS.items():
    for claim in ("C1", "C2a", "T1", "C2c"):
        glue(**{f"dynamics-power-{claim}-{key}": half_width({claim}, arm)})
    spread = averaged(results["equal epochs", f"{arm}: equal η/√S"]).train_loss_gap.std()
    glue(**{f"dynamics-power-C2b-{key}": required_effect(C2b, size.seeds, spread)})

# %% [markdown]
# In words, from the table above and not typed:
#
# - **C1**, a schedule of $S$ replaces that of $\eta$: {glue:text}`dynamics-C1`.
# - **C2a**, constant pairs of equal $\eta/S$ learn alike: {glue:text}`dynamics-C2a`.
# - **C2b**, pairs of equal $\eta/\sqrt S$ do not: {glue:text}`dynamics-C2b`.
# - **T1**, against the clock all pairs learn alike: {glue:text}`dynamics-T1`.
# - **C2c**, at equal loss nothing is left to differ: {glue:text}`dynamics-C2c`.
#
# To read the undecided ones: for C1 they are a matter of power, which fitting random labels leaves little of (the table
# below), not of a difference. For T1 on clean labels they are the first of the eleven points, where accuracies still
# rise steeply and steps of a large $\eta$ are coarse.
#
# The noise has a say where the labels are noisy. At the same clock the pair of equal $\eta/\sqrt S$ ends at losses that
# differ by a factor of {glue:text}`dynamics-factor:.1f` ({glue:text}`dynamics-factor_low:.1f` to
# {glue:text}`dynamics-factor_high:.1f`). At the same training loss, the lowest of {numref}`fig-dynamics-loss`, the setting
# of equal $\eta$, with a quarter of the noise, has a larger $\operatorname{Tr} H$, by a factor of
# {glue:text}`dynamics-trace:.2f` ({glue:text}`dynamics-trace_low:.2f` to {glue:text}`dynamics-trace_high:.2f`). And equal
# $\eta/S$ is not quite the whole story there: at the end the validation accuracy of the larger batch differs by
# {glue:text}`dynamics-points:.1f` points ({glue:text}`dynamics-points_low:.1f` to
# {glue:text}`dynamics-points_high:.1f`). Part 1 of the theorem speaks of small steps, and with its $\eta$ four times as
# large, this run takes the largest of all.
#
# What could have been found? An equivalence can be shown only where the interval is narrower than the band. The widest of
# all points and measures, in half-widths of the band, before Holm's correction:
#
# | | plain | batch norm | noisy labels |
# |---|---|---|---|
# | C1 | {glue:text}`dynamics-power-C1-plain:.2f` | {glue:text}`dynamics-power-C1-bn:.2f` | {glue:text}`dynamics-power-C1-noisy:.2f` |
# | C2a | {glue:text}`dynamics-power-C2a-plain:.2f` | {glue:text}`dynamics-power-C2a-bn:.2f` | {glue:text}`dynamics-power-C2a-noisy:.2f` |
# | T1 | {glue:text}`dynamics-power-T1-plain:.2f` | {glue:text}`dynamics-power-T1-bn:.2f` | {glue:text}`dynamics-power-T1-noisy:.2f` |
# | C2c | {glue:text}`dynamics-power-C2c-plain:.2f` | {glue:text}`dynamics-power-C2c-bn:.2f` | {glue:text}`dynamics-power-C2c-noisy:.2f` |
# | C2b: distance beyond the band that is found with 80 % power | {glue:text}`dynamics-power-C2b-plain:.2f` | {glue:text}`dynamics-power-C2b-bn:.2f` | {glue:text}`dynamics-power-C2b-noisy:.2f` |
#
# Of {glue:text}`dynamics-runs:.0f` runs, {glue:text}`dynamics-lost:.0f` diverged.

# %% tags=["remove-cell"]
runs = pd.concat(table[table.cell.isin(CONSTANT)].assign(protocol="equal epochs", arm=arm) for arm, table in ends.items())

# %% tags=["remove-cell"]
from threefactors.publishing.records import keep

keep(runs)

# %% [markdown]
# ## At the paper's own size
#
# All of the above is the work of the machine on which this page was made. At scale `paper` the same code wants a GPU;
# what it found there is kept in `book/records`, with the definition of its runs, and stands here beside our own verdicts.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import recorded

recorded("23_dynamics", verdicts, scale)

# %% [markdown]
# ## What would change our mind
#
# - *That a schedule of $S$ can stand for one of $\eta$.* A pair that leaves the band with steps small enough for
#   {eq}`eq-dynamics-sde` and batches small against $N$.
# - *That the paper's overlap is the clock's wherever examples can be fitted easily.* A task with clean labels on which
#   pairs of unequal ratio part at equal clock, by more than the band.
# - *That noise has a say of its own when labels are noisy.* A control without noise that fits the random labels as late
#   as the noisy runs do, at the same clock.
#
# Limits: the digits are easy, and soon every clean training image is classified, so that only the loss
# still compares; the paper's networks never come that far on its data. The control is descent in finite steps. Equal
# clock is judged over the clock that both members of a pair have, which is a quarter of the longer one's for equal
# $\eta$ or $S$.
#
# ## Exercises
#
# 1. Derive $\tfrac14 nC(1-e^{-2\lambda T})$ from {eq}`eq-dynamics-gap`, and again from the equation for $\mathbb{E}\,\theta^2$.
# 2. Replace `Mirror(s)` by a schedule that divides the learning rate by the square root of the factor. Which verdicts
#    change, and under which protocols?
# 3. Increase $\beta$ to 16 with noisy labels. Which end of the pair breaks first, and does $\eta\lambda_{\max}$ foretell it?
# 4. Set `label_noise` to one tenth. At which clock do the curves of {numref}`fig-dynamics-clock` begin to fan out?
