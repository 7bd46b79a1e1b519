"""Runs, sweeps and schedules: bad input is refused with value, bound and remedy; identities are faithful."""

import math
from dataclasses import dataclass

import pytest
from threefactors._identity import canonical
from threefactors.training import (
    MLP,
    SGD,
    Clock,
    Constant,
    Custom,
    Epochs,
    Run,
    SquareCycle,
    Stack,
    Step,
    Steps,
    Sweep,
    Task,
    TrainLoss,
    TriangularCycle,
    train,
)

REFUSED = {
    "lr=0 is not a finite number > 0": lambda: SGD(lr=0, batch_size=8),
    "lr=-0.1": lambda: SGD(lr=-0.1, batch_size=8),
    "lr=nan": lambda: SGD(lr=float("nan"), batch_size=8),
    "lr=inf": lambda: SGD(lr=float("inf"), batch_size=8),
    "batch_size=0 is not a whole number >= 1": lambda: SGD(lr=0.1, batch_size=0),
    "batch_size=2.5": lambda: SGD(lr=0.1, batch_size=2.5),
    "momentum=1 never forgets": lambda: SGD(lr=0.1, batch_size=8, momentum=1),
    "gradient_noise=-1": lambda: SGD(lr=0.1, batch_size=8, gradient_noise=-1),
    "sampling='shuffle' is unknown; use one of epoch, replacement": lambda: SGD(0.1, 8, sampling="shuffle"),
    "svag=0 is not a whole number >= 1": lambda: SGD(0.1, 8, svag=0),
    "svag=4 takes small steps of plain SGD; use momentum=0": lambda: SGD(0.1, 8, svag=4, momentum=0.9),
    "svag=2 takes .* gradient_noise=0": lambda: SGD(0.1, 8, svag=2, gradient_noise=0.1),
    "label_flips=1.1 is a probability": lambda: SGD(0.1, 8, label_flips=1.1),
    "label_flips=-0.1": lambda: SGD(0.1, 8, label_flips=-0.1),
    "label_draws=0": lambda: SGD(0.1, 8, label_draws=0, label_flips=0.1),
    "label_draws=4 without label_flips": lambda: SGD(0.1, 8, label_draws=4),
    "importance=inf": lambda: SGD(0.1, 8, importance=float("inf"), sampling="replacement"),
    "importance=1 draws each example afresh; use sampling='replacement'": lambda: SGD(0.1, 8, importance=1),
    "importance=1 .*antithetic=False": lambda: SGD(0.1, 8, importance=1, sampling="replacement", antithetic=True),
    "antithetic=1 is neither": lambda: SGD(0.1, 8, antithetic=1),
    "gradient_noise_like='white' is unknown; use one of identity, cov": lambda: SGD(
        0.1, 8, gradient_noise_like="white"
    ),
    "gradient_noise_like='covariance' .*batch_size >= 2": lambda: SGD(
        0.1, 1, gradient_noise=1, gradient_noise_like="covariance"
    ),
    "label_noise=1.5 is a fraction": lambda: Task(label_noise=1.5),
    "label_noise=-0.1": lambda: Task(label_noise=-0.1),
    "loss='hinge' is unknown; use one of cross-entropy, squared": lambda: Task(loss="hinge"),
    "train_size=0": lambda: Task(train_size=0),
    "width of 0": lambda: MLP((64, 0)),
    "batch_norm=1 is no ghost batch": lambda: MLP((64,), batch_norm=1),
    "seed=-1": lambda: Run(Task(), SGD(0.1, 8), -1, Epochs(1)),
    "Epochs=-1": lambda: Epochs(-1),
    "Steps=1.5": lambda: Steps(1.5),
    "Clock=0": lambda: Clock(0),
    "TrainLoss=0": lambda: TrainLoss(0, at_most=Epochs(1)),
    "every=0": lambda: TrainLoss(0.1, at_most=Epochs(1), every=0),
    "an empty sweep": lambda: Sweep.grid(Task(), lr=[], batch_size=8, until=Epochs(1)),
    "given twice": lambda: Sweep.grid(Task(), lr=[0.1, 0.1], batch_size=8, until=Epochs(1)),
    "gives the factor -1": lambda: SGD(0.1, 8, lr_schedule=Custom("falling", lambda epoch: -1)),
    r"Step\(factor=0\)": lambda: Step(at=(1,), factor=0),
    r"SquareCycle\(period=0\)": lambda: SquareCycle(0, 1, 2),
    r"TriangularCycle\(high=inf\)": lambda: TriangularCycle(2, 1, float("inf")),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_values_are_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_what_has_no_identity_is_refused():
    with pytest.raises(TypeError, match="no schedule with an identity"):
        SGD(0.1, 8, lr_schedule=lambda epoch: 1.0)

    @dataclass
    class Mutable:
        def __call__(self, epoch):
            return 1.0

    with pytest.raises(TypeError, match="frozen=True"):
        SGD(0.1, 8, lr_schedule=Mutable())
    with pytest.raises(TypeError, match=r"until=3: use Steps\(n\), Epochs\(n\)"):
        Run(Task(), SGD(0.1, 8), 0, 3)
    with pytest.raises(TypeError, match="SGD takes lr, batch_size, momentum"):
        Sweep.grid(Task(), learning_rate=[0.1], batch_size=8, until=Epochs(1))


def test_batches_must_fit_the_data_and_the_ghosts():
    def run(**sgd):
        return Run(Task(model=MLP((8,), batch_norm=8)), SGD(lr=0.1, **sgd), 0, Epochs(20))

    with pytest.raises(
        ValueError, match=r"batch_size=2000 .*exceeds the 1152 training examples.*use batch_size <= 1152"
    ):
        run(batch_size=2000).check(1152)
    with pytest.raises(ValueError, match=r"batch_size=1280 \(epoch 5\) exceeds"):
        run(batch_size=128, batch_schedule=Step(at=(5,), factor=10)).check(1152)
    with pytest.raises(ValueError, match="batch_size=12 is not a multiple of the ghost batch of 8"):
        run(batch_size=12).check(1152)
    run(batch_size=4).check(1152)


@pytest.mark.parametrize(
    "sgd",
    [
        {"svag": 2},
        {"label_flips": 0.1, "label_draws": 2},
        {"importance": 0.5, "sampling": "replacement"},
        {"antithetic": True},
        {"gradient_noise": 1.0, "gradient_noise_like": "covariance"},
    ],
)
def test_batch_norm_has_no_gradients_of_single_examples(sgd):
    with pytest.raises(ValueError, match=r"needs a gradient for each example, .*use MLP\(..., batch_norm=None\)"):
        Run(Task(model=MLP((8,), batch_norm=8)), SGD(0.1, 16, **sgd), 0, Epochs(1))
    Run(Task(model=MLP((8,), batch_norm=8)), SGD(0.1, 16, label_flips=0.1), 0, Epochs(1))


def test_pairs_and_covariances_need_batches_that_have_them():
    def run(**sgd):
        return Run(Task(), SGD(lr=0.1, **sgd), 0, Epochs(2))

    with pytest.raises(ValueError, match=r"batch_size=9 \(epoch 0\) or train_size=1152 is odd; use even numbers"):
        run(batch_size=9, antithetic=True).check(1152)
    with pytest.raises(ValueError, match="train_size=1151 is odd"):
        run(batch_size=8, antithetic=True).check(1151)
    shrinking = Step(at=(1,), factor=0.5)
    noise = {"gradient_noise": 1.0, "gradient_noise_like": "covariance"}
    with pytest.raises(ValueError, match=r"batch_size=1 \(epoch 1\) has no covariance"):
        run(batch_size=2, batch_schedule=shrinking, **noise).check(1152)


def test_a_batch_that_grows_too_large_on_the_way_is_refused_too(digits):
    """Where the end is a clock, no one knows beforehand which epochs will come."""
    sgd = SGD(lr=0.001, batch_size=128, batch_schedule=Step(at=(2,), factor=10))
    stack = Stack((Run(Task(model=MLP((8,))), sgd, 0, Clock(1.0)),))
    with pytest.raises(ValueError, match=r"batch_size=1280 \(epoch 2\) exceeds"):
        train(stack, digits)


@dataclass(frozen=True)
class Warmup:
    epochs: int

    def __call__(self, epoch):
        return min(1.0, (epoch + 1) / self.epochs)


def test_equal_runs_have_equal_names_and_different_ones_have_not():
    def run(**changes):
        sgd = {"lr": 0.1, "batch_size": 8, **{k: v for k, v in changes.items() if k != "task" and k != "until"}}
        return Run(changes.get("task", Task()), SGD(**sgd), 0, changes.get("until", Epochs(1)))

    variants = [
        run(), run(lr=0.2), run(momentum=0.5), run(lr_schedule=Step((1,), 0.5)), run(batch_schedule=Step((1,), 0.5)),
        run(lr_schedule=Warmup(3)), run(lr_schedule=Warmup(4)), run(lr_schedule=Custom("a", math.exp)),
        run(lr_schedule=Custom("b", math.exp)), run(task=Task(model=MLP((64, 64)))), run(task=Task(label_noise=0.1)),
        run(until=Steps(1)), run(until=Clock(1)), run(until=TrainLoss(1, Epochs(1))),
        run(until=TrainLoss(1, Epochs(1), every=1.0)), run(svag=2), run(label_flips=0.1), run(antithetic=True),
        run(label_flips=0.1, label_draws=2), run(importance=0.5, sampling="replacement"), run(sampling="replacement"),
        run(gradient_noise=1.0), run(gradient_noise=1.0, gradient_noise_like="covariance"),
    ]  # fmt: skip
    names = [canonical(variant) for variant in variants]
    assert len(set(names)) == len(variants)
    assert canonical(run(lr_schedule=Constant())) == names[0]


def test_own_schedule_is_a_schedule():
    sgd = SGD(0.1, 8, lr_schedule=Warmup(4))
    assert [sgd.lr_schedule(e) for e in (0, 1, 9)] == [0.25, 0.5, 1.0]
    assert "test_runs.Warmup" in canonical(sgd)


def test_cycles_have_their_period():
    square, triangle = SquareCycle(4, 1, 5), TriangularCycle(4, 1, 5)
    for epoch in (0.3, 1.7, 2.0, 3.9):
        assert square(epoch) == square(epoch + 8)
        assert triangle(epoch) == pytest.approx(triangle(epoch + 8))
        assert triangle(epoch) == pytest.approx(triangle(4 - epoch))  # symmetric about half a period
    assert sum(triangle(i / 100) for i in range(400)) / 400 == pytest.approx(3)
