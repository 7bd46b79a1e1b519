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
# # What we conclude
#
# **Question.** What is left of the paper's fourteen claims, and of its rival's? What could the experiments not see?
#
# Nothing on this page was written after the verdicts. The table is drawn from the ledger by fixed rules
# (`threefactors.publishing.conclusions`): a claim of the paper {cite}`jastrzebski2018` has one or more claims of this
# book as its answer, and what their verdicts come to is said in one of eight sentences.

# %% tags=["parameters", "remove-cell"]
scale = "laptop"  # smoke | laptop | paper

# %% tags=["hide-input"]
from threefactors.inference.claims.paper import RIVAL_CLAIMS
from threefactors.publishing.conclusions import Conclusions
from threefactors.publishing.ledger import collect

conclusions = Conclusions(collect("."))
conclusions

# %% [markdown]
# The claim that most others lean on, that a larger ratio $\eta/S$ leads to a {term}`wider <wide minimum>` minimum, is
# {numref}`fig-landing`. The {term}`clock` alone would put all networks near the dashed line.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-landing", "caption": "Does a larger ratio of learning rate to batch size lead to wider minima? Slope of the logarithm of the largest Hessian eigenvalue on the logarithm of the ratio, with 95 % interval over seeds, for four networks under three protocols. Mark and color: the verdict on claim C3a, which asks the same of three measures of width and is corrected for their number, so that an interval clear of zero need not be enough. Dashed: the slope if nothing but the time along the gradient counted, in its simplest case; not fitted. What to see: how far to the left of zero the marks lie at equal epochs, as the paper has it, and what is left of that once the clock, or the loss, is the same for all."}, "image": {"alt": "Dot plot in three panels, one above the other, for equal epochs, equal clock and equal loss. In each panel every network has a row with a mark for its slope and a bar for its interval; the shape of the mark tells the verdict. A solid line stands at zero. A dashed line, the prediction of the clock alone, stands at minus one for equal epochs and at zero for the other two.", "classes": "dark-light"}}
from threefactors.presentation import landing

slopes = landing.slopes(conclusions.entries)
landing.width_by_protocol(slopes)

# %% tags=["remove-cell"]
from threefactors.inference.claims.paper import PAPER_CLAIMS
from threefactors.presentation.prose import glue, glue_display
from threefactors.publishing.conclusions import Brief, in_short

short = {claim: in_short(conclusions.of(claim)) for claim in PAPER_CLAIMS}
KINDS = {"holds": "Holds wherever", "clock": "Holds as the paper", "mixed": "Holds under"}
for word, begins in (KINDS | {"fails": "Fails", "open": "Could not", "untested": "Not tested"}).items():
    glue(**{f"conclude-{word}": sum(text.startswith(begins) for text in short.values())})
glue(**{"conclude-all": len(short)})
glue_display("conclude-brief", Brief(conclusions.entries))
glue(**{f"landing-{name.replace(' ', '-')}": text for name, text in landing.in_brief(slopes).items()})
pooled = {entry["id"]: entry["verdict"] for entry in conclusions.entries if entry["protocol"] == "all protocols"}
for claim, verdict in pooled.items():
    glue(**{f"conclude-{claim}": verdict})

# %% [markdown]
# Of {glue:text}`conclude-all:.0f` claims, {glue:text}`conclude-holds:.0f` hold wherever they could be tested,
# {glue:text}`conclude-clock:.0f` hold as the paper tested them and nowhere else, {glue:text}`conclude-mixed:.0f` hold
# under some conditions and fail under others, {glue:text}`conclude-fails:.0f` fail, and
# {glue:text}`conclude-open:.0f` could not be decided ({glue:text}`conclude-untested:.0f` were not tested). A claim that "holds under some
# conditions" is not a draw: the row says which. And some arms are there to fail: counterexamples, named beforehand, such
# as noise that does not follow the Hessian.
#
# ## The three factors
#
# Taken over all runs, with the clock and the loss held fixed ({doc}`80_three_factors`):
#
# - the learning rate widens: **{glue:text}`conclude-F1a`**;
# - the batch size narrows: **{glue:text}`conclude-F1b`**;
# - only through their ratio: **{glue:text}`conclude-F1c`**;
# - the noise itself widens: **{glue:text}`conclude-F2`**;
# - clock and loss say more of the width than $\eta$ and $S$ do: **{glue:text}`conclude-F3`**;
# - and generalization follows the ratio: **{glue:text}`conclude-F4`**.
#
# ## The rival
#
# Patel {cite}`patel2017` answers the paper's question without diffusion: a minimum whose curvatures, learning rate and
# batch size do not fit together expels SGD, exponentially fast and whatever the size of the gradient noise; one where
# they do fit holds it. (Of his paper only the abstract was at hand; the wording below is ours.) These are the book's
# answers to *its* claims ({doc}`30_quadratic_sums`, {doc}`31_nonconvex_sums`):

