"""The engine for a GPU, on the CPU: the same steps as ``Stacked``, without a word to the host in between."""

import contextlib
import gc
import logging
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch
from threefactors import Loss, run
from threefactors._launch import Launch
from threefactors.training import (
    MLP,
    Clock,
    Epochs,
    SquareCycle,
    Stack,
    Steps,
    Sweep,
    Task,
    Trainer,
    TrainLoss,
    captured,
    choice,
    kernel,
    train,
)
from threefactors.training.augmentation import Augmentation
from threefactors.training.convolution import ConvNet
from threefactors.training.engines import DeviceError, Plan
from threefactors.training.losses import StackLosses
from threefactors.training.steps import Stacked
from threefactors.training.train import DIVERGED
from threefactors.training.update import Update
from torch.utils._python_dispatch import TorchDispatchMode

from tests.no_looks import Tape

GPU = [("cuda", True)] if torch.cuda.is_available() else []
NET = MLP((16, 12))
SMALL = ConvNet((1, 8, 8), ((8,), (8,)))
CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "batch norm": {"model": MLP((16, 12), batch_norm=16), "momentum": 0.5},
    "ghost batches": {"model": MLP((16, 12), batch_norm=8)},
    "squared loss": {"loss": "squared", "momentum": 0.9},
    "negative weights": {"svag": 3},
    "drawn labels": {"label_flips": 0.3, "label_draws": 2},
    "noise like the gradient's": {"gradient_noise": 0.5, "gradient_noise_like": "covariance"},
    "white noise": {"gradient_noise": 0.1, "until": Steps(5)},
    "unequal lengths": {"until": Clock(0.7), "momentum": 0.9},
    "to a loss": {"until": TrainLoss(0.9, at_most=Epochs(3), every=0.3), "momentum": 0.9},
    "alternating batches": {"batch_schedule": SquareCycle(2, 1, 4), "until": Epochs(4)},
    "falling at once": {"lr": [0.02, 1e6]},
    "falling one by one": {"model": MLP(()), "loss": "squared", "lr": [0.02, 0.1, 0.15, 0.3, 1.0], "until": Steps(40)},
    "falling late": {"model": MLP((16,), 8), "loss": "squared", "lr": [0.02, 1.0], "momentum": 0.9, "until": Steps(40)},
    "all fall": {"lr": [50.0, 20.0, 1e6], "until": Steps(40)},
    "images": {"model": SMALL, "momentum": 0.9, "until": Steps(6)},
    "images, batch norm": {"model": ConvNet((1, 8, 8), ((8,), (8,)), batch_norm=8), "until": Steps(6)},
    "images, falling": {"model": SMALL, "lr": [0.02, 300.0], "until": Steps(12)},
    "augmented": {"model": SMALL, "augmentation": Augmentation(crop=1), "until": Steps(6), "momentum": 0.9},
    "augmented, falling": {
        "augmentation": Augmentation(crop=1),
        "loss": "squared",
        "lr": [0.02, 0.1, 0.2, 0.3],
        "until": Clock(2.0),
    },
}


def one_stack(model=NET, **settings):
    task = {name: settings.pop(name) for name in ("loss", "label_noise", "augmentation") if name in settings}
    options = {"lr": [0.02, 0.05], "batch_size": 16, "seed": range(2), "until": Steps(50), **settings}
    (stack,) = Sweep.grid(Task(model=model, **task), **options).stacks()
    return stack


def plain(stack):
    return "by hand" if isinstance(stack.runs[0].task.model, MLP) else "autograd"


