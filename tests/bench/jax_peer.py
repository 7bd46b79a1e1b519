"""(d) The competitor in JAX, an optional extra: the whole training compiled as one program."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .problems import LR, Problem, flat

INSTALLED = importlib.util.find_spec("jax") is not None
EPSILON = 1e-5


def computes_on(device: str) -> bool:
    """Whether JAX is there, and for this device."""
    if not INSTALLED:
        return False
    import jax

    return device == "cpu" or jax.default_backend() == "gpu"


class Jax:
    """jit(scan over steps of vmap), or ``model_major``: jit(map over networks of scan over steps)."""

    def __init__(self, problem: Problem, *, model_major: bool = False) -> None:
        import jax
        import jax.numpy as jnp

        if problem.data.x_train.dtype == torch.float64:
            jax.config.update("jax_enable_x64", True)
        self.problem, self.jax, self.steps_first = problem, jax, not model_major
        self.x = jnp.asarray(problem.data.x_train.flatten(1).cpu().numpy())
        self.labels = jax.nn.one_hot(
            jnp.asarray(problem.data.y_train.cpu().numpy()), problem.data.classes, dtype=self.x.dtype
        )
        norm, depth = problem.model.batch_norm is not None, len(problem.widths) - 1

        def loss(parameters: list[Any], x: Any, target: Any) -> Any:
            h, rest = x, iter(parameters)
            for layer in range(depth):
                hidden = layer < depth - 1
                h = h @ next(rest)
                if norm and hidden:
                    h = h - h.mean(0)
                    h = h * jax.lax.rsqrt((h * h).mean(0) + EPSILON) * next(rest)
                h = h + next(rest)
                h = jax.nn.relu(h) if hidden else h
            return -(target * jax.nn.log_softmax(h)).sum(-1).mean()

        def step(parameters: list[Any], batch: Any, x: Any, labels: Any) -> list[Any]:
            gradients = jax.grad(loss)(parameters, x[batch], labels[batch])
            return [p - LR * g for p, g in zip(parameters, gradients, strict=True)]

        def scan_of_vmap(parameters: list[Any], order: Any, x: Any, labels: Any) -> list[Any]:
            stacked = jax.vmap(step, in_axes=(0, 0, None, None))
            return jax.lax.scan(lambda p, batch: (stacked(p, batch, x, labels), None), parameters, order)[0]

        def map_of_scan(parameters: list[Any], order: Any, x: Any, labels: Any) -> list[Any]:
            def one(part: tuple[list[Any], Any]) -> list[Any]:
                return jax.lax.scan(lambda p, batch: (step(p, batch, x, labels), None), *part)[0]

            return jax.lax.map(one, (parameters, order))

        self.train = jax.jit(map_of_scan if model_major else scan_of_vmap)
        self.reset()

    def reset(self) -> None:
        parts = self.problem.parameters(self.problem.theta)
        # W is (in, out) here, as in θ.
        self.parameters = [
            self.jax.numpy.asarray((p.transpose(1, 2) if p.ndim == 3 else p).contiguous().cpu().numpy()) for p in parts
        ]
        self.orders = self.problem.orders()

    def run(self) -> None:
        epochs = range(self.problem.epochs)
        drawn = [torch.cat([self.problem.permutation(order) for _ in epochs]) for order in self.orders]
        order = torch.stack(drawn, 1 if self.steps_first else 0).cpu().numpy().astype(np.int32)
        self.parameters = self.train(self.parameters, order, self.x, self.labels)
        self.jax.block_until_ready(self.parameters)

    def theta(self) -> Tensor:
        parts = [torch.from_numpy(np.array(p)) for p in self.parameters]
        return flat([p.transpose(1, 2) if p.ndim == 3 else p for p in parts])
