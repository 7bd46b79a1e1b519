"""Networks as functions of one flat parameter vector: a stack of R networks is a matrix θ (R, P)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

EPSILON = 1e-5  # added to a batch variance, as torch.nn.BatchNorm1d does
LOSSES = ("cross-entropy", "squared")


@dataclass(frozen=True)
class Units:
    """What one layer is about to normalize: z, with statistics over the axes ``over``, of which the first counts the
    examples; γ and β, in a shape that fits; ``aside``, what else the network keeps until then, for a skip."""

    z: Tensor
    gain: Tensor
    shift: Tensor
    over: tuple[int, ...]
    aside: Tensor | None = None


# A pass that pauses at each normalization, is sent the normalized units, and returns the outputs (R, B, K).
Layerwise = Generator[Units, Tensor, Tensor]


def finish(layers: Layerwise, normalize: Callable[[Units], Tensor]) -> Tensor:
    """The outputs of a pass, each of its layers normalized in turn."""
    try:
        units = next(layers)
        while True:
            units = layers.send(normalize(units))
    except StopIteration as end:
        outputs: Tensor = end.value
        return outputs


class Network(Protocol):
    """What training and measurement ask of a network: ``MLP``, ``ConvNet``, or your own, for which ``Architecture``
    supplies all of this but a module. K outputs, D = ``inputs`` numbers in."""

    @property
    def batch_norm(self) -> int | None:
        """Size of the ghost batches, None without batch normalization."""
        ...

    @property
    def name(self) -> str:
        """Its hidden layers, in short."""
        ...

    def parameters(self, inputs: int, outputs: int) -> int: ...

    def units(self, inputs: int, outputs: int) -> int:
        """Numbers that a forward pass keeps for each example, by which memory is planned."""
        ...

    def widest(self, inputs: int, outputs: int) -> int:
        """Numbers of the widest layer, for each example."""
        ...

    def initial(self, inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor: ...

    def forward(self, theta: Tensor, x: Tensor, outputs: int, ghosts: int = 1, counted: int | None = None) -> Tensor:
        """(R, B, K) for θ (R, P) and x (R, B, D), differentiable by autograd. With batch norm, each of ``ghosts``
        equal parts of the batch has statistics of its own, taken from its first ``counted`` rows (all, if None)."""
        ...

    def layerwise(self, theta: Tensor, x: Tensor, outputs: int) -> Layerwise:
        """The same pass, pausing at each normalization; without any, it never does."""
        ...

    def filters(self, inputs: int, outputs: int) -> Tensor:
        """(P,) number of the filter, the weights that feed one unit, for each entry of θ; −1 for b, γ and β."""
        ...

    def weight_mask(self, inputs: int, outputs: int) -> Tensor: ...


@dataclass(frozen=True)
class Layer:
    """Views of one layer's parameters in θ: weight (R, in, out), shift (R, 1, out), gain (R, 1, out) or None."""

    weight: Tensor
    shift: Tensor
    gain: Tensor | None


