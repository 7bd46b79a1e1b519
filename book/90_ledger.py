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
# # The ledger
#
# Every verdict that this book reaches, gathered from the executed chapters and from nowhere else. No word
# in the tables below was typed: a chapter computes a verdict, its notebook keeps it, and this page reads the
# notebooks.
#
# A claim is judged once under each protocol (equal epochs, equal clock, equal training loss; see
# {doc}`notation`) and for each arm of the experiment (such as networks with and without batch normalization).
#
# SUPPORTED
# : The data decide for the claim, at the level and by the rule that were fixed beforehand.
#
# REFUTED
# : The data decide against it.
#
# UNDECIDED
# : They do neither. An effect that was not found is not thereby shown to be absent.
#
# VOID
# : A condition that the test stands on failed (too few seeds, diverged runs, an eigenvalue that did not
#   converge), so the test says nothing.

# %% tags=["parameters", "remove-cell"]
scale = "laptop"  # smoke | laptop | paper

# %% [markdown]
# ## At a glance

# %% tags=["hide-input"]
from threefactors.presentation.prose import glue_display
from threefactors.publishing.ledger import Table, collect, glance

entries = collect(".")
summary = glance(entries)
glue_display("ledger-glance", summary)
glue_display("ledger-sentence", summary.sentence)
summary

# %% [markdown]
# Each badge leads to the chapter that reached the verdict; the reason appears when the pointer rests on it.
#
# ## All verdicts
#
# Estimates are in the unit of each claim's statistic, with the interval that the rule was applied to. *Seeds*
# counts independent repetitions.

# %% tags=["hide-input"]
Table(entries)

# %% [markdown]
# ## At the paper's own size
#
# What was recorded at scale `paper`, mostly on larger machines, each record with its date and its machine. These verdicts are
# not counted above. A record whose runs are defined otherwise today is called stale.

# %% tags=["hide-input"]
from threefactors.publishing.recorded import shelf

shelf()

# %% [markdown]
# The list of all verdicts, with the commit, the versions, the device and the time behind each verdict, is in
# `claims.json` beside the site's front page; `threefactors claims` prints it in the terminal, and with `--recorded` the
# recorded ones.
