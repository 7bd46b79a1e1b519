"""Crops and flips: against padding, cropping and mirroring in plain Python, and as part of training and its noise."""

import sys
from dataclasses import replace

import pytest
import torch
from threefactors._identity import LATER, canonical
from threefactors._rng import counted, generator, key
from threefactors.experiments import store
from threefactors.experiments.probes import Accuracy, GradientNoise, Loss, Sharpness
from threefactors.training import (
    MLP,
    SGD,
    ConvNet,
    Epochs,
    Run,
    Stack,
    Steps,
    Sweep,
    Task,
    Trainer,
    TrainLoss,
    load,
    train,
)
from threefactors.training.augmentation import Augmentation, Augmenter
from threefactors.training.engines import Plan
from threefactors.training.losses import StackLosses
from threefactors.training.sampling import Draws, batch_gradients
from threefactors.training.steps import Stacked

from .no_looks import NoLooks
from .test_counted import chi_square

train_module = sys.modules[Trainer.__module__]
AUGMENTATION = Augmentation(crop=2)
TASK = Task(model=MLP((8,)), train_size=96, augmentation=AUGMENTATION)


def images(R, B, C, H, W):
    return torch.randn(R, B, C * H * W, generator=generator(0, "images"))


def keys(R):
    return torch.tensor([key(seed, "augmentation") for seed in range(R)])


def by_hand(image, number, crop, flip):
    """One image, a nested list (C, H, W): padded with zeros, cut out, mirrored, one pixel after another."""
    height, width, side = len(image[0]), len(image[0][0]), 2 * crop + 1
    mirrored, down, right = number % 2 and flip, number // 2 % side, number // 2 // side % side
    out = []
    for channel in image:
        empty = [[0.0] * (width + 2 * crop) for _ in range(crop)]
        padded = empty + [[0.0] * crop + row + [0.0] * crop for row in channel] + empty
        cut = [row[right : right + width] for row in padded[down : down + height]]
        out.append([row[::-1] for row in cut] if mirrored else cut)
    return out


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("crop", "shape"), [(1, (1, 4, 4)), (2, (3, 5, 4)), (3, (2, 4, 7)), (0, (3, 4, 4))])
def test_equals_padding_cutting_and_mirroring_in_plain_python(crop, shape, flip):
    R, B, steps = 3, 8, [0, 5, 1 << 40]
    x = images(R, B, *shape)
    found = Augmenter(Augmentation(crop, flip), shape, keys(R))(x, None, torch.tensor(steps))
    for r in range(R):
        for b in range(B):
            number = int(counted(keys(R)[r], steps[r], b))
            image = x[r, b].view(shape).tolist()
            expected = torch.tensor(by_hand(image, number, crop, flip))
            assert torch.equal(found[r, b].view(shape), expected)


def test_gray_images_have_one_channel():
    x = images(2, 6, 1, 5, 4)
    steps = torch.zeros(2, dtype=torch.long)
    gray, channel = (Augmenter(AUGMENTATION, shape, keys(2))(x, None, steps) for shape in ((5, 4), (1, 5, 4)))
    assert torch.equal(gray, channel)
    assert not torch.equal(gray, x)


def test_no_crop_and_no_flip_change_nothing():
    x = images(2, 6, 3, 4, 4)
    assert torch.equal(Augmenter(Augmentation(0, False), (3, 4, 4), keys(2))(x, None, torch.tensor([3, 9])), x)


@pytest.mark.parametrize("along", ["rows", "steps", "runs"])
def test_every_shift_and_both_sides_are_equally_likely(along):
    """Counted in images of one lit pixel and one beside it, whose places tell shift and side."""
    crop, side, n = 2, 7, 20_000
    counts = {"rows": (1, n, 1), "steps": (1, 1, n), "runs": (n, 1, 1)}[along]
    image = torch.zeros(side, side)
    image[3, 2], image[3, 3] = 2.0, 1.0
    R, B, T = counts
    augmenter = Augmenter(Augmentation(crop), (side, side), keys(1) if R == 1 else keys(R))
    x = image.flatten().expand(max(R, T), B, -1)
    out = augmenter(x, None, torch.arange(T) if T > 1 else torch.zeros(R, dtype=torch.long)).view(n, -1)
    bright, dim = (out == 2).int().argmax(1), (out == 1).int().argmax(1)
    lit = (out == 2).any(1) & (out == 1).any(1)
    assert lit.all()
    mirrored = (bright > dim).long()
    codes = bright * 2 + mirrored
    names, counts = codes.unique(return_counts=True)
    assert len(names) == 2 * (2 * crop + 1) ** 2
    assert abs(chi_square(counts, n / len(names))) < 4


