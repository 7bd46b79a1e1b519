"""What a step of SGD draws: which examples, with which weights and with which labels.

Every way of changing the noise of the gradient without its mean is a way of drawing: the engines only descend
(1/B) Σ w_i ℓ(x_i, y_i) over the B rows they are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from threefactors._rng import generator
from threefactors.training.augmentation import Augmenter
from threefactors.training.losses import StackLosses
from threefactors.training.models import groups
from threefactors.training.runs import Run
from threefactors.training.streams import Counted, Generated, Stream, permutations

COUNTED = 10_000  # a larger training set is permuted on its device, by sorting counted numbers
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

    Up to N = COUNTED all is drawn by generators on the CPU, and the engine moves it. Above, everything that grows with
    the number of examples is counted on the device of x (``streams.Counted``): orders, both batches of svag, draws
    with replacement and by importance, label flips. What stays on the CPU and is moved: pairs and importance, once a
    run, and the Gaussian weights of ``gradient_noise_like="covariance"``, whose logarithms every device rounds in its
    own way. Either way the numbers are the same on every device.
    """

    def __init__(self, run: Run, x: Tensor, labels: Tensor, classes: int, stream: str = "") -> None:
        self.sgd, self.classes = run.sgd, classes
        self.counted = len(labels) > COUNTED
        device = x.device if self.counted else torch.device("cpu")
        self.labels = labels.to(device)
        self.pairs = self.importance = None
        if run.sgd.antithetic:
            alike, source = run.sgd.label_flips > 0, generator(run.seed, "pairs")
            self.pairs = antithetic_pairs(x.cpu(), labels.cpu(), source, alike).to(device)
        if run.sgd.importance:
            z = torch.randn(len(labels), generator=generator(run.seed, "importance"), dtype=torch.float64)
            self.importance = torch.softmax(run.sgd.importance * z, 0).to(device)

        def source_of(name: str) -> Stream:
            return Counted(run.seed, stream + name, device) if self.counted else Generated(run.seed, stream + name)

        self._first, self._second = source_of("order"), source_of("second batch")
        self._flips = source_of("label flips")
        self._gaussian = generator(run.seed, stream + "gradient weights")

    def steps(self, size: int) -> int:
        """Steps of an epoch with batches of the given size."""
        return len(self.labels) // size * self.sgd.svag

    def epoch(self, size: int, steps: int | None = None) -> Draws:
        """The batches of one epoch, or the first so many of them."""
        (draws,) = epochs([self], size, steps)
        return draws

    def independent(self, count: int, size: int) -> Draws:
        """Batches that are independent of each other, as the first ones of different epochs are."""
        drawn = [self.epoch(size, 1) for _ in range(count)]
        parts = ([getattr(one, name) for one in drawn] for name in ("order", "weights", "labels"))
        return Draws(*(torch.cat(part) if part[0] is not None else None for part in parts))  # type: ignore[arg-type]

    def state(self) -> dict[str, Tensor | int]:
        """How far each stream has been drawn: a generator's own state, or the number of draws that were counted."""
        streams = {"order": self._first, "second batch": self._second, "label flips": self._flips}
        return {name: s.state() for name, s in streams.items()} | {"gradient weights": self._gaussian.get_state()}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Goes on drawing where a sampler of the same run stood when it gave its ``state``."""
        for name, stream in (("order", self._first), ("second batch", self._second), ("label flips", self._flips)):
            stream.restore(state[name])
        self._gaussian.set_state(state["gradient weights"])  # type: ignore[arg-type]

    def _units(self, size: int) -> tuple[int, int]:
        """How many things an order is made of, and how many of them make a batch: examples, or pairs."""
        return (len(self.labels), size) if self.pairs is None else (len(self.pairs), size // 2)

    def _made_of(self, orders: list[Tensor], size: int, steps: int) -> Draws:
        """The batches whose examples are those of ``orders``, one or two of (steps, S)."""
        sgd, order, weights = self.sgd, torch.cat(orders, 1) if len(orders) > 1 else orders[0], None
        if sgd.svag > 1 or sgd.covariance_noise:
            weights = self._amplified(size, steps) if sgd.svag > 1 else self._with_noise(size, steps)
            weights = weights.to(order.device)
        if self.importance is not None:
            correction = 1 / (len(self.importance) * self.importance[order])
            weights = correction if weights is None else weights * correction
        if sgd.label_draws > 1:
            order = order.repeat_interleave(sgd.label_draws, 1)
            weights = None if weights is None else weights.repeat_interleave(sgd.label_draws, 1)
        return Draws(order, weights, self._flipped(order) if sgd.label_flips else None)

    def _amplified(self, size: int, steps: int) -> Tensor:
        """(1 + q)/2 g₁ + (1 − q)/2 g₂ over the joint batch of 2S: its variance is (1 + q²)/2 = l times that of g₁."""
        q = math.sqrt(2 * self.sgd.svag - 1)
        signs = torch.ones(2 * size, dtype=torch.float64, device=self.labels.device)
        signs[size:].neg_()
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
        u = self._flips.uniform(order.shape)
        if self.pairs is not None:
            first, second = u.view(len(u), -1, 2, self.sgd.label_draws).unbind(2)
            second.copy_(1 - first)
        flipped = u < self.sgd.label_flips
        drawn = self._flips.integers(self.classes, order.shape)
        return torch.where(flipped, drawn, self.labels[order])


def epochs(samplers: Sequence[Sampler], size: int, steps: int | None = None) -> list[Draws]:
    """One epoch of each run of a stack (or its first steps), as each alone: counted orders come from one sort for all.

    Nothing is looked at on the way, so that a device is not waited for.
    """
    first = samplers[0]
    steps = first.steps(size) if steps is None else steps
    streams = [[sampler._first for sampler in samplers]]
    if first.sgd.svag > 1 or first.sgd.covariance_noise:
        streams.append([sampler._second for sampler in samplers])
    orders = [_orders(samplers, each, size, steps) for each in streams]
    return [sampler._made_of(list(own), size, steps) for sampler, *own in zip(samplers, *orders, strict=True)]


def _orders(samplers: Sequence[Sampler], streams: Sequence[Stream], size: int, steps: int) -> list[Tensor]:
    """Examples (steps, S) of each run, from one stream of batches each."""
    units, each = samplers[0]._units(size)
    chances = [sampler.importance for sampler in samplers if sampler.importance is not None]
    if chances:
        return [s.choices(p, steps * size).view(steps, -1) for s, p in zip(streams, chances, strict=True)]
    if samplers[0].sgd.sampling == "replacement":
        drawn = [stream.integers(units, (steps, each)) for stream in streams]
    else:
        once = units // each
        passes = permutations(streams, units, -(-steps // once))
        drawn = [one[:, : once * each].reshape(-1, each)[:steps] for one in passes]
    pairs = [sampler.pairs for sampler in samplers]
    return [one if pair is None else pair[one].flatten(1) for one, pair in zip(drawn, pairs, strict=True)]


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


def batch_gradients(
    losses: StackLosses, theta: Tensor, x: Tensor, labels: Tensor, draws: Draws, augmenter: Augmenter | None = None
) -> Tensor:
    """Gradients (steps, P) of one network's batch losses (1/B) Σ w_i ℓ_i, all at θ (P,); x (N, ...), labels (N,).

    With an ``augmenter`` of one run the images of batch t are those of its step t.
    """
    rows = draws.order.shape[1]
    units = losses.model.units(losses.inputs, losses.classes)
    most = max(1, CHUNK // (theta.element_size() * (2 * len(theta) + 4 * rows * units)))
    parts: list[Tensor] = []
    for start in range(0, len(draws.order), most):
        part = draws.cut(start, start + most)
        copies = theta.expand(len(part.order), -1).clone().requires_grad_()
        order = part.order.to(theta.device)
        batch = x[order].flatten(2)
        if augmenter is not None:
            batch = augmenter(batch, None, torch.arange(start, start + len(order), device=theta.device))
        y = labels[order] if part.labels is None else part.labels.to(theta.device)
        loss = losses.criterion(losses.outputs(copies, batch, groups(losses.model, rows)), y)
        weighted = loss if part.weights is None else part.weights.to(loss) * loss
        parts += torch.autograd.grad(weighted.mean(1).sum(), copies)
    return torch.cat(parts)
