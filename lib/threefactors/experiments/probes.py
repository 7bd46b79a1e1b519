"""Probes: what to measure of a stack in training, and when.

A probe is a frozen dataclass (its fields are part of the identity of a result) with a time ``at`` and
``measure(trainer, runs) -> {column: values}``; values are one number, or one array, for each of the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from threefactors._rng import generator
from threefactors.experiments.memory import current, halving
from threefactors.experiments.peaks import BUDGET, LINEARIZATION, TOGETHER
from threefactors.measurement import (
    StackOperator,
    adaptive_sharpness,
    hessian,
    moments,
    normalized_sharpness,
    spectral_density,
    top_eigenvalues,
)
from threefactors.training import Trainer
from threefactors.training.sampling import batch_gradients
from threefactors.training.train import ROUNDING


@dataclass(frozen=True)
class Every:
    """After every so many epochs, from epoch 0 on."""

    epochs: int

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"Every({self.epochs!r}): use a whole number of epochs >= 1")

    def due(self, epoch: int, before: float, after: float) -> bool:
        return epoch % self.epochs == 0


@dataclass(frozen=True)
class AtClock:
    """At the end of the epoch in which the clock Σ lr reaches each of the given times."""

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(float(time) for time in self.times))
        if not self.times or any(not time > 0 for time in self.times):
            raise ValueError(f"AtClock({self.times}): give at least one time, all > 0")

    def due(self, epoch: int, before: float, after: float) -> bool:
        return any(before < time * (1 - ROUNDING) <= after for time in self.times)


When = Every | AtClock | str


class Probe(Protocol):
    @property
    def at(self) -> When: ...

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]: ...


def check_probe(probe: Any) -> None:
    """Refuses what cannot measure, before any work starts."""
    at = getattr(probe, "at", None)
    if isinstance(probe, type) or not callable(getattr(probe, "measure", None)):
        names = ", ".join(kind.__name__ for kind in KINDS)
        raise TypeError(f"{probe!r} is no probe; use {names}, or a frozen dataclass with `at` and `measure`")
    if at != "end" and not isinstance(at, Every | AtClock):
        raise ValueError(f"{type(probe).__name__}(at={at!r}): use 'end', Every(epochs) or AtClock(times)")


@dataclass(frozen=True)
class Loss:
    """train_loss: mean over the training set, with each run's own labels."""

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        return {"train_loss": trainer.train_losses(runs)}


@dataclass(frozen=True)
class Accuracy:
    """<split>_accuracy: fraction of examples classified as their (clean) labels say; ``validation`` or ``test``."""

    split: str = "validation"
    at: When = "end"

    def __post_init__(self) -> None:
        if self.split not in ("validation", "test"):
            raise ValueError(f"split={self.split!r} is unknown; use 'validation' or 'test'")

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        x, y = getattr(trainer.data, f"x_{self.split}"), getattr(trainer.data, f"y_{self.split}")
        predicted = trainer.engine.outputs(trainer.theta, runs, x).argmax(-1)
        return {f"{self.split}_accuracy": (predicted == y).double().mean(1)}


