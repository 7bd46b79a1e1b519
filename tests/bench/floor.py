"""What arithmetic alone costs: the batched matrix products of a step, and the speed of one large product."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .timing import settle


class Layers:
    """Buffers of one pass of R networks over B examples: h, ∂L/∂z, W and its gradient, layer by layer."""

    def __init__(self, widths: Sequence[int], runs: int, batch: int, device: str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(runs, *shape, device=device)

        self.h = [zeros(batch, n) for n in widths]
        self.d = [zeros(batch, n) for n in widths]
        shapes = list(itertools.pairwise(widths))
        self.w, self.dw = ([zeros(*shape) for shape in shapes] for _ in range(2))


class StepProducts:
    """z = h W, dW = hᵀ ∂z and, but for the first layer, ∂h = ∂z Wᵀ, for all networks of the stack."""

    def __init__(self, widths: Sequence[int], runs: int, batch: int, steps: int, device: str = "cpu") -> None:
        self.layers, self.steps = Layers(widths, runs, batch, device), steps

    def reset(self) -> None: ...

    def run(self) -> None:
        h, d, w, dw = self.layers.h, self.layers.d, self.layers.w, self.layers.dw
        for _ in range(self.steps):
            for i in range(len(w)):
                torch.bmm(h[i], w[i], out=h[i + 1])
            for i in reversed(range(len(w))):
                if i:
                    torch.bmm(d[i + 1], w[i].transpose(1, 2), out=d[i])
                torch.bmm(h[i].transpose(1, 2), d[i + 1], out=dw[i])


class CurvatureProducts:
    """The same for a Hessian–vector product by the R-operator, where each of them becomes two.

    R{z} = h V + R{h} W, R{dW} = hᵀ R{∂z} + R{h}ᵀ ∂z, R{∂h} = R{∂z} Wᵀ + ∂z Vᵀ; the passes of θ itself are
    done before, and R{x} = 0 saves one product in the first layer.
    """

    def __init__(
        self, widths: Sequence[int], runs: int, batch: int, chunk: int, products: int, device: str = "cpu"
    ) -> None:
        self.layers, self.along = (Layers(widths, chunk, batch, device) for _ in range(2))
        self.times = runs // chunk * products

    def reset(self) -> None: ...

    def run(self) -> None:
        (h, d, w), (rh, rd, v, out) = (
            (self.layers.h, self.layers.d, self.layers.w),
            (self.along.h, self.along.d, self.along.w, self.along.dw),
        )
        for _ in range(self.times):
            for i in range(len(w)):
                torch.bmm(h[i], v[i], out=rh[i + 1])
                if i:
                    rh[i + 1].baddbmm_(rh[i], w[i])
            for i in reversed(range(len(w))):
                torch.bmm(h[i].transpose(1, 2), rd[i + 1], out=out[i])
                if i:
                    out[i].baddbmm_(rh[i].transpose(1, 2), d[i + 1])
                    torch.bmm(rd[i + 1], w[i].transpose(1, 2), out=rd[i])
                    rd[i].baddbmm_(d[i + 1], v[i].transpose(1, 2))


def step_flops(widths: Sequence[int], batch: int) -> int:
    """Floating-point operations in the products of one model-step."""
    sizes = [2 * batch * a * b for a, b in itertools.pairwise(widths)]
    return 3 * sum(sizes) - sizes[0]


def peak(threads: int, rounds: int = 5, device: str = "cpu") -> float:
    """Operations per microsecond in one large matrix product, which no step can exceed."""
    size = 2048 if device == "cpu" else 8192
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b, out = (torch.ones(size, size, device=device) for _ in range(3))
    torch.mm(a, b, out=out)
    taken = statistics.median(_seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(rounds))
    torch.set_num_threads(before)
    return 2 * size**3 / taken * 1e-6


def _seconds(work: Callable[[], object], device: str) -> float:
    settle(device)
    start = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - start
