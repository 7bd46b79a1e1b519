"""C5 and C6: the contrast, planted effects and nulls, rivals, and what is VOID; figures that draw it."""

import numpy as np
import pandas as pd
import pytest
from threefactors._rng import numpy_generator
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VOID, judge, judge_family, summarize
from threefactors.inference.claims.interpolation import MARGIN, C5a, C5b, C6a, C6b, contrast
from threefactors.inference.slopes import Unmeasurable
from threefactors.presentation import figures
from threefactors.presentation.landscape import contrasts, cuts, plane
from threefactors.theory import separable_flow

MEASURES = ("line_curvature", "line_rise", "random_rise")
UNEQUAL = {"batch size": ((0.16, 128), (0.16, 16)), "learning rate": ((0.02, 16), (0.16, 16))}
EQUAL = {"low": ((0.04, 16), (0.16, 64)), "high": ((0.04, 8), (0.16, 32))}
HELD = {"equal epochs": "epochs", "equal clock": "clock", "equal loss": "train_loss"}


def table(pairs, law, *, noise=0.15, seeds=12, protocol="equal loss", stream="ends"):
    """Ends whose every measure is law(lr, batch_size), with the scale of the seed and noise of their own."""
    rng, rows = numpy_generator(0, stream), []
    for pair, settings in pairs.items():
        scale = np.exp(rng.normal(0, 1, seeds))
        for end, (lr, size) in enumerate(settings, start=1):
            for seed in range(seeds):
                values = {m: scale[seed] * law(lr, size) * np.exp(noise * rng.normal()) for m in MEASURES}
                rows.append({"pair": pair, "end": end, "seed": seed, "diverged": False, "finished": True, **values})
    return pd.DataFrame(rows).assign(**{HELD[protocol]: 0.02})


def ratio(power):
    return lambda lr, size: (lr / size) ** -power


# --- the contrast ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 1.5, 8.0, 1 / 3])
def test_contrast_of_a_factor(factor):
    ends = table(UNEQUAL, lambda lr, size: factor if lr / size < 0.005 else 1.0, noise=0.0)
    assert contrast(ends, "line_rise").value == pytest.approx((factor - 1) / (factor + 1), abs=1e-12)
    assert contrast(ends, "line_rise").value == pytest.approx(np.tanh(np.log(factor) / 2), abs=1e-12)


def test_contrast_of_cuts_that_bend_downward():
    ends = pd.DataFrame({"seed": [0, 0, 1, 1, 2, 2], "end": [1, 2] * 3, "s": [3.0, 1.0, -1.0, 2.0, -1.0, -5.0]})
    assert contrast(ends, "s").per_seed.tolist() == [0.5, -1.0, 0.0]


def test_contrast_needs_both_ends():
    ends = pd.DataFrame({"seed": [0, 0, 1, 2], "end": [1, 2, 1, 2], "s": 1.0})
    with pytest.raises(Unmeasurable, match="1 seeds have both ends of a line with s; use at least 2"):
        contrast(ends, "s")
    with pytest.raises(Unmeasurable, match="0 seeds have both ends"):
        contrast(ends[ends.end == 1], "s")


def test_the_margin_is_a_factor_of_one_and_a_half():
    assert np.tanh(np.log(1.5) / 2) == pytest.approx(MARGIN)


@pytest.mark.parametrize("k", [2, 8])
def test_two_times_of_one_margin_have_the_contrast_of_their_clocks(k):
    """The chapter's prediction from the clock alone, from the closed form of the flow."""
    one, two = separable_flow(np.array([1e4, k * 1e4])).curvature
    assert (one - two) / (one + two) == pytest.approx((k - 1) / (k + 1), rel=5e-3)


# --- planted effects, nulls and rivals -------------------------------------------------------


@pytest.mark.parametrize("protocol", HELD)
@pytest.mark.parametrize("claim", [C5a, C5b], ids=lambda claim: claim.id)
def test_a_sharper_lower_ratio_is_found_and_a_flatter_one_refutes(claim, protocol):
    bound = claim.at(protocol)
    assert judge(bound, table(UNEQUAL, ratio(0.3), protocol=protocol)).verdict == SUPPORTED
    assert judge(bound, table(UNEQUAL, ratio(-0.3), protocol=protocol)).verdict == REFUTED
    assert judge(bound, table(UNEQUAL, ratio(0.0), protocol=protocol)).verdict == UNDECIDED


def test_ends_without_a_difference_support_a_direction_rarely():
    verdicts = [judge(C5b.at("equal loss"), table(UNEQUAL, ratio(0.0), stream=f"null {i}")) for i in range(40)]
    assert sum(v.verdict == SUPPORTED for v in verdicts) <= 1
    assert sum(v.verdict == REFUTED for v in verdicts) <= 6


def test_the_learning_rate_alone_does_not_pass_for_the_ratio():
    ends = table(UNEQUAL, lambda lr, size: lr**-0.5)
    assert judge(C5a.at("equal loss"), ends).verdict != SUPPORTED
    one = ends[ends.pair == "learning rate"]
    assert contrast(one, "line_rise").interval().low > 0


