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
# # Reproduce, and go on
#
# What you get here: the book on your own machine, in the fewest commands that do it, with what they cost; a way to tell
# whether your numbers are ours; and a data set, a network and a claim of your own, judged like those of the book. The
# examples were executed with the other chapters when this page was made.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %% tags=["remove-cell"]
import os
import tempfile
from pathlib import Path

from IPython.display import Markdown

from threefactors.presentation.prose import glue, glue_display
from threefactors.publishing.costs import measure
from threefactors.publishing.repository import find
from threefactors.publishing.ways import ways

book, repository = Path.cwd(), find(Path.cwd().parent)
for name, way in ways(repository).items():
    glue_display(f"reproduce-{name}", way)
words = measure(book, before=88).words()
glue(**{f"cost-{name}": text for name, text in words.items()})
glue_display("reproduce-larger", Markdown(words["larger"]))
unknown = "*ADDRESS* stands for where this repository lies, which was not known when the page was made."
glue_display("reproduce-where", Markdown(f"The repository is <{repository.url}>." if repository else unknown))

folder = tempfile.TemporaryDirectory()  # what the examples write does not belong among the chapters
os.chdir(folder.name)
here = dict(JOBS="0", SCHEDULER="", DEVICE="cpu")  # they are small, and no other machine would see their files
os.environ.update({f"THREEFACTORS_{name}": value for name, value in here.items()})

# %% [markdown]
# ## From nothing to the book
#
# The last command of each block shows the book; the one before it installs what is needed into `.venv`, executes every
# chapter and builds these pages. It was tried on Debian. Of macOS the workflows of the repository try the library and its
# tests; the blocks for macOS and Windows themselves were not tried.
#
# ```{glue:} reproduce-where
# ```
#
# ### Linux
#
# On Debian and Ubuntu, with Python `3.10` or newer. Elsewhere the first two lines differ: git, make, a C compiler and
# Python's venv are all that is asked for. (Without a compiler everything works, more slowly.)
#
# ```{glue:} reproduce-linux
# ```
#
# ### macOS
#
# On Apple silicon; PyTorch is no longer made for older Macs. The first line brings git, make and a compiler. The Python that
# comes with them is older than `3.10`, so a newer one is taken from [Homebrew](https://brew.sh).
#
# ```{glue:} reproduce-macos
# ```
#
# ### Windows
#
# In PowerShell, as administrator. After a restart Ubuntu opens a window of its own: the block for Linux goes in there,
# and `make serve` is seen by the browser of Windows, too.
#
# ```{glue:} reproduce-windows
# ```
#
# ### Colab
#
# Each chapter can be opened there by the button on its page, where this book was published with one; the notebook
# installs what it needs. For a notebook of your own, a cell with this line is enough. The library takes the PyTorch that
# Colab has:
#
# ```{glue:} reproduce-colab
# ```
#
# (reproduce-gpu)=
# ### One GPU
#
# After the book has been made once. The paper's own networks and data sets are the scale `paper`, and one chapter of them
# is put on record, beside the laptop's results. It may be cut off at any time, and goes on where it stopped when it is
# called again.
#
# ```{glue:} reproduce-gpu
# ```
#
# ### Many machines
#
# Each with this repository installed, and the data sets under the same path; HOST is the name of the first. The scheduler
# and the workers go on running, so each of these has a terminal of its own. `--scheduler local:4` does the same with
# four processes of one machine.
#
# ```{glue:} reproduce-cluster
# ```
#
# ## What it costs
#
# Time
# : The {glue:text}`cost-chapters:s` chapters before this page took {glue:text}`cost-time:s` in sum, at scale
#   {glue:text}`cost-scale:s`, on {glue:text}`cost-machine:s`; the longest was {glue:text}`cost-longest:s`. On two cores or
#   more two run at a time, each beside the other. A chapter that found its runs in the store took less than it does from
#   nothing.
#
# Memory
# : {glue:text}`cost-memory:s` at most in one chapter; twice that where two run at a time.
#
# Disk
# : The environment is {glue:text}`cost-environment:s`, of which {glue:text}`cost-gpu-only:s` serve GPUs alone (PyTorch for
#   Linux brings them unasked); the store of results {glue:text}`cost-store:s`.
#
# Download
# : The environment, once, in packages that are compressed; their size was not measured. Nothing else: the data are
#   embedded.
#
# GPU, cluster
# : The scale `paper` is made for one GPU. A cluster divides the time of a sweep among its workers, and no other time.
#
#   ```{glue:} reproduce-larger
#   ```
#
# Colab
# : Not measured. Its free machine has two cores, so expect what two cores take here.
#
# ## After that
#
# The page to open is `_build/html/index.html`, the executed notebooks lie in `book`, and every single run in
# `.threefactors/store`: nothing that is there is computed again, in this build or in the next, so one that was cut off
# is simply called again. To look at the results, and to make a chapter with its figures once more, with every run
# trained anew, and to set the two side by side:
#
# ```{glue:} reproduce-after
# ```
#
# (reproduce-same)=
# ## Are they the same numbers?
#
# *On the same processor with the same versions: bit for bit.* A network of fully connected layers does not depend on the
# networks that it is trained with, on the number of processes, on threads, or on interruptions; the test suite compares
# bits. Convolutions, networks of your own, and GPUs promise equality up to rounding.
#
# *Elsewhere: not.* Another processor adds up 32-bit numbers in another order. One step then differs by rounding, and no
# more, to which the tests hold the C kernels, PyTorch and the code for GPUs; but after thousands of steps a unit that was
# barely switched on is off, and two networks part. So no single network comes back, but what the verdicts are made of
# does: distributions over seeds. `threefactors compare` therefore takes the seeds' own spread as its tolerance.
#
# ## A data set of your own
#
# Four arrays in an `.npz` file: examples (any shape behind the first axis) and labels, whole numbers from zero on. Its
# path is the name of the data set (the whole path, the same everywhere, where several machines compute). Here, the wines
# of scikit-learn, from three growers, told apart by thirteen measurements:

