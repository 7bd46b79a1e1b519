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
# # From scratch
#
# **Question.** What exactly is it that this book trains and measures, and may a hundred networks be trained at once
# without changing a single one of them?
#
# Every result of this book is made by a small library that trains networks in {term}`stacks <stack>`. A skeptical
# reader should not have to trust it. So here is stochastic gradient descent in fifteen lines of plain PyTorch, with no
# library at all; then the stack; then the difference between the two.
#
# ## The algorithm
#
# A network with parameters $\theta$ has the training loss $L(\theta) = \frac1N \sum_{i=1}^N \ell_i(\theta)$, the mean
# of the losses $\ell_i$ of $N$ examples. A step of stochastic gradient descent ({term}`SGD`) draws a batch
# $\mathcal{B}$ of $S$ examples and moves against the gradient of their mean loss, scaled by the learning rate $\eta$:
#
# ```{math}
# :label: eq-sgd
# \theta' = \theta - \eta\, g_S(\theta), \qquad g_S(\theta) = \frac1S \sum_{i\in\mathcal{B}} \nabla \ell_i(\theta) .
# ```
#
# Batches are cut from a random order of the training set, and a new order is drawn for every pass over it, called
# an {term}`epoch`.
#
# **Prediction.** Stacking is bookkeeping: no number passes from one network to another. A network trained in a stack
# must therefore agree with the same network trained alone by {eq}`eq-sgd`, up to the rounding of the last bits, and
# bit for bit with itself trained alone by the library.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %% [markdown]
# ## One network, fifteen lines
#
# The data are scikit-learn's handwritten digits {cite}`alpaydin1998`: 1797 images of 8 × 8 pixels, of which the library
# takes 1152 for training. The network is a multilayer perceptron with three hidden layers of 64 rectified linear units.
# Only two things are borrowed from the library, so that both sides start alike: the initial weights and the source of
# random numbers.

# %%
import torch

from threefactors import MLP, Epochs, Sweep, Task
from threefactors._rng import generator
from threefactors.training import Trainer, load

data = load("digits")
model = MLP(hidden=(64, 64, 64))
x, y = data.x_train.flatten(1).double(), data.y_train


