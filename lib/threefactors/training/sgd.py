"""The optimizer's settings: learning rate, batch, and all that shapes the noise of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from threefactors._identity import LATER
from threefactors.training.schedules import Constant, Schedule, check_schedule

SAMPLINGS = ("epoch", "replacement")
NOISES = ("identity", "covariance")
PRECISIONS = ("float32", "tf32", "bfloat16")


def check_number(
    name: str, value: object, low: float, *, strict: bool, integer: bool = False, remedy: str = ""
) -> None:
    """Refuses what is not a finite number ≥ low (``strict``: > low), or not a whole one."""
    kind = (int,) if integer else (int, float)
    bound = f"{'>' if strict else '>='} {low:g}"
    good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not good or (value <= low if strict else value < low):  # type: ignore[operator]
        noun = "a whole number" if integer else "a finite number"
        raise ValueError(f"{name}={value!r} is not {noun} {bound}{'; ' + remedy if remedy else ''}")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: v ← μ v + g_S(θ) + ε, θ ← θ − lr v.

    g_S is the mean gradient over S = ``batch_size`` examples; sampling ``epoch`` reshuffles the training set once
    an epoch and drops an incomplete last batch, ``replacement`` draws every example afresh. ε ~ N(0, σ² I) with
    σ = ``gradient_noise``. The schedules multiply lr (at every step) and batch_size (at every epoch, rounded).

    The rest changes the covariance C/S of g_S and leaves its mean as it is (``label_flips``: that of the flipped loss):

    svag: l ≥ 1, stochastic variance-amplified gradient: (1 + q)/2 g₁ + (1 − q)/2 g₂ with q = √(2l − 1) and two
        batches of S each, at the rate lr/l. Noise l C/S a step, C/S for each lr of clock; l → ∞ is the SDE, l = 1 SGD.
        An epoch is l steps for each batch of the training set, hence the same clock Σ lr for every l; each of the two
        batches comes from a stream of its own that goes l times through the training set.
    label_flips: the probability with which each example's label is drawn anew, uniformly from all classes, at every
        use: the run descends (1 − p) L(labels) + p L(uniform labels). label_draws: so many independent labels for
        each example of a batch, averaged: the noise of the flips falls by this factor, that of the examples stays.
    importance: κ ≥ 0, examples drawn with replacement with p_i ∝ e^{κ z_i} and weighted by 1/(N p_i); z_i ~ N(0, 1) is
        fixed for each run.
    antithetic: batches of pairs (``sampling.antithetic_pairs``), fixed for each run: of an example and the most similar
        one of another class; with label_flips, of its own class, and the flips of partners exclude each other.
    gradient_noise_like: ``covariance`` gives ε the covariance σ² C/S instead, from the gradients of another batch.

    precision: of the products of matrices within a step. ``tf32`` rounds their factors to 10 bits of mantissa, on a GPU
        only; ``bfloat16`` to 7 bits. θ, the update, the statistics of batch norm, logits and losses stay float32, and
        so do evaluation and curvature. That it changes no claim has to be measured, as an arm of its own.

    Source of svag: Li, Malladi & Arora, arXiv 2102.12470.
    """

    lr: float
    batch_size: int
    momentum: float = 0.0
    sampling: str = "epoch"
    lr_schedule: Schedule = Constant()
    batch_schedule: Schedule = Constant()
    gradient_noise: float = 0.0
    gradient_noise_like: str = "identity"
    svag: int = 1
    label_flips: float = 0.0
    label_draws: int = 1
    importance: float = 0.0
    antithetic: bool = False
    precision: str = field(default="float32", metadata=LATER)

    def __post_init__(self) -> None:
        check_number("lr", self.lr, 0, strict=True, remedy="use a learning rate such as 0.05")
        check_number("batch_size", self.batch_size, 1, strict=False, integer=True)
        check_number("momentum", self.momentum, 0, strict=False)
        if self.momentum >= 1:
            raise ValueError(f"momentum={self.momentum} never forgets; use 0 <= momentum < 1")
        check_number("gradient_noise", self.gradient_noise, 0, strict=False)
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling={self.sampling!r} is unknown; use one of {', '.join(SAMPLINGS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
        check_schedule(self.lr_schedule, "lr_schedule")
        check_schedule(self.batch_schedule, "batch_schedule")
        self._check_noise()

    def _check_noise(self) -> None:
        check_number("svag", self.svag, 1, strict=False, integer=True)
        check_number("label_flips", self.label_flips, 0, strict=False)
        check_number("label_draws", self.label_draws, 1, strict=False, integer=True)
        check_number("importance", self.importance, 0, strict=False)
        if self.label_flips > 1:
            raise ValueError(f"label_flips={self.label_flips} is a probability; use 0 <= label_flips <= 1")
        if not isinstance(self.antithetic, bool):
            raise ValueError(f"antithetic={self.antithetic!r} is neither True nor False")
        if self.gradient_noise_like not in NOISES:
            like = self.gradient_noise_like
            raise ValueError(f"gradient_noise_like={like!r} is unknown; use one of {', '.join(NOISES)}")
        refused = (
            (self.svag > 1 and (self.momentum > 0 or self.gradient_noise > 0),
             f"svag={self.svag} takes small steps of plain SGD; use momentum=0 and gradient_noise=0"),
            (self.label_draws > 1 and self.label_flips == 0,
             f"label_draws={self.label_draws} without label_flips draws the same label each time; use label_draws=1"),
            (self.importance > 0 and (self.sampling != "replacement" or self.antithetic),
             f"importance={self.importance} draws each example afresh; use sampling='replacement', antithetic=False"),
            (self.covariance_noise and (self.batch_size < 2 or self.antithetic),
             "gradient_noise_like='covariance' is the spread of gradients in a batch; "
             "use batch_size >= 2, antithetic=False"),
        )  # fmt: skip
        for applies, message in refused:
            if applies:
                raise ValueError(message)

    @property
    def covariance_noise(self) -> bool:
        """Whether noise with the covariance of the gradient is added."""
        return self.gradient_noise > 0 and self.gradient_noise_like == "covariance"

    @property
    def isotropic_noise(self) -> float:
        """σ of the noise N(0, σ² I) that is added."""
        return self.gradient_noise if self.gradient_noise_like == "identity" else 0.0

    @property
    def rows(self) -> int:
        """Gradients that a step takes for each example of its batch: two batches, several labels."""
        return (2 if self.svag > 1 or self.covariance_noise else 1) * self.label_draws

    @property
    def couples(self) -> str:
        """The first setting that weighs or pairs examples, which batch norm does not allow; '' if there is none."""
        chosen = {
            "svag": self.svag > 1, "label_draws": self.label_draws > 1, "importance": self.importance > 0,
            "antithetic": self.antithetic, "gradient_noise_like": self.covariance_noise,
        }  # fmt: skip
        return next((name for name, is_set in chosen.items() if is_set), "")

    def batch_at(self, epoch: int) -> int:
        """Batch size during the given epoch."""
        factor = self.batch_schedule(float(epoch))
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"batch_schedule={self.batch_schedule!r} gives {factor} at epoch {epoch}; must be > 0")
        return max(1, round(self.batch_size * factor))
