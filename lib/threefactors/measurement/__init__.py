"""Measurement: curvature of a stack of networks, seen only through their per-example losses.

operators  Hessian, Gauss–Newton and gradient covariance as matrices to multiply by
krylov     Lanczos recursion run by run, for CPUs
stacked    the same for all runs at once without a look at a number, for GPUs
lanczos    the largest eigenvalues by either
moments    trace and Frobenius norm
curvature  all of these in one pass through the stack
draws      the random vectors that they begin with
spectrum   spectral density
sharpness  measures that a rescaling of the weights leaves alone
"""

from threefactors.measurement.curvature import Curvature, curvature
from threefactors.measurement.lanczos import Eigenpairs, top_eigenvalues
from threefactors.measurement.moments import frobenius_squared, moments, trace
from threefactors.measurement.operators import StackOperator, gauss_newton, gradient_covariance, hessian
from threefactors.measurement.sharpness import adaptive_sharpness, normalized_sharpness
from threefactors.measurement.spectrum import Quadrature, spectral_density

__all__ = [
    "Curvature",
    "Eigenpairs",
    "Quadrature",
    "StackOperator",
    "adaptive_sharpness",
    "curvature",
    "frobenius_squared",
    "gauss_newton",
    "gradient_covariance",
    "hessian",
    "moments",
    "normalized_sharpness",
    "spectral_density",
    "top_eigenvalues",
    "trace",
]
