"""Convolutions of a stack: each way by itself, what the library picks, and the whole step of a narrow network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from threefactors._launch import Launch
from threefactors._rng import generator
from threefactors.training import Dataset, convolving
from threefactors.training.convolution import RESNET56, VGG11, ConvNet, Convolution
from threefactors.training.convolving import WAYS, Shape
from torch import Tensor, nn

from .floor import peak
from .peers import Library, Loop, Vmap
from .problems import Problem
from .report import Row, Section, Target, section
from .timing import Times, Variant, interleave

NETWORKS = {
    "VGG-11": VGG11(), "VGG-11, width 1/8": VGG11(width=1 / 8),
    "ResNet-56": RESNET56(), "ResNet-56, width 1/4": RESNET56(width=1 / 4), "8/16 on 8×8": ConvNet(),
}  # fmt: skip
COUNTS = (1, 8, 64)
TOGETHER = {"cpu": COUNTS[:2], "cuda": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}  # networks in training
APART, CEILING, LOOP, LIBRARY = "each by itself", "ceiling: one large product", "sliced loop", "library"
WORK = {"cpu": 1 << 31, "cuda": 1 << 40}  # multiplications of a forward pass of all networks: more takes too long
ROOM = {"cpu": 1 << 31, "cuda": 16 << 30}  # bytes of unfolded images
BATCH = {"cpu": 32, "cuda": 128}
GOAL = 0.8  # of the speed of the fastest way


def sections(rounds: int, cores: int, *, quick: bool, device: str = "cpu") -> Iterator[Section]:
    """One section for each shape of a layer, then one for each network."""
    kind = device.partition(":")[0]
    torch.backends.cudnn.allow_tf32 = False  # as the library trains, and as the ceiling is measured
    speed = peak(cores, device=device)
    if quick:
        shapes = [
            ("8/16 on 8×8", Convolution(8, 16, 3, 1, (4, 4), False)),
            ("strided", Convolution(2, 3, 3, 2, (2, 2), False)),
        ]
        small = {"residual 4x3/4x2": RESNET56(8, 1 / 4, 1, (3, 8, 8))}
        counts, batch = (1, 2), 4
    else:
        shapes, counts, batch = list(_shapes(NETWORKS)), COUNTS, BATCH[kind]
        small = {"VGG-11, width 1/8": VGG11(128, 1 / 8), "ResNet-56, width 1/4": RESNET56(128, 1 / 4)}
        small |= {"VGG-11": VGG11(128)} if kind == "cuda" else {}
    for name, conv in shapes:
        yield _layer(name, conv, counts, batch, rounds, cores, device, speed)
    for name, model in small.items():
        for runs in counts if quick else TOGETHER[kind]:
            yield _network(images(name, model, 8 if quick else 128, runs, device), rounds, cores, speed)


def _shapes(networks: dict[str, ConvNet]) -> Iterator[tuple[str, Convolution]]:
    """Every shape of a convolution once, with the first network that has it."""
    known = set()
    for name, model in networks.items():
        for conv in (conv for block in model._blocks for conv in block.convolutions):
            what = replace(conv, start=1.0)
            if what not in known:
                known.add(what)
                yield name, what


class Differentiate:
    """Forward and backward pass of a function, replayed as a CUDA graph on a GPU."""

    def __init__(self, functions: Sequence[Callable[[], object]], device: str) -> None:
        def all_of_them() -> None:
            for function in functions:
                function()

        self.launch = Launch(all_of_them, device)
        self.launch()  # loads kernels, and chooses ways; the next call captures

    def reset(self) -> None: ...

    def run(self) -> None:
        self.launch()


def works(shape: Shape, device: str) -> dict[str, Callable[[], Differentiate]]:
    """A convolution of the stack in each way, network after network, and as the library chooses."""
    h, weight = tensors(shape, device)
    together = partial(convolving.differentiate, leaves=(h, weight))
    found = {name: partial(together, _plain(way, shape.stride)) for name, way in WAYS.items()}
    result = {name: partial(Differentiate, [work], device) for name, work in found.items()}

    def pieces(runs: int) -> list[Callable[[], object]]:
        """So many networks at a time, with images of their own."""
        one = _plain(convolving.grouped, shape.stride)
        splits = h.detach().split(runs * shape.inputs, 1), weight.detach().split(runs)
        leaves = [(x.contiguous(memory_format=torch.channels_last), w.clone()) for x, w in zip(*splits, strict=True)]
        return [partial(convolving.differentiate, one, (x.requires_grad_(), w.requires_grad_())) for x, w in leaves]

    result[APART] = partial(Differentiate, pieces(1), device)
    widest = 4 * shape.batch * max(shape.inputs * math.prod(shape.image), shape.outputs * shape.pixels)
    company = convolving.company(widest, h.detach().new_empty(shape.runs))
    if device == "cpu" and (shape.work > convolving.GROUPED or company < 2):
        result[f"{LIBRARY}: network after network"] = result[APART]
    elif company < shape.runs:
        result[f"{LIBRARY}: grouped, {company} at a time"] = partial(Differentiate, pieces(company), device)
    else:
        picked = convolving.way(shape, h)
        result[f"{LIBRARY}: {picked}"] = result[picked]
    return result


def _plain(way: Callable[..., Tensor], stride: int) -> Callable[..., Tensor]:
    return lambda h, weight: way(h, weight, None, stride)


def tensors(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Images (B, R · C, H, W) and filters (R, O, C, k, k) of random numbers."""
    draw = torch.Generator(device).manual_seed(0)
    sizes = (shape.batch, shape.runs * shape.inputs, *shape.image)
    h = torch.randn(sizes, generator=draw, device=device).contiguous(memory_format=torch.channels_last)
    filters = (shape.runs, shape.outputs, shape.inputs, shape.side, shape.side)
    return h.requires_grad_(), torch.randn(filters, generator=draw, device=device).requires_grad_()


