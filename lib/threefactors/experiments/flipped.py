"""Runs with fresh label flips: the curvature of the loss they descend, and how high above its bottom they float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from threefactors._rng import generator
from threefactors.experiments.probes import When
from threefactors.experiments.runner import Result
from threefactors.measurement import hessian, moments, top_eigenvalues
from threefactors.training import Trainer


@dataclass(frozen=True)
class SoftLosses:
    """Cross-entropy with a distribution over the labels in place of a label: ℓ = −Σ_k q_k ln p_k, q (R, B, K)."""

    network: Any

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """(R, P), (R, B, ...) → (R, B, K)."""
        result: Tensor = self.network.outputs(theta, x)
        return result

    def criterion(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(R, B, K), (R, B, K) → (R, B)."""
        return -(y * outputs.log_softmax(-1)).sum(-1)

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.outputs(theta, x), y)


def soft_labels(labels: Tensor, flips: Tensor, classes: int) -> Tensor:
    """q (R, N, K): labels (R, N), each replaced by a uniform one with its run's probability flips (R,)."""
    p = flips[:, None, None]
    return (1 - p) * one_hot(labels, classes) + p / classes


@dataclass(frozen=True)
class FlippedCurvature:
    """sharpness, trace, frobenius of the Hessian of the flipped loss, over the whole training set; cross-entropy only.

    Also sharpness_converged and trace_stderr. What ``Sharpness`` and ``Moments`` measure belongs to the loss with the
    run's own labels, which fresh flips do not descend.
    """

    probes: int = 16
    tol: float = 1e-2
    max_products: int = 80
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        if trainer.losses.loss != "cross-entropy":
            raise ValueError(f"loss={trainer.losses.loss!r} has no soft labels here; use 'cross-entropy'")
        chosen, data = list(runs), trainer.data
        theta = trainer.theta[chosen]
        flips = torch.tensor([trainer.runs[i].sgd.label_flips for i in chosen]).to(theta)
        q = soft_labels(trainer.labels[chosen], flips, data.classes)
        x = data.x_train.expand(len(chosen), *data.x_train.shape)
        # one run at a time: batched products round by where a run lies in its batch
        op = hessian(SoftLosses(trainer.losses), theta, x, q, chunk=1)

        def own(stream: str) -> list[torch.Generator]:
            return [generator(trainer.runs[i].seed, stream) for i in chosen]

        top = top_eigenvalues(op, 1, tol=self.tol, max_products=self.max_products, generators=own("sharpness"))
        tr, square = moments(op, probes=self.probes, generators=own("moments"))
        return {
            "sharpness": top.values[:, 0],
            "sharpness_converged": top.converged,
            "trace": tr.value,
            "trace_stderr": tr.stderr,
            "frobenius": square.value.clamp(min=0).sqrt(),
        }


def heights(result: Result) -> pd.DataFrame:
    """One row a run: how high it floated before it was quenched, and how wide the bottom is that it then came to.

    result has ``FlippedLoss`` and ``GradientNoise`` at some times before the quench, ``FlippedLoss`` at the end. The
    table of the runs, with bottom (the flipped loss at the end), flipped_loss and noise_trace (means over the looks),
    excess = flipped_loss − bottom, and predicted_excess = (η/4S) noise_trace.
    """
    table = result.table().rename(columns={"flipped_loss": "bottom"}).assign(run=range(len(result)))
    place = {run: i for i, run in enumerate(result.runs)}
    looks = [
        {"run": place[run], **{name: row[name] for name in ("flipped_loss", "noise_trace")}}
        for run, record in zip(result.runs, result.records, strict=True)
        for row in record["series"]
    ]
    before = pd.DataFrame(looks, columns=["run", "flipped_loss", "noise_trace"]).groupby("run").mean()
    table = table.join(before, on="run").drop(columns="run")
    excess = table["flipped_loss"] - table["bottom"]
    return table.assign(excess=excess, predicted_excess=table["ratio"] / 4 * table["noise_trace"])
