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
# # Where it breaks
#
# **Question.** How far can learning rate and batch size be scaled together before it matters that they were, and what
# puts an end to it?
#
# If only the ratio $\eta/S$ counts, then a network may be trained with ten times the batch, in a tenth of the steps,
# and end up the same. The paper reports that this holds over a range, and then breaks: the accuracy stays on a plateau
# and falls off it, later for larger training sets (C7) and later for a smaller ratio (C8) {cite}`jastrzebski2018`. It
# names two reasons, steps that are too large for a differential equation and batches that are not small against the
# training set (C11). This chapter measures the break, predicts it from either reason, and takes the reasons away one
# at a time.
#
# ```{index} linear scaling rule; breakdown of
# ```
#
# ## The law
#
# Let $\eta = \beta\eta_0$ and $S = \beta S_0$, with a training set of $N$ examples, and call the runs with the same
# $N$ and $\eta_0/S_0$ a *curve*. The noise scale $\eta/S = \eta_0/S_0$ is the same all along it. So is the clock:
# where $S$ divides $N$, $E$ epochs are $E N/S$ steps, and $T = \sum\eta = (EN/S)\,\eta = E N\,\eta_0/S_0$. *Along* a
# curve, equal epochs and equal clock are therefore one protocol. *Between* curves they are not: at equal epochs, a
# curve with twice the examples or twice the ratio has twice the clock. C7 and C8 compare curves, and are judged both
# ways.
#
# Invariance cannot last, since a step $\Delta\theta = -\eta\, g_S$ is not a short piece of a diffusion. Write $g$ for
# the gradient of the training loss $L$, $C$ for the covariance of one example's gradient, $H$ for the Hessian and
# $\lambda$ for an eigenvalue of it.
#
# :::{admonition} Theorem (what does not scale)
# :class: tip
# Let a batch be drawn without replacement. (i) The covariance of its mean gradient is $\frac{N-S}{N-1}\,\frac{C}{S}$.
# (ii) If the draws are independent,
#
# ```{math}
# :label: eq-breakdown-moment
# \frac{\mathbb{E}\lVert\Delta\theta\rVert^2}{\eta} = \eta\,\lVert g\rVert^2 + \frac{\eta}{S}\operatorname{Tr} C .
# ```
#
# (iii) In a bowl, a deviation along an eigenvector shrinks in a step iff $0 < \eta\lambda < 2$.
# :::
#
# :::{dropdown} Proof
# (i) Let $x_i$ be the deviations of the examples' gradients from their mean in some direction, $c$ their variance.
# They add up to zero, and so $\sum_{i\ne j} x_i x_j = -\sum_i x_i^2 = -Nc$: two different draws have the covariance
# $-Nc/(N(N-1)) = -c/(N-1)$. The mean of $S$ draws then has the variance
# $\frac1{S^2}\bigl(Sc - S(S-1)\frac{c}{N-1}\bigr) = \frac cS\,\frac{N-S}{N-1}$. (ii) $g_S$ has mean $g$ and covariance
# $C/S$, so that $\mathbb{E}\lVert g_S\rVert^2 = \lVert g\rVert^2 + \operatorname{Tr}C/S$; multiply by $\eta^2/\eta$.
# (iii) A step multiplies the deviation by $1-\eta\lambda$. $\square$
# :::
#
# Per unit of clock, the right-hand term of {eq}`eq-breakdown-moment` is the diffusion's and does not depend on
# $\beta$. The term before it is an effect of finite steps, which the limit $\eta\to 0$ does not have; it grows like
# $\beta$. Each part of the theorem names a $\beta$ at which it becomes important, without a constant to fit:
#
# - *finite steps*: $\beta = 2/(\eta_0\lambda_{\max})$, with the largest eigenvalue on the way of the run with
#   $\beta = 1$ (*path*), or with that of the minimum in which it ends (*end*). Below the first, no step is too long
#   anywhere; beyond the other, the minimum that small steps find repels large ones, and the end cannot be the same. In
#   between a network can evade: training at the edge of stability lowers $\lambda$ to $2/\eta$ {cite}`cohen2021`;
# - *finite set*: $\beta = (N+1)/(2S_0)$, where half of the noise is gone;
# - *noise to signal*: $\beta = \int\operatorname{Tr}C\,dT \,/\, S_0\!\int\lVert g\rVert^2 dT$, where in
#   {eq}`eq-breakdown-moment`, summed over the way of the run with $\beta = 1$, the two terms are alike. The condition
#   under which Li, Malladi and Arora prove that scaling must fail is of this kind {cite}`li2021`;
# - *full batch*: descent without any noise breaks at some learning rate $\eta^*$, which is measured;
#   $\beta = \eta^*/\eta_0$. If noise has no part in the break, it will come there.
#
# ## Predictions
#
# The mechanisms differ in how the break moves from one curve to another. Suppose that $\lambda$, $C$ and $g$ depend
# little on $N$ and on the ratio. Then
#
# | breaking $\beta \propto N^a\,(\eta/S)^b$ | $a$ | $b$ | C7 | C8 |
# |---|---|---|---|---|
# | finite steps, or full batch | 0 | −1 | no | yes |
# | finite set | 1 | 0 | yes | no |
# | noise to signal | 0 | 0 | no | no |
#
# No row gives both of the paper's observations. Judged are **C7** ($a > 0$) and **C8** ($b < 0$); **C11a** and
# **C11b**, that the break comes at one learning rate, $b = -1$ and $a = 0$, each within a quarter; **C11c**, that it
# comes within a factor of 2 of the prediction, on every curve, for each condition, with *full batch* named beforehand
# as the best; and **C11d**, that taking a mechanism away moves the break by half as much again or more.
#
# The rules and margins are in `threefactors.inference.claims.breakdown`. They were fixed after pilots on two to four
# other seeds, which served to choose sizes and learning rates, and which showed that the accuracies fell at nearly one
# learning rate: C11a and C11b say what was seen there. C7, C8 and the conditions of C11c stand as the literature has
# them. The second batch of pilots, after the rules, led to one change of a setting: a higher loss for batch
# normalization in the third protocol, since some of its curves could not have doubled their time within the limit.
#
# **What is a break?** The plateau of a curve is the mean of its first three $\beta$. It breaks, for each seed, at the
# first $\beta$ at which the validation accuracy lies 5 points below, interpolated on $\ln\beta$. A run that diverged
# has the accuracy of chance. At equal loss, every run that comes there has the same training loss, and what can break
# is the time that it takes: the break is where the clock doubles. A run that diverged, or is not there after a fixed
# clock, counts with that clock. $S$ cannot exceed $N$: there a curve ends. If it has not broken by then, its breaking
# $\beta$ is *censored*, no number but a bound. A mean over seeds then has bounds too: for every test, a censored value
# is taken to be what speaks most against the outcome.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
images = "cifar10"  # or cifar10-jpeg: at scale paper

