"""Convolutional networks as stacks: one flat θ (R, P), all R networks in the same convolution.

A fully connected layer is a 1×1 convolution of a 1×1 image, so that a network is nothing but convolutions, with
pooling and skips between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from threefactors.training.models import EPSILON, check_ghosts

KERNEL = 3  # side of the filters
GROUPED = 1 << 24  # multiplications a network and batch, up to which a stack is one grouped convolution
BLOCK = 1 << 28  # bytes that the widest layer may take where nothing is kept for a gradient


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


@dataclass(frozen=True)
class ConvNet:
    """Convolutional network with ReLU: 3×3 filters in stages, then fully connected layers; He initialization.

    image: (channels, height, width) of an example; its numbers in a row are the D inputs.
    stages: channels of the convolutions, stage by stage. downsampling: ``max`` halves the image behind each stage by
        2×2 max-pooling, ``stride`` in front of each stage but the first, whose first convolution has stride 2.
    residual: the convolutions behind the first go in pairs, h' = max(s(h) + c₂(max(c₁(h), 0)), 0); s takes every
        second pixel where c₁ does and fills new channels with zeros, which takes no parameters. Without batch norm
        c₂ starts at 0 and c₁ at He's weights by √(number of pairs), lest the output grow by √2 a pair.
    features: ``flatten`` gives all pixels of the last image to the fully connected layers, ``average`` their mean.
    hidden: widths of fully connected layers before the outputs.
    batch_norm: as in ``MLP``, behind each convolution and hidden layer: mean and variance over ghost batch and image.

    A stack is one grouped convolution, 1 to 4 times as fast on a CPU as one network after another, up to GROUPED
    multiplications a network and batch; beyond, it is the other way round. There a network alone is computed beside a
    copy of itself, since PyTorch takes another algorithm for one group. So most results (all with channels in
    multiples of eight) did not depend on the company by a single bit on the CPU it was tried on. What can be relied
    on is rounding: a few 10⁻⁷ a step in float32, 10⁻¹⁵ in float64.

    Raises ValueError where an image gets too small to be halved, or where residual convolutions do not make pairs.
    Sources: Simonyan & Zisserman, arXiv 1409.1556; He et al., arXiv 1512.03385; start of residual networks without
    batch norm: Zhang, Dauphin & Ma, arXiv 1901.09321.
    """

    image: tuple[int, int, int] = (1, 8, 8)
    stages: tuple[tuple[int, ...], ...] = ((8,), (16,))
    downsampling: str = "max"
    residual: bool = False
    features: str = "flatten"
    hidden: tuple[int, ...] = ()
    batch_norm: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("image", self.image), ("hidden", self.hidden)):
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "stages", tuple(tuple(stage) for stage in self.stages))
        if not self.stages or not all(self.stages):
            raise ValueError(f"stages={self.stages} has a stage without convolutions; use such as ((8,), (16, 16))")
        for name, sizes in (("image", self.image), ("stages", sum(self.stages, ())), ("hidden", self.hidden)):
            if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
                raise ValueError(f"{name}={getattr(self, name)} holds what is no size; use whole numbers >= 1")
        if len(self.image) != 3:
            raise ValueError(f"image={self.image} is not (channels, height, width); use such as (1, 8, 8)")
        for name, known in (("downsampling", ("max", "stride")), ("features", ("flatten", "average"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(known)}")
        check_ghosts(self.batch_norm)
        _ = self._blocks  # refuses what makes no network

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        """The convolutional part."""
        return tuple(self._in_order())

    def _in_order(self) -> Iterator[Block]:
        """Block after block, with the size of the image on its way down."""
        channels, *image = self.image
        pairs = sum(len(stage) for stage in self.stages) // 2
        for i, stage in enumerate(self.stages):
            if self.residual and len(stage) % 2 != (i == 0):
                raise ValueError(
                    f"stages={self.stages}: residual convolutions go in pairs, behind a single first one; "
                    f"use an odd number in the first stage and even numbers in the others"
                )
            at = 0
            while at < len(stage):
                last = at + (2 if self.residual and (i or at) else 1)
                row = []
                for j in range(at, last):
                    stride = 2 if self.downsampling == "stride" and i and j == 0 else 1
                    image = self._halved(image, i, up=1) if stride == 2 else image
                    start = 1.0 if last - at == 1 or self.batch_norm is not None else (j == at) / math.sqrt(pairs)
                    size = (image[0], image[1])
                    normalized = self.batch_norm is not None
                    row.append(Convolution(channels, stage[j], KERNEL, stride, size, normalized, start))
                    channels = stage[j]
                if last - at == 2 and row[-1].outputs < row[0].inputs:
                    raise ValueError(
                        f"stages={self.stages}: a skip from {row[0].inputs} to {row[-1].outputs} channels would lose "
                        f"some; use channels that do not decrease"
                    )
                pool = self.downsampling == "max" and last == len(stage)
                image = self._halved(image, i) if pool else image
                yield Block(tuple(row), skip=last - at == 2, pool=pool)
                at = last

    def _halved(self, image: list[int], stage: int, up: int = 0) -> list[int]:
        if min(image) < 2:
            raise ValueError(
                f"image={self.image} is down to {image[0]}×{image[1]} pixels in stage {stage + 1} of "
                f"{len(self.stages)} and cannot be halved again; use fewer stages, or larger images"
            )
        return [(side + up) // 2 for side in image]

    def _connected(self, outputs: int) -> list[Convolution]:
        """The fully connected part."""
        last = self._blocks[-1]
        channels, (height, width) = last.convolutions[-1].outputs, last.convolutions[-1].image
        pixels = 1 if self.features == "average" else (height // 2) * (width // 2) if last.pool else height * width
        widths = (channels * pixels, *self.hidden, outputs)
        last_one = len(widths) - 2
        return [
            Convolution(a, b, 1, 1, (1, 1), self.batch_norm is not None and i < last_one)
            for i, (a, b) in enumerate(pairwise(widths))
        ]

    def _convolutions(self, inputs: int, outputs: int) -> list[Convolution]:
        if inputs != math.prod(self.image):
            raise ValueError(
                f"image={self.image} has {math.prod(self.image)} numbers, but an example has {inputs}; "
                f"use the (channels, height, width) of the data set"
            )
        return [c for block in self._blocks for c in block.convolutions] + self._connected(outputs)

    @property
    def name(self) -> str:
        """Channels by stage, then the fully connected widths: 8/16, 16x3/32x2, 64/128:100."""
        stages = ["-".join(_runs(stage)) for stage in self.stages]
        return ("residual " if self.residual else "") + "/".join(stages) + "".join(f":{width}" for width in self.hidden)

    def parameters(self, inputs: int, outputs: int) -> int:
        """P, the length of θ."""
        return sum(math.prod(s) for c in self._convolutions(inputs, outputs) for s in c.shapes.values())

    def units(self, inputs: int, outputs: int) -> int:
        """Numbers kept for each example: of every layer those before and behind its normalization."""
        kept = 2 if self.batch_norm is not None else 1
        return inputs + kept * sum(c.units for c in self._convolutions(inputs, outputs))

    def initial(self, inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """One θ (P,): W ~ N(0, 2/in) with in = channels · 9, b = 0, γ = 1, β = 0; drawn in float64."""
        parts = []
        for conv in self._convolutions(inputs, outputs):
            for kind, shape in conv.shapes.items():
                if kind == "weight":
                    draw = torch.randn(shape, generator=generator, dtype=torch.float64)
                    parts.append((draw * (conv.start * math.sqrt(2 / math.prod(shape[1:])))).flatten())
                else:
                    parts.append(torch.full(shape, float(kind == "gain"), dtype=torch.float64))
        return torch.cat(parts).to(dtype)

    def filters(self, inputs: int, outputs: int) -> Tensor:
        """(P,) number of the filter for each entry of θ, −1 for b, γ and β."""
        parts, first = [], 0
        for conv in self._convolutions(inputs, outputs):
            for kind, (units, *fan_in) in conv.shapes.items():
                number = torch.arange(first, first + units).repeat_interleave(math.prod(fan_in))
                parts.append(number if kind == "weight" else torch.full_like(number, -1))
            first += conv.outputs
        return torch.cat(parts)

    def weight_mask(self, inputs: int, outputs: int) -> Tensor:
        """(P,) True where θ holds an entry of a filter or weight matrix, False for b, γ and β."""
        return self.filters(inputs, outputs) >= 0

    def forward(self, theta: Tensor, x: Tensor, outputs: int, ghosts: int = 1, counted: int | None = None) -> Tensor:
        """(R, B, K) for x (R, B, D); see ``Network``.

        Where no gradient is asked for and no batch norm ties examples together, in blocks of examples.
        """
        R, B, D = x.shape
        convolutions = self._convolutions(D, outputs)
        if self.batch_norm is None and not torch.is_grad_enabled():
            widest = max(D, *(c.units for c in convolutions)) * theta.element_size()
            block = max(1, BLOCK // widest)
            if block < B:
                return torch.cat([self.forward(theta, part, outputs) for part in x.split(block, 1)], 1)
        work = B * sum(c.units * c.inputs * c.side**2 for c in convolutions)
        if work > GROUPED:
            alone = zip(theta.split(1), x.split(1), strict=True)
            return torch.cat([self._together(t, one, convolutions, ghosts, counted) for t, one in alone])
        if R == 1:
            theta, x = theta.expand(2, -1), x.expand(2, -1, -1)
        return self._together(theta, x, convolutions, ghosts, counted)[:R]

    def _together(
        self, theta: Tensor, x: Tensor, convolutions: list[Convolution], ghosts: int, counted: int | None
    ) -> Tensor:
        """All runs in the same convolutions, h (B, R · channels, H, W)."""
        R, B, _ = x.shape
        sizes = [math.prod(shape) for c in convolutions for shape in c.shapes.values()]
        parts = iter(theta.split(sizes, 1))

        def convolve(h: Tensor, conv: Convolution) -> Tensor:
            weight = next(parts).reshape(R * conv.outputs, conv.inputs, conv.side, conv.side)
            gain = next(parts).flatten() if conv.normalized else None
            shift = next(parts).flatten()
            bias = shift if gain is None else None
            z = F.conv2d(h, weight, bias, conv.stride, conv.side // 2, groups=R)
            return z if gain is None else normalize(z, gain, shift, ghosts, counted)

        h = x.view(R, B, *self.image).transpose(0, 1).reshape(B, -1, *self.image[1:])
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self._blocks:
            row = block.convolutions
            z = convolve(h, row[0])
            for conv in row[1:]:
                z = convolve(z.relu_(), conv)
            h = (z + _widened(h, row, R) if block.skip else z).relu_()
            h = F.max_pool2d(h, 2) if block.pool else h
        h = h.mean((2, 3)) if self.features == "average" else h
        h = h.reshape(B, -1, 1, 1)
        connected = convolutions[-1 - len(self.hidden) :]
        for conv in connected[:-1]:
            h = convolve(h, conv).relu_()
        return convolve(h, connected[-1]).view(B, R, -1).transpose(0, 1)


def normalize(z: Tensor, gain: Tensor, shift: Tensor, ghosts: int, counted: int | None) -> Tensor:
    """γ(z − μ)/√(σ² + ε) + β by channel of z (B, C, H, W); μ and σ² of each ghost batch's first ``counted`` rows."""
    if counted is None or counted * ghosts == len(z):
        parts = [F.batch_norm(part, None, None, gain, shift, True, 0.0, EPSILON) for part in z.chunk(ghosts)]
        return parts[0] if ghosts == 1 else torch.cat(parts)
    rows = z.unflatten(0, (ghosts, -1))
    var, mean = torch.var_mean(rows[:, :counted], (1, 3, 4), correction=0, keepdim=True)
    scale = gain.view(-1, 1, 1) * torch.rsqrt(var + EPSILON)
    return torch.addcmul(shift.view(-1, 1, 1) - mean * scale, rows, scale).flatten(0, 1)


