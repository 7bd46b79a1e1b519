"""Theory: predictions in closed form, made without seeing any data."""

from threefactors.theory.clock import SeparableFlow, separable_flow
from threefactors.theory.quadratic import excess_loss, stability_limit, stationary_covariance

__all__ = ["SeparableFlow", "excess_loss", "separable_flow", "stability_limit", "stationary_covariance"]
