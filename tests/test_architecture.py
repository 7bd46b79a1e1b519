"""A network of one's own: against the module by itself and autograd, in company and alone, and under its own name."""

from dataclasses import dataclass

import cloudpickle
import pytest
import torch
from threefactors._identity import canonical
from threefactors.experiments import Accuracy, Loss, Moments, Sharpness, run
from threefactors.measurement import hessian
from threefactors.training import Architecture, Epochs, Stack, Steps, Sweep, Task, Trainer, load, train
from threefactors.training.losses import StackLosses
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tests.test_reproduce import CELLS, defined

(OWN,) = [cell.source for cell in CELLS if "(Architecture)" in cell.source]


@dataclass(frozen=True)
class Residual(Architecture):
    """Normalization by layer, a skip, weights of three kinds, a buffer: more than the page's example."""

    width: int = 6

    def build(self, inputs, outputs):
        return nn.Sequential(
            nn.Linear(inputs, self.width), Skip(self.width), nn.Linear(self.width, outputs, bias=False)
        )


class Skip(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, h):
        return h + self.share * torch.tanh(self.inner(self.norm(h)))


@dataclass(frozen=True)
class Images(Architecture):
    def build(self, inputs, outputs):
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(108, outputs)
        )


KINDS = [Residual(), Images()]
of_each_kind = pytest.mark.parametrize("model", KINDS, ids=lambda model: type(model).__name__)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def a_stack(model, **changes):
    settings = {"lr": [0.1, 0.05], "batch_size": 16, "seed": range(2), "until": Steps(6)} | changes
    (stack,) = Sweep.grid(Task(model=model, train_size=64), **settings).stacks()
    return stack


@of_each_kind
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_own_network_in_a_stack_is_itself_alone_and_the_module_by_itself(digits, model, momentum):
    stack = a_stack(model, momentum=momentum)
    together, fresh = (make(stack, digits, dtype=torch.float64) for make in (train, Trainer))
    alone = train(Stack((stack.runs[2],)), digits, dtype=torch.float64)
    torch.testing.assert_close(alone.theta[0], together.theta[2], rtol=0, atol=1e-13)
    net, lr = model.build(64, 10).double(), stack.runs[2].sgd.lr
    vector_to_parameters(fresh.theta[2], net.parameters())
    moving = [torch.zeros_like(p) for p in net.parameters()]
    sampler = fresh.sampler(2)
    for batch in torch.cat([sampler.epoch(16).order, sampler.epoch(16).order])[:6]:
        loss = nn.functional.cross_entropy(net(fresh.data.x_train[batch].flatten(1)), fresh.labels[2, batch])
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, v, g in zip(net.parameters(), moving, gradients, strict=True):
                p -= lr * v.mul_(momentum).add_(g)
    torch.testing.assert_close(together.theta[2], parameters_to_vector(net.parameters()).detach(), rtol=0, atol=1e-12)