@pytest.mark.parametrize("claim", [C6a, C6b], ids=lambda claim: claim.id)
@pytest.mark.parametrize(
    ("law", "verdict"),
    [
        (ratio(1.0), SUPPORTED),
        (ratio(0.3), SUPPORTED),
        (lambda lr, size: lr**-1.0, REFUTED),  # only η
        (lambda lr, size: size**1.0, REFUTED),  # only S
        (lambda lr, size: (lr / size**0.5) ** -1.0, REFUTED),  # the rival ratio
        (lambda lr, size: 1.0 + (lr > 0.1), REFUTED),  # a factor of 2 at β = 4
    ],
)
def test_equal_ratios_against_the_rivals(claim, law, verdict):
    assert judge(claim.at("equal clock"), table(EQUAL, law, protocol="equal clock")).verdict == verdict


def test_the_weak_rivals_of_the_margin_are_not_excluded_and_noise_leaves_it_open():
    """What the comment at the margin says: at a power of 0.3, η/√S stays inside; and few seeds decide nothing."""
    weak = table(EQUAL, lambda lr, size: (lr / size**0.5) ** -0.3, noise=0.05)
    assert judge(C6a.at("equal loss"), weak).verdict == SUPPORTED
    assert judge(C6a.at("equal loss"), table(EQUAL, ratio(1.0), noise=1.0)).verdict == UNDECIDED


def test_swapped_ends_turn_the_verdict():
    ends = table(UNEQUAL, ratio(0.5))
    assert judge(C5a.at("equal loss"), ends.assign(end=3 - ends.end)).verdict == REFUTED


# --- preconditions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t[t.seed < 4], "There are 4 seeds; the claim needs at least 5"),
        (lambda t: t.assign(train_loss=np.where(t.end == 1, 0.02, 0.1)), "asks for runs of equal train_loss"),
        (lambda t: t[t.end == 1], "needs at least 2 of each"),
        (lambda t: t.drop(columns="line_rise"), "lacks the columns line_rise"),
        (lambda t: t.assign(diverged=t.end == 2), "were lost"),
        (lambda t: t[(t.end == 1) | (t.seed != 3)], "The grid is incomplete"),
    ],
)
def test_what_is_void(spoil, reason):
    verdict = judge(C5a.at("equal loss"), spoil(table(UNEQUAL, ratio(1.0))))
    assert verdict.verdict == VOID
    assert reason in verdict.reason


def test_pairs_may_stop_at_losses_of_their_own():
    ends = table(UNEQUAL, ratio(0.5))
    ends["train_loss"] = np.where(ends.pair == "batch size", 0.02, 0.2)
    assert judge(C5a.at("equal loss"), ends).verdict == SUPPORTED


def test_a_family_takes_one_table_a_claim():
    family = [C5a.at("equal loss"), C6b.at("equal loss")]
    verdicts = judge_family(family, [table(UNEQUAL, ratio(0.5)), table(EQUAL, ratio(0.5))])
    assert [v.verdict for v in verdicts] == [SUPPORTED, SUPPORTED]


# --- figures ---------------------------------------------------------------------------------


def test_figures_show_every_curve_and_every_point():
    alpha = np.linspace(-1, 2, 7)
    rows = [
        {"label": label, "alpha": a, "seed": seed, "train_loss": a**2 + seed / 10, "validation_accuracy": 0.9}
        for label in ("A", "no noise") for a in alpha for seed in range(3)
    ]  # fmt: skip
    curves = pd.DataFrame(rows)
    panel = {q: summarize(curves, q, by=["label", "alpha"], log=False) for q in ("train_loss", "validation_accuracy")}
    figure = cuts({"equal epochs": panel, "equal loss": panel}, note="1 of 9 runs lost")
    assert len(figure.axes) == 4
    loss, accuracy = figure.axes[0], figure.axes[2]
    assert [line.get_linestyle() for line in loss.get_lines()[:2]] == ["-", "--"]
    assert accuracy.get_lines()[0].get_ydata().max() == pytest.approx(90)
    assert "1 of 9 runs lost" in [text.get_text() for text in figure.legends[0].get_texts()]

    points = pd.DataFrame({"row": ["a", "b"] * 2, "label": ["x"] * 2 + ["no noise"] * 2, "value": [0.5, 0.1, -0.3, 0]})
    ax = contrasts(points.assign(low=points.value - 0.1, high=points.value + 0.1), margin=0.2)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    marks = sorted(
        float(x) for line in ax.get_lines() if line.get_marker() not in ("None", "") for x in line.get_xdata()
    )
    assert marks == sorted(points.value)
    figures.alone(ax)

    grid = pd.DataFrame([{"a": a, "b": b, "train_loss": 0.01 + a**2 + b**2} for a in alpha for b in alpha])
    ax = plane(grid, pd.DataFrame({"corner": list("ABC"), "a": [0.0, 1.0, 0.5], "b": [0.0, 0.0, 1.0]}))
    assert ax.get_legend_handles_labels()[1] == list("ABC")
    figures.alone(ax)