# %% [markdown]
# ## The experiment
#
# At scale `paper` the network is VGG-11 at a quarter of its width, since there are two thousand runs, on as many color
# images as the paper has, nearly; without augmentation, because the third protocol stops at a training loss.

# %%
from functools import partial
from types import SimpleNamespace

import pandas as pd

from threefactors import MLP, Accuracy, AtClock, Clock, Every, Loss, Moments, Sharpness
from threefactors import Task, run
from threefactors.experiments import breakdown as along
from threefactors.experiments.first_order import NoiseTrace

SIZES = {
    "smoke": dict(
        data="digits", seeds=5, epochs=8, train_sizes=[144, 288], loss=[0.9, 1.1],
        batch_sizes=[4, 12, 36, 72, 144],
        plain=dict(network=MLP((16, 16)), ratios=[0.02, 0.01], clock=12),
        normed=dict(network=MLP((16,), batch_norm=4), ratios=[0.16, 0.08], clock=48),
        small=0.005, rates=[0.2, 0.4, 0.8, 1.6, 3.2],
    ),
    "laptop": dict(
        data="digits", seeds=8, epochs=16, train_sizes=[288, 576, 1152],
        batch_sizes=[4, 8, 12, 16, 24, 32, 48, 72, 96, 144, 192, 288, 384, 576, 1152],
        plain=dict(network=MLP((64,) * 3), ratios=[0.016, 0.008], clock=92),
        normed=dict(network=MLP((64,) * 3, 8), ratios=[0.064, 0.032], clock=368),
        small=0.002, rates=[0.256, 0.384, 0.576, 0.768, 1.152, 1.536, 2.304],
        loss=[0.1, 0.3],
    ),
    "paper": dict(
        data=images, seeds=5, epochs=8, train_sizes=[10000, 20000, 40000],
        batch_sizes=[50, 100, 250, 500, 1000, 2500, 5000, 10000, 20000, 40000],
        plain=dict(network="VGG11", ratios=[0.0004, 0.0002], clock=40),
        normed=dict(network="VGG11", ghost=50, ratios=[0.002, 0.001], clock=100),
        small=0.0001, rates=[0.25, 0.5, 1, 2], loss=[1.2, 0.3],
        examples=512, looks=20,
    ),
}
size = SimpleNamespace(**SIZES[scale])
same = dict(train_sizes=size.train_sizes, seeds=range(size.seeds))

# %% tags=["remove-cell"]
arms = {}
looked = {"looks": size.looks} if scale == "paper" else {}
few_seen = dict(examples=size.examples if scale == "paper" else None)  # of the training set, for the curvature
for name, own, loss in zip(("plain", "batch norm"), (size.plain, size.normed), size.loss):
    network = own["network"]
    if network == "VGG11":
        from threefactors.training.convolution import VGG11

        network = VGG11(own.get("ghost"), width=0.25)  # of its channels: there are 2000 runs
    ghost = network.batch_norm
    arms[name] = SimpleNamespace(
        task=Task(size.data, network), ratios=own["ratios"], clock=own["clock"],
        batches=(sizes := [S for S in size.batch_sizes if S % (ghost or 1) == 0]),
        curves=dict(ratios=own["ratios"], batch_sizes=sizes),
        until=along.protocols(epochs=size.epochs, clock=own["clock"], loss=loss, **looked),
        exact=ghost is None and isinstance(network, MLP),
    )
plain = arms["plain"]

# %% [markdown]
# Two networks, without and with batch normalization (`plain`, `normed`), two ratios for each. Only batch sizes that
# divide the training set occur, so that no example of an epoch is left out.

# %%
few, curvature = [Loss(), Accuracy()], [Sharpness(**few_seen), Moments(**few_seen)]
curvature += [NoiseTrace()] * plain.exact
results = {
    (protocol, name): run(
        along.scaled(arm.task, **arm.curves, until=until, **same),
        few + curvature * (name == "plain" and protocol != "equal epochs"),
    )
    for name, arm in arms.items()
    for protocol, until in arm.until.items()
}

