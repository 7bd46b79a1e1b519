"""Sharpness that does not change where a rescaling of the weights leaves the network the same.

λ_max alone does: a ReLU network computes the same function with (α W_1, W_2/α), and a scale-invariant
one with α W, at any λ_max one likes (Dinh et al., arXiv 1703.04933).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from threefactors.measurement.lanczos import Eigenpairs, top_eigenvalues
from threefactors.measurement.operators import StackOperator
from threefactors.measurement.stacked import Method


def adaptive_sharpness(
    op: StackOperator,
    theta: Tensor,
    *,
    tol: float = 1e-3,
    max_products: int | None = None,
    generators: Sequence[torch.Generator],
    method: Method | None = None,
) -> Eigenpairs:
    """Sharpness in relative changes of each weight: λ_max(diag|θ| H diag|θ|).

    At a minimum, the loss rises by at most ½ρ² times this when each weight changes by ε_i |θ_i|, ‖ε‖ ≤ ρ.
    Unchanged by every rescaling θ → D θ, D diagonal and positive, that leaves the loss the same near θ:
    node by node in ReLU networks, layer by layer, and the global scale. Not unchanged by rotations.

    op            Hessian (or another matrix) of R runs
    theta (R, P)  the weights it was taken at
    tol, max_products, generators, method: as for `top_eigenvalues`, whose errors it raises; vectors is None

    Kwon et al., ASAM, arXiv 2102.11600 (elementwise operator).
    """
    scaled = op.scaled(theta.abs())
    return top_eigenvalues(
        scaled, tol=tol, max_products=max_products, vectors=False, generators=generators, method=method
    )


def normalized_sharpness(theta: Tensor, sharpness: Tensor) -> Tensor:
    """Sharpness (R,) times the squared norm of the weights theta (R, P): ‖θ‖² λ_max.

    Unchanged by θ → αθ where the loss is: L(αθ) = L(θ) gives H(αθ) = H(θ)/α². Changed by all else, also
    by rescaling the layers of a ReLU network against each other. Where only some weights are scale-
    invariant (those before a batch normalization), give these and the sharpness in them alone.
    """
    if sharpness.shape != theta.shape[:1]:
        raise ValueError(
            f"sharpness has shape {tuple(sharpness.shape)} for theta {tuple(theta.shape)}; use one per run"
        )
    return (theta.detach().to(torch.float64) ** 2).sum(1).to(sharpness) * sharpness
