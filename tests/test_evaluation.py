"""Outputs in blocks of rows: those of the whole, and in the memory that was granted."""

import math
import weakref

import pytest
import torch
from threefactors._rng import generator
from threefactors.training import MLP, Steps, Sweep, Task, Trainer, evaluation, losses
from threefactors.training.convolution import VGG11, ConvNet
from threefactors.training.losses import StackLosses
from torch.utils._python_dispatch import TorchDispatchMode

CLASSES, N, COUNTED = 3, 23, 17
MODELS = {
    "MLP": MLP((7, 5)),
    "MLP, batch norm": MLP((7, 5, 6), batch_norm=4),
    "linear, batch norm": MLP((), batch_norm=4),
    "VGG": VGG11(width=0.05, image=(1, 32, 32)),
    "VGG, batch norm": VGG11(4, width=0.05, hidden=(5,), image=(1, 32, 32)),
    "residual": ConvNet((2, 9, 7), ((4, 4, 4), (6, 8)), "stride", True, "average", batch_norm=4),
    "strided": ConvNet((2, 7, 5), ((4,), (6, 6)), "stride", batch_norm=4),
}


def problem(model, runs=2, examples=N, dtype=torch.float64):
    """Losses, θ away from its start, and examples far from 0, where sums of squares would cancel."""
    inputs = math.prod(model.image) if isinstance(model, ConvNet) else 6
    draw = generator(1, "evaluation")
    theta = torch.stack([model.initial(inputs, CLASSES, generator(i, "init"), torch.float64) for i in range(runs)])
    theta += 0.1 * torch.randn(theta.shape, generator=draw, dtype=torch.float64)
    x = 3 + torch.randn(examples, inputs, generator=draw, dtype=torch.float64)
    return StackLosses(model, "cross-entropy", inputs, CLASSES), theta.to(dtype), x.to(dtype)


def row(stack, theta):
    """Bytes reckoned for one example."""
    return evaluation.BUFFERS * stack.model.widest(stack.inputs, CLASSES) * theta.element_size()


@pytest.mark.parametrize("counted", [COUNTED, None, 4])
@pytest.mark.parametrize("rows", [0, 5, 45])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_blocks_give_the_outputs_of_the_whole(model, rows, counted):
    """Room for no more than the row at work; for some that wait; for blocks of 11, 11 and 1 (with batch norm)."""
    stack, theta, x = problem(model)
    whole = stack.outputs(theta, x.expand(len(theta), *x.shape), counted=counted)
    found = evaluation.outputs(stack, theta, x, counted, int(rows * row(stack, theta)))
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_fits_is_computed_as_ever(model):
    """One network after another, in one piece: to the last bit."""
    stack, theta, x = problem(model, dtype=torch.float32)
    with torch.no_grad():
        whole = torch.cat([stack.outputs(one, x[None], counted=COUNTED) for one in theta.split(1)])
    assert torch.equal(evaluation.outputs(stack, theta, x, COUNTED, evaluation.ON_CPU), whole)


@pytest.mark.parametrize("counted", [None, COUNTED])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize("batch_norm", [None, 4])
def test_pausing_at_normalizations_changes_no_bit(hidden, batch_norm, counted):
    """Stored results rest on this pass, written here as it was before it could pause."""
    model = MLP(hidden, batch_norm)
    stack, theta, x = problem(model, dtype=torch.float32)
    h = x = x.expand(len(theta), *x.shape)
    *layers, last = model.layers(theta, 6, CLASSES)
    for layer in layers:
        if layer.gain is None:
            h = torch.baddbmm(layer.shift, h, layer.weight)
        else:
            z = h @ layer.weight
            centered = z - z[:, :counted].mean(1, keepdim=True)
            normed = centered * torch.rsqrt(centered[:, :counted].square().mean(1, keepdim=True) + 1e-5)
            h = layer.gain * normed + layer.shift
        h = h.relu()
    assert torch.equal(stack.outputs(theta, x, counted=counted), torch.baddbmm(last.shift, h, last.weight))


def test_statistics_are_those_of_the_counted_rows_alone():
    stack, theta, x = problem(MODELS["residual"])
    found = evaluation.outputs(stack, theta, x, COUNTED, 8 * row(stack, theta))
    others = x.clone()
    others[COUNTED:] *= 7
    again = evaluation.outputs(stack, theta, others, COUNTED, 8 * row(stack, theta))
    assert torch.equal(found[:, :COUNTED], again[:, :COUNTED])
    assert not torch.allclose(found[:, COUNTED:], again[:, COUNTED:])