# %% [markdown]
# For the predictions, the curvature, the gradient and its noise are followed along the runs with $\beta = 1$, at the
# start and then at doubling clocks; and full-batch descent is run with the learning rates `rates`, for the clock of
# the second protocol.

# %%
longest = Clock(size.epochs * max(size.train_sizes) * max(plain.ratios))
looks = [Every(10**9), AtClock(tuple(longest.T / 2**k for k in range(9)))]
sharp = partial(Sharpness, **few_seen)
seen = [sharp] + [along.SignalAndNoise] * plain.exact
first = plain.curves | same
first |= dict(batch_sizes=plain.batches[:1], until=lambda N, ratio: longest)
watched = [probe(at=at) for at in looks for probe in seen]
path = run(along.scaled(plain.task, **first), watched)
still = dict(rates=size.rates, until=Clock(plain.clock))
descent = run(along.full_batch(plain.task, **still, **same), [Accuracy()])

# %% [markdown]
# Two interventions on one curve each take a mechanism away. Drawn *with replacement*, a batch has the noise $C/S$
# whatever $N$ is. *SVAG* with $\ell = 4$ takes four steps of $\eta/4$ for each of SGD's, whose noise is amplified so
# that each unit of clock has as much of it as before {cite}`li2021`. A third arm asks what happens where $\eta$ stays
# harmless to the end: a small ratio, `small`, at which the batch becomes the training set long before the step becomes
# too large.

# %%
curves = plain.curves | same | dict(until=plain.until["equal clock"])
one = curves | dict(train_sizes=size.train_sizes[-2:-1], ratios=plain.ratios[:1])
changes = {"with replacement": dict(sampling="replacement"), "SVAG": dict(svag=4)}
changed = {
    name: run(along.scaled(plain.task, **one, **change), few)
    for name, change in changes.items()
}
small = run(along.scaled(plain.task, **curves | dict(ratios=[size.small])), few)

# %% tags=["remove-cell"]
from dataclasses import replace

import numpy as np

from threefactors.inference import SeedMean, judge_family, required_effect, summarize
from threefactors.inference.breakdown import BoundedSlope, breaking_points, breaks, log_ratio, predictions, scored
from threefactors.inference.claims import breakdown as claims
from threefactors.presentation import figures
from threefactors.presentation.breakdown import collapse, falls, fingerprint, predicted_breaks
from threefactors.presentation.prose import by_id, glue, in_words
from threefactors.settings import Settings
from threefactors.training import load

HELD = {"equal epochs": "epochs", "equal clock": "clock", "equal loss": "train_loss"}
CURVE = ["train_size", "ratio"]
chance = 1 / load(size.data, Settings.from_environment().data).classes


def scores(result, arm, protocol="equal clock"):
    """Every run with its β and its score."""
    table = along.with_train_size(result)
    table = table.assign(beta=table.batch_size / arm.batches[0], share=table.batch_size / table.train_size)
    return scored(table, protocol, chance=chance, at_most=arm.clock)


def found(table, protocol="equal clock"):
    fall = claims.FALL["clock" if protocol == "equal loss" else "accuracy"]
    return breaks(table, HELD[protocol], fall=fall, plateau=claims.PLATEAU)


def cells(table, protocol="equal clock"):
    """Mean score of each cell, lost runs with theirs, and how many diverged."""
    bare = table.drop(columns=["diverged", "finished"])
    if protocol == "equal loss":
        bare = bare.assign(score=np.exp(-bare.score))
    keys = [*CURVE, "batch_size"]
    means = summarize(bare, "score", by=keys, log=protocol == "equal loss")
    rest = table.groupby(keys)[["beta", "share", "lr", "diverged"]].agg(
        {"beta": "first", "share": "first", "lr": "first", "diverged": "sum"}
    )
    return means.merge(rest.reset_index(), on=keys)


def broken(table, by=CURVE):
    """Geometric mean over seeds, censored ones with their bounds, of the breaking β of each curve."""
    censored = table.groupby(by).censored.apply(lambda c: (c != 0).sum()).rename("censored").reset_index()
    return summarize(table, "breaking", by=by).merge(censored, on=by)


tables = {place: scores(result, arms[place[1]], place[0]) for place, result in results.items()}
points = {place: found(table, place[0]) for place, table in tables.items()}
small_table = scores(small, plain)
changed_tables = {name: scores(result, plain) for name, result in changed.items()}
runs = pd.concat(
    [t.assign(protocol=protocol, arm=arm) for (protocol, arm), t in tables.items()]
    + [t.assign(protocol="equal clock", arm=arm) for arm, t in {**changed_tables, "small ratio": small_table}.items()]
)

seen = along.with_train_size(path, series=True)
most = {"equal epochs": size.epochs * seen.train_size * seen.ratio, "equal clock": plain.clock}
base = plain.batches[0]
predicted = {p: predictions(seen[seen.at_clock <= 1.001 * T], base) for p, T in most.items()}
fall = claims.FALL["accuracy"]
still = scored(along.with_train_size(descent), "equal clock", chance=chance, at_most=plain.clock)
still_breaks = breaking_points(still, "score", by=["train_size"], fall=fall, x="lr", plateau=claims.PLATEAU)
ends = ("breaking", "breaking_low", "breaking_high")
rows = still_breaks.merge(pd.DataFrame({"ratio": plain.ratios}), how="cross")
rows = rows.assign(condition="full batch", **{f"predicted_{e}": rows[e] / (rows.ratio * base) for e in ends})
predicted["equal clock"] = pd.concat([predicted["equal clock"], rows.drop(columns=[*ends, "censored"])])


