"""Counted numbers, and what training draws with them: against big integers, chi-square, and the same run elsewhere."""

import itertools
import sys
import warnings

import pytest
import torch
from threefactors._rng import counted, generator, key
from threefactors.training import MLP, SGD, Epochs, Run, Stack, Steps, Task, Trainer, train
from threefactors.training import sampling as sampling_module
from threefactors.training.data import Dataset
from threefactors.training.sampling import Sampler, epochs
from threefactors.training.streams import Counted, Generated, permutations

from .no_looks import NoLooks
from .test_sampling import COMPLETE, KINDS, MODES, S, misfit, trainer

train_module = sys.modules[Trainer.__module__]
WHOLE = (1 << 64) - 1
CPU = torch.device("cpu")


def reference(start, *counters):
    """splitmix64 in plain integers of any size."""
    z = start & WHOLE
    for counter in counters:
        z = (z + (counter + 1) * 0x9E3779B97F4A7C15) & WHOLE
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WHOLE
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WHOLE
        z ^= z >> 31
    return z >> 1


def chi_square(counts, expected):
    """By how many standard deviations the counts miss their expectation, χ² being nearly normal."""
    counts = counts.double()
    freedom = counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


@pytest.fixture
def all_counted(monkeypatch):
    """Sets of any size are drawn as large ones are."""
    monkeypatch.setattr(sampling_module, "COUNTED", 0)


# ---- the numbers themselves


def test_numbers_are_those_of_splitmix64_in_big_integers():
    keys = [0, 1, 1234567, key(3, "order"), (1 << 63) - 1]
    places = [0, 1, 2, 999, (1 << 62) + 5]
    for epoch in (0, 1, 77):
        found = counted(torch.tensor(keys)[:, None], epoch, torch.tensor(places))
        assert found.tolist() == [[reference(k, epoch, place) for place in places] for k in keys]
    # the first outputs for the seed 1234567 that are published with the algorithm
    assert counted(torch.tensor(1234567), torch.arange(2)).tolist() == [
        6457827717110365317 >> 1,
        3203168211198807973 >> 1,
    ]


def test_a_number_and_a_tensor_count_the_same_and_any_part_is_the_whole():
    keys, places = torch.tensor([key(i, "order") for i in range(5)]), torch.arange(400)
    whole = counted(keys[:, None], 3, places)
    assert whole.shape == (5, 400)
    assert torch.equal(counted(keys[:, None], torch.tensor(3), places), whole)
    assert torch.equal(counted(keys[:, None], torch.full((5, 1), 3), places.int()), whole)
    assert torch.equal(counted(keys[2], 3, places[17:40]), whole[2, 17:40])
    assert torch.equal(counted(keys[[4, 1], None], 3, places), whole[[4, 1]])
    assert torch.equal(counted(keys.view(5, 1, 1), torch.arange(4).view(4, 1), places)[:, 3], whole)


