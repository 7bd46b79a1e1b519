"""Convolutional networks: against modules of torch.nn, dense Hessians and torch.optim; each the same alone."""

import dataclasses
import math
import pickle
import time
from itertools import pairwise

import pytest
import torch
from threefactors._identity import canonical
from threefactors._rng import generator
from threefactors.experiments import Accuracy, Loss, Moments, Sharpness, run
from threefactors.experiments.probes import GradientNoise
from threefactors.measurement import hessian
from threefactors.training import MLP, Epochs, Stack, Steps, Sweep, Task, Trainer, convolution, losses, train
from threefactors.training.convolution import RESNET56, VGG11, ConvNet
from threefactors.training.losses import StackLosses
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

CASES = {
    "pooled": ConvNet((1, 8, 8), ((4,), (6, 5)), hidden=(7,)),
    "pooled, batch norm": ConvNet((1, 8, 8), ((4,), (6, 5)), hidden=(7,), batch_norm=4),
    "odd and oblong": ConvNet((3, 7, 5), ((4,), (6,))),
    "strided": ConvNet((2, 7, 5), ((4,), (6, 6)), "stride", features="average", batch_norm=4),
    "residual": ConvNet((3, 8, 8), ((4, 4, 4), (6, 8)), "stride", True, "average"),
    "residual, batch norm": ConvNet((3, 8, 8), ((4, 4, 4), (6, 8)), "stride", True, "average", batch_norm=4),
    "residual, pooled": ConvNet((1, 8, 8), ((4, 6, 6), (8, 8)), residual=True, batch_norm=4),
}
CLASSES, BATCH = 3, 8
each_case = pytest.mark.parametrize("model", CASES.values(), ids=CASES)


class Skip(nn.Module):
    """A residual block as one would write it with modules: option A of He et al."""

    def __init__(self, into, out, stride, norm):
        super().__init__()
        self.body = nn.Sequential(*conv(into, out[0], stride, norm), nn.ReLU(), *conv(out[0], out[1], 1, norm))
        self.stride, self.new = stride, out[1] - into

    def forward(self, h):
        kept = h[:, :, :: self.stride, :: self.stride]
        zeros = kept.new_zeros(len(h), self.new, *kept.shape[2:])
        return torch.relu(self.body(h) + torch.cat([kept, zeros], 1))


def conv(into, out, stride, norm):
    bias = [nn.Conv2d(into, out, 3, stride, 1, bias=not norm)]
    return bias + ([nn.BatchNorm2d(out)] if norm else [])


def module(model):
    """The same network of modules, whose parameters come in the order of θ."""
    norm, rows, into = model.batch_norm is not None, [], model.image[0]
    for i, stage in enumerate(model.stages):
        rest, first = list(stage), True
        while rest:
            stride = 2 if model.downsampling == "stride" and i and first else 1
            if model.residual and (i or not first):
                out = (rest.pop(0), rest.pop(0))
                rows.append(Skip(into, out, stride, norm))
                into = out[1]
            else:
                out = rest.pop(0)
                rows += [*conv(into, out, stride, norm), nn.ReLU()]
                into = out
            first = False
        rows += [nn.MaxPool2d(2)] if model.downsampling == "max" else []
    rows += [nn.AdaptiveAvgPool2d(1)] * (model.features == "average") + [nn.Flatten()]
    features = nn.Sequential(*rows).double()(torch.zeros(2, *model.image).double()).shape[1]
    for width in model.hidden:
        rows += [nn.Linear(features, width, bias=not norm)] + [nn.BatchNorm1d(width)] * norm + [nn.ReLU()]
        features = width
    return nn.Sequential(*rows, nn.Linear(features, CLASSES)).double()


def problem(model, runs=3, batch=BATCH, dtype=torch.float64):
    """Losses, θ away from the start (where γ = 1, β = 0 hides them), examples and labels."""
    inputs = math.prod(model.image)
    start = [model.initial(inputs, CLASSES, generator(i, "init"), torch.float64) for i in range(runs)]
    theta = torch.stack(start)
    theta = (theta + 0.1 * torch.randn(theta.shape, generator=generator(9, "t"), dtype=torch.float64)).to(dtype)
    x = torch.randn(runs, batch, *model.image, generator=generator(9, "x"), dtype=torch.float64).to(dtype)
    y = torch.randint(CLASSES, (runs, batch), generator=generator(9, "y"))
    return StackLosses(model, "cross-entropy", inputs, CLASSES), theta, x, y