def against(protocol, condition):
    """The breaks of the plain network beside what the condition predicts, a curve by its name."""
    own = predicted[protocol].query("condition == @condition")
    table = points[protocol, "plain"].merge(own, on=[*CURVE, "seed"])
    return table.assign(curve=[f"{N}, {r:g}" for N, r in zip(table.train_size, table.ratio)])


conditions = {(p, c): against(p, c) for p in predicted for c in predicted[p].condition.unique()}
first = points["equal clock", "plain"].merge(pd.DataFrame({k: one[k] for k in ("train_sizes", "ratios")}).set_axis(
    ["train_size", "ratio"], axis=1), on=CURVE)
moved = {}
for name, table in changed_tables.items():
    moved[name] = found(table).merge(first[["seed", *ends]].add_prefix("predicted_").rename(
        columns={"predicted_seed": "seed"}), on="seed")

# %% [markdown]
# ## Plateau and break
#
# {numref}`fig-breakdown-plain` is the paper's experiment: equal epochs, three training sets, two ratios.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-plain", "caption": "Validation accuracy at equal epochs along the curves of the plain network, mean over seeds with 95 % interval; a run that diverged counts with the accuracy of chance, and a cross marks points with such runs. Triangles: the breaking β with its 95 % interval. A curve ends where the batch is the training set: for N = 288, 576 and 1152 at β = 72, 144 and 288. What to see: plateaus, then a break, at a β that hardly differs between the training sets and doubles when the ratio is halved."}, "image": {"alt": "Validation accuracy against beta for three training-set sizes in two panels, one for each ratio of learning rate and batch size: plateaus that break.", "classes": "dark-light"}}
def by_ratio(place):
    shown, marks = cells(tables[place], place[0]), broken(points[place])
    label = "$\\eta/S$ = {:g}"
    parts = {label.format(r): shown[shown.ratio == r] for r in sorted(shown.ratio.unique(), reverse=True)}
    return parts, {label.format(r): marks[marks.ratio == r] for r in marks.ratio.unique()}


parts, marks = by_ratio(("equal epochs", "plain"))
figures.side_by_side(falls, parts, breaks=marks, width=3.6)

# %% [markdown]
# The same runs against three other variables tell the mechanisms apart: that on which the curves fall together is the
# one that sets the break.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-collapse", "caption": "The six curves of the figure before, and the small ratio, against β, against the share of the training set that a batch takes, and against the learning rate. What to see: only against the learning rate do they break together; with the small ratio the batch becomes the whole training set, whose gradient has no noise at all, and the accuracy stays."}, "image": {"alt": "Three panels of validation accuracy for nine curves against beta, against S over N, and against the learning rate; they coincide in the third.", "classes": "dark-light"}}
every = pd.concat([cells(tables["equal clock", "plain"]), cells(small_table)])
views = [("beta", "factor  $\\beta$"), ("share", "share of the training set  $S/N$"), ("lr", "learning rate  $\\eta$")]
collapse(every, views)

# %% [markdown]
# The same with batch normalization. Its mean breaking learning rate is
# {glue:text}`breakdown-rate-equal-epochs-batch-norm:.1f`, that of the plain network
# {glue:text}`breakdown-rate-equal-epochs-plain:.2f`. Most of its runs do not diverge when they break: they go on, at
# the accuracy of chance.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-bn", "caption": "Validation accuracy at equal epochs with batch normalization, in ghost batches of 8 for every S. What to see: the same picture, at ratios four times as large, and almost without divergence."}, "image": {"alt": "Validation accuracy against beta for networks with batch normalization: plateaus that break, three training-set sizes, two ratios.", "classes": "dark-light"}}
parts, marks = by_ratio(("equal epochs", "batch norm"))
figures.side_by_side(falls, parts, breaks=marks, width=3.6)

# %% [markdown]
# At equal loss the plateau is a time, and it bends earlier: when the accuracy still stands, training already takes
# longer. The break in {numref}`fig-breakdown-loss`, where the time has doubled, lies at a mean learning rate of
# {glue:text}`breakdown-rate-equal-loss-plain:.2f`, against {glue:text}`breakdown-rate-equal-clock-plain:.2f` for the
# accuracy at equal clock; with batch normalization at {glue:text}`breakdown-rate-equal-loss-batch-norm:.2f` against
# {glue:text}`breakdown-rate-equal-clock-batch-norm:.2f`.
#
# How much could have been missed? The accuracies of a curve scatter on the plateau by
# {glue:text}`breakdown-noise-plain:.1f` points from one $\beta$ to the next
# ({glue:text}`breakdown-noise-batch-norm:.1f` with batch normalization), and the break is defined by 5. No seed was
# left without a break: {glue:text}`breakdown-unseen-equal-epochs-plain:.0f` of
# {glue:text}`breakdown-curves-equal-epochs-plain:.0f` curves and seeds are censored at equal epochs,
# {glue:text}`breakdown-unseen-equal-loss-plain:.0f` at equal loss.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-loss", "caption": "The third protocol: clock that a run takes to come to the same training loss, geometric mean over seeds with 95 % interval; a run that never did counts with the clock at which it was given up. What to see: on the plateau larger training sets take longer, since there is more to fit; the rise comes before the fall of the accuracy."}, "image": {"alt": "Clock needed to reach a training loss against beta, flat and then rising, three training-set sizes, two ratios.", "classes": "dark-light"}}
parts, marks = by_ratio(("equal loss", "plain"))
figures.side_by_side(falls, parts, breaks=marks, ylabel="clock to the loss", percent=1, width=3.6)

