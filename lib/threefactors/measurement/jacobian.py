"""Curvature of single examples: their Hessians as products, and the inner products of all their output gradients.

Everything here rests on one observation: an example is a run of its own. Put B copies of θ beside each other and give
each one example, and whatever is known of a stack of runs holds for the examples of one run. With squared loss the
Hessian of example i is Q_i = J_iᵀJ_i + Σ_k (z_ik − y_ik) ∇²z_ik, J_i = ∂ outputs_i/∂θ (K, P); where the labels are
fitted, the second part is gone. All Q_i together then are known from the Gram matrix J Jᵀ (BK, BK), J (BK, P) with one
row for each example and output, however large P is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefactors._types import Losses
from threefactors.measurement.operators import StackOperator, evaluate, hessian, vjp

BUDGET = 1 << 28  # bytes of rows of J that are held at once


def example_hessians(losses: Losses, theta: Tensor, x: Tensor, y: Tensor) -> StackOperator:
    """The Hessians Q_i = ∇²ℓ_i of the B examples of one network, as a stack of B matrices P × P.

    theta (P,), x (B, ...), y (B,). Exact, with the part of second order, where ℓ is twice differentiable. Their mean is
    the Hessian of the mean loss. Errors: ValueError for shapes that do not fit, and where the outputs of an example
    depend on the others (batch normalization), so that no example has a loss of its own.
    """
    _check(losses, theta.unsqueeze(0), x)
    return hessian(losses, theta.expand(len(x), -1), x.unsqueeze(1), y.unsqueeze(1))


def example_products(
    losses: Losses, theta: Tensor, x: Tensor, y: Tensor, *, at_once: int = 16
) -> Callable[[NDArray[np.float64]], Iterator[NDArray[np.float64]]]:
    """V (P, c) ↦ chunks (b, P, c) of the products Q_i V, for ``at_once`` examples at a time; never a P × P matrix.

    Arguments and errors as ``example_hessians``; ValueError for at_once < 1.
    """
    if at_once < 1:
        raise ValueError(f"at_once={at_once} examples; use at_once >= 1")
    op = example_hessians(losses, theta, x, y)

    def products(V: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        columns = torch.as_tensor(V).to(theta)
        for rows in torch.arange(len(x)).split(at_once):
            part = op.rows(rows) @ columns.expand(len(rows), *columns.shape)
            yield part.cpu().double().numpy()

    return products


def jacobian_gram(losses: Losses, theta: Tensor, x: Tensor, *, budget: int = BUDGET) -> Tensor:
    """Gram matrix of the output gradients, G = J Jᵀ (R, BK, BK), rows ordered by example, then by output.

    theta (R, P), x (B, ...), the same for all runs. G/B has the eigenvalues of the Gauss–Newton matrix of squared loss
    that are not 0, and its diagonal blocks those of the single examples. K backward passes for each block of examples
    whose rows fit into half the ``budget`` of bytes; with more than one block, one pass for each pair of blocks.
    Errors: as ``example_hessians``.
    """
    _check(losses, theta, x)
    each = theta.shape[1] * theta.element_size() * losses.outputs(theta[:1], x[None, :1]).shape[-1]
    blocks = x.split(max(1, budget // (2 * each)))
    return torch.stack([_gram(losses, one, blocks) for one in theta.detach()])


def _gram(losses: Losses, theta: Tensor, blocks: tuple[Tensor, ...]) -> Tensor:
    """(BK, BK) of one network θ (P,)."""
    strips = []
    for a, block in enumerate(blocks):
        rows = _rows(losses, theta, block)
        others = [rows @ (rows if b == a else _rows(losses, theta, blocks[b])).T for b in range(a, len(blocks))]
        strips.append(others)
    return torch.cat(
        [torch.cat([*(strips[b][a - b].T for b in range(a)), *strips[a]], 1) for a in range(len(blocks))]
    )  # the lower triangle of blocks is the upper one, transposed


def _rows(losses: Losses, theta: Tensor, x: Tensor) -> Tensor:
    """Rows of J (BK, P) for the given examples: K backward passes through B networks of one example each."""
    at, outputs = evaluate(lambda t: losses.outputs(t, x.unsqueeze(1)), theta.expand(len(x), -1).clone())
    one_hot = torch.eye(outputs.shape[-1]).to(outputs)
    rows = [vjp(outputs, at, unit.expand_as(outputs)) for unit in one_hot]
    return torch.stack(rows, 1).flatten(0, 1)


def _check(losses: Losses, theta: Tensor, x: Tensor) -> None:
    if theta.ndim != 2 or x.ndim < 2 or len(x) < 1 or not theta.is_floating_point():
        raise ValueError(
            f"theta has shape {tuple(theta.shape)} and x {tuple(x.shape)}; use floating (P,) or (R, P), and (B, ...)"
        )
    with torch.no_grad():
        together = losses.outputs(theta[:1], x.unsqueeze(0))[0]
        alone = losses.outputs(theta[:1].expand(len(x), -1), x.unsqueeze(1))[:, 0]
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4 * float(together.abs().max())):
        raise ValueError(
            "the outputs of an example depend on the other examples, so that it has no curvature of its own; "
            "use a network without batch normalization"
        )
