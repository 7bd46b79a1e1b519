"""What is trained in the benchmark: stacks of runs, and what a competitor needs to do the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from threefactors._rng import generator
from threefactors.training import MLP, Dataset, Epochs, Stack, Sweep, Task, load
from torch import Tensor, nn

LR = 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """R networks, each with its own start and its own order of batches, trained for a few epochs.

    All competitors begin at ``theta`` and draw batches from ``orders()``, so that they do the same steps.
    """

    shape: str
    data: Dataset
    model: MLP
    batch_size: int
    epochs: int
    runs: int

    def first(self, runs: int) -> Problem:
        """The same with fewer networks, for competitors that take them one after another."""
        return Problem(self.shape, self.data, self.model, self.batch_size, self.epochs, runs)

    @property
    def batches(self) -> int:
        """Steps in an epoch."""
        return len(self.data.x_train) // self.batch_size

    @property
    def units(self) -> int:
        """Model-steps: steps summed over networks."""
        return self.runs * self.epochs * self.batches

    @property
    def widths(self) -> tuple[int, ...]:
        return self.model.widths(self.data.inputs, self.data.classes)

    @cached_property
    def stack(self) -> Stack:
        task = Task(self.data.name, self.model)
        seeds, until = range(self.runs), Epochs(self.epochs)
        return Stack(Sweep.grid(task, lr=LR, batch_size=self.batch_size, seed=seeds, until=until).runs)

    @cached_property
    def theta(self) -> Tensor:
        """Initial parameters (R, P)."""
        sizes, dtype = (self.data.inputs, self.data.classes), self.data.x_train.dtype
        starts = [self.model.initial(*sizes, generator(run.seed, "init"), dtype) for run in self.stack.runs]
        return torch.stack(starts).to(self.device)

    @property
    def device(self) -> str:
        """Where it is trained."""
        return str(self.data.x_train.device)

    def orders(self) -> list[torch.Generator]:
        """For each network the generator whose permutations are its epochs; on a GPU, one of the GPU's own."""
        if self.device == "cpu":
            return [generator(run.seed, "order") for run in self.stack.runs]
        return [torch.Generator(self.device).manual_seed(run.seed) for run in self.stack.runs]

    def permutation(self, order: torch.Generator) -> Tensor:
        """Batches (steps, S) of the coming epoch."""
        shuffled = torch.randperm(len(self.data.x_train), generator=order, device=order.device)
        return shuffled[: self.batches * self.batch_size].view(self.batches, self.batch_size)

    def module(self) -> nn.Sequential:
        """The network as a user of PyTorch would write it."""
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            last = i == len(self.model.hidden)
            norm = self.model.batch_norm is not None and not last
            layers.append(nn.Linear(fan_in, fan_out, bias=not norm))
            if norm:  # without running averages, which the library does not keep either
                layers.append(nn.BatchNorm1d(fan_out, track_running_stats=False))
            if not last:
                layers.append(nn.ReLU())
        return nn.Sequential(*layers).to(self.data.x_train)

    def parameters(self, theta: Tensor) -> list[Tensor]:
        """Copies of θ (..., P) cut into the parameters of ``module``: W (..., out, in) and vectors."""
        parts, at = [], 0
        for parameter in self.module().parameters():
            part = theta[..., at : at + parameter.numel()]
            at += parameter.numel()
            if parameter.ndim == 2:  # θ holds W (in, out)
                part = part.unflatten(-1, parameter.T.shape).transpose(-1, -2)
            parts.append(part.clone(memory_format=torch.contiguous_format))
        return parts


def flat(parameters: list[Tensor]) -> Tensor:
    """θ (R, P) from stacked parameters: weights (R, out, in) and vectors (R, out)."""
    return torch.cat([(p.transpose(1, 2) if p.ndim == 3 else p).flatten(1) for p in parameters], 1).detach()


def digits(batch_size: int, *, runs: int = 100, quick: bool = False, device: str = "cpu") -> Problem:
    """MLP 64-64-64-64-10 on the digits."""
    data = load("digits").to(device)
    data = data.first(256) if quick else data
    epochs = 1 if quick else {8: 1, 64: 2}.get(batch_size, 8)
    return Problem(f"64-64-64-64-10, S={batch_size}", data, MLP((64, 64, 64)), batch_size, epochs, runs)


def wide(
    *, runs: int = 32, quick: bool = False, width: int = 256, batch_size: int = 128, device: str = "cpu",
    batches: int = 10,
) -> Problem:  # fmt: skip
    """MLP 784-256-256-256-10 with batch norm, on Gaussian clouds around ten centers."""
    examples = batch_size * (2 if quick else batches)
    draw = generator(0, "clouds")
    centers = torch.randn(10, 784, generator=draw)
    y = torch.randint(10, (examples,), generator=draw)
    x = centers[y] + 2 * torch.randn(examples, 784, generator=draw)
    data = Dataset("clouds", x, y, x[:10], y[:10], x[:10], y[:10], 10, "drawn anew each time").to(device)
    model = MLP((width,) * 3, batch_norm=batch_size)
    widths = "-".join(map(str, model.widths(784, 10)))
    return Problem(f"{widths} batch norm, S={batch_size}", data, model, batch_size, 1 if quick else 2, runs)
