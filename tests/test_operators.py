"""Operators: closed forms, dense oracles, an independent library, invariances, planted bugs."""

import gc
import weakref

import pytest
import torch
from threefactors.measurement import StackOperator, gauss_newton, gradient_covariance, hessian
from torch import nn
from torch.func import functional_call, vmap

from tests.cases import ALIGNED, CASES, MLP, case, cross_entropy
from tests.oracles import (
    dense_gauss_newton,
    dense_gradient_covariance,
    dense_hessian,
    per_example_gradients,
    relative_error,
)

OPERATORS = [hessian, gauss_newton, gradient_covariance]
ORACLES = {
    hessian: dense_hessian,
    gauss_newton: dense_gauss_newton,
    gradient_covariance: dense_gradient_covariance,
}
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda f: f.__name__)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
LINEAR, SOFTMAX, TANH, RELU = CASES[:4]


def vectors(case, V=2):
    g = torch.Generator().manual_seed(1)
    return torch.randn(*case.theta.shape, V, generator=g, dtype=torch.float64)


# Closed forms


def test_hessian_of_linear_regression_is_the_second_moment_of_its_inputs():
    x = LINEAR.x
    assert relative_error(hessian(*LINEAR.args).dense(), x.mT @ x / x.shape[1]) < 1e-14


def test_covariance_of_linear_regression_is_that_of_residual_times_input():
    gradients = (LINEAR.losses.outputs(LINEAR.theta, LINEAR.x)[..., 0] - LINEAR.y)[..., None] * LINEAR.x
    centered = gradients - gradients.mean(1, keepdim=True)
    expected = centered.mT @ centered / gradients.shape[1]
    assert relative_error(gradient_covariance(*LINEAR.args).dense(), expected) < 1e-13


def test_gauss_newton_is_the_hessian_where_outputs_are_linear_in_theta():
    v = vectors(SOFTMAX)
    assert relative_error(gauss_newton(*SOFTMAX.args) @ v, hessian(*SOFTMAX.args) @ v) < 1e-13


def test_loss_linear_in_theta_has_no_curvature():
    linear = MLP((3, 1), criterion=lambda outputs, y: outputs[..., 0])
    flat = case("linear loss", linear)
    for operator in (hessian, gauss_newton):
        assert torch.equal(operator(*flat.args).dense(), torch.zeros(3, 4, 4, dtype=torch.float64))


# Dense oracles


@each_case
@each_operator
def test_products_equal_the_dense_oracle(operator, case):
    exact = ORACLES[operator](*case.args)
    v = vectors(case)
    op = operator(*case.args)
    assert op.shape == case.theta.shape
    assert relative_error(op @ v, exact @ v) < 1e-10
    assert relative_error(op @ v[..., 0], (exact @ v)[..., 0]) < 1e-10
    assert relative_error(op.dense(), exact) < 1e-10


def test_oracles_notice_planted_bugs():
    losses, theta, x, y = TANH.args
    B = y.shape[1]
    v = vectors(TANH)
    exact = {operator: oracle(*TANH.args) @ v for operator, oracle in ORACLES.items()}

    summed = hessian(lambda t, x, y: B * losses(t, x, y), theta, x, y)
    assert relative_error(summed @ v, exact[hessian]) > 1e-2
    g = per_example_gradients(*TANH.args)
    assert relative_error(g.mT @ (g @ v) / B, exact[gradient_covariance]) > 1e-2  # not centered
    centered = g - g.mean(1, keepdim=True)
    assert relative_error(centered.mT @ (centered @ v) / (B - 1), exact[gradient_covariance]) > 1e-2
    assert relative_error(centered.mT @ (centered @ v) / B, exact[gradient_covariance]) < 1e-13
    assert relative_error(hessian(*TANH.args) @ v, exact[gauss_newton]) > 1e-2
    assert relative_error(hessian(losses, theta.roll(1, 0), x, y) @ v, exact[hessian]) > 1e-2


def test_curvlinops_agrees():
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    parameters = dict(model.named_parameters())
    x, y = torch.randn(13, 4, dtype=torch.float64), torch.randint(3, (13,))

    class Losses:
        criterion = staticmethod(cross_entropy)

        def outputs(self, theta, x):
            def one(theta, x):
                parts = theta.split([p.numel() for p in parameters.values()])
                named = {k: t.view(p.shape) for (k, p), t in zip(parameters.items(), parts, strict=True)}
                return functional_call(model, named, x)

            return vmap(one)(theta, x)

        def __call__(self, theta, x, y):
            return self.criterion(self.outputs(theta, x), y)

    theta = nn.utils.parameters_to_vector(parameters.values()).detach()[None]
    v = torch.randn_like(theta)
    for ours, theirs in ((hessian, HessianLinearOperator), (gauss_newton, GGNLinearOperator)):
        op = theirs(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)])
        assert relative_error((ours(Losses(), theta, x[None], y[None]) @ v)[0], op @ v[0]) < 1e-10


# Invariances


@pytest.mark.parametrize("case", ALIGNED, ids=lambda c: c.name)
@each_operator
def test_a_run_is_the_same_alone_and_in_any_stack(operator, case):
    v = vectors(case)
    R = len(case.theta)
    whole = operator(*case.args) @ v
    for i in range(R):
        assert torch.equal(whole[i], (operator(*case.run(i)) @ v[i : i + 1])[0])
    order = torch.arange(R).flip(0)
    assert torch.equal(whole[order], operator(*case.run(*order.tolist())) @ v[order])
    for chunk in (1, 2, 5):
        assert torch.equal(whole, operator(*case.args, chunk=chunk) @ v)


