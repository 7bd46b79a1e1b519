"""threefactors: which minima does SGD find, and what decides it?

An executable reproduction of "Three Factors Influencing Minima in SGD" (arXiv 1711.04623), and the library under
it. Layers, each of which imports only from those above it::

    _types · _rng · _identity · settings         what all share; the one source of randomness
    _launch                                      many small operations as one: a CUDA graph
    theory                                       predicts
    training      simulation                     produce: networks, and trajectories of a process
    measurement                                  observes; these four are blind to one another
    experiments                                  sweeps, probes, a store that loses nothing
    inference                                    estimates, decisions, claims: theory meets data here
    presentation                                 figures and tables
    publishing                                   chapters executed, gated, made into a site
    cli                                          the command ``threefactors``

Theory and data meet for the first time in inference: a prediction cannot have seen what it predicts.
"""

import logging

from threefactors.experiments import Accuracy, AtClock, Every, Loss, Moments, Result, Sharpness, Spectrum, Weights, run
from threefactors.inference import claims, judge
from threefactors.training import (
    MLP,
    SGD,
    Architecture,
    Clock,
    Constant,
    Custom,
    Epochs,
    Run,
    SquareCycle,
    Step,
    Steps,
    Sweep,
    Task,
    TrainLoss,
    TriangularCycle,
)

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who wants to read along says so: stderr stays empty

__version__ = "0.1.0"
__all__ = [  # noqa: RUF022 (in the order in which one needs them)
    # what is trained, and how
    "MLP", "Architecture", "SGD", "Run", "Sweep", "Task",
    "Constant", "Custom", "SquareCycle", "Step", "TriangularCycle",
    "Clock", "Epochs", "Steps", "TrainLoss",
    # what is measured, and when
    "Accuracy", "AtClock", "Every", "Loss", "Moments", "Sharpness", "Spectrum", "Weights",
    # carrying it out, and judging
    "Result", "run", "claims", "judge",
]  # fmt: skip
