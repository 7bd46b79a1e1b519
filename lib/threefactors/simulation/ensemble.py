"""Many trajectories at once: the loop that every simulator shares.

Trajectories go through the time steps in blocks small enough for the cache, and the blocks are spread over threads.
Each block draws from generators of its own, named by seed, stream and block, so that the numbers do not depend on how
many threads there are. State is kept as (d, n): one row for each component, trajectories side by side, so that
every operation runs along contiguous memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from threefactors._rng import numpy_generator

Array = NDArray[np.float64]
BLOCK = 4096  # trajectories stepped together


class Draws:
    """Random numbers of one block of trajectories."""

    def __init__(self, seed: int, stream: str, block: int) -> None:
        self.numpy = numpy_generator(seed, f"{stream}/{block}")
        self._kept: dict[tuple[int, ...], Array] = {}

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers, in a buffer that the next call for the same shape overwrites."""
        out = self._kept.get(shape)
        if out is None:
            out = self._kept[shape] = np.empty(shape)
        return self.numpy.standard_normal(out=out)

    def integers(self, high: int, *shape: int) -> NDArray[np.int64]:
        """Whole numbers 0 … high − 1."""
        return self.numpy.integers(high, size=shape)


Advance = Callable[[Array, int], None]
"""Carries x (d, n) from time step t to t + 1, in place."""

Dynamics = Callable[[int, Draws], Advance]
"""(n, draws) → advance, called once for each block; what a block needs (buffers, its sampler's state) it makes here."""


@dataclass(frozen=True, eq=False)
class Path:
    """What was seen of an ensemble: ``means`` (T, k) over all trajectories after ``steps`` (T,), and ``final`` (d, n)."""

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

    start (d,), or (d, trajectories) for one of its own for each; observe maps x (d, n) to (k, n) (None: x itself), to be
    averaged over trajectories after each of the steps ``at`` (None: at the end alone). threads: None means one per core.
    Errors: ValueError for no trajectories, negative steps, or times outside 0 … steps.
    """
    times = np.asarray([steps] if at is None else at, dtype=np.int64)
    begin = np.asarray(start, dtype=float)
    if trajectories < 1 or steps < 0 or block < 1:
        raise ValueError(f"trajectories={trajectories}, steps={steps}, block={block}: use >= 1, >= 0 and >= 1")
    if len(times) == 0 or times.min() < 0 or times.max() > steps or (np.diff(times) <= 0).any():
        raise ValueError(f"at={times.tolist()} must rise within 0 … steps={steps}")
    if begin.ndim not in (1, 2) or (begin.ndim == 2 and begin.shape[1] != trajectories):
        raise ValueError(f"start has shape {begin.shape}; use (d,) or (d, trajectories={trajectories})")
    final = np.empty((len(begin), trajectories))
    look = observe or (lambda x: x)

    def one(b: int) -> Array:
        columns = slice(b * block, min((b + 1) * block, trajectories))
        x = final[:, columns]
        x[:] = begin[:, None] if begin.ndim == 1 else begin[:, columns]
        x = np.ascontiguousarray(x)
        advance = dynamics(x.shape[1], Draws(seed, stream, b))
        sums, t = [], 0
        for until in times:
            for t in range(t, until):  # noqa: B020 (goes on where it stopped)
                advance(x, t)
            t = int(until)
            sums.append(look(x).sum(axis=1))
        for t in range(t, steps):
            advance(x, t)
        final[:, columns] = x
        return np.array(sums)

    blocks = range(-(-trajectories // block))
    workers = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > 1 and len(blocks) > 1:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(one, blocks))
    else:
        parts = [one(b) for b in blocks]
    return Path(times, np.sum(parts, axis=0) / trajectories, final)
