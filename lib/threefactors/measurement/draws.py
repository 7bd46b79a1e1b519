"""Random vectors that start an iteration or probe a matrix: the same for a seed on every device.

Up to COUNTED parameters they are drawn by each run's generator on the CPU. For larger networks that would take
longer than the products they are for; there the generator gives one number, a key, and the device on which the
network lies evaluates signs by counting (see `_rng.counted`): a pure function in integers, with the same result
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from threefactors._rng import counted, key
from threefactors.measurement.operators import StackOperator

COUNTED = 100_000
"""Parameters of a network above which its vectors are counted signs."""


def starts(op: StackOperator, generators: Sequence[torch.Generator]) -> Tensor:
    """Vectors (R, P) to start from, the same numbers in every dtype: standard normal, signs where P > COUNTED."""
    if op.shape[1] > COUNTED:
        return rademacher(op, generators)
    draws = [torch.randn(op.shape[1], generator=g, dtype=torch.float64) for g in generators]
    return torch.stack(draws).to(op.device, op.dtype)


def rademacher(op: StackOperator, generators: Sequence[torch.Generator]) -> Tensor:
    """Vectors of random signs (R, P): E[v vᵀ] = I, and v_i² = 1 exactly."""
    return next(signs(op, generators, 1))


def signs(op: StackOperator, generators: Sequence[torch.Generator], count: int) -> Iterator[Tensor]:
    """`count` draws of `rademacher`, one after another; all that the device needs for them is sent there at once."""
    P = op.shape[1]
    if P > COUNTED:
        keys = torch.stack([torch.randint(2**63 - 1, (count,), generator=g) for g in generators]).to(op.device)
        places = torch.arange(P, device=op.device)
        for j in range(count):
            bit = (counted(keys[:, j, None], places) >> 62) & 1  # the leading one: of the best quality
            yield (2 * bit - 1).to(op.dtype)
        return
    draws = torch.stack([torch.randint(2, (count, P), generator=g).to(torch.int8) for g in generators], 1)
    for draw in draws.to(op.device):
        yield (2 * draw - 1).to(op.dtype)


def spares(op: StackOperator, generators: Sequence[torch.Generator]) -> Tensor:
    """Vectors (R, P), uniform in [−1, 1), to go on with should an iteration break down.

    Named by what each generator was seeded with, and not drawn from it: rarely needed, they shift no later draw.
    """
    keys = torch.tensor([key(g.initial_seed(), "spare") for g in generators], device=op.device)
    drawn = counted(keys[:, None], torch.arange(op.shape[1], device=op.device))
    return (drawn.to(torch.float64) * 2.0**-62 - 1).to(op.dtype)


def check_generators(generators: Sequence[torch.Generator], runs: int) -> None:
    """One generator of its own for each run, or a run would depend on its neighbors."""
    if len(generators) != runs:
        raise ValueError(f"{len(generators)} generators for {runs} runs; use one generator per run")
    if len({id(g) for g in generators}) != runs:
        raise ValueError(f"generators holds one generator twice; use {runs} different ones, one per run")