def close(a, b, tol=1e-12):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@each_case
def test_forward_and_gradient_are_those_of_modules(model):
    net = module(model)
    stack, theta, x, y = problem(model)
    ghosts = 1 if model.batch_norm is None else BATCH // model.batch_norm
    leaf = theta.clone().requires_grad_()
    z = stack.outputs(leaf, x, ghosts)
    (g,) = torch.autograd.grad(stack.criterion(z, y).mean(1).sum(), leaf)
    assert (
        theta.shape[1]
        == model.parameters(math.prod(model.image), CLASSES)
        == len(parameters_to_vector(net.parameters()))
    )
    for i in range(len(theta)):
        vector_to_parameters(theta[i], net.parameters())
        expected = torch.cat([net(part) for part in x[i].chunk(ghosts)])
        close(z[i], expected)
        loss = nn.functional.cross_entropy(expected, y[i])
        close(g[i], parameters_to_vector(torch.autograd.grad(loss, list(net.parameters()))), 1e-10)


@pytest.mark.parametrize("name", [name for name, model in CASES.items() if model.batch_norm])
def test_statistics_of_the_counted_rows_serve_all(name):
    """As the running averages of a module in evaluation, had they seen those rows and nothing else."""
    model, n = CASES[name], 5
    net = module(model)
    stack, theta, x, _ = problem(model, runs=1)
    vector_to_parameters(theta[0], net.parameters())
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]

    def take_from_counted(part, given):
        rows = given[0][:n].detach().transpose(0, 1).flatten(1)
        part.running_mean, part.running_var = rows.mean(1), rows.var(1, correction=0)

    for part in norms:
        part.register_forward_pre_hook(take_from_counted)
    expected = net.eval()(x[0])
    close(stack.outputs(theta, x, counted=n)[0], expected)
    assert not torch.allclose(stack.outputs(theta, x)[0], expected)


@each_case
def test_a_stack_is_each_network_alone_in_either_way(model, monkeypatch):
    stack, theta, x, _ = problem(model)
    together = stack.outputs(theta, x)
    monkeypatch.setattr(convolution.convolving, "GROUPED", 0)
    one_by_one = stack.outputs(theta, x)
    monkeypatch.undo()
    for i in range(len(theta)):
        close(stack.outputs(theta[[i]], x[[i]])[0], together[i])
    close(one_by_one, together)


def test_blocks_of_examples_change_nothing(monkeypatch):
    stack, theta, x, _ = problem(CASES["pooled"])
    whole = stack.outputs(theta, x)
    monkeypatch.setattr(convolution, "BLOCK", 3 * 8 * 4 * 64)  # three examples of the widest layer
    with torch.no_grad():
        close(stack.outputs(theta, x), whole)


@pytest.mark.parametrize("name", ["pooled", "strided", "residual, batch norm"])
def test_hessian_products_against_finite_differences(name, monkeypatch):
    small = {"image": (1, 4, 4), "stages": ((2,), (3,)), "hidden": ()}
    if CASES[name].residual:
        small["stages"] = ((2,), (2, 3))
    model = dataclasses.replace(CASES[name], **small)
    stack, theta, x, y = problem(model, runs=2)
    op = hessian(stack, theta, x, y)
    dense = op.dense()
    P, eps = theta.shape[1], 1e-6
    for i in range(2):  # all 2P networks θ ± ε e_j are one stack
        steps = eps * torch.eye(P, dtype=torch.float64)
        near = torch.cat([theta[i] + steps, theta[i] - steps]).requires_grad_()
        each = stack(near, x[i].expand(2 * P, *x[i].shape), y[i].expand(2 * P, -1))
        above, below = torch.autograd.grad(each.mean(1).sum(), near)[0].chunk(2)
        close(dense[i], (above - below) / (2 * eps), 1e-7)
    close(dense, dense.mT, 1e-12)
    assert dense.abs().max() > 0.01
    if model.batch_norm is None:  # in blocks of examples
        monkeypatch.setattr(losses, "BUDGET", 1)
        close(hessian(stack, theta, x, y) @ torch.ones_like(theta), dense.sum(-1))


def test_parameters_of_the_presets():
    vgg = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    filters, channels = sum(9 * a * b for a, b in pairwise(vgg)), sum(vgg[1:])
    assert VGG11().parameters(3072, 10) == filters + channels + 5130 == 9_225_610  # 9.2 million, as is well known
    assert VGG11(128).parameters(3072, 10) == filters + 2 * channels + 5130
    filters = 9 * (3 * 16 + 18 * 16**2 + 16 * 32 + 17 * 32**2 + 32 * 64 + 17 * 64**2)
    channels = 19 * 16 + 18 * 32 + 18 * 64
    assert RESNET56(128).parameters(3072, 10) == filters + 2 * channels + 650 == 853_018
    assert VGG11(width=0.25).stages == ((16,), (32,), (64, 64), (128, 128), (128, 128))
    assert len(sum(RESNET56(blocks=1, image=(1, 8, 8)).stages, ())) + 1 == 8
    assert (VGG11().name, RESNET56().name) == ("64/128/256x2/512x2/512x2", "residual 16x19/32x18/64x18")