def test_operators_see_no_gradient_mode_and_leave_no_gradient():
    theta = TANH.theta.clone().requires_grad_()
    for operator in OPERATORS:
        op = operator(TANH.losses, theta, TANH.x, TANH.y)
        with torch.no_grad():
            quiet = op @ vectors(TANH)
        loud = op @ vectors(TANH)
        assert torch.equal(quiet, loud)
        assert not loud.requires_grad
        assert theta.grad is None
        assert theta.requires_grad


def test_graphs_of_no_more_runs_than_a_chunk_live_at_once():
    alive, most = weakref.WeakSet(), []

    class Watched(MLP):
        def outputs(self, theta, x):
            alive.add(theta)
            most.append(sum(len(t) for t in alive))
            return super().outputs(theta, x)

    watched = case("watched", Watched((4, 5, 3), torch.tanh), R=7)
    gc.disable()  # reference counting alone must free them
    try:
        for operator in OPERATORS:
            operator(*watched.args, chunk=2) @ vectors(watched)
            assert not alive
    finally:
        gc.enable()
    assert max(most) == 2


# The operator as a matrix


def test_handwritten_products_are_used_where_there_are_some():
    class Doubled(MLP):
        def hessian_products(self, theta, x, y):
            return lambda v: 2 * v

    op = hessian(Doubled((4, 5, 3)), *TANH.args[1:])
    assert torch.equal(op.dense(), 2 * torch.eye(TANH.theta.shape[1], dtype=torch.float64).expand(3, -1, -1))


def test_one_linearization_serves_while_no_other_run_is_asked_for():
    linearized = []

    class Multiples:
        """θ_i0 v for each run i; can be taken apart."""

        def __init__(self, factors):
            self.factors = factors

        def __call__(self, v):
            return self.factors[:, None] * v

        def only(self, places):
            return Multiples(self.factors[places])

    class Apart(MLP):
        def hessian_products(self, theta, x, y):
            linearized.append(theta[:, 0].tolist())
            return Multiples(theta[:, 0])

    _, theta, x, y = TANH.args
    op, v = hessian(Apart((4, 5, 3)), theta, x, y), torch.ones_like(theta)
    for wanted in ([0, 1, 2], [2, 0], [1], [1, 2], [0]):
        for factor in (1, 2):
            product = op.scaled(v * factor).rows(torch.tensor(wanted)).product()
            assert torch.equal(product(v[wanted]), factor**2 * theta[wanted, :1] * v[wanted])
    assert linearized == [theta[:, 0].tolist()]
    op = hessian(Apart((4, 5, 3)), theta, x, y)
    for wanted in ([0], [1], [0, 1], [0]):  # what is not in the last linearization needs another one
        assert torch.equal(op.rows(torch.tensor(wanted)).product()(v[wanted]), theta[wanted, :1] * v[wanted])
    assert linearized[1:] == [theta[some, 0].tolist() for some in ([0], [1], [0, 1])]


def test_rows_scaled_and_dense_are_those_of_the_matrices():
    g = torch.Generator().manual_seed(2)
    a = torch.randn(5, 4, 4, generator=g, dtype=torch.float64)
    a = a + a.mT
    d = torch.rand(5, 4, generator=g, dtype=torch.float64)
    op = StackOperator.from_dense(a, chunk=2)
    index = torch.tensor([4, 1, 3])
    assert torch.equal(op.dense(), a)
    assert torch.equal(op.rows(index).dense(), a[index])
    assert torch.equal(op.rows(index).rows(torch.tensor([2])).dense(), a[[3]])
    assert relative_error(op.scaled(d).rows(index).dense(), (d[:, :, None] * a * d[:, None, :])[index]) < 1e-15
    assert [rows.tolist() for rows, _ in op.chunks()] == [[0, 1], [2, 3], [4]]


def test_float32_and_data_shared_by_stride_zero():
    losses, theta, x, y = RELU.args
    assert x.stride(0) == 0
    exact = dense_hessian(*RELU.args)
    op = hessian(losses, theta.float(), x.float(), y)
    assert op.dtype == torch.float32
    assert relative_error(op.dense().double(), exact) < 1e-5
    assert torch.equal(hessian(*RELU.args).dense(), hessian(losses, theta, x.contiguous(), y).dense())


def test_errors_name_value_bound_and_remedy():
    losses, theta, x, y = TANH.args
    with pytest.raises(ValueError, match=r"x has shape \(2, 11, 4\).*R = 3"):
        hessian(losses, theta, x[:2], y)
    with pytest.raises(ValueError, match=r"y \(3, 10\)"):
        gradient_covariance(losses, theta, x, y[:, :10])
    with pytest.raises(ValueError, match=r"B=0.*use B >= 1"):
        hessian(losses, theta, x[:, :0], y[:, :0])
    with pytest.raises(ValueError, match=r"chunk=0.*use chunk >= 1"):
        gauss_newton(losses, theta, x, y, chunk=0)
    with pytest.raises(ValueError, match=r"theta has shape \(43,\)"):
        hessian(losses, theta[0], x, y)
    with pytest.raises(ValueError, match=r"v has shape \(3, 4\)"):
        hessian(losses, theta, x, y) @ torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"d has shape \(3,\)"):
        hessian(losses, theta, x, y).scaled(torch.ones(3))
    with pytest.raises(ValueError, match=r"use \(R, P, P\)"):
        StackOperator.from_dense(torch.ones(2, 3))