# %% [markdown]
# ## Which mechanism?
#
# The two exponents of the break are its fingerprint. All six estimates of {numref}`fig-breakdown-fingerprint` lie near
# finite steps: the ratio matters, the training set hardly does. They are not on the diamond. The exponent of the ratio
# is beyond $-1$ at equal epochs and equal clock, which means that the breaking *learning rate* is somewhat lower where
# the ratio is higher: at the same $\eta$, the smaller batch has more noise, and noise seems to help to break. It would
# be a correction to a law that has no noise in it.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-fingerprint", "caption": "Exponents of the training-set size and of the ratio in the breaking β, with 95 % intervals over seeds, for two networks (color) and three protocols (marker). Diamonds: what each mechanism would give. What to see: next to which diamond the points lie."}, "image": {"alt": "Exponent of N against exponent of the ratio for six estimates with intervals, near the point of finite steps.", "classes": "dark-light"}}
exponents = []
for (protocol, arm), table in points.items():
    row = {"protocol": protocol, "arm": arm}
    for name, column in (("size", "train_size"), ("ratio", "ratio")):
        interval = BoundedSlope(column)(table, "breaking").interval()
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    exponents.append(row)
exponents = pd.DataFrame(exponents)
laws = {"finite steps": (0, -1), "finite set": (1, 0), "noise to signal": (0, 0)}
figures.alone(fingerprint(exponents, laws))

# %% [markdown]
# Now without any fitted constant ({numref}`fig-breakdown-predicted`). How many times larger than predicted is the
# measured break, in the mean over seeds? From the least to the most over the six curves, at equal clock:
#
# | condition | measured over predicted, smallest | largest |
# |---|---|---|
# | full batch, $\eta^*/\eta_0$ | {glue:text}`breakdown-least-equal-clock-full-batch:.2f` | {glue:text}`breakdown-most-equal-clock-full-batch:.2f` |
# | finite steps, path | {glue:text}`breakdown-least-equal-clock-path:.1f` | {glue:text}`breakdown-most-equal-clock-path:.1f` |
# | finite steps, end | {glue:text}`breakdown-least-equal-clock-end:.2f` | {glue:text}`breakdown-most-equal-clock-end:.2f` |
# | finite set | {glue:text}`breakdown-least-equal-clock-finite-set:.2f` | {glue:text}`breakdown-most-equal-clock-finite-set:.2f` |
# | noise to signal | {glue:text}`breakdown-least-equal-clock-noise-to-signal:.1f` | {glue:text}`breakdown-most-equal-clock-noise-to-signal:.1f` |
#
# Descent without noise breaks at nearly the same learning rate, {glue:text}`breakdown-still:.2f` in the mean.
# Curvature brackets the break and does not name it. The largest eigenvalue on the way, mostly that of the
# initialization, is between {glue:text}`breakdown-lambda-low:.0f` and {glue:text}`breakdown-lambda-high:.0f`; with it,
# $\eta\lambda = 2$ is passed a factor of about {glue:text}`breakdown-times-equal-clock-path:.0f` before anything
# breaks. The network is thrown out of the sharp place where it starts, and finds a flatter one: this is how training
# at the edge of stability survives {cite}`cohen2021`. The minimum at the end, on most curves, would allow steps
# several times longer than those that break. The orange points keep a constant distance from the diagonal, which is
# the sign of a right mechanism with a wrong constant; those of the finite set and of noise to signal stand in columns:
# these conditions do not know the ratio.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-predicted", "caption": "Measured against predicted breaking β at equal clock, plain network: six curves (points) for each condition (color), geometric means over seeds, with the 95 % interval of what was measured. The band is the factor of 2 of claim C11c. No constant is fitted. What to see: which colors lie in the band, and which along a line of another slope."}, "image": {"alt": "Measured breaking beta against five predictions, both logarithmic, with the diagonal and a band of a factor of two.", "classes": "dark-light"}}
drawn = predicted["equal clock"].groupby(["condition", *CURVE]).predicted_breaking
drawn = np.exp(drawn.apply(lambda p: np.log(p).mean())).rename("predicted").reset_index()
order = ["full batch", "path", "end", "finite set", "noise to signal"]
drawn = drawn.merge(broken(points["equal clock", "plain"]), on=CURVE).sort_values("condition", key=lambda c: c.map(order.index))
figures.alone(predicted_breaks(drawn))

