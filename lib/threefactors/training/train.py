"""The one training loop: a stack of runs, each to its own end, with pauses at which it can be observed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from threefactors._rng import generator, key
from threefactors.training import choice, sampling
from threefactors.training.augmentation import Augmenter
from threefactors.training.data import Dataset, corrupt
from threefactors.training.engines import Engine, Plan
from threefactors.training.losses import StackLosses
from threefactors.training.runs import Clock, Epochs, Run, Stack, Steps, TrainLoss
from threefactors.training.sampling import Draws, Sampler
from threefactors.training.schedules import Constant

DIVERGED = 1e3  # a batch loss above this, or one that is not finite, ends a run: ln(classes) is where it began
# Examples, of 8 bytes each, drawn ahead for one call of an engine where nothing is to be looked at between; an epoch of
SEGMENT = 1_000_000  # all runs at the least
ROUNDING = 1e-9  # slack for Σ lr, a rounded sum of up to 10⁷ steps
Pause = Callable[[int, list[float], list[float]], bool]
Observe = Callable[[int, list[int], bool], None]


class Trainer:
    """A stack in training: its state after each pause, and the data it learns from.

    theta (R, P), velocity (R, P) or None; per run (R,): steps, clock Σ lr, epochs (passes over the training set),
    diverged_at (the step at which it diverged, −1: it did not), finished (whether its stopping rule was met).
    labels (R, N) are each run's own, corrupted (R, N) marks the ones that label noise drew anew.
    """

    def __init__(
        self, stack: Stack, data: Dataset, *, dtype: torch.dtype = torch.float32, engine: str | None = None
    ) -> None:
        self.stack, self.runs = stack, stack.runs
        first = self.runs[0]
        data = data.first(first.task.train_size)
        for run in self.runs:
            run.check(len(data.x_train))
        self.data = data = data.to(data.x_train.device, dtype)
        device, count = data.x_train.device, len(self.runs)
        model = first.task.model
        self.losses = StackLosses(model, first.task.loss, data.inputs, data.classes)
        self.theta = torch.stack(
            [model.initial(data.inputs, data.classes, generator(run.seed, "init"), dtype) for run in self.runs]
        ).to(device)
        self.velocity = torch.zeros_like(self.theta) if first.sgd.momentum else None
        noisy = [
            corrupt(data.y_train, run.task.label_noise, data.classes, generator(run.seed, "labels"))
            for run in self.runs
        ]
        self.labels, self.corrupted = (torch.stack(part) for part in zip(*noisy, strict=True))
        self.steps, self.clock = [0] * count, [0.0] * count
        self._passes = [Fraction(0)] * count  # epochs; exact, so that no sum depends on where it was interrupted
        self._looked = [0.0] * count  # clock at the last look at the training loss
        self.diverged_at = [-1] * count
        self.finished = [False] * count
        self.epoch = 0  # of the last pause: how far those that have not ended have come
        self._samplers = [self.sampler(i) for i in range(count)]
        self._per_epoch = 0  # steps an epoch, in the plans that are being carried out
        self._noise = [generator(run.seed, "gradient noise") for run in self.runs]
        self._augmenter = self.augmenter(range(count))
        self._engine_name = choice.choose(engine, self.losses, self.theta, first.sgd.precision, first.task.augmentation)

    @cached_property
    def engine(self) -> Engine:
        x, precision = self.data.x_train, self.runs[0].sgd.precision
        return choice.make(self._engine_name, self.losses, x, self.labels, precision, self._augmenter)

    def train_losses(self, runs: Sequence[int]) -> Tensor:
        """Mean training loss (len(runs),), each run with its own labels."""
        outputs = self.engine.outputs(self.theta, runs)
        return self.losses.criterion(outputs, self.labels[list(runs)]).mean(1)

    def sampler(self, i: int, stream: str = "") -> Sampler:
        """Draws batches as run i does; with a ``stream`` of its own, others than those that it trains on."""
        return Sampler(self.runs[i], self.data.x_train, self.labels[i], self.data.classes, stream)

    def augmenter(self, runs: Sequence[int], stream: str = "") -> Augmenter | None:
        """Augments batches as those of the given runs are (None: not at all); with a ``stream``, by other draws."""
        first, x = self.runs[0], self.data.x_train
        if first.task.augmentation is None:
            return None
        keys = torch.tensor([key(self.runs[i].seed, stream + "augmentation") for i in runs], device=x.device)
        return Augmenter(first.task.augmentation, x.shape[1:], keys, first.sgd.label_draws)

    @property
    def epochs(self) -> list[float]:
        return [float(passes) for passes in self._passes]

    def _allowed(self, run: Run, clock: float, steps: int, lr: Tensor) -> int:
        """How many of the coming steps the run's stopping rule allows."""
        if isinstance(run.until, Steps):
            return min(len(lr), run.until.n - steps)
        if isinstance(run.until, Clock):
            return _until(_clocks(clock, lr), run.until.T) or len(lr)
        return len(lr)

    def _over(self, run: Run, epoch: int, steps: int, clock: float) -> bool:
        """Whether a run has come to its stopping rule (for a training loss: to its limit)."""
        until = run.until
        if isinstance(until, Steps):
            return steps >= until.n
        if isinstance(until, Clock):
            return clock >= until.T * (1 - ROUNDING)
        return epoch >= (until.n if isinstance(until, Epochs) else until.at_most.n)

    def _plan(self, active: list[int], epoch: int, pause: Pause) -> tuple[list[Plan], int]:
        """Plans for the epochs up to the next one after which something may happen; and that epoch."""
        examples, first = len(self.data.x_train), self.runs[active[0]]
        size = first.batch_in(epoch, examples)
        per_epoch = self._per_epoch = self._samplers[active[0]].steps(size)
        drawn: list[list[Draws]] = [[] for _ in active]
        rates: list[list[Tensor]] = [[] for _ in active]
        clocks, counts = [self.clock[i] for i in active], [self.steps[i] for i in active]
        looks = any(isinstance(u := self.runs[i].until, TrainLoss) and u.every is None for i in active)
        ahead = max(1, SEGMENT // (per_epoch * size * first.sgd.rows * len(active)))
        if any(isinstance(self.runs[i].until, TrainLoss) for i in active):
            ahead = min(ahead, epoch + 1)  # when the loss will be reached nobody knows: at most twice what is needed
        for _ in range(ahead):
            before, over = list(clocks), False
            draws = sampling.epochs([self._samplers[i] for i in active], size)
            for j, i in enumerate(active):
                run = self.runs[i]
                lr = self._rates(run, epoch, per_epoch)
                n = self._allowed(run, clocks[j], counts[j], lr)
                drawn[j].append(draws[j])
                rates[j].append(lr[:n])
                clocks[j] = _clocks(clocks[j], lr[:n])[-1].item() if n else clocks[j]
                counts[j] += n
                over |= self._over(run, epoch + 1, counts[j], clocks[j])
            epoch += 1
            if over or looks or pause(epoch, before, clocks) or first.sgd.batch_at(epoch) != size:
                break
        return [_joined(i, self.steps[i], d, r) for i, d, r in zip(active, drawn, rates, strict=True)], epoch

    def _rates(self, run: Run, epoch: int, per_epoch: int) -> Tensor:
        lr = run.sgd.lr / run.sgd.svag
        if isinstance(run.sgd.lr_schedule, Constant):
            return torch.full((per_epoch,), lr, dtype=torch.float64)
        factors = torch.tensor([run.sgd.lr_schedule(epoch + t / per_epoch) for t in range(per_epoch)])
        if not (torch.isfinite(factors).all() and (factors > 0).all()):
            raise ValueError(f"lr_schedule={run.sgd.lr_schedule!r} gives a factor that is not > 0 in epoch {epoch}")
        return lr * factors.double()

    def _advance(self, plans: list[Plan]) -> None:
        """Carries out the plans and books what was done."""
        momentum = self.runs[0].sgd.momentum
        if self.runs[0].sgd.isotropic_noise:
            done = self._advance_noisily(plans, momentum)
        else:
            done = self.engine.advance(self.theta, self.velocity, momentum, plans, DIVERGED)
        for plan, made in zip(plans, done, strict=True):
            i = plan.run
            if made < len(plan.lr):
                self.diverged_at[i] = self.steps[i] + made
            if made:
                self.clock[i] = _clocks(self.clock[i], plan.lr[:made])[-1].item()
            self.steps[i] += made
            self._passes[i] += Fraction(made, self._per_epoch)

    def _parts(self, plans: list[Plan]) -> Iterator[tuple[list[Plan], list[int]]]:
        """The plans, cut where runs that train to a loss are to be looked at; and the runs to look at then.

        When a run is looked at depends on its own clock alone, not on where plans happen to end.
        """
        at = [0] * len(plans)
        while True:
            part, looks = [], []
            for j, plan in enumerate(plans):
                i, until, lr = plan.run, self.runs[plan.run].until, plan.lr[at[j] :]
                if self.finished[i] or self.diverged_at[i] >= 0 or len(lr) == 0:
                    continue
                n = len(lr)
                if isinstance(until, TrainLoss):
                    due = (
                        n if until.every is None else _until(_clocks(self.clock[i], lr), self._looked[i] + until.every)
                    )
                    n = due or n
                    looks += [i] if due else []
                part.append(plan.cut(at[j], at[j] + n))
                at[j] += n
            if not part:
                return
            yield part, looks

    def _look(self, runs: list[int]) -> None:
        """Marks the runs that have come down to their training loss."""
        looked = [i for i in runs if self.diverged_at[i] < 0]
        if looked:
            for i, loss in zip(looked, self.train_losses(looked).tolist(), strict=True):
                self._looked[i] = self.clock[i]
                self.finished[i] = loss <= self.runs[i].until.value  # type: ignore[union-attr]

    def _advance_noisily(self, plans: list[Plan], momentum: float) -> list[int]:
        """Step by step, with noise behind each: v + ε and θ − lr ε are what adding ε to the gradient gives."""
        done = [0] * len(plans)
        for t in range(max(len(plan.lr) for plan in plans)):
            going = [j for j, plan in enumerate(plans) if done[j] == t < len(plan.lr)]
            steps = [plans[j].cut(t, t + 1) for j in going]
            made = self.engine.advance(self.theta, self.velocity, momentum, steps, DIVERGED)
            for j, step, one in zip(going, steps, made, strict=True):
                done[j] += one
                if one:
                    i, sigma = step.run, self.runs[step.run].sgd.isotropic_noise
                    draw = torch.randn(self.theta.shape[1], generator=self._noise[i], dtype=torch.float64)
                    noise = (sigma * draw).to(self.theta)
                    if self.velocity is not None:
                        self.velocity[i] += noise
                    self.theta[i] -= step.lr.to(noise) * noise
        return done

    def train(
        self,
        observe: Observe | None = None,
        pause: Pause = lambda epoch, before, after: False,
        rest: Callable[[list[int]], None] = lambda runs: None,
    ) -> Trainer:
        """Trains every run to its end, from the start or from where ``restore`` took it up.

        ``pause(epoch, before, after)`` says whether to look after that epoch, given the clocks of the runs in
        training before and after it; then, and at epoch 0, ``observe(epoch, runs, False)`` is called.
        ``observe(epoch, runs, True)`` is called once for each run at its end, whichever way it ended.
        ``rest(runs)`` is called whenever all runs that go on stand at an epoch's end, where ``state`` can be taken.
        """
        tell = observe or (lambda epoch, runs, ended: None)
        epoch = begun = self.epoch
        active = list(range(len(self.runs)))
        if epoch == 0:
            tell(0, active, False)
        while True:
            ended = []
            for i in active:
                over = self._over(self.runs[i], epoch, self.steps[i], self.clock[i])
                if over and self.diverged_at[i] < 0 and not isinstance(self.runs[i].until, TrainLoss):
                    self.finished[i] = True
                if over or self.finished[i] or self.diverged_at[i] >= 0:
                    ended.append(i)
            if ended:
                tell(epoch, ended, True)
            active = [i for i in active if i not in ended]
            if not active:
                return self
            if epoch > begun:
                rest(active)
            clocks = list(self.clock)
            plans, epoch = self._plan(active, epoch, pause)
            for part, looks in self._parts(plans):
                self._advance(part)
                self._look(looks)
            self.epoch = epoch
            going = [i for i in active if self.diverged_at[i] < 0 and not self.finished[i]]
            if going and pause(epoch, [clocks[i] for i in going], [self.clock[i] for i in going]):
                tell(epoch, going, False)

    def state(self, i: int) -> dict[str, Any]:
        """What run i has come to at a pause, in numbers and tensors on the CPU; it holds all that ``restore`` needs."""
        return {
            "epoch": self.epoch,
            "theta": self.theta[i].detach().to("cpu", copy=True),
            "velocity": None if self.velocity is None else self.velocity[i].detach().to("cpu", copy=True),
            "steps": self.steps[i],
            "clock": self.clock[i],
            "passes": [self._passes[i].numerator, self._passes[i].denominator],
            "looked": self._looked[i],
            "diverged_at": self.diverged_at[i],
            "finished": self.finished[i],
            "draws": self._samplers[i].state(),
            "noise": self._noise[i].get_state(),
        }

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Takes every run up where its ``state`` was taken, before ``train``: no bit of a result depends on the break.

        Raises ValueError for states of another number of runs, of other networks, or of different epochs.
        """
        epochs, shapes = {state["epoch"] for state in states}, {tuple(state["theta"].shape) for state in states}
        if len(states) != len(self.runs) or len(epochs) != 1 or shapes != {tuple(self.theta.shape[1:])}:
            raise ValueError(
                f"{len(states)} states of epochs {sorted(epochs)} and shapes {sorted(shapes)} for {len(self.runs)} "
                f"runs of {self.theta.shape[1]} parameters; give one for each run, all of one epoch"
            )
        (self.epoch,) = epochs
        for i, state in enumerate(states):
            self.theta[i].copy_(state["theta"])
            if self.velocity is not None:
                self.velocity[i].copy_(state["velocity"])
            self.steps[i], self.clock[i] = state["steps"], state["clock"]
            self._passes[i] = Fraction(*state["passes"])
            self._looked[i] = state["looked"]
            self.diverged_at[i], self.finished[i] = state["diverged_at"], state["finished"]
            self._samplers[i].restore(state["draws"])
            self._noise[i].set_state(state["noise"])


def _joined(run: int, first: int, drawn: list[Draws], rates: list[Tensor]) -> Plan:
    """The draws of whole epochs, up to the steps that are to be made of each."""
    if len(drawn) == 1:  # nothing to join: large sets are planned epoch by epoch
        (one,), (lr,) = drawn, rates
        return Plan(run, one.order, lr, one.weights, one.labels, first).cut(0, len(lr))
    parts = [one.cut(0, len(lr)) for one, lr in zip(drawn, rates, strict=True)]
    weights = [part.weights for part in parts if part.weights is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    return Plan(
        run,
        torch.cat([part.order for part in parts]),
        torch.cat(rates),
        torch.cat(weights) if weights else None,
        torch.cat(labels) if labels else None,
        first,
    )


def _clocks(clock: float, lr: Tensor) -> Tensor:
    """The clock after each of the coming steps; summed step by step, so that cutting changes no bit."""
    return torch.cat([torch.tensor([clock], dtype=torch.float64), lr.double()]).cumsum(0)[1:]


def _until(clocks: Tensor, time: float) -> int:
    """Number of steps after which the clock has reached the time; 0 if none of them does."""
    reached = clocks >= time * (1 - ROUNDING)
    return int(reached.int().argmax()) + 1 if reached.any() else 0


def train(stack: Stack, data: Dataset, *, dtype: torch.dtype = torch.float32, engine: str | None = None) -> Trainer:
    """Trains a stack to its end: ``train(stack, data).theta[i]`` is what run i alone would have reached."""
    return Trainer(stack, data, dtype=dtype, engine=engine).train()
