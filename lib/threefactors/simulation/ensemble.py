"""Many trajectories at once: the loop that every simulator shares.

Trajectories go through the time steps in blocks small enough for the cache, and the blocks are spread over threads.
Each block draws from generators of its own, named by seed, stream and block, so that the numbers do not depend on how
many threads there are. State is kept as (d, n): one row for each component, trajectories side by side, so that
every operation runs along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from threefactors._rng import generator, numpy_generator

Array = NDArray[np.float64]
BLOCK = 4096  # trajectories stepped together


class Draws:
    """Random numbers of one block of trajectories: ``normal`` and ``integers``, and ``numpy`` for all other laws."""

    def __init__(self, seed: int, stream: str, block: int) -> None:
        self.numpy = numpy_generator(seed, f"{stream}/{block}")
        self._torch = generator(seed, f"{stream}/{block}/normal")
        self._kept: dict[tuple[int, ...], tuple[torch.Tensor, NDArray[np.float32], Array]] = {}

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers, in a buffer that the next call for the same shape overwrites.

        Drawn in single precision and widened, because PyTorch does that with vector instructions, in a third of the
        time of NumPy's ziggurat. Each is then good to 7 digits, and none is beyond ±5.8, where one in 10⁸ should be.
        """
        if shape not in self._kept:
            single = np.empty(shape, dtype=np.float32)
            self._kept[shape] = torch.from_numpy(single), single, np.empty(shape)
        tensor, single, out = self._kept[shape]
        tensor.normal_(generator=self._torch)
        out[...] = single
        return out

    def integers(self, high: int, *shape: int) -> NDArray[np.int64]:
        """Whole numbers 0 … high − 1."""
        return self.numpy.integers(high, size=shape)


Advance = Callable[[Array, int], None]
"""Carries x (d, n) from time step t to t + 1, in place."""

Dynamics = Callable[[int, Draws], Advance]
"""(n, draws) → advance, called once for each block; what a block needs (buffers, its sampler's state) it makes here."""


@dataclass(frozen=True, eq=False)
class Path:
    """What was seen of an ensemble: ``means`` (T, k) over trajectories after ``steps`` (T,), and ``final`` (d, n)."""

    steps: NDArray[np.int64]
    means: Array
    final: Array


def simulate(
    dynamics: Dynamics,
    start: ArrayLike,
    steps: int,
    *,
    trajectories: int,
    seed: int,
    stream: str = "simulation",
    observe: Callable[[Array], Array] | None = None,
    at: Sequence[int] | None = None,
    block: int = BLOCK,
    threads: int | None = None,
) -> Path:
    """Carries an ensemble through so many steps from one starting point, looking at it now and then.

    start (d,), or (d, trajectories) for one of its own for each; observe maps x (d, n) to (k, n) (None: x itself), to
    be averaged over trajectories after each of the steps ``at`` (0: the start; None: at the end alone). threads: None
    means as many as PyTorch uses. The same seed, stream and block give the same numbers whatever the threads, and a
    full block the same whatever comes after it.
    Errors: ValueError for no trajectories, negative steps, no threads, or times that do not rise within 0 … steps.
    """
    times = np.asarray([steps] if at is None else at, dtype=np.int64)
    begin = np.asarray(start, dtype=float)
    workers = torch.get_num_threads() if threads is None else threads
    if trajectories < 1 or steps < 0 or block < 1 or workers < 1:
        raise ValueError(
            f"trajectories={trajectories}, steps={steps}, block={block}, threads={threads}: "
            "use >= 1, but for steps >= 0"
        )
    if len(times) == 0 or times[0] < 0 or times[-1] > steps or (np.diff(times) <= 0).any():
        raise ValueError(f"at={times.tolist()} must rise within 0 … steps={steps}")
    if begin.ndim not in (1, 2) or (begin.ndim == 2 and begin.shape[1] != trajectories):
        raise ValueError(f"start has shape {begin.shape}; use (d,) or (d, trajectories={trajectories})")
    if begin.ndim == 1:
        begin = np.broadcast_to(begin[:, None], (len(begin), trajectories))
    final = np.empty(begin.shape)
    seen = set(times.tolist())

    def through(b: int) -> Array:
        """Carries block b to the end; the sums (T, k) of what was observed on the way."""
        columns = slice(b * block, (b + 1) * block)
        x = begin[:, columns].copy()
        advance = dynamics(x.shape[1], Draws(seed, stream, b))
        sums = []
        for t in range(steps + 1):
            if t in seen:
                sums.append((observe(x) if observe else x).sum(axis=1))
            if t < steps:
                advance(x, t)
        final[:, columns] = x
        return np.array(sums)

    blocks = range(-(-trajectories // block))
    if workers > 1 and len(blocks) > 1:  # NumPy and PyTorch release Python's lock while they compute
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(through, blocks))
    else:
        parts = [through(b) for b in blocks]
    return Path(times, np.sum(parts, axis=0) / trajectories, final)