def _layer(
    name: str, conv: Convolution, counts: Sequence[int], batch: int, rounds: int, cores: int, device: str, speed: float
) -> Section:
    """All ways of one convolution, for each number of networks."""
    kind, image = device.partition(":")[0], tuple(conv.stride * n for n in conv.image)
    rows: list[Row] = []
    targets, notes = [], []
    where = f"{conv.inputs} → {conv.outputs} on {image[0]}×{image[1]}{', every second' * (conv.stride == 2)}"
    title = f"{name}: {where}, S={batch}"
    for runs in counts:
        shape = Shape(conv.inputs, conv.outputs, conv.side, conv.stride, (image[0], image[1]), runs, batch)
        if shape.work * runs > WORK[kind]:
            notes.append(f"{_count(runs)}: left out, {6e-9 * shape.work * runs:.3g} GFLOP forward and backward")
            continue
        unfolded = 4 * shape.batch * shape.pixels * shape.inputs * shape.side**2 * runs
        found = [
            Variant(what, work, runs, cores)
            for what, work in works(shape, device).items()
            if what != "unfold" or unfolded <= ROOM[kind]
        ]
        times = interleave(found, rounds, device)
        times[CEILING] = 6 * shape.work / speed
        picked = next(what for what in times if what.startswith(LIBRARY))
        fastest = min(us for what, us in times.items() if what not in (picked, CEILING))
        targets.append(Target(f"{picked} / fastest way, {_count(runs)}", fastest / times[picked], GOAL))
        named = Times()
        named.update({f"{what}, {_count(runs)}": us for what, us in times.items()})
        named.peaks = {f"{what}, {_count(runs)}": size for what, size in times.peaks.items()}
        rows += section("convolution", title, named, times[APART], times[CEILING], ()).rows
    return Section(rows, targets, notes)


