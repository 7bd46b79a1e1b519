"""Which quantity predicts a measure? Models compared by held-out R².

A *cell* is one (lr, batch_size) of the grid. Whole cells are left out, one at a time with all their
seeds, so a model is scored on learning rates and batch sizes whose combination it has not seen: that
is what "width depends on η and S only through η/S" promises, and leaving out single runs would let
every model look its answer up in the cell's other seeds. The models carry no term for the seed, so
leaving seeds out as well would add nothing but noise; seeds enter where they matter, in the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from threefactors.inference.estimates import Floats, bootstrap_interval, seed_counts
from threefactors.inference.slopes import log_measure, usable

# log units: a column that varies by less, a percent, was held equal by the protocol; what is left
# of it, such as the overshoot of the last step, is not to be used as a regressor
HELD_EQUAL = 0.01

# the regressors of each model, all entering as logarithms
MODELS: Mapping[str, tuple[str, ...]] = {
    "ratio only": ("ratio",),
    "η only": ("lr",),
    "S only": ("batch_size",),
    "η and S": ("lr", "batch_size"),
    "clock": ("clock",),
    "ratio and clock": ("ratio", "clock"),
}


def held_out_comparison(
    table: pd.DataFrame,
    measure: str,
    models: Mapping[str, Sequence[str]] = MODELS,
    *,
    degree: int = 2,
    level: float = 0.95,
    resamples: int = 1000,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Held-out R² of polynomial models of log measure, with intervals over seeds.

    R² = 1 − Σ (log measure − prediction)² / Σ (log measure − mean of the other cells)², every
    prediction made from the other cells: 0 is no better than knowing nothing, and it can be negative.
    What seeds of one cell differ by no model can predict, so that even the true one stays below 1.

    ``models`` maps a name to columns of the table (``ratio`` is made from lr and batch_size), which enter
    as a full polynomial of ``degree`` 1 or 2 in their logarithms; 2 because log λ_max against log ratio
    is visibly curved. One row a model, in the order given: ``r2, low, high``; ``difference`` to the first
    model with ``difference_low, difference_high``, from the same resamples of seeds and so paired;
    ``same_as``, the models that cannot be told from it on these runs: their regressors span the same
    functions, as clock and ratio do at equal epochs; ``runs, missing, seeds``.

    Errors: ValueError for a degree other than 1 or 2, a measure ≤ 0, fewer than two seeds, or a grid with
    too few cells for a model's coefficients.
    """
    if degree not in (1, 2):
        raise ValueError(f"degree={degree} is not offered; use degree=1 or degree=2")
    if not models:
        raise ValueError("models={} leaves nothing to compare; name at least one")
    table = table.assign(ratio=table["lr"] / table["batch_size"])
    used = sorted({column for columns in models.values() for column in columns})
    good = usable(table, "lr", "batch_size", measure, *used)
    rows = table[good]
    seeds, seed = np.unique(rows["seed"], return_inverse=True)
    cell = rows.groupby(["lr", "batch_size"]).ngroup().to_numpy()
    y = log_measure(table, measure, good)
    counts = np.vstack([np.ones(len(seeds), int), seed_counts(len(seeds), resamples, generator)])

    bases = {name: _basis(rows, columns, degree) for name, columns in models.items()}
    for name, basis in bases.items():
        if basis.shape[1] >= cell.max() + 1:
            raise ValueError(
                f"{name!r} at degree={degree} has {basis.shape[1]} coefficients, but with one "
                f"of {cell.max() + 1} cells left out too few remain; use degree=1 or a larger grid"
            )
    constant = np.full((len(rows), 1), 1 / np.sqrt(len(rows)))
    nothing = _held_out_squares(constant, y, cell, seed, counts)
    r2 = {name: 1 - _held_out_squares(b, y, cell, seed, counts) / nothing for name, b in bases.items()}

    first = next(iter(r2.values()))
    records = []
    for name, draws in r2.items():
        fit = bootstrap_interval(draws[0], draws[1:], level, len(seeds))
        gap = bootstrap_interval(draws[0] - first[0], draws[1:] - first[1:], level, len(seeds))
        twins = [other for other in bases if other != name and _same_span(bases[name], bases[other])]
        records.append(
            {"model": name, "r2": fit.value, "low": fit.low, "high": fit.high}
            | {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
            | {"same_as": ", ".join(twins), "runs": len(rows), "missing": len(table) - len(rows)}
            | {"seeds": len(seeds), "degree": degree, "level": level}
        )
    return pd.DataFrame(records).set_index("model")


def collinearity(table: pd.DataFrame, first: str = "ratio", second: str = "clock") -> float:
    """Squared correlation of the logarithms of two columns; 1: no regression can tell them apart.

    At equal epochs the clock T = Σ η = epochs · N · η/S is the ratio up to a constant, and this is 1;
    at equal clock it does not vary, and this is 0.
    """
    table = table.assign(ratio=table["lr"] / table["batch_size"])
    good = usable(table, first, second)
    x, y = (log_measure(table, column, good) for column in (first, second))
    if min(x.std(), y.std()) < HELD_EQUAL:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def _basis(rows: pd.DataFrame, columns: Sequence[str], degree: int) -> Floats:
    """Orthonormal columns (rows, p) that span the polynomial in the logarithms of the given columns."""
    logs = [log_measure(rows, c, np.full(len(rows), True)) for c in columns]
    # standardized, so that what is numerically dependent shows as a small singular value
    z = [(x - x.mean()) / x.std() if x.std() >= HELD_EQUAL else np.zeros_like(x) for x in logs]
    terms = [np.ones(len(rows)), *z]
    if degree == 2:
        terms += [a * b for a, b in combinations_with_replacement(z, 2)]
    left, singular, _ = np.linalg.svd(np.column_stack(terms), full_matrices=False)
    return left[:, singular > 1e-7 * singular[0]]


def _held_out_squares(basis: Floats, y: Floats, cell: np.ndarray, seed: np.ndarray, counts: np.ndarray) -> Floats:
    """Sum of squared held-out errors in each resample of the seeds: (resamples,)."""
    n, cells, p = counts.shape[1], cell.max() + 1, basis.shape[1]
    # moments of every (seed, cell): a resample with one cell left out is then a weighted sum of them
    block = seed * cells + cell
    gram, cross = np.zeros((n * cells, p, p)), np.zeros((n * cells, p))
    np.add.at(gram, block, basis[:, :, None] * basis[:, None, :])
    np.add.at(cross, block, basis * y[:, None])
    gram = np.tensordot(counts, gram.reshape(n, cells, p, p), axes=1)
    cross = np.tensordot(counts, cross.reshape(n, cells, p), axes=1)
    gram, cross = gram.sum(axis=1, keepdims=True) - gram, cross.sum(axis=1, keepdims=True) - cross
    # the basis is orthonormal, so 1e-12 bites only where the cells left do not identify a coefficient
    coefficients = np.linalg.solve(gram + 1e-12 * np.eye(p), cross[..., None])[..., 0]
    errors = y - np.einsum("brp,rp->br", coefficients[:, cell], basis)
    return np.einsum("br,br->b", counts[:, seed], errors**2)


def _same_span(first: Floats, second: Floats) -> bool:
    if first.shape != second.shape:
        return False
    return bool(np.linalg.svd(first.T @ second, compute_uv=False).min() > 1 - 1e-9)
