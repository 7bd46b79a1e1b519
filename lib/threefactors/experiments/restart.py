"""A trained minimum, left a little and taken up again by SGD: does it hold, or is it left for good?

A minimum that fits every label has no gradient noise: all per-example gradients vanish there. What SGD does beside it
is up to curvature alone. ``restart`` lets the network decide; ``replay`` gives the same start and the same batches to
the linearized system, which knows of the network only the Gram matrix of its output gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from threefactors._rng import generator
from threefactors.experiments.probes import Weights
from threefactors.experiments.runner import run
from threefactors.measurement.jacobian import jacobian_gram
from threefactors.measurement.operators import evaluate, pushforward, vjp
from threefactors.training import Sweep, Task, TrainLoss, load
from threefactors.training.engines import Engine, Plan
from threefactors.training.kernel import Kernel
from threefactors.training.losses import StackLosses
from threefactors.training.steps import Stacked
from threefactors.training.train import DIVERGED

Array = NDArray[np.float64]
START, LEFT, BACK = 1e-8, 1e-4, 1e-12  # training losses: at the start, of a run that has left, of one that is back
EXACT = 1e-20  # training loss of a minimum, in float64
LONG, GRID = 1000, 10  # repeats from here on are long ones; rates of a search
DRAWS = ("independent", "fresh", "epochs")


@dataclass(frozen=True, eq=False)
class Minima:
    """R networks that fit all their labels, one for each seed, and the curvature there.

    theta (R, P) in float64; x (N, D), y (N,); gram (R, NK, NK) is J Jᵀ of the outputs.
    """

    seeds: tuple[int, ...]
    losses: StackLosses[Any]
    theta: Tensor
    x: Tensor
    y: Tensor
    gram: Array

    @cached_property
    def sharpness(self) -> Array:
        """λ_max (R,) of the Hessian of the mean loss."""
        return np.linalg.eigvalsh(self.gram)[:, -1] / len(self.x)

    def outputs(self, theta: Tensor) -> Tensor:
        """(R, N, K) for any θ (R, P)."""
        return self.losses.outputs(theta, self.x.to(theta).expand(len(theta), *self.x.shape))

    def residuals(self, theta: Tensor) -> Tensor:
        """Outputs less targets (R, NK); the training loss is |r|²/2N."""
        with torch.no_grad():
            outputs = self.outputs(theta)
        return (outputs - torch.nn.functional.one_hot(self.y, self.losses.classes)).flatten(1)


def find_minima(task: Task, seeds: Iterable[int], until: TrainLoss, **sgd: Any) -> Minima:
    """Trains a network for each seed, and carries it on to the nearest minimum.

    task: squared loss, no label noise and no batch norm; until and sgd (lr, batch_size, …): how the networks are found,
    which then are kept in the store. Errors: ValueError for another task, for seeds that do not come to their training
    loss, and as ``nearest``.
    """
    if task.loss != "squared" or task.label_noise or task.model.batch_norm is not None:
        raise ValueError(f"{task}: use loss='squared', label_noise=0 and a model without batch norm")
    table = run(Sweep.grid(task, seed=list(seeds), until=until, **sgd), [Weights()]).table()
    if missed := table.seed[~table.finished.eq(True)].tolist():
        raise ValueError(f"seeds {missed} do not come to a loss of {until.value}; use a smaller lr, or more epochs")
    data = load(task.dataset).first(task.train_size).to("cpu", torch.float64)
    losses = StackLosses(task.model, task.loss, data.inputs, data.classes)
    theta = torch.from_numpy(np.stack(list(table.theta))).double()
    return nearest(Minima(tuple(table.seed), losses, theta, data.x_train, data.y_train, np.empty(0)))


def nearest(near: Minima, steps: int = 20) -> Minima:
    """The minima next to networks near them, by Gauss–Newton steps: δ = −Jᵀ (J Jᵀ)⁺ r, the shortest that fits.

    near: its gram is not looked at. Errors: ValueError where so many steps leave a training loss above EXACT.
    """
    theta, N = near.theta.clone(), len(near.x)
    for _ in range(steps):
        gram, residual = jacobian_gram(near.losses, theta, near.x), near.residuals(theta)
        worst = float(residual.square().sum(1).max()) / (2 * N)
        if worst <= EXACT:
            return Minima(near.seeds, near.losses, theta, near.x, near.y, gram.numpy())
        pull = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ residual[..., None]
        at, outputs = evaluate(near.outputs, theta)
        theta -= vjp(outputs, at, pull.view_as(outputs))
    raise ValueError(f"a training loss of {worst:.2g} is left: there is no minimum nearby that fits all labels")


def displacements(minima: Minima, repeat: int) -> tuple[Tensor, Array]:
    """δ (R, P) in a random direction, of the length that makes |Jδ|²/2N = START; and Jδ (R, NK)."""
    shape = minima.theta.shape[1]
    draws = [torch.randn(shape, generator=generator(s, f"displacement/{repeat}")) for s in minima.seeds]
    delta = torch.stack(draws).to(minima.theta)
    at, outputs = evaluate(minima.outputs, minima.theta)
    change = pushforward(outputs, at)(delta).detach().flatten(1)
    length = (2 * len(minima.x) * START / change.square().sum(1, keepdim=True)).sqrt()
    return length * delta, (length * change).numpy()


def batches(seed: int, repeat: int, batch_size: int, steps: int, examples: int, draws: str) -> Tensor:
    """Batches (steps, S) of a restart: ``independent`` draws, ``fresh`` ones without replacement, or by ``epochs``.

    A fresh batch holds S different examples, whatever was in the last one; in an epoch each example has its turn.
    Errors: ValueError for another word, or S outside 1 … N.
    """
    if draws not in DRAWS or not 1 <= batch_size <= examples:
        raise ValueError(f"draws={draws!r}, batch_size={batch_size}: use one of {DRAWS}, and 1 <= S <= {examples}")
    source = generator(seed, f"restart/{draws}/{batch_size}/{repeat}")
    if draws == "independent":
        return torch.randint(examples, (steps, batch_size), generator=source)
    once = examples // batch_size if draws == "epochs" else 1
    shuffled = torch.rand(-(-steps // once), examples, generator=source).argsort(1)
    return shuffled[:, : once * batch_size].reshape(-1, batch_size)[:steps]


def restart(
    minima: Minima, rates: ArrayLike, batch_size: int, *, repeats: int, steps: int, looks: int, draws: str
) -> pd.DataFrame:
    """SGD from beside each minimum at each of its own learning rates: one row for each seed, rate and repeat.

    rates (R, G). The training loss starts at START and is looked at ``looks`` times. Columns: ``seed``, ``rate`` (its
    place, 0 … G − 1), ``lr``, ``batch_size``, ``draws``, ``repeat``; ``left`` and ``back``: whether it came to LEFT or
    to BACK first (neither: undecided); ``replay_left`` and ``replay_back``: the same of the linearized system from the
    same start with the same batches. All rates of a seed and repeat share both.
    Errors: ValueError for rates of another shape, or not > 0, and as ``batches``.
    """
    rates = np.asarray(rates, dtype=float)
    if rates.ndim != 2 or len(rates) != len(minima.seeds) or not (rates > 0).all():
        raise ValueError(f"rates of shape {rates.shape} for {len(minima.seeds)} minima; use (R, G) numbers > 0")
    rows, theta = [], []
    plans: list[Plan] = []
    for repeat in range(repeats):
        delta, change = displacements(minima, repeat)
        for i, seed in enumerate(minima.seeds):
            order = batches(seed, repeat, batch_size, steps, len(minima.x), draws)
            replayed = replay(minima.gram[i], change[i], rates[i], order.numpy(), len(minima.x), looks)
            for g, lr in enumerate(rates[i]):
                left, back = fate(replayed[:, g])
                rows.append({"seed": seed, "rate": g, "lr": lr, "batch_size": batch_size, "draws": draws,
                             "repeat": repeat, "replay_left": left, "replay_back": back})  # fmt: skip
                theta.append(minima.theta[i] + delta[i])
                plans.append(Plan(len(plans), order, torch.full((steps,), lr, dtype=torch.float64)))
    # a batch loss above N·LEFT is that of an example, at least, and then the training loss is above LEFT
    path = descend(minima, torch.stack(theta), plans, looks, _decided, limit=len(minima.x) * LEFT)
    with np.errstate(divide="ignore"):
        fates = [fate(one) for one in np.log(path).T]
    return pd.DataFrame(rows).assign(left=[left for left, _ in fates], back=[back for _, back in fates])


def _decided(losses: Array) -> NDArray[np.bool_]:
    return ~((losses > BACK) & (losses < LEFT))


def fate(log_losses: Array) -> tuple[bool, bool]:
    """Whether a path of ln L has left, and whether it is back: whichever came first."""
    ended = ~((log_losses > np.log(BACK)) & (log_losses < np.log(LEFT)))
    if not ended.any():
        return False, False
    back = bool(log_losses[ended.argmax()] <= np.log(BACK))
    return not back, back


def descend(
    minima: Minima,
    theta: Tensor,
    plans: Sequence[Plan],
    looks: int,
    over: Callable[[Array], NDArray[np.bool_]],
    limit: float = DIVERGED,
) -> Array:
    """Carries θ (M, P), in place, along its plans; the training losses (looks + 1, M) on the way.

    A run that is ``over`` at a look stays as it is. One with a batch loss above ``limit`` stops, too, and its loss then
    counts as infinite.
    """
    engine = _engine(minima, theta)
    path = [_losses(minima, theta)]
    going = np.ones(len(theta), dtype=bool)
    for start, stop in pairwise(np.linspace(0, len(plans[0].order), looks + 1).round().astype(int).tolist()):
        going &= ~over(path[-1])
        path.append(path[-1].copy())
        if active := np.flatnonzero(going).tolist():
            made = engine.advance(theta, None, 0.0, [plans[m].cut(start, stop) for m in active], limit)
            path[-1][active] = _losses(minima, theta[active])
            fallen = np.array(active)[np.array(made) < stop - start]
            path[-1][fallen], going[fallen] = np.inf, False
    return np.array(path)


def _engine(minima: Minima, theta: Tensor) -> Engine:
    losses, x, labels = minima.losses, minima.x.to(theta), minima.y.expand(len(theta), -1)
    if losses.in_c(theta):
        return Kernel(losses.perceptron.widths(losses.inputs, losses.classes), None, losses.loss, x, labels)
    return Stacked(losses, x, labels)


def _losses(minima: Minima, theta: Tensor) -> Array:
    return (minima.residuals(theta).square().sum(1) / (2 * len(minima.x))).double().numpy()


def replay(gram: Array, start: Array, rates: Array, order: NDArray[np.int64], examples: int, looks: int) -> Array:
    """The linearized system on the same batches: ln L (looks + 1, G) of u ← u − (η/S) Σ_{i in batch} (J J_iᵀ) u_i.

    u = J (θ − θ*) (NK,) are the residuals and L = |u|²/2N; of θ and of the network nothing more is needed. gram J Jᵀ,
    start u_0, rates η (G,), order (steps, S). Lengths are kept as logarithms, so that nothing overflows.
    """
    steps, S = order.shape
    blocks = gram.reshape(examples, -1, len(gram))  # J_i Jᵀ
    u = np.repeat(start[:, None], len(rates), 1)
    log = np.zeros(len(rates))
    path, marks = [], set(np.linspace(0, steps, looks + 1).round().astype(int).tolist())
    for t in range(steps + 1):
        if t in marks or t % 16 == 0:
            length = np.linalg.norm(u, axis=0)
            u /= np.where(length > 0, length, 1)
            with np.errstate(divide="ignore"):
                log += np.log(length)
        if t in marks:
            path.append(2 * log - np.log(2 * examples))
        if t < steps and examples > 2 * S:
            rows = u.reshape(examples, -1, len(rates))[order[t]].reshape(-1, len(rates))
            u -= blocks[order[t]].reshape(-1, len(gram)).T @ (rows * (rates / S))
        elif t < steps:  # most of G would be copied: let how often each example is in the batch weigh the residuals
            often = np.bincount(order[t], minlength=examples).repeat(len(gram) // examples)
            u -= gram @ (often[:, None] * u * (rates / S))
    return np.array(path)


def typical_limits(minima: Minima, batch_size: int, low: Array, high: Array, *, steps: int, draws: str) -> Array:
    """Learning rates (R,) between low and high (R,) at which a typical path of the linearized system begins to grow.

    The largest Lyapunov exponent (1/t) ln|u_t| is simulated at GRID rates, and once more between the last at which it
    is not positive and the next, on other draws. Errors: ValueError where low is too high, or high too low.
    """
    _, change = displacements(minima, 0)
    found = []
    for i, seed in enumerate(minima.seeds):
        ends = low[i], high[i]
        for search in range(2):
            rates = np.geomspace(*ends, GRID)
            order = batches(seed, LONG + search, batch_size, steps, len(minima.x), draws).numpy()
            path = replay(minima.gram[i], change[i], rates, order, len(minima.x), 10)
            # the first tenth is for the direction to be found; what has shrunk to rounding errors has not grown
            still = np.flatnonzero(path[-1] <= np.maximum(path[1], path[0] - 50))
            last = int(still[-1]) if len(still) else -1
            if search == 0 and not 0 <= last < GRID - 1:
                raise ValueError(f"seed {seed} has no limit between {low[i]:.4g} and {high[i]:.4g}; widen the search")
            ends = rates[max(last, 0)], rates[min(last + 1, GRID - 1)]
        found.append(np.sqrt(ends[0] * ends[1]))
    return np.array(found)


def aftermath(
    minima: Minima, rates: ArrayLike, batch_size: int, *, steps: int, looks: int, draws: str
) -> tuple[Minima, Array]:
    """Where SGD comes to rest, begun beside each minimum; and the training losses (looks + 1, R) on the way.

    rates η (R,), one for each minimum. A network whose training loss is below START at the last look is at rest (it
    is carried on until a tenth of that); those that are not after so many steps are left out.
    Errors: as ``batches``, and ValueError where none is at rest.
    """
    eta, examples = np.broadcast_to(np.asarray(rates, dtype=float), len(minima.seeds)), len(minima.x)
    delta, _ = displacements(minima, 0)
    theta = minima.theta + delta
    orders = [batches(seed, LONG, batch_size, steps, examples, draws) for seed in minima.seeds]
    plans = [Plan(i, order, torch.full((steps,), eta[i], dtype=torch.float64)) for i, order in enumerate(orders)]
    path = descend(minima, theta, plans, looks, lambda loss: loss < START / 10)
    rested = np.flatnonzero(path[-1] < START)
    if not len(rested):
        raise ValueError(f"after {steps} steps no network is at rest: training losses {path[-1]}; use more steps")
    seeds = tuple(minima.seeds[i] for i in rested)
    gram = jacobian_gram(minima.losses, theta[rested], minima.x).numpy()
    return Minima(seeds, minima.losses, theta[rested], minima.x, minima.y, gram), path
