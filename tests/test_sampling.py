"""Draws that change the noise of the gradient: mean and covariance against closed forms, on one tiny problem."""

import itertools
import sys
from dataclasses import replace

import pytest
import torch
from threefactors._rng import generator
from threefactors.experiments.first_order import NoiseTrace
from threefactors.experiments.probes import FlippedLoss, GradientNoise, Loss
from threefactors.training import MLP, SGD, Clock, Epochs, Run, Stack, Steps, Sweep, Task, Trainer, TrainLoss, train
from threefactors.training.sampling import Draws, Sampler, antithetic_pairs, batch_gradients

from .test_training import engines

train_module = sys.modules[Trainer.__module__]
N, S = 24, 4
SIGMA = 3.0  # standard errors: with every seed fixed these tests pass or fail for good
KINDS = {
    "svag": {"svag": 2},
    "label flips": {"label_flips": 0.3},
    "label draws": {"label_flips": 0.3, "label_draws": 3},
    "importance": {"importance": 0.8, "sampling": "replacement"},
    "antithetic": {"antithetic": True},
    "antithetic flips": {"antithetic": True, "label_flips": 0.5},
    "several antithetic flips": {"antithetic": True, "label_flips": 0.6, "label_draws": 2},
    "covariance noise": {"gradient_noise": 1.5, "gradient_noise_like": "covariance"},
    "isotropic noise": {"gradient_noise": 0.4},
    "flips under svag": {"svag": 3, "label_flips": 0.5},
    "importance under svag": {"svag": 2, "importance": 0.8, "sampling": "replacement"},
    "flips under covariance noise": {
        "label_flips": 0.4, "label_draws": 2, "gradient_noise": 0.7, "gradient_noise_like": "covariance"
    },
}  # fmt: skip
COMPLETE = {name: sgd for name, sgd in KINDS.items() if name != "isotropic noise"}  # all of their noise is in the draws
MODES = [(kind, mode) for kind in ("plain", *COMPLETE) for mode in ("epoch", "replacement")]
MODES = [(kind, mode) for kind, mode in MODES if mode == COMPLETE.get(kind, {}).get("sampling", mode)]


LINEAR = Task(model=MLP(()), train_size=N)


def trainer(digits, kind="plain", task=LINEAR, seeds=(0,), until=Epochs(1), **changes):
    """In training for no step yet: linear softmax regression by default, small enough for exact covariances."""
    sgd = SGD(**{"lr": 0.1, "batch_size": S, **KINDS.get(kind, {}), **changes})
    return Trainer(Stack(tuple(Run(task, sgd, seed, until) for seed in seeds)), digits, dtype=torch.float64)


def gradients(t, draws):
    return batch_gradients(t.losses, t.theta[0], t.data.x_train, t.labels[0], draws)


def by_class(t):
    """Gradients (K, N, P) of all examples, each with every label."""
    everyone = torch.arange(N).unsqueeze(1)
    return torch.stack([gradients(t, Draws(everyone, None, torch.full_like(everyone, k))) for k in range(10)])


