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
# # The width of minima
#
# **Question.** Does a larger ratio of learning rate to batch size lead SGD to wider minima, and do those minima
# generalize better?
#
# The paper answers yes {cite}`jastrzebski2018`. Its experiment varies the learning rate $\eta$ and the batch size
# $S$, trains each network for the same number of epochs, and finds that the curvature at the end falls with $\eta/S$.
# This chapter repeats it on a full grid of $\eta$ and $S$ with several seeds. Then it asks the question that the
# experiment leaves open: was it the *noise* of a large $\eta/S$ that flattened the minimum, or the *time* that a
# large $\eta/S$ gives the network to train?
#
# ## The law
#
# Write $\theta$ for the parameters of a network, $L(\theta)$ for its training loss, $H$ for the Hessian of $L$ and
# $C$ for the covariance of the gradient of one example's loss. One step of SGD with a batch of $S$ examples moves
# $\theta$ by $-\eta\,(\nabla L + \varepsilon)$, where the noise $\varepsilon$ has mean zero and covariance close to
# $C/S$. Near a minimum with loss $L^*$ the loss is a bowl, $L = L^* + \tfrac12\,\theta^\top H\,\theta$. Each step
# then replaces the covariance $\Sigma$ of $\theta$ by $(I-\eta H)\,\Sigma\,(I-\eta H) + \eta^2 C/S$. Where
# $\Sigma$ no longer changes, multiplying out gives
#
# ```{math}
# :label: eq-stationary
# H\Sigma + \Sigma H - \eta\, H\Sigma H = \frac{\eta}{S}\, C .
# ```
#
# For small $\eta$ the third term is negligible, and half the trace of what remains is the mean height above the
# bottom:
#
# ```{math}
# :label: eq-excess
# \mathbb{E}[L] - L^* = \tfrac12 \operatorname{Tr}(H\Sigma) = \frac{\eta}{4S} \operatorname{Tr} C .
# ```
#
# If in addition $C = H$, as the paper assumes, the right-hand side is $\frac{\eta}{4S}\operatorname{Tr} H$. A process
# with large $\eta/S$ floats high above a narrow minimum and cannot stay in it. So among the minima that SGD can reach,
# a large ratio should leave it in a {term}`wide <wide minimum>` one: with small largest eigenvalue $\lambda_{\max}$,
# trace $\operatorname{Tr} H$ and norm $\lVert H\rVert_F$. Only $\eta/S$ enters, which is why minima of equal ratio
# should be equally wide.
#
# ```{index} time; along the gradient
# ```
#
# ```{index} logistic margin
# ```
#
# ## The objection: a clock
#
# Add up the learning rates of all steps, $T = \sum \eta$. This is the time that {term}`gradient flow`,
# $\dot\theta = -\nabla L$, would have run for: call it the {term}`clock`. After $E$ epochs on $N$ examples there were
# $E N/S$ steps, so that
#
# ```{math}
# :label: eq-clock
# T = E\,N\,\frac{\eta}{S} .
# ```
#
# At equal epochs the ratio *is* the training time. And time alone flattens. Take the smallest problem that can be
# separated, one margin $m$ with the logistic loss $L = \ln(1+e^{-m})$. Gradient flow has $m + e^m = T + \text{const}$,
# so that both the loss and the curvature $L''$ fall like $1/T$, with no noise anywhere ({numref}`fig-width-clock`). A
# network that has fitted its training set does the same: its margins go on growing, and its Hessian shrinks with its
# loss.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-clock", "caption": "What time alone does: loss and curvature of one logistic margin under gradient flow, in closed form. What to see: for T well above 1 both fall along one line of slope −1."}, "image": {"alt": "Loss and curvature of one margin against the clock, both axes logarithmic: level for a clock well below one, then both falling in parallel along a line of slope minus one.", "classes": "dark-light"}}
import numpy as np
import pandas as pd

from threefactors.presentation import figures
from threefactors.theory import separable_flow

T = np.logspace(-2, 4, 200)
alone = separable_flow(T)
curves = {"loss $L$": alone.loss, "curvature $L''$": alone.curvature}
curves = pd.concat(pd.DataFrame({"x": T, "y": y, "label": label}) for label, y in curves.items())
figures.alone(figures.laws(curves, xlabel="clock  $T$", ylabel="one margin, no noise"))

