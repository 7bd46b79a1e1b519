"""Landscapes between trained networks: lines from one end to another, and random directions around each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from threefactors._rng import generator
from threefactors.experiments.probes import BUDGET, When
from threefactors.experiments.runner import Result
from threefactors.measurement import hessian
from threefactors.measurement.landscape import (
    Plane,
    along,
    curvature_along,
    filter_directions,
    half_width,
    symmetric_rise,
    toward,
)
from threefactors.settings import Settings, require_device
from threefactors.training import Task, Trainer, load
from threefactors.training.losses import StackLosses

ALPHAS = tuple(np.linspace(-1, 2, 49).tolist())  # θ(α) = (1 − α)θ₁ + αθ₂, as far again on either side
REACH = 0.5  # how far from an end its rise is taken: inward as far as the middle, which both ends share
LEVEL = 0.01  # nats: the rise that ends a half-width
COLUMNS = ("train_loss", "train_accuracy", "validation_accuracy")
Setting = tuple[float, int]  # learning rate and batch size


@dataclass(frozen=True)
class Surface:
    """Networks of one task as a function of θ alone: (R, P) → (R, 3), the COLUMNS.

    Batch normalization takes its statistics from the training examples, anew at every θ, for both splits.
    """

    losses: StackLosses
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor

    @classmethod
    def of(cls, task: Task, examples: int | None = None, held_out: int | None = None) -> Surface:
        """Over the first ``examples`` of the training set, with its true labels, and the first ``held_out`` of the
        validation set (None: all).

        Raises ValueError for a task with label noise, whose labels differ from seed to seed.
        """
        if task.label_noise:
            raise ValueError(f"label_noise={task.label_noise} gives each seed labels of its own; use label_noise=0")
        where = Settings.from_environment()
        require_device(where.device)  # here: the workers of a scheduler carry out sweeps only
        data = load(task.dataset, where.data).to(where.device).first(task.train_size)
        losses = StackLosses(task.model, task.loss, data.inputs, data.classes)
        x, y = data.x_train[:examples], data.y_train[:examples]
        return cls(losses, x, y, data.x_validation[:held_out], data.y_validation[:held_out])

    def __call__(self, theta: Tensor) -> Tensor:
        return torch.cat([self._few(part) for part in theta.split(self._chunk)])

    def loss(self, theta: Tensor) -> Tensor:
        """The training loss alone, (R, P) → (R,)."""
        parts = theta.split(self._chunk)
        return torch.cat([self._losses(self.losses.outputs(part, self._all(part, self.x))) for part in parts])

    @property
    def _chunk(self) -> int:
        """Networks evaluated at once: few enough to stay in memory, and for small ones in the cache."""
        examples = len(self.x) + len(self.x_validation)
        each = examples * self.losses.model.units(self.losses.inputs, self.losses.classes) * self.x.element_size()
        return max(1, min(16, BUDGET // each))

    def _few(self, theta: Tensor) -> Tensor:
        both, n = torch.cat([self.x, self.x_validation]), len(self.x)
        outputs = self.losses.outputs(theta, self._all(theta, both), 1, n)
        right = outputs.argmax(-1) == torch.cat([self.y, self.y_validation])
        shares = [part.double().mean(1) for part in (right[:, :n], right[:, n:])]
        return torch.stack([self._losses(outputs[:, :n]), *shares], dim=-1)

    def _losses(self, outputs: Tensor) -> Tensor:
        return self.losses.criterion(outputs, self.y.expand(len(outputs), -1)).double().mean(1)

    def _all(self, theta: Tensor, x: Tensor) -> Tensor:
        return x.expand(len(theta), *x.shape)


@dataclass(frozen=True)
class RandomRise:
    """random_rise: mean rise of the training loss at ±radius along random directions with filter normalization.

    Also random_rise_stderr over the directions. They are drawn by the seed, so that two ends of one seed share the
    draws. A radius of 1 changes every filter by its own length. examples: of the training set (None: all).
    """

    radius: float = 0.25
    directions: int = 16
    examples: int | None = None
    at: When = "end"

    def __post_init__(self) -> None:
        if not self.radius > 0 or self.directions < 2:
            raise ValueError(f"{self}: use radius > 0 and directions >= 2")

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        data, model = trainer.data, trainer.losses.model
        number = model.filters(data.inputs, data.classes).to(trainer.theta.device)
        rises = []
        for i in runs:  # one run at a time, its directions as the stack: no result depends on the company
            theta = trainer.theta[i].expand(self.directions, -1)
            draws = [generator(trainer.runs[i].seed, f"direction {j}") for j in range(self.directions)]
            x, y = data.x_train[: self.examples], trainer.labels[i, : self.examples]
            surface = Surface(trainer.losses, x, y, data.x_validation, data.y_validation)
            d = filter_directions(theta, number, draws)
            rises.append(symmetric_rise(surface.loss, theta, d, theta.new_full((len(theta),), self.radius)))
        each = torch.stack(rises)
        return {"random_rise": each.mean(1), "random_rise_stderr": each.std(1) / self.directions**0.5}


@dataclass(frozen=True)
class Travel:
    """distance_from_start ‖θ − θ(0)‖, and weight_norm: the length of all weight matrices together."""

    at: When = "end"

    def measure(self, trainer: Trainer, runs: Sequence[int]) -> dict[str, Any]:
        data, model, theta = trainer.data, trainer.losses.model, trainer.theta[list(runs)]
        draws = [generator(trainer.runs[i].seed, "init") for i in runs]
        start = torch.stack([model.initial(data.inputs, data.classes, g, theta.dtype) for g in draws]).to(theta)
        weights = model.weight_mask(data.inputs, data.classes).to(theta.device)
        norm = torch.linalg.vector_norm
        return {"distance_from_start": norm(theta - start, dim=1), "weight_norm": norm(theta[:, weights], dim=1)}


@dataclass(frozen=True)
class Lines:
    """ends: one row for each pair, end and seed, with the end's own record; curves: one for each pair, seed and α."""

    ends: pd.DataFrame
    curves: pd.DataFrame