def same(one, other, bound):
    torch.testing.assert_close(one.theta.cpu(), other.theta, rtol=bound, atol=bound)
    if one.velocity is not None:
        torch.testing.assert_close(one.velocity.cpu(), other.velocity, rtol=bound, atol=bound)
    for name in ("steps", "diverged_at", "clock", "epochs", "finished"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize(("device", "lean"), [("cpu", True), ("cpu", False), *GPU])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_engine(digits, monkeypatch, case, device, lean):
    """θ, velocity and every count, at the end of runs of all kinds, with neighbors that end or fall before them.

    To the last bit, but for the lean step of a perceptron, and convolutions, which may round by their company. Where
    there is a GPU it is compared with the CPU: a run is the same on every device.
    """
    if not lean:
        monkeypatch.setattr(captured, "Update", lambda *args, **settings: Update(*args, **{**settings, "lean": False}))
    stack = one_stack(**CASES[case])
    fast = train(stack, digits.to(device), dtype=torch.float64, engine="captured")
    assert isinstance(fast.engine, captured.Captured)
    exact = not lean and plain(stack) == "by hand"
    bound = 1e-7 if device == "cuda" else 0.0 if exact else 1e-10
    same(fast, train(stack, digits, dtype=torch.float64, engine=plain(stack)), bound)
    if "fall" in case:
        fell = [at for at in fast.diverged_at if at >= 0]
        assert fell
        assert len(set(fell)) > 1 or case not in (
            "falling one by one",
            "falling late",
        )  # at different steps of one call


@pytest.mark.parametrize("model", [NET, SMALL], ids=["perceptron", "images"])
def test_a_step_in_single_precision_equals_the_plain_engine_to_rounding(digits, model):
    stack = one_stack(model, until=Steps(1), momentum=0.9)
    fast, slow = (train(stack, digits, engine=engine).theta for engine in ("captured", plain(stack)))
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-7)


def test_a_run_is_the_same_alone_as_in_a_stack(digits):
    runs = one_stack(lr=[0.02, 0.05, 50.0], until=Clock(1.0), momentum=0.5).runs
    together = train(Stack(runs), digits, dtype=torch.float64, engine="captured")
    for i in (0, 3, 4):
        alone = train(Stack((runs[i],)), digits, dtype=torch.float64, engine="captured")
        assert torch.equal(alone.theta[0], together.theta[i])
        assert alone.diverged_at[0] == together.diverged_at[i]


class Silence(TorchDispatchMode):
    """Refuses every operation that would make the host wait for a number; counts those that compute or move."""

    WAITING = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "bincount")

    def __init__(self):
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        assert not any(name == waiting or name.startswith(waiting + "_") for waiting in self.WAITING), f"{name} waits"
        self.kernels += not (func.is_view or name in ("empty", "new_empty", "empty_like", "_unsafe_view"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "squared loss",
        "batch norm",
        "ghost batches",
        "negative weights",
        "unequal lengths",
        "images",
        "augmented",
    ],
)
def test_the_host_hears_nothing_within_a_call(digits, monkeypatch, case):
    """From the first step to the last of a call, runs that end on the way and fall included."""
    together, calls = captured.Captured._together, []

    def silently(*args):
        with Silence():
            calls.append(1)
            return together(*args)

    monkeypatch.setattr(captured.Captured, "_together", silently)
    stack = one_stack(**{"lr": [0.02, 0.05, 1e6], "until": Steps(12), **CASES[case]})
    trainer = train(stack, digits, engine="captured")
    assert len(calls) == 1
    assert min(trainer.steps) < max(trainer.steps)  # one run at least had fallen


def test_the_plain_engine_would_be_heard(digits):
    with pytest.raises(AssertionError, match="waits"), Silence():
        train(one_stack(until=Steps(2)), digits, engine="by hand")


@pytest.mark.parametrize(("momentum", "count"), [(None, 52), (0.9, 54)])
def test_a_step_takes_as_many_operations_as_is_said(momentum, count):
    """The paper's Fashion-MNIST perceptron; passes.py takes about a hundred."""
    net, source = MLP((256, 256, 256), batch_norm=128), torch.Generator().manual_seed(0)
    losses = StackLosses(net, "cross-entropy", 784, 10)
    theta = torch.stack([net.initial(784, 10, source, torch.float32)] * 2)
    assert theta.shape[1] == 335_882
    data = captured._Source(losses, torch.zeros(9, 784), torch.zeros(2, 9, dtype=torch.int64), True, "float32", None)
    places = captured._Places(data, captured._Kind(128, False, False, momentum, 1e3), 2, 1, theta)
    places.make(1)  # where buffers are made
    with Silence() as silence:
        places.make(1)
    assert silence.kernels <= count


