"""What a claim is: a statement with the measure, the statistic and the rule that judge it.

A claim is judged under a protocol, because the ratio η/S is also the speed of the clock: at equal epochs the
integrated training time T = Σ η is proportional to η/S, and noise-free gradient descent predicts much of what
noise would do. "equal epochs" is the paper's own protocol, "equal clock" gives every run the same T, "equal loss"
stops each at the same training loss. A law of the theory is judged on a "simulation", where nothing but what the
law speaks of differs. What is estimated from the runs of all three together is judged on "all protocols".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import nct

from threefactors.inference.decisions import Estimated, Greater, Less, Rule
from threefactors.inference.estimates import t_quantile

SIMULATION = "simulation"
POOLED = "all protocols"
PROTOCOLS = ("equal epochs", "equal clock", "equal loss", POOLED, SIMULATION)

PAPER = "as the paper reports (arXiv 1711.04623)"


@dataclass(frozen=True)
class Claim:
    """A statement with the test that judges it.

    ``statistic`` maps a table and the name of a measure to an estimate, ``quantity`` says in words what it
    is; ``rule`` must hold for every one of ``measures``. ``level`` is the significance level; fewer than
    ``min_seeds`` seeds, or a share of lost runs above ``max_lost``, leaves the claim VOID.
    ``axes`` are the columns that, with the seed, tell one run from another: a complete grid of them is asked for.
    With ``each``, one of the axes, the rule must hold at every one of its values by itself. ``needs`` names further
    columns that the statistic reads. Without a ``protocol`` a claim cannot be judged: bind it with ``at``.
    """

    id: str
    statement: str
    source: str
    prediction: str
    measures: tuple[str, ...]
    quantity: str
    statistic: Callable[[pd.DataFrame, str], Estimated]
    rule: Rule
    axes: tuple[str, ...] = ("lr", "batch_size")
    each: str = ""
    needs: tuple[str, ...] = ()
    protocol: str = ""
    arm: str = ""
    level: float = 0.05
    min_seeds: int = 5
    max_lost: float = 0.1

    def __post_init__(self) -> None:
        if self.protocol and self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
        if not 0 < self.level < 0.5:
            raise ValueError(f"level={self.level} is no significance level; use 0 < level < 0.5, such as 0.05")
        if self.min_seeds < 2:
            raise ValueError(f"min_seeds={self.min_seeds} gives no interval over seeds; use min_seeds >= 2")
        if self.each and self.each not in self.axes:
            raise ValueError(f"each={self.each!r} is no axis of the claim; use one of {', '.join(self.axes)}")
        if not self.measures:
            raise ValueError("measures=() leaves nothing to judge; name at least one column")

    def at(self, protocol: str, arm: str = "") -> Claim:
        """The claim under one of PROTOCOLS, and in the named arm of the experiment (free text).

        Errors: ValueError for an unknown protocol.
        """
        if not protocol:
            raise ValueError(f"protocol={protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}")
        return replace(self, protocol=protocol, arm=arm)


def required_effect(claim: Claim, n_seeds: int, sd: float, power: float = 0.8) -> float:
    """Smallest distance from the bound at which a directional claim is SUPPORTED with at least this power.

    δ with P(t₍n−1₎(δ√n/sd) > t quantile) = 1 − (1 − power)/k, noncentral t, k measures: by Bonferroni
    all k are then found with at least ``power``.

    ``sd`` is the standard deviation over seeds of the claim's statistic, in its unit; the result has the
    same unit. State it beside an UNDECIDED verdict: it says what the experiment could have seen.
    Errors: ValueError for an equivalence claim, fewer than 2 seeds, sd ≤ 0, or power outside (level, 1).
    """
    if not isinstance(claim.rule, (Greater, Less)):
        raise ValueError(f"claim {claim.id} has the rule {claim.rule}, which needs closeness; use Greater or Less")
    if n_seeds < 2 or not sd > 0 or not claim.level < power < 1:
        raise ValueError(
            f"n_seeds={n_seeds}, sd={sd}, power={power}: use n_seeds >= 2, sd > 0 and {claim.level} < power < 1"
        )
    critical = t_quantile(1 - claim.level, n_seeds)
    each = 1 - (1 - power) / len(claim.measures)

    def shortfall(noncentrality: float) -> float:
        return nct.sf(critical, n_seeds - 1, noncentrality) - each

    upper = 2 * critical
    while shortfall(upper) < 0:
        upper *= 2
    return float(brentq(shortfall, 0.0, upper) * sd / np.sqrt(n_seeds))
