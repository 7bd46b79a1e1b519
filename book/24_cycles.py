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
# # Cyclic schedules
#
# **Question.** Let the learning rate, or the batch size, go up and down in cycles. Does SGD then end in a wider minimum
# than with any constant setting, at the same training loss?
#
# Cyclic learning rates were proposed to train faster {cite}`smith2017cyclical`. The paper puts them to another use: it
# reports that cycles, discrete or triangular, of $\eta$ or of $S$, end in much wider minima than constant schedules of
# similar loss {cite}`jastrzebski2018`. A cycle of $S$ does what a cycle of $\eta$ does, since only $\eta/S$ counts.
# This chapter asks the question that decides what such a result means: wider than *which* constant?
#
# ```{index} cyclic schedule
# ```
#
# ## The law
#
# Write $n = \eta/S$ for the noise scale, $L$ for the training loss, $C$ for the covariance of one example's gradient
# and $T = \sum\eta$ for the clock. An epoch on $N$ examples has $N/S$ steps, so that it advances the clock by $N n$.
# On the clock, a step of SGD is a step of
#
# ```{math}
# :label: eq-cycles-sde
# d\theta = -\nabla L\, dT + \sqrt{n(T)}\; C^{1/2}\, dW_T .
# ```
#
# A schedule enters in one place only, as the noise scale $n(T)$. Two things follow.
#
# :::{admonition} Proposition (what a cycle is on the clock)
# :class: tip
# Let $\langle\cdot\rangle$ be the mean over the epochs of a period. (1) Without noise, the state depends on $T$ alone;
# a constant schedule with the same mean $\langle n\rangle$ shows the same state at the end of each period. (2) With
# noise, the mean noise scale *on the clock* is
#
# $$
# n^* = \frac{\langle n^2\rangle}{\langle n\rangle} \;\ge\; \langle n\rangle ,
# $$
#
# with equality for constant schedules only. (3) A direction of constant curvature $\lambda$ with the noise variance
# $n\,c$ per unit of clock has, at the end of each of many periods of clock $T_p$, the variance that the constant scale
# $n_{\mathrm{end}}(\lambda)$ would give it. For a square cycle that ends with its low half,
#
# $$
# n_{\mathrm{end}} = n_l + (n_h-n_l)\, e^{-2\lambda T_l}\,\frac{1-e^{-2\lambda T_h}}{1-e^{-2\lambda T_p}},
# \qquad T_h = \frac{n_h\,T_p}{n_h+n_l} = T_p - T_l ,
# $$
#
# which falls from $n^*$ where $\lambda T_p \ll 1$ to the low scale $n_l$ where $\lambda T_p \gg 1$.
# :::
#
# :::{dropdown} Proof
# *(1)* With $n = 0$, {eq}`eq-cycles-sde` does not mention the schedule, and a period advances the clock by
# $N\langle n\rangle$ for each of its epochs. *(2)* The clock weighs each epoch by its $n$, so that the mean over the
# clock is $\sum n\cdot n/\sum n$; and $\langle n^2\rangle \ge \langle n\rangle^2$ with equality only if $n$ does not
# vary. *(3)* The variance obeys $\dot v = -2\lambda v + n(T)\,c$, with the constant solution $n c/2\lambda$. Over a stretch
# of clock $t$ with constant $n$ the distance of $v$ from $nc/2\lambda$ shrinks by $e^{-2\lambda t}$. Apply this to the
# two halves and ask that $v$ come back to itself after a period:
# $u = n_l + (n_h - n_l)e^{-2\lambda T_l} + (u - n_h)\,e^{-2\lambda T_p}$ for $u = 2\lambda v/c$, and solve. For
# $\lambda\to0$ the fraction tends to $T_h/T_p$, and $u$ to $n_l + (n_h-n_l)\,n_h/(n_h+n_l) = n^*$. $\square$
# :::
#
# The proposition is about a bowl, to first order in $\eta$. Among minima it is a hypothesis: that the width of the one
# that is found goes with the noise per unit of clock, as it does for constant schedules ({doc}`20_width`). It says what a
# cycle is good for. Half of the epochs are spent at the low end, but hardly any of the *clock*
# ({numref}`fig-cycles-courses`). A cycle is nearly the schedule of its high end. And it ends quenched: steep
# directions have cooled to $n_l$ while slow ones remember $n^*$.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cycles-courses", "caption": "The noise scale of the two cycles over one period, on the left in epochs, on the right on the clock. Dashed: the mean along the axis of the panel, one value for both on the left. What to see: on the clock the low phase is short, and the means lie far above one half of the way."}, "image": {"alt": "Two panels of noise scale over one period, square wave and triangle: over epochs both have mean 0.6, over the clock the low phase shrinks and the means rise.", "classes": "dark-light"}}
import numpy as np
import pandas as pd

