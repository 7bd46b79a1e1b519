"""A stacked convolution, each network with filters of its own, in four ways; and which of them is the fastest.

On a CPU a rule decides, with the numbers behind it; on a GPU the fastest is measured at first use, see ``tuning.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from threefactors.training import tuning

T = TypeVar("T")
LANES = 8  # streams of a GPU on which networks run beside each other
GROUPED = 1 << 25  # multiplications a network and batch in the largest convolution, up to which all are grouped
CACHED = 1 << 24  # bytes of the widest layer of all networks that are computed together on a CPU
APART = "apart"  # network after network, each from its first layer to its last

_forced: ContextVar[str | None] = ContextVar("forced", default=None)


@dataclass(frozen=True)
class Shape:
    """What the speed of a stacked convolution depends on: channels in and out, side and stride of the filters, image
    (H, W) in, runs and examples of each."""

    inputs: int
    outputs: int
    side: int
    stride: int
    image: tuple[int, int]
    runs: int
    batch: int

    @property
    def pixels(self) -> int:
        """Pixels of the image that comes out."""
        height, width = ((n - 1) // self.stride + 1 for n in self.image)
        return height * width

    @property
    def connected(self) -> bool:
        """Whether it is a fully connected layer."""
        return self.side == 1 and self.image == (1, 1)

    @property
    def work(self) -> int:
        """Multiplications of one network's forward pass."""
        return self.batch * self.pixels * self.outputs * self.inputs * self.side**2

    def __str__(self) -> str:
        filters = f"{self.inputs}>{self.outputs} {self.side}x{self.side}/{self.stride}"
        return f"{filters} on {self.image[0]}x{self.image[1]}, {self.runs} runs, batch {self.batch}"


