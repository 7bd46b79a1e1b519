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
# # Three factors together
#
# **Question.** Put all runs of this book into one regression. Which of the three factors does the evidence carry, and
# how much of it is the clock?
#
# Each chapter before this one turned one thing and held another equal. No single protocol can separate what the paper
# {cite}`jastrzebski2018` joins: learning rate $\eta$, batch size $S$, gradient noise, training time and training
# loss. Taken together, the protocols can.
#
# ## The law
#
# Let $w$ be a measure of the curvature at the end of a run (large: narrow), $T = \sum\eta$ its clock and $L$ its
# training loss. Suppose that each enters as a power,
#
# ```{math}
# :label: eq-together
# \ln w = c_g + a \ln\eta + b \ln S + t \ln T + \ell \ln L ,
# ```
#
# with a constant $c_g$ for every *group* $g$, which is a network with its data in one chapter: networks are compared
# with their like. The claim of the paper is $a = -b < 0$ with everything else immaterial. The objection of the clock is
# $a = b = 0$ and $t$ and $\ell$ do the work.
#
# Why one protocol is not enough: at equal epochs $\ln T$ is $\ln\eta - \ln S$ up to a constant, and
# {eq}`eq-together` only determines $a + t$ and $b - t$. At equal clock $T$ does not vary, at equal loss $L$ does not. The
# regression needs runs from all three, and then it is a plain least-squares fit.
#
# A slope in {eq}`eq-together` answers: *if only this were changed*. With $T$ and $L$ in the fit, $a$ is what is left of
# $\eta$ when its effect through time and loss is taken off. That can be too much: if noise flattens by way of the loss, the fit
# gives the loss the credit. So $a$ and $b$ are the direct effect, and not all that noise does.
#
# ## What about the third factor?
#
# $\operatorname{Tr} C$ can be measured at the end of every run, but it is no fair regressor: at a minimum of
# cross-entropy $C$ is close to a multiple of $H$ (see the chapter on Assumption 2), and a narrow minimum *makes* a large
# $\operatorname{Tr} C$. A regression of width on it would find a strong positive slope and prove nothing. The fair
# regressor is the noise that was *set*: the dial of the chapter on the third factor, where $C$ was changed from outside at fixed $\eta$
# and $S$. Both are shown; only the second is judged.
#
# ## Predictions
#
# The rules are in `threefactors.inference.claims.three_factors`, written before the runs of the book were put together.
#
# - **F1a**, **F1b**: at equal clock and loss $a < 0$ and $b > 0$, for $\lambda_{\max}$, $\operatorname{Tr}H$ and
#   $\lVert H\rVert_F$.
# - **F1c**: there, only the ratio counts: $|a + b| < |a - b|/4$.
# - **F2**: with $C$ turned alone, the slope on the noise that was set is negative, now also at equal loss.
# - **F3**: clock and loss alone predict the widths of a group that was not in the fit better than $\eta$ and $S$ alone.
# - **F4**: at equal clock and loss, validation accuracy rises with $\eta/S$.
#
# The unit of uncertainty is the {term}`replicate`: the first seed of every group, the second of every group, and so on.
# Each replicate is fitted by itself, and the interval is Student's $t$ over replicates.

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper

# %% [markdown]
# ## The runs

# %%
import pandas as pd

from threefactors.inference.pooled import TASK, held_out_groups, intervals, slopes_table
from threefactors.publishing.records import gather

everything = gather(".").query("momentum == 0 and not batch_norm")
turned = everything[everything.noise_dial.notna()]  # C was changed alone
runs = everything[everything.noise_dial.isna()]
factors = ["lr", "batch_size", "clock", "train_loss"]
widths = ["sharpness", "trace", "frobenius"]

# %% tags=["remove-cell"]
import numpy as np

from threefactors.inference.claims import three_factors as claims
from threefactors.inference import judge_family
from threefactors.presentation import figures
from threefactors.presentation.prose import by_id, glue, in_words
from threefactors.presentation.together import coefficients, r2_of_models