# %%
import numpy as np
from sklearn.datasets import load_wine

from threefactors import MLP, Accuracy, Clock, Loss, Moments, Sweep, Task, run

x, y = load_wine(return_X_y=True)
test = np.arange(len(x)) % 4 == 0
x = (x - x[~test].mean(0)) / x[~test].std(0)
np.savez("wine.npz", x_train=x[~test], y_train=y[~test], x_test=x[test], y_test=y[test])

# %% [markdown]
# The library itself shifts and scales by one mean and one standard deviation for all pixels (in color, for each channel),
# which is right for images and wrong for columns of different kinds; hence the third line. It also sets a sixth of the
# training examples aside for validation. From here on this is a data set like any other:

# %%
seeds, clock = {"smoke": (5, 2.0), "laptop": (8, 10.0), "paper": (16, 10.0)}[scale]
grid = dict(lr=[0.05, 0.2], batch_size=[4, 16], seed=range(seeds), until=Clock(clock))
perceptrons = Sweep.grid(Task("wine.npz", MLP(hidden=(16,))), **grid)
probes = [Loss(), Accuracy("test")]
table = run(perceptrons, probes, store="results").table()
table.groupby(["lr", "batch_size"])[["steps", "train_loss", "test_accuracy"]].mean()

# %% [markdown]
# What cannot be trained on is refused before anything is trained, with what is wrong. Here, a label is missing:

# %%
from threefactors.training import load

np.savez("broken.npz", x_train=x, y_train=y[1:], x_test=x, y_test=y)
try:
    load("broken.npz")
except ValueError as error:
    print(error)

# %% [markdown]
# The store knows a data set by its contents: if the file changes, its runs are trained anew. And the promise of equal
# bits can be tried: the same sweep into an empty store, or one network of it by itself.

# %%
again = run(perceptrons, probes, store="another").table()
alone = run(Sweep(perceptrons.runs[:1]), probes, store="a third").table()
print("once more:", again.equals(table), "· alone:", alone.equals(table.head(1)))

# %% tags=["remove-cell"]
assert again.equals(table)
assert alone.equals(table.head(1))

# %% [markdown]
# ## A network of your own
#
# A frozen dataclass that builds an ordinary torch module, for so many numbers in and out. Its fields and the code of its
# methods are part of the name of each run, so that one whose code was edited is not mistaken for the one before:

# %%
from dataclasses import dataclass

from torch import nn

