"""The only source of randomness: a generator, or a key to count with, is named by a seed and a stream.

Initialisation, data order, label noise, gradient noise and probe vectors each have a stream of
their own. So a run draws the same numbers whatever else happens beside it in its stack, and
changing how one thing is drawn leaves all the others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # 2⁶⁴/φ, and the mixer's factors


def _entropy(seed: int, stream: str) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed={seed!r} is a {type(seed).__name__}; use an integer")
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # below 2⁶³; torch on a CPU uses the low 32 bits


def generator(seed: int, stream: str) -> torch.Generator:
    """Torch generator on the CPU for the given seed and stream.

    It lives on the CPU on purpose: the same seed then gives the same run on every device.

    >>> a, b = generator(0, "init"), generator(0, "init")
    >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
    True
    """
    return torch.Generator().manual_seed(_entropy(seed, stream))


def numpy_generator(seed: int, stream: str) -> np.random.Generator:
    """NumPy generator for the given seed and stream (resampling, simulators)."""
    return np.random.default_rng(_entropy(seed, stream))


def key(seed: int, stream: str) -> int:
    """The key (63 bit) under which ``counted`` draws for the given seed and stream."""
    return _entropy(seed, stream)


def counted(keys: Tensor, *counters: Tensor | int) -> Tensor:
    """Numbers that are uniform in [0, 2⁶³), a pure function of key and counters: no state, no order of drawing.

        z ← f(z + (c + 1) γ) for each counter c, starting from the key; the upper 63 bits of the last z

    f is the finalizer of splitmix64 and γ the odd number next to 2⁶⁴/φ: along its last counter this is splitmix64
    itself. keys: int64; counters: whole numbers or int64 tensors, broadcast against the keys. In 64-bit integers, which
    wrap around, and on the device of the keys: equal on every device, in any shape and in any parts. Raises TypeError
    for what are no integers. Source: Steele, Lea & Flood, OOPSLA 2014.

    >>> counted(torch.tensor(key(0, "order")), torch.arange(3)) % 100
    tensor([74,  4, 35])
    """
    z = keys
    for counter in counters:
        if isinstance(counter, Tensor):
            if counter.is_floating_point() or keys.is_floating_point():
                raise TypeError(f"counter of type {counter.dtype} for keys of type {keys.dtype}; use torch.int64")
            z = _mixed(z + (counter.long() + 1) * _signed(GOLDEN))
        else:
            z = _mixed(z + _signed((counter + 1) * GOLDEN))  # a number, not a tensor: nothing is copied to a device
    return _shifted(z, 1)


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)).mul_(_signed(FIRST))
    z = (z ^ _shifted(z, 27)).mul_(_signed(SECOND))
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """z >> by of the 64 bits as they stand: int64 would fill up with its sign."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def _signed(n: int) -> int:
    """The int64 that has the same lower 64 bits."""
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)
