"""Outputs of networks on many examples, in blocks of rows: exactly those of the whole, in bounded memory.

Without batch norm an example does not know of the others. With it, the statistics of a layer come from all counted
rows, and the next layer needs them: so all blocks go from layer to layer in step, and those that do not fit into
memory meanwhile begin anew at the examples, with the statistics found so far.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from threefactors.training.models import EPSILON, Layerwise, Units

if TYPE_CHECKING:
    from threefactors.training.losses import StackLosses

BUFFERS = 4  # arrays as wide as the widest layer that are alive at once in a pass that pauses at normalizations
WHOLE = 9  # the same in one that does not, where a small network may be computed beside a copy
PASSING = 1 / 4  # share of the budget for the block that is being computed; the others wait in the rest
ON_CPU = 1 << 30  # bytes, with room for other processes
ON_GPU = 1 / 8  # share of its memory


def budget(device: torch.device) -> int:
    """Bytes that an evaluation may take: 1 GiB, or an eighth of a GPU. Not what is free just then: where blocks end
    decides how sums are rounded."""
    if device.type != "cuda":
        return ON_CPU
    return int(torch.cuda.get_device_properties(device).total_memory * ON_GPU)


def capacity(device: torch.device) -> int:
    """Bytes that could be had at most: of a GPU what is free, or held by PyTorch and not in use; else all there is."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@torch.no_grad()
def outputs(losses: StackLosses, theta: Tensor, x: Tensor, counted: int | None, budget: int) -> Tensor:
    """(R, N, K) for θ (R, P) and examples x (N, D), the same for all networks.

    counted: rows from whose first so many batch norm takes its statistics (None: all). budget: bytes of intermediate
    results; what fits is computed in one piece, and at least one example is always at work. With batch norm a block
    that cannot wait is computed again for each layer: with L of them and nothing kept, L/2 + 1 times the work.

    Source of the merged sums of squares: Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115.
    """
    model, N = losses.model, len(x)
    x = x.flatten(1)
    row = model.widest(losses.inputs, losses.classes) * theta.element_size()
    whole = max(1, WHOLE * N * row)
    out = theta.new_empty(len(theta), N, losses.classes)
    # On a CPU one network at a time: its activations on the whole set would not fit the cache beside another's.
    together = 1 if theta.device.type == "cpu" else max(1, budget // whole)
    for runs in torch.arange(len(theta)).split(together):
        part, to = theta[runs], out[runs[0] : runs[-1] + 1]
        if len(part) * whole <= budget:
            to.copy_(losses.outputs(part, x.unsqueeze(0).expand(len(part), -1, -1), counted=counted))
            continue
        tied = 0 if model.batch_norm is None else N if counted is None else min(counted, N)
        size = max(1, int(budget * PASSING if tied else budget) // (BUFFERS * row))
        _in_step(losses, part, x, tied, size, budget - size * BUFFERS * row, to)
    return out


@dataclass
class Moments:
    """n, mean and Σ (z − mean)² of a layer's units, merged from blocks, in float64."""

    n: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, units: Units, rows: int) -> Moments:
        """Of the first so many examples."""
        z = units.z.narrow(units.over[0], 0, rows)
        n = z.numel() // units.gain.numel()
        var, mean = torch.var_mean(z, units.over, correction=0, keepdim=True)
        mean, var = (part.reshape(units.gain.shape).double() for part in (mean, var))
        return cls(n, mean, var * n)

    def merged(self, other: Moments) -> Moments:
        n, apart = self.n + other.n, other.mean - self.mean
        squares = self.squares + other.squares + apart.square() * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), squares)

    def normalize(self, units: Units) -> Tensor:
        """γ (z − mean)/√(var + ε) + β."""
        scale = units.gain * torch.rsqrt(self.squares / self.n + EPSILON).to(units.z)
        return (units.z - self.mean.to(units.z)).mul_(scale).add_(units.shift)


def _in_step(
    losses: StackLosses[Any], theta: Tensor, x: Tensor, counted: int, size: int, room: int, out: Tensor
) -> None:
    """Fills out (r, N, K) in blocks of ``size`` rows, of which as many wait for the statistics of the first ``counted``
    rows as ``room`` bytes hold."""
    blocks, answers = x.split(size), out.split(size, 1)
    some = -(-counted // size)  # blocks with rows that count; the others follow at the end
    found: list[Moments] = []
    waiting: dict[int, tuple[Layerwise, Units]] = {}
    held, over = 0, some == 0

    def begin(rows: Tensor) -> Layerwise:
        return losses.model.layerwise(theta, rows.expand(len(theta), *rows.shape), losses.classes)

    while not over:
        layer: Moments | None = None
        paused: Units | None
        units: Units | Tensor | None
        for i in range(some):
            if i in waiting:
                layers, paused = waiting.pop(i)
                held -= _bytes(paused)
                units = _onward(layers, found[-1:], paused)
            else:
                layers = begin(blocks[i])
                units = _onward(layers, found)
            if isinstance(units, Tensor):
                answers[i].copy_(units)
                over = True
                continue
            moments = Moments.of(units, min(size, counted - i * size))
            layer = moments if layer is None else layer.merged(moments)
            if held + _bytes(units) <= room:
                waiting[i] = layers, units
                held += _bytes(units)
            paused = units = None  # a block that cannot wait is gone
        found += [] if layer is None else [layer]
    for rows, answer in zip(blocks[some:], answers[some:], strict=True):
        answer.copy_(cast(Tensor, _onward(begin(rows), found)))


def _onward(layers: Layerwise, known: Sequence[Moments], units: Units | None = None) -> Units | Tensor:
    """Normalizes with the known statistics: what is to be normalized with the next ones, or the outputs."""
    try:
        units = next(layers) if units is None else units
        for moments in known:
            normed, units = moments.normalize(units), None  # not kept while the next layer is computed
            units = layers.send(normed)
    except StopIteration as end:
        return cast(Tensor, end.value)
    return units


def _bytes(units: Units) -> int:
    """Taken by a pass that waits."""
    return sum(t.nbytes for t in (units.z, units.aside) if t is not None)