def grouped(h: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """One convolution in R groups of channels."""
    flat = None if bias is None else bias.flatten()
    return F.conv2d(h, weight.flatten(0, 1), flat, stride, weight.shape[-1] // 2, groups=len(weight))


def unfolded(h: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """The neighborhoods of all pixels as rows of a matrix, and a batched product with the filters."""
    R, outputs, inputs, side, _ = weight.shape
    rows = h.permute(0, 2, 3, 1).unflatten(3, (R, inputs))
    if side > 1:
        margin = side // 2
        rows = F.pad(rows, (0, 0, 0, 0, margin, margin, margin, margin))
        rows = rows.unfold(1, side, stride).unfold(2, side, stride)
    elif stride > 1:
        rows = rows[:, ::stride, ::stride]
    B, H, W = rows.shape[:3]
    # Channels last in a row: they lie side by side in memory.
    columns = rows.permute(3, 0, 1, 2, *((5, 6, 4) if side > 1 else (4,))).reshape(R, B * H * W, -1)
    filters = weight.permute(0, 3, 4, 2, 1).reshape(R, -1, outputs)
    z = columns @ filters if bias is None else torch.baddbmm(bias.unsqueeze(1), columns, filters)
    z = z.view(R, B, H, W, outputs).permute(1, 2, 3, 0, 4).reshape(B, H, W, R * outputs)
    return z.permute(0, 3, 1, 2)


def mapped(h: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """The convolution of one network, mapped over the stack by torch.func."""
    R, inputs, margin = len(weight), weight.shape[2], weight.shape[-1] // 2

    def one(image: Tensor, filters: Tensor, shift: Tensor | None) -> Tensor:
        return F.conv2d(image, filters, shift, stride, margin)

    over = (1, 0, None if bias is None else 0)
    z: Tensor = torch.func.vmap(one, over, 1)(h.unflatten(1, (R, inputs)), weight, bias)
    return z.flatten(1, 2)


def looped(h: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Network after network; on a GPU on several streams, so that small kernels overlap."""
    margin = weight.shape[-1] // 2

    def one(r: int, image: Tensor) -> Tensor:
        own = image.contiguous(memory_format=torch.channels_last)
        return F.conv2d(own, weight[r], None if bias is None else bias[r], stride, margin)

    images = h.chunk(len(weight), 1)
    parts = side_by_side([partial(one, r, image) for r, image in enumerate(images)], h.device)
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor | None, int], Tensor]] = {
    "grouped": grouped, "unfold": unfolded, "vmap": mapped, "loop": looped,
}  # fmt: skip


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """z (B, R · O, H', W') for images h (B, R · C, H, W), filters (R, O, C, k, k) and bias (R, O): R convolutions of
    ⌊k/2⌋ zeros around, in the fastest way; differentiable twice."""
    R, outputs, inputs, side, _ = weight.shape
    shape = Shape(inputs, outputs, side, stride, (h.shape[2], h.shape[3]), R, len(h))
    return WAYS[way(shape, h)](h, weight, bias, stride)


def way(shape: Shape, like: Tensor) -> str:
    """Which way a convolution takes on the device and in the precision of ``like``.

    Where no gradient is asked for, nothing is measured: a choice made before, else grouped.
    """
    forced = _forced.get()
    if forced in WAYS:
        return forced
    if like.device.type not in tuning.MEASURED:
        return rule(shape)
    if shape.connected:
        return "unfold"  # a batched product, and nothing else
    if shape.runs == 1:
        return "grouped"  # one group
    return tuning.choice(str(shape), _works(shape, like), like, measure=torch.is_grad_enabled()) or "grouped"


def rule(shape: Shape) -> str:
    """The way on a CPU: a fully connected layer is a product of matrices, everything else is grouped, as long as its
        network is not taken apart (see `apart`).

        Measured on two cores with AVX-512, one thread, float32, forward and backward, B = 32, 8 networks (2 in the last
        line), in µs of processor time a network; apart: each by itself, ceiling: as fast as one large product.

    ===================  =======  ======  ======  ======  ======  =======
    convolution          grouped  unfold    vmap    loop   apart  ceiling
    ===================  =======  ======  ======  ======  ======  =======
    64 → 10, connected        64      25      86     177     286        1
    1 → 8 on 8×8              87     287     107     298     330       10
    8 → 16 on 4×4             73     296      95     255     292       38
    16 → 16 on 8×8           267    2079     296     521     538      305
    4 → 4 on 32×32          1179   20095    1211    2070    1561      305
    32 → 32 on 8×8          1302    4808    1404    1385    1319     1219
    8 → 8 on 32×32          2924   35541    2876    3920    2840     1219
    16 → 16 on 32×32        6779   57531    7144    6819    5464     4875
    512 → 512 on 2×2       77911   32292   87997   41448   49835    19269
    ===================  =======  ======  ======  ======  ======  =======
    """
    return "unfold" if shape.connected else "grouped"


def apart(
    key: Callable[[], str], work: int, like: Tensor, trials: Callable[[], dict[str, Callable[[], object]]]
) -> bool:
    """Whether the networks of a stack are computed one after another, each from its first layer to its last.

    On a CPU where the largest convolution has more than GROUPED multiplications a network and batch (``work``): there
    grouped convolutions gain nothing, and a network by itself needs less of the cache. A training step took, together
    and apart, in ms of processor time a network (as above, 4 or 8 networks with batch norm):

    ========================  ========  ========  =====
    network, batch            work      together  apart
    ========================  ========  ========  =====
    8/16 on 8×8, 32           6 · 10⁵        0.6    1.9
    ResNet-56, width 1/4, 32  5 · 10⁶         58    122
    VGG-11, width 1/8, 32     2 · 10⁷        9.1   11.4
    ResNet-8, width 1/4, 128  2 · 10⁷         35     59
    ResNet-8, width 1/2, 128  8 · 10⁷         79     77
    VGG-11, width 1/4, 32     8 · 10⁷         30     30
    VGG-11, width 1/8, 128    8 · 10⁷         44     40
    ResNet-8, 32              8 · 10⁷         53     43
    ========================  ========  ========  =====

    On a GPU ``trials()`` are measured, under this ``key()``, which says what they are.
    """
    forced = _forced.get()
    if forced is not None:
        return forced == APART
    if like.device.type not in tuning.MEASURED:
        return work > GROUPED
    if len(like) == 1:
        return True
    return tuning.choice(key(), trials, like, measure=torch.is_grad_enabled()) == APART


def company(size: int, like: Tensor) -> int:
    """How many networks to compute together, whose widest layers take ``size`` bytes each.

    On a CPU as many as CACHED bytes hold: of VGG-11 at width 1/8 (32 examples, 1 MiB) a step takes 12 ms a network
    with 16 together, 18 ms with 64, and 13 ms apart; of ResNet-8 at width 1/4 (1/2 MiB) 10, 14 and 18 ms. Measured as
    above. On a GPU all of them.
    """
    return max(1, CACHED // size) if like.device.type == "cpu" else len(like) + 1


@contextmanager
def forced(name: str) -> Iterator[None]:
    """All convolutions in one way, for tests and benchmarks: one of WAYS, or ``apart``."""
    if name not in (*WAYS, APART):
        raise ValueError(f"way={name!r} is no way of a stacked convolution; use one of {', '.join((*WAYS, APART))}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def side_by_side(works: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """All works: on a GPU on up to LANES streams, which begin after what was asked for before and are waited for.

    Autograd runs the backward pass of each on its stream as well.
    """
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    here, lanes, done = torch.cuda.current_stream(device), _lanes(device), []
    for lane in lanes:
        lane.wait_stream(here)
    for i, work in enumerate(works):
        with torch.cuda.stream(lanes[i % LANES]):
            done.append(work())
    for lane in lanes:
        here.wait_stream(lane)
    return done


@cache
def _lanes(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(LANES)]


def _works(shape: Shape, like: Tensor) -> Callable[[], dict[str, Callable[[], object]]]:
    """Forward and backward pass of a convolution in each way, on random numbers that are drawn only if needed."""

    def make() -> dict[str, Callable[[], object]]:
        draw = torch.Generator(like.device).manual_seed(0)

        def normal(*sizes: int) -> Tensor:
            return torch.randn(sizes, generator=draw, dtype=like.dtype, device=like.device)

        h = normal(shape.batch, shape.runs * shape.inputs, *shape.image).contiguous(memory_format=torch.channels_last)
        weight = normal(shape.runs, shape.outputs, shape.inputs, shape.side, shape.side)
        leaves = (h.requires_grad_(), weight.requires_grad_())
        return {name: partial(differentiate, one, leaves, None, shape.stride) for name, one in WAYS.items()}

    return make


def differentiate(f: Callable[..., Tensor], leaves: Sequence[Tensor], *others: object) -> object:
    """f and the gradients of ½ Σ f², the cheapest function of f of which nothing can be left out."""
    z = f(*leaves, *others)
    return torch.autograd.grad(z, leaves, z.detach())