# %% [markdown]
# Is it then the minimum that cannot be held? {numref}`fig-breakdown-edge` says that $\eta\lambda_{\max}$ at the end
# rises with $\eta$, at first in proportion and then faster, and that it reaches 2 where the curves break. Among the
# runs below the break, {glue:text}`breakdown-edge-unstable:.1f` % end above 2. The measure is taken at the end, after
# the fact; it does not predict, but it is what finite steps would look like.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-edge", "caption": "Learning rate times largest Hessian eigenvalue at the end of the runs at equal clock that did not diverge, geometric mean over seeds, against the learning rate. No interval is drawn where fewer than three runs survive. Dashed: 2, beyond which a minimum repels. What to see: it rises with the learning rate, at first in proportion and then faster, and reaches 2 where the curves break, between 0.5 and 1."}, "image": {"alt": "Learning rate times largest Hessian eigenvalue against the learning rate for six curves, rising toward 2.", "classes": "dark-light"}}
edge = tables["equal clock", "plain"].query("sharpness > 0").assign(score=lambda t: -np.log(t.lr * t.sharpness))
edge = cells(edge, "equal loss").drop(columns="diverged")
edge.loc[edge.n < 3, ["low", "high"]] = np.nan
figures.alone(falls(edge, x="lr", xlabel="learning rate  $\\eta$", percent=1, limit=2,
                    ylabel="$\\eta\\lambda_{\\max}$ at the end"))

# %% [markdown]
# The last question is causal: which mechanism can be removed without moving the break? With replacement the break
# moves by a factor of {glue:text}`breakdown-moved-with-replacement:.2f`
# ({glue:text}`breakdown-moved-with-replacement_low:.2f` to {glue:text}`breakdown-moved-with-replacement_high:.2f`);
# with SVAG, whose steps are a quarter as long, by {glue:text}`breakdown-moved-SVAG:.1f`
# ({glue:text}`breakdown-moved-SVAG_low:.1f` to {glue:text}`breakdown-moved-SVAG_high:.1f`)
# ({numref}`fig-breakdown-moved`). And with the small ratio on the smallest training set, where the learning rate
# reaches no more than {glue:text}`breakdown-small-rate:.2f`, the whole curve is a plateau: from the mean of its first
# points to the full batch, which has no noise at all, the accuracy changes by {glue:text}`breakdown-small:.1f`
# ({glue:text}`breakdown-small_low:.1f` to {glue:text}`breakdown-small_high:.1f`) points.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-breakdown-moved", "caption": "One curve, and what happens to it when a mechanism is taken away: noise of independent draws in place of an epoch's, and steps of a quarter of the length with the same noise per clock. What to see: which of the two moves the break."}, "image": {"alt": "Three panels of validation accuracy against beta: plain SGD, sampling with replacement, and SVAG, whose break lies further to the right.", "classes": "dark-light"}}
base_curve = tables["equal clock", "plain"].merge(first[CURVE].drop_duplicates(), on=CURVE)
three = {"plain SGD": base_curve, **changed_tables}
figures.side_by_side(falls, {name: cells(t) for name, t in three.items()},
                     breaks={name: broken(found(t)) for name, t in three.items()}, width=3.0)

# %% [markdown]
# ## Verdicts

# %%
judged = (claims.C7, claims.C8, claims.C11a, claims.C11b)
family = [(claim.at(*place), points[place]) for claim in judged for place in points]
family += [(claims.C11c.at(*place), table) for place, table in conditions.items()]
family += [(claims.C11d.at("equal clock", arm), table) for arm, table in moved.items()]
verdicts = judge_family(*zip(*family))
verdicts

# %% tags=["remove-cell"]
from threefactors.publishing.records import keep

own = runs[runs.arm.isin(["plain", "batch norm"])]
keep(own.assign(arm=own.arm + ", N = " + own.train_size.astype(str)))

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"breakdown-{claim}": in_words(own)})
for (protocol, arm), table in points.items():
    key = f"{protocol}-{arm}".replace(" ", "-")
    for name, column in (("n", "train_size"), ("r", "ratio")):
        slope = BoundedSlope(column)(table, "breaking")
        sd = float(np.std(slope.per_seed, ddof=1))
        glue(**{f"breakdown-{name}-{key}": slope.interval()})
        claim = claims.C7 if name == "n" else claims.C8
        careful = replace(claim, level=claim.level / len(family))
        glue(**{f"breakdown-power-{name}-{key}": required_effect(claim, size.seeds, sd)})
        glue(**{f"breakdown-careful-{name}-{key}": required_effect(careful, size.seeds, sd)})
    seen = table.assign(rate=table.breaking * table.ratio * arms[arm].batches[0])
    glue(**{f"breakdown-rate-{key}": np.exp(np.log(seen.rate).mean())})
    glue(**{f"breakdown-unseen-{key}": (table.censored != 0).sum(), f"breakdown-curves-{key}": len(table)})
for arm in arms:
    late, early = (BoundedSlope("train_size")(points[p, arm], "breaking").per_seed for p in ("equal epochs", "equal clock"))
    glue(**{f"breakdown-clock-{arm}".replace(" ", "-"): SeedMean(late - early).interval()})
for (protocol, name), table in conditions.items():
    times = log_ratio(table, "breaking")
    glue(**{f"breakdown-times-{protocol}-{name}".replace(" ", "-"): np.exp(times.value)})
    spread = np.log(table.breaking / table.predicted_breaking).groupby(table.curve).mean()
    glue(**{f"breakdown-least-{protocol}-{name}".replace(" ", "-"): np.exp(spread.min())})
    glue(**{f"breakdown-most-{protocol}-{name}".replace(" ", "-"): np.exp(spread.max())})
for name, table in moved.items():
    interval = log_ratio(table, "breaking").interval()
    ends_of = {"": interval.value, "_low": interval.low, "_high": interval.high}
    glue(**{f"breakdown-moved-{name}{e}".replace(" ", "-"): np.exp(v) for e, v in ends_of.items()})