def test_the_merge_is_stable_where_sums_of_squares_are_not():
    """Units of mean 10⁴ and variance 1 in float32: E[z²] − E[z]² has nothing left of the variance."""
    z = 1e4 + torch.randn(64, 3, generator=generator(0, "far"))
    gain = torch.ones(3)
    parts = [evaluation.Moments.of(evaluation.Units(p, gain, gain, (0,)), len(p)) for p in z.split([13, 50, 1])]
    merged = parts[0].merged(parts[1]).merged(parts[2])
    torch.testing.assert_close(merged.squares / merged.n, z.double().var(0, correction=0), rtol=1e-4, atol=0)
    assert not torch.allclose(z.square().mean(0) - z.mean(0).square(), z.var(0, correction=0), rtol=0.1)


class Live(TorchDispatchMode):
    """Bytes of storages that operations made and that are still alive; and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        self.meet((arguments, named), made=False)
        result = operation(*arguments, **(named or {}))
        self.meet(result, made=True)
        return result

    def meet(self, tree, made):
        for t in torch.utils._pytree.tree_leaves(tree):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self.known:
                    size = storage.nbytes() if made else 0  # what was there before is not counted
                    self.known.add(storage._cdata)
                    self.now += size
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.free, storage._cdata, size)

    def free(self, name, size):
        self.known.discard(name)
        self.now -= size


def most(work):
    with Live() as live:
        work()
    return live.most


WIDE = {
    "MLP": MLP((64, 64, 64), batch_norm=4),
    "VGG": VGG11(4, width=0.05),
    "residual": ConvNet((3, 16, 16), ((8, 8, 8), (8, 8)), "stride", True, "average", batch_norm=4),
    "no batch norm": VGG11(width=0.05),
}


@pytest.mark.parametrize("model", WIDE.values(), ids=WIDE)
def test_memory_stays_within_the_budget(model):
    stack, theta, x = problem(model, runs=1, examples=N)
    fixed = N * CLASSES * 8 + 2 * theta.nbytes + 8192  # outputs, a copy of θ and of filters, statistics
    whole = most(lambda: evaluation.outputs(stack, theta, x, COUNTED, 1 << 40))
    for budget in (row(stack, theta), 4 * row(stack, theta), 12 * row(stack, theta)):
        peak = most(lambda budget=budget: evaluation.outputs(stack, theta, x, COUNTED, budget))
        assert peak <= budget + fixed
        assert peak < 0.75 * whole + fixed
    widest = N * row(stack, theta) / evaluation.BUFFERS
    assert widest < whole < evaluation.WHOLE * widest + fixed  # the meter sees what there is


def test_blocks_wait_where_there_is_room(monkeypatch):
    """Passes begun: one for each block where all wait, one for each block and layer where none can."""
    stack, theta, x = problem(MODELS["MLP, batch norm"], runs=1)
    begun = []
    layerwise = MLP.layerwise

    def counting(self, theta, x, outputs):
        begun.append(x.shape[1])
        return layerwise(self, theta, x, outputs)

    monkeypatch.setattr(MLP, "layerwise", counting)
    evaluation.outputs(stack, theta, x, None, 0)
    assert begun == [1] * N * 4  # three normalizations, and the outputs
    begun.clear()
    evaluation.outputs(stack, theta, x, None, 20 * row(stack, theta))
    assert begun == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("model", [MODELS["MLP, batch norm"], ConvNet(batch_norm=4)])
def test_the_engine_evaluates_within_its_budget(model, digits, monkeypatch):
    task = Task(model=model, train_size=64)
    (stack,) = Sweep.grid(task, lr=0.1, batch_size=8, seed=range(2), until=Steps(1)).stacks()
    engine = "by hand" if isinstance(model, MLP) else "autograd"
    trainer = Trainer(stack, digits, dtype=torch.float64, engine=engine)
    for x in (None, digits.x_validation[:30].double()):
        whole = trainer.engine.outputs(trainer.theta, [1, 0], x)
        monkeypatch.setattr(evaluation, "ON_CPU", 0)
        torch.testing.assert_close(trainer.engine.outputs(trainer.theta, [1, 0], x), whole, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()
        assert whole.shape == (2, 64 if x is None else 30, 10)


def test_a_graph_that_cannot_fit_is_refused_before_any_work(monkeypatch):
    stack, theta, x = problem(VGG11(4, width=0.1))
    x, y = x.expand(2, *x.shape), torch.zeros(2, N, dtype=torch.int64)
    monkeypatch.setattr(losses, "capacity", lambda device: 10**7)
    monkeypatch.setattr(ConvNet, "forward", lambda *arguments: pytest.fail("work was begun"))
    said = r"23 examples and 2 networks takes 0\.\d+ GiB or more, .* cpu has 0\.00931 GiB; use examples=4 or fewer"
    with pytest.raises(MemoryError, match=said):
        stack.hessian_products(theta, x, y)