@pytest.mark.parametrize("batch_norm", [None, 8])
def test_a_residual_network_starts_with_outputs_of_order_one(batch_norm):
    """With He's weights alone, 27 skips would multiply the outputs by 2^13."""
    model = RESNET56(batch_norm, width=0.25, image=(1, 8, 8))
    theta = model.initial(64, 10, generator(0, "init"), torch.float32)[None]
    x = torch.randn(1, 32, 64, generator=generator(0, "x"))
    assert 0.1 < model.forward(theta, x, 10).std() < 5


@each_case
def test_filters_number_what_feeds_a_unit(model):
    inputs = math.prod(model.image)
    number = model.filters(inputs, CLASSES)
    net, at = module(model), 0
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data = (at + torch.arange(len(part.weight)).double()).view(
                -1, *[1] * (part.weight.ndim - 1)
            ) + 0 * part.weight
            at += len(part.weight)
        elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.weight.data.fill_(-1)
        if isinstance(getattr(part, "bias", None), nn.Parameter):
            part.bias.data.fill_(-1)
    assert torch.equal(number.double(), parameters_to_vector(net.parameters()))
    assert torch.equal(model.weight_mask(inputs, CLASSES), number >= 0)


def test_filters_of_a_perceptron_are_columns():
    model = MLP((4, 2), batch_norm=8)
    number = model.filters(3, 2)[None]
    weights = [layer.weight[0] for layer in model.layers(number, 3, 2)]
    assert [w.unique().tolist() for w in weights] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert all(torch.equal(w, w[:1].expand_as(w)) for w in weights)


@pytest.mark.parametrize("batch_norm", [None, 8])
def test_the_engine_descends_as_torch_optim_does(digits, batch_norm):
    model = ConvNet(stages=((4,), (6,)), batch_norm=batch_norm)
    (stack,) = Sweep.grid(Task(model=model, train_size=64), lr=[0.1, 0.05], batch_size=16, momentum=0.9, seed=range(2),
                          until=Steps(6)).stacks()  # fmt: skip
    trainer = train(stack, digits, dtype=torch.float64)
    fresh = Trainer(stack, digits, dtype=torch.float64)
    ghosts = 1 if batch_norm is None else 2
    for i, one in enumerate(stack.runs):
        rows = [*conv(1, 4, 1, batch_norm), nn.ReLU(), nn.MaxPool2d(2), *conv(4, 6, 1, batch_norm), nn.ReLU()]
        net = nn.Sequential(*rows, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 10)).double()
        vector_to_parameters(fresh.theta[i], net.parameters())
        optimizer = torch.optim.SGD(net.parameters(), lr=one.sgd.lr, momentum=0.9)
        sampler = fresh.sampler(i)
        order = torch.cat([sampler.epoch(16).order, sampler.epoch(16).order])[:6]
        for batch in order:
            optimizer.zero_grad()
            images = fresh.data.x_train[batch].unflatten(0, (ghosts, -1)).unsqueeze(2)
            z = torch.cat([net(part) for part in images])
            nn.functional.cross_entropy(z, fresh.labels[i, batch]).backward()
            optimizer.step()
        close(trainer.theta[i], parameters_to_vector(net.parameters()).detach(), 1e-10)


@pytest.mark.parametrize(
    ("model", "rounding"),
    [(ConvNet(), 1e-5), (ConvNet(batch_norm=16, hidden=(20,)), 1e-5), (RESNET56(16, 0.5, 1, (1, 8, 8)), 1e-4)],
)
def test_a_run_does_not_depend_on_its_neighbors(digits, model, rounding):
    (stack,) = Sweep.grid(Task(model=model, train_size=64), lr=[0.05, 0.02], batch_size=16, seed=range(2),
                          until=Steps(5)).stacks()  # fmt: skip
    for dtype, tol in ((torch.float64, 1e-12), (torch.float32, rounding)):
        together = train(stack, digits, dtype=dtype)
        alone = train(Stack((stack.runs[2],)), digits, dtype=dtype)
        close(alone.theta[0], together.theta[2], tol)
        close(alone.train_losses([0])[0], together.train_losses([2])[0], tol)


