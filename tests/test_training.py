"""Training: against closed forms, against torch.optim, and each run the same alone as in a stack."""

import dataclasses
import itertools
import sys

import pytest
import torch
from threefactors._rng import generator
from threefactors.training import (
    MLP,
    Clock,
    Epochs,
    SquareCycle,
    Stack,
    Step,
    Steps,
    Sweep,
    Task,
    Trainer,
    TrainLoss,
    kernel,
    load,
    train,
)
from threefactors.training.train import DIVERGED

train_module = sys.modules[Trainer.__module__]  # its name is taken by the function
ENGINES = ("kernel", "by hand", "autograd")
CASES = {
    "plain": {"model": MLP((16, 12))},
    "linear": {"model": MLP(())},
    "odd widths": {"model": MLP((7, 33, 5))},
    "deep": {"model": MLP((10,) * 8)},
    "batch norm": {"model": MLP((16, 12), batch_norm=8)},
    "squared loss": {"model": MLP((16, 12)), "loss": "squared"},
    "label noise": {"model": MLP((16, 12)), "label_noise": 0.3},
}


def sweep(until=Steps(5), seeds=3, **settings):
    task = {k: settings.pop(k) for k in ("dataset", "model", "loss", "label_noise", "train_size") if k in settings}
    options = {"lr": [0.02, 0.05], "batch_size": 16, **settings}
    return Sweep.grid(Task(**task), seed=range(seeds), until=until, **options)


def one_stack(**settings):
    (stack,) = sweep(**settings).stacks()
    return stack


def test_kernel_is_compiled_here():
    """Where a compiler is on the path the kernel must work, or every comparison below would silently be hollow."""
    assert kernel.available(torch.float32) == kernel.available(torch.float64) == (kernel.compiler() is not None)


@pytest.mark.parametrize("trouble", [{"CC": "false"}, {"THREEFACTORS_KERNEL": "0"}, {"CC": "a-compiler-nobody-has"}])
def test_without_a_working_compiler_training_goes_on_in_pytorch(digits, monkeypatch, tmp_path, trouble):
    expected = train(one_stack(model=MLP((8,))), digits, dtype=torch.float64).theta
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), **trouble}.items():
        monkeypatch.setenv(name, value)
    kernel._library.cache_clear()
    try:
        assert not kernel.available(torch.float64)
        trainer = train(one_stack(model=MLP((8,))), digits, dtype=torch.float64)
    finally:
        kernel._library.cache_clear()
    assert type(trainer.engine).__name__ == "Stacked"
    torch.testing.assert_close(trainer.theta, expected, rtol=1e-11, atol=1e-12)


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    if compiler := kernel.compiler():  # the same one in haste: its last -O counts
        (tmp_path / "hasty").write_text(f'#!/bin/sh\nexec "{compiler}" "$@" -O0\n')
        (tmp_path / "hasty").chmod(0o755)
        monkeypatch.setenv("CC", str(tmp_path / "hasty"))
    kernel._library.cache_clear()
    try:
        assert kernel.available(torch.float64) == (kernel.compiler() is not None)
    finally:
        kernel._library.cache_clear()


