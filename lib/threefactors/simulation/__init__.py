"""Simulation: trajectories of stochastic processes by the thousand, produced without knowing what theory predicts."""

from threefactors.simulation.batches import MeansOfBatches, means_of_batches
from threefactors.simulation.bowl import bowl, height, regression, time_average
from threefactors.simulation.diffusion import euler_maruyama, ornstein_uhlenbeck
from threefactors.simulation.ensemble import Draws, Path, simulate
from threefactors.simulation.finite_sum import finite_sum_sgd, sgd_mean, shadow_variance, shadowed_sgd
from threefactors.simulation.growth import growth_rate, growth_rates
from threefactors.simulation.passage import circulation_rate, first_passage
from threefactors.simulation.quadratic_sums import quadratic_sum
from threefactors.simulation.samplers import (
    Flips,
    Importance,
    Pairs,
    Sampler,
    Uniform,
    sampled_bowl,
    stationary_squares,
)
from threefactors.simulation.wells import DoubleWell, noisy_descent, sojourns

__all__ = [
    "DoubleWell",
    "Draws",
    "Flips",
    "Importance",
    "MeansOfBatches",
    "Pairs",
    "Path",
    "Sampler",
    "Uniform",
    "bowl",
    "circulation_rate",
    "euler_maruyama",
    "finite_sum_sgd",
    "first_passage",
    "growth_rate",
    "growth_rates",
    "height",
    "means_of_batches",
    "noisy_descent",
    "ornstein_uhlenbeck",
    "quadratic_sum",
    "regression",
    "sampled_bowl",
    "sgd_mean",
    "shadow_variance",
    "shadowed_sgd",
    "simulate",
    "sojourns",
    "stationary_squares",
    "time_average",
]