# %%
def sgd(lr, batch_size, seed, epochs):
    theta = model.initial(64, 10, generator(seed, "init"), torch.float64)
    order = generator(seed, "order")
    for _ in range(epochs):
        shuffled = torch.randperm(len(x), generator=order)
        for batch in shuffled[: len(x) // batch_size * batch_size].view(-1, batch_size):
            h, at = x[batch], 0
            for rows, columns in [(64, 64), (64, 64), (64, 64), (64, 10)]:
                part = theta.requires_grad_()[at : at + (rows + 1) * columns]
                weight, bias = part.split([rows * columns, columns])
                h = (h.relu() if at else h) @ weight.view(rows, columns) + bias
                at += (rows + 1) * columns
            loss = torch.nn.functional.cross_entropy(h, y[batch])
            theta = theta.detach() - lr * torch.autograd.grad(loss, theta)[0]
    return theta


# %% [markdown]
# ## The stack
#
# The library keeps the parameters of $R$ networks as one matrix of $R$ rows. A `Sweep` names every combination of
# learning rate, batch size and seed; runs that can step together form a `Stack`; a `Trainer` trains it.

# %%
epochs = {"smoke": 1, "laptop": 5, "paper": 20}[scale]
settings = dict(lr=[0.02, 0.05], batch_size=32, seed=range(8))
(stack,) = Sweep.grid(Task("digits", model), until=Epochs(epochs), **settings).stacks()
together = Trainer(stack, data, dtype=torch.float64).train()
one_by_one = [sgd(r.sgd.lr, r.sgd.batch_size, r.seed, epochs) for r in stack.runs]
by_hand = torch.stack(one_by_one)
difference = (together.theta - by_hand).abs().max() / by_hand.abs().max()

# %% tags=["remove-cell"]
from threefactors.presentation.prose import glue
from threefactors.training import Stack

alone = torch.cat([Trainer(Stack((run,)), data, dtype=torch.float64).train().theta for run in stack.runs[:4]])
same = bool((alone == together.theta[:4]).all())
steps = together.steps[0]
glue(**{"scratch-difference": float(difference), "scratch-steps": steps, "scratch-networks": len(stack)})
glue(**{"scratch-same": "equal in every bit" if same else "NOT equal"})
assert difference < 1e-9
assert same

# %% [markdown]
# After {glue:text}`scratch-steps:.0f` steps of {glue:text}`scratch-networks:.0f` networks the largest difference
# between any two parameters, relative to the largest parameter, is {glue:text}`scratch-difference:.1e`. That is the
# rounding of 64-bit arithmetic, carried through so many steps. And a run in the stack and the same run alone are
# {glue:text}`scratch-same`. If either were not so, this chapter would fail, and with it the book.
#
# ## Curvature from scratch
#
# The book's main measurement is the {term}`sharpness` $\lambda_{\max}$, the largest eigenvalue of the {term}`Hessian`
# $H = \nabla^2 L$. With 13 000 parameters the Hessian is never written down. Its product with a vector $v$ is enough
# {cite}`pearlmutter1994`:
#
# ```{math}
# :label: eq-hvp
# H v = \nabla_\theta \bigl( v^\top \nabla_\theta L(\theta) \bigr) ,
# ```
#
# and multiplying again and again turns any $v$ toward the eigenvector of the largest eigenvalue (the power
# iteration). The library does better with the same products: the {term}`Lanczos iteration`, with a bound on its error.

# %%
def full_loss(theta):
    h = x
    for i, layer in enumerate(model.layers(theta[None], 64, 10)):
        h = (h.relu() if i else h) @ layer.weight[0] + layer.shift[0]
    return torch.nn.functional.cross_entropy(h, y)


theta = by_hand[0]
v = torch.randn(len(theta), generator=generator(0, "power"), dtype=torch.float64)
for _ in range(60):
    v = v / v.norm()
    _, v = torch.autograd.functional.hvp(full_loss, theta, v)
sharpness_by_hand = v.norm().item()

# %%
from threefactors.measurement import hessian, top_eigenvalues

shared = x.expand(len(stack), *x.shape)  # all networks see the same data
op = hessian(together.losses, together.theta, shared, together.labels)
draws = [generator(r.seed, "lanczos") for r in stack.runs]
top = top_eigenvalues(op, k=1, tol=1e-6, generators=draws)

# %% tags=["remove-cell"]
glue(**{"scratch-power": sharpness_by_hand, "scratch-lanczos": top.values[0, 0], "scratch-products": top.products[0]})
assert abs(sharpness_by_hand - top.values[0, 0]) < 1e-3 * sharpness_by_hand

# %% [markdown]
# Power iteration with 60 products gives $\lambda_{\max}$ = {glue:text}`scratch-power:.6f`; Lanczos gives
# {glue:text}`scratch-lanczos:.6f` with {glue:text}`scratch-products:.0f`.
#
# ## What stacking buys
#
# Small networks are slow one by one: their arithmetic takes less time than asking for it. Below, the time for one step
# of one network: by the fifteen lines above, and by the library with 1 to 64 networks at once. (Timings are of this
# build, with a thread count of {glue:text}`scratch-threads:.0f` and perhaps another chapter running beside this one, on
# the machine that made it. `make bench` measures quietly, and compares with other ways of doing the same.)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-scratch-timing", "caption": "Time for one step of one network (batch size 32) against the number of networks trained at once, median of five repetitions. What to see: how far the fifteen plain lines are above the stack, and what is gained by training many at once instead of one."}, "image": {"alt": "Microseconds per network and step against the number of networks trained at once, both logarithmic: a level line for the fifteen plain lines, high above the falling line of the stack.", "classes": "dark-light"}}
import time
from statistics import median

import pandas as pd

from threefactors.presentation import figures


def seconds(call, repetitions=1 if scale == "smoke" else 5):
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


per_epoch = 1152 // 32
plain = seconds(lambda: sgd(0.02, 32, 0, 1)) / per_epoch * 1e6
rows = []
for models in (1, 4, 16, 64):
    (several,) = Sweep.grid(Task("digits", model), lr=0.02, batch_size=32, seed=range(models), until=Epochs(8)).stacks()
    each = seconds(lambda stack=several: Trainer(stack, data).train()) / (models * 8 * per_epoch) * 1e6
    rows += [("fifteen plain lines", models, plain), ("stack", models, each)]
timing = pd.DataFrame(rows, columns=["variant", "models", "microseconds"])
figures.alone(figures.timings(timing))

# %% tags=["remove-cell"]
glue(**{"scratch-threads": torch.get_num_threads(), "scratch-plain": plain, "scratch-stack": rows[-1][2], "scratch-gain": plain / rows[-1][2]})

# %% [markdown]
# The plain loop takes {glue:text}`scratch-plain:.0f` µs for a step, a network in a stack of 64
# {glue:text}`scratch-stack:.1f` µs: {glue:text}`scratch-gain:.0f` times less. (Part of it is precision: the fifteen
# lines use 64-bit numbers, the stack 32-bit ones, which is what networks are trained with.) That is why a chapter of
# this book can afford full grids and many seeds on a laptop.
#
# ## What would change our mind
#
# If a run of the library differed from {eq}`eq-sgd` by more than rounding, or if it depended on its company, no result
# of this book would stand. The two assertions above, and a test suite that holds three independent implementations of
# every step together, are there to notice.
#
# ## Exercises
#
# 1. Add momentum to the fifteen lines ($v \leftarrow \mu v + g$, $\theta \leftarrow \theta - \eta v$) and to the sweep
#    (`momentum=0.9`). Do they still agree?
# 2. Train in 32-bit numbers on both sides. After how many steps do the two differ visibly, and why is that no
#    contradiction?
# 3. Plant an error: divide by $S-1$ instead of $S$. How many steps does it take until you notice?
