"""Competitors in training: what one would write in PyTorch without this library, and the library itself.

Each does the steps of a `Problem`: ``reset`` goes back to the start, ``run`` trains, ``theta`` (R, P) is
where it ended, so that the tests can hold all of them to the same numbers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from threefactors.training import Trainer
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, Sampler, TensorDataset

from .problems import LR, Problem, flat


class Loop:
    """(b) One network after another, nn.Sequential and optim.SGD, batches sliced from tensors in memory."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.x, self.y = problem.data.x_train.flatten(1), problem.data.y_train
        self.reset()

    def reset(self) -> None:
        problem = self.problem
        self.orders = problem.orders()
        self.networks = [problem.module() for _ in range(problem.runs)]
        for network, theta in zip(self.networks, problem.theta, strict=True):
            for to, start in zip(network.parameters(), problem.parameters(theta), strict=True):
                to.data = start

    def batches(self, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch."""
        for batch in self.problem.permutation(order):
            yield self.x[batch], self.y[batch]

    def run(self) -> None:
        for network, order in zip(self.networks, self.orders, strict=True):
            optimizer = torch.optim.SGD(network.parameters(), lr=LR)
            for _ in range(self.problem.epochs):
                for x, y in self.batches(order):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(network(x), y).backward()
                    optimizer.step()

    def theta(self) -> Tensor:
        return flat([torch.stack(p) for p in zip(*(n.parameters() for n in self.networks), strict=True)])


class Loader(Loop):
    """(a) The same, with batches from a DataLoader."""

    def batches(self, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        examples = TensorDataset(self.x, self.y)
        size = self.problem.batch_size
        yield from DataLoader(examples, size, sampler=Shuffled(len(self.x), order), drop_last=True)


class Shuffled(Sampler[int]):
    """A permutation an epoch, as RandomSampler, but without its draws besides."""

    def __init__(self, examples: int, order: torch.Generator) -> None:
        self.examples, self.order = examples, order

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.examples, generator=self.order).tolist())


class Processes:
    """(b) in one single-thread process per core, each with networks of its own: the honest baseline."""

    def __init__(self, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.members = [], []
        for _ in range(cores):
            here, there = context.Pipe()
            member = context.Process(target=_serve, args=(there,), daemon=True)
            member.start()
            self.pipes.append(here)
            self.members.append(member)

    def _all(self, command: str, *arguments: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((command, arguments))
        return [pipe.recv() for pipe in self.pipes]

    def take(self, problem: Problem) -> None:
        """What all of them are to train from now on."""
        self._all("take", problem)

    def reset(self) -> None:
        self._all("reset")

    def run(self) -> None:
        self._all("run")

    def theta(self) -> Tensor:
        return torch.from_numpy(self._all("theta")[-1])

    def close(self) -> None:
        for pipe, member in zip(self.pipes, self.members, strict=True):
            pipe.close()  # ends the loop at the other end
            member.join()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    loop: Loop | None = None
    with contextlib.suppress(EOFError):
        while True:
            command, arguments = pipe.recv()
            if command == "take":
                loop, result = Loop(*arguments), None
            else:
                result = getattr(loop, command)()
            pipe.send(None if result is None else result.numpy())


class Vmap:
    """(c) torch.func: per-network gradients of the functional network, mapped over the stack; or that compiled."""

    def __init__(self, problem: Problem, *, compiled: bool = False) -> None:
        self.problem = problem
        self.x, self.y = problem.data.x_train.flatten(1), problem.data.y_train
        network = problem.module()
        self.names = [name for name, _ in network.named_parameters()]

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(functional_call(network, parameters, (x,)), y)

        self.gradients = torch.compile(vmap(grad(loss))) if compiled else vmap(grad(loss))
        self.reset()

    def reset(self) -> None:
        self.parameters = dict(zip(self.names, self.problem.parameters(self.problem.theta), strict=True))
        self.orders = self.problem.orders()

    @torch.no_grad()
    def run(self) -> None:
        moved = list(self.parameters.values())
        for _ in range(self.problem.epochs):
            for batch in torch.stack([self.problem.permutation(order) for order in self.orders], 1):
                gradients = self.gradients(self.parameters, self.x[batch], self.y[batch])
                torch._foreach_add_(moved, [gradients[name] for name in self.names], alpha=-LR)

    def theta(self) -> Tensor:
        return flat(list(self.parameters.values()))


class Library:
    """(e) threefactors; engine None is the library's own choice."""

    def __init__(self, problem: Problem, engine: str | None = None) -> None:
        self.problem, self.engine = problem, engine
        self.reset()

    def reset(self) -> None:
        data = self.problem.data
        self.trainer = Trainer(self.problem.stack, data, dtype=data.x_train.dtype, engine=self.engine)

    def run(self) -> None:
        self.trainer.train()

    def theta(self) -> Tensor:
        return self.trainer.theta
