"""The losses of a stack as measurement sees them, with a hand-written Hessian product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from threefactors.training import kernel, products
from threefactors.training.evaluation import capacity
from threefactors.training.models import MLP, Network, criterion
from threefactors.training.products import StackedProducts

N = TypeVar("N", bound=Network)
BUDGET = 1 << 30  # bytes that the graph of one block of examples may take
GRAPH = 8  # numbers for each example and unit that a graph of the gradient keeps


@dataclass(frozen=True)
class StackLosses(Generic[N]):
    """Per-example losses of R networks: (R, P), (R, B, D), (R, B) → (R, B); differentiable by autograd.

    Batch norm takes its statistics from all B examples, as evaluation does: with the training set given, the
    loss is a function of θ alone.
    """

    model: N
    loss: str
    inputs: int
    classes: int

    def outputs(self, theta: Tensor, x: Tensor, ghosts: int = 1, counted: int | None = None) -> Tensor:
        """(R, B, K). With batch norm, each of ``ghosts`` equal parts of the batch has statistics of its own, taken
        from its first ``counted`` rows (all, if None)."""
        return self.model.forward(theta, x.flatten(2), self.classes, ghosts, counted)

    def criterion(self, outputs: Tensor, y: Tensor) -> Tensor:
        return criterion(self.loss, outputs, y)

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.outputs(theta, x), y)

    @property
    def perceptron(self) -> MLP:
        """The model, where its passes are written out by hand; refuses any other."""
        if not isinstance(self.model, MLP):
            raise ValueError(
                f"passes by hand are written for an MLP, not for {type(self.model).__name__}; use engine='autograd'"
            )
        return self.model

    def in_c(self, theta: Tensor) -> bool:
        """Whether the C kernels do the work: on a CPU with a compiler at hand.

        Against batched products in PyTorch they were 3.4 times as fast at width 128 with batch norm (S = 128, two
        threads), 2.2 at 256, 1.5 at 512 and still 1.2 at 1024.
        """
        if not isinstance(self.model, MLP) or theta.device.type != "cpu":
            return False
        return len(self.model.hidden) < kernel.MAX_DEPTH and kernel.available(theta.dtype)

    def hessian_products(self, theta: Tensor, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """v (R, P) → Hv (R, P), H the Hessian of the mean loss; θ's own passes are done once, here.

        Pearlmutter's R-operator, R{f} = ∂/∂ε f(θ + εv) at ε = 0, applied by hand to both passes (Pearlmutter 1994,
        doi:10.1162/neco.1994.6.1.147). ReLU has R{h} = [z > 0] R{z}; batch norm has
        R{ẑ} = (R{z} − ⟨R{z}⟩ − ẑ⟨ẑ R{z}⟩)/σ and R{1/σ} = −⟨ẑ R{z}⟩/σ². Networks other than perceptrons are
        differentiated twice.
        """
        x = x.flatten(2)
        if not isinstance(self.model, MLP):
            return self.differentiated_products(theta, x, y)
        if self.in_c(theta):
            widths = self.model.widths(self.inputs, self.classes)
            return kernel.HessianProducts(widths, self.model.batch_norm, self.loss, theta, x, y)
        return self.stacked_products(theta, x, y)

    def differentiated_products(self, theta: Tensor, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """The same for any network, by autograd: Hv = ∇(gᵀv), from a graph of g that is kept between products.

        Where that graph would take more than BUDGET and no batch norm ties the examples together, it is made anew
        for each block of examples and each product: H = Σ_blocks (B_b/B) H_b.
        """
        each = GRAPH * self.model.units(self.inputs, self.classes) * theta.element_size() * len(theta)
        block = max(1, BUDGET // each) if self.model.batch_norm is None else x.shape[1]
        room, least = capacity(theta.device), each * block // 2  # convolutional stacks took 3.4 to 4.4 of the 8 numbers
        if least > room:
            raise MemoryError(
                f"the graph of {x.shape[1]} examples and {len(theta)} networks takes {least / 2**30:.3g} GiB or more, "
                f"since batch norm ties the examples together, and {theta.device} has {room / 2**30:.3g} GiB; "
                f"use examples={room * len(theta) // each} or fewer for curvature, of one network at a time"
            )

        def linearized(x: Tensor, y: Tensor, share: float) -> Callable[[Tensor], Tensor]:
            with torch.enable_grad():
                at = theta.detach().requires_grad_()
                loss = self(at, x, y).mean(1).sum() * share
                (gradient,) = torch.autograd.grad(loss, at, create_graph=True)

            def product(v: Tensor) -> Tensor:
                if not gradient.requires_grad:  # linear in θ
                    return torch.zeros_like(v)
                (hv,) = torch.autograd.grad(gradient, at, v, retain_graph=True, materialize_grads=True)
                return hv

            return product

        if block >= x.shape[1]:
            return linearized(x, y, 1.0)

        def product(v: Tensor) -> Tensor:
            blocks = zip(x.split(block, 1), y.split(block, 1), strict=True)
            return torch.stack([linearized(a, b, b.shape[1] / y.shape[1])(v) for a, b in blocks]).sum(0)

        return product

    def stacked_products(self, theta: Tensor, x: Tensor, y: Tensor) -> StackedProducts:
        """The same in plain PyTorch, for every device and width; on a GPU, each product is one launch."""
        return StackedProducts(self.perceptron, self.loss, theta, x, y, self.classes)

    def curvature_bytes(self, examples: int, dtype: torch.dtype) -> int:
        """Bytes that one run takes while it is multiplied by its Hessian on that many examples, at the most.

        In plain PyTorch, where a whole chunk of runs is linearized at once; the C kernel works run by run.
        """
        model, size = self.model, dtype.itemsize
        if isinstance(model, MLP):
            return products.numbers(model, self.inputs, self.classes, examples) * size
        graph = GRAPH * model.units(self.inputs, self.classes) * examples * size
        vectors = 5 * model.parameters(self.inputs, self.classes) * size
        return vectors + (graph if model.batch_norm is not None else min(graph, BUDGET))
