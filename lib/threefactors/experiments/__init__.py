"""Experiments: sweeps of runs, what is measured of them, and the store that keeps it."""

from threefactors.experiments.probes import Accuracy, AtClock, Every, Loss, Moments, Sharpness, Spectrum, Weights
from threefactors.experiments.runner import Result, run
from threefactors.experiments.store import Store, StoreError

__all__ = [
    "Accuracy", "AtClock", "Every", "Loss", "Moments", "Result", "Sharpness", "Spectrum", "Store", "StoreError",
    "Weights", "run",
]  # fmt: skip
