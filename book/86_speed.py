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
# # How fast
#
# An honest judgment needs many seeds on full grids, under three protocols: thousands of networks. This page says what
# that costs here, beside what it would cost otherwise. Nothing on it is measured while the book is built: the numbers are
# those that `make bench` and, on a GPU, `make bench-gpu` left on record under `book/records/benchmarks`, with the machine
# and the date. Within a table all variants were timed in turns, in one run, so that a slow minute fell on each of them;
# only ratios within a table mean something.
#
# **What makes it fast.** A network of a few thousand weights keeps no machine busy: its step is over before the
# next one has been asked for. So $R$ networks take their steps together, as rows of one matrix
# $\theta\in\mathbb R^{R\times P}$. On a CPU a kernel in C takes one network through a whole epoch while its weights stay in
# the cache, one network per core at a time. On a GPU each layer of all networks is one batched product, and many steps are
# captured into one launch, so that nothing waits for Python. Neither changes a result: a network comes out as it would alone.
#
# **What bounds it.** Two lower bounds stand in the tables. The *floor* is the batched matrix products of a step by
# themselves, in PyTorch, without anything around them; a kernel that does not need batched products can be
# faster. The *ceiling* is the time that the same number of operations takes in a single large product, which no
# step can undercut. *Peak* is by how much memory grew at most while a contender was set up and ran for the first time.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %% tags=["remove-cell"]
from threefactors.presentation import figures, speed
from threefactors.presentation.prose import glue
from threefactors.publishing.measured import Targets, require

cpu = require(".", ["training", "scaling", "convolution", "curvature", "summary"])
gpu = require(".", [], device="cuda")
steps, many = cpu["training"].rows, cpu["scaling"].rows
shapes = list(dict.fromkeys(steps["shape"]))
said = "On a GPU nothing has been measured yet; “make bench-gpu” does it, in minutes, and this page then shows it."
if gpu:
    said = f"On a GPU ({next(iter(gpu.values())).origin}) the same comparison gave the tables further below."
glue(**{"speed-gpu": said, "speed-machine": cpu["training"].origin})
few = steps[steps["shape"] == shapes[0]].set_index("variant")["ratio_to_sliced_loop"]
glue(**{"speed-best": few[few.index.str.contains("library")].max(), "speed-bound": few[few.index.str.contains("ceiling")].max()})

# %% [markdown]
# ## Training
#
# The baseline is what one would write without this library: one network after another, an `nn.Sequential` and
# `optim.SGD`, batches sliced from tensors in memory (a `DataLoader` is slower). The smaller the batch, the more there is to
# gain: at the smallest one a stack takes {glue:text}`speed-best:.0f` times as many steps a second as the loop, where the
# ceiling would allow {glue:text}`speed-bound:.0f`.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-speed-contenders", "caption": "Time for a step of one network, multilayer perceptron 64-64-64-64-10 on the digits in batches of 8, the fastest row of each kind of contender, on a CPU. Hollow: bounds of the arithmetic. What to see: the distance between a loop over networks and the arithmetic, and how much of it each way of stacking covers."}, "image": {"alt": "Times for a step of one network on a logarithmic axis: loops over networks at the slow end, the library close to the bounds of the arithmetic.", "classes": "dark-light"}}
figures.alone(speed.contenders(steps[steps["shape"] == shapes[0]]))

# %% tags=["hide-input"]
cpu["training"]

# %% [markdown]
# ## How time grows from one network to hundreds

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-speed-scaling", "caption": "Time for a step of one network against the number of networks trained at once, on a CPU, for both shapes. Dashed: a loop over one network after another; dotted: the batched products of the largest stack by themselves. What to see: a network becomes cheaper in company, until the cores are full."}, "image": {"alt": "Time for a step of one network falling with the number of networks at once, toward the time of the products alone.", "classes": "dark-light"}}
by_shape = {shape.split(",")[0]: own for shape, own in many.groupby("shape", sort=False)}
figures.side_by_side(speed.scaling, by_shape, width=3.6)

# %% tags=["hide-input"]
cpu["scaling"]

# %% [markdown]
# ## Convolutional networks
#
# A stack of convolutions can be computed in four ways: as one convolution in groups, as batched products of unfolded
# images, by `vmap`, or network after network. Which is the fastest depends on the shape: on a CPU a rule chooses, measured
# beforehand; on a GPU it is measured when a shape is first met. The tables ask whether the choice was right.

# %% tags=["hide-input"]
cpu["convolution"]

# %% [markdown]
# ## Curvature
#
# A product with the Hessian of the training loss, the unit of which eigenvalues, traces and spectra are made; and the
# five largest eigenvalues, the trace and the Frobenius norm together, as a sweep measures them.

# %% tags=["hide-input"]
cpu["curvature"]

# %% tags=["hide-input"]
cpu["summary"]

# %% [markdown]
# ## On a GPU
#
# {glue:text}`speed-gpu:s`

# %% tags=["hide-input"]
from IPython.display import display

for measured in gpu.values():
    display(measured)

