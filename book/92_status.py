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
# # Status
#
# How each chapter of this book came out when it was last executed, read from the notebooks themselves.
# {doc}`90_ledger` has the verdicts one by one; here they are counted, beside what they took.

# %% tags=["parameters", "remove-cell"]
scale = "laptop"  # smoke | laptop | paper

# %% tags=["hide-input"]
from threefactors.publishing import status

state = status.collect(".", before="92_status")
state

# %% [markdown]
# The columns, from the left:
#
# chapter
# : It leads to the page. Below it stands what befell its sweeps, such as a stack of networks that was split because memory
#   did not hold it.
#
# supported, refuted, undecided, void
# : How many verdicts of each kind the chapter reached. Some chapters judge no claim.
#
# time
# : From the start of the chapter's kernel to the end of its last cell. Two chapters may have run side by side, so the sum is
#   more than the reader of a whole build waits. Runs whose results were kept from an earlier execution are not computed
#   again, and then the time is short: `threefactors book --force` with an empty store tells what the chapter takes from
#   nothing.
#
# memory
# : The most that the chapter's processes held at one time; in the last row, that of the chapter which held the most.
#
# machine
# : The processor or the GPU that computed.
#
# executed
# : The day, in universal time.
#
# commit
# : The state of the repository at that time; *with changes* where files differed from it.
#
# scale
# : The size of the experiments. One site shows one scale.
#
# ## To make a row again
#
# One command executes one chapter anew, here chapter 20, and with it the pages that sum up:
#
# ```
# threefactors book --only 20 --force
# ```
#
# Results that are in the store are taken from there. To have them computed as well, name an empty one with `--store`.
# A chapter is executed without being asked for whenever its source, the library, its parameters or a record that it shows
# have changed; the build refuses notebooks of which this is not sure.
#
# ## With what

# %% tags=["hide-input"]
status.versions(state)

# %% [markdown]
# What was installed besides, to the last package, is in `build.json` beside the site's front page.