alone = small_table[small_table.train_size == size.train_sizes[0]].sort_values("beta")
plateau = alone[alone.beta <= 3].groupby("seed").score.mean()
whole = alone[alone.batch_size == alone.train_size].set_index("seed").score
glue(**{"breakdown-small": SeedMean(100 * (whole - plateau).to_numpy()).interval()})
glue(**{"breakdown-small-rate": alone.lr.max()})
edge_of = along.with_train_size(path, series=True).groupby("seed").sharpness
glue(**{"breakdown-still": np.exp(np.log(still_breaks.breaking).mean())})
glue(**{"breakdown-lambda-low": edge_of.max().min(), "breakdown-lambda-high": edge_of.max().max()})
whole_edge = tables["equal clock", "plain"].query("sharpness > 0").assign(product=lambda t: t.lr * t.sharpness)
kept = whole_edge.merge(points["equal clock", "plain"][[*CURVE, "seed", "breaking"]], on=[*CURVE, "seed"])
kept = kept[kept.beta <= kept.breaking]
glue(**{"breakdown-edge-unstable": 100 * (kept["product"] > 2).mean()})
glue(**{"breakdown-runs": len(runs) + len(path) + len(descent), "breakdown-lost": runs.diverged.sum() + len(descent.diverged) + len(path.diverged)})
late = runs[runs.protocol == "equal loss"]
glue(**{"breakdown-late": (~late.finished & ~late.diverged).sum(), "breakdown-late-of": len(late)})
accuracy = {arm: tables["equal epochs", arm] for arm in arms}
for arm, table in accuracy.items():
    sd = table[table.beta <= 3].groupby([*CURVE, "seed"]).score.std().mean()
    glue(**{f"breakdown-noise-{arm}".replace(" ", "-"): 100 * sd})

