"""SGD steps of a whole stack in plain PyTorch: by hand-written passes, or by autograd.

The engine for every device and every width, and the one where there is no C compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from threefactors.training.engines import Plan
from threefactors.training.losses import StackLosses
from threefactors.training.models import groups
from threefactors.training.passes import Workspace, accumulate, backward, forward, output_gradient


class Stacked:
    """Engine in plain PyTorch: all runs of the stack take a step together.

    ``x`` (N, D) and ``labels`` (R, N) are the training set. With ``by_hand`` the passes of passes.py are used,
    otherwise autograd through ``losses``, which needs nothing of the network but its losses.
    """

    def __init__(self, losses: StackLosses, x: Tensor, labels: Tensor, *, by_hand: bool = True) -> None:
        self.losses, self.by_hand = losses, by_hand
        if by_hand:
            _ = losses.perceptron  # refuses a network that it does not know, before any work
        self.x, self.labels = x.flatten(1), labels
        self._room = Workspace()

    def advance(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: Sequence[Plan], limit: float
    ) -> list[int]:
        """Carries out each plan on its run, in place; returns the updates made (fewer than asked: diverged).

        v ← μ v + g and θ ← θ − lr v, as torch.optim.SGD. A batch loss (unweighted) that is not finite or above
        ``limit`` stops a run before its update. Runs that are done or diverged leave the working set.
        """
        done = [0] * len(plans)
        working = [i for i, plan in enumerate(plans) if len(plan.order)]
        start = 0
        while working:
            stop = min(len(plans[i].order) for i in working)
            parts = [plans[i].cut(start, stop) for i in working]
            made, fallen = self._together(theta, velocity, momentum, parts, limit)
            start += made
            for i in working:
                done[i] = start
            working = [i for i, bad in zip(working, fallen, strict=True) if not bad and len(plans[i].order) > start]
        return done

    def _together(
        self, theta: Tensor, velocity: Tensor | None, momentum: float, plans: list[Plan], limit: float
    ) -> tuple[int, list[bool]]:
        """Plans of equal length at once, up to the first step at which a run diverges; steps made, and who."""
        runs = torch.tensor([plan.run for plan in plans], device=theta.device)
        whole = len(plans) == len(theta)  # then they are in order, and views will do
        w = theta if whole else theta[runs]
        v = velocity if whole or velocity is None else velocity[runs]
        labels = self.labels if whole else self.labels[runs]
        order = torch.stack([plan.order for plan in plans], 1).to(theta.device)  # (steps, R, B)
        lr = torch.stack([plan.lr for plan in plans], 1).to(w).view(len(order), -1, 1, 1)
        drawn = _stacked([plan.labels for plan in plans])
        weights = _stacked([plan.weights for plan in plans])
        step = self._by_hand if self.by_hand else self._by_autograd
        bad = torch.zeros(len(plans), dtype=torch.bool)
        made = 0
        for t, (batch, rate) in enumerate(zip(order, lr, strict=True)):
            y = labels.gather(1, batch) if drawn is None else drawn[t].to(batch.device)
            bad = step(w, v, momentum, self.x[batch], y, None if weights is None else weights[t].to(w), rate, limit)
            if bad.any():
                break
            made += 1
        if not whole:
            theta[runs] = w
            if velocity is not None and v is not None:
                velocity[runs] = v
        return made, bad.tolist()

    def _by_hand(
        self, w: Tensor, v: Tensor | None, momentum: float, x: Tensor, y: Tensor, weights: Tensor | None,
        lr: Tensor, limit: float,
    ) -> Tensor:  # fmt: skip
        """One update of every run, unless one diverges: which do (R,)."""
        losses, room = self.losses, self._room
        model = losses.perceptron
        layers = model.layers(w, losses.inputs, losses.classes)
        trace = forward(model, layers, x, room)
        # Without momentum the step itself is accumulated: lr/S goes into the gradient of the logits.
        scale = (lr[:, 0] if v is None else torch.ones_like(lr[:, 0])).unsqueeze(-1) / x.shape[1]
        if weights is not None:
            scale = scale * weights.unsqueeze(-1)
        d = output_gradient(losses.loss, trace, y, scale, room)
        bad = ~(trace.losses.mean(1) <= limit)
        if bad.any():
            return bad
        if v is None:
            backward(layers, trace, d, room, lambda i, at: accumulate(layers, i, at, 1.0, -1.0))
            return bad
        moving = model.layers(v, losses.inputs, losses.classes)
        backward(layers, trace, d, room, lambda i, at: accumulate(moving, i, at, momentum, 1.0))
        w.addcmul_(v, lr[:, 0], value=-1)
        return bad

    def _by_autograd(
        self, w: Tensor, v: Tensor | None, momentum: float, x: Tensor, y: Tensor, weights: Tensor | None,
        lr: Tensor, limit: float,
    ) -> Tensor:  # fmt: skip
        """The same by automatic differentiation."""
        theta = w.detach().requires_grad_()
        ghosts = groups(self.losses.model, x.shape[1])
        losses = self.losses.criterion(self.losses.outputs(theta, x, ghosts), y)
        bad = ~(losses.detach().mean(1) <= limit)
        if bad.any():
            return bad
        (g,) = torch.autograd.grad((losses if weights is None else weights * losses).mean(1).sum(), theta)
        w.addcmul_(g if v is None else v.mul_(momentum).add_(g), lr[:, 0], value=-1)
        return bad

    @torch.no_grad()
    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set.

        Batch norm takes its statistics from the whole training set, as a function of θ.
        """
        rows = self.x if x is None else x.flatten(1)
        if x is not None and self.losses.model.batch_norm is not None:
            rows = torch.cat([self.x, rows])
        # One run at a time: its activations on the whole set would not fit the cache beside another's.
        out = theta.new_empty(len(runs), len(rows), self.losses.classes)
        for i, run in enumerate(runs):
            out[i] = self.losses.outputs(theta[[run]], rows.unsqueeze(0), counted=len(self.x))[0]
        return out if x is None else out[:, -len(x) :]


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    """(steps, R, B) of what all plans of a stack have, or none."""
    return torch.stack([part for part in parts if part is not None], 1) if parts[0] is not None else None
