"""One SGD update of every run of a stack in PyTorch, which the engines ``Stacked`` and ``Captured`` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from threefactors.training import lean
from threefactors.training.losses import StackLosses
from threefactors.training.models import groups
from threefactors.training.passes import Workspace, accumulate, backward, forward, output_gradient


class Update:
    """v ← μ v + g and θ ← θ − lr v, as torch.optim.SGD; g the gradient of each run's batch loss.

    With ``by_hand`` the passes of passes.py are used, otherwise autograd through ``losses``, which needs nothing of the
    network but its losses. ``precision``: see ``SGD``. By hand the last layer's products stay float32 in
    ``bfloat16``, too; autograd leaves them to ``torch.autocast``, which rounds the outputs once. ``lean``: by hand in
    the few kernels of lean.py, where it applies, which is for a GPU; it rounds otherwise than passes.py.
    """

    def __init__(self, losses: StackLosses, *, by_hand: bool, precision: str = "float32", lean: bool = False) -> None:
        self.losses, self.by_hand, self.precision = losses, by_hand, precision
        self.lean = lean
        if by_hand:
            _ = losses.perceptron  # refuses a network that it does not know, before any work
        self._room = Workspace()
        self._low = torch.bfloat16 if precision == "bfloat16" else None

    def __call__(
        self, w: Tensor, v: Tensor | None, momentum: float, x: Tensor, y: Tensor, weights: Tensor | None,
        lr: Tensor, limit: float, *, checked: bool = True,
    ) -> Tensor:  # fmt: skip
        """Which runs (R,) have a batch loss, without its weights, that is not finite or above ``limit``.

        w and v (R, P) in place; x (R, B, D), y and weights (R, B), lr (R, 1, 1). ``checked``: if there is any such run
        then nothing is updated, for which the host has to wait; otherwise all are, and theirs may be no numbers.
        """
        with tf32(self.precision == "tf32"):
            step = self._by_hand if self.by_hand else self._by_autograd
            return step(w, v, momentum, x, y, weights, lr, limit, checked)

    def _by_hand(
        self, w: Tensor, v: Tensor | None, momentum: float, x: Tensor, y: Tensor, weights: Tensor | None,
        lr: Tensor, limit: float, checked: bool,
    ) -> Tensor:  # fmt: skip
        losses, room = self.losses, self._room
        model = losses.perceptron
        layers = model.layers(w, losses.inputs, losses.classes)
        moving = layers if v is None else model.layers(v, losses.inputs, losses.classes)
        keep, sign = (1.0, -1.0) if v is None else (momentum, 1.0)
        # Without momentum the step itself is accumulated: lr/S goes into the gradient of the logits.
        scale = (lr[:, 0] if v is None else torch.ones_like(lr[:, 0])).unsqueeze(-1) / x.shape[1]
        if weights is not None:
            scale = scale * weights.unsqueeze(-1)
        if self.lean and not checked and groups(model, x.shape[1]) == 1:
            found = lean.descend(layers, moving, x, y, scale, keep, sign, losses.loss, room, self._low)
            if v is not None:
                w.addcmul_(v, lr[:, 0], value=-1)
            return ~(found.mean(1) <= limit)
        trace = forward(model, layers, x, room, self._low)
        d = output_gradient(losses.loss, trace, y, scale, room)
        bad = ~(trace.losses.mean(1) <= limit)
        if checked and bad.any():
            return bad
        backward(layers, trace, d, room, lambda i, at: accumulate(moving, i, at, keep, sign))
        if v is not None:
            w.addcmul_(v, lr[:, 0], value=-1)
        return bad

    def _by_autograd(
        self, w: Tensor, v: Tensor | None, momentum: float, x: Tensor, y: Tensor, weights: Tensor | None,
        lr: Tensor, limit: float, checked: bool,
    ) -> Tensor:  # fmt: skip
        """The same by automatic differentiation."""
        with torch.enable_grad():
            theta = w.detach().requires_grad_()
            ghosts = groups(self.losses.model, x.shape[1])
            with torch.autocast(w.device.type, torch.bfloat16, enabled=self._low is not None, cache_enabled=False):
                outputs = self.losses.outputs(theta, x, ghosts)
            losses = self.losses.criterion(outputs.to(w), y)
            bad = ~(losses.detach().mean(1) <= limit)
            if checked and bad.any():
                return bad
            (g,) = torch.autograd.grad((losses if weights is None else weights * losses).mean(1).sum(), theta)
        w.addcmul_(g if v is None else v.mul_(momentum).add_(g), lr[:, 0], value=-1)
        return bad


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Lets products and convolutions on a GPU round to TF32, and ends it: evaluation and curvature go on without.

    Through the switches that every PyTorch since 1.7 has; setting the newer ones beside them is an error there.
    """
    if not wanted:
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
