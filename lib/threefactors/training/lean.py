"""The step of a stacked perceptron in few kernels, for a GPU, where each reads and writes all activations once more.

The same functions as in passes.py, whose results are the ones on record for a CPU. Batch norm is PyTorch's own, of all
runs at once: activations lie as (B, R, units), so that the stack is one batch of B rows with R · units channels. The
products do not mind: a run's rows are as far apart as the stack is wide. Of about a hundred operations a step half are
left (a test counts them): those of batch norm and of the softmax are PyTorch's fused ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from threefactors.training.models import EPSILON, Layer
from threefactors.training.passes import Workspace, kept

# z (B, R · units); γ, the mean of z and 1/√(σ² + ε), each (R · units,)
Statistics = tuple[Tensor, Tensor, Tensor, Tensor]


def descend(
    layers: list[Layer], to: list[Layer], x: Tensor, y: Tensor, scale: Tensor, keep: float, sign: float, loss: str,
    room: Workspace, low: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """to ← keep · to + sign · Σ_b scale_b ∂ℓ_b/∂θ, in place; returns the losses ℓ (R, B) on x (R, B, D), y (R, B).

    scale (R, B, 1) or (R, 1, 1). Batch norm over the whole batch: a ghost batch is no smaller than that. ``low``: see
    passes.py; below the last layer all activations and their gradients are kept in this type, so it costs no kernels
    but those that round W.
    """
    R, B, _ = x.shape
    inputs: list[Tensor] = []
    weights: list[Tensor] = []
    statistics: list[Statistics | None] = []
    h, last = x, len(layers) - 1

    def across(name: str, like: Tensor, units: int, normalized: bool) -> Tensor:
        """A buffer (R, B, units), which lies run after run, or row after row where it is to be normalized."""
        shape = (B, R, units) if normalized else (R, B, units)
        buffer = room(name, like, *shape)
        return buffer.transpose(0, 1) if normalized else buffer

    for i, layer in enumerate(layers):
        weight = layer.weight if low is None or i == last else room.rounded(f"W{i}", layer.weight, low)
        h = h.to(weight.dtype)
        inputs.append(h)
        weights.append(weight)
        z = across(f"z{i}", h, weight.shape[-1], layer.gain is not None)
        if layer.gain is None:
            statistics.append(None)
            if h.dtype == layer.shift.dtype:
                h = torch.baddbmm(layer.shift, h, weight, out=z)
            else:
                h = torch.add(torch.bmm(h, weight, out=z), layer.shift, out=z)
        else:
            torch.bmm(h, weight, out=z)
            rows, gain = z.transpose(0, 1).view(B, -1), layer.gain.reshape(-1)
            normed, mean, inverse = torch.native_batch_norm(
                rows, gain, layer.shift.reshape(-1), None, None, True, 0.0, EPSILON
            )
            statistics.append((rows, gain, mean, inverse))
            h = normed.view(B, R, -1).transpose(0, 1)
        h = h.relu_() if i < last else h

    losses, d = _losses(loss, h, y.unsqueeze(-1), room)
    d.mul_(scale)
    for i in range(last, -1, -1):
        target, known, h = to[i], statistics[i], inputs[i]
        if known is None:
            d_shift = d.sum(1, keepdim=True, dtype=target.shift.dtype)
        else:
            rows, gain, mean, inverse = known
            dz, d_gain, d_shift = torch.ops.aten.native_batch_norm_backward(
                d.transpose(0, 1).view(B, -1), rows, gain, None, None, mean, inverse, True, EPSILON, [True, True, True]
            )
            d = dz.view(B, R, -1).transpose(0, 1)
            if target.gain is not None:
                _gather(target.gain, d_gain.view(R, 1, -1), keep, sign)
        if i:  # before θ changes
            below = across(f"dh{i}", h, h.shape[-1], statistics[i - 1] is not None)
            torch.bmm(d, weights[i].transpose(1, 2), out=below)
        _gather(target.shift, d_shift.view(R, 1, -1), keep, sign)
        if h.dtype == target.weight.dtype:
            target.weight.baddbmm_(h.transpose(1, 2), d, beta=keep, alpha=sign)
        else:  # the product is added to θ itself, which is not rounded: there small steps would be lost
            _gather(target.weight, torch.bmm(h.transpose(1, 2), d), keep, sign)
        if i:
            d = torch.ops.aten.threshold_backward.grad_input(below, h, 0, grad_input=below).to(weights[i - 1].dtype)
    return losses


def _gather(to: Tensor, gradient: Tensor, keep: float, sign: float) -> None:
    """to ← keep · to + sign · gradient in one kernel where one of the factors is 1, as with momentum or without."""
    if sign == 1:
        torch.add(gradient, to, alpha=keep, out=to)
    else:
        kept(to, keep).add_(gradient, alpha=sign)


def _losses(loss: str, z: Tensor, y: Tensor, room: Workspace) -> tuple[Tensor, Tensor]:
    """ℓ (R, B) of the outputs z (R, B, K) and labels y (R, B, 1); ∂ℓ/∂z in a buffer."""
    d = room("delta", z, *z.shape)
    minus = room("minus one", z, 1, 1, 1).fill_(-1).expand(y.shape)
    if loss == "cross-entropy":
        logarithms = torch.log_softmax(z, -1)
        torch.exp(logarithms, out=d).scatter_add_(-1, y, minus)
        return -logarithms.gather(-1, y).squeeze(-1), d
    d.copy_(z).scatter_add_(-1, y, minus)
    return d.square().sum(-1) / 2, d
