"""What a step of SGD draws: which examples, with which weights and with which labels.

Every way of changing the noise of the gradient without its mean is a way of drawing: the engines only descend
(1/B) Σ w_i ℓ(x_i, y_i) over the B rows they are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from threefactors._rng import generator
from threefactors.training.losses import StackLosses
from threefactors.training.models import groups
from threefactors.training.runs import Run

BLOCK = 2048  # examples among which partners are sought: all distances within a block are held at once
CHUNK = 1 << 28  # bytes that the gradients of a chunk of batches may take


@dataclass(frozen=True)
class Draws:
    """Batches of the coming steps (steps, B): examples, their weights (None: all 1) and labels (None: their own)."""

    order: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None

    def cut(self, start: int, stop: int) -> Draws:
        """Only the steps start … stop."""
        parts = (self.order, self.weights, self.labels)
        return Draws(*(None if part is None else part[start:stop] for part in parts))  # type: ignore[arg-type]


class Sampler:
    """Draws one run's batches, epoch after epoch.

    x (N, ...) and labels (N,) are the run's training set. ``stream`` sets apart the draws of those who only look on;
    what is fixed for a run (importance, pairs) is the same for all.
    """

    def __init__(self, run: Run, x: Tensor, labels: Tensor, classes: int, stream: str = "") -> None:
        self.sgd, self.classes, self.labels = run.sgd, classes, labels.cpu()
        self.pairs = self.importance = None
        if run.sgd.antithetic:
            alike = run.sgd.label_flips > 0
            self.pairs = antithetic_pairs(x.cpu(), self.labels, generator(run.seed, "pairs"), alike)
        if run.sgd.importance:
            z = torch.randn(len(labels), generator=generator(run.seed, "importance"), dtype=torch.float64)
            self.importance = torch.softmax(run.sgd.importance * z, 0)
        self._first, self._second = generator(run.seed, stream + "order"), generator(run.seed, stream + "second batch")
        self._flips = generator(run.seed, stream + "label flips")
        self._gaussian = generator(run.seed, stream + "gradient weights")

    def steps(self, size: int) -> int:
        """Steps of an epoch with batches of the given size."""
        return len(self.labels) // size * self.sgd.svag

    def epoch(self, size: int, steps: int | None = None) -> Draws:
        """The batches of one epoch, or the first so many of them."""
        sgd, steps = self.sgd, self.steps(size) if steps is None else steps
        order, weights = self._order(self._first, size, steps), None
        if sgd.svag > 1 or sgd.covariance_noise:
            order = torch.cat([order, self._order(self._second, size, steps)], 1)
            weights = self._amplified(size, steps) if sgd.svag > 1 else self._with_noise(size, steps)
        if self.importance is not None:
            correction = 1 / (len(self.importance) * self.importance[order])
            weights = correction if weights is None else weights * correction
        if sgd.label_draws > 1:
            order = order.repeat_interleave(sgd.label_draws, 1)
            weights = None if weights is None else weights.repeat_interleave(sgd.label_draws, 1)
        return Draws(order, weights, self._flipped(order) if sgd.label_flips else None)

    def independent(self, count: int, size: int) -> Draws:
        """Batches that are independent of each other, as the first ones of different epochs are."""
        drawn = [self.epoch(size, 1) for _ in range(count)]
        parts = ([getattr(one, name) for one in drawn] for name in ("order", "weights", "labels"))
        return Draws(*(torch.cat(part) if part[0] is not None else None for part in parts))  # type: ignore[arg-type]

    def _order(self, source: torch.Generator, size: int, steps: int) -> Tensor:
        """Examples (steps, S) of one stream of batches."""
        if self.importance is not None:
            return torch.multinomial(self.importance, steps * size, replacement=True, generator=source).view(steps, -1)
        units, each = (len(self.labels), size) if self.pairs is None else (len(self.pairs), size // 2)
        if self.sgd.sampling == "replacement":
            drawn = torch.randint(units, (steps, each), generator=source)
        else:
            once = units // each
            passes = [torch.randperm(units, generator=source)[: once * each] for _ in range(-(-steps // once))]
            drawn = torch.cat(passes).view(-1, each)[:steps]
        return drawn if self.pairs is None else self.pairs[drawn].flatten(1)

    def _amplified(self, size: int, steps: int) -> Tensor:
        """(1 + q)/2 g₁ + (1 − q)/2 g₂ over the joint batch of 2S: its variance is (1 + q²)/2 = l times that of g₁."""
        q = math.sqrt(2 * self.sgd.svag - 1)
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(size)
        return (1 + q * signs).expand(steps, -1)

    def _with_noise(self, size: int, steps: int) -> Tensor:
        """g₁ + σ √(S/(S−1)) (1/S) Σ (z_i − z̄) g_i over a second batch, z ~ N(0, I).

        Given that batch the noise is Gaussian, of covariance σ² Ĉ/S; Ĉ = Σ (g_i − ḡ)(g_i − ḡ)ᵀ/(S−1) has the mean C.
        """
        z = torch.randn(steps, size, generator=self._gaussian, dtype=torch.float64)
        noise = self.sgd.gradient_noise * math.sqrt(size / (size - 1)) * (z - z.mean(1, keepdim=True))
        return 2 * torch.cat([torch.ones_like(noise), noise], 1)

    def _flipped(self, order: Tensor) -> Tensor:
        """Labels of the rows, each with the probability ``label_flips`` drawn uniformly from all classes.

        Partners are flipped by u and 1 − u: each as often as ever, but seldom both (never, up to a half).
        """
        u = torch.rand(order.shape, generator=self._flips, dtype=torch.float64)
        if self.pairs is not None:
            first, second = u.view(len(u), -1, 2, self.sgd.label_draws).unbind(2)
            second.copy_(1 - first)
        flipped = u < self.sgd.label_flips
        drawn = torch.randint(self.classes, order.shape, generator=self._flips)
        return torch.where(flipped, drawn, self.labels[order])


def antithetic_pairs(x: Tensor, labels: Tensor, source: torch.Generator, alike: bool = False) -> Tensor:
    """Pairs (N/2, 2) of examples whose gradients tend to cancel: each with the most similar one of another class.

    ``alike``: of its own class. There it is not the examples that cancel, but their label flips, if those exclude each
    other: h_i ≈ h_j, and what the flip of one adds to (p − e_y) hᵀ, the other one's lack of it takes away.

    The gradient of a logit layer is (p_i − e_{y_i}) h_iᵀ. Where inputs are alike, p and h are too, and half way
    between two classes, p = (½, ½), the gradients of their examples are exactly opposite; late in training most of the
    noise comes from there. The choice knows x (N, ...) and labels (N,) but not θ. In random order, within random blocks
    of BLOCK examples, each takes the nearest that is still free; one of the wrong class where no other is left. N is
    even. On digits Tr C fell by 3 % (clean labels, 32² units) to 20 % (linear, noisy labels); not at initialization.
    """
    order = torch.randperm(len(x), generator=source).numpy()
    flat, classes = x.flatten(1).double().numpy(), labels.numpy()
    pairs = []
    for block in (order[i : i + BLOCK] for i in range(0, len(order), BLOCK)):
        rows, y = flat[block], classes[block]
        squares = (rows**2).sum(1)
        distance = squares[:, None] + squares - 2 * rows @ rows.T
        wrong = (y[:, None] == y) != alike
        distance += wrong * (4 * squares.max() + 1)  # more than any distance
        np.fill_diagonal(distance, np.inf)
        free = np.ones(len(block), dtype=bool)
        for i in range(len(block)):
            if free[i]:
                j = int(distance[i].argmin())
                pairs.append((block[i], block[j]))
                free[[i, j]] = False
                distance[:, [i, j]] = np.inf
    return torch.from_numpy(np.array(pairs))


def batch_gradients(losses: StackLosses, theta: Tensor, x: Tensor, labels: Tensor, draws: Draws) -> Tensor:
    """Gradients (steps, P) of one network's batch losses (1/B) Σ w_i ℓ_i, all at θ (P,); x (N, ...), labels (N,)."""
    rows = draws.order.shape[1]
    units = losses.model.units(losses.inputs, losses.classes)
    most = max(1, CHUNK // (theta.element_size() * (2 * len(theta) + 4 * rows * units)))
    parts: list[Tensor] = []
    for start in range(0, len(draws.order), most):
        part = draws.cut(start, start + most)
        copies = theta.expand(len(part.order), -1).clone().requires_grad_()
        order = part.order.to(theta.device)
        y = labels[order] if part.labels is None else part.labels.to(theta.device)
        loss = losses.criterion(losses.outputs(copies, x[order], groups(losses.model, rows)), y)
        weighted = loss if part.weights is None else part.weights.to(loss) * loss
        parts += torch.autograd.grad(weighted.mean(1).sum(), copies)
    return torch.cat(parts)