from threefactors import MLP, Accuracy, Loss, Moments, Sharpness, Task
from threefactors.presentation import cycles as drawn
from threefactors.presentation import figures
from threefactors.theory.cycles import noise_after_square_cycle, noise_on_clock
from threefactors.training.schedules import SquareCycle, TriangularCycle

share = (np.arange(4000) + 0.5) / 4000
waves = {"square": SquareCycle(1, 1.0, 0.2), "triangle": TriangularCycle(1, 0.2, 1.0)}
waves = {name: np.array([wave(x) for x in share]) for name, wave in waves.items()}
course = {
    "over the epochs": {k: (share, n, n.mean()) for k, n in waves.items()},
    "over the clock": {k: (n.cumsum() / n.sum(), n, noise_on_clock(n)) for k, n in waves.items()},
}
course = {
    axis: pd.concat(pd.DataFrame({"profile": k, "share": x, "noise": n, "average": a}) for k, (x, n, a) in lines.items())
    for axis, lines in course.items()
}
figures.side_by_side(drawn.courses, course, width=3.4)

# %% [markdown]
# ## Predictions
#
# Cycles go between a high end, 1 in our unit, and a low end at a fifth of it, as in the paper. Four constants can be held
# against them. The *low* end is, as far as we know, what the paper's cycles were compared with. The constant of the same
# *mean* shares epochs and clock with the cycle: nothing but cycling differs. The *matched* constant has the $n^*$ of the
# square cycle, and shares clock and injected noise. And the *high* end is what one would use if cycling were good for
# nothing. What is expected of the ratio of widths, cycle over constant:
#
# | against | if only the clock counts | if the noise on the clock widens | if cycling itself widens |
# |---|---|---|---|
# | low, equal epochs | below 1 | below 1 | below 1 |
# | low, equal clock or loss | 1 | below 1 | below 1 |
# | mean | 1 | below 1 | below 1 |
# | matched | 1 | 1 | below 1 |
# | high | 1 | above 1 | open |
#
# The claims and rules are in `threefactors.inference.claims.cycles`, fixed before the runs that are judged: wider than
# the constant of the same mean (**C9a**), than the low end (**C9b**), than the high end (**C9e**), each for
# all four cycles and all three measures of width at once; cycles of $\eta$ and of $S$ equally wide to $0.2$ in the
# logarithm (**C9c**); and, by the same margin, the square cycle as wide as the matched constant (**C9d**). Three or four
# pilot seeds of their own set the sizes, the losses and the margin. In them the directions of C9a to C9c and C9e were
# seen, and that a square cycle came out close to the high end; C9d was derived in view of that, and its constant was not
# among the pilots. (On the digits with clean labels, which a network fits in three or four periods, a square cycle of $\eta$
# differed from its mean by a fifth; a fifth of random labels, which are harder to fit, doubled that. So the task has
# them.)

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
images = "cifar10"  # or cifar10-jpeg: at scale paper

# %% [markdown]
# ## The experiment
#
# Batch sizes must divide the training set, or the clock goes astray. With the smallest batch $S$ these are $S$, $5S/3$
# and $5S$; so a triangle of the batch size is a staircase of three levels. (The paper's own 128 and 640 become 120 and
# 600.) Every cycle ends low: the square wave with its low half, the triangle at its lowest point.

# %%
from types import SimpleNamespace

from threefactors.experiments.cycles import Design, phase, run_schedules
from threefactors.experiments.first_order import NoiseTrace

SIZES = {
    "smoke": dict(
        data="digits", examples=180, noise=0.2, hidden=(8, 8), ghost=4, seen=None,
        lr=0.2, batch_size=12, period=8, repeats=(1, 1), loss=(1.35, 1.35),
        at_most=400, seeds=5, control=5,
    ),
    "laptop": dict(
        data="digits", examples=1080, noise=0.2, hidden=(32, 32), ghost=8, seen=None,
        lr=0.1, batch_size=24, period=8, repeats=(8, 16), loss=(0.2, 0.3),
        at_most=3000, seeds=12, control=5,
    ),
    "paper": dict(
        data=images, examples=6000, noise=0.0, hidden="VGG11", ghost=40, seen=1024,
        lr=0.02, batch_size=120, period=10, repeats=(12, 6), loss=(0.9, 0.05),
        at_most=2000, seeds=5, control=0,
    ),
}
size = SimpleNamespace(**SIZES[scale])
design = Design(size.lr, size.batch_size, size.examples, size.period, low=0.2)
list(design.schedules())

# %% tags=["remove-cell"]
if size.hidden == "VGG11":
    from threefactors.training.convolution import VGG11

    # a quarter of its width, and no augmentation: 400 runs of hundreds of epochs, judged at a loss near zero
    models = {"plain": VGG11(width=0.25), "batch norm": VGG11(batch_norm=size.ghost, width=0.25)}
else:
    models = {"plain": MLP(size.hidden), "batch norm": MLP(size.hidden, batch_norm=size.ghost)}
