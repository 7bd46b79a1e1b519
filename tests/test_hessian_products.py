"""The hand-written Hessian products, in C and in PyTorch, against automatic differentiation."""

import pytest
import torch
from threefactors.training import Steps, Trainer, kernel
from threefactors.training.losses import StackLosses

from tests.test_training import CASES, one_stack

WAYS = {"kernel": StackLosses.hessian_products, "by hand": StackLosses.stacked_products}


@pytest.fixture(scope="module", params=CASES)
def point(request, digits):
    """A stack after 20 steps, its data and three directions."""
    trainer = Trainer(one_stack(**CASES[request.param], until=Steps(20)), digits, dtype=torch.float64).train()
    x = trainer.data.x_train[:96].flatten(1).expand(6, 96, 64)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, *trainer.theta.shape, generator=generator, dtype=torch.float64)
    return trainer.losses, trainer.theta, x, trainer.labels[:, :96].contiguous(), directions


def by_autograd(losses, theta, x, y, v):
    leaf = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(leaf, x, y).mean(1).sum(), leaf, create_graph=True)
    return torch.autograd.grad((gradient * v).sum(), leaf)[0]


@pytest.mark.parametrize("way", WAYS)
def test_products_agree_with_autograd(point, way):
    if way == "kernel":
        assert kernel.available(torch.float64) == point[0].in_c(point[1])
    losses, theta, x, y, directions = point
    product = WAYS[way](losses, theta, x, y)
    for v in directions:  # several products from one linearization
        expected = by_autograd(losses, theta, x, y, v)
        torch.testing.assert_close(product(v), expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("way", WAYS)
def test_linear_and_symmetric(point, way):
    losses, theta, x, y, (u, v, w) = point
    product = WAYS[way](losses, theta, x, y)
    torch.testing.assert_close(product(u + 2 * v), product(u) + 2 * product(v), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close((product(u) * w).sum(1), (u * product(w)).sum(1), rtol=1e-9, atol=1e-9)


def test_a_run_is_the_same_alone_and_with_any_number_of_threads(point):
    losses, theta, x, y, (v, *_) = point
    together = losses.hessian_products(theta, x, y)(v)
    alone = losses.hessian_products(theta[2:3], x[2:3], y[2:3])(v[2:3])
    assert torch.equal(alone[0], together[2])
    try:
        torch.set_num_threads(2)
        assert torch.equal(losses.hessian_products(theta, x, y)(v), together)
    finally:
        torch.set_num_threads(1)


def test_some_of_the_networks_need_no_second_linearization(point):
    losses, theta, x, y, (u, v, _) = point
    product = losses.hessian_products(theta, x, y)
    whole = product(v)
    some = product.only([4, 1])
    some(u[[4, 1]])  # what a product leaves in the workspace is of no consequence to the next
    assert torch.equal(some(v[[4, 1]]), whole[[4, 1]])
    assert torch.equal(product(v), whole)


def test_without_a_compiler_the_same_products(point, monkeypatch):
    losses, theta, x, y, (v, *_) = point
    fast = losses.hessian_products(theta, x, y)(v)
    monkeypatch.setattr(kernel, "available", lambda dtype: False)
    torch.testing.assert_close(losses.hessian_products(theta, x, y)(v), fast, rtol=1e-10, atol=1e-11)