# %% [markdown]
# Hence three {term}`protocols <protocol>`. *Equal epochs* is the paper's. *Equal clock* stops every run at the same
# $T$. *Equal loss* stops every run at the same training loss. In each, full-batch gradient descent, stopped by the same
# rule, is the {term}`control`: it has no noise at all.
#
# ## Predictions
#
# Both mechanisms were put into numbers before any network was trained. Slopes are those of
# $\ln \lambda_{\max}$ against $\ln(\eta/S)$.
#
# | | if noise widens | if only the clock counts |
# |---|---|---|
# | equal epochs | below 0 | near −1, and on the control's curve |
# | equal clock | below 0 | 0 |
# | equal loss | below 0 | 0 |
#
# The {term}`claims <claim>` that will be judged, and the rules, are code that was written first
# (`threefactors.inference.claims`): **C3a** curvature falls with $\eta/S$, in all three measures; **C3b** it depends on
# $\eta$ and $S$ only through the ratio; **C3c** it falls also in two measures that rescaling the weights cannot change;
# **C4** validation accuracy rises. Each is judged under each protocol, for networks without and with batch
# normalization, which makes 24 {term}`verdicts <verdict>`, and the significance levels are corrected for that number by
# {term}`Holm's method <Holm's procedure>`.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
images = "cifar10"  # or cifar10-jpeg: color images, which scale paper has beside Fashion-MNIST
precision = "float32"  # bfloat16 | tf32: of the products within a step; curvature stays float32

# %% [markdown]
# ## The experiment
#
# The same experiment in three sizes ({term}`scale`). `laptop` is what the book shows by default; `smoke` only proves
# that the chapter runs; `paper` is in the spirit of the paper's own four-layer network on Fashion-MNIST, over its
# ranges of $\eta$ and $S$, and wants a GPU. There the curvature is that of the loss on the first few thousand training
# examples, and a tenth of the training set is the batch of the control. VGG-11 and ResNet-56 on color images join it,
# on a grid of their own.

# %%
from types import SimpleNamespace

from threefactors import MLP, Accuracy, AtClock, Clock, Epochs, Loss, Moments
from threefactors import Sharpness, Spectrum, Step, Sweep, Task, TrainLoss, claims, run
from threefactors.experiments.first_order import NoiseTrace

SIZES = {
    "smoke": dict(
        data="digits", hidden=(12, 12), seeds=5, examples=None,
        lr=[0.05, 0.1], batch_size=[24, 48],
        epochs=4, clock=4.0, loss=1.0, at_most=60, looks=120,
    ),
    "laptop": dict(
        data="digits", hidden=(64, 64, 64), seeds=8, examples=None,
        lr=[0.01, 0.02, 0.04, 0.08, 0.16], batch_size=[8, 16, 32, 64, 128],
        epochs=100, clock=60.0, loss=0.01, at_most=3000, looks=120,
    ),
    "paper": dict(
        data="fashion-mnist", hidden=(128, 128, 128), seeds=8, examples=4096,
        lr=[0.005, 0.01, 0.025, 0.05, 0.1], batch_size=[25, 50, 125, 250, 1000],
        epochs=200, clock=100.0, loss=0.25, at_most=800, looks=40,
    ),
}
size = SimpleNamespace(**SIZES[scale])
ghost = min(size.batch_size)
arms = {
    "plain": Task(size.data, MLP(size.hidden)),
    "batch norm": Task(size.data, MLP(size.hidden, batch_norm=ghost)),
}
every = size.clock / size.looks  # how closely the training loss is watched
protocols = {
    "equal epochs": Epochs(size.epochs),
    "equal clock": Clock(size.clock),
    "equal loss": TrainLoss(size.loss, at_most=Epochs(size.at_most), every=every),
}