tasks = {
    network: Task(size.data, model, train_size=size.examples, label_noise=size.noise)
    for network, model in models.items()
}

# %% [markdown]
# *When to stop?* At equal clock and at equal epochs after a whole number of periods. At equal loss there is a trap.
# A run in its high phase floats above its minimum; it crosses the loss in its low phase or not at all
# ({numref}`fig-cycles-stops`), and a constant schedule never has a low phase. So there are two ways. By the first,
# the training loss is looked at once a period, at its end. By the second, *quenched*, every schedule goes over
# into the same low $n$ after the same clock, early enough that the loss is still to come. What is then compared
# is where the noise has led, and not how high above it the network floats. At equal clock there is a quenched arm as
# well, two more periods of clock long.

# %%
same = dict(lr=size.lr, batch_size=size.batch_size, seed=range(size.seeds))
few = dict(examples=size.seen)  # of the training set, for the curvature (None: all)
probes = [Loss(), Accuracy(), Sharpness(**few), Moments(**few)]
tables = {}
for network, repeats, loss in zip(tasks, size.repeats, size.loss):
    measured = probes + [NoiseTrace()] * (network == "plain" and scale != "paper")
    for arm, quench in {network: 0, f"{network} quenched": 2}.items():
        looks = 10 if quench else 1
        own = design.schedules(quenched_after=repeats if quench else None)
        rules = design.stopping(repeats, loss, size.at_most, quench=quench, looks=looks)
        ends = {rule: own for rule in rules}
        ends["equal epochs"] = {name: own[name] for name in ("low η", "low S")}
        for rule, chosen in ends.items():
            tables[rule, arm] = run_schedules(
                tasks[network], chosen, measured, until=rules[rule], **same
            )

# %% tags=["remove-cell"]
from threefactors.inference.cycles import beside, by_knob, log_ratios

CYCLES = ["square η", "square S", "triangle η", "triangle S"]
for arm in (a for p, a in list(tables) if p == "equal epochs"):  # of a cycle, epochs and clock end together
    cycling = tables["equal clock", arm].query("schedule in @CYCLES")
    tables["equal epochs", arm] = pd.concat([tables["equal epochs", arm], cycling], ignore_index=True)

# %% [markdown]
# The control has no noise: full-batch descent, cycle of $\eta$ against the constant of the same mean, as many steps to a
# period as SGD takes, once at the same learning rates and once at half of them on the same clock. By part (1) of the
# proposition it should see no difference, as long as $\eta\lambda_{\max}$ stays well below 2.