def test_many_steps_make_one_launch(digits, monkeypatch):
    """100 steps: three launches of 25 in a row, the most that a call of this length allows, and as they come."""
    launched = []
    monkeypatch.setattr(Launch, "__call__", lambda self: (launched.append(self.function.args[0]), self.function()))
    train(one_stack(until=Steps(100), batch_size=8), digits, engine="captured")
    assert launched == [25] * 4
    launched.clear()
    train(one_stack(until=Steps(140), batch_size=8), digits, engine="captured")
    assert launched == [32] * 4 + [1] * 12


@pytest.mark.parametrize("case", [*CASES])
def test_a_recording_can_be_replayed(digits, monkeypatch, case):
    """Called once, recorded once, then only repeated: nothing in a launch depends on what Python knew at the time."""
    played = []

    def launched(self):
        if not hasattr(self, "tape"):
            self.tape = None
            self.function()
        elif self.tape is None:
            self.tape = Tape()
            with self.tape:
                self.function()
        else:
            self.tape.replay()
            played.append(self)

    stack = one_stack(**CASES[case])
    expected = train(stack, digits, dtype=torch.float64, engine="captured")
    monkeypatch.setattr(Launch, "__call__", launched)
    same(train(stack, digits, dtype=torch.float64, engine="captured"), expected, 0)
    assert played


def test_a_planted_bug_would_be_seen(digits, monkeypatch):
    """Were a fallen run handed out like the others, its θ would be no number."""
    store = captured._Places.store

    def careless(self, theta, velocity, places):
        self.alive[places] = True
        store(self, theta, velocity, places)

    stack = one_stack(lr=[0.02, 1e6])
    good = train(stack, digits, engine="captured").theta
    monkeypatch.setattr(captured._Places, "store", careless)
    bad = train(stack, digits, engine="captured").theta
    assert torch.isfinite(good).all()
    assert not torch.isfinite(bad[2:]).all()
    assert torch.equal(bad[:2], good[:2])


def plans(runs, steps, rows=8, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [
        Plan(i, torch.randint(100, (steps, rows), generator=source), torch.full((steps,), 0.01, dtype=torch.float64))
        for i in runs
    ]


def small_engine(**settings):
    source = torch.Generator().manual_seed(1)
    x, labels = torch.randn(100, 6, generator=source), torch.randint(3, (8, 100), generator=source)
    losses = StackLosses(MLP((5,)), "cross-entropy", 6, 3)
    theta = torch.stack([losses.model.initial(6, 3, source, torch.float32) for _ in range(8)])
    return captured.Captured(losses, x, labels, **settings), theta


def test_places_are_kept_until_half_of_them_have_been_idle_for_long(monkeypatch):
    """A capture costs about as much as PATIENCE steps: no run that ends is worth one, but many for long are."""
    monkeypatch.setattr(captured, "PATIENCE", 25)
    engine, theta = small_engine()

    def loop(runs, steps):
        assert engine.advance(theta, None, 0.0, plans(runs, steps), DIVERGED) == [steps] * len(runs)
        (kept,) = engine._kept.values()
        return kept

    whole = loop(range(8), 20)
    assert loop(range(5), 20) is whole
    assert loop([1, 6], 20) is whole  # for once
    assert loop(range(8), 20) is whole
    assert loop([1, 6], 20) is whole  # counted from the last time that they were used
    fewer = loop([1, 6], 20)
    assert (fewer.count, whole.count) == (2, 8)
    assert loop(range(3), 20).count == 3  # too few


def test_draws_of_a_launch_are_bounded(monkeypatch):
    engine, theta = small_engine()
    monkeypatch.setattr(captured, "DRAWS", 8 * 8 * 8 * 5)
    engine.advance(theta, None, 0.0, plans(range(8), 200), DIVERGED)
    (loop,) = engine._kept.values()
    assert loop.steps == 5


def test_memory_is_given_back_with_the_engine():
    """Without a collection of garbage: on a GPU it would come too late for the next stack."""
    engine, theta = small_engine()
    engine.advance(theta, None, 0.0, plans(range(8), 60), DIVERGED)
    (loop,) = engine._kept.values()
    gone = weakref.ref(loop.places.w)
    gc.disable()
    try:
        del engine, loop
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "message",
    ["CUDA error: an illegal memory access was encountered\nmore", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"],
)
def test_a_failing_driver_is_named_with_what_remains(monkeypatch, message):
    engine, theta = small_engine()

    def fails(self):
        raise RuntimeError(message)

    monkeypatch.setattr(Launch, "__call__", fails)
    with pytest.raises(DeviceError, match=r"the device cpu failed.*runs that have ended are in the store, run again"):
        engine.advance(theta, None, 0.0, plans(range(8), 60), DIVERGED)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), ValueError("x"), RuntimeError("shape")]
)
def test_other_errors_stay_what_they_are(monkeypatch, error):
    engine, theta = small_engine()

    def fails(self):
        raise error

    monkeypatch.setattr(Launch, "__call__", fails)
    with pytest.raises(type(error)) as caught:
        engine.advance(theta, None, 0.0, plans(range(8), 60), DIVERGED)
    assert caught.value is error