# %% [markdown]
# Networks are multilayer perceptrons with ReLU and He initialization {cite}`he2015`. With {term}`batch normalization`
# {cite}`ioffe2015` the statistics come from {term}`ghost batches <ghost batch>` {cite}`hoffer2017` of the smallest
# batch size of the grid, so that their noise is the same for every $S$; for measuring, they come from the whole
# training set, so that the loss is a function of the weights alone. Every combination of $\eta$, $S$ and {term}`seed`
# is trained, six times over:

# %%
grid = dict(lr=size.lr, batch_size=size.batch_size, seed=range(size.seeds), precision=precision)
few = dict(examples=size.examples)
probes = [Loss(), Accuracy(), Sharpness(**few), Moments(**few)]
noise = {"plain": [NoiseTrace()], "batch norm": []}  # no example has its own gradient there
results = {
    (protocol, arm): run(Sweep.grid(task, until=until, **grid), probes + noise[arm])
    for protocol, until in protocols.items()
    for arm, task in arms.items()
}

# %% tags=["remove-cell"]
if scale == "paper":  # small enough for minutes: 8192 images, which both fit, and a third of the range of the grid
    from threefactors.training.convolution import RESNET56, VGG11

    colored = dict(lr=[0.025, 0.05, 0.1], batch_size=[64, 128, 256], seed=range(5), precision=precision)
    networks = {  # a network, and its epochs, clock and loss; no augmentation, since the loss has to come down
        "VGG-11": (VGG11(batch_norm=64), 10, 15.0, 0.2),
        "ResNet-56": (RESNET56(batch_norm=64), 16, 30.0, 0.9),
    }
    fewer = [Loss(), Accuracy(), Sharpness(tol=1e-2, examples=512), Moments(8, examples=512)]
    for arm, (network, epochs, clock, loss) in networks.items():
        goal = TrainLoss(loss, at_most=Epochs(10 * epochs), every=clock / 5)
        for protocol, until in zip(protocols, (Epochs(epochs), Clock(clock), goal)):
            sweep = Sweep.grid(Task(images, network, train_size=8192), until=until, **colored)
            results[protocol, arm] = run(sweep, fewer)

# %% [markdown]
# The control descends with the whole training set as its batch, through the clocks of the whole grid. Its steps grow
# as the landscape flattens; as long as $\eta\lambda_{\max}$ stays below 2 it does not oscillate, and is gradient flow
# with small errors. (With batch normalization a little noise is left: the ghost batches are put together anew at every
# step.)

# %%
from threefactors.settings import Settings
from threefactors.training import load