# %%
noiseless = {}
for slower in (1, 2) if size.control else ():
    steps = size.period * (size.examples // size.batch_size) * slower
    full = Design(size.lr / slower, size.examples, size.examples, steps, design.low)
    own = {name: full.schedules()[name] for name in ("square η", "mean η")}
    until = full.stopping(1, size.loss[0], at_most=20 * steps)["equal loss"]
    noiseless[slower] = run_schedules(
        tasks["plain"], own, probes, until=until,
        lr=full.lr, batch_size=size.examples, seed=range(size.control),
    )

# %% tags=["remove-cell"]
from threefactors.inference import judge_family, required_effect, summarize
from threefactors.inference.claims import cycles as claims
from threefactors.presentation.prose import by_id, glue, in_words

low, mean, levels = design.low, design.mean, design.levels
matched = levels["matched"]


def held(table, kind, cycles=CYCLES):
    """The cycles beside a constant: turned by the same knob where there are two of it."""
    present = set(table.schedule)
    pairs = {c: f"{kind} {c[-1]}" if f"{kind} {c[-1]}" in present else f"{kind} η" for c in cycles}
    return beside(table, pairs)


def compared(arm, protocols=("equal clock", "equal loss")):
    kinds = ("low", "mean", "matched", "high")
    panels = {p: (arm, p) for p in protocols} | {"equal loss, quenched": (f"{arm} quenched", "equal loss")}
    return {
        name: log_ratios({k: held(tables[p, a], k) for k in kinds}, "sharpness") for name, (a, p) in panels.items()
    }


def curve(arm):
    """Constants and cycles of a network against their noise scale, in three panels."""
    panels = {"equal clock": ("equal clock", arm), "equal loss": ("equal loss", arm)}
    panels["equal loss, quenched"] = ("equal loss", f"{arm} quenched")
    on_clock = {"square": matched, "triangle": noise_on_clock([1.0, 0.6, 0.6, 0.2, 0.2, 0.6, 0.6, 1.0])}
    on_clock |= {"triangle η": 2 * (1 + low + low**2) / (3 * (1 + low))}
    constants, cycles = {}, {}
    for name, place in panels.items():
        cells = summarize(tables[place], "sharpness", by=["schedule"])
        cells["turned"] = cells.schedule.str[-1]
        kind = cells.schedule.str.split().str[0]
        constants[name] = cells[kind.isin(levels)].assign(noise=kind.map(levels))
        top = constants[name].query("schedule == 'high η'").assign(turned="S")
        constants[name] = pd.concat([constants[name], top])
        own = cells[~kind.isin(levels)]
        cycles[name] = own.assign(noise=mean, on_clock=own.schedule.map(on_clock).fillna(kind.map(on_clock)))
    return constants, cycles


runs = pd.concat([t.assign(protocol=p, arm=a) for (p, a), t in tables.items()], ignore_index=True)
# those of a cycle at equal epochs are the same as at equal clock: each run is there once
runs = runs[(runs.protocol != "equal epochs") | runs.schedule.str.startswith("low")]

# %% [markdown]
# ## When a run stops
#
# First the trap. Here the cycles of the plain network were looked at forty times a period, and stopped as soon as the
# loss was reached.

# %%
often = design.stopping(1, size.loss[0], size.at_most, looks=40)["equal loss"]
own = {name: design.schedules()[name] for name in CYCLES}
naive = run_schedules(tasks["plain"], own, probes, until=often, **same)
naive["phase"] = phase(naive, size.period)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cycles-stops", "caption": "Where in its period each run of the plain network reached the training loss, if it was watched all the time; a dot is a run. Gray: the noise scale over the period. What to see: no run of a square cycle, and hardly one of a triangle, stops where its noise is high."}, "image": {"alt": "Four rows of dots, one for each cyclic schedule, over the share of the period at the stop; nearly all of the dots lie in the half with little noise.", "classes": "dark-light"}}
figures.alone(drawn.stops(naive, course["over the epochs"]))

# %% [markdown]
# ## Wider than which constant?
#
# {numref}`fig-cycles-plain` has the answer in four colors. Read each panel by color: against the low end, the mean, the
# matched constant and the high end.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cycles-plain", "caption": "Largest Hessian eigenvalue under each cycle over that under a constant schedule, plain network; geometric mean over seeds with 95 % interval. Color: the constant that the cycle is held against. What to see: left of the line the cycle is wider; how far left depends on the constant, and against the high end little or nothing is left."}, "image": {"alt": "Three panels with four rows, one for each cycle, of ratios of the largest eigenvalue against four constants; ratios grow from the low to the high constant.", "classes": "dark-light"}}
figures.side_by_side(drawn.ratios, compared("plain"), width=3.0)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cycles-bn", "caption": "The same with batch normalization, in ghost batches of one size. What to see: the same order of colors, with smaller differences, above all after the quench."}, "image": {"alt": "Three panels, for equal clock, equal loss, and equal loss after the quench, with a row for each of four cycles: the ratio of the largest Hessian eigenvalue to that under four constants, colored by the constant, for networks with batch normalization; ratios grow from the low to the high constant.", "classes": "dark-light"}}
figures.side_by_side(drawn.ratios, compared("batch norm"), width=3.0)

# %% [markdown]
# The same runs, with the noise scale as the axis ({numref}`fig-cycles-curve`). If a cycle is the constant of its mean,
# the hollow markers lie on the curve of the constants; if it is the constant of its $n^*$, the full ones do.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-cycles-curve", "caption": "Largest Hessian eigenvalue against the noise scale, plain network. Gray: constant schedules, by the learning rate and by the batch size. Each cycle stands twice: hollow at its mean over the epochs, full at its mean over the clock, with the 95 % interval over seeds. What to see: which of the two lies on the gray curves."}, "image": {"alt": "Three panels of the largest Hessian eigenvalue against the noise scale, falling gray curves for constant schedules, and four cycles at two places each.", "classes": "dark-light"}}
constants, cycles = curve("plain")
figures.side_by_side(drawn.on_the_curve, constants, cycles=cycles, width=3.0)

# %% tags=["remove-cell"]
ratio = claims.cycle_over_constant
short = {"plain": "plain", "plain quenched": "quenched", "batch norm": "bn", "batch norm quenched": "bnq"}
for (protocol, arm), table in tables.items():
    for kind in ("low",) if protocol == "equal epochs" else ("low", "mean", "matched", "high"):
        for c in CYCLES:
            one = ratio(held(table, kind, [c]), "sharpness")
            key = f"cycles-{protocol[6:]}-{short[arm]}-{kind}-{c.replace(' ', '-').replace('η', 'lr')}"
            i = one.interval()
            glue(**{key: np.exp(i.value), f"{key}_low": np.exp(i.low), f"{key}_high": np.exp(i.high)})
names = [f"{measure}{end}" for measure in claims.WIDTHS for end in ("", "_low", "_high")]
glue(**{f"cycles-control-{k}-{name}": np.nan for k in (1, 2) for name in names if k not in noiseless})
glue(**{f"cycles-edge{mean_}-{k}": np.nan for k in (1, 2) for mean_ in ("", "-mean") if k not in noiseless})
for slower, table in noiseless.items():
    beside_it = beside(table, {"square η": "mean η"})
    for measure in claims.WIDTHS:
        i = ratio(beside_it, measure).interval()
        key = f"cycles-control-{slower}-{measure}"
        glue(**{key: np.exp(i.value), f"{key}_low": np.exp(i.low), f"{key}_high": np.exp(i.high)})
    top = table.groupby("schedule").sharpness.mean()
    glue(**{f"cycles-edge-{slower}": top["square η"] * size.lr / slower})
    glue(**{f"cycles-edge-mean-{slower}": top["mean η"] * size.lr / slower * mean})
end = tables["equal loss", "plain"].groupby("schedule").mean(numeric_only=True)
glue(**{"cycles-edge-sgd": end.sharpness["square η"] * size.lr, "cycles-edge-low": end.sharpness["low S"] * size.lr})
glue(**{"cycles-loss-min": end.train_loss.min(), "cycles-loss-max": end.train_loss.max()})
quick = [((q := tables["equal loss", f"{n} quenched"]).clock < tables["equal clock", n].clock.max()) & ~q.schedule.str.startswith("low") for n in tasks]
glue(**{"cycles-early-plain": quick[0].sum(), "cycles-early-bn": quick[1].sum(), "cycles-quenchable": (~tables["equal loss", "plain quenched"].schedule.str.startswith("low")).sum()})
for n in tasks:
    q = tables["equal loss", f"{n} quenched"]
    q = q[q.schedule == "square η"]
    glue(**{f"cycles-quench-{short[n]}": 100 * (1 - tables["equal clock", n].clock.max() / q.clock.mean())})
half = naive.schedule.str.startswith("square")
glue(**{"cycles-naive-low": 100 * (naive[half].phase > 0.5).mean(), "cycles-naive-high": 100 * (naive[~half].phase - 0.5).abs().lt(0.25).mean()})
accuracy = tables["equal loss", "plain"].groupby("schedule").validation_accuracy.mean() * 100
for name in ("square η", "mean η", "high η"):
    glue(**{f"cycles-accuracy-{name.split()[0]}": accuracy[name]})
calm = tables["equal loss", "plain quenched"].groupby("schedule").validation_accuracy.mean() * 100
glue(**{"cycles-calm-square": calm["square η"], "cycles-calm-mean": calm["mean η"], "cycles-calm-high": calm["high η"]})
glue(**{"cycles-lost": (runs.diverged | ~runs.finished).sum(), "cycles-runs": len(runs)})
period_clock = size.period * (size.examples // size.batch_size) * mean * size.lr
slow = noise_after_square_cycle([0.01, 0.1, 1.0], period_clock, low)
glue(**{"cycles-matched": matched, "cycles-period": period_clock, "cycles-end-flat": slow[0], "cycles-end-mid": slow[1], "cycles-end-steep": slow[2]})
glue(**{"cycles-cross": end.clock["square η"] / period_clock})

# %% [markdown]
# ## Verdicts

# %%
kinds = {claims.C9a: "mean", claims.C9b: "low", claims.C9e: "high"}
judged = []
for place, table in tables.items():
    if place[0] == "equal epochs":  # for the mean the same runs as at equal clock
        judged.append((claims.C9b.at(*place), held(table, "low")))
        continue
    judged += [(claim.at(*place), held(table, kind)) for claim, kind in kinds.items()]
    judged.append((claims.C9d.at(*place), held(table, "matched", CYCLES[:2])))
    judged.append((claims.C9c.at(*place), by_knob(table, CYCLES[:2])))
verdicts = judge_family(*zip(*judged))
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"cycles-{claim}": in_words(own)})
loss = tables["equal loss", "plain quenched"]
found = claims.C9a.statistic(held(loss, "mean", ["triangle η"]), "sharpness")
spread = found.stderr * found.n**0.5
glue(**{"cycles-power": 100 * (1 - np.exp(-required_effect(claims.C9a, size.seeds, spread)))})
margins = {claim: [v.interval for v in own if v.interval] for claim, own in by_id(verdicts).items()}
for claim in ("C9c", "C9d"):
    halves = [(high - low_) / 2 for low_, high in margins[claim]]
    glue(**{f"cycles-half-{claim}": max(halves)})

