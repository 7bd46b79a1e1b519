"""Curvature as matrices one can multiply by: Hessian, Gauss–Newton and gradient covariance.

A network of P parameters has P × P curvature matrices, far too large to write down, but their
products with a vector cost little more than a gradient. A `StackOperator` is R such matrices, one
for each run of a stack. It is worked on a few runs at a time, for two reasons: what a product needs
to remember (the graph of its linearization) then stays bounded, and it stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from threefactors._types import Losses

Product = Callable[[Tensor], Tensor]
"""v ↦ A v for the runs of one linearization, (r, P) → (r, P)."""

CHUNK = 4
"""Runs linearized at once. For MLPs 64-64-64-64-10 on 1152 examples (float32, 2 cores), ms per model
and product were 2.05, 1.81, 1.61, 1.92, 3.89 for 1, 2, 4, 8, 16 runs at once."""

ON_GPU = 64
"""Runs linearized at once on a GPU, which a few small networks do not fill; not tuned by measuring."""

BUDGET = 4 << 30
"""Bytes that the Lanczos vectors of the runs of one chunk may take together, where they are kept in one piece."""


@dataclass(frozen=True)
class StackOperator:
    """R symmetric P × P matrices, known only by their products with vectors.

    >>> op = StackOperator.from_dense(torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]))
    >>> op @ torch.ones(1, 2)
    tensor([[2., 3.]])

    shape      (R, P)
    linearize  run indices (r,) → product of these runs; whoever holds the product holds its graph
    chunk      runs linearized at once; bounds memory, changes no result
    budget     bytes that vectors kept for the runs of one chunk may take; likewise
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    linearize: Callable[[Tensor], Product]
    chunk: int = CHUNK
    budget: int = BUDGET

    @classmethod
    def from_dense(cls, matrices: Tensor, *, chunk: int = CHUNK) -> StackOperator:
        """Operator of the symmetric matrices (R, P, P)."""
        if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
            raise ValueError(f"matrices has shape {tuple(matrices.shape)}; use (R, P, P)")

        def linearize(rows: Tensor) -> Product:
            a = matrices[rows.to(matrices.device)]
            # Not a matrix product: BLAS rounds by memory alignment, which differs from run to run.
            return lambda v: (a * v[:, None, :]).sum(-1)

        return cls((matrices.shape[0], matrices.shape[1]), matrices.dtype, matrices.device, linearize, chunk)

    def product(self) -> Product:
        """Product of all runs at once; the linearization lives as long as the caller keeps it."""
        return self.linearize(torch.arange(self.shape[0]))

    def rows(self, index: Tensor) -> StackOperator:
        """The same matrices for the given runs (r,) only."""
        return replace(self, shape=(len(index), self.shape[1]), linearize=lambda rows: self.linearize(index[rows]))

    def chunks(self, each: int = 0) -> Iterator[tuple[Tensor, StackOperator]]:
        """Pairs of run indices and their operator, `chunk` runs at a time; fewer if a run takes `each` bytes of the
        budget."""
        most = max(1, min(self.chunk, self.budget // max(each, 1)))
        for rows in torch.arange(self.shape[0]).split(most):
            yield rows, self.rows(rows)

    def scaled(self, d: Tensor) -> StackOperator:
        """diag(d) A diag(d) for d (R, P)."""
        if tuple(d.shape) != self.shape:
            raise ValueError(f"d has shape {tuple(d.shape)}; use (R, P) = {self.shape}")

        def linearize(rows: Tensor) -> Product:
            product, scale = self.linearize(rows), d.detach()[rows.to(d.device)]
            return lambda v: scale * product(scale * v)

        return replace(self, linearize=linearize)

    def __matmul__(self, v: Tensor) -> Tensor:
        """A v for v (R, P), or for V vectors at once (R, P, V)."""
        if v.ndim not in (2, 3) or tuple(v.shape[:2]) != self.shape:
            raise ValueError(
                f"v has shape {tuple(v.shape)}; use (R, P) = {self.shape} or (R, P, V) with the same R and P"
            )
        columns = v.unsqueeze(-1) if v.ndim == 2 else v
        parts = [_multiply(part.product(), columns[rows.to(v.device)]) for rows, part in self.chunks()]
        return torch.cat(parts).view(v.shape)

    def dense(self) -> Tensor:
        """The matrices (R, P, P) themselves: P products each, for tests and small P."""
        R, P = self.shape
        return self @ torch.eye(P, dtype=self.dtype, device=self.device).expand(R, P, P)


def hessian(losses: Losses, theta: Tensor, x: Tensor, y: Tensor, *, chunk: int | None = None) -> StackOperator:
    """Hessian of the mean loss: H = ∇² (1/B) Σ_i ℓ_i(θ).

    theta (R, P), x (R, B, ...), y (R, B); the mean is over the B examples given. Exact at every θ
    where ℓ is twice differentiable (for ReLU networks: almost everywhere). Where `losses` has a method
    `hessian_products(theta, x, y)` returning v ↦ H v, it is used; otherwise the product is Pearlmutter's
    ∇(gᵀv) (Neural Computation 6, 1994, doi:10.1162/neco.1994.6.1.147). If that v ↦ H v has a method
    `only(places)`, the same for some of the runs, one linearization serves until other runs are asked for.
    chunk: runs linearized at once; None: CHUNK, and ON_GPU on a GPU.

    Raises ValueError where the shapes do not fit.
    """
    handwritten = getattr(losses, "hessian_products", None)

    def linearize(theta: Tensor, x: Tensor, y: Tensor) -> Product:
        if handwritten is not None:
            return handwritten(theta, x, y)
        # One graph, differentiated once more per product, beat jvp(grad), which runs the network
        # anew each time: 1.6 against 3.3 ms per model and product at the shapes given with CHUNK.
        at, each = evaluate(lambda t: losses(t, x, y), theta)
        gradient = vjp(each, at, _mean_weights(each), create_graph=True)
        return lambda v: vjp(gradient, at, v)

    return stack_operator(linearize, theta, x, y, chunk)


def gauss_newton(losses: Losses, theta: Tensor, x: Tensor, y: Tensor, *, chunk: int | None = None) -> StackOperator:
    """Gauss–Newton matrix of the mean loss: G = (1/B) Σ_i J_iᵀ (∇²_out ℓ_i) J_i.

    theta (R, P), x (R, B, ...), y (R, B); J_i = ∂ output_i/∂θ (K, P). Positive semidefinite where the
    criterion is convex in the outputs, and then for cross-entropy equal to the Fisher information
    (Schraudolph, Neural Computation 14, 2002, doi:10.1162/08997660260028683).

    Raises ValueError where the shapes do not fit.
    """

    def linearize(theta: Tensor, x: Tensor, y: Tensor) -> Product:
        at, outputs = evaluate(lambda t: losses.outputs(t, x), theta)
        z, each = evaluate(lambda z: losses.criterion(z, y), outputs.detach())
        slope = vjp(each, z, _mean_weights(each), create_graph=True)
        jvp = pushforward(outputs, at)
        return lambda v: vjp(outputs, at, vjp(slope, z, jvp(v)))

    return stack_operator(linearize, theta, x, y, chunk)


def gradient_covariance(
    losses: Losses, theta: Tensor, x: Tensor, y: Tensor, *, chunk: int | None = None
) -> StackOperator:
    """Covariance of the per-example gradients: C = (1/B) Σ_i g_i g_iᵀ − g gᵀ.

    That is the uncentered second moment minus the outer product of the mean gradient g, with 1/B (all
    B examples are the population, not a sample). theta (R, P), x (R, B, ...), y (R, B); g_i = ∇ℓ_i.
    Under batch normalization ℓ_i depends on the whole batch, and g_i is the derivative of the i-th loss
    with everything that it depends on.

    Raises ValueError where the shapes do not fit.
    """

    def linearize(theta: Tensor, x: Tensor, y: Tensor) -> Product:
        at, each = evaluate(lambda t: losses(t, x, y), theta)
        jvp, weights = pushforward(each, at), _mean_weights(each)

        def product(v: Tensor) -> Tensor:
            # C v = (1/B) Σ_i (s_i − s̄) g_i with s_i = g_iᵀv: centering s is centering g_i.
            s = jvp(v)
            if s.device.type == "cpu":  # row by row: threads may share a reduction by the size of the whole stack
                return vjp(each, at, weights * torch.stack([row - row.mean() for row in s]))
            return vjp(each, at, weights * (s - s.mean(1, keepdim=True)))

        return product

    return stack_operator(linearize, theta, x, y, chunk)


def _multiply(product: Product, columns: Tensor) -> Tensor:
    """A v for each column of (r, P, V). The graph dies with this call, before the next chunk has one."""
    return torch.stack([product(v.contiguous()) for v in columns.unbind(-1)], dim=-1)


def stack_operator(
    linearize: Callable[[Tensor, Tensor, Tensor], Product], theta: Tensor, x: Tensor, y: Tensor, chunk: int | None
) -> StackOperator:
    if theta.ndim != 2 or not theta.is_floating_point() or theta.numel() == 0:
        raise ValueError(f"theta has shape {tuple(theta.shape)} and {theta.dtype}; use floating (R, P)")
    R = theta.shape[0]
    if x.ndim < 2 or y.ndim < 2 or len(x) != R or len(y) != R or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; use (R, B, ...) and (R, B) "
            f"with R = {R}, the runs of theta (data shared by all runs: x.expand({R}, *x.shape))"
        )
    if x.shape[1] == 0:
        raise ValueError("x holds B=0 examples, which have no mean; use B >= 1")
    if chunk is None:
        chunk = CHUNK if theta.device.type == "cpu" else ON_GPU
    if chunk < 1:
        raise ValueError(f"chunk={chunk} runs at once; use chunk >= 1")
    theta = theta.detach()
    last: list[tuple[dict[int, int], Any]] = []  # one linearization that can be taken apart: run → place, product

    def linearized(rows: Tensor) -> Product:
        wanted = rows.tolist()
        if last and last[0][0].keys() >= set(wanted):  # as iterations end one by one, the others go on with it
            places, product = last[0]
            return product.only([places[i] for i in wanted])
        last.clear()  # its memory goes before the next one comes
        product = linearize(take_runs(theta, rows), take_runs(x, rows), take_runs(y, rows))
        if hasattr(product, "only"):
            last.append(({run: place for place, run in enumerate(wanted)}, product))
        return product

    return StackOperator((R, theta.shape[1]), theta.dtype, theta.device, linearized, chunk)


def take_runs(t: Tensor, rows: Tensor) -> Tensor:
    """t[rows], but data that all runs share stay one copy."""
    if t.stride(0) == 0:
        return t[:1].expand(len(rows), *t.shape[1:])
    return t[rows.to(t.device)]


def evaluate(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf equal to `at`, and f there with its graph, whatever gradient mode the caller is in."""
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        return leaf, f(leaf)


def _mean_weights(each: Tensor) -> Tensor:
    """Weights (r, B) that make the mean over examples of a sum."""
    return torch.full_like(each, 1 / each.shape[1])


def vjp(of: Tensor, at: Tensor, weights: Tensor, *, create_graph: bool = False) -> Tensor:
    """(∂ of/∂ at)ᵀ weights, with the graph kept for the next product."""
    if not of.requires_grad:  # constant, such as the gradient of a function linear in θ
        return torch.zeros_like(at)
    with torch.enable_grad():
        grads = torch.autograd.grad(
            of, at, weights, retain_graph=True, create_graph=create_graph, materialize_grads=True
        )
    return cast(Tensor, grads[0])


def pushforward(of: Tensor, at: Tensor) -> Product:
    """v ↦ J v for J = ∂ of/∂ at, from one graph: u ↦ Jᵀu is linear, and its transpose is J."""
    u = torch.zeros_like(of, requires_grad=True)
    transposed = vjp(of, at, u, create_graph=True)
    return lambda v: vjp(transposed, u, v)