# %% [markdown]
# (speed-precision)=
# ## What fewer digits would change
#
# Matrix products in `bfloat16` (8 bits of mantissa in place of 24) or `tf32` (11 bits) are several times as fast on the
# GPUs that know them. `SGD(precision="bfloat16")` takes the products of a step in it; weights, their updates, the
# statistics of batch normalization and the losses stay in float32, and so does every measurement. The library's
# default is float32 everywhere. May one change it and keep the conclusions?
#
# **Prediction before data.** Rounding is noise as well, of relative size $2^{-9}$ a product: far below that of a batch
# of a few examples. If this is all there is to it, widths and the exponent with which they follow $\eta/S$ stay as they are
# (N1, N2: within 10 % and within a tenth, the reasons for these margins stand beside the rules). It could fail early in
# training, where curvature is large and a network is thrown about.
#
# The same networks from the same seeds, with the same batches, in either precision, at equal clock and at equal loss:

# %%
from types import SimpleNamespace

from threefactors import MLP, Clock, Epochs, Loss, Moments, Sharpness, Sweep, Task, TrainLoss, run

SIZES = {
    "smoke": dict(
        data="digits", hidden=(16,), lr=[0.1, 0.2], batch_size=[8, 16], seeds=5,
        clock=4.0, loss=0.6, at_most=40,
    ),
    "laptop": dict(
        data="digits", hidden=(64, 64, 64), lr=[0.04, 0.08, 0.16], batch_size=[8, 16, 32], seeds=8,
        clock=30.0, loss=0.02, at_most=400,
    ),
    "paper": dict(
        data="fashion-mnist", hidden=(256, 256, 256), lr=[0.025, 0.05, 0.1], batch_size=[50, 125, 250],
        seeds=8, clock=60.0, loss=0.05, at_most=400,
    ),
}
size = SimpleNamespace(**SIZES[scale])
task = Task(size.data, MLP(size.hidden))
digits = dict(precision=["float32", "bfloat16"])
grid = dict(lr=size.lr, batch_size=size.batch_size, seed=range(size.seeds), **digits)
protocols = {
    "equal clock": Clock(size.clock),
    "equal loss": TrainLoss(size.loss, at_most=Epochs(size.at_most), every=size.clock / 60),
}
tables = {
    name: run(Sweep.grid(task, until=until, **grid), [Loss(), Sharpness(), Moments()]).table()
    for name, until in protocols.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-speed-precision", "caption": "Largest eigenvalue of the Hessian, measured in float32, against the noise scale, for networks trained in float32 and in bfloat16, at equal clock: mean over seeds with 95 % interval; color: batch size. What to see: whether the two panels show the same points."}, "image": {"alt": "Two panels, float32 and bfloat16, of the largest eigenvalue falling with the learning rate over the batch size.", "classes": "dark-light"}}
from threefactors.inference import judge_family, summarize

clocked = tables["equal clock"]
sides = {kind: summarize(clocked[clocked.precision == kind], "sharpness") for kind in digits["precision"]}
figures.side_by_side(figures.against_ratio, sides, measure="sharpness", width=3.6)

# %%
from threefactors.inference.claims import N1, N2

verdicts = judge_family(
    [claim.at(protocol, "bfloat16") for claim in (N1, N2) for protocol in tables], [*tables.values()] * 2
)
verdicts

# %% tags=["remove-cell"]
from threefactors.presentation.prose import by_id, in_words

for claim, own in by_id(verdicts).items():
    glue(**{f"speed-{claim}": in_words(own)})
for claim in (N1, N2):
    found = [claim.statistic(clocked, measure).interval(0.9) for measure in claim.measures]
    glue(**{f"speed-half-{claim.id}": max((i.high - i.low) / 2 for i in found)})

# %% [markdown]
# - **N1**, minima as wide: {glue:text}`speed-N1`.
# - **N2**, the same exponent: {glue:text}`speed-N2`.
#
# Rounding sends a network to another minimum than the one that the same seed comes to in float32, and minima of one cell
# differ. So much so that at equal clock the half width of the 90 % interval is {glue:text}`speed-half-N1:.2f` for N1 and
# {glue:text}`speed-half-N2:.2f` for N2, against the margin of a tenth: where a verdict is UNDECIDED, more seeds are
# needed, and the interval says how much of a change is not excluded yet.
#
# `tf32` needs a GPU: `threefactors record 20 -p precision=tf32 --data DIR --device cuda` repeats the whole chapter on
# [the width of minima](20_width) in it, and puts its verdicts beside the others.
#
# ## What was wanted
#
# Before the library was written, trials had shown what should be within reach in training and in products with the
# Hessian. These goals are kept as they were then, the ones that were missed included; the others were set along the way,
# that for the summary of curvature after a first measurement. Some are now out of anybody's reach, since they count
# times of a loop that PyTorch has made faster: where the ceiling itself does not reach a goal, the notes below its table
# say so. Of a benchmark with many goals, only those that were missed are listed.

# %% tags=["hide-input"]
Targets([*cpu.values(), *gpu.values()])
