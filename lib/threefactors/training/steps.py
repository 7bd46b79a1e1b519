"""SGD steps of a whole stack in plain PyTorch: by hand-written passes, or by autograd.

The engine for every device and every width, and the one where there is no C compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from threefactors.training import evaluation
from threefactors.training.augmentation import Augmenter
from threefactors.training.engines import Plan
from threefactors.training.losses import StackLosses
from threefactors.training.update import Update


class Stacked:
    """Engine in plain PyTorch: all runs of the stack take a step together.

    ``x`` (N, D) and ``labels`` (R, N) are the training set. ``by_hand`` and ``precision``: see ``Update``.
    With an ``augmenter`` the batches of the steps go through it, and ``outputs`` sees the images as they are.
    """

    def __init__(
        self, losses: StackLosses, x: Tensor, labels: Tensor, *, by_hand: bool = True, precision: str = "float32",
        augmenter: Augmenter | None = None,
    ) -> None:  # fmt: skip
        self.losses, self.x, self.labels, self.augmenter = losses, x.flatten(1), labels, augmenter
        self._update = Update(losses, by_hand=by_hand, precision=precision)

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
        drawn = _stacked([plan.labels for plan in plans], order)
        weights = _stacked([plan.weights for plan in plans], w)
        first = torch.tensor([plan.first for plan in plans], device=theta.device)
        bad = torch.zeros(len(plans), dtype=torch.bool)
        made = 0
        for t, (batch, rate) in enumerate(zip(order, lr, strict=True)):
            x = self.x[batch]
            if self.augmenter is not None:
                x = self.augmenter(x, runs, first + t)
            y = labels.gather(1, batch) if drawn is None else drawn[t]
            bad = self._update(w, v, momentum, x, y, None if weights is None else weights[t], rate, limit)
            if bad.any():
                break
            made += 1
        if not whole:
            theta[runs] = w
            if velocity is not None and v is not None:
                velocity[runs] = v
        return made, bad.tolist()

    @torch.no_grad()
    def outputs(self, theta: Tensor, runs: Sequence[int], x: Tensor | None = None) -> Tensor:
        """Outputs (len(runs), B, K) on x (B, D), by default the training set.

        Batch norm takes its statistics from the whole training set, as a function of θ.
        """
        rows = self.x if x is None else x.flatten(1)
        if x is not None and self.losses.model.batch_norm is not None:
            rows = torch.cat([self.x, rows])
        room = evaluation.budget(theta.device)
        out = evaluation.outputs(self.losses, theta[list(runs)], rows, len(self.x), room)
        return out if x is None else out[:, -len(x) :]


def _stacked(parts: list[Tensor | None], like: Tensor) -> Tensor | None:
    """(steps, R, B) of what all plans of a stack have, or none; of the type and on the device of ``like``."""
    return torch.stack([part for part in parts if part is not None], 1).to(like) if parts[0] is not None else None