def test_wrapping_around_is_silent_and_every_number_at_least_zero():
    edges = torch.tensor([-(1 << 63), -1, 0, (1 << 63) - 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = counted(edges[:, None], edges)
    assert found.tolist() == [[reference(k, c) for c in edges.tolist()] for k in edges.tolist()]
    assert (found >= 0).all()
    assert found.dtype == torch.int64


def test_a_key_is_of_its_seed_and_stream():
    names = {key(seed, stream) for seed in range(50) for stream in ("order", "augmentation", "second batch")}
    assert len(names) == 150
    assert all(0 <= name < 1 << 63 for name in names)
    assert key(4, "order") == key(4, "order")
    with pytest.raises(TypeError, match=r"seed=1\.5"):
        key(1.5, "order")
    for wrong in ((torch.tensor(1), torch.tensor(0.5)), (torch.tensor(1.0), torch.tensor(3))):
        with pytest.raises(TypeError, match=r"use torch\.int64"):
            counted(*wrong)


LINES = {
    "along the rows": lambda n: counted(torch.tensor(key(0, "order")), 0, torch.arange(n)),
    "along the epochs": lambda n: counted(torch.tensor(key(0, "order")), torch.arange(n), 7),
    "along neighboring keys": lambda n: counted(torch.arange(n), 0, 7),
}


@pytest.mark.parametrize("line", LINES)
def test_numbers_are_uniform_and_neighbors_independent(line):
    n = 1 << 16
    numbers = LINES[line](n + 1)
    assert len(numbers.unique()) == n + 1
    bits = (numbers[:n, None] >> torch.arange(63)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 4.5 * 0.5 / n**0.5  # the largest of 63
    assert abs(chi_square((numbers[:n] >> 55).bincount(minlength=256), n / 256)) < 4
    assert abs(chi_square((numbers[:n] % 256).bincount(minlength=256), n / 256)) < 4
    pairs = (numbers[:-1] >> 59) * 16 + (numbers[1:] >> 59)  # upper four bits of each number and of the next
    assert abs(chi_square(pairs.bincount(minlength=256), n / 256)) < 4
    u = numbers.double() / 2.0**63 - 0.5
    assert abs(float((u[1:] * u[:-1]).mean() * 12)) < 4 / n**0.5
    changed = ((numbers[1:] ^ numbers[:-1])[:, None] >> torch.arange(63)) & 1  # half of the bits, each as often
    assert (changed.double().mean(0) - 0.5).abs().max() < 4.5 * 0.5 / n**0.5


def test_a_mixer_without_its_second_half_would_be_seen(monkeypatch):
    """The tests above have teeth: neighboring keys stay neighbors in a hash that only multiplies."""
    monkeypatch.setattr("threefactors._rng._mixed", lambda z: z * -7046029254386353131)
    with pytest.raises(AssertionError):
        test_numbers_are_uniform_and_neighbors_independent("along neighboring keys")


# ---- streams


@pytest.mark.parametrize("n", [3, 4])
def test_every_order_is_equally_likely(all_counted, n):
    """Over runs and epochs; and each pair of orders that follow one another."""
    runs = [Run(Task(), SGD(0.1, n), seed, Epochs(1)) for seed in range(150)]
    samplers = [Sampler(run, torch.zeros(n, 1), torch.zeros(n, dtype=torch.long), 2) for run in runs]
    orders = torch.stack([torch.cat([draws.order for draws in epochs(samplers, n)]) for _ in range(80)])
    names = torch.tensor(list(itertools.permutations(range(n))))
    same = (orders.unsqueeze(2) == names).all(3)  # (epochs, runs, n!)
    assert same.sum(2).eq(1).all()
    codes, likely = same.int().argmax(2), 1 / len(names)
    assert abs(chi_square(codes.flatten().bincount(minlength=len(names)), codes.numel() * likely)) < 4
    pairs = codes[:-1] * len(names) + codes[1:]
    assert abs(chi_square(pairs.flatten().bincount(minlength=len(names) ** 2), pairs.numel() * likely**2)) < 4


def test_a_place_says_nothing_about_another_epoch_or_run():
    n = 20_000
    one, other = Counted(0, "order", CPU), Counted(1, "order", CPU)
    first, second = one.permutations(n, 2)
    (foreign,) = other.permutations(n, 1)
    for a, b in ((first, second), (first, foreign)):
        ranks = torch.corrcoef(torch.stack([a, b]).double())
        assert abs(ranks[0, 1]) < 4 / n**0.5
        assert (a == b).sum() < 10  # Poisson of mean 1


@pytest.mark.parametrize("kind", [Generated, lambda seed, stream: Counted(seed, stream, CPU)], ids=["cpu", "counted"])
def test_streams_draw_what_they_say(kind):
    stream = kind(5, "test")
    whole = stream.integers(7, (100, 210))
    assert whole.shape == (100, 210)
    assert abs(chi_square(whole.flatten().bincount(minlength=7), 3000)) < 4
    u = stream.uniform((100, 200))
    assert u.dtype == torch.float64
    assert 0 <= u.min() <= u.max() < 1
    assert abs(chi_square((u * 50).long().flatten().bincount(minlength=50), 400)) < 4
    chances = torch.tensor([0.5, 0.0, 0.1, 0.4], dtype=torch.float64)
    counts = stream.choices(chances, 20_000).bincount(minlength=4)
    assert counts[1] == 0
    assert (((counts - 20_000 * chances) ** 2 / (20_000 * chances.clamp(min=1e-9))).sum()) < 16  # χ² of 2
    assert not torch.equal(stream.integers(7, (100,)), stream.integers(7, (100,)))


def test_orders_of_many_streams_are_those_of_each():
    def streams():
        return [Counted(seed, "order", CPU) for seed in (3, 1, 2)]

    together = permutations(streams(), 50, 2)
    assert all(torch.equal(a, s.permutations(50, 2)) for a, s in zip(together, streams(), strict=True))
    uneven = streams()
    uneven[1].permutations(50, 1)  # has drawn more often than the others: each by itself
    again = permutations(uneven, 50, 2)
    assert torch.equal(again[0], together[0])
    assert torch.equal(again[1][0], together[1][1])
    mixed = [Generated(3, "order"), Counted(1, "order", CPU)]
    assert torch.equal(permutations(mixed, 50, 2)[1], together[1])


# ---- training on them


def test_digits_are_drawn_as_ever(digits):
    """Up to COUNTED examples: torch.randperm and torch.randint of the run's generators, bit for bit."""
    assert sampling_module.COUNTED == 10_000
    t = trainer(digits)
    source = generator(0, "order")
    for drawn in (t.sampler(0).epoch(S).order, *[d.order for d in epochs([t.sampler(0)], S)]):
        assert torch.equal(drawn, torch.randperm(24, generator=generator(0, "order")).view(-1, S))
    twice = trainer(digits, svag=2).sampler(0).epoch(S).order
    assert torch.equal(twice[:, :S].reshape(2, 24), torch.stack([torch.randperm(24, generator=source) for _ in "12"]))
    flips = trainer(digits, label_flips=0.3, sampling="replacement").sampler(0).epoch(S)
    assert torch.equal(flips.order, torch.randint(24, (6, S), generator=generator(0, "order")))
    source = generator(0, "label flips")
    u, label = torch.rand(6, S, generator=source, dtype=torch.float64), torch.randint(10, (6, S), generator=source)
    assert torch.equal(flips.labels, torch.where(u < 0.3, label, digits.y_train[flips.order]))


def large(n=10_001, side=3):
    """Tiny images, more than COUNTED of them."""
    x = torch.randn(n, side, side, generator=generator(0, "large"))
    y = torch.arange(n) % 3
    return Dataset("large", x, y, x[:9], y[:9], x[:9], y[:9], 3, "0" * 64)


def test_a_large_set_is_counted_and_a_smaller_one_is_not():
    for n, kind in ((10_000, Generated), (10_001, Counted)):
        sampler = Sampler(Run(Task(), SGD(0.1, 100), 0, Epochs(1)), large(n).x_train, large(n).y_train, 3)
        assert type(sampler._first) is kind
        order = sampler.epoch(100).order
        assert order.shape == (100, 100)
        assert len(order.unique()) == 10_000
    assert torch.equal(order.flatten(), counted(torch.tensor(key(0, "order")), 0, torch.arange(n)).argsort()[:10_000])


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_counted_draws_have_the_mean_and_covariance_of_the_closed_form(digits, all_counted, kind, mode):
    t = trainer(digits, kind, sampling=mode)
    assert type(t.sampler(0)._first) is Counted
    assert misfit(t, draws=300) < 3.6


@pytest.mark.parametrize("kind", KINDS)
def test_counted_draws_do_not_depend_on_company_pauses_or_plans(digits, all_counted, monkeypatch, kind):
    task = Task(model=MLP((8,)), train_size=96)
    t = trainer(digits, kind, task, (0, 1), Epochs(3))
    neighbors = tuple(Run(run.task, SGD(**{**vars(run.sgd), "lr": 0.02}), 7, Epochs(2)) for run in t.runs[:1])
    together = train(Stack((*neighbors, *t.runs)), digits).theta[1:]
    monkeypatch.setattr(train_module, "SEGMENT", 1)
    for i, run in enumerate(t.runs):
        alone = Trainer(Stack((run,)), digits).train(pause=lambda epoch, before, after: epoch % 2 == 0)
        assert torch.equal(alone.theta[0], together[i])


def test_epochs_of_a_stack_are_those_of_each_run(digits, all_counted):
    stack = trainer(digits, seeds=range(4))
    together = [epochs([stack.sampler(i) for i in range(4)], S)[i].order for i in range(4)]
    assert all(torch.equal(one, stack.sampler(i).epoch(S).order) for i, one in enumerate(together))
    sampler = stack.sampler(0)
    orders = torch.stack([sampler.epoch(S).order.flatten() for _ in range(5)])
    assert torch.equal(orders.sort(1).values, torch.arange(24).expand(5, -1))
    assert len({tuple(order) for order in orders.tolist()}) == 5


def test_no_pass_through_a_set_is_like_another(digits, all_counted):
    """Three for each batch of svag and epoch, of two batches: twelve orders in two epochs, all of every example."""
    sampler = trainer(digits, svag=3).sampler(0)
    drawn = torch.stack([sampler.epoch(S).order for _ in range(2)])
    passes = torch.stack([drawn[..., :S], drawn[..., S:]]).reshape(12, 24)
    assert torch.equal(passes.sort(1).values, torch.arange(24).expand(12, -1))
    assert len(passes.unique(dim=0)) == 12


@pytest.mark.parametrize("threshold", [10_000, 0], ids=["generators", "counted"])
@pytest.mark.parametrize("kind", KINDS)
def test_drawing_after_a_restore_is_drawing_without_a_break(digits, monkeypatch, threshold, kind):
    monkeypatch.setattr(sampling_module, "COUNTED", threshold)
    t = trainer(digits, kind)
    whole, broken, later = (t.sampler(0) for _ in range(3))
    for _ in range(2):
        whole.epoch(S), broken.epoch(S)
    later.restore(broken.state())
    for _ in range(2):
        ours, theirs = later.epoch(S), whole.epoch(S)
        for name in ("order", "weights", "labels"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert a is b is None or torch.equal(a, b)


def test_a_state_of_another_kind_is_refused(digits, monkeypatch):
    small = trainer(digits).sampler(0)
    monkeypatch.setattr(sampling_module, "COUNTED", 0)
    large = trainer(digits).sampler(0)
    with pytest.raises(ValueError, match="these draws are counted"):
        large.restore(small.state())
    with pytest.raises(ValueError, match="these come from a generator"):
        small.restore(large.state())


@pytest.mark.parametrize("kind", ["plain", *COMPLETE])
def test_no_value_is_looked_at_and_nothing_leaves_the_device(digits, all_counted, kind):
    """On the device "meta" tensors have no values: any look at one, and any mixing with the CPU, is an error."""
    stack = trainer(digits, kind, seeds=range(3))
    samplers = [stack.sampler(i) for i in range(3)]
    if not samplers[0].sgd.antithetic:  # pairs are sought once, by the images
        samplers = [Sampler(run, stack.data.x_train.to("meta"), stack.labels[0].to("meta"), 10) for run in stack.runs]
    with NoLooks():
        drawn = epochs(samplers, S)
    for one in drawn:
        parts = [part for part in (one.order, one.weights, one.labels) if part is not None]
        assert {part.device for part in parts} == {samplers[0].labels.device}


def test_plans_of_a_device_are_made_without_looking_at_it(all_counted):
    """The whole way of a plan, on a device that has no values to look at."""
    runs = tuple(Run(Task(model=MLP((4,))), SGD(lr, 16, momentum=0.5), 0, Steps(30)) for lr in (0.1, 0.2))
    t = Trainer(Stack(runs), large(200).to("meta"))
    plans, epoch = t._plan([0, 1], 0, lambda *_: False)
    assert epoch == 3
    assert [plan.order.shape for plan in plans] == [(30, 16)] * 2
    assert {plan.order.device.type for plan in plans} == {"meta"}
    assert {plan.lr.device.type for plan in plans} == {"cpu"}


def test_training_on_a_large_set_is_the_same_alone_and_in_a_stack():
    data = large()
    task = Task(model=MLP((4,)), label_noise=0.1)
    runs = tuple(Run(task, SGD(0.1, 512), seed, Epochs(2)) for seed in range(3))
    together = train(Stack(runs), data)
    assert together.steps == [38] * 3
    for i, run in enumerate(runs):
        assert torch.equal(train(Stack((run,)), data).theta[0], together.theta[i])
