"""What convolutional networks of a stack are made of: shapes of layers, normalization by channel, skips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threefactors.training.models import EPSILON


@dataclass(frozen=True)
class Convolution:
    """One convolution: channels in and out, side of the filter, stride, image (H, W) out, and √Var W · √(in/2)."""

    inputs: int
    outputs: int
    side: int
    stride: int
    image: tuple[int, int]
    normalized: bool
    start: float = 1.0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters in the order of θ: W and b, or W, γ and β."""
        weight = {"weight": (self.outputs, self.inputs, self.side, self.side)}
        return {**weight, **({"gain": (self.outputs,)} if self.normalized else {}), "shift": (self.outputs,)}

    @property
    def units(self) -> int:
        return self.outputs * math.prod(self.image)


@dataclass(frozen=True)
class Block:
    """Convolutions in a row, with a skip around them or without, and 2×2 max-pooling behind them or not."""

    convolutions: tuple[Convolution, ...]
    skip: bool = False
    pool: bool = False


def normalize(z: Tensor, gain: Tensor, shift: Tensor, ghosts: int, counted: int | None) -> Tensor:
    """γ(z − μ)/√(σ² + ε) + β by channel of z (B, C, H, W); μ and σ² of each ghost batch's first ``counted`` rows."""
    if counted is None or counted * ghosts == len(z):
        parts = [F.batch_norm(part, None, None, gain, shift, True, 0.0, EPSILON) for part in z.chunk(ghosts)]
        return parts[0] if ghosts == 1 else torch.cat(parts)
    rows = z.unflatten(0, (ghosts, -1))
    var, mean = torch.var_mean(rows[:, :counted], (1, 3, 4), correction=0, keepdim=True)
    scale = gain.view(-1, 1, 1) * torch.rsqrt(var + EPSILON)
    return torch.addcmul(shift.view(-1, 1, 1) - mean * scale, rows, scale).flatten(0, 1)


def widened(h: Tensor, row: tuple[Convolution, ...], runs: int) -> Tensor:
    """h as the skip around the row hands it on: every second pixel where the row does so, zeros in new channels."""
    stride, new = row[0].stride, row[-1].outputs - row[0].inputs
    h = h[:, :, ::stride, ::stride] if stride > 1 else h
    return h if new == 0 else F.pad(h.unflatten(1, (runs, -1)), (0, 0, 0, 0, 0, new)).flatten(1, 2)