lost = everything.diverged | ~everything.finished.astype(bool)
logs = np.log(runs[~lost.reindex(runs.index)][factors].astype(float))
alike = logs.groupby(runs.chapter + runs.arm).transform(lambda x: x - x.mean()).corr()
glue(**{"together-runs": len(everything), "together-lost": lost.sum()})
glue(**{"together-chapters": everything.chapter.nunique(), "together-correlation": alike.loc["lr", "clock"]})
glue(**{"together-correlation-loss": alike.loc["clock", "train_loss"]})

# %% [markdown]
# The chapters keep {glue:text}`together-runs:.0f` runs at constant $\eta$ and $S$, without momentum and without batch
# normalization (under which $C$ has no meaning for single examples), from {glue:text}`together-chapters:.0f` chapters;
# {glue:text}`together-lost:.0f` of them diverged or did not finish and cannot enter. Within groups, the correlation of
# $\ln\eta$ with $\ln T$ is {glue:text}`together-correlation:.2f` and that of $\ln T$ with $\ln L$
# {glue:text}`together-correlation-loss:.2f`: well below 1, so that the fit can tell them apart.
#
# ## What carries the width?

# %%
slopes = slopes_table(runs, widths, factors)
noise = slopes_table(turned, widths, ["noise_dial", "train_loss"])
measured = slopes_table(runs, widths, [*factors, "noise_trace"])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-together-slopes", "caption": "Slopes of the logarithm of three measures of width, in one regression over the runs of all chapters, mean over replicates with 95 % interval. Negative: wider minima. The last row comes from the runs in which C alone was changed. What to see: which intervals stay clear of zero when clock and loss are held fixed, and how large the slopes on η and S are beside those on T and L."}, "image": {"alt": "Dot plot of regression slopes of three width measures on learning rate, batch size, clock, loss and injected noise, with intervals and a line at zero.", "classes": "dark-light"}}
NAMES = {"lr": "$\\eta$", "batch_size": "$S$", "clock": "clock $T$", "train_loss": "loss $L$", "noise_dial": "noise set"}
rows = [
    {"width": w, "factor": NAMES[f], **intervals(table[[f"{w}_on_{f}"]]).iloc[0]}
    for w in widths for table, names in ((slopes, factors), (noise, ["noise_dial"])) for f in names
]
figures.alone(coefficients(pd.DataFrame(rows)))

# %% [markdown]
# What a model is worth shows on runs that it has not seen, {term}`held-out` ones. Each group is left out in turn, the
# slopes are fitted on all others, and the left-out group's widths are predicted from them, up to its constant
# ({numref}`fig-together-r2`).

# %%
models = {
    "η/S": ["ratio"],
    "η and S": ["lr", "batch_size"],
    "clock": ["clock"],
    "loss": ["train_loss"],
    "clock and loss": ["clock", "train_loss"],
    "η, S, clock and loss": factors,
}
held_out = {width: held_out_groups(runs, width, models) for width in widths}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-together-r2", "caption": "Share of the variance of ln width within a group that slopes fitted on the other groups explain, mean over replicates with 95 % interval. What to see: how far clock and loss alone come, and what learning rate and batch size add to them."}, "image": {"alt": "Dot plot with a row for each of six regression models and a dot with its interval for each of three measures of width: the share of variance explained in groups left out of the fit, with a line at zero.", "classes": "dark-light"}}
scores = {w: table.pivot(index="replicate", columns="model", values="r2") for w, table in held_out.items()}
table = pd.concat(intervals(s[list(models)]).assign(width=w) for w, s in scores.items())
figures.alone(r2_of_models(table))

