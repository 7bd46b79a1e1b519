"""Convolutional networks as stacks: one flat θ (R, P), all R networks in the same convolution.

A fully connected layer is a 1×1 convolution of a 1×1 image, so that a network is nothing but convolutions, with
pooling and skips between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from threefactors.training import convolving, tuning
from threefactors.training.blocks import Block, Convolution, normalize, widened
from threefactors.training.models import Layerwise, Network, Units, check_ghosts, finish

KERNEL = 3  # side of the filters
BLOCK = 1 << 28  # bytes that the widest layer may take where nothing is kept for a gradient


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

    Small networks take their convolutions together, large ones one after another: ``convolving`` says which, and why.
    A small one that is alone on a CPU is computed beside a copy of itself, since PyTorch takes another algorithm for
    one group. So most results (all with channels in multiples of eight) did not depend on the company by a single bit
    on the CPU it was tried on. What can be relied on is rounding: a few 10⁻⁷ a step in float32, 10⁻¹⁵ in float64.

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

    def widest(self, inputs: int, outputs: int) -> int:
        return max(inputs, *(c.units for c in self._convolutions(inputs, outputs)))

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
        if self.batch_norm is None and not torch.is_grad_enabled():
            block = max(1, BLOCK // (self.widest(D, outputs) * theta.element_size()))
            if block < B:
                return torch.cat([self.forward(theta, part, outputs) for part in x.split(block, 1)], 1)
        whole = partial(self._pass, outputs=outputs, ghosts=ghosts, counted=counted)

        def one_by_one(theta: Tensor, x: Tensor) -> Tensor:
            works = [partial(whole, t, one) for t, one in zip(theta.split(1), x.split(1), strict=True)]
            return torch.cat(convolving.side_by_side(works, theta.device))

        def trials() -> dict[str, Callable[[], object]]:
            leaf, examples = theta.detach().clone().requires_grad_(), x.detach().clone()
            tried: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"together": whole, convolving.APART: one_by_one}
            return {name: partial(convolving.differentiate, way, (leaf,), examples) for name, way in tried.items()}

        def together(theta: Tensor, x: Tensor) -> Tensor:
            alone = len(theta) == 1  # then beside a copy
            return whole(theta.expand(2, -1), x.expand(2, -1, -1))[:1] if alone else whole(theta, x)

        work = B * max(c.units * c.inputs * c.side**2 for block in self._blocks for c in block.convolutions)
        company = convolving.company(B * self.widest(D, outputs) * theta.element_size(), theta)
        key = partial("{!r} of {} outputs, {} runs, batch {}".format, self, outputs, R, B)
        if company < 2 or convolving.apart(key, work, theta, trials):
            return one_by_one(theta, x)
        pieces = zip(theta.split(company), x.split(company), strict=True)
        return together(theta, x) if company >= R else torch.cat([together(*piece) for piece in pieces])

    def _pass(self, theta: Tensor, x: Tensor, outputs: int, ghosts: int, counted: int | None) -> Tensor:
        """All runs in the same convolutions."""

        def normalized(units: Units) -> Tensor:
            return normalize(units.z, units.gain.flatten(), units.shift.flatten(), ghosts, counted)

        return finish(self.layerwise(theta, x, outputs), normalized)

    def layerwise(self, theta: Tensor, x: Tensor, outputs: int) -> Layerwise:
        """The same, with h (B, R · channels, H, W), pausing at each normalization; see ``Network``."""
        R, B, D = x.shape
        convolutions = self._convolutions(D, outputs)
        sizes = [math.prod(shape) for c in convolutions for shape in c.shapes.values()]
        parts = iter(theta.split(sizes, 1))

        def product(h: Tensor, conv: Convolution) -> Tensor:
            weight = next(parts).reshape(R, conv.outputs, conv.inputs, conv.side, conv.side)
            if not conv.normalized:
                return convolving.convolve(h, weight, next(parts), conv.stride)
            # Statistics are not rounded where products are.
            return convolving.convolve(h, weight, None, conv.stride).to(theta.dtype)

        def units(z: Tensor, aside: Tensor | None = None) -> Units:
            return Units(z, next(parts).reshape(-1, 1, 1), next(parts).reshape(-1, 1, 1), (0, 2, 3), aside)

        h = x.reshape(R, B, *self.image).transpose(0, 1).reshape(B, -1, *self.image[1:])
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self._blocks:
            row, kept = block.convolutions, h if block.skip else None
            for i, conv in enumerate(row):
                h = product(h.relu_() if i else h, conv)
                h = (yield units(h, kept)) if conv.normalized else h
            h = (h if kept is None else h + widened(kept, row, R)).relu_()
            h = F.max_pool2d(h, 2) if block.pool else h
        h = h.mean((2, 3)) if self.features == "average" else h
        h = h.reshape(B, -1, 1, 1)
        *hidden, last = convolutions[-1 - len(self.hidden) :]
        for conv in hidden:
            h = product(h, conv)
            h = ((yield units(h)) if conv.normalized else h).relu_()
        return product(h, last).view(B, R, -1).transpose(0, 1)


def prepare(
    model: Network, runs: int, batch: int, device: torch.device | str, dtype: torch.dtype, outputs: int = 10
) -> None:
    """Chooses the ways of a network's convolutions for steps of so many runs and examples, and remembers them.

    On a GPU they are measured, which cannot be done while a CUDA graph is captured: call this before, with the same
    precision of products in force. On a CPU, where a rule decides, and for other networks it does nothing.
    """
    device = torch.device(device)
    if device.type not in tuning.MEASURED or not isinstance(model, ConvNet):
        return
    inputs = math.prod(model.image)
    draw = torch.Generator(device).manual_seed(0)
    theta, x = (
        0.1 * torch.randn(runs, *sizes, generator=draw, dtype=dtype, device=device)
        for sizes in ((model.parameters(inputs, outputs),), (batch, inputs))
    )
    with torch.enable_grad():
        model.forward(theta, x, outputs)


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