@dataclass(frozen=True)
class MLP:
    """Multilayer perceptron with ReLU: z = h W + b, h' = max(z, 0), He initialization W ~ N(0, 2/in).

    Its passes are written out by hand, which is what makes stacks of hundreds cheap; ``ConvNet`` is the network for
    images, by automatic differentiation.

    hidden: widths of the hidden layers, any number of them (none: a linear model).
    batch_norm: None, or the size of the ghost batches that share their statistics; then
        h' = max(γ (z − μ)/√(σ² + ε) + β, 0) in each hidden layer, without b. Batches no larger than the ghost batch
        are normalized whole. Evaluation takes μ and σ² from the whole training set, so that the loss is a
        function of θ alone and no running average has to be kept.

    Sources: He et al., arXiv 1502.01852; Ioffe & Szegedy, arXiv 1502.03167; Hoffer et al., arXiv 1705.08741.
    """

    hidden: tuple[int, ...] = (64, 64, 64)
    batch_norm: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for width in self.hidden:
            if not isinstance(width, int) or width < 1:
                raise ValueError(f"hidden={self.hidden} has a width of {width!r}; use whole numbers >= 1")
        check_ghosts(self.batch_norm)

    @property
    def name(self) -> str:
        return "-".join(map(str, self.hidden))

    def widths(self, inputs: int, outputs: int) -> tuple[int, ...]:
        return (inputs, *self.hidden, outputs)

    def parameters(self, inputs: int, outputs: int) -> int:
        """P, the length of θ."""
        return sum(math.prod(shape) for _, shape in self._shapes(inputs, outputs))

    def units(self, inputs: int, outputs: int) -> int:
        return sum(self.widths(inputs, outputs))

    def widest(self, inputs: int, outputs: int) -> int:
        return max(self.widths(inputs, outputs))

    def _shapes(self, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, int]]]:
        widths = self.widths(inputs, outputs)
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            yield "weight", (fan_in, fan_out)
            if self.batch_norm is not None and layer < len(self.hidden):
                yield "gain", (1, fan_out)
            yield "shift", (1, fan_out)

    def initial(self, inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """One θ (P,): He-normal weights, b = 0, γ = 1, β = 0. Drawn in float64 so that precision does not matter."""
        parts = []
        for kind, shape in self._shapes(inputs, outputs):
            if kind == "weight":
                draw = torch.randn(shape, generator=generator, dtype=torch.float64)
                parts.append((draw * math.sqrt(2 / shape[0])).flatten())
            else:
                parts.append(torch.full((math.prod(shape),), float(kind == "gain"), dtype=torch.float64))
        return torch.cat(parts).to(dtype)

    def layers(self, theta: Tensor, inputs: int, outputs: int) -> list[Layer]:
        """Views into θ (R, P), layer after layer: W, then b, or W, γ, β."""
        views: list[dict[str, Tensor]] = []
        at = 0
        for kind, shape in self._shapes(inputs, outputs):
            if kind == "weight":
                views.append({})
            size = math.prod(shape)
            views[-1][kind] = theta[:, at : at + size].view(-1, *shape)
            at += size
        return [Layer(view["weight"], view["shift"], view.get("gain")) for view in views]

    def forward(self, theta: Tensor, x: Tensor, outputs: int, ghosts: int = 1, counted: int | None = None) -> Tensor:
        """(R, B, K) for x (R, B, D); see ``Network``."""

        def normalize(units: Units) -> Tensor:
            z = units.z
            normed = standardize(z.view(len(z), ghosts, -1, z.shape[-1]), counted).view_as(z)
            return units.gain * normed + units.shift

        return finish(self.layerwise(theta, x, outputs), normalize)

    def layerwise(self, theta: Tensor, x: Tensor, outputs: int) -> Layerwise:
        """The same pass, pausing at each normalization; see ``Network``."""
        *hidden, last = self.layers(theta, x.shape[-1], outputs)
        h = x
        for layer in hidden:
            if layer.gain is None:
                h = torch.baddbmm(layer.shift, h, layer.weight).relu()
            else:  # statistics are not rounded where products are
                h = (h @ layer.weight).to(theta.dtype)
                h = (yield Units(h, layer.gain, layer.shift, (1,))).relu()
        return torch.baddbmm(last.shift, h, last.weight)

    def filters(self, inputs: int, outputs: int) -> Tensor:
        """(P,) number of the filter for each entry of θ, the column of W that feeds one unit; −1 for b, γ and β."""
        parts, first = [], 0
        for kind, (fan_in, units) in self._shapes(inputs, outputs):
            is_weight = kind == "weight"
            parts.append(torch.arange(first, first + units).repeat(fan_in) if is_weight else torch.full((units,), -1))
            first += units if is_weight else 0
        return torch.cat(parts)

    def weight_mask(self, inputs: int, outputs: int) -> Tensor:
        """(P,) True where θ holds an entry of a weight matrix, False for b, γ and β."""
        return self.filters(inputs, outputs) >= 0


def check_ghosts(batch_norm: int | None) -> None:
    """Refuses what is no size of a ghost batch."""
    if batch_norm is not None and (not isinstance(batch_norm, int) or batch_norm < 2):
        raise ValueError(f"batch_norm={batch_norm!r} is no ghost batch size; use a whole number >= 2, or None for none")


def groups(model: Network, batch: int) -> int:
    """Number of ghost batches in a batch of the given size."""
    if model.batch_norm is None or batch <= model.batch_norm:
        return 1
    if batch % model.batch_norm:
        raise ValueError(
            f"batch_size={batch} is not a multiple of the ghost batch of {model.batch_norm}; "
            f"use a multiple of it, or a smaller batch, which is normalized whole"
        )
    return batch // model.batch_norm


def standardize(z: Tensor, counted: int | None = None) -> Tensor:
    """(z − μ)/√(σ² + ε), mean and (biased) variance over the first ``counted`` rows (second last axis), else all."""
    centered = z - z[..., :counted, :].mean(-2, keepdim=True)
    return centered * torch.rsqrt(centered[..., :counted, :].square().mean(-2, keepdim=True) + EPSILON)


def criterion(loss: str, outputs: Tensor, y: Tensor) -> Tensor:
    """Per-example losses (R, B) of outputs (R, B, K) and labels (R, B).

    ``cross-entropy``: log Σ_k e^{z_k} − z_y. ``squared``: ½‖z − onehot(y)‖².
    """
    if loss == "cross-entropy":
        return outputs.logsumexp(-1) - outputs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    target = torch.nn.functional.one_hot(y, outputs.shape[-1]).to(outputs.dtype)
    return (outputs - target).square().sum(-1) / 2
