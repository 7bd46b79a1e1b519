"""The only source of randomness: a generator is named by a seed and a stream.

Initialisation, data order, label noise, gradient noise and probe vectors each have a stream of
their own. So a run draws the same numbers whatever else happens beside it in its stack, and
changing how one thing is drawn leaves all the others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


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
