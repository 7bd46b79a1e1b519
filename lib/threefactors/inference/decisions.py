"""Rules that turn an estimate into a decision, and Holm's correction for a family of them.

A rule states a claim about a number: that it is above a bound, below one, or within a margin of a
value. The claim is SUPPORTED or REFUTED only when the opposite has been rejected by a test; failing
to reject is UNDECIDED, the honest default. "p > 0.05, hence equal" appears nowhere: equality needs an
equivalence margin, fixed before the data are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from threefactors.inference.estimates import Interval

SUPPORTED, REFUTED, UNDECIDED, VOID = "SUPPORTED", "REFUTED", "UNDECIDED", "VOID"


class Estimated(Protocol):
    """What a rule needs of an estimate: ``SeedMean`` and ``SeedRatio`` have it."""

    @property
    def value(self) -> float: ...
    @property
    def n(self) -> int: ...
    def interval(self, level: float = 0.95) -> Interval: ...
    def p_below(self, bound: float) -> float: ...
    def p_above(self, bound: float) -> float: ...
    def undefined(self, level: float) -> str: ...


@dataclass(frozen=True)
class Decision:
    """Outcome of a rule, with the p-value for and the p-value against the claim.

    ``p_supported`` tests the null that the claim is false, ``p_refuted`` the null that it is true;
    ``interval`` is the one whose place decides.
    """

    outcome: str
    interval: Interval
    p_supported: float
    p_refuted: float

    @property
    def p(self) -> float:
        """p-value of the direction in which the data point."""
        return min(self.p_supported, self.p_refuted)


class Rule(Protocol):
    """A claim about one number."""

    def decide(self, estimate: Estimated, level: float = 0.05) -> Decision: ...
    def slack(self, interval: Interval) -> float: ...
    def says(self) -> str: ...


@dataclass(frozen=True)
class Greater:
    """The number is above ``than``.

    At significance level α: SUPPORTED if the lower limit of the 1−α interval is above ``than``,
    REFUTED if its upper limit is below, else UNDECIDED. Each has p = 2 · the one-sided p-value.
    """

    than: float = 0.0

    def decide(self, estimate: Estimated, level: float = 0.05) -> Decision:
        """Decide at significance ``level`` α."""
        above, below = _twice(estimate.p_above(self.than)), _twice(estimate.p_below(self.than))
        return _decision(estimate.interval(1 - level), above, below, level)

    def slack(self, interval: Interval) -> float:
        """How far the interval stays inside the claim; negative: it reaches outside."""
        return interval.low - self.than

    def says(self) -> str:
        """The claim in words."""
        return f"above {self.than:g}"


@dataclass(frozen=True)
class Less:
    """The number is below ``than``: the mirror image of ``Greater``."""

    than: float = 0.0

    def decide(self, estimate: Estimated, level: float = 0.05) -> Decision:
        """Decide at significance ``level`` α."""
        above, below = _twice(estimate.p_above(self.than)), _twice(estimate.p_below(self.than))
        return _decision(estimate.interval(1 - level), below, above, level)

    def slack(self, interval: Interval) -> float:
        """How far the interval stays inside the claim; negative: it reaches outside."""
        return self.than - interval.high

    def says(self) -> str:
        """The claim in words."""
        return f"below {self.than:g}"


@dataclass(frozen=True)
class SlopeIs:
    """The number is within ``margin`` of ``value``: two one-sided tests.

    At significance level α: SUPPORTED if the 1−2α interval lies inside value ± margin (both
    one-sided tests reject at α), REFUTED if the 1−α interval lies outside it, else UNDECIDED.
    Source: Schuirmann (1987), doi:10.1007/BF01068419. Errors: ValueError for a margin ≤ 0.
    """

    value: float
    margin: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"margin={self.margin} allows no equivalence; use a finite margin > 0")

    def decide(self, estimate: Estimated, level: float = 0.05) -> Decision:
        """Decide at significance ``level`` α."""
        low, high = self.value - self.margin, self.value + self.margin
        inside = max(estimate.p_above(low), estimate.p_below(high))
        outside = _twice(min(estimate.p_below(low), estimate.p_above(high)))
        return _decision(estimate.interval(1 - 2 * level), inside, outside, level)

    def slack(self, interval: Interval) -> float:
        """How far the interval stays inside the margin; negative: it reaches outside."""
        return self.margin - max(abs(interval.low - self.value), abs(interval.high - self.value))

    def says(self) -> str:
        """The claim in words."""
        return f"within {self.margin:g} of {self.value:g}"


class Equivalent(SlopeIs):
    """The number is within ``margin`` of zero: ``SlopeIs`` at 0."""

    def __init__(self, margin: float) -> None:
        super().__init__(0.0, margin)

    def __repr__(self) -> str:
        return f"Equivalent(margin={self.margin})"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎): rejecting where p̃ ≤ α keeps the chance of any
    false rejection among the m hypotheses at α or less, whatever their dependence.
    Source: Holm (1979), https://www.jstor.org/stable/4615733. Errors: ValueError for p outside [0, 1].

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values={list(p_values)} are not all in [0, 1]; use 1 where there is no evidence")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def outcome(p_supported: float, p_refuted: float, level: float) -> str:
    """SUPPORTED or REFUTED where the opposite is rejected at ``level``, else UNDECIDED."""
    if min(p_supported, p_refuted) > level:
        return UNDECIDED
    return SUPPORTED if p_supported <= p_refuted else REFUTED


def _twice(p: float) -> float:
    return min(1.0, 2 * p)


def _decision(interval: Interval, p_supported: float, p_refuted: float, level: float) -> Decision:
    return Decision(outcome(p_supported, p_refuted, level), interval, p_supported, p_refuted)