@dataclass(frozen=True, eq=False)
class Images(Problem):
    """Convolutional networks in training."""

    model: ConvNet  # type: ignore[assignment]

    def first(self, runs: int) -> Images:
        return replace(self, runs=runs)

    def module(self) -> nn.Sequential:
        """The network as a user of PyTorch would write it, on examples in a row."""
        norm = self.model.batch_norm is not None
        layers: list[nn.Module] = [nn.Unflatten(1, self.model.image)]
        for block in self.model._blocks:
            row: list[nn.Module] = []
            for conv in block.convolutions:
                row += [nn.ReLU()] if row else []
                row.append(nn.Conv2d(conv.inputs, conv.outputs, 3, conv.stride, 1, bias=not norm))
                row += [nn.BatchNorm2d(conv.outputs, track_running_stats=False)] if norm else []
            layers += [Skip(row, block.convolutions)] if block.skip else row
            layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if block.pool else [])]
        layers += [nn.AdaptiveAvgPool2d(1)] if self.model.features == "average" else []
        layers.append(nn.Flatten())
        *_, last = self.model._connected(self.data.classes)
        layers.append(nn.Linear(last.inputs, last.outputs))
        return nn.Sequential(*layers).to(self.data.x_train).to(memory_format=torch.channels_last)

    def parameters(self, theta: Tensor) -> list[Tensor]:
        """Copies of θ (..., P), whose order and shapes are those of ``module``."""
        shapes = [parameter.shape for parameter in self.module().parameters()]
        parts = theta.split([math.prod(shape) for shape in shapes], -1)
        whole = (part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True))
        return [w.clone(memory_format=torch.channels_last if w.ndim == 4 else torch.contiguous_format) for w in whole]


class Skip(nn.Module):
    """A residual block: its convolutions, and the image itself with every second pixel and zeros in new channels."""

    def __init__(self, row: Sequence[nn.Module], convolutions: Sequence[Convolution]) -> None:
        super().__init__()
        self.body = nn.Sequential(*row)
        self.stride, self.new = convolutions[0].stride, convolutions[-1].outputs - convolutions[0].inputs

    def forward(self, h: Tensor) -> Tensor:
        kept = h[:, :, :: self.stride, :: self.stride]
        return self.body(h) + nn.functional.pad(kept, (0, 0, 0, 0, 0, self.new))


class ImageLoop(Loop):
    """One network after another."""

    def theta(self) -> Tensor:
        return torch.stack([torch.cat([p.detach().flatten() for p in n.parameters()]) for n in self.networks])


class ImageVmap(Vmap):
    """torch.func."""

    def theta(self) -> Tensor:
        return torch.cat([p.flatten(1) for p in self.parameters.values()], 1).detach()


def images(name: str, model: ConvNet, batch: int, runs: int, device: str = "cpu") -> Images:
    """Two batches of noise with random labels."""
    draw, n = generator(0, "images"), 2 * batch
    x, y = torch.randn(n, *model.image, generator=draw), torch.randint(10, (n,), generator=draw)
    data = Dataset("noise", x, y, x[:1], y[:1], x[:1], y[:1], 10, "drawn anew each time").to(device)
    return Images(f"{name}, {_count(runs)}, S={batch}", data, model, batch, 1, runs)


def _network(problem: Images, rounds: int, cores: int, speed: float) -> Section:
    """The step of a stack against one module after another."""
    few, names = (
        problem.first(min(2, problem.runs)),
        ["vmap(grad)"] + ["vmap(grad), compiled"] * (problem.device != "cpu"),
    )
    found = [Variant(LOOP, partial(ImageLoop, few), few.units, cores)]
    found += [Variant(n, partial(ImageVmap, problem, compiled="compiled" in n), problem.units, cores) for n in names]
    found.append(Variant(LIBRARY, partial(Library, problem), problem.units, cores))
    times = interleave(found, rounds, problem.device)
    convolutions = problem.model._convolutions(problem.data.inputs, problem.data.classes)
    each = [problem.batch_size * c.units * c.inputs * c.side**2 for c in convolutions]
    times[CEILING] = (6 * sum(each) - 2 * each[0]) / speed  # ∂L/∂x of the first layer is not needed
    target = Target(f"{LIBRARY} / {LOOP}", times[LOOP] / times[LIBRARY], 1.0)
    notes = [f"{_count(problem.runs)}; {LOOP} with {few.runs}"]
    return section("convolution", problem.shape, times, times[LOOP], times[CEILING], [target], notes)


def _count(runs: int) -> str:
    return f"{runs} network{'s' * (runs > 1)}"