@pytest.mark.parametrize("message", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_memory_that_a_library_lacks_is_memory(message):
    with pytest.raises(torch.OutOfMemoryError), captured.driver_errors(torch.device("cpu")):
        raise RuntimeError(message)


def test_a_driver_that_fails_in_the_middle_of_a_sweep_loses_nothing_that_had_ended(monkeypatch, tmp_path):
    """The runs of the first stack are in the store; the second time only the others are trained, to the same end."""
    sweep = Sweep.grid(Task(model=MLP((8,))), lr=0.05, batch_size=[16, 32], seed=range(2), until=Epochs(1))
    expected = run(sweep, [Loss()], store=tmp_path / "whole", device="cpu").table()
    monkeypatch.setattr(choice, "choose", lambda *args: "captured")
    launch, trained = Launch.__call__, []

    def fails_later(self):
        if self.function.func.__self__.kind.rows == 32:
            raise RuntimeError("CUDA error: unspecified launch failure")
        launch(self)

    monkeypatch.setattr(Launch, "__call__", fails_later)
    with pytest.raises(DeviceError, match="unspecified launch failure; runs that have ended are in the store"):
        run(sweep, [Loss()], store=tmp_path / "store", device="cpu")
    monkeypatch.setattr(Launch, "__call__", lambda self: (trained.append(self.function.func.__self__), launch(self)))
    table = run(sweep, [Loss()], store=tmp_path / "store", device="cpu").table()
    assert {places.kind.rows for places in trained} == {32}
    assert table["train_loss"].tolist() == pytest.approx(expected["train_loss"].tolist(), rel=1e-4)


class Card:
    """What a launch asks of a GPU, pretended: a capture records and does not carry out, a replay repeats."""

    def __init__(self, monkeypatch, failure=None):
        self.capturing, self.log = False, []
        card = self

        class Graph:
            def replay(self):
                card.log.append("replay")

            def pool(self):
                return "pool"

        @contextlib.contextmanager
        def graph(graph, pool=None):
            card.log.append(f"capture in {pool}")
            card.capturing = True
            try:
                yield
                if failure:
                    raise failure
            finally:
                card.capturing = False

        class Stream:
            def wait_stream(self, other):
                card.log.append("wait")

        @contextlib.contextmanager
        def stream(stream):
            card.log.append("aside")
            yield

        fakes = {"CUDAGraph": Graph, "graph": graph, "Stream": Stream, "stream": stream}
        fakes |= {"current_stream": Stream, "device": lambda device: contextlib.nullcontext()}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def work(self):
        self.log.append("record" if self.capturing else "work")


def test_each_launch_carries_out_its_function_once(monkeypatch):
    card = Card(monkeypatch)
    launch = Launch(card.work, "cuda")
    launch()
    assert card.log == ["wait", "aside", "work", "wait"]
    assert not launch.captured
    card.log.clear()
    launch()
    launch()
    assert card.log == ["capture in None", "record", "replay", "replay"]
    assert launch.captured
    other = Launch(card.work, "cuda", beside=launch)
    other()
    card.log.clear()
    other()
    assert card.log == ["capture in pool", "record", "replay"]


def test_what_cannot_be_captured_is_called(monkeypatch, caplog):
    card = Card(monkeypatch, RuntimeError("operation not permitted when stream is capturing\nlong story"))
    launch = Launch(card.work, "cuda")
    launch()
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        launch()
        launch()
    assert card.log[-3:] == ["record", "work", "work"]
    assert not launch.captured
    assert [line.message for line in caplog.records] == [
        "not captured, called plainly from now on: operation not permitted when stream is capturing"
    ]


def test_no_memory_for_a_capture_is_told(monkeypatch):
    card = Card(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."))
    launch = Launch(card.work, "cuda")
    launch()
    with pytest.raises(torch.OutOfMemoryError):
        launch()


def test_on_a_cpu_a_launch_is_a_call():
    calls = []
    launch = Launch(lambda: calls.append(1), torch.device("cpu"))
    launch()
    launch()
    assert calls == [1, 1]
    assert not launch.captured


def test_unknown_engines_and_those_that_cannot_are_refused(digits):
    with pytest.raises(ValueError, match="engine='quick' is unknown; use one of kernel, by hand, autograd, captured"):
        Trainer(one_stack(), digits, engine="quick")
    assert type(Trainer(one_stack(), digits).engine).__name__ == ("Kernel" if kernel.available() else "Stacked")
    assert isinstance(Trainer(one_stack(SMALL), digits).engine, Stacked)


@pytest.mark.parametrize("model", [NET, SMALL], ids=["perceptron", "images"])
def test_it_is_the_engine_for_a_gpu(model):
    losses = StackLosses(model, "cross-entropy", 64, 10)
    there, here = (SimpleNamespace(device=torch.device(name), dtype=torch.float32) for name in ("cuda", "cpu"))
    assert choice.choose(None, losses, there) == choice.choose("captured", losses, here) == "captured"
    assert choice.choose(None, losses, here) != "captured"


def test_the_plain_step_is_to_the_bit_what_it_was(digits):
    """Each operation of a step without batch norm, one after another: results on record depend on their rounding."""
    stack = one_stack(until=Steps(3), momentum=0.9)
    trainer = Trainer(stack, digits, engine="by hand")
    w, v, labels = trainer.theta.clone(), trainer.velocity.clone(), trainer.labels
    plans = trainer._plan([0, 1, 2, 3], 0, lambda *_: False)[0]
    layers, moving = (NET.layers(t, 64, 10) for t in (w, v))
    for t in range(3):
        batch = torch.stack([plan.order[t] for plan in plans])
        inputs, y = [digits.x_train.flatten(1)[batch]], labels.gather(1, batch).unsqueeze(-1)
        for layer in layers:
            inputs.append(torch.baddbmm(layer.shift, inputs[-1], layer.weight).relu_())
        z = torch.baddbmm(layers[2].shift, inputs[2], layers[2].weight)
        d = torch.exp(z - z.logsumexp(-1, keepdim=True))
        d.scatter_add_(-1, y, -torch.ones_like(d))
        d.mul_(torch.full((4, 1, 1), 1.0) / 16)
        for i in (2, 1, 0):
            below = torch.bmm(d, layers[i].weight.transpose(1, 2))
            moving[i].weight.baddbmm_(inputs[i].transpose(1, 2), d, beta=0.9, alpha=1)
            moving[i].shift.mul_(0.9).add_(d.sum(1, keepdim=True), alpha=1)
            d = below * (inputs[i] > 0)
        w.addcmul_(v, torch.tensor([0.02, 0.02, 0.05, 0.05]).unsqueeze(1), value=-1)
    done = train(stack, digits, engine="by hand")
    assert torch.equal(done.theta, w)
    assert torch.equal(done.velocity, v)
