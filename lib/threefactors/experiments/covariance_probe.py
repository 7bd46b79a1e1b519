"""The gradient covariance beside the Hessian, along training: traces, angles, leading eigenspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from threefactors._rng import generator
from threefactors.experiments.first_order import FirstOrder, traces
from threefactors.experiments.probes import AtClock, When
from threefactors.experiments.runner import Result
from threefactors.measurement import hessian, moments, top_eigenvalues
from threefactors.measurement.alignment import common_basis, fisher, gram, rayleigh, subspace_overlap
from threefactors.training import Trainer

C, H, G = range(3)  # places in a Gram matrix


@dataclass(frozen=True)
class FromStart(AtClock):
    """Before the first step, and at the end of the epoch in which the clock Σ lr reaches each of the given times."""

    def due(self, epoch: int, before: float, after: float) -> bool:
        return epoch == 0 or super().due(epoch, before, after)


@dataclass(frozen=True)
class Covariance:
    """C, H and G of the training loss against one another, over the whole training set.

    Columns, besides those of ``traces`` (exact, in float64):

        trace_h                   by probes, with trace_h_stderr
        overlap                   of the k leading eigenvectors of C and H; missing where Lanczos did not converge
        overlap_by_chance         k/P
        captured                  Σ vᵀCv/Σ μ, the share of C's k largest eigenvalues μ that H's eigenvectors v find
        cosine_ch, _cg, _hg       ⟨A, B⟩/(‖A‖‖B‖), and scale_ch ⟨C, H⟩/‖H‖², each with its _stderr
        fisher_error              ‖Fu − Gu‖/‖Gu‖ in a random direction u (cross-entropy only)
        eigenvalues_h, eigenvalues_c, c_along_h   (k,): λ, μ and vᵀCv

    Without batch normalization, under which no example has a gradient of its own.
    """

    k: int = 9
    probes: int = 12
    tol: float = 1e-3
    max_products: int = 200
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        chosen, losses, data = list(runs), trainer.losses, trainer.data
        theta, y = trainer.theta[chosen], trainer.labels[chosen]
        x = data.x_train.flatten(1).expand(len(chosen), -1, -1)  # one copy for all runs

        def own(stream: str) -> list[torch.Generator]:
            return [generator(trainer.runs[i].seed, stream) for i in chosen]

        by_hand = FirstOrder(losses, theta, x, y)
        ops = [by_hand.covariance(), hessian(losses, theta, x, y, chunk=1), by_hand.gauss_newton()]
        lanczos: dict[str, Any] = {"tol": self.tol, "max_products": self.max_products}
        top = [
            top_eigenvalues(op, self.k, generators=own(f"covariance {i}"), **lanczos) for i, op in enumerate(ops[:2])
        ]
        inner = gram(ops, common_basis(*top), probes=self.probes, generators=own("covariance gram"))
        trace_h, _ = moments(ops[H], probes=2 * self.probes, generators=own("covariance trace"))
        along = rayleigh(ops[C], top[H])
        converged = top[C].converged & top[H].converged
        columns: dict[str, Any] = {
            **traces(losses, theta.double(), x[:1].double().expand_as(x), y),
            "trace_h": trace_h.value,
            "trace_h_stderr": trace_h.stderr,
            "overlap": subspace_overlap(top[C], top[H]).where(converged, torch.nan),
            "overlap_by_chance": torch.full((len(chosen),), self.k / theta.shape[1]),
            "captured": along.sum(1) / top[C].values.sum(1),
            "eigenvalues_h": top[H].values,
            "eigenvalues_c": top[C].values,
            "c_along_h": along,
        }
        compared = {"cosine_ch": inner.cosine(C, H), "cosine_cg": inner.cosine(C, G), "cosine_hg": inner.cosine(H, G)}
        for name, estimate in {**compared, "scale_ch": inner.scale(C, H)}.items():
            columns |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
        if losses.loss == "cross-entropy":
            u = torch.stack([torch.randn(theta.shape[1], generator=g) for g in own("covariance fisher")]).to(theta)
            predicted = ops[G] @ u
            difference = fisher(losses, theta, x, classes=data.classes, chunk=1) @ u - predicted
            columns["fisher_error"] = difference.norm(dim=1) / predicted.norm(dim=1)
        return columns


def stages(result: Result) -> pd.DataFrame:
    """One row for each seed and each stage at which ``Covariance`` looked: ``stage`` is the clock there, rounded.

    ``clock``, ``epochs``, ``finished`` and ``diverged`` are those of the whole run, which a protocol holds equal; the
    quotients trace_ratio Tr C/Tr H and residual_free Tr H/Tr G are added.
    Raises ValueError for runs that differ in more than their seed.
    """
    if len({run.seed for run in result.runs}) < len(result.runs):
        raise ValueError(f"{len(result)} runs share seeds; give the result of one task, one lr and one batch size")
    along = result.series()
    along = along[along["trace_c"].notna()]
    ends = result.table()[["seed", "clock", "epochs", "finished", "diverged"]]
    table = along.merge(ends, on="seed")
    quotients = {
        "trace_ratio": table["trace_c"] / table["trace_h"],
        "residual_free": table["trace_h"] / table["trace_g"],
    }
    return table.assign(stage=table["at_clock"].round(6), **quotients)
