"""Sums of quadratics to try a theory of stability on: by name, the curvatures of the terms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefactors._rng import numpy_generator

Array = NDArray[np.float64]


def lines() -> dict[str, Array]:
    """One-dimensional problems of 16 terms, curvatures (16,) of mean about 1."""
    quantiles = (np.arange(16) + 0.5) / 16
    return {
        "two values": np.repeat([0.25, 1.75], 8),
        "many values": np.round(-8 * np.log1p(-quantiles)) / 8,  # exponential, rounded so that its sums are few
        "rare steep": np.repeat([0.5, 4.5], [14, 2]),
        "indefinite": np.repeat([-1.0, 3.0], 8),
    }


def spaces() -> dict[str, Array]:
    """Problems in two to ten dimensions, curvatures (n, m, m); the spectrum of their mean is fixed, all else random."""
    rng = numpy_generator(0, "quadratic sums")
    diagonal = rng.gamma(1.0, size=(16, 3))
    diagonal *= np.array([1.0, 0.6, 0.3]) / diagonal.mean(axis=0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    commuting = diagonal[:, :, None] * np.eye(3)
    return {
        "diagonal": commuting,
        "rotated": turn @ commuting @ turn.T,
        "low rank": _products(rng.normal(size=(16, 1, 4)), np.array([1.0, 0.7, 0.5, 0.3])),
        "full": _products(rng.normal(size=(16, 5, 5)), np.linspace(0.3, 1.0, 5)),
        "indefinite": np.diag([1.0, 0.4]) + 0.7 * _reflections(),
        "ten dimensions": _products(rng.normal(size=(32, 2, 10)), np.linspace(0.4, 1.0, 10)),
    }


def flatter(least: float, spread: float = 4.0) -> Array:
    """Four terms in two dimensions, mean diag(1, least), that differ from it by ±√spread times a reflection.

    Two of the reflections swap the axes, so that the terms do not commute; E(Q − Q̄)² = spread · I whatever ``least``.
    """
    return np.diag([1.0, least]) + np.sqrt(spread) * _reflections()


def _reflections() -> Array:
    mirror, swap = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    return np.stack([mirror, -mirror, swap, -swap])


def _products(factors: Array, spectrum: Array) -> Array:
    """A_iᵀA_i of factors (n, r, m), brought to the mean diag(spectrum)."""
    mean = np.einsum("nri,nrj->ij", factors, factors) / len(factors)
    factors = factors @ np.linalg.inv(np.linalg.cholesky(mean)).T * np.sqrt(spectrum)
    return np.einsum("nri,nrj->nij", factors, factors)


def standard_kicks(terms: int) -> Array:
    """Gradients (terms,) at the minimum, of mean 0 and variance 1."""
    g: Array = numpy_generator(0, "kicks").normal(size=terms)
    g -= g.mean()
    return g / g.std()