# %% [markdown]
# - **C7**, later for larger training sets: {glue:text}`breakdown-C7`.
# - **C8**, later for the smaller ratio: {glue:text}`breakdown-C8`.
# - **C11a**, at one learning rate, whatever the ratio: {glue:text}`breakdown-C11a`.
# - **C11b**, at one learning rate, whatever the training set: {glue:text}`breakdown-C11b`.
# - **C11c**, predicted within a factor of 2: {glue:text}`breakdown-C11c`.
# - **C11d**, moved when the mechanism is taken away: {glue:text}`breakdown-C11d`.
#
# The table gives the exponents with 95 % intervals, and beside them the *power*: the smallest exponent, in absolute
# value, that as many seeds would have shown with probability $0.8$, first alone, then after the sternest step of the
# correction for all verdicts of this chapter.
#
# | network, protocol | exponent of $N$ (C7) | could be seen | exponent of $\eta/S$ (C8) | could be seen |
# |---|---|---|---|---|
# | plain, equal epochs | {glue:text}`breakdown-n-equal-epochs-plain:.2f` ({glue:text}`breakdown-n-equal-epochs-plain_low:.2f` to {glue:text}`breakdown-n-equal-epochs-plain_high:.2f`) | {glue:text}`breakdown-power-n-equal-epochs-plain:.2f`; {glue:text}`breakdown-careful-n-equal-epochs-plain:.2f` | {glue:text}`breakdown-r-equal-epochs-plain:.2f` ({glue:text}`breakdown-r-equal-epochs-plain_low:.2f` to {glue:text}`breakdown-r-equal-epochs-plain_high:.2f`) | {glue:text}`breakdown-careful-r-equal-epochs-plain:.2f` |
# | plain, equal clock | {glue:text}`breakdown-n-equal-clock-plain:.2f` ({glue:text}`breakdown-n-equal-clock-plain_low:.2f` to {glue:text}`breakdown-n-equal-clock-plain_high:.2f`) | {glue:text}`breakdown-power-n-equal-clock-plain:.2f`; {glue:text}`breakdown-careful-n-equal-clock-plain:.2f` | {glue:text}`breakdown-r-equal-clock-plain:.2f` ({glue:text}`breakdown-r-equal-clock-plain_low:.2f` to {glue:text}`breakdown-r-equal-clock-plain_high:.2f`) | {glue:text}`breakdown-careful-r-equal-clock-plain:.2f` |
# | plain, equal loss | {glue:text}`breakdown-n-equal-loss-plain:.2f` ({glue:text}`breakdown-n-equal-loss-plain_low:.2f` to {glue:text}`breakdown-n-equal-loss-plain_high:.2f`) | {glue:text}`breakdown-power-n-equal-loss-plain:.2f`; {glue:text}`breakdown-careful-n-equal-loss-plain:.2f` | {glue:text}`breakdown-r-equal-loss-plain:.2f` ({glue:text}`breakdown-r-equal-loss-plain_low:.2f` to {glue:text}`breakdown-r-equal-loss-plain_high:.2f`) | {glue:text}`breakdown-careful-r-equal-loss-plain:.2f` |
# | batch norm, equal epochs | {glue:text}`breakdown-n-equal-epochs-batch-norm:.2f` ({glue:text}`breakdown-n-equal-epochs-batch-norm_low:.2f` to {glue:text}`breakdown-n-equal-epochs-batch-norm_high:.2f`) | {glue:text}`breakdown-power-n-equal-epochs-batch-norm:.2f`; {glue:text}`breakdown-careful-n-equal-epochs-batch-norm:.2f` | {glue:text}`breakdown-r-equal-epochs-batch-norm:.2f` ({glue:text}`breakdown-r-equal-epochs-batch-norm_low:.2f` to {glue:text}`breakdown-r-equal-epochs-batch-norm_high:.2f`) | {glue:text}`breakdown-careful-r-equal-epochs-batch-norm:.2f` |
# | batch norm, equal clock | {glue:text}`breakdown-n-equal-clock-batch-norm:.2f` ({glue:text}`breakdown-n-equal-clock-batch-norm_low:.2f` to {glue:text}`breakdown-n-equal-clock-batch-norm_high:.2f`) | {glue:text}`breakdown-power-n-equal-clock-batch-norm:.2f`; {glue:text}`breakdown-careful-n-equal-clock-batch-norm:.2f` | {glue:text}`breakdown-r-equal-clock-batch-norm:.2f` ({glue:text}`breakdown-r-equal-clock-batch-norm_low:.2f` to {glue:text}`breakdown-r-equal-clock-batch-norm_high:.2f`) | {glue:text}`breakdown-careful-r-equal-clock-batch-norm:.2f` |
# | batch norm, equal loss | {glue:text}`breakdown-n-equal-loss-batch-norm:.2f` ({glue:text}`breakdown-n-equal-loss-batch-norm_low:.2f` to {glue:text}`breakdown-n-equal-loss-batch-norm_high:.2f`) | {glue:text}`breakdown-power-n-equal-loss-batch-norm:.2f`; {glue:text}`breakdown-careful-n-equal-loss-batch-norm:.2f` | {glue:text}`breakdown-r-equal-loss-batch-norm:.2f` ({glue:text}`breakdown-r-equal-loss-batch-norm_low:.2f` to {glue:text}`breakdown-r-equal-loss-batch-norm_high:.2f`) | {glue:text}`breakdown-careful-r-equal-loss-batch-norm:.2f` |
#
# Many undecided verdicts are so because of the correction: C11b and the prediction from the full batch would be
# supported if each were the only claim. What the data exclude, whatever the correction, is the exponent 1 of $N$ that
# a finite set asks for. C11a is another matter. Three of its six estimates lie outside the margin: that the break
# comes at *one* learning rate is a first approximation, better than any rival here, and not exact.
#
# Then why did the paper see C7? The protocol may be one answer. With batch normalization and at equal epochs, the
# exponent of $N$ is positive, if little. At equal epochs the larger training set also has the longer clock, and so the
# time to recover from what large steps do at the beginning. At equal clock the exponent is lower by
# {glue:text}`breakdown-clock-batch-norm:.2f` ({glue:text}`breakdown-clock-batch-norm_low:.2f` to
# {glue:text}`breakdown-clock-batch-norm_high:.2f`) (plain: {glue:text}`breakdown-clock-plain:.2f`
# ({glue:text}`breakdown-clock-plain_low:.2f` to {glue:text}`breakdown-clock-plain_high:.2f`)). This comparison was not
# fixed beforehand. A finite set, or noise that fades, may still matter where these networks cannot show it: their
# curves break at batches that are a small part of the training set, unless the ratio is small, and then nothing
# breaks.
#
# Of {glue:text}`breakdown-runs:.0f` runs {glue:text}`breakdown-lost:.0f` diverged, by definition none before its curve
# broke; {glue:text}`breakdown-late:.0f` of the {glue:text}`breakdown-late-of:.0f` runs of the third protocol did not
# come to their loss in time. All of them are in the figures and in the breaks.
#
# ## At the paper's own size
#
# All of the above is the work of the machine on which this page was made. At scale `paper` the same code wants a GPU;
# what it found there is kept in `book/records`, with the definition of its runs, and stands here beside our own verdicts.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import recorded

recorded("25_breakdown", verdicts, scale)

# %% [markdown]
# ## What would change our mind
#
# - *That the break is set by the step.* Curves of different ratio that break at one $S/N$, or a break that SVAG leaves
#   where it is.
# - *That noise has little part in it.* Full-batch descent that goes on, by a factor of 2 or more, where SGD breaks.
# - *That C7 is a matter of the clock.* A positive exponent of $N$ at equal clock. The paper's own networks and data at
#   scale `paper` are the test.
#
# Two limits. The batch sizes are divisors of the training set, and where the accuracy falls from the plateau to chance
# between two neighbors, the break is known no better. Up to $S = 144$ all training sets share the grid, and there this
# makes no difference between them. But with batch normalization and the smaller ratio the breaks lie at the end of
# that range, where the smallest training set has no batch before the full one; its break may be later than it is taken
# to be, which would lower the exponent of $N$. And digits are learned by any network that can be trained at all: a task
# where noise is needed to generalize might lose its accuracy with its noise, long before its steps are too long.
#
# ## Exercises
#
# 1. Derive {eq}`eq-breakdown-moment` for draws without replacement. Show that along a curve the right-hand side is
#    linear in $S$. What does it mean if it falls?
# 2. Plant an error: let `breaking_points` see only runs that did not diverge. Which claims are lost, and why is no
#    false one supported?
# 3. SVAG with $\ell = 4$ moves the break by about 4. What do you expect of $\ell = 2$ and $\ell = 16$? Where must it
#    end?
# 4. Warm the learning rate up over the first epoch. The network then leaves the sharp place where it starts with small
#    steps. By which factor does the break move, and which row of the table of predictions comes closer?