def engines():
    return [e for e in ENGINES if e != "kernel" or kernel.available(torch.float64)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_engines_agree(digits, case, momentum):
    """Three independent ways of the same five steps: C, passes by hand, autograd."""
    stack = one_stack(**CASES[case], momentum=momentum)
    done = [train(stack, digits, dtype=torch.float64, engine=engine) for engine in engines()]
    for other in done[1:]:
        torch.testing.assert_close(other.theta, done[0].theta, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(
            other.engine.outputs(other.theta, [0, 2], digits.x_validation.double()),
            done[0].engine.outputs(done[0].theta, [0, 2], digits.x_validation.double()),
            rtol=1e-10,
            atol=1e-11,
        )


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_norm", [None, 16])
def test_equals_torch_modules_and_optimizer(digits, engine, momentum, batch_norm):
    """torch.nn.Sequential with torch.optim.SGD, fed with the same weights and batches, takes the same path."""
    model = MLP((12, 9), batch_norm)
    stack = one_stack(model=model, lr=0.03, seeds=1, momentum=momentum, until=Steps(10))
    trainer = Trainer(stack, digits, dtype=torch.float64, engine=engine)
    layers = model.layers(trainer.theta.clone(), 64, 10)
    modules = []
    for i, layer in enumerate(layers):
        linear = torch.nn.Linear(*layer.weight.shape[1:], bias=layer.gain is None).double()
        linear.weight.data = layer.weight[0].T.clone()
        if layer.gain is None:
            linear.bias.data = layer.shift[0, 0].clone()
            modules.append(linear)
        else:
            modules += [linear, torch.nn.BatchNorm1d(len(layer.shift[0, 0])).double()]
        if i < len(layers) - 1:
            modules.append(torch.nn.ReLU())
    network = torch.nn.Sequential(*modules)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=momentum)
    order = torch.randperm(1152, generator=generator(0, "order"))
    for batch in order.view(-1, 16)[:10]:
        loss = torch.nn.functional.cross_entropy(
            network(digits.x_train.double().flatten(1)[batch]), digits.y_train[batch]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trainer.train()
    theirs = torch.cat([p.data.T.flatten() if p.ndim == 2 else p.data for p in network.parameters()])
    torch.testing.assert_close(trainer.theta[0], theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("engine", engines())
def test_full_batch_descent_on_a_quadratic(digits, engine):
    """Linear network, squared loss: θ_t − θ* = (I − ηH)ᵗ(θ_0 − θ*), on the solvable part of H."""
    lr, steps = 0.05, 40
    stack = one_stack(model=MLP(()), loss="squared", lr=lr, batch_size=1152, seeds=1, until=Steps(steps))
    trainer = Trainer(stack, digits, dtype=torch.float64, engine=engine)
    x = torch.cat([digits.x_train.double().flatten(1), torch.ones(1152, 1)], 1)
    hessian = x.T @ x / 1152
    start = trainer.theta.view(65, 10).clone()
    slope = x.T @ torch.nn.functional.one_hot(digits.y_train, 10).double() / 1152
    values, vectors = torch.linalg.eigh(hessian)
    decay = (1 - lr * values) ** steps
    gained = torch.where(values > 1e-9, (1 - decay) / values.clamp(min=1e-9), lr * steps)
    expected = vectors @ (decay[:, None] * (vectors.T @ start) + gained[:, None] * (vectors.T @ slope))
    torch.testing.assert_close(trainer.train().theta.view(65, 10), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("case", ["plain", "batch norm", "label noise"])
def test_a_run_is_the_same_alone_as_in_a_stack(digits, engine, case):
    """Bit for bit, whatever the neighbors and their order."""
    runs = one_stack(**CASES[case], momentum=0.5, until=Steps(30)).runs
    together = train(Stack(runs), digits, dtype=torch.float64, engine=engine).theta
    turned = train(Stack(runs[::-1]), digits, dtype=torch.float64, engine=engine).theta
    assert torch.equal(turned.flip(0), together)
    for i in (0, 3):
        alone = train(Stack((runs[i],)), digits, dtype=torch.float64, engine=engine).theta
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("until", [TrainLoss(0.25, at_most=Epochs(30), every=0.1), Clock(2.7)], ids=["loss", "clock"])
def test_where_a_run_stops_does_not_depend_on_its_company(digits, monkeypatch, until):
    """Nor on how far ahead plans are made: neighbors that end, diverge or crowd the plan shift no look."""
    runs = one_stack(model=MLP((16, 12)), lr=[0.02, 0.05, 1e6], lr_schedule=Step((3,), 0.7), until=until).runs
    together = train(Stack(runs), digits)
    monkeypatch.setattr(train_module, "SEGMENT", 4000)
    crowded = train(Stack(runs[::-1]), digits)
    for i, run in enumerate(runs):
        alone = train(Stack((run,)), digits)
        for other, j in ((together, i), (crowded, len(runs) - 1 - i)):
            for name in ("steps", "clock", "epochs", "finished", "diverged_at"):
                assert getattr(other, name)[j] == getattr(alone, name)[0], name
            assert torch.equal(other.theta[j], alone.theta[0])


def test_threads_change_nothing(digits):
    stack = one_stack(model=MLP((16, 12)), until=Epochs(2))
    single = train(stack, digits).theta
    try:
        torch.set_num_threads(2)
        assert torch.equal(train(stack, digits).theta, single)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("engine", engines())
def test_a_diverging_run_is_frozen_and_recorded(digits, engine):
    """lr = 50 blows up within few steps; its neighbors are what they are without it."""
    runs = one_stack(model=MLP((16, 12)), lr=[0.02, 50.0], until=Steps(60)).runs
    trainer = train(Stack(runs), digits, dtype=torch.float64, engine=engine)
    wild = [i for i, run in enumerate(runs) if run.sgd.lr == 50]
    for i, run in enumerate(runs):
        assert (trainer.diverged_at[i] >= 0) == (i in wild)
        assert trainer.finished[i] == (i not in wild)
        alone = train(Stack((run,)), digits, dtype=torch.float64, engine=engine)
        assert alone.diverged_at[0] == trainer.diverged_at[i]
        assert torch.equal(alone.theta[0], trainer.theta[i])
    for i in wild:
        assert trainer.steps[i] == trainer.diverged_at[i] < 60
        loss = trainer.train_losses([i])
        assert not bool(loss < DIVERGED / 100)  # frozen where it blew up, not somewhere afterwards


def test_engines_agree_on_when_a_run_diverged(digits):
    stack = one_stack(model=MLP((16, 12)), lr=[5.0, 50.0], until=Steps(60))
    assert len({tuple(train(stack, digits, dtype=torch.float64, engine=e).diverged_at) for e in engines()}) == 1


def test_a_nan_in_the_data_is_divergence_not_silence(digits):
    """A rectifier must not turn NaN into 0."""
    x = digits.x_train.clone()
    x[7, 3, 3] = float("nan")
    broken = dataclasses.replace(digits, x_train=x)
    for engine in engines():
        trainer = train(one_stack(model=MLP((16, 12)), until=Epochs(1)), broken, engine=engine)
        assert all(0 <= at < 72 for at in trainer.diverged_at)


def test_stopping_rules(digits):
    by_steps = train(one_stack(until=Steps(100)), digits)
    assert by_steps.steps == [100] * 6
    by_epochs = train(one_stack(until=Epochs(3), batch_size=100), digits)
    assert by_epochs.steps == [33] * 6  # 11 whole batches of 100 in 1152
    by_clock = train(one_stack(until=Clock(3.0)), digits)
    assert [round(c, 9) for c in by_clock.clock] == [3.0] * 6
    assert by_clock.steps == [150] * 3 + [60] * 3
    to_loss = train(one_stack(until=TrainLoss(0.3, at_most=Epochs(30))), digits)
    assert all(to_loss.finished)
    assert (to_loss.train_losses(range(6)) <= 0.3).all()
    often = train(one_stack(until=TrainLoss(0.3, at_most=Epochs(30), every=0.1)), digits)
    assert (often.train_losses(range(6)) <= 0.3).all()
    assert (often.train_losses(range(6)) >= to_loss.train_losses(range(6))).all()
    given_up = train(one_stack(until=TrainLoss(1e-9, at_most=Epochs(2))), digits)
    assert given_up.finished == [False] * 6
    assert given_up.epochs == [2.0] * 6


def test_an_interrupted_view_changes_nothing(digits):
    """Pausing to look does not touch the trajectory."""
    stack = one_stack(until=Epochs(6))
    seen = []
    paused = Trainer(stack, digits).train(
        lambda epoch, runs, ended: seen.append((epoch, ended)), lambda epoch, before, after: epoch % 2 == 0
    )
    assert torch.equal(paused.theta, train(stack, digits).theta)
    assert seen == [(0, False), (2, False), (4, False), (6, False), (6, True)]


def test_batches_of_an_epoch_use_every_example_once(digits):
    trainer = Trainer(one_stack(batch_size=32, until=Epochs(4)), digits)
    plans, epoch = trainer._plan([0, 1, 2, 3, 4, 5], 0, lambda *_: False)
    assert epoch == 4
    for plan in plans:
        for drawn in plan.order.view(4, -1):
            assert torch.equal(drawn.sort().values, torch.arange(1152))
    assert torch.equal(plans[0].order, plans[3].order)  # same seed, other lr
    assert not torch.equal(plans[0].order, plans[1].order)


def test_replacement_draws_each_example_with_equal_chance(digits):
    trainer = Trainer(one_stack(sampling="replacement", batch_size=32, until=Epochs(200), seeds=1), digits)
    (plan, _), _ = trainer._plan([0, 1], 0, lambda *_: False)
    counts = plan.order.flatten().bincount(minlength=1152).double()
    chi2 = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi2 - 1151) < 4 * (2 * 1151) ** 0.5


def test_schedules_reach_the_steps(digits):
    stack = one_stack(until=Epochs(4), lr=0.1, lr_schedule=Step(at=(2,), factor=0.1), batch_size=64)
    trainer = train(stack, digits)
    assert trainer.clock[0] == pytest.approx(2 * 18 * 0.1 + 2 * 18 * 0.01)
    stack = one_stack(until=Epochs(4), lr=0.1, batch_schedule=SquareCycle(2, 1, 4), batch_size=32)
    assert train(stack, digits).steps == [36 + 9 + 36 + 9] * 3


def test_gradient_noise_has_its_variance(digits):
    """One step from one start with and without noise: the difference is lr·σ·N(0, I)."""
    plain = train(one_stack(until=Steps(1), seeds=4, momentum=0.9), digits, dtype=torch.float64)
    noisy = train(one_stack(until=Steps(1), seeds=4, momentum=0.9, gradient_noise=0.5), digits, dtype=torch.float64)
    for i, run in enumerate(noisy.runs):
        draw = (noisy.theta[i] - plain.theta[i]) / (run.sgd.lr * 0.5)
        n = len(draw)
        assert abs(draw.mean()) < 4 / n**0.5
        assert abs(draw.var() - 1) < 4 * (2 / n) ** 0.5
        torch.testing.assert_close(noisy.velocity[i] - plain.velocity[i], -0.5 * draw, rtol=1e-9, atol=1e-12)


def test_label_noise_is_known_and_its_own(digits):
    stack = one_stack(label_noise=0.25, seeds=2)
    trainer = Trainer(stack, digits)
    assert (trainer.corrupted.sum(1) == 288).all()
    kept = ~trainer.corrupted
    assert (trainer.labels[kept] == digits.y_train.expand_as(trainer.labels)[kept]).all()
    changed = (trainer.labels != digits.y_train).sum(1) / 288
    assert ((changed > 0.8) & (changed < 0.97)).all()  # nine of ten draws differ from the true label
    assert not torch.equal(trainer.corrupted[0], trainer.corrupted[1])  # another seed
    clean = Trainer(one_stack(seeds=2), digits)
    assert torch.equal(clean.theta, trainer.theta)  # the labels' stream is apart from the initialization's


def test_equal_settings_share_a_stack_and_others_do_not():
    runs = Sweep.grid(Task(), lr=[0.01, 0.02], batch_size=[8, 16], momentum=[0.0, 0.9], seed=range(3), until=Epochs(1))
    assert sorted(map(len, runs.stacks())) == [6, 6, 6, 6]
    assert len(runs.stacks(limit=4)) == 8
    assert set(itertools.chain.from_iterable(s.runs for s in runs.stacks())) == set(runs)
    with pytest.raises(ValueError, match="cannot share a stack"):
        Stack(tuple(runs))


def test_own_data_trains_like_any(small_npz):
    data = load(small_npz)
    trainer = train(one_stack(dataset=small_npz, model=MLP((8,)), batch_size=8, until=Epochs(40)), data)
    start = Trainer(trainer.stack, data).train_losses(range(6))
    assert (trainer.train_losses(range(6)) < 0.5 * start).all()
