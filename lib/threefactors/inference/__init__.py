"""Inference: estimates over seeds, rules that decide, and the paper's claims judged by them."""

from threefactors.inference import claims
from threefactors.inference.claim import PROTOCOLS, SIMULATION, Claim, required_effect
from threefactors.inference.claims import CLAIMS
from threefactors.inference.comparison import MODELS, collinearity, held_out_comparison
from threefactors.inference.decisions import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    VOID,
    Decision,
    Equivalent,
    Greater,
    Less,
    SlopeIs,
    holm,
)
from threefactors.inference.estimates import Interval, SeedMean, SeedRatio, seed_bootstrap
from threefactors.inference.judging import judge, judge_family
from threefactors.inference.slopes import Slopes, loglog_slopes, slope_on_ratio
from threefactors.inference.summaries import exponents, level_line, spectral_summary, summarize
from threefactors.inference.verdicts import VERDICT_MIME, Verdict, Verdicts

__all__ = [
    "CLAIMS",
    "MODELS",
    "PROTOCOLS",
    "REFUTED",
    "SIMULATION",
    "SUPPORTED",
    "UNDECIDED",
    "VERDICT_MIME",
    "VOID",
    "Claim",
    "Decision",
    "Equivalent",
    "Greater",
    "Interval",
    "Less",
    "SeedMean",
    "SeedRatio",
    "SlopeIs",
    "Slopes",
    "Verdict",
    "Verdicts",
    "claims",
    "collinearity",
    "exponents",
    "held_out_comparison",
    "holm",
    "judge",
    "judge_family",
    "level_line",
    "loglog_slopes",
    "required_effect",
    "seed_bootstrap",
    "slope_on_ratio",
    "spectral_summary",
    "summarize",
]
