"""Gradients of single examples, seen along a few directions: the population from which a batch is drawn."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from threefactors._types import Losses
from threefactors.measurement.operators import evaluate, pushforward, take_runs


def projections(losses: Losses, theta: Tensor, x: Tensor, y: Tensor, directions: Tensor, *, chunk: int = 4) -> Tensor:
    """Projections of every example's gradient on directions: (R, V, B) with entries g_iᵀ u_v, g_i = ∇ℓ_i(θ).

    theta (R, P), x (R, B, ...), y (R, B), directions u (R, P, V) of any length. g_iᵀu for all examples is one product
    with the Jacobian of the losses, so that no gradient of a single example is ever formed. Exact wherever ℓ_i is
    differentiable. Errors: ValueError where the shapes do not fit. chunk: runs at once; changes no result.
    """
    R = len(theta)
    if theta.ndim != 2 or directions.ndim != 3 or directions.shape[:2] != theta.shape:
        raise ValueError(
            f"directions has shape {tuple(directions.shape)} for theta {tuple(theta.shape)}; use (R, P) and (R, P, V)"
        )
    if x.ndim < 2 or y.ndim < 2 or len(x) != R or len(y) != R or x.shape[1] != y.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; use (R, B, ...) and (R, B), R = {R}")
    parts = []
    for rows in torch.arange(R).split(chunk):
        at, each = evaluate(
            partial(losses, x=take_runs(x, rows), y=take_runs(y, rows)), take_runs(theta.detach(), rows)
        )
        product = pushforward(each, at)
        along = take_runs(directions.detach(), rows)
        parts.append(torch.stack([product(u.contiguous()) for u in along.unbind(-1)], dim=1).detach())
    return torch.cat(parts)