def closed_form(t):
    """Mean (P,) and covariance (P, P) of a step's gradient, from the gradient of every example with every label."""
    sgd, sampler, g = t.runs[0].sgd, t.sampler(0), by_class(t)
    p, m = sgd.label_flips, sgd.label_draws
    chance = (1 - p) * torch.nn.functional.one_hot(t.labels[0], 10).T.double() + p / 10  # (K, N)
    each = (chance.unsqueeze(-1) * g).sum(0)  # (N, P), the mean over an example's labels
    drawn = torch.full((N,), 1 / N, dtype=torch.float64) if sampler.importance is None else sampler.importance
    mean, weighted = each.mean(0), each / (N * drawn).unsqueeze(1)
    between = (weighted - mean).T @ (drawn.unsqueeze(1) * (weighted - mean))
    flips = ((chance / drawn / m).sqrt().unsqueeze(-1) * (g - each) / N).flatten(0, 1)  # drawn_i/(N drawn_i)² of each
    within = flips.T @ flips
    units, size = N, S
    if sampler.pairs is not None:
        units, size = N // 2, S // 2
        pair = each[sampler.pairs].mean(1) - mean
        between, within = pair.T @ pair / units, within / 2
        both = max(0.0, 2 * p - 1) - p**2  # covariance of whether one and whether the other is flipped
        i, j = (g.mean(0) - g[t.labels[0], torch.arange(N)])[sampler.pairs].unbind(1)
        within = within + both / m * (i.T @ j + j.T @ i) / (4 * units)
    finite = (units - size) / (units - 1) if sgd.sampling == "epoch" else 1.0
    batch = (between * finite + within) / size
    if sgd.covariance_noise:  # the spread within a batch of an epoch is that of all examples over N − 1
        spread = between * (N / (N - 1) if sgd.sampling == "epoch" else 1.0) + within
        batch = batch + sgd.gradient_noise**2 * spread / size
    return mean, sgd.svag * batch


def misfit(t, draws=1000):
    """By how many standard errors the mean and the covariance of many draws miss the closed form, at the most."""
    mean, covariance = closed_form(t)
    vectors = torch.linalg.eigh(covariance).eigenvectors
    u = torch.cat([vectors[:, -5:], torch.randn(len(mean), 5, generator=generator(1, "directions")).double()], 1)
    centered = (gradients(t, t.sampler(0, "test ").independent(draws, S)) - mean) @ u
    squares = centered**2
    expected = torch.stack([torch.zeros(10).double(), ((covariance @ u) * u).sum(0)])
    found = torch.stack([centered.mean(0), squares.mean(0)])
    errors = torch.stack([centered.std(0), squares.std(0)]) / draws**0.5
    return float(((found - expected) / errors).abs().max())


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_mean_and_covariance_are_those_of_the_closed_form(digits, kind, mode):
    assert misfit(trainer(digits, kind, sampling=mode)) < SIGMA * 1.2  # the largest of twenty


@pytest.mark.parametrize("l", [1, 2, 7])
def test_every_pair_of_batches_of_svag(digits, l):  # noqa: E741 (the name in the literature)
    """All N² batches of S = 1, not a sample of them: mean ḡ and covariance l C to rounding."""
    t = trainer(digits, svag=l, batch_size=1, sampling="replacement")
    order = torch.tensor(list(itertools.product(range(N), repeat=2)))
    g = gradients(t, Draws(order, t.sampler(0)._amplified(1, N * N)))
    single = gradients(t, Draws(torch.arange(N).unsqueeze(1)))
    torch.testing.assert_close(g.mean(0), single.mean(0), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.cov(g.T, correction=0), l * torch.cov(single.T, correction=0))


RIGHT = Sampler._with_noise, Sampler.epoch


def larger_q(sampler, size, steps):
    q = (2 * sampler.sgd.svag) ** 0.5  # for √(2l − 1)
    return torch.tensor([1 + q, 1 - q]).double().repeat_interleave(size).expand(steps, -1)


def biased_covariance(sampler, size, steps):
    weights = RIGHT[0](sampler, size, steps).clone()
    weights[:, size:] *= ((size - 1) / size) ** 0.5
    return weights


def flips_that_never_hit_the_label(sampler, order):
    flipped = sampler._flips.uniform(order.shape) < sampler.sgd.label_flips
    return torch.where(flipped, (sampler.labels[order] + 1) % 10, sampler.labels[order])


def no_importance_weights(sampler, size, steps=None):
    return replace(RIGHT[1](sampler, size, steps), weights=None)


BUGS = [
    ("svag", "_amplified", larger_q),
    ("covariance noise", "_with_noise", biased_covariance),
    ("label flips", "_flipped", flips_that_never_hit_the_label),
    ("importance", "epoch", no_importance_weights),
]