# %% tags=["remove-cell"]
gaps = pd.DataFrame({f"{w}_gap": s["clock and loss"] - s["η and S"] for w, s in scores.items()})
gaps = gaps.rename_axis("seed").reset_index()
added = pd.DataFrame({w: s["η, S, clock and loss"] - s["clock and loss"] for w, s in scores.items()})
better = slopes_table(runs, ["validation_accuracy"], factors, log=False)
for name in ("lr", "batch_size", "clock", "train_loss"):
    glue(**{f"together-{name}".replace("_", "-"): slopes[f"sharpness_on_{name}"].mean()})
for name, model in {"ratio": "η and S", "clock": "clock and loss", "all": "η, S, clock and loss"}.items():
    glue(**{f"together-r2-{name}": scores["sharpness"][model].mean()})
row = intervals(added).loc["sharpness"]
glue(**{"together-added": row.value, "together-added_low": row.low, "together-added_high": row.high})
row = intervals(measured[["sharpness_on_noise_trace"]]).iloc[0]
glue(**{"together-trc": row.value, "together-trc_low": row.low, "together-trc_high": row.high})

# %% [markdown]
# For $\lambda_{\max}$, clock and loss alone predict {glue:text}`together-r2-clock:.2f` of the variance in a group that was left
# out, $\eta$ and $S$ alone {glue:text}`together-r2-ratio:.2f`, all four {glue:text}`together-r2-all:.2f`. What $\eta$ and $S$ add
# to clock and loss is {glue:text}`together-added:.3f` ({glue:text}`together-added_low:.3f` to
# {glue:text}`together-added_high:.3f`).
#
# The measured $\operatorname{Tr}C$, entered beside them, gets the slope {glue:text}`together-trc:.2f`
# ({glue:text}`together-trc_low:.2f` to {glue:text}`together-trc_high:.2f`) for $\lambda_{\max}$. A positive sign would mean *more noise, narrower
# minimum*, the opposite of what turning the noise does: that is the reversed causation against which the section on
# the third factor warns.
#
# ## Verdicts

# %%
judged = [(claims.F1a, slopes), (claims.F1b, slopes), (claims.F1c, slopes)]
judged += [(claims.F2, noise), (claims.F3, gaps), (claims.F4, better)]
family, tables = zip(*((claim.at("all protocols"), table) for claim, table in judged))
verdicts = judge_family(family, tables)
verdicts

# %% tags=["remove-cell"]
for claim, own in by_id(verdicts).items():
    glue(**{f"together-{claim}": in_words(own)})

# %% [markdown]
# - **F1a**, a larger $\eta$ widens at equal $S$, clock and loss: {glue:text}`together-F1a`.
# - **F1b**, a larger $S$ narrows at equal $\eta$, clock and loss: {glue:text}`together-F1b`.
# - **F1c**, only through $\eta/S$: {glue:text}`together-F1c`.
# - **F2**, more noise of any kind widens at equal loss: {glue:text}`together-F2`.
# - **F3**, clock and loss say more than $\eta$ and $S$: {glue:text}`together-F3`.
# - **F4**, generalization at equal clock and loss: {glue:text}`together-F4`.
#
# ## What would change our mind
#
# - *That powers are enough.* Slopes that change sign when the runs are cut at the median clock, or a quadratic term that
#   takes over the linear ones.
# - *That the groups speak with one voice.* A group whose own slopes lie outside the spread of the others, as a
#   negative share of variance in {numref}`fig-together-r2` would show.
# - *That holding the loss fixed is right.* If noise widens *by* raising the loss, the direct effect understates it.
#   The total effect is what the chapters on single protocols show.
#
# ## Exercises
#
# 1. Drop the runs of one protocol. Which slopes stay identified? Show it from {eq}`eq-together`.
# 2. Add a chapter of your own: `keep` its runs, and see whether its group is predicted.
# 3. Replace the loss by the training loss of the *noise-free* control at the same clock. Which slope grows, and why?
# 4. Judge F2 with the measured $\operatorname{Tr}C$ in place of the dial. What does the verdict become, and what does that
#    teach about regressions on consequences?
