"""A dress rehearsal of a chapter: all of its code at the size that is asked for, and nothing trained.

``run`` is replaced by one that checks every run of every sweep as the real one does, measures each probe once on a
small network of the kind, and makes up a record for each run from it, with numbers that go roughly where those of a
trained network go. What the runs would cost is added up on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threefactors import experiments
from threefactors.experiments import curves, cycles, edge, landscape, probes, runner
from threefactors.publishing.chapters import Chapter
from threefactors.training import convolution, data
from threefactors.training.models import MLP
from threefactors.training.runs import STACK_LIMIT, Clock, Epochs, Run, Stack, Steps, Sweep, TrainLoss
from threefactors.training.schedules import Constant
from threefactors.training.train import Trainer

SHAPES = {  # N, its share for validation apart; shape of an example
    "fashion-mnist": (50_000, (28, 28)),
    "mnist": (50_000, (28, 28)),
    "cifar10": (41_667, (3, 32, 32)),
    "cifar10-jpeg": (41_667, (3, 32, 32)),
    "digits": (1152, (8, 8)),
}
ALPHAS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # places on a line, of which chapters take 49
FEW, CLASSES = 40, 10  # examples that probes really see
NARROW = 1 / 64  # width of the convolutional networks that they really see
RATE = 20e12  # floating-point operations a second that a GPU is assumed to make of what a stack asks for
LAUNCHES = 15e-6  # seconds that a layer of a stack's step takes at the least: half a dozen kernels, forth and back
PRODUCTS = {"Sharpness": 2, "LargestEigenvalue": 1}  # Lanczos iterations of a probe
SHARES = ("train_accuracy", "validation_accuracy", "test_accuracy", "memorized", "corrected", "clean_fit")
PER_PRODUCT, PER_STEP, PER_LOOK = 12, 6, 2  # operations for each multiplication of a forward pass


@cache
def dataset(name: str, size: int | None = None) -> data.Dataset:
    """Random images of the right shape; of the real size (images as a view of one), or so many."""
    whole, shape = SHAPES[name]
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(shape, generator=generator).expand(n, *shape) if size is None else torch.randn(n, *shape)
        return x, torch.arange(n) % CLASSES

    parts = [one for n in (size or whole, size or whole // 5, size or whole // 5) for one in part(n)]
    return data.Dataset(name, *parts, classes=CLASSES, checksum=name)


class Few(data.Dataset):
    """A few examples that pass for as many as are asked for."""

    def to(self, *_: Any) -> data.Dataset:
        return self

    def first(self, n: int | None) -> data.Dataset:
        return self


def few(name: str, *_: Any) -> data.Dataset:
    return Few(**vars(dataset(name, FEW)))


@dataclass
class Cost:
    """Runs, model-steps, steps of whole stacks, operations of training and of measuring, and seconds that all take."""

    runs: int = 0
    steps: float = 0
    stack_steps: float = 0
    training: float = 0
    measuring: float = 0
    seconds: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.runs:6d} runs {self.steps:10.3g} model-steps {self.stack_steps:9.3g} stack-steps "
            f"{self.training / 1e12:8.0f} TFLOP training {self.measuring / 1e12:8.0f} measuring "
            f"{self.seconds / 60:6.1f} min"
        )


@dataclass
class Rehearsal:
    """One chapter at one scale: ``perform`` runs it from top to bottom; then ``names`` holds what its cells defined."""

    chapter: Chapter
    parameters: dict[str, Any]
    names: dict[str, Any] = field(default_factory=dict)
    sweeps: list[tuple[Sweep, tuple[Any, ...], Cost]] = field(default_factory=list)
    wide: dict[Any, Any] = field(default_factory=dict)  # narrow network → the one that it stands for
    clocks: dict[Any, float] = field(default_factory=dict)  # network → the first that its runs were stopped at
    scales: dict[Any, float] = field(
        default_factory=dict
    )  # network → clock at which half of its loss is made to be gone
    templates: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def perform(self, patch: Any) -> None:
        """patch: pytest's monkeypatch."""
        import matplotlib.pyplot as plt
        import threefactors

        patch.setattr(data, "_load", lambda name, root, stamp: dataset(name))
        patch.setattr(landscape, "load", few)
        patch.setattr(landscape, "_between", partial(landscape._between, alphas=ALPHAS))
        patch.setattr(landscape, "contours", partial(landscape.contours, points=5))
        for module in (threefactors, experiments, runner, edge, curves, cycles):
            patch.setattr(module, "run", self.run)
        for name in ("VGG11", "RESNET56"):
            patch.setattr(convolution, name, self.narrow(getattr(convolution, name)))
        patch.chdir(self.chapter.source.parent)
        for index, cell in enumerate(self.chapter.notebook(self.parameters).cells):
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{self.chapter.name}, cell {index + 1}", "exec"), self.names)
                plt.close("all")

    def narrow(self, network: Any) -> Any:
        def make(*given: Any, **named: Any) -> Any:
            real = network(*given, **named)
            short = [stage[: 3 if i == 0 else 2] if real.residual else stage for i, stage in enumerate(real.stages)]
            thin = tuple(tuple(max(1, round(n * NARROW)) for n in stage) for stage in short)
            slim = replace(real, stages=thin)
            self.wide[slim] = real
            return slim

        return make

    # ---- one sweep

    def run(self, sweep: Sweep, measures: Sequence[Any], **_: Any) -> runner.Result:
        """What ``run`` would refuse is refused; the rest is made up."""
        for probe in measures:
            probes.check_probe(probe)
        paths = {}
        for one in sweep:
            own = dataset(one.task.dataset)
            size = len(own.first(one.task.train_size).x_train)
            one.check(size)
            self.wide.get(one.task.model, one.task.model).parameters(own.inputs, own.classes)
            paths[one] = self.path(one, size, sweep)
        for one in sweep:
            if isinstance(one.until, Clock):
                self.clocks.setdefault(one.task.model, one.until.T / (1 - one.sgd.momentum))
        for model in {one.task.model for one in sweep}:
            ends = [paths[one][0][-1] / (1 - one.sgd.momentum) for one in sweep if one.task.model == model]
            self.scales.setdefault(model, self.clocks.get(model, float(np.median(ends)) / 16))
        rates = [one.sgd.lr for one in sweep]
        middle = math.sqrt(min(rates) * max(rates))
        records = tuple(self.record(one, paths[one], measures, middle) for one in sweep)
        self.sweeps.append((sweep, tuple(measures), self.cost(sweep, paths, measures)))
        return runner.Result(sweep.runs, records)

    def path(self, one: Run, examples: int, sweep: Sweep) -> tuple[np.ndarray, np.ndarray, bool]:
        """Clock and steps at the end of each epoch, from 0 on, and whether the run meets its stopping rule."""
        until = one.until
        goal, most = math.inf, 10**9
        if isinstance(until, Epochs):
            most = until.n
        elif isinstance(until, Steps):
            most = -(-until.n // (examples // one.sgd.batch_size))
        elif isinstance(until, Clock):
            goal = until.T
        else:
            rates = [run.sgd.lr for run in sweep]
            steep = (one.sgd.lr / _breaks(math.sqrt(min(rates) * max(rates)), one.seed)) ** 3
            noise = np.random.default_rng(one.seed).lognormal(0, 0.05) * 0.4 * (1 + 3 * steep / (1 + steep))
            goal = self.clocks.get(one.task.model, until.at_most.n * 1e-3) * noise * (1 - one.sgd.momentum)
            most = until.at_most.n
        return _path(replace(one.sgd), examples, goal, most, isinstance(until, Epochs | Steps))

    def record(self, one: Run, path: Any, measures: Sequence[Any], middle: float) -> dict[str, Any]:
        clocks, steps, finished = path
        template = self.template(one, measures)
        rows: dict[int, dict[str, Any]] = {}
        for probe, columns in zip(measures, template, strict=True):
            for epoch in _due(probe.at, clocks):
                row = rows.setdefault(epoch, {"epoch": epoch, "step": int(steps[epoch]), "at_clock": clocks[epoch]})
                row |= self.made_up(one, columns, clocks[epoch], middle, epoch)
        end: dict[str, Any] = {}
        for probe, columns in zip(measures, template, strict=True):
            if probe.at == "end":
                end |= self.made_up(one, columns, clocks[-1], middle, len(clocks))
        if isinstance(one.until, TrainLoss) and finished and "train_loss" in end:
            end["train_loss"] = one.until.value * (1 - 0.02 * (one.seed % 3))
        return {
            "end": end, "series": [rows[epoch] for epoch in sorted(rows)], "steps": int(steps[-1]),
            "epochs": float(len(clocks) - 1), "clock": float(clocks[-1]), "finished": finished, "diverged": False,
            "diverged_at": -1, "provenance": {},
        }  # fmt: skip

    def template(self, one: Run, measures: Sequence[Any]) -> list[dict[str, Any]]:
        """What each probe finds in a small network of the run's kind, after one step on a few examples."""
        task = replace(one.task, train_size=None)
        key = (task, one.sgd.momentum, tuple(map(repr, measures)))
        if key not in self.templates:
            ghost = task.model.batch_norm or 4
            sgd = replace(
                one.sgd, lr=1e-3, batch_size=min(ghost, FEW), lr_schedule=Constant(), batch_schedule=Constant()
            )
            run = Run(task, sgd, 0, Steps(1))
            trainer = Trainer(Stack((run,)), few(task.dataset)).train()
            self.templates[key] = [probes.take(probe, trainer, [0])[0] for probe in measures]
        return self.templates[key]

    def made_up(self, one: Run, columns: dict[str, Any], clock: float, middle: float, look: int) -> dict[str, Any]:
        """The columns with numbers of a network at that clock: a loss that falls, a sharpness that falls with it."""
        draws = np.random.default_rng([one.seed, look, round(1e9 * one.sgd.lr), one.sgd.batch_size])
        inertia = 1 - one.sgd.momentum
        noise, ratio = one.sgd.lr / one.sgd.batch_size / inertia, clock / inertia + 1e-3
        share = ratio / (ratio + self.scales[one.task.model])
        steep = 1 / (1 + (one.sgd.lr / _breaks(middle, one.seed)) ** 3)
        known = {
            "train_loss": 2.3 * (1 - 0.95 * share), "train_accuracy": 0.1 + 0.85 * share,
            "validation_accuracy": 0.1 + (0.6 + 0.05 * math.tanh(100 * noise)) * share * (0.3 + 0.7 * steep),
            "test_accuracy": 0.1 + 0.6 * share, "memorized": min(0.98, 1.3 * share), "corrected": 0.5 * (1 - share),
            "clean_fit": 0.5 + 0.4 * share, "sharpness": 20 * (1 + ratio) ** -0.3 * noise**-0.2,
            "sharpness_converged": True,
        }  # fmt: skip
        values: dict[str, Any] = {}
        for name, value in columns.items():
            base = known.get(name, value)
            if isinstance(base, bool | np.bool_):
                values[name] = bool(base)
            elif isinstance(base, np.ndarray):
                values[name] = (base * draws.normal(1, 0.02, base.shape)).astype(base.dtype)
            else:
                base = abs(float(base)) if math.isfinite(float(base)) and base else 1.0
                value = base * draws.lognormal(0, 0.01 if name in known else 0.05)
                values[name] = min(value, 1.0) if name in SHARES else value
        return values

    # ---- what it costs

    def cost(self, sweep: Sweep, paths: dict[Run, Any], measures: Sequence[Any]) -> Cost:
        total = Cost(len(sweep))
        for stack in sweep.stacks(STACK_LIMIT):
            work = look = 0.0
            for one in stack.runs:
                clocks, steps, _ = paths[one]
                macs = self.multiplications(one)
                examples = one.task.train_size or SHAPES[one.task.dataset][0]
                every = one.until.every if isinstance(one.until, TrainLoss) else None
                own = clocks[-1] / every if every else 0.0
                work += (len(clocks) - 1) * examples * one.sgd.rows * PER_STEP * macs
                look += min(own, steps[-1]) * examples * PER_LOOK * macs
                look += sum(_operations(probe, examples) * macs * _times(probe, clocks) for probe in measures)
                total.steps += steps[-1]
            longest = max(paths[one][1][-1] for one in stack.runs)
            total.stack_steps += longest
            total.training += work
            total.measuring += look
            total.seconds += max(work / RATE, longest * self.layers(stack.runs[0]) * LAUNCHES) + look / RATE
        return total

    def multiplications(self, one: Run) -> float:
        """Of a forward pass, for each example."""
        model = self.wide.get(one.task.model, one.task.model)
        inputs = math.prod(SHAPES[one.task.dataset][1])
        if isinstance(model, MLP):
            return sum(a * b for a, b in pairwise(model.widths(inputs, CLASSES)))
        return sum(c.units * c.inputs * c.side**2 for c in model._convolutions(inputs, CLASSES))

    def layers(self, one: Run) -> int:
        model = self.wide.get(one.task.model, one.task.model)
        return len(model.hidden) + 1 + sum(len(stage) for stage in getattr(model, "stages", ()))

    @property
    def total(self) -> Cost:
        return sum((cost for *_, cost in self.sweeps), Cost())


def _breaks(middle: float, seed: int) -> float:
    """The learning rate above which the made-up accuracy falls, and the way to a loss gets long."""
    return middle * np.random.default_rng(seed).lognormal(0, 0.1)


@cache
def _path(sgd: Any, examples: int, goal: float, most: int, certain: bool) -> tuple[np.ndarray, np.ndarray, bool]:
    clocks, steps = [0.0], [0]
    while clocks[-1] < goal * (1 - 1e-9) and len(clocks) <= most:
        epoch = len(clocks) - 1
        per_epoch = examples // sgd.batch_at(epoch) * sgd.svag
        rate = sgd.lr / sgd.svag * np.mean([sgd.lr_schedule(epoch + t / 8) for t in range(8)])
        n = per_epoch if clocks[-1] + per_epoch * rate <= goal else max(1, math.ceil((goal - clocks[-1]) / rate - 1e-9))
        clocks.append(clocks[-1] + n * rate)
        steps.append(steps[-1] + n)
    return np.array(clocks), np.array(steps), certain or clocks[-1] >= goal * (1 - 1e-9)


def _due(at: Any, clocks: np.ndarray) -> Iterable[int]:
    """Epochs after which a probe with a time looks."""
    if isinstance(at, probes.Every):
        return range(0, len(clocks), at.epochs)
    if not isinstance(at, probes.AtClock):
        return []
    times = [time * (1 - 1e-9) for time in at.times if time * (1 - 1e-9) <= clocks[-1]]
    return sorted(set(np.searchsorted(clocks, times).tolist()))


def _times(probe: Any, clocks: np.ndarray) -> int:
    return 1 if probe.at == "end" else len(list(_due(probe.at, clocks)))


def _operations(probe: Any, examples: int) -> float:
    """Operations of one look, for each multiplication of a forward pass and network."""
    name, n = type(probe).__name__, min(examples, getattr(probe, "examples", None) or examples)
    if name in PRODUCTS:
        return PRODUCTS[name] * (30 if probe.tol < 1e-2 else 16) * n * PER_PRODUCT  # so many products are assumed
    if name in ("Moments", "Spectrum"):
        return probe.probes * getattr(probe, "steps", 1) * n * PER_PRODUCT
    if name == "RandomRise":
        return 2 * probe.directions * n * PER_LOOK
    return (
        {"NoiseTrace": 3, "SignalAndNoise": 6, "Weights": 0, "Travel": 0, "Accuracy": 0.2}.get(name, 1) * n * PER_LOOK
    )


def rehearse(source: Path, patch: Any, scale: str = "paper", **given: Any) -> Rehearsal:
    """The chapter, performed."""
    chapter = Chapter(source)
    rehearsal = Rehearsal(chapter, chapter.settle(scale, given))
    rehearsal.perform(patch)
    return rehearsal