@pytest.mark.parametrize(("kind", "name", "wrong"), BUGS, ids=[wrong.__name__ for _, _, wrong in BUGS])
def test_a_planted_bug_is_seen(digits, monkeypatch, kind, name, wrong):
    monkeypatch.setattr(Sampler, name, wrong)
    assert misfit(trainer(digits, kind), draws=4000) > 2 * SIGMA


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_on_every_draw(digits, kind):
    task = Task(model=MLP((16, 12)), label_noise=0.1)
    momentum = 0.0 if "svag" in kind else 0.5
    stack = trainer(digits, kind, task, (0, 1), Steps(7), batch_size=16, momentum=momentum).stack
    done = [train(stack, digits, dtype=torch.float64, engine=engine).theta for engine in engines()]
    for other in done[1:]:
        torch.testing.assert_close(other, done[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_do_not_depend_on_company_pauses_or_plans(digits, monkeypatch, kind):
    """Bit for bit the same alone, in a stack with neighbors of other strength that end at once, looked at or not."""
    task = Task(model=MLP((8,)), train_size=96)
    t = trainer(digits, kind, task, (0, 1), Epochs(5))
    neighbors = tuple(Run(run.task, replace(run.sgd, lr=0.02), 7, Epochs(2)) for run in t.runs[:1])
    together = train(Stack((*neighbors, *t.runs)), digits).theta[1:]
    monkeypatch.setattr(train_module, "SEGMENT", 1)
    for i, run in enumerate(t.runs):
        alone = Trainer(Stack((run,)), digits).train(pause=lambda epoch, before, after: epoch % 2 == 0)
        assert torch.equal(alone.theta[0], together[i])


@pytest.mark.parametrize(
    ("count", "sgd"),
    [
        (1, {"label_flips": [0.1, 0.5]}),
        (1, {"importance": [0.5, 1.0]}),
        (1, {"gradient_noise": [0.1, 0.2], "gradient_noise_like": "covariance"}),
        (3, {"svag": [1, 2, 3]}),
        (2, {"label_flips": [0.0, 0.1, 1.0]}),
        (2, {"label_flips": 0.1, "label_draws": [1, 2]}),
        (2, {"importance": [0.0, 0.5]}),
        (2, {"antithetic": [False, True]}),
        (2, {"gradient_noise": 0.1, "gradient_noise_like": ["identity", "covariance"]}),
    ],
)
def test_strengths_share_a_stack_and_kinds_do_not(count, sgd):
    runs = Sweep.grid(Task(), lr=[0.1, 0.2], batch_size=4, sampling="replacement", until=Epochs(1), **sgd)
    assert len(runs.stacks()) == count


def test_equal_clock_means_equal_epochs_whatever_the_amplification(digits):
    """Clock rules stop after exactly l times the steps, also where lr/l is no short decimal."""
    base = train(trainer(digits, lr=0.1, until=Clock(30.0)).stack, digits)
    assert (base.steps, base.epochs) == ([300], [50.0])
    for l in (2, 7, 16):  # noqa: E741
        t = train(trainer(digits, lr=0.1, until=Clock(30.0), svag=l).stack, digits)
        assert (t.steps, t.epochs, t.finished) == ([300 * l], [50.0], [True])
        assert t.clock[0] == pytest.approx(30, rel=1e-12)
    to_loss = train(trainer(digits, until=TrainLoss(0.5, at_most=Epochs(50), every=0.5), svag=4).stack, digits)
    assert to_loss.finished == [True]
    assert to_loss.clock[0] == pytest.approx(round(to_loss.clock[0] / 0.5) * 0.5)


def test_an_epoch_of_svag_goes_through_the_training_set_once_for_each_stream_and_l(digits):
    t = trainer(digits, svag=3)
    order = t.sampler(0).epoch(S).order
    for stream in (order[:, :S], order[:, S:]):
        for once in stream.reshape(3, N):
            assert torch.equal(once.sort().values, torch.arange(N))
    assert torch.equal(order[: N // S, :S], trainer(digits).sampler(0).epoch(S).order)  # begins as SGD does


def test_flips_leave_the_examples_alone_and_are_never_the_same_twice(digits):
    plain, flipped = trainer(digits).sampler(0), trainer(digits, "label flips").sampler(0)
    drawn = [(plain.epoch(S), flipped.epoch(S)) for _ in range(200)]
    assert all(torch.equal(a.order, b.order) for a, b in drawn)
    share = torch.stack([(b.labels != flipped.labels[b.order]).double().mean() for _, b in drawn])
    assert share.mean() == pytest.approx(0.3 * 0.9, abs=SIGMA * (0.27 * 0.73 / (200 * N)) ** 0.5)
    assert not torch.equal(drawn[0][1].labels, drawn[1][1].labels)


def test_pairs_are_a_matching_of_neighbors_from_other_classes(digits):
    x, y = digits.x_train, digits.y_train
    pairs = antithetic_pairs(x, y, generator(0, "pairs"))
    assert torch.equal(pairs.flatten().sort().values, torch.arange(len(x)))
    assert (y[pairs[:, 0]] != y[pairs[:, 1]]).all()
    near = (x[pairs[:, 0]] - x[pairs[:, 1]]).flatten(1).norm(dim=1).mean()
    assert near < 0.8 * (x[pairs[:, 0]] - x[pairs[:, 1].roll(1)]).flatten(1).norm(dim=1).mean()
    crowd = torch.tensor([0] * 9 + [1])  # too few of the other class: the rest take their own
    assert antithetic_pairs(x[:10], crowd, generator(0, "pairs")).unique().numel() == 10


def test_pairs_for_flips_are_of_one_class_and_never_flipped_both(digits):
    t = trainer(digits, "antithetic flips")
    pairs = t.sampler(0).pairs
    y = t.labels[0][pairs]
    assert (y[:, 0] == y[:, 1]).double().mean() > 0.5  # of 24 examples some find no other of their class
    drawn = t.sampler(0).independent(400, S)
    kept = (drawn.labels == t.labels[0][drawn.order]).view(400, -1, 2)
    assert kept.any(2).all()
    assert kept.double().mean() == pytest.approx(0.55, abs=SIGMA * 0.5 / (400 * S) ** 0.5)


def test_antithetic_flips_of_twins_take_a_third_of_their_noise(digits):
    """Every image twice, θ = 0 and p = ½: the labels' covariance falls from .675/2 to .225, whatever the images."""
    half = digits.x_train[: N // 2]
    twins = replace(digits, x_train=torch.cat([half, half]), y_train=digits.y_train[: N // 2].repeat(2))
    paired, plain = trainer(twins, "antithetic flips"), trainer(twins, label_flips=0.5)
    pairs = paired.sampler(0).pairs
    assert torch.equal(pairs[:, 0] % (N // 2), pairs[:, 1] % (N // 2))
    within = []
    for t in (paired, plain):
        t.theta.zero_()
        order = pairs[:1].repeat(4000, 1)
        flips = gradients(t, Draws(order, None, t.sampler(0)._flipped(order)))
        within.append((flips - flips.mean(0)).square().sum(1).mean())
    assert float(within[0] / within[1]) == pytest.approx(2 / 3, rel=0.05)


def test_gradients_half_way_between_two_classes_cancel(digits):
    """Every image under both of two labels: at θ = 0, where p = (½, ½), a batch of pairs has no gradient at all."""
    half = digits.x_train[: N // 2]
    labels = torch.arange(2).repeat_interleave(N // 2)
    twins = replace(digits, x_train=torch.cat([half, half]), y_train=labels, classes=2)
    paired, plain = trainer(twins, "antithetic"), trainer(twins)
    for t in (paired, plain):
        t.theta.zero_()
    assert gradients(paired, paired.sampler(0).epoch(S)).abs().max() < 1e-15
    assert gradients(plain, plain.sampler(0).epoch(S)).abs().max() > 0.1


@pytest.mark.parametrize(("kind", "mode"), [*MODES, ("isotropic noise", "epoch")])
def test_the_probe_measures_the_noise_that_is_injected(digits, kind, mode):
    t = trainer(digits, kind, sampling=mode, seeds=(0, 1))
    found = GradientNoise(batches=120).measure(t, [0, 1])
    trace = closed_form(t)[1].trace() * S / t.runs[0].sgd.svag
    trace += S * t.theta.shape[1] * t.runs[0].sgd.isotropic_noise ** 2
    assert abs(found["noise_trace"][0] - trace) < SIGMA * found["noise_trace_stderr"][0]
    assert found["noise_trace_stderr"][0] < 0.3 * trace
    alone = GradientNoise(batches=120).measure(t, [1])
    assert torch.equal(alone["noise_trace"][0], found["noise_trace"][1])


def test_the_exact_trace_is_that_of_plain_draws(digits):
    t = trainer(digits, sampling="replacement", seeds=(0, 1))
    exact = NoiseTrace().measure(t, [0, 1])["noise_trace"]
    assert exact[0] == pytest.approx(float(closed_form(t)[1].trace() * S), rel=1e-12)
    assert torch.equal(NoiseTrace().measure(t, [1])["noise_trace"], exact[1:])


def test_the_probes_standard_error_is_honest(digits):
    """Over 60 seeds at one θ the estimates scatter as their standard errors say."""
    t = trainer(digits, "label flips", seeds=range(60))
    t.theta[:] = t.theta[0]
    found = GradientNoise(batches=40).measure(t, range(60))
    exact = closed_form(t)[1].trace() * S
    z = (found["noise_trace"] - exact) / found["noise_trace_stderr"]
    assert abs(z.mean()) < SIGMA / 60**0.5 * z.std()
    assert 0.75 < z.std() < 1.35


def test_a_look_at_the_noise_changes_no_step(digits):
    run = trainer(digits, "label flips", until=Epochs(4)).stack
    seen = Trainer(run, digits)
    seen.train(lambda epoch, runs, ended: GradientNoise(8).measure(seen, runs), lambda *_: True)
    assert torch.equal(seen.theta, train(run, digits).theta)


def test_flipped_loss_is_the_mean_over_flips(digits):
    """Its gradient is the mean gradient of the draws (second derivation: autograd), its value that of many flips."""
    t = trainer(digits, "label flips", seeds=(0, 1))
    value = FlippedLoss().measure(t, [0, 1])["flipped_loss"]
    labels = torch.stack([t.sampler(0, f"{k}").epoch(S).labels.flatten() for k in range(500)])
    order = torch.stack([t.sampler(0, f"{k}").epoch(S).order.flatten() for k in range(500)])
    losses = t.losses(t.theta[:1].expand(500, -1), t.data.x_train[order], labels).mean(1)
    assert abs(value[0] - losses.mean()) < SIGMA * losses.std() / 500**0.5
    clean = trainer(digits, seeds=(0, 1))
    torch.testing.assert_close(FlippedLoss().measure(clean, [0, 1])["flipped_loss"], clean.train_losses([0, 1]))
    assert value[0] != Loss().measure(t, [0])["train_loss"][0]


def test_flipped_loss_of_a_run_is_the_same_in_any_company(digits):
    t = Trainer(trainer(digits, "label flips", seeds=range(16)).stack, digits)  # single precision, as in sweeps
    together = FlippedLoss().measure(t, range(16))["flipped_loss"]
    alone = [FlippedLoss().measure(t, [i])["flipped_loss"] for i in range(16)]
    assert torch.equal(torch.cat(alone), together)


def test_gradients_in_chunks_are_the_same(digits, monkeypatch):
    t = trainer(digits, "flips under svag")
    draws = t.sampler(0).epoch(S)
    whole = gradients(t, draws)
    monkeypatch.setattr("threefactors.training.sampling.CHUNK", 1)
    torch.testing.assert_close(gradients(t, draws), whole, rtol=1e-12, atol=1e-13)