# %% [markdown]
# - **C9a**, wider than the constant of the same mean: {glue:text}`cycles-C9a`.
# - **C9b**, wider than the low end: {glue:text}`cycles-C9b`.
# - **C9c**, by $\eta$ or by $S$ alike: {glue:text}`cycles-C9c`.
# - **C9d**, as wide as the matched constant: {glue:text}`cycles-C9d`.
# - **C9e**, wider than the high end: {glue:text}`cycles-C9e`.
#
# What the verdicts say, in numbers of $\lambda_{\max}$, plain network at equal loss; cycle over constant, with 95 %
# intervals over seeds:
#
# | cycle | over the low end | over the mean | over the matched constant | over the high end |
# |---|---|---|---|---|
# | square $\eta$ | {glue:text}`cycles-loss-plain-low-square-lr:.2f` ({glue:text}`cycles-loss-plain-low-square-lr_low:.2f` to {glue:text}`cycles-loss-plain-low-square-lr_high:.2f`) | {glue:text}`cycles-loss-plain-mean-square-lr:.2f` ({glue:text}`cycles-loss-plain-mean-square-lr_low:.2f` to {glue:text}`cycles-loss-plain-mean-square-lr_high:.2f`) | {glue:text}`cycles-loss-plain-matched-square-lr:.2f` ({glue:text}`cycles-loss-plain-matched-square-lr_low:.2f` to {glue:text}`cycles-loss-plain-matched-square-lr_high:.2f`) | {glue:text}`cycles-loss-plain-high-square-lr:.2f` ({glue:text}`cycles-loss-plain-high-square-lr_low:.2f` to {glue:text}`cycles-loss-plain-high-square-lr_high:.2f`) |
# | square $\eta$, quenched | {glue:text}`cycles-loss-quenched-low-square-lr:.2f` ({glue:text}`cycles-loss-quenched-low-square-lr_low:.2f` to {glue:text}`cycles-loss-quenched-low-square-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-mean-square-lr:.2f` ({glue:text}`cycles-loss-quenched-mean-square-lr_low:.2f` to {glue:text}`cycles-loss-quenched-mean-square-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-matched-square-lr:.2f` ({glue:text}`cycles-loss-quenched-matched-square-lr_low:.2f` to {glue:text}`cycles-loss-quenched-matched-square-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-high-square-lr:.2f` ({glue:text}`cycles-loss-quenched-high-square-lr_low:.2f` to {glue:text}`cycles-loss-quenched-high-square-lr_high:.2f`) |
# | square $S$ | {glue:text}`cycles-loss-plain-low-square-S:.2f` ({glue:text}`cycles-loss-plain-low-square-S_low:.2f` to {glue:text}`cycles-loss-plain-low-square-S_high:.2f`) | {glue:text}`cycles-loss-plain-mean-square-S:.2f` ({glue:text}`cycles-loss-plain-mean-square-S_low:.2f` to {glue:text}`cycles-loss-plain-mean-square-S_high:.2f`) | {glue:text}`cycles-loss-plain-matched-square-S:.2f` ({glue:text}`cycles-loss-plain-matched-square-S_low:.2f` to {glue:text}`cycles-loss-plain-matched-square-S_high:.2f`) | {glue:text}`cycles-loss-plain-high-square-S:.2f` ({glue:text}`cycles-loss-plain-high-square-S_low:.2f` to {glue:text}`cycles-loss-plain-high-square-S_high:.2f`) |
# | square $S$, quenched | {glue:text}`cycles-loss-quenched-low-square-S:.2f` ({glue:text}`cycles-loss-quenched-low-square-S_low:.2f` to {glue:text}`cycles-loss-quenched-low-square-S_high:.2f`) | {glue:text}`cycles-loss-quenched-mean-square-S:.2f` ({glue:text}`cycles-loss-quenched-mean-square-S_low:.2f` to {glue:text}`cycles-loss-quenched-mean-square-S_high:.2f`) | {glue:text}`cycles-loss-quenched-matched-square-S:.2f` ({glue:text}`cycles-loss-quenched-matched-square-S_low:.2f` to {glue:text}`cycles-loss-quenched-matched-square-S_high:.2f`) | {glue:text}`cycles-loss-quenched-high-square-S:.2f` ({glue:text}`cycles-loss-quenched-high-square-S_low:.2f` to {glue:text}`cycles-loss-quenched-high-square-S_high:.2f`) |
# | triangle $\eta$ | {glue:text}`cycles-loss-plain-low-triangle-lr:.2f` ({glue:text}`cycles-loss-plain-low-triangle-lr_low:.2f` to {glue:text}`cycles-loss-plain-low-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-plain-mean-triangle-lr:.2f` ({glue:text}`cycles-loss-plain-mean-triangle-lr_low:.2f` to {glue:text}`cycles-loss-plain-mean-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-plain-matched-triangle-lr:.2f` ({glue:text}`cycles-loss-plain-matched-triangle-lr_low:.2f` to {glue:text}`cycles-loss-plain-matched-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-plain-high-triangle-lr:.2f` ({glue:text}`cycles-loss-plain-high-triangle-lr_low:.2f` to {glue:text}`cycles-loss-plain-high-triangle-lr_high:.2f`) |
# | triangle $\eta$, quenched | {glue:text}`cycles-loss-quenched-low-triangle-lr:.2f` ({glue:text}`cycles-loss-quenched-low-triangle-lr_low:.2f` to {glue:text}`cycles-loss-quenched-low-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-mean-triangle-lr:.2f` ({glue:text}`cycles-loss-quenched-mean-triangle-lr_low:.2f` to {glue:text}`cycles-loss-quenched-mean-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-matched-triangle-lr:.2f` ({glue:text}`cycles-loss-quenched-matched-triangle-lr_low:.2f` to {glue:text}`cycles-loss-quenched-matched-triangle-lr_high:.2f`) | {glue:text}`cycles-loss-quenched-high-triangle-lr:.2f` ({glue:text}`cycles-loss-quenched-high-triangle-lr_low:.2f` to {glue:text}`cycles-loss-quenched-high-triangle-lr_high:.2f`) |
# | triangle $S$ | {glue:text}`cycles-loss-plain-low-triangle-S:.2f` ({glue:text}`cycles-loss-plain-low-triangle-S_low:.2f` to {glue:text}`cycles-loss-plain-low-triangle-S_high:.2f`) | {glue:text}`cycles-loss-plain-mean-triangle-S:.2f` ({glue:text}`cycles-loss-plain-mean-triangle-S_low:.2f` to {glue:text}`cycles-loss-plain-mean-triangle-S_high:.2f`) | {glue:text}`cycles-loss-plain-matched-triangle-S:.2f` ({glue:text}`cycles-loss-plain-matched-triangle-S_low:.2f` to {glue:text}`cycles-loss-plain-matched-triangle-S_high:.2f`) | {glue:text}`cycles-loss-plain-high-triangle-S:.2f` ({glue:text}`cycles-loss-plain-high-triangle-S_low:.2f` to {glue:text}`cycles-loss-plain-high-triangle-S_high:.2f`) |
# | triangle $S$, quenched | {glue:text}`cycles-loss-quenched-low-triangle-S:.2f` ({glue:text}`cycles-loss-quenched-low-triangle-S_low:.2f` to {glue:text}`cycles-loss-quenched-low-triangle-S_high:.2f`) | {glue:text}`cycles-loss-quenched-mean-triangle-S:.2f` ({glue:text}`cycles-loss-quenched-mean-triangle-S_low:.2f` to {glue:text}`cycles-loss-quenched-mean-triangle-S_high:.2f`) | {glue:text}`cycles-loss-quenched-matched-triangle-S:.2f` ({glue:text}`cycles-loss-quenched-matched-triangle-S_low:.2f` to {glue:text}`cycles-loss-quenched-matched-triangle-S_high:.2f`) | {glue:text}`cycles-loss-quenched-high-triangle-S:.2f` ({glue:text}`cycles-loss-quenched-high-triangle-S_low:.2f` to {glue:text}`cycles-loss-quenched-high-triangle-S_high:.2f`) |
#
# Four things can be read from it.
#
# *Against the low end* the paper's finding is there, large, at equal clock and at equal loss and after a quench. At
# equal epochs it is the plain network's Tr $H$ that keeps the claim from being supported: the low end is then at a third
# of the clock, where noisy labels are not yet fitted, and the curvature still *rises* with the clock on the way to them.
# Our table of predictions, which took from clean labels that the clock flattens, was wrong in that cell.
#
# *Against the mean* the square cycles are wider, and cycling does something that the clock cannot. Triangles are
# wider too, but by less. After the quench the difference is a part of what it was, and the triangles' is within what
# twelve seeds can miss: with the spread that was found for the triangle of $\eta$, an effect of
# {glue:text}`cycles-power:.0f` % on $\lambda_{\max}$ would be found at this one test with a power of 80 %, before any
# correction for the family.
#
# *The matched constant* says what that something is. At equal loss after the quench it is as wide as the square cycle, in both
# networks, and the full markers of {numref}`fig-cycles-curve`, right, lie on the curve: what counts is the noise on the
# clock, and the clock spends
# most of a cycle at its high end. Before the quench the cycle looks wider by a fifth. It is stopped when it has cooled and
# the constant while it is hot: by the proposition, directions with $\lambda = 1$ then sit at a noise scale of
# {glue:text}`cycles-end-steep:.1f`, those with $\lambda = 0.01$ at {glue:text}`cycles-end-flat:.1f`, in units of the
# high end. It is the height within a basin that is compared there, and not only the basin. So the end of a cycle is a
# quench, and a
# cycle's advantage at similar loss is in part that of having been quenched.
#
# *Against the high end* nothing is left; a triangle is even narrower. On this task, who wants wide minima
# should not cycle, but stay at the high end, and quench once.
#
# And it does not matter which knob is turned: in no arm do the two square cycles differ by more than a few percent. The
# half width of the intervals is at most {glue:text}`cycles-half-C9c:.2f` for C9c and {glue:text}`cycles-half-C9d:.2f`
# for C9d, where the margin is $0.2$.
#
# *No noise.* Full-batch descent should not see cycles, and it does: $\lambda_{\max}$ under the cycle is
# {glue:text}`cycles-control-1-sharpness:.2f` ({glue:text}`cycles-control-1-sharpness_low:.2f` to
# {glue:text}`cycles-control-1-sharpness_high:.2f`) times that under the mean, Tr $H$
# {glue:text}`cycles-control-1-trace:.2f` times. Without noise these minima are so sharp that the high phase is at the
# edge of stability {cite}`cohen2021`, $\eta\lambda_{\max} = $ {glue:text}`cycles-edge-1:.2f` with the cycle's largest $\eta$: it is
# the learning rate that holds the curvature down. At half of the learning rates $\eta\lambda_{\max}$ is
# {glue:text}`cycles-edge-2:.2f`, and the ratios are {glue:text}`cycles-control-2-sharpness:.2f`
# ({glue:text}`cycles-control-2-sharpness_low:.2f` to {glue:text}`cycles-control-2-sharpness_high:.2f`) and
# {glue:text}`cycles-control-2-trace:.2f`. The cycles of SGD are far from that edge, with
# {glue:text}`cycles-edge-sgd:.2f`; and a cycle of $S$ has one $\eta$ throughout, is as wide, and cannot owe it to the
# edge. The low end of $S$, at {glue:text}`cycles-edge-low:.2f`, comes close to it, and that may be why it is wider than the
# low end of $\eta$.
#
# *Generalization.* At equal loss the square cycle of $\eta$ has a validation accuracy of
# {glue:text}`cycles-accuracy-square:.1f` %, its mean {glue:text}`cycles-accuracy-mean:.1f` %, the high end
# {glue:text}`cycles-accuracy-high:.1f` %; after the quench {glue:text}`cycles-calm-square:.1f`,
# {glue:text}`cycles-calm-mean:.1f` and {glue:text}`cycles-calm-high:.1f` %. What the cycle has over
# the constants before the quench, it no longer has after it. (No claim was made on accuracy, and none is judged.)
#
# All training losses at equal loss, a mean for each schedule, lie between {glue:text}`cycles-loss-min:.3f` and
# {glue:text}`cycles-loss-max:.3f` for the plain network: runs are looked at only once a period, and go on a little below
# the loss asked for. After the quench they were looked at ten times as often. The quench took the last
# {glue:text}`cycles-quench-plain:.0f` % of the clock of a square cycle ({glue:text}`cycles-quench-bn:.0f` % with batch
# normalization); {glue:text}`cycles-early-plain:.0f` and {glue:text}`cycles-early-bn:.0f` of
# {glue:text}`cycles-quenchable:.0f` runs each, those of the low end not counted, came to the loss before it. Of the runs that were stopped at any
# time, {glue:text}`cycles-naive-low:.0f` % of those with a square wave stopped in its low half. Of
# {glue:text}`cycles-runs:.0f` runs, {glue:text}`cycles-lost:.0f` diverged or did not finish.
#
# ## At the paper's own size
#
# All of the above is the work of the machine on which this page was made. At scale `paper` the same code wants a GPU;
# what it found there is kept in `book/records`, with the definition of its runs, and stands here beside our own verdicts.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import recorded