Pairs = Iterable[tuple[str, pd.DataFrame, pd.DataFrame]]  # name, rows of θ₁, rows of θ₂ of the same seeds


def lines(result: Result, pairs: Mapping[str, tuple[Setting, Setting]], **options: Any) -> Lines:
    """The straight lines between two networks of each pair and seed, and how sharp they are at either end.

    result has ``Weights`` at the end of its runs, all of one task; pairs: name → (lr, batch_size) of θ₁ and of θ₂.
    With u = (θ₂ − θ₁)/‖θ₂ − θ₁‖ the ends have, besides the columns of the result,

        line_curvature   uᵀH u
        line_rise        ½[L(θ + r u) + L(θ − r u)] − L(θ) at r = reach ‖θ₂ − θ₁‖
        line_slope       gᵀu, u outward, by differences over ± ‖θ₂ − θ₁‖/32
        outward, inward  distance, away from the other end or toward it, at which L has risen by ``level`` (inf: never)
        separation       ‖θ₂ − θ₁‖

    options: alphas, reach, level (nats), examples and held_out (the first so many of the training and of the validation
    set). A pair with an end that diverged keeps its rows, without numbers. Raises ValueError for a setting that the
    result lacks, for several tasks, for label noise, or without ``Weights``.
    """
    if len({run.task for run in result.runs}) > 1:
        raise ValueError("the result holds runs of several tasks; a line needs networks of one task")
    cells = dict(list(_with_theta(result.table()).groupby(["lr", "batch_size"])))
    for name, pair in pairs.items():
        absent = [setting for setting in pair if setting not in cells]
        if absent:
            raise ValueError(f"pair {name!r} names (lr, batch_size) = {absent[0]}, of which the result has no run")
    return _between(
        ((name, cells[one], cells[two]) for name, (one, two) in pairs.items()), result.runs[0].task, **options
    )


def lines_in_time(result: Result, clocks: Mapping[str, tuple[float, float]], **options: Any) -> Lines:
    """The same between two times of one run: name → clocks T₁, T₂ at which ``Weights(AtClock(...))`` looked.

    What the time alone puts between two ends: nothing else differs. Columns, options and errors as for ``lines``.
    """
    series = _with_theta(result.series())

    def at(clock: float) -> pd.DataFrame:
        reached = series[series["at_clock"] >= clock * (1 - 1e-9)]
        if reached["seed"].nunique() < series["seed"].nunique():
            raise ValueError(f"clock={clock} was not looked at in every run; use a time of the probe's AtClock")
        return reached.sort_values("at_clock").groupby("seed", as_index=False).head(1)

    return _between(((name, at(one), at(two)) for name, (one, two) in clocks.items()), result.runs[0].task, **options)


def _with_theta(table: pd.DataFrame) -> pd.DataFrame:
    if "theta" not in table:
        raise ValueError("there is no column theta to draw a line from; put Weights() among the probes")
    return table[table["theta"].notna()] if "at_clock" in table else table


