"""Hessian products in plain PyTorch: one launch on buffers that stay, and the memory they are planned by."""

import gc
import weakref

import pytest
import torch
from threefactors.measurement import hessian, top_eigenvalues
from threefactors.training import products
from threefactors.training.convolution import ConvNet
from threefactors.training.losses import BUDGET, StackLosses
from threefactors.training.models import MLP
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tests.no_looks import Tape

SHAPES = {
    "plain": (MLP((64, 64, 64)), 64, 300),
    "batch norm": (MLP((64, 64, 64), 8), 64, 300),
    "deep": (MLP((50,) * 20, 8), 64, 100),
    "narrowing": (MLP((200, 20), 8), 64, 200),
    "widening": (MLP((20, 200), 8), 64, 200),
    "linear": (MLP(()), 64, 300),
    "many inputs": (MLP((32,), 8), 784, 300),
}
NETS = {
    "convolutional": (ConvNet((1, 8, 8), ((4,), (6, 5)), hidden=(7,)), 64, 60),
    "convolutional, batch norm": (ConvNet((1, 8, 8), ((8,), (16,)), batch_norm=4), 64, 60),
}


def networks(model, inputs, examples, runs=3, dtype=torch.float32):
    """Losses, θ, shared x, and y of each run."""
    g = torch.Generator().manual_seed(0)
    theta = torch.stack([model.initial(inputs, 10, g, dtype) for _ in range(runs)])
    x = torch.randn(examples, inputs, generator=g, dtype=dtype).expand(runs, examples, inputs)
    y = torch.randint(10, (runs, examples), generator=g)
    return StackLosses(model, "cross-entropy", inputs, 10), theta, x, y


class Live(TorchDispatchMode):
    """Bytes of all storages that were made while it is on: those alive, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.bytes, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for t in tree_iter(made):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.known:
                self._count(t.untyped_storage())
        return made

    def _count(self, storage):
        self.known.add(storage._cdata)
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, name, size):
        self.known.discard(name)
        self.bytes -= size


def test_the_meter_sees_what_lives_and_what_died():
    with Live() as live:
        a = torch.empty(1000)
        b = a.view(10, 100)
        (a + 1).add_(1)
        a + 2
    assert (live.bytes, live.peak) == (4000, 8000)
    del a, b
    assert live.bytes == 0


@pytest.mark.parametrize("shape", SHAPES | NETS)
def test_memory_is_what_is_planned_for(shape):
    model, inputs, examples = (SHAPES | NETS)[shape]
    losses, theta, x, y = networks(model, inputs, examples)
    with Live() as live:
        way = losses.stacked_products if shape in SHAPES else losses.differentiated_products
        product = way(theta, x, y)
        for _ in range(3):
            product(torch.ones_like(theta))
    planned = 3 * losses.curvature_bytes(examples, theta.dtype)
    assert live.peak <= planned <= (1.5 if shape in SHAPES else 2.1) * live.peak


def test_plans_grow_with_examples_and_precision():
    losses, *_ = networks(*SHAPES["plain"])
    once = losses.curvature_bytes(1000, torch.float32)
    assert losses.curvature_bytes(1000, torch.float64) == 2 * once
    assert 1.9 < losses.curvature_bytes(2000, torch.float32) / once < 2
    for name, bounded in (("convolutional", True), ("convolutional, batch norm", False)):
        each = networks(*NETS[name])[0].curvature_bytes(10**7, torch.float32)
        assert (each < 1.1 * BUDGET) == bounded  # without batch norm, examples are taken in blocks


@pytest.mark.parametrize("shape", ["plain", "batch norm", "linear"])
def test_every_product_does_the_same_work(shape, monkeypatch):
    """A launch repeats what was recorded: the same operations on the same memory, whatever came before."""
    calls = []

    class Recorder(products.Launch):
        def __call__(self):
            with Operations() as seen:
                super().__call__()
            calls.append(seen.names)

    monkeypatch.setattr(products, "Launch", Recorder)
    losses, theta, x, y = networks(*SHAPES[shape], dtype=torch.float64)
    product = losses.stacked_products(theta, x, y)
    u, v = torch.randn(2, *theta.shape, generator=torch.Generator().manual_seed(1), dtype=theta.dtype)
    first, second = product(u), product(v)
    kept = first.clone()
    assert torch.equal(product(u), first)
    assert torch.equal(kept, first)  # a result is the caller's own
    assert not torch.equal(first, second)
    assert calls[1] == calls[2]
    assert not any("item" in name or "local_scalar" in name or "nonzero" in name for name in calls[2])


@pytest.mark.parametrize("shape", ["plain", "batch norm", "linear"])
def test_a_product_can_be_recorded_and_repeated(shape):
    """As a CUDA graph would: the operations of one call, with the very tensors of that call, and nothing of Python."""
    losses, theta, x, y = networks(*SHAPES[shape], dtype=torch.float64)
    product = losses.stacked_products(theta, x, y)
    u, v = torch.randn(2, *theta.shape, generator=torch.Generator().manual_seed(1), dtype=theta.dtype)
    expected = [product(u), product(v)]
    with Tape() as tape:
        product._launch()
    for vector, image in zip((u, v), expected, strict=True):
        product._v.copy_(vector)
        product._image.fill_(torch.nan)
        tape.replay()
        assert torch.equal(product._image, image)


class Operations(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


def test_a_part_of_the_stack_is_linearized_by_itself_and_the_whole_not_again():
    losses, theta, x, y = networks(*SHAPES["batch norm"], dtype=torch.float64)
    product = losses.stacked_products(theta, x, y)
    v = torch.ones_like(theta)
    assert product.only([0, 1, 2]) is product
    for places in ([1], [2, 0]):
        some = product.only(places)
        torch.testing.assert_close(some(v[places]), product(v)[places], rtol=1e-12, atol=1e-14)
        assert some._at[3].stride(0) == 0 or len(places) == 1
    own = losses.stacked_products(theta, x.contiguous(), y)
    assert torch.equal(own.only([1])(v[[1]]), losses.stacked_products(theta[[1]], x[[1]], y[[1]])(v[[1]]))


def test_a_product_dies_with_its_last_name():
    losses, theta, x, y = networks(*SHAPES["plain"])
    product = losses.stacked_products(theta, x, y)
    product(torch.ones_like(theta))
    buffer = weakref.ref(product._launch)
    gc.disable()  # reference counting alone must free what a chunk took
    try:
        del product
        assert buffer() is None
    finally:
        gc.enable()


def test_lanczos_by_hand_is_lanczos_by_the_kernel():
    losses, theta, x, y = networks(*SHAPES["batch norm"], dtype=torch.float64)

    class ByHand(StackLosses):
        hessian_products = StackLosses.stacked_products

    by_hand = ByHand(losses.model, losses.loss, losses.inputs, losses.classes)
    found = [
        top_eigenvalues(
            hessian(way, theta, x, y, chunk=3), 3, tol=1e-6, method=method,
            generators=[torch.Generator().manual_seed(i) for i in range(3)],
        )
        for way, method in ((losses, "runs"), (by_hand, "stacked"))
    ]  # fmt: skip
    torch.testing.assert_close(found[1].values, found[0].values, rtol=1e-9, atol=0)
    assert found[1].converged.all()