# %% tags=["hide-input"]
Conclusions(conclusions.entries, RIVAL_CLAIMS, "the rival")

# %% [markdown]
# Rows that say what noise kicks, or one limit in place of the other, would make of the same experiment are there to fail.
#
# The two stories are not exclusive. The rival's threshold is about *whether a minimum can hold SGD at all*; the paper's
# diffusion is about *where SGD goes among those that can*. At a minimum that fits every example there is no noise to
# kick, and the rival is alone; where examples disagree both are at work, and which is faster is a matter of numbers.
#
# ## What the paper could not see
#
# These are properties of its experiments, and none of them depends on how ours came out.
#
# **The ratio is also the clock.** At a fixed number of epochs $T = E N \eta/S$. Every curve against $\eta/S$ at equal
# epochs is a curve against training time, and noise-free descent shares it. To see noise one has to hold the time, or
# the loss, equal ({doc}`20_width`).
#
# **Overlap is weak evidence for a diffusion.** Two runs of equal $\eta/S$ go through the same gradient flow at the same
# speed per epoch. Their curves would overlap without any noise, and they agree to first order for noise of any shape
# ({doc}`10_equation`).
#
# **$C = H$ is not needed where it is used, and fails where it is assumed.** The height of the loss above its minimum is
# $\frac{\eta}{4S}\operatorname{Tr} C$ for any $C$ ({doc}`11_stationary`). At a minimum that interpolates, $C$ is zero
# and $H$ is not ({doc}`12_covariance`).
#
# **The third factor was never turned.** It can be: fresh labels, added noise, importance weights and pairs change $C$
# at fixed $\eta$ and $S$ ({doc}`13_third_factor`). Where the noise acts matters, and not only how much there is.
#
# **A small learning rate and a large one differ without noise.** A minimum with $\eta\lambda_{\max} > 2$ repels
# gradient descent itself. What a large $\eta$ avoids by instability should not be booked as what it leaves by
# diffusion ({doc}`21_depth`), and batches make it unstable earlier still ({doc}`30_quadratic_sums`).
#
# **Curvature depends on the coordinates.** Rescaling weights changes $\lambda_{\max}$ and leaves the network as it is. With
# batch normalization that happens by itself during training, and at different speeds for different $\eta$. So every
# result here has a scale-invariant measure beside it ({doc}`20_width`).
#
# **One run is an anecdote.** Where the paper's figures compare two runs, here are at least five seeds, intervals over
# them, and tests that can say no.
#
# ## What this book could not see
#
# By default it trains small networks on small images, on a laptop. Their loss reaches zero within seconds, and differences
# in validation accuracy are fractions of a percent. The paper's networks and data sets are set down in each chapter as
# the scale `paper`; what was recorded at that scale has tables of its own in the {doc}`90_ledger`, and comes to this:

# %% tags=["hide-input"]
from threefactors.publishing.conclusions import Larger
from threefactors.publishing.recorded import entries

Larger(conclusions.entries, recorded=entries())

# %% [markdown]
# Nothing here says that noise does not matter for large networks, for data that cannot be fitted, or for times
# much longer than ours. What it says is which experiments can tell, and what they told us.
#
# ## Exercises
#
# 1. Pick a claim that "holds under some conditions". Which single experiment would decide between its arms?
# 2. Write the sentence that you would put into the abstract of the paper in place of its claim that $\eta/S$ decides, so
#    that every verdict above agrees with it.
# 3. Which verdict would you most like to see repeated at scale `paper`? Estimate beforehand how many seeds it needs.