def test_a_run_is_augmented_alike_alone_elsewhere_and_in_parts():
    R, B, shape = 4, 10, (3, 6, 6)
    x, steps, augmenter = images(R, B, *shape), torch.tensor([7, 7, 8, 0]), Augmenter(AUGMENTATION, shape, keys(R))
    whole = augmenter(x, None, steps)
    chosen = torch.tensor([3, 1])
    assert torch.equal(augmenter(x[chosen], chosen, steps[chosen]), whole[chosen])
    for r in range(R):
        alone = Augmenter(AUGMENTATION, shape, keys(R)[r : r + 1])
        assert torch.equal(alone(x[r : r + 1], None, steps[r : r + 1])[0], whole[r])
    assert torch.equal(augmenter(x[:, :4], None, steps), whole[:, :4])
    assert not torch.equal(augmenter(x, None, steps + 1), whole)
    assert torch.equal(augmenter(x.double(), None, steps), whole.double())


def test_copies_of_an_example_stay_copies():
    x = images(2, 4, 1, 6, 6).repeat_interleave(3, 1)
    steps = torch.tensor([1, 2])
    tripled = Augmenter(AUGMENTATION, (6, 6), keys(2), copies=3)(x, None, steps)
    assert torch.equal(
        tripled, Augmenter(AUGMENTATION, (6, 6), keys(2))(x[:, ::3], None, steps).repeat_interleave(3, 1)
    )


def test_no_value_is_looked_at():
    augmenter = Augmenter(AUGMENTATION, (3, 6, 6), keys(2))
    x, runs, steps = images(2, 4, 3, 6, 6), torch.tensor([1, 0]), torch.tensor([1, 2])
    with NoLooks():
        augmenter(x, runs, steps)
        with pytest.raises(RuntimeError, match="looks at values"):
            x[x > 0]
        with pytest.raises(RuntimeError, match="looks at values"):
            float(x.sum())
    # where tensors have no values at all; whatever came from the CPU in between would be refused
    elsewhere = Augmenter(AUGMENTATION, (3, 6, 6), keys(2).to("meta"))
    assert elsewhere(x.to("meta"), runs.to("meta"), steps.to("meta")).shape == x.shape


# ---- in training


def stack(task=TASK, seeds=2, until=Steps(9), **sgd):
    return Stack(tuple(Sweep.grid(task, until=until, seed=range(seeds), **{"lr": 0.05, "batch_size": 16, **sgd})))


