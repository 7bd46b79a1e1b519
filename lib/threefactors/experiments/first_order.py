"""What first derivatives of a perceptron know of C and G: products and traces, written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threefactors.experiments.probes import When
from threefactors.measurement import StackOperator
from threefactors.training import Trainer
from threefactors.training.losses import StackLosses
from threefactors.training.models import Layer
from threefactors.training.passes import Pass, Workspace, backward, forward


@dataclass(frozen=True)
class FirstOrder:
    """C and G of perceptrons without batch normalization, as products written out by hand.

    The gradient of example i in a layer is (h_i, 1) ⊗ δ_i, so that a product with C takes two matrix products a layer:

        s_i = g_iᵀv = Σ_layers (h_iᵀV + b)·δ_i,     C v = (1/N) Σ_i (s_i − s̄) (h_i, 1) ⊗ δ_i,

    and one with G a forward pass of J v and a backward pass of (∇²_out ℓ) J v. One run at a time, that is about
    twice as fast as the graphs of ``measurement.operators``, which serve every loss; the tests hold the two together.
    Arguments, and errors, as for ``traces``.
    """

    losses: StackLosses
    theta: Tensor
    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        _refuse_batch_norm(self.losses)

    def covariance(self) -> StackOperator:
        """C = (1/N) Σ_i g_i g_iᵀ − g gᵀ."""

        def linearize(rows: Tensor) -> Callable[[Tensor], Tensor]:
            layers, trace, y, room = self._forward(rows)
            backward(layers, trace, _residual(self.losses, trace.outputs, y), room)
            n = y.shape[1]

            def product(v: Tensor) -> Tensor:
                parts = zip(trace.inputs, trace.deltas, self._layers(v), strict=True)
                s = torch.stack([((h @ along.weight + along.shift) * d).sum(-1) for h, d, along in parts]).sum(0)
                s = (s - s.mean(1, keepdim=True)).unsqueeze(-1) / n
                return self._gather(trace.inputs, [s * d for d in trace.deltas], v)

            return product

        return self._operator(linearize)

    def gauss_newton(self) -> StackOperator:
        """G = (1/N) Σ_i J_iᵀ (∇²_out ℓ_i) J_i."""

        def linearize(rows: Tensor) -> Callable[[Tensor], Tensor]:
            layers, trace, y, room = self._forward(rows)
            gates = [(h > 0).to(h.dtype) for h in trace.inputs[1:]]
            p = trace.outputs.softmax(-1)

            def product(v: Tensor) -> Tensor:
                along = self._layers(v)
                change = trace.inputs[0] @ along[0].weight + along[0].shift
                for h, gate, layer, to in zip(trace.inputs[1:], gates, layers[1:], along[1:], strict=True):
                    change = h @ to.weight + to.shift + (gate * change) @ layer.weight
                if self.losses.loss == "cross-entropy":  # ∇²_out ℓ = diag(p) − ppᵀ
                    change = p * (change - (p * change).sum(-1, keepdim=True))
                backward(layers, trace, change / y.shape[1], room)
                return self._gather(trace.inputs, trace.deltas, v)

            return product

        return self._operator(linearize)

    def _forward(self, rows: Tensor) -> tuple[list[Layer], Pass, Tensor, Workspace]:
        room = Workspace()
        layers = self._layers(self.theta[rows])
        return layers, forward(self.losses.model, layers, self.x[rows], room), self.y[rows], room

    def _layers(self, v: Tensor) -> list[Layer]:
        return self.losses.perceptron.layers(v, self.losses.inputs, self.losses.classes)

    def _gather(self, inputs: list[Tensor], deltas: list[Tensor], like: Tensor) -> Tensor:
        """Σ_i (h_i, 1) ⊗ δ_i, layer by layer, in the order of θ."""
        out = torch.empty_like(like)
        for h, d, to in zip(inputs, deltas, self._layers(out), strict=True):
            torch.bmm(h.mT, d, out=to.weight)
            torch.sum(d, 1, keepdim=True, out=to.shift)
        return out

    def _operator(self, linearize: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> StackOperator:
        R, P = self.theta.shape
        # one run at a time, since batched products round by where a run lies in its batch
        return StackOperator((R, P), self.theta.dtype, self.theta.device, linearize, chunk=1)


def _residual(losses: StackLosses, outputs: Tensor, y: Tensor) -> Tensor:
    """∇_out ℓ (R, N, K): p − e_y for cross-entropy, z − e_y for squared loss."""
    labels = torch.eye(losses.classes, dtype=outputs.dtype, device=outputs.device)
    return (outputs.softmax(-1) if losses.loss == "cross-entropy" else outputs) - labels[y]


def _refuse_batch_norm(losses: StackLosses) -> None:
    if losses.model.batch_norm is not None:
        raise ValueError(
            f"batch_norm={losses.model.batch_norm} ties the examples of a batch together, so that none has a gradient "
            "of its own; use a network with batch_norm=None"
        )


def traces(losses: StackLosses, theta: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Exact traces for each run (R,), from norms of per-example gradients that are never formed.

    The gradient of one example in the weights and biases of a layer is (h, 1) ⊗ δ, with the squared norm
    (‖h‖² + 1)‖δ‖². Write ∇²_out ℓ_i = Σ_c a_ic a_icᵀ: for cross-entropy a_ic = √p_ic (p_i − e_c), for squared loss e_c.

        second_moment    (1/N) Σ_i ‖g_i‖²          trace_c  second_moment − ‖g‖²
        trace_g          (1/N) Σ_ic ‖J_iᵀa_ic‖²     noise_ratio  second_moment/trace_g
        noise_ratio_last          the same quotient for the parameters of the last layer alone
        residual_squared          (1/N) Σ_i ‖∇_out ℓ_i‖²
        output_curvature          (1/N) Σ_ic ‖a_ic‖², the mean of Tr ∇²_out ℓ_i

    theta (R, P), x (R, N, D), y (R, N). Raises ValueError for batch normalization.
    """
    _refuse_batch_norm(losses)
    rows = [_traces(losses, theta[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in range(len(theta))]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True)
class NoiseTrace:
    """noise_trace: Tr C of single examples drawn with replacement, exact, over the whole training set.

    For plain sampling it is what ``GradientNoise`` estimates from batches. Not under batch normalization.
    """

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        chosen = list(runs)
        x = trainer.data.x_train.flatten(1).double()
        theta, y = trainer.theta[chosen].double(), trainer.labels[chosen]
        return {"noise_trace": noise_traces(trainer.losses, theta, x.expand(len(chosen), *x.shape), y)}


def noise_traces(losses: StackLosses, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Only trace_c of ``traces`` (R,), for one backward pass in place of one for each class."""
    _refuse_batch_norm(losses)
    rows = [_squares(losses, theta[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in range(len(theta))]
    return torch.stack([each.sum() - mean for each, mean in rows])


def _squares(losses: StackLosses, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(1/N) Σ ‖g_i‖² of each layer, and ‖g‖² of all."""
    layers, room = losses.perceptron.layers(theta, losses.inputs, losses.classes), Workspace()
    trace = forward(losses.model, layers, x, room)
    backward(layers, trace, _residual(losses, trace.outputs, y), room)
    n, parts = x.shape[1], list(zip(trace.inputs, trace.deltas, strict=True))
    layer = torch.stack([((h.square().sum(-1) + 1) * d.square().sum(-1)).mean() for h, d in parts])
    steps = torch.stack([(h.mT @ d / n).square().sum() + d.mean(1).square().sum() for h, d in parts])
    return layer, steps.sum()


def _traces(losses: StackLosses, theta: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    layers, room = losses.perceptron.layers(theta, losses.inputs, losses.classes), Workspace()
    trace = forward(losses.model, layers, x, room)
    sizes = [h.square().sum(-1) + 1 for h in trace.inputs]

    def squared_norms(d: Tensor) -> Tensor:
        """Mean over examples of the squared norms that d (1, N, K) at the outputs makes, layer by layer."""
        backward(layers, trace, d, room)
        return torch.stack([(s * delta.square().sum(-1)).mean() for s, delta in zip(sizes, trace.deltas, strict=True)])

    labels = torch.eye(losses.classes, dtype=theta.dtype, device=theta.device)
    residual = _residual(losses, trace.outputs, y)
    if losses.loss == "cross-entropy":
        p = trace.outputs.softmax(-1)
        factors = [p[..., c : c + 1].sqrt() * (p - label) for c, label in enumerate(labels)]
    else:
        factors = [label.expand_as(residual) for label in labels]
    curvature = torch.stack([squared_norms(a) for a in factors]).sum(0)
    moment, gradient_squared = _squares(losses, theta, x, y)
    return {
        "train_loss": losses.criterion(trace.outputs, y).mean(),
        "second_moment": moment.sum(),
        "gradient_squared": gradient_squared,
        "trace_c": moment.sum() - gradient_squared,
        "trace_g": curvature.sum(),
        "noise_ratio": moment.sum() / curvature.sum(),
        "noise_ratio_last": moment[-1] / curvature[-1],
        "residual_squared": residual.square().sum(-1).mean(),
        "output_curvature": torch.stack([a.square().sum(-1).mean() for a in factors]).sum(),
    }
