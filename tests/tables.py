"""Simulated sweeps with known exponents, for the tests of inference."""

from __future__ import annotations

import numpy as np
import pandas as pd

WIDTHS = ("sharpness", "trace", "frobenius", "normalized_sharpness", "adaptive_sharpness")
LRS, BATCH_SIZES = (0.01, 0.02, 0.04, 0.08), (8, 16, 32, 64)


def sweep(
    rng: np.random.Generator,
    *,
    a: float = -0.4,
    b: float = 0.4,
    noise: float = 0.3,
    slope_sd: float = 0.05,
    accuracy: float = 0.5,
    seeds: int = 8,
    protocol: str = "equal epochs",
) -> pd.DataFrame:
    """Every width ∝ lr^a · batch_size^b, accuracy gaining ``accuracy`` points per tenfold ratio.

    ``noise`` is the spread of one run, ``slope_sd`` that of the seeds' own exponents, and a seed also
    shifts all its runs together: runs of one seed are anything but independent.
    """
    seed, lr, batch_size = (
        x.ravel() for x in np.meshgrid(np.arange(seeds), LRS, np.asarray(BATCH_SIZES), indexing="ij")
    )
    ratio = lr / batch_size
    own = rng.normal(0, slope_sd, size=(seeds, 2))[seed]
    shift = rng.normal(0, 1, size=seeds)[seed]
    table = {"lr": lr, "batch_size": batch_size, "ratio": ratio, "seed": seed}
    for width in WIDTHS:
        log = (a + own[:, 0]) * np.log(lr) + (b + own[:, 1]) * np.log(batch_size) + shift
        table[width] = np.exp(log + rng.normal(0, noise, size=len(seed)))
    table["validation_accuracy"] = (
        0.85 + accuracy / 100 * np.log10(ratio) + 0.01 * (shift / 5 + rng.normal(0, noise, size=len(seed)))
    )
    table["epochs"] = np.full(len(seed), 100.0)
    table["clock"] = 100 * 1000 * ratio if protocol == "equal epochs" else np.full(len(seed), 60.0)
    table["train_loss"] = np.full(len(seed), 0.01)
    flags = {"sharpness_converged": True, "diverged": False, "finished": True}
    return pd.DataFrame(table | {name: np.full(len(seed), value) for name, value in flags.items()})


def shuffled(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The planted null: within each seed, (lr, batch_size) are dealt to the runs at random."""
    order = np.concatenate([rng.permutation(rows) for rows in table.groupby("seed").indices.values()])
    axes = ["lr", "batch_size", "ratio", "clock"]
    return table.assign(**{axis: table[axis].to_numpy()[order] for axis in axes})
