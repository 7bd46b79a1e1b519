"""Streams of a run's random numbers: from a generator on the CPU, or counted on the device where the data lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from threefactors._rng import counted, generator, key


class Generated:
    """Numbers of a generator on the CPU, one after another."""

    def __init__(self, seed: int, stream: str) -> None:
        self.generator = generator(seed, stream)

    def permutations(self, n: int, passes: int) -> Tensor:
        """So many orders (passes, n) of 0 … n − 1, each equally likely."""
        return torch.stack([torch.randperm(n, generator=self.generator) for _ in range(passes)])

    def integers(self, n: int, shape: Sequence[int]) -> Tensor:
        """Uniform in 0 … n − 1."""
        return torch.randint(n, tuple(shape), generator=self.generator)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform in [0, 1), float64."""
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float64)

    def choices(self, chances: Tensor, count: int) -> Tensor:
        """Places of ``chances`` (n,), which sum to 1, each drawn with its chance."""
        return torch.multinomial(chances, count, replacement=True, generator=self.generator)

    def state(self) -> Tensor:
        return self.generator.get_state()

    def restore(self, state: Tensor | int) -> None:
        if not isinstance(state, Tensor):
            raise ValueError(f"state {state!r} counts draws, but these come from a generator; restore the run's own")
        self.generator.set_state(state)


class Counted:
    """The same as pure functions of the run's key and of how often was drawn: no state but that number.

    Made on ``device`` without a look at any value, and equal on every device: whole numbers all the way, but for
    ``uniform``, whose division by 2⁵³ is exact. A permutation sorts n counted numbers, which are all different but for
    a chance of n²/2⁶⁴; the sort is stable, so that even then no device differs from another. For n = 50 000 that took
    3 ms of a CPU where ``torch.randperm`` takes 0.2 ms, and an epoch of a perceptron of 256³ units about half a second.
    """

    def __init__(self, seed: int, stream: str, device: torch.device) -> None:
        self.key, self.drawn = torch.tensor(key(seed, stream)).to(device), 0

    def _numbers(self, shape: Sequence[int]) -> Tensor:
        """Uniform in [0, 2⁶³)."""
        self.drawn += 1
        counters = torch.arange(torch.Size(shape).numel(), device=self.key.device)
        return counted(self.key, self.drawn - 1, counters).view(*shape)

    def permutations(self, n: int, passes: int) -> Tensor:
        (orders,) = permutations([self], n, passes)
        return orders

    def integers(self, n: int, shape: Sequence[int]) -> Tensor:
        return self._numbers(shape) % n  # the first ones are more likely, by a share of n/2⁶³

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return (self._numbers(shape) >> 10).double() * 2.0**-53

    def choices(self, chances: Tensor, count: int) -> Tensor:
        edges = (chances * 2.0**60).long().cumsum(0)  # whole numbers have no rounding that a device could choose
        drawn = torch.searchsorted(edges, self._numbers((count,)) >> 3, right=True)
        return drawn.clamp_(max=len(chances) - 1)

    def state(self) -> int:
        return self.drawn

    def restore(self, state: Tensor | int) -> None:
        if isinstance(state, Tensor):
            raise ValueError("state of a generator, but these draws are counted; restore the run's own")
        self.drawn = state


Stream = Generated | Counted


def permutations(streams: Sequence[Stream], n: int, passes: int) -> list[Tensor]:
    """Orders (passes, n) of each stream: all in one sort a pass, if all are counted and were drawn from equally often.

    For each of the len(streams) · n numbers a sort holds the number, its sorted copy and its place, int64 each, and on
    a GPU as much again to work in: about 40 bytes, 8 of which stay.
    """
    together = [stream for stream in streams if isinstance(stream, Counted)]
    if len(together) < len(streams) or len({stream.drawn for stream in together}) > 1:
        return [stream.permutations(n, passes) for stream in streams]
    keys = torch.stack([stream.key for stream in together]).unsqueeze(1)
    places = torch.arange(n, device=keys.device)
    start = together[0].drawn
    orders = [counted(keys, start + i, places).argsort(dim=1, stable=True) for i in range(passes)]
    for stream in together:
        stream.drawn += passes
    return list(torch.stack(orders, 1))
