"""Forward, backward and R-operator passes of stacked perceptrons, written out by hand.

Autograd records a graph anew at every step and allocates every intermediate result. For networks as small as
these, that costs more than the arithmetic. Written out, each pass is a handful of batched matrix products into
buffers that are kept. ``StackLosses.__call__`` is the same function for autograd, and the tests hold the two
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from threefactors.training.models import EPSILON, MLP, Layer, groups


class Workspace:
    """Named buffers, allocated at first use and again only when a shape changes."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape:
            kept = self._kept[name] = like.new_empty(shape, dtype=dtype)
        return kept

    def rounded(self, name: str, t: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy in a shorter type."""
        return self(name, t, *t.shape, dtype=dtype).copy_(t)


@dataclass
class Rounded:
    """The factors of one layer's products in a shorter type: h, W and, on the way back, ∂L/∂z."""

    inputs: Tensor
    weight: Tensor
    delta: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class Pass:
    """What one forward and backward pass leaves behind; lists run over layers.

    inputs: h (R, B, in); deltas: ∂L/∂z (R, B, out); probabilities: softmax of the outputs (cross-entropy only).
    With batch norm, over R × groups × rows: normed ẑ, inverse 1/√(σ²+ε), upstream ∂L/∂y before the
    normalization. rounded: by layer, where products are taken in a shorter type.
    """

    losses: Tensor
    outputs: Tensor
    inputs: list[Tensor] = field(default_factory=list)
    deltas: list[Tensor] = field(default_factory=list)
    normed: list[Tensor] = field(default_factory=list)
    inverse: list[Tensor] = field(default_factory=list)
    upstream: list[Tensor] = field(default_factory=list)
    residual: Tensor | None = None
    rounded: dict[int, Rounded] = field(default_factory=dict)


def forward(model: MLP, layers: list[Layer], x: Tensor, room: Workspace, low: torch.dtype | None = None) -> Pass:
    """Outputs of the stack on x (R, B, D), with what the backward pass needs.

    ``low``: whatever goes into a product below the last layer, or comes out of one, is rounded to this type; so are
    the h that the last layer is given and the gradient that it hands down. Everything else is not.
    """
    trace = Pass(torch.empty(0), torch.empty(0))
    runs, batch = x.shape[:2]
    split = groups(model, batch)
    h = x
    for i, layer in enumerate(layers):
        trace.inputs.append(h)
        z = room(f"z{i}", h, runs, batch, layer.weight.shape[-1])
        if low is not None and i < len(layers) - 1:
            short = Rounded(room.rounded(f"short h{i}", h, low), room.rounded(f"short W{i}", layer.weight, low))
            trace.rounded[i] = short
            z.copy_(torch.bmm(short.inputs, short.weight, out=room(f"short z{i}", z, *z.shape, dtype=low)))
            if layer.gain is None:
                z.add_(layer.shift)
        elif layer.gain is None:
            torch.baddbmm(layer.shift, h, layer.weight, out=z)
        else:
            torch.bmm(h, layer.weight, out=z)
        if layer.gain is not None:
            grouped = z.view(runs, split, batch // split, -1)
            grouped.sub_(grouped.mean(2, keepdim=True))
            squares = torch.square(grouped, out=room("square", grouped, *grouped.shape))
            inverse = torch.rsqrt(squares.mean(2, keepdim=True).add_(EPSILON))
            normed = grouped.mul_(inverse)
            trace.normed.append(normed)
            trace.inverse.append(inverse)
            z = room(f"y{i}", h, *z.shape)
            torch.addcmul(layer.shift.unsqueeze(1), layer.gain.unsqueeze(1), normed, out=z.view_as(normed))
        h = z.relu_() if i < len(layers) - 1 else z
        if i in trace.rounded:
            h.copy_(room.rounded(f"short h{i + 1}", h, trace.rounded[i].weight.dtype))
    trace.outputs = h
    return trace


def output_gradient(loss: str, trace: Pass, y: Tensor, scale: Tensor, room: Workspace) -> Tensor:
    """Per-example losses into ``trace.losses``; returns scale · ∂loss_b/∂z (R, B, K)."""
    z = trace.outputs
    d = room("delta", z, *z.shape)
    if loss == "cross-entropy":
        partition = z.logsumexp(-1, keepdim=True)
        torch.exp(torch.sub(z, partition, out=d), out=d)
        trace.losses = (partition - z.gather(-1, y.unsqueeze(-1))).squeeze(-1)
    else:
        d.copy_(z)
    d.scatter_add_(-1, y.unsqueeze(-1), d.new_full((1, 1, 1), -1.0).expand(*y.shape, 1))
    if loss == "squared":
        trace.losses = d.square().sum(-1) / 2
    return d.mul_(scale)


def backward(
    layers: list[Layer], trace: Pass, d: Tensor, room: Workspace, update: Callable[[int, Pass], None] | None = None
) -> None:
    """Fills ``trace.deltas`` and ``trace.upstream`` from d, the gradient with respect to the outputs.

    ``update(i, trace)`` is called once layer i's delta is known and its weights are no longer needed.
    """
    batch = trace.outputs.shape[:2]
    trace.deltas = [d] * len(layers)
    trace.upstream = [d] * len(trace.normed)
    for i in range(len(layers) - 1, -1, -1):
        layer = layers[i]
        if layer.gain is not None:
            normed, inverse = trace.normed[i], trace.inverse[i]
            dy = trace.upstream[i] = d.view_as(normed)
            along = torch.mul(dy, normed, out=room("square", normed, *normed.shape)).mean(2, keepdim=True)
            # dz = γ/σ (dy − ⟨dy⟩ − ẑ⟨dy ẑ⟩), ⟨·⟩ the mean over the ghost batch
            dz = torch.addcmul(dy, normed, along, value=-1, out=room(f"dz{i}", dy, *dy.shape))
            d = dz.sub_(dy.mean(2, keepdim=True)).mul_(layer.gain.unsqueeze(1) * inverse).view(*batch, -1)
        trace.deltas[i] = d
        short = trace.rounded.get(i)
        if short is not None:
            short.delta = room.rounded(f"short dz{i}", d, short.weight.dtype)
        if i:
            h = trace.inputs[i]
            below = room(f"dh{i}", h, *h.shape)
            if short is None:
                torch.bmm(d, layer.weight.transpose(1, 2), out=below)
                if i - 1 in trace.rounded:
                    below.copy_(below.to(trace.rounded[i - 1].weight.dtype))
            else:
                below.copy_(torch.bmm(short.delta, short.weight.transpose(1, 2)))
        if update is not None:
            update(i, trace)
        if i:
            d = torch.ops.aten.threshold_backward.grad_input(below, h, 0, grad_input=below)


def accumulate(to: list[Layer], i: int, trace: Pass, keep: float, scale: float) -> None:
    """to ← keep · to + scale · ∂L/∂(layer i), in place: the gradient is never formed by itself."""
    d = trace.deltas[i]
    short = trace.rounded.get(i)
    if short is None:
        to[i].weight.baddbmm_(trace.inputs[i].transpose(1, 2), d, beta=keep, alpha=scale)
    else:  # the product is added to θ itself, which is not rounded: there small steps would be lost
        kept(to[i].weight, keep).add_(torch.bmm(short.inputs.transpose(1, 2), short.delta), alpha=scale)
    gain = to[i].gain
    if gain is None:
        kept(to[i].shift, keep).add_(d.sum(1, keepdim=True), alpha=scale)
        return
    dy = trace.upstream[i]
    kept(to[i].shift, keep).add_(dy.sum((1, 2)).unsqueeze(1), alpha=scale)
    kept(gain, keep).add_((dy * trace.normed[i]).sum((1, 2)).unsqueeze(1), alpha=scale)


def kept(t: Tensor, keep: float) -> Tensor:
    """t ← keep · t, in place."""
    return t if keep == 1 else t.mul_(keep)