@pytest.mark.parametrize("engine", ["by hand", "autograd", "captured", None])
def test_equals_torch_modules_on_the_augmented_batches(digits, engine):
    """torch.nn with torch.optim.SGD, fed with images that are shifted and mirrored one at a time in plain Python."""
    trainer = Trainer(stack(seeds=1, momentum=0.9), digits, dtype=torch.float64, engine=engine)
    layers = trainer.losses.perceptron.layers(trainer.theta.clone(), 64, 10)
    modules = []
    for layer in layers:
        linear = torch.nn.Linear(*layer.weight.shape[1:]).double()
        linear.weight.data, linear.bias.data = layer.weight[0].T.clone(), layer.shift[0, 0].clone()
        modules += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    sampler = trainer.sampler(0)
    batches = torch.cat([sampler.epoch(16).order, sampler.epoch(16).order])[:9]
    for step, batch in enumerate(batches):
        numbers = [int(counted(torch.tensor(key(0, "augmentation")), step, row)) for row in range(16)]
        rows = [by_hand([digits.x_train[i].tolist()], n, 2, True) for i, n in zip(batch, numbers, strict=True)]
        loss = torch.nn.functional.cross_entropy(
            network(torch.tensor(rows, dtype=torch.float64).flatten(1)), digits.y_train[batch]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trainer.train()
    theirs = torch.cat([p.data.T.flatten() if p.ndim == 2 else p.data for p in network.parameters()])
    torch.testing.assert_close(trainer.theta[0], theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch_norm", [None, 8])
def test_a_convolutional_step_is_that_on_images_augmented_beforehand(batch_norm):
    """Color images: one step each from the same start, once with the augmenter and once on its output."""
    model = ConvNet((3, 8, 8), ((4,), (6,)), batch_norm=batch_norm)
    x, y = images(1, 16, 3, 8, 8)[0].view(16, 3, 8, 8).double(), torch.arange(16) % 3
    losses, labels = StackLosses(model, "cross-entropy", 192, 3), y.expand(2, -1)
    start = torch.stack([model.initial(192, 3, generator(seed, "init"), torch.float64) for seed in range(2)])
    order, lr = torch.arange(16).unsqueeze(0), torch.tensor([0.1], dtype=torch.float64)
    augmenter = Augmenter(AUGMENTATION, (3, 8, 8), keys(2))
    both = start.clone()
    plans = [Plan(run, order, lr, first=5) for run in range(2)]
    Stacked(losses, x, labels, by_hand=False, augmenter=augmenter).advance(both, None, 0.0, plans, 1e3)
    shown = augmenter(x.flatten(1).expand(2, -1, -1), None, torch.tensor([5, 5]))
    for run in range(2):
        one = start.clone()
        Stacked(losses, shown[run], labels, by_hand=False).advance(one, None, 0.0, [Plan(run, order, lr)], 1e3)
        torch.testing.assert_close(both[run], one[run], rtol=1e-12, atol=1e-13)
        assert not torch.equal(one[run], start[run])


@pytest.mark.parametrize("sgd", [{}, {"svag": 2}, {"label_flips": 0.3, "label_draws": 2}, {"gradient_noise": 0.1}])
def test_a_run_is_the_same_in_any_company_and_plan(digits, monkeypatch, sgd):
    """Bit for bit, beside a neighbor that ends at once and one that diverges, in plans of one epoch each."""
    runs = stack(until=Epochs(3), **sgd).runs
    neighbors = (replace(runs[0], until=Epochs(1), seed=9), replace(runs[0], sgd=replace(runs[0].sgd, lr=1e6)))
    together = train(Stack((*neighbors, *runs)), digits, dtype=torch.float64)
    assert together.diverged_at[1] >= 0
    monkeypatch.setattr(train_module, "SEGMENT", 1)
    for i, run in enumerate(runs):
        alone = Trainer(Stack((run,)), digits, dtype=torch.float64).train(
            pause=lambda epoch, before, after: epoch % 2 == 0
        )
        assert torch.equal(alone.theta[0], together.theta[2 + i])


def test_steps_are_counted_through_the_whole_run(digits):
    trainer = Trainer(stack(until=Epochs(4)), digits)
    trainer.train(pause=lambda *_: True)  # ends after 4 epochs of 6 steps
    again = Trainer(stack(until=Epochs(4)), digits)
    (plan, _), _ = again._plan([0, 1], 0, lambda epoch, *_: epoch == 1)
    again.steps = [6, 6]
    (later, _), _ = again._plan([0, 1], 1, lambda *_: True)
    assert (plan.first, later.first, later.cut(2, 5).first) == (0, 6, 8)
    assert later.cut(2, 5).cut(1, 2).first == 9
    assert trainer.steps == [24, 24]
    assert Plan(0, plan.order, plan.lr).first == 0


def test_evaluation_and_curvature_see_plain_images(digits):
    trainer = train(stack(until=TrainLoss(1.9, at_most=Epochs(40), every=0.2), lr=0.3), digits)
    assert trainer.finished == [True, True]
    x, y = digits.x_train[:96], digits.y_train[:96]
    loss = trainer.losses(trainer.theta, x.expand(2, -1, -1, -1), y.expand(2, -1)).mean(1)
    assert (loss <= 1.9).all()
    torch.testing.assert_close(trainer.train_losses([0, 1]), loss)
    plain = Trainer(stack(replace(TASK, augmentation=None), until=Steps(1)), digits)
    plain.theta.copy_(trainer.theta)
    for probe in (Loss(), Accuracy(), Sharpness()):
        ours, theirs = probe.measure(trainer, [0, 1]), probe.measure(plain, [0, 1])
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def variants(trainer):
    """Gradients (N·18, P) of all 24 images in all 18 ways of crop=1 with flip."""
    x, y = trainer.data.x_train, trainer.labels[0]
    numbers = [2 * s + f for s in range(9) for f in range(2)]
    shown = torch.tensor([by_hand([image.tolist()], n, 1, True) for image in x for n in numbers], dtype=torch.float64)
    order = torch.arange(len(shown)).unsqueeze(1)
    return batch_gradients(trainer.losses, trainer.theta[0], shown.flatten(1), y.repeat_interleave(18), Draws(order))


def test_the_noise_probe_measures_crops_and_flips_too(digits):
    """Tr C over all images in all ways, each as likely, where a network knows the images by heart but not the ways."""
    task, options = Task(model=MLP(()), train_size=24), {"batch_size": 4, "sampling": "replacement", "lr": 0.5}
    plain = train(stack(task, **options, until=Epochs(50)), digits, dtype=torch.float64)
    trainer = Trainer(stack(replace(task, augmentation=Augmentation(1)), **options), digits, dtype=torch.float64)
    trainer.theta.copy_(plain.theta)
    gradients, probe = variants(trainer), GradientNoise(batches=200)
    exact = (gradients - gradients.mean(0)).square().sum(1).mean()
    found, without = probe.measure(trainer, [0, 1]), probe.measure(plain, [0, 1])
    assert abs(found["noise_trace"][0] - exact) < 3 * found["noise_trace_stderr"][0] < 0.5 * exact
    assert without["noise_trace"][0] < 0.1 * exact
    assert torch.equal(probe.measure(trainer, [1])["noise_trace"][0], found["noise_trace"][1])


def test_the_probe_looks_at_other_crops_than_training_does(digits):
    trainer = Trainer(stack(), digits)
    mine, others = trainer.augmenter([0]), trainer.augmenter([0], "noise probe ")
    assert not torch.equal(mine.keys, others.keys)
    looked = Trainer(stack(until=Epochs(2)), digits)
    looked.train(lambda epoch, runs, ended: GradientNoise(4).measure(looked, runs), lambda *_: True)
    assert torch.equal(looked.theta, train(stack(until=Epochs(2)), digits).theta)


# ---- identity and refusals


def test_names_of_results_without_augmentation_are_those_of_before_it_existed(monkeypatch):
    """Keys as they were computed before ``Task.augmentation`` was there, under the protocol of then."""
    monkeypatch.setattr(store, "PROTOCOL", 1)
    plain = Run(Task(), SGD(lr=0.1, batch_size=32), 3, Epochs(2))
    other = Run(
        Task(model=MLP((16, 12), batch_norm=8), label_noise=0.1, train_size=96),
        SGD(lr=0.05, batch_size=16, momentum=0.9, sampling="replacement"),
        7,
        TrainLoss(0.25, at_most=Epochs(30), every=0.1),
    )
    probes = (Loss(), Sharpness())
    assert store.key(plain, probes, "0" * 64) == "252383409b77aad71325f9ee4ef944993016219380e280e7ee450cc490fd455f"
    assert store.key(other, probes, "0" * 64) == "b360970e36e16c214f16dfa8f32e1c7acb4752d50c73475b411787a4401f7045"
    assert "augmentation" not in canonical(plain)


def test_augmentations_have_names_and_stacks_of_their_own():
    tasks = [Task(augmentation=a) for a in (None, Augmentation(), Augmentation(3), Augmentation(flip=False))]
    assert len({canonical(task) for task in tasks}) == 4
    assert '"augmentation":{"crop":4,"flip":true,"is":"Augmentation"}' in canonical(tasks[1])
    assert len(Sweep.grid(tasks, lr=[0.1, 0.2], batch_size=8, until=Epochs(1)).stacks()) == 4
    assert LATER == {"omit_default": True}


def test_with_augmentation_another_engine_than_the_kernel_is_chosen(digits):
    assert type(Trainer(stack(), digits).engine).__name__ == "Stacked"
    with pytest.raises(ValueError, match=r"engine='kernel' knows no Augmentation.*use engine='by hand'"):
        Trainer(stack(), digits, engine="kernel")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Augmentation(-1), "crop=-1 is not a whole number of pixels >= 0"),
        (lambda: Augmentation(1.5), r"crop=1\.5"),
        (lambda: Augmentation(True), "crop=True"),
        (lambda: Augmentation(2, 1), "flip=1 is neither True nor False"),
        (lambda: Augmenter(Augmentation(4), (3, 8, 4), keys(1)), "crop=4 can shift images of 8 × 4 .* use crop < 4"),
    ],
)
def test_wrong_augmentations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_data_that_are_no_images_are_refused_before_any_work(small_npz, digits):
    with pytest.raises(ValueError, match=r"examples of shape \(6,\) are no images"):
        Trainer(stack(Task(dataset=small_npz, augmentation=Augmentation())), load(small_npz))
    with pytest.raises(ValueError, match="crop=8 can shift images of 8 × 8 pixels out of sight; use crop < 8"):
        Trainer(stack(Task(augmentation=Augmentation(8))), digits)
    with pytest.raises(TypeError, match=r"augmentation='crop': use Augmentation\(crop=4, flip=True\) or None"):
        Task(augmentation="crop")