def _between(
    pairs: Pairs,
    task: Task,
    *,
    alphas: Sequence[float] = ALPHAS,
    reach: float = REACH,
    level: float = LEVEL,
    examples: int | None = None,
    held_out: int | None = None,
) -> Lines:
    grid = torch.tensor(alphas, dtype=torch.float64)
    if not {0.0, 1.0} <= set(alphas) or not (grid.diff() > 0).all():
        raise ValueError("alphas must ascend, with 0 and 1, the two ends, among them")
    surface = Surface.of(task, examples, held_out)
    ends, curves = [], []
    for name, *both in pairs:
        first, second = (rows.sort_values("seed").reset_index(drop=True) for rows in both)
        if list(first["seed"]) != list(second["seed"]):
            raise ValueError(f"the ends of pair {name!r} have different seeds; train both with the same")
        whole = np.flatnonzero(first["theta"].notna() & second["theta"].notna())
        parts = [rows.drop(columns="theta").assign(pair=name, end=k) for k, rows in ((1, first), (2, second))]
        if len(whole):
            one, two = (_stack(rows, whole, surface.x) for rows in (first, second))
            heights = along(surface, one, two - one, alphas)
            measured = _both_ends(surface, one, two, reach)
            for part, columns, place in zip(parts, measured, (grid, 1 - grid), strict=True):
                columns |= _half_widths(place, heights[..., 0].cpu(), columns["separation"].cpu(), level)
                for column, values in columns.items():
                    part.loc[whole, column] = values.cpu().double().numpy()
            for seed, values in zip(first["seed"].to_numpy()[whole], heights.cpu().numpy(), strict=True):
                curve = dict(zip(COLUMNS, values.T, strict=True))
                curves.append(pd.DataFrame({"pair": name, "seed": seed, "alpha": alphas} | curve))
        ends += parts
    return Lines(pd.concat(ends, ignore_index=True), pd.concat(curves, ignore_index=True) if curves else pd.DataFrame())


def _both_ends(surface: Surface, first: Tensor, second: Tensor, reach: float) -> Iterator[dict[str, Tensor]]:
    u, separation = toward(first, second)
    data = [t.expand(len(first), *t.shape) for t in (surface.x, surface.y)]
    for theta, out in ((first, -u), (second, u)):
        near = (separation / 32)[:, None] * out
        yield {
            "line_curvature": curvature_along(hessian(surface.losses, theta, *data), out),
            "line_rise": symmetric_rise(surface.loss, theta, out, reach * separation),
            "line_slope": (surface.loss(theta + near) - surface.loss(theta - near)) / (separation / 16),
            "separation": separation,
        }


def _half_widths(place: Tensor, losses: Tensor, separation: Tensor, level: float) -> dict[str, Tensor]:
    """Outward and inward of an end (R,); place (T,): 0 at the end and 1 at the other one; losses (R, T)."""
    widths = {}
    for name, distance in (("outward", -place), ("inward", place)):
        order = torch.argsort(distance)[int((distance < 0).sum()) :]
        rises = losses[:, order] - losses[:, order[:1]]
        widths[name] = half_width(distance[order], rises, level) * separation
    return widths


def _stack(rows: pd.DataFrame, whole: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(list(rows["theta"].iloc[whole]))).to(like)


def contours(
    result: Result, corners: Mapping[str, Setting], seed: int, *, margin: float = 0.6, points: int = 33
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The loss in the plane through three networks of one seed: a grid ``a``, ``b``, ``train_loss``; and the corners.

    corners: three names → (lr, batch_size); their table has ``corner``, ``a``, ``b``, distances in parameter space.
    margin: how far the grid goes beyond them, in units of their largest extent. Errors as for ``lines``.
    """
    table = _with_theta(result.table())
    rows = [
        table[(table.lr == lr) & (table.batch_size == size) & (table.seed == seed)] for lr, size in corners.values()
    ]
    if len(rows) != 3 or any(len(row) != 1 for row in rows):
        raise ValueError(f"corners={dict(corners)} and seed={seed} do not name three runs of the result")
    surface = Surface.of(result.runs[0].task)
    thetas = [_stack(row, np.array([0]), surface.x)[0] for row in rows]
    plane = Plane.through(*thetas)
    places = plane.points.cpu().double().numpy()
    low, high = places.min(0), places.max(0)
    room = margin * (high - low).max()
    a, b = (np.linspace(low[i] - room, high[i] + room, points) for i in (0, 1))
    heights = plane.heights(surface.loss, a.tolist(), b.tolist()).cpu().numpy()
    grid = pd.DataFrame({"a": np.repeat(a, points), "b": np.tile(b, points), "train_loss": heights.ravel()})
    return grid, pd.DataFrame({"corner": list(corners), "a": places[:, 0], "b": places[:, 1]})