def _hessian(trainer: Trainer, runs: Sequence[int], examples: int | None) -> StackOperator:
    """Hessian of the mean loss over the first ``examples`` of the training set (all, if None)."""
    chosen = list(runs)
    x = trainer.data.x_train[:examples]
    y = trainer.labels[chosen, :examples]
    theta, model = trainer.theta[chosen], trainer.losses.model
    images = x.expand(len(chosen), *x.shape)
    if theta.device.type == "cpu":
        # The C kernel spreads runs over threads. Batched products, on a CPU, round by where a run lies in its batch:
        # there one run at a time, so that no result depends on the company.
        each = LINEARIZATION * len(x) * model.units(trainer.data.inputs, trainer.data.classes) * theta.element_size()
        chunk = min(TOGETHER if trainer.losses.in_c(theta) else 1, BUDGET // each)
        return hessian(trainer.losses, theta, images, y, chunk=max(1, chunk))
    half = max(1, current(theta.device).room() // 2)  # one for linearizations, one for the vectors of Lanczos
    chunk = max(1, half // trainer.losses.curvature_bytes(len(x), theta.dtype))
    return replace(hessian(trainer.losses, theta, images, y, chunk=chunk), budget=half)


def _generators(trainer: Trainer, runs: Sequence[int], stream: str) -> list[torch.Generator]:
    return [generator(trainer.runs[i].seed, stream) for i in runs]


@dataclass(frozen=True)
class Sharpness:
    """sharpness: the largest eigenvalue λ_max of the Hessian of the training loss, and scale-invariant versions.

    normalized_sharpness ‖w‖²λ_max, w all weight matrices; adaptive_sharpness λ_max(diag|θ| H diag|θ|).
    sharpness_residual ‖Hv − λv‖/λ, sharpness_converged (of both eigenvalues), sharpness_products (H v for λ_max).
    """

    tol: float = 1e-3
    max_products: int = 80
    examples: int | None = None
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        op = _hessian(trainer, runs, self.examples)
        options: dict[str, Any] = {"tol": self.tol, "max_products": self.max_products}
        top = top_eigenvalues(op, 1, generators=_generators(trainer, runs, "sharpness"), **options)
        theta = trainer.theta[list(runs)]
        scaled = adaptive_sharpness(op, theta, generators=_generators(trainer, runs, "adaptive"), **options)
        data = trainer.data
        weights = trainer.losses.model.weight_mask(data.inputs, data.classes).to(theta.device)
        return {
            "sharpness": top.values[:, 0],
            "sharpness_residual": top.residuals[:, 0] / top.values[:, 0].abs(),
            "sharpness_converged": top.converged & scaled.converged,
            "sharpness_products": top.products,
            "normalized_sharpness": normalized_sharpness(theta[:, weights], top.values[:, 0]),
            "adaptive_sharpness": scaled.values[:, 0],
        }


@dataclass(frozen=True)
class Moments:
    """trace Tr H and frobenius ‖H‖_F of the Hessian of the training loss, with standard errors."""

    probes: int = 16
    examples: int | None = None
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        op = _hessian(trainer, runs, self.examples)
        tr, square = moments(op, probes=self.probes, generators=_generators(trainer, runs, "moments"))
        frobenius = square.value.clamp(min=0).sqrt()
        return {
            "trace": tr.value,
            "trace_stderr": tr.stderr,
            "frobenius": frobenius,
            "frobenius_stderr": square.stderr / (2 * frobenius),  # d√q = dq/(2√q)
        }


@dataclass(frozen=True)
class Spectrum:
    """spectrum_nodes and spectrum_weights (probes, steps): quadrature for the density of the Hessian's eigenvalues."""

    steps: int = 64
    probes: int = 4
    examples: int | None = None
    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        op = _hessian(trainer, runs, self.examples)
        draws = _generators(trainer, runs, "spectrum")
        density = spectral_density(op, steps=self.steps, probes=self.probes, generators=draws)
        return {"spectrum_nodes": density.nodes, "spectrum_weights": density.weights}


@dataclass(frozen=True)
class GradientNoise:
    """noise_trace: S E‖g_B − E g_B‖² of the run's own draws at θ, Tr C of the noise injected; and noise_trace_stderr.

    Estimated without bias from ``batches`` independent batches (≥ 2), other than those it trains on. With svag = l it
    is divided by l: lr/S · noise_trace is the scale of the noise for every l. A batch of an epoch is drawn without
    replacement, which lowers the noise by (N − S)/(N − 1); that the batches of one epoch are dependent is not seen.
    With ``Task.augmentation`` the images are cropped and flipped as in training, which is part of the noise.
    """

    batches: int = 64
    at: When = "end"

    def __post_init__(self) -> None:
        if not isinstance(self.batches, int) or self.batches < 2:
            raise ValueError(f"batches={self.batches!r} have no variance; use a whole number >= 2")

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        noise = [self._squares(trainer, i) for i in runs]
        spread = torch.stack([square.std() / self.batches**0.5 for square in noise])
        return {"noise_trace": torch.stack([s.mean() for s in noise]), "noise_trace_stderr": spread}

    def _squares(self, trainer: Trainer, i: int) -> Tensor:
        """‖g_b − ḡ‖² of each batch, scaled to have the mean Tr C."""
        run = trainer.runs[i]
        size, sigma = run.sgd.batch_at(int(trainer.epochs[i])), run.sgd.isotropic_noise
        drawn = trainer.sampler(i, "noise probe ").independent(self.batches, size)
        x, y, augmenter = trainer.data.x_train, trainer.labels[i], trainer.augmenter([i], "noise probe ")
        g = batch_gradients(trainer.losses, trainer.theta[i], x, y, drawn, augmenter).double()
        if sigma:
            draw = torch.randn(g.shape, generator=generator(run.seed, "noise probe"), dtype=torch.float64)
            g += sigma * draw.to(g.device)
        squares = (g - g.mean(0)).square().sum(1)
        return squares * (size / run.sgd.svag * self.batches / (self.batches - 1))


@dataclass(frozen=True)
class FlippedLoss:
    """flipped_loss: (1 − p) L(labels) + p/K Σ_k L(class k), p = ``label_flips``: what fresh flips let a run descend."""

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        outputs, labels = trainer.engine.outputs(trainer.theta, runs), trainer.labels[list(runs)]
        flips = torch.tensor([trainer.runs[i].sgd.label_flips for i in runs]).to(outputs)
        kept = trainer.losses.criterion(outputs, labels).mean(1)
        classes = range(trainer.data.classes)
        drawn = [trainer.losses.criterion(outputs, torch.full_like(labels, k)).mean(1) for k in classes]
        # summed along each run's own row: down the columns, the last bit would follow the number of runs
        return {"flipped_loss": (1 - flips) * kept + flips * torch.stack(drawn, 1).mean(1)}


@dataclass(frozen=True)
class Weights:
    """theta (P,): the network itself."""

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        return {"theta": trainer.theta[list(runs)]}


KINDS = (Loss, Accuracy, Sharpness, Moments, Spectrum, GradientNoise, FlippedLoss, Weights)


def pauses(probes: Sequence[Probe]) -> Callable[[int, list[float], list[float]], bool]:
    """Whether any probe wants to look after an epoch, given the runs' clocks before and after it."""
    timed = [probe.at for probe in probes if isinstance(probe.at, Every | AtClock)]

    def pause(epoch: int, before: list[float], after: list[float]) -> bool:
        return any(at.due(epoch, b, a) for at in timed for b, a in zip(before, after, strict=True))

    return pause


def take(probe: Probe, trainer: Trainer, runs: Sequence[int]) -> list[dict[str, Any]]:
    """The probe's columns for each of the runs, as plain numbers and arrays; of fewer at once if memory asks for it."""
    return halving(lambda some: _taken(probe, trainer, some), runs, trainer.theta.device)


def _taken(probe: Probe, trainer: Trainer, runs: Sequence[int]) -> list[dict[str, Any]]:
    columns = {
        name: values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        for name, values in probe.measure(trainer, runs).items()
    }
    return [
        {name: v[j].item() if v[j].ndim == 0 else v[j].astype(v.dtype) for name, v in columns.items()}
        for j in range(len(runs))
    ]