def test_digits_are_learned_and_measured(tmp_path):
    start = time.process_time()
    model = ConvNet(batch_norm=32)
    sweep = Sweep.grid(Task(model=model), lr=0.1, batch_size=32, seed=range(2), until=Epochs(4))
    probes = [Loss(), Accuracy(), Sharpness(examples=64, max_products=12), Moments(4, 64), GradientNoise(4)]
    table = run(sweep, probes, store=tmp_path, device="cpu").table()
    assert (table["validation_accuracy"] > 0.9).all()
    assert (table["train_loss"] < 0.4).all()
    assert (table[["sharpness", "trace", "frobenius", "noise_trace"]] > 0).all().all()
    assert set(table["hidden"]) == {"8/16"}
    assert time.process_time() - start < 3


@pytest.mark.parametrize("batch_norm", [None, 32])
def test_narrow_presets_are_trained(digits, batch_norm):
    """On the digits at their own size, and at 32×32 for a VGG-11, which halves its images five times."""
    large = nn.functional.interpolate(digits.x_train[:128, None].float(), 32).squeeze(1)
    enlarged = dataclasses.replace(digits, x_train=large, y_train=digits.y_train[:128])
    cases = {
        RESNET56(batch_norm, 0.25, 1, (1, 8, 8)): (digits.first(512), 6, 0.1),
        VGG11(batch_norm, 1 / 16, image=(1, 32, 32)): (enlarged, 10, 0.1 if batch_norm else 0.02),
    }
    for model, (data, epochs, lr) in cases.items():
        task = Task(model=model, train_size=len(data.x_train))
        sweep = Sweep.grid(task, lr=lr, batch_size=32, momentum=0.9, seed=range(2), until=Epochs(epochs))
        trainer = Trainer(sweep.stacks()[0], data)
        start = trainer.train_losses([0, 1])
        assert trainer._engine_name == "autograd"
        assert (trainer.train().train_losses([0, 1]) < 0.75 * start).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": (1, 8, 8), "stages": ((4,),) * 4}, r"down to 1×1 pixels in stage 4 of 4 .* use fewer stages"),
        ({"image": (1, 1, 5), "stages": ((4,), (4,)), "downsampling": "stride"}, "down to 1×5 pixels"),
        ({"image": (8, 8)}, "not \\(channels, height, width\\)"),
        ({"image": (1, 8, 0)}, "image=.* whole numbers >= 1"),
        ({"stages": ()}, "stage without convolutions"),
        ({"stages": ((4,), ())}, "stage without convolutions"),
        ({"stages": ((4,), (2.5,))}, "stages=.* whole numbers >= 1"),
        ({"hidden": (0,)}, "hidden=.* whole numbers >= 1"),
        ({"batch_norm": 1}, "batch_norm=1 is no ghost batch size"),
        ({"downsampling": "mean"}, "downsampling='mean' is unknown; use one of max, stride"),
        ({"features": "all"}, "features='all' is unknown"),
        ({"stages": ((4, 4), (4, 4)), "residual": True}, "go in pairs"),
        ({"stages": ((4,), (4, 4, 4)), "residual": True}, "go in pairs"),
        ({"stages": ((8,), (4, 4)), "residual": True}, "channels that do not decrease"),
    ],
)
def test_what_makes_no_network_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**settings)


def test_what_does_not_fit_the_data_or_the_engine_is_refused(digits):
    (stack,) = Sweep.grid(Task(model=VGG11(width=0.1)), lr=0.1, batch_size=32, until=Steps(1)).stacks()
    with pytest.raises(ValueError, match="3072 numbers, but an example has 64"):
        Trainer(stack, digits)
    with pytest.raises(ValueError, match="width=0 scales no channels"):
        VGG11(width=0)
    (stack,) = Sweep.grid(Task(model=ConvNet()), lr=0.1, batch_size=32, until=Steps(1)).stacks()
    for engine in ("by hand", "kernel"):
        with pytest.raises(ValueError, match="written for an MLP, not for ConvNet"):
            _ = Trainer(stack, digits, engine=engine).engine
    with pytest.raises(ValueError, match="not a multiple of the ghost batch of 12"):
        Sweep.grid(Task(model=ConvNet(batch_norm=12)), lr=0.1, batch_size=32, until=Steps(1)).runs[0].check(100)


def test_networks_that_differ_are_told_apart():
    models = [ConvNet(), ConvNet(hidden=(8,)), ConvNet(stages=[[8], [16]]), ConvNet(batch_norm=8), VGG11(), MLP()]
    assert len({canonical(model) for model in models}) == 5  # lists are tuples
    assert ConvNet(stages=[[8], [16]]) == ConvNet() != ConvNet(residual=True, stages=((8,), (16, 16)))
    assert pickle.loads(pickle.dumps(VGG11())) == VGG11()  # as worker processes receive it