from threefactors import Architecture


@dataclass(frozen=True)
class Smooth(Architecture):
    width: int = 16

    def build(self, inputs, outputs):
        into, out = nn.Linear(inputs, self.width), nn.Linear(self.width, outputs)
        return nn.Sequential(into, nn.Tanh(), out)


# %% [markdown]
# That is all. It is trained in stacks and its curvature measured, by automatic differentiation. (The perceptrons and the
# convolutional networks of this book have passes of their own, which is why they are faster.) It may not contain what
# ties the examples of a batch together or draws at random, such as batch normalization and dropout: that is found out
# and refused. A stack of them, and one by itself:

# %%
import torch

from threefactors.training import Stack, Trainer

sweep = Sweep.grid(Task("wine.npz", Smooth(width=16)), **grid)
stack, wine = sweep.stacks()[0], load("wine.npz")
stacked = Trainer(stack, wine, dtype=torch.float64).train().theta[0]
single = Trainer(Stack(stack.runs[:1]), wine, dtype=torch.float64).train().theta[0]
print(f"largest difference of a parameter: {(stacked - single).abs().max():.0e}")

# %% tags=["remove-cell"]
assert torch.allclose(stacked, single, rtol=0, atol=1e-12)

# %% [markdown]
# ## A claim of your own
#
# A claim says, before there are data, what is measured, which number of it counts, and which rule decides. Whether a
# larger ratio $\eta/S$ widens minima at equal clock is asked for rectified units in {doc}`20_width`.
#
# **Prediction.** It is the noise that widens, not the rectifier: with smooth units, on other data, the trace of the
# Hessian falls with $\eta/S$ as well.

# %%
from textwrap import fill

from threefactors.inference import Claim, Less, judge, slope_on_ratio

smooth = Claim(
    id="X1",
    statement="A higher ratio η/S gives a wider minimum, also with smooth units",
    source="this page",
    prediction="Tr H at the end of training falls with η/S",
    measures=("trace",),
    quantity="slope of log {measure} on log η/S",
    statistic=slope_on_ratio,
    rule=Less(0.0),
)
verdict = judge(smooth.at("equal clock"), run(sweep, [Moments()], store="results"))
print(fill(str(verdict), 84))

# %% tags=["remove-cell"]
from threefactors.inference import VOID

assert verdict.verdict != VOID
os.chdir(book)
folder.cleanup()

# %% [markdown]
# Other rules are `Greater(than)`, `Equivalent(margin)` and `SlopeIs(value, margin)`. A statistic is any function of a table
# with one row a run, and of the name of a column, that returns an estimate for each seed (`SeedMean`). Whether the grid
# is complete, whether runs were lost, whether the clock really was equal: that is asked for every claim alike, and
# where the answer is no the verdict is VOID.
#
# ## Into the book
#
# The verdict above was printed. *Shown*, as the last expression of a cell, it is part of the notebook, and with that of
# the [ledger](90_ledger). That is how a claim joins the book:
#
# 1. Write it down, with the reason for its margin, in a file under `lib/threefactors/inference/claims`, and add it to the
#    imports and to the list in that folder's `__init__.py`.
# 2. Judge it in a chapter: `judge(claims.X1.at("equal clock"), result)`, or `judge_family` for several at once.
# 3. Add the chapter, the claim, its protocols and arms to the table `PLACES` in `tests/test_book.py`: the test compares it
#    with the ledger, so that no claim can be fixed beforehand and not be judged.
#
# And this is how a chapter does:
#
# 1. Write `book/NN_title.py`. Its order is that of the others: question, law, prediction, sweep, figure, verdict, what
#    would change our mind, exercises. A figure needs a caption and a text in its place (`mystnb=`, in the head of its
#    cell), and the chapter one cell of parameters, literals only:
#
#    ```python
#    # %% tags=["parameters"]
#    scale = "laptop"  # smoke | laptop | paper
#    ```
#
# 2. List it in `_toc.yml` as `- file: book/NN_title`.
# 3. `threefactors book --scale smoke --only NN` until it passes, then `make book`, and `make test`.
#
# Chapters from number 80 on read the notebooks of those before them and are executed after them;
# `threefactors.publishing.records.keep(runs)` hands a chapter's runs on to them.
