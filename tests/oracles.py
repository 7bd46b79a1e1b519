"""Dense float64 curvature matrices, written down by another road than the library's.

Each is one run at a time, by torch.func (forward over reverse, explicit Jacobians), without a product
with a vector anywhere.
"""

import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev


def _one(losses, x: Tensor, y: Tensor):
    """The per-example losses (B,) of one run as a function of its θ (P,)."""
    return lambda theta: losses(theta[None], x[None], y[None])[0]


def _mean(losses, x: Tensor, y: Tensor):
    return lambda theta: _one(losses, x, y)(theta).mean()


def dense_hessian(losses, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(R, P, P)."""
    runs = zip(theta, x, y, strict=True)
    return torch.stack([hessian(_mean(losses, a, b))(t) for t, a, b in runs])


def dense_gauss_newton(losses, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(R, P, P) as (1/B) Σ_i J_iᵀ H_i J_i, example by example."""
    matrices = []
    for t, a, b in zip(theta, x, y, strict=True):
        outputs = losses.outputs(t[None], a[None])[0]
        jacobians = jacfwd(lambda t, a=a: losses.outputs(t[None], a[None])[0])(t)
        matrix = torch.zeros(len(t), len(t), dtype=t.dtype)
        for z, J, label in zip(outputs, jacobians, b, strict=True):
            H = hessian(lambda z, label=label: losses.criterion(z[None, None], label[None, None])[0, 0])(z)
            matrix += J.T @ H @ J / len(b)
        matrices.append(matrix)
    return torch.stack(matrices)


def per_example_gradients(losses, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(R, B, P)."""
    return torch.stack([jacrev(_one(losses, a, b))(t) for t, a, b in zip(theta, x, y, strict=True)])


def dense_gradient_covariance(losses, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(R, P, P), the population covariance of the rows of the per-example gradients."""
    gradients = per_example_gradients(losses, theta, x, y)
    return torch.stack([torch.cov(g.T, correction=0).reshape(2 * g.shape[1:]) for g in gradients])


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Largest difference of any entry, relative to the largest entry."""
    return float((found - exact).abs().max() / exact.abs().max())