N = len(load(size.data, Settings.from_environment().data).y_train)
cells = [(lr, batch) for lr in size.lr for batch in size.batch_size]
times = {size.epochs * (N // batch) * lr for lr, batch in cells} | {size.clock}
descent = dict(lr=0.05, lr_schedule=Step(at=(800, 1400, 2140), factor=3))
descent |= dict(batch_size=N, seed=range(size.seeds // 2 + 1))
if scale == "paper":  # as far as minutes reach, in steps that stay small
    times = {T for T in times if T <= 1000}
    descent |= dict(batch_size=N // 10, lr_schedule=Step(at=(10**6,), factor=1))
to_loss = TrainLoss(size.loss, at_most=Epochs(10 * size.at_most), every=every)
watch = Sharpness(at=AtClock(tuple(sorted(times))), **few)
through = {
    arm: run(Sweep.grid(task, until=Clock(max(times)), **descent), [watch])
    for arm, task in arms.items()
}
stopped = {
    arm: run(Sweep.grid(task, until=to_loss, **descent), [Sharpness(**few)])
    for arm, task in arms.items()
}

# %% [markdown]
# The control is only noise-free flow if its steps are small enough: along its way the largest $\eta\lambda_{\max}$
# was {glue:text}`width-control-plain:.2f` (plain) and {glue:text}`width-control-batch-norm:.2f` (batch norm), where 2
# is the limit.

# %% tags=["remove-cell"]
from threefactors.inference import (
    exponents, held_out_comparison, judge_family, level_line, loglog_slopes, slope_on_ratio, spectral_summary, summarize,
)
from threefactors._rng import numpy_generator
from threefactors.presentation.prose import by_id, glue, in_words
from threefactors.publishing.records import keep

tables = {where: result.table() for where, result in results.items()}
paths = {arm: result.series().query("at_clock > 0") for arm, result in through.items()}
for arm, path in paths.items():
    steps = descent["lr"] * path.epoch.map(descent["lr_schedule"])
    glue(**{f"width-control-{arm.replace(' ', '-')}": (steps * path.sharpness).max()})


def controls(arm, measure):
    """Noise-free descent under each protocol: at the clock of each ratio, at the common clock, at the common loss."""
    by_clock = paths[arm].assign(ratio=paths[arm].at_clock / (size.epochs * N))
    there = paths[arm][paths[arm].at_clock >= size.clock * (1 - 1e-9)].groupby("seed").head(1)
    ratios = [lr / batch for lr, batch in cells]
    lines = {"equal clock": there, "equal loss": stopped[arm].table()}
    bands = {name: level_line(table, measure, [min(ratios), max(ratios)]) for name, table in lines.items()}
    return {"equal epochs": summarize(by_clock, measure, by=["ratio"]), **bands}


def panels(arm, measure, log=True):
    return {name: summarize(tables[name, arm], measure, log=log) for name in protocols}

# %% [markdown]
# ## What happens to the width
#
# First the paper's own experiment: {numref}`fig-width-plain`, left. Compare the points with the dashed line, which has
# no noise. Where both fall together, it is the clock that flattens; where the points leave the line, the noise does
# something of its own. The other two panels take the clock, and then the loss, away.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-plain", "caption": "Largest Hessian eigenvalue at the end of training against the noise scale, for the plain network under three protocols. Points: geometric mean over seeds with 95 % interval, one for each pair of learning rate and batch size; color: batch size. Dashed: full-batch gradient descent, without any noise, stopped by the same rule; its band is the interval over seeds. What to see: whether points lie on the dashed line (the clock explains them) or below it (the noise does more), and whether colors fall on one curve (only the ratio matters)."}, "image": {"alt": "Three panels, for equal epochs, equal clock and equal loss, of the largest Hessian eigenvalue of the plain network against learning rate over batch size, both logarithmic. Points with intervals, colored by batch size; the noise-free control is a dashed line with a band, which falls steeply in the first panel and is level in the others.", "classes": "dark-light"}}
figures.side_by_side(
    figures.against_ratio, panels("plain", "sharpness"), measure="sharpness", control=controls("plain", "sharpness")
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-bn", "caption": "The same with batch normalization, in ghost batches of one size for all runs. What to see: the raw curvature of a normalized network depends on the length of its weights, which grows with time and noise; compare with the scale-invariant measure below."}, "image": {"alt": "Three panels, for equal epochs, equal clock and equal loss, of the largest Hessian eigenvalue of the network with batch normalization against learning rate over batch size, both logarithmic. Points with intervals, colored by batch size, beside the dashed line of the noise-free control.", "classes": "dark-light"}}
figures.side_by_side(
    figures.against_ratio, panels("batch norm", "sharpness"), measure="sharpness",
    control=controls("batch norm", "sharpness"),
)

# %% [markdown]
# A normalized network computes the same function when the weights of a layer are doubled, with a quarter of the
# curvature {cite}`dinh2017`. The {term}`adaptive sharpness` $\lambda_{\max}(|\theta| H |\theta|)$ measures the
# curvature in relative changes of each weight and does not see such a rescaling {cite}`kwon2021`.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-adaptive", "caption": "Adaptive sharpness, which rescaling the weights of a layer cannot change, for networks with batch normalization. What to see: whether the trend of the raw curvature survives."}, "image": {"alt": "Three panels, one for each protocol, of the adaptive sharpness of networks with batch normalization against learning rate over batch size, both logarithmic. Points with intervals, colored by batch size, beside the dashed line of the noise-free control.", "classes": "dark-light"}}
figures.side_by_side(
    figures.against_ratio, panels("batch norm", "adaptive_sharpness"), measure="adaptive_sharpness",
    control=controls("batch norm", "adaptive_sharpness"),
)

# %% [markdown]
# ## What the noise does to the loss
#
# The protocols hold one thing equal and let the others go. {numref}`fig-width-loss` shows what that means. At equal
# clock a run with a large ratio takes few, large and noisy steps, and it is still higher up when it is stopped; and
# higher up, the curvature is larger too. For the normalized network, which also feels the noise of its ghost batches,
# the training loss at equal clock goes with the ratio to the power {glue:text}`width-loss-bn:.2f`
# ({glue:text}`width-loss-bn_low:.2f` to {glue:text}`width-loss-bn_high:.2f`); for the plain one, to the power
# {glue:text}`width-loss-plain:.2f` ({glue:text}`width-loss-plain_low:.2f` to {glue:text}`width-loss-plain_high:.2f`).
# A curvature that rises along with the loss is no evidence that noise narrows minima, just as one that falls with it,
# at equal epochs, is none that noise widens them. Only the third protocol compares like with like.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-loss", "caption": "Training loss at the end against the noise scale, with batch normalization. What to see: at equal epochs the loss falls over orders of magnitude; at equal clock it rises where the noise is large; at equal loss it is what it should be."}, "image": {"alt": "Three panels, one for each protocol, of the training loss of networks with batch normalization, logarithmic, against learning rate over batch size: falling over decades at equal epochs, rising at equal clock, level at equal loss.", "classes": "dark-light"}}
figures.side_by_side(figures.against_ratio, panels("batch norm", "train_loss"), measure="train_loss")

# %% tags=["remove-cell"]
for arm, key in {"plain": "width-loss-plain", "batch norm": "width-loss-bn"}.items():
    glue(**{key: slope_on_ratio(tables["equal clock", arm], "train_loss").interval()})

# %% [markdown]
# The same numbers as a map. Where only the ratio counts, the cells along each thin diagonal have one color.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-map", "caption": "Largest Hessian eigenvalue over the full grid of learning rates and batch sizes, plain network; every cell is a geometric mean over seeds. Thin diagonals join cells of equal ratio. What to see: whether the color changes along a diagonal, which the ratio does not explain, and how much change the other protocols leave."}, "image": {"alt": "Three square maps, one for each protocol, with the learning rate across and the batch size upward. Each cell holds the largest Hessian eigenvalue of the plain network as a number on its color; thin diagonals join cells of equal ratio.", "classes": "dark-light"}}
maps = panels("plain", "sharpness")
span = (min(m.value.min() for m in maps.values()), max(m.value.max() for m in maps.values()))
figures.side_by_side(figures.over_grid, maps, measure="sharpness", limits=span, width=3.3)

# %% [markdown]
# ## Is it the ratio?
#
# Fit $\lambda_{\max} \propto \eta^a S^b$ seed by seed. A law of the ratio has $a = -b$. A law of the learning rate
# alone has $b = 0$: a network at the edge of stability, $\lambda_{\max} \approx 2/\eta$, would be an example, and it
# needs no noise either. So the two exponents are fitted apart.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-exponents", "caption": "Exponent of the learning rate against minus that of the batch size, for five measures (color) of the plain network under three protocols (marker), with 95 % intervals over seeds. On the dashed diagonal only the ratio matters; the wedge is the margin fixed for claim C3b. On the horizontal axis only the learning rate matters. What to see: how far from the origin (the strength), and how far from the diagonal."}, "image": {"alt": "Scatter plot of the exponent of the learning rate against minus that of the batch size, with intervals both ways. Five measures by color, three protocols by marker, a shaded wedge around the dashed diagonal, and lines at zero.", "classes": "dark-light"}}
measures = ["sharpness", "trace", "frobenius", "normalized_sharpness", "adaptive_sharpness"]
fitted = exponents({name: tables[name, "plain"] for name in protocols}, measures)
figures.alone(figures.exponent_plane(fitted, margin=claims.C3b.rule.margin))

# %% [markdown]
# Which description predicts a cell of the grid that it has not seen? Each model is a quadratic in the logarithms of its
# variables, fitted to all cells but one. At equal epochs the clock is the ratio, by equation {eq}`eq-clock`, and no
# regression can tell them apart. That is the paper's experiment in one sentence.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-heldout", "caption": "Share of the variance of the logarithm of the largest eigenvalue that each description predicts in cells left out of the fit, plain network; lines are 95 % intervals over seeds. What to see: which description loses nothing against the richest one."}, "image": {"alt": "Three bar charts, one for each protocol. Each has a bar with its interval for each of six descriptions, among them the ratio only and the ratio together with the clock: the share of the variance that it predicts.", "classes": "dark-light"}}
compared = {
    name: held_out_comparison(
        tables[name, "plain"], "sharpness", degree=2 if scale != "smoke" else 1, generator=numpy_generator(0, "held out")
    )
    for name in protocols
}
figures.side_by_side(figures.held_out, compared)

# %% [markdown]
# ## More than the largest eigenvalue
#
# The spectrum as a whole, from the smallest to the largest ratio of the grid along its diagonal, all at equal training
# loss, by stochastic Lanczos quadrature {cite}`ubaru2017,ghorbani2019`.

# %%
same = dict(seed=range(size.seeds), until=protocols["equal loss"])
spectra = [
    run(Sweep.grid(arms["plain"], lr=lr, batch_size=batch, **same), [Spectrum(probes=2, **few)])
    for lr, batch in zip(size.lr, size.batch_size[::-1])
]

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-spectra", "caption": "Density of the positive Hessian eigenvalues at equal training loss, by stochastic Lanczos quadrature; bands are 95 % intervals over seeds. A noise scale that is chosen below it is set off from the others. Most of the eigenvalues are smaller than the axis shows. What to see: whether a larger ratio moves the whole upper part of the spectrum or its edge alone."}}
from threefactors.presentation.frames import Frames

stacked = pd.concat([result.table() for result in spectra])
stacked["group"] = [f"$\\eta/S$ = {ratio:.2g}" for ratio in stacked.ratio]
tops = stacked.spectrum_nodes.map(np.max)
densities = spectral_summary(stacked, "group", span=(tops.max() / 2e3, tops.max() * 1.5))
seen = {"all": figures.spectra(densities)}
told = {"all": "spectral density of the Hessian against eigenvalue, both logarithmic, a curve for each noise scale"}
for group in stacked.group.unique():
    seen[name := group.split()[-1]] = figures.spectra(densities, only=group)
    told[name] = f"one of the curves in color; its largest eigenvalue is {tops[stacked.group == group].mean():.2g}"
Frames({name: figures.alone(ax) for name, ax in seen.items()}, title="η/S", start="all", alt=told)

# %% [markdown]
# ## Does it generalize?

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-accuracy", "caption": "Validation accuracy against the noise scale, plain network, mean over seeds with 95 % interval. What to see: the digits are easy, and all differences are fractions of a point to a few points; the trend is judged over the whole grid."}, "image": {"alt": "Three panels, one for each protocol, of the validation accuracy of the plain network in percent against learning rate over batch size on a logarithmic axis: points with intervals, colored by batch size, all within a few points of each other.", "classes": "dark-light"}}
figures.side_by_side(
    figures.against_ratio, panels("plain", "validation_accuracy", log=False), measure="validation_accuracy"
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-width-accuracy-bn", "caption": "The same with batch normalization."}, "image": {"alt": "Three panels, one for each protocol, of the validation accuracy of networks with batch normalization in percent against learning rate over batch size on a logarithmic axis: points with intervals, colored by batch size.", "classes": "dark-light"}}
figures.side_by_side(
    figures.against_ratio, panels("batch norm", "validation_accuracy", log=False), measure="validation_accuracy"
)

# %% [markdown]
# ## Verdicts

# %%
judged = (claims.C3a, claims.C3b, claims.C3c, claims.C4)
family = [claim.at(protocol, arm) for claim in judged for protocol, arm in results]
verdicts = judge_family(family, results)
verdicts

# %% tags=["remove-cell"]
keep(pd.concat(t.assign(protocol=p, arm=arm) for (p, arm), t in tables.items()))

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"width-{claim}": in_words(own)})
for name in protocols:
    key = name.replace(" ", "-")
    glue(**{f"width-slope-{key}": slope_on_ratio(tables[name, "plain"], "sharpness").interval()})
    glue(**{f"width-slope-bn-{key}": slope_on_ratio(tables[name, "batch norm"], "sharpness").interval()})
    glue(**{f"width-r2-{model.replace(' ', '-')}-{key}": row.r2 for model, row in compared[name].iterrows()})
slopes = loglog_slopes(tables["equal loss", "plain"], "sharpness")
glue(**{"width-a": slopes.lr.interval(), "width-b": slopes.batch_size.interval()})
glue(**{"width-lost": sum((t.diverged | ~t.finished).sum() for t in tables.values()), "width-runs": sum(map(len, tables.values()))})
path = paths["plain"].assign(lr=paths["plain"].at_clock, batch_size=1)
glue(**{"width-slope-control": slope_on_ratio(path[path.at_clock >= size.clock], "sharpness").interval()})

# %% [markdown]
# In words, from the table above and not typed:
#
# - **C3a**, curvature falls with the ratio: {glue:text}`width-C3a`.
# - **C3b**, only through the ratio: {glue:text}`width-C3b`.
# - **C3c**, also by measures that rescaling cannot change: {glue:text}`width-C3c`.
# - **C4**, validation accuracy rises: {glue:text}`width-C4`.
#
# The slope of $\ln\lambda_{\max}$ on $\ln(\eta/S)$, plain network, tells how much of the paper's effect the clock is:
#
# | protocol | slope | 95 % interval |
# |---|---|---|
# | equal epochs | {glue:text}`width-slope-equal-epochs:.2f` | {glue:text}`width-slope-equal-epochs_low:.2f` to {glue:text}`width-slope-equal-epochs_high:.2f` |
# | equal clock | {glue:text}`width-slope-equal-clock:.2f` | {glue:text}`width-slope-equal-clock_low:.2f` to {glue:text}`width-slope-equal-clock_high:.2f` |
# | equal loss | {glue:text}`width-slope-equal-loss:.2f` | {glue:text}`width-slope-equal-loss_low:.2f` to {glue:text}`width-slope-equal-loss_high:.2f` |
# | control without noise, on its clock | {glue:text}`width-slope-control:.2f` | {glue:text}`width-slope-control_low:.2f` to {glue:text}`width-slope-control_high:.2f` |
#
# Of {glue:text}`width-runs:.0f` runs, {glue:text}`width-lost:.0f` diverged or did not finish.
#
# ## At the paper's own size
#
# All of the above is the work of the machine on which this page was made. At scale `paper` the same code wants a GPU;
# what it found there is kept in `book/records`, with the definition of its runs, and stands here beside our own verdicts.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import recorded

recorded("20_width", verdicts, scale)

# %% [markdown]
# ## What would change our mind
#
# - *That the clock is most of the effect at equal epochs.* A control without noise that stays far above the points in
#   {numref}`fig-width-plain`, left.
# - *That noise does something of its own.* A slope at equal clock and at equal loss that is not told from zero with more
#   seeds, or one that vanishes when the full-batch control takes steps of the same size.
# - *That the ratio is what counts.* Exponents outside the wedge of {numref}`fig-width-exponents`, with intervals that
#   exclude it.
#
# Two limits of this chapter should be kept in mind. The digits are an easy task: all these networks fit their
# training set, and validation accuracies lie within a few points. And equal clock and equal loss cannot both hold: a
# run with much noise reaches a given loss later, so that at equal loss its clock is longer. The two protocols bracket
# the comparison that one would like to make.
#
# ## Exercises
#
# 1. Plant an error: replace `lr / batch_size` in the library's table by `lr / batch_size**2`. Which claims notice?
# 2. Derive {eq}`eq-excess` from {eq}`eq-stationary`, keeping the third term, for $C = H$. At which $\eta\lambda$ does
#    the mean height diverge?
# 3. Give the task 20 % of random labels (`Task(..., label_noise=0.2)`) and repeat the chapter with `--scale smoke`.
#    A minimum where $L^* > 0$ keeps its gradient noise. Does the clock still explain as much?
# 4. Sample with replacement (`sampling="replacement"`). Noise that is drawn by epochs cancels over an epoch
#    {cite}`kuhn2023`; do the minima become wider or narrower?