def _widened(h: Tensor, row: tuple[Convolution, ...], runs: int) -> Tensor:
    """h as the skip around the row hands it on: every second pixel where the row does so, zeros in new channels."""
    stride, new = row[0].stride, row[-1].outputs - row[0].inputs
    h = h[:, :, ::stride, ::stride] if stride > 1 else h
    return h if new == 0 else F.pad(h.unflatten(1, (runs, -1)), (0, 0, 0, 0, 0, new)).flatten(1, 2)


def _runs(stage: tuple[int, ...]) -> list[str]:
    """(16, 16, 32) → 16x2, 32."""
    counted = [(channels, len(list(same))) for channels, same in groupby(stage)]
    return [f"{channels}x{n}" if n > 1 else f"{channels}" for channels, n in counted]


def VGG11(
    batch_norm: int | None = None, width: float = 1.0, hidden: tuple[int, ...] = (),
    image: tuple[int, int, int] = (3, 32, 32),
) -> ConvNet:  # fmt: skip
    """VGG-11 (configuration A) for small images: 8 convolutions of 64 … 512 channels times ``width``, 5 times halved.

    9.2 million parameters at width 1. The fully connected layers of 4096, made for images of 224², are left out;
    ``hidden`` gives others. Source: Simonyan & Zisserman, arXiv 1409.1556, Table 1.
    """
    stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    return ConvNet(image, _scaled(stages, width), hidden=hidden, batch_norm=batch_norm)


def RESNET56(
    batch_norm: int | None = None, width: float = 1.0, blocks: int = 9, image: tuple[int, int, int] = (3, 32, 32)
) -> ConvNet:
    """ResNet of depth 6 · ``blocks`` + 2 for CIFAR: three stages of 16, 32 and 64 channels times ``width``.

    0.85 million parameters as it stands. Skips without parameters (option A), average pooling. The paper's has batch
    norm. Source: He et al., arXiv 1512.03385, §4.2.
    """
    n = 2 * blocks
    stages = ((16,) * (n + 1), (32,) * n, (64,) * n)
    return ConvNet(image, _scaled(stages, width), "stride", True, "average", batch_norm=batch_norm)


def _scaled(stages: tuple[tuple[int, ...], ...], width: float) -> tuple[tuple[int, ...], ...]:
    if not (isinstance(width, int | float) and width > 0 and math.isfinite(width)):
        raise ValueError(f"width={width!r} scales no channels; use a number > 0")
    return tuple(tuple(max(1, round(width * channels)) for channels in stage) for stage in stages)