@of_each_kind
def test_its_gradient_and_hessian_are_those_of_autograd(model):
    draw = torch.Generator().manual_seed(1)
    losses = StackLosses(model, "cross-entropy", 64, 3)
    theta = torch.stack([model.initial(64, 3, draw, torch.float64) for _ in range(2)]).requires_grad_()
    x, y = torch.randn(2, 7, 64, generator=draw, dtype=torch.float64), torch.randint(3, (2, 7), generator=draw)
    v = torch.randn(theta.shape, generator=draw, dtype=torch.float64)
    (gradients,) = torch.autograd.grad(losses(theta, x, y).mean(1).sum(), theta)
    products = hessian(losses, theta.detach(), x, y) @ v
    net = model.build(64, 3).double()
    names, shapes = zip(*((name, p.shape) for name, p in net.named_parameters()), strict=True)

    def loss(row, i):
        pieces = row.split([shape.numel() for shape in shapes])
        weights = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(net, weights, (x[i],)), y[i])

    for i, row in enumerate(theta.detach()):
        gradient = torch.autograd.functional.jacobian(lambda t, i=i: loss(t, i), row)
        _, product = torch.autograd.functional.hvp(lambda t, i=i: loss(t, i), row, v[i])
        torch.testing.assert_close(gradients[i], gradient, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(products[i], product, rtol=1e-10, atol=1e-12)


def test_weights_are_told_from_the_rest_and_sizes_are_known():
    model = Residual(6)
    weights = sum(p.numel() for p in model.build(64, 3).parameters() if p.dim() > 1)
    assert model.weight_mask(64, 3).sum() == weights == 64 * 6 + 6 * 6 + 6 * 3
    assert model.filters(64, 3).max() + 1 == 6 + 6 + 3
    assert model.parameters(64, 3) == len(model.filters(64, 3)) == weights + 6 + 6 + 2 * 6
    assert (
        64 + 4 * 6 + 3 <= model.units(64, 3) <= 3 * 64
    )  # inputs are kept twice: as what came in and by the first layer
    assert (model.name, model.batch_norm) == ("Residual(width=6)", None)


def test_first_weights_are_a_run_s_own_and_no_other_draw_moves():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    draws = [Residual().initial(64, 3, torch.Generator().manual_seed(seed), torch.float64) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)
    single = Residual().initial(64, 3, torch.Generator().manual_seed(1), torch.float32)
    assert torch.equal(single.double(), draws[0])


def test_an_own_network_is_measured_and_kept(tmp_path):
    sweep = Sweep.grid(Task(model=Residual(), train_size=64), lr=0.1, batch_size=16, seed=range(2), until=Epochs(2))
    probes = [Loss(), Accuracy(), Sharpness(max_products=10), Moments(2)]
    table = run(sweep, probes, store=tmp_path).table()
    assert set(table["hidden"]) == {"Residual(width=6)"}
    assert (table[["sharpness", "trace", "adaptive_sharpness"]] > 0).all().all()
    assert len(list(tmp_path.glob("??/*.json"))) == 2


def edited(source):
    """The network of the page, from its cell."""
    return defined(source)["Smooth"]


def test_a_run_is_named_by_the_code_of_its_network():
    first, same = edited(OWN)(16), edited(OWN.replace("outputs):\n", "outputs):  # a comment\n"))(16)
    other, wider = edited(OWN.replace("nn.Tanh", "nn.GELU"))(16), edited(OWN)(17)
    assert canonical(first) == canonical(same)
    assert len({canonical(model) for model in (first, other, wider)}) == 3
    assert first.code != other.code


def test_a_class_of_a_notebook_reaches_a_worker_whole():
    """By value: a worker has no such module to import it from."""
    model = edited(OWN)(16)
    there = cloudpickle.loads(cloudpickle.dumps(model))
    assert canonical(there) == canonical(model)
    assert there.parameters(13, 3) == 13 * 16 + 16 + 16 * 3 + 3


def a_class(build, frozen=True):
    kind = type("Own", (Architecture,), {"build": build, "__annotations__": {}})
    return dataclass(frozen=True)(kind) if frozen else kind


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (
            lambda self, i, o: nn.Sequential(nn.Linear(i, 4), nn.BatchNorm1d(4), nn.Linear(4, o)),
            ValueError,
            "BatchNorm",
        ),
        (lambda self, i, o: nn.Sequential(nn.Linear(i, 4), nn.Dropout(), nn.Linear(4, o)), ValueError, "Dropout"),
        (lambda self, i, o: nn.Sequential(nn.Linear(i, o), Centered()), ValueError, "depend on the others"),
        (lambda self, i, o: nn.Linear(i, o + 1), ValueError, r"shape \(2, 11\) from 2 examples, not \(2, 10\)"),
        (lambda self, i, o: nn.Linear(i + 1, o), ValueError, "does not take 64 numbers"),
        (lambda self, i, o: nn.Flatten(), ValueError, "without parameters"),
        (lambda self, i, o: torch.zeros(i, o), TypeError, "return a torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_refused_before_any_work(build, error, said, tmp_path):
    sweep = Sweep.grid(Task(model=a_class(build)()), lr=0.1, batch_size=16, until=Epochs(1))
    with pytest.raises(error, match=said):
        run(sweep, [Loss()], store=tmp_path)
    assert not list(tmp_path.glob("??/*.json"))


class Centered(nn.Module):
    def forward(self, h):
        return h - h.mean(0)


def test_what_has_no_identity_is_refused():
    with pytest.raises(TypeError, match=r"derive a class with @dataclass\(frozen=True\)"):
        a_class(lambda self, i, o: nn.Linear(i, o), frozen=False)()
    with pytest.raises(TypeError, match=r"abstract.* build"):
        Missing()
    names = {"__name__": "nowhere", "Architecture": Architecture, "dataclass": dataclass, "nn": nn}
    exec("@dataclass(frozen=True)\nclass Own(Architecture):\n def build(self, i, o):\n  return nn.Linear(i, o)", names)
    with pytest.raises(TypeError, match=r"cannot be read .* in a file or a notebook"):
        names["Own"]()


@dataclass(frozen=True)
class Missing(Architecture):
    pass