recorded("24_cycles", verdicts, scale)

# %% [markdown]
# ## What would change our mind
#
# - *That a cycle is the constant of its $n^*$.* A square cycle that stays wider than the matched constant after a common
#   quench; or one with a ratio of 1 to 20 between its ends, for which $n^*$ is nearly the high end, that is not as wide.
# - *That cycling is good for nothing that the high end is not.* A cycle whose high phase is too hot to be held
#   throughout, where the constant high end diverges or does not learn, and which ends wider than any constant
#   that does learn. This chapter stays below that.
# - *That the quench compares basins.* If width after the quench depended on its length, it would compare what the quench
#   has forgotten. It is long enough to matter: differences to the mean shrink in it. A series of quench lengths would tell.
#
# Two more limits. A fifth of the labels is random here, so that the noise is kept alive until late; with clean labels the
# same effects were smaller in the pilot. And with more than ten periods to the loss, cycles are short against the whole run;
# for a single long cycle the last phase is most of what is remembered.
#
# ## Exercises
#
# 1. A cycle between $r$ and 1 with equal times in epochs has $n^*/\langle n\rangle = 2(1+r^2)/(1+r)^2$. Show it, and
#    that no cycle of the same ends, square or not, has a larger $n^*$ for the same mean.
# 2. Equal times on the *clock* rather than in epochs: what is $n^*$ then? Change the profile so, and repeat
#    the comparison with the mean. What remains of C9a?
# 3. Begin low and end high. Predict from the proposition what happens to the ratios at equal clock, and to those after
#    the quench, before you run it with `--scale smoke`.
# 4. Replace $n^*$ by $\langle n \rangle$ in the matched constant. Which verdict notices?
# 5. Set `label_noise` to zero. By how much do the ratios to the mean move toward 1, and why should they?
