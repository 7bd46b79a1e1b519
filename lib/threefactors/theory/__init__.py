"""Theory: predictions in closed form, made without seeing any data."""

from threefactors.theory.boltzmann import (
    Density,
    circulation,
    finite_step_equation,
    flip_noise,
    free_energy,
    gibbs_density,
    laplace_log_odds,
    stationary_density_1d,
    temperature,
)
from threefactors.theory.clock import SeparableFlow, separable_flow
from threefactors.theory.epochs import crossover, epoch_autocovariance, epoch_variance, plateau
from threefactors.theory.escape import kramers_rate, mean_escape_time
from threefactors.theory.interpolation import one_logit_ratio, softmax_ratio
from threefactors.theory.linear_stability import (
    almost_sure_limit,
    batch_means,
    lyapunov_exponent,
    mean_square_factor,
    mean_square_limit,
    moment_limit,
    stationary_variance,
    tail_exponent,
)
from threefactors.theory.noise import batch_covariance, batch_kurtosis, tail_probability, variance_factor
from threefactors.theory.ou import (
    covariance_at,
    lyapunov_covariance,
    relaxation_time,
    stationary_loss,
    three_factor_loss,
)
from threefactors.theory.quadratic import (
    covariance_after,
    excess_loss,
    relaxation_steps,
    stability_limit,
    stationary_covariance,
)
from threefactors.theory.regression import regression_covariance, regression_excess_loss, regression_limit
from threefactors.theory.second_moment import (
    Limit,
    matrix_free_limit,
    second_moment_covariance,
    second_moment_limit,
    second_moment_radius,
)
from threefactors.theory.stability_bounds import explicit_bounds, line_limit, one_step_limit, simple_limits
from threefactors.theory.terms import Factors
from threefactors.theory.third_factor import (
    added_noise,
    example_noise,
    importance_noise,
    opposite_partners,
    paired_noise,
    quietest_probabilities,
    relabeled_noise,
)
from threefactors.theory.weak import (
    Circle,
    diffusion_expectation,
    equation,
    equation_expectation,
    sgd_expectation,
    whole_steps,
)

__all__ = [
    "Circle",
    "Density",
    "Factors",
    "Limit",
    "SeparableFlow",
    "added_noise",
    "almost_sure_limit",
    "batch_covariance",
    "batch_kurtosis",
    "batch_means",
    "circulation",
    "covariance_after",
    "covariance_at",
    "crossover",
    "diffusion_expectation",
    "epoch_autocovariance",
    "epoch_variance",
    "equation",
    "equation_expectation",
    "example_noise",
    "excess_loss",
    "explicit_bounds",
    "finite_step_equation",
    "flip_noise",
    "free_energy",
    "gibbs_density",
    "importance_noise",
    "kramers_rate",
    "laplace_log_odds",
    "line_limit",
    "lyapunov_covariance",
    "lyapunov_exponent",
    "matrix_free_limit",
    "mean_escape_time",
    "mean_square_factor",
    "mean_square_limit",
    "moment_limit",
    "one_logit_ratio",
    "one_step_limit",
    "opposite_partners",
    "paired_noise",
    "plateau",
    "quietest_probabilities",
    "regression_covariance",
    "regression_excess_loss",
    "regression_limit",
    "relabeled_noise",
    "relaxation_steps",
    "relaxation_time",
    "second_moment_covariance",
    "second_moment_limit",
    "second_moment_radius",
    "separable_flow",
    "sgd_expectation",
    "simple_limits",
    "softmax_ratio",
    "stability_limit",
    "stationary_covariance",
    "stationary_density_1d",
    "stationary_loss",
    "stationary_variance",
    "tail_exponent",
    "tail_probability",
    "temperature",
    "three_factor_loss",
    "variance_factor",
    "whole_steps",
]
