"""Trace and Frobenius norm: unbiased, with honest standard errors."""

import math

import pytest
import torch
from threefactors.measurement import (
    StackOperator,
    frobenius_squared,
    gradient_covariance,
    hessian,
    moments,
    trace,
)

from tests.cases import ALIGNED, CASES
from tests.oracles import dense_gradient_covariance, dense_hessian

SEEDS = 200
LINEAR, SOFTMAX, TANH, RELU = CASES[:4]


def generators(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


def decaying(P=120, seed=0):
    """A matrix like a Hessian: few large eigenvalues, a long tail, some of it negative."""
    g = torch.Generator().manual_seed(seed)
    values = 1 / torch.arange(1, P + 1, dtype=torch.float64) ** 1.2
    values[2::3] *= -0.3
    Q, _ = torch.linalg.qr(torch.randn(P, P, generator=g, dtype=torch.float64))
    return Q @ (values[:, None] * Q.T)


def over_seeds(A, probes):
    """Estimates of one matrix by many seeds at once: each seed is a run."""
    op = StackOperator.from_dense(A.expand(SEEDS, *A.shape), chunk=50)
    return moments(op, probes=probes, generators=generators(*range(SEEDS)))


@pytest.mark.parametrize("probes", [40, 60])
@pytest.mark.parametrize("matrix", ["hessian", "decaying"])
def test_unbiased_with_honest_standard_errors(matrix, probes):
    A = decaying() if matrix == "decaying" else dense_hessian(*RELU.args)[0]
    for estimate, exact in zip(over_seeds(A, probes), (A.trace(), (A**2).sum()), strict=True):
        errors = estimate.value - exact
        spread = errors.std()
        assert abs(errors.mean()) < 3.5 * spread / math.sqrt(SEEDS)
        assert 0.85 < estimate.stderr.pow(2).mean().sqrt() / spread < 1.15
        # 95 % interval of Student's t: the error itself is estimated from n samples.
        t = {20: 2.093, 30: 2.045}[estimate.n]
        covered = (errors.abs() < t * estimate.stderr).double().mean()
        assert 0.90 <= covered <= 0.99
        assert estimate.n == probes - probes // 2


def test_calibration_notices_planted_bugs():
    A = decaying()
    estimate, _ = over_seeds(A, 24)
    errors = estimate.value - A.trace()
    too_small = estimate.stderr / math.sqrt(estimate.n)  # divided twice
    assert (errors.abs() < 2.201 * too_small).double().mean() < 0.90
    biased = errors - A.trace() / 20  # a bias of 5 %
    assert abs(biased.mean()) > 3.5 * errors.std() / math.sqrt(SEEDS)


def test_lanczos_beats_probes_alone_at_equal_products():
    A = decaying()
    probes = 24
    signs = 2.0 * torch.randint(2, (SEEDS, len(A), probes), generator=generators(0)[0]).double() - 1
    images = A @ signs
    plain = ((signs * images).sum(1).mean(1), (images**2).sum(1).mean(1))
    for estimate, alone, exact in zip(over_seeds(A, probes), plain, (A.trace(), (A**2).sum()), strict=True):
        assert (estimate.value - exact).std() < 0.5 * (alone - exact).std()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_exact_once_the_basis_is_complete(case):
    R, P = case.theta.shape
    for operator, oracle in ((hessian, dense_hessian), (gradient_covariance, dense_gradient_covariance)):
        A = oracle(*case.args)
        tr, square = moments(operator(*case.args), probes=2 * P + 2, generators=generators(*range(R)))
        torch.testing.assert_close(tr.value, torch.einsum("rii->r", A), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(square.value, (A**2).sum((1, 2)), rtol=1e-9, atol=1e-12)
        assert (tr.stderr < 1e-10).all()


def test_two_probes_are_hutchinson():
    A = dense_hessian(*TANH.args)
    tr, square = moments(hessian(*TANH.args), probes=2, generators=generators(0, 1, 2))
    for i, g in enumerate(generators(0, 1, 2)):
        torch.randint(2, (A.shape[1],), generator=g)  # the start vector
        v = torch.stack([2.0 * torch.randint(2, (A.shape[1],), generator=g) - 1 for _ in range(2)]).double()
        traces, squares = ((v @ A[i]) * v).sum(1), ((v @ A[i]) ** 2).sum(1)
        torch.testing.assert_close(tr.value[i], traces.mean())
        torch.testing.assert_close(tr.stderr[i], (traces[0] - traces[1]).abs() / 2)
        torch.testing.assert_close(square.value[i], squares.mean())


def test_zero_and_scalar_matrices():
    for A in (torch.zeros(2, 5, 5), torch.full((1, 1, 1), 3.0), 2 * torch.eye(4).expand(3, 4, 4)):
        op = StackOperator.from_dense(A.double())
        for probes in (2, 8):  # signs alone, and a complete basis
            tr, square = moments(op, probes=probes, generators=generators(*range(len(A))))
            torch.testing.assert_close(tr.value, torch.einsum("rii->r", A).double())
            torch.testing.assert_close(square.value, (A**2).sum((1, 2)).double())


def test_a_run_is_the_same_alone_and_in_any_stack():
    for case in ALIGNED:
        R = len(case.theta)
        whole = moments(hessian(*case.args), probes=9, generators=generators(*range(R)))
        chunked = moments(hessian(*case.args, chunk=1), probes=9, generators=generators(*range(R)))
        order = list(range(R))[::-1]
        turned = moments(hessian(*case.run(*order)), probes=9, generators=generators(*order))
        for i in range(R):
            alone = moments(hessian(*case.run(i)), probes=9, generators=generators(i))
            for a, b, c, d in zip(whole, chunked, turned, alone, strict=True):
                for name in ("value", "stderr"):
                    mine = getattr(a, name)[i]
                    assert torch.equal(mine, getattr(b, name)[i])
                    assert torch.equal(mine, getattr(c, name)[order.index(i)])
                    assert torch.equal(mine, getattr(d, name)[0])


def test_trace_and_frobenius_are_the_moments():
    op = hessian(*SOFTMAX.args)
    both = moments(op, probes=6, generators=generators(0, 1, 2))
    assert torch.equal(both[0].value, trace(op, probes=6, generators=generators(0, 1, 2)).value)
    assert torch.equal(both[1].value, frobenius_squared(op, probes=6, generators=generators(0, 1, 2)).value)


def test_a_diverged_run_is_nan_and_spares_its_neighbors():
    losses, theta, x, y = TANH.args
    broken = theta.clone()
    broken[1] = torch.nan
    found = moments(hessian(losses, broken, x, y), probes=8, generators=generators(0, 1, 2))
    healthy = moments(hessian(losses, theta, x, y), probes=8, generators=generators(0, 1, 2))
    for a, b in zip(found, healthy, strict=True):
        assert a.value.isnan().tolist() == [False, True, False]
        assert torch.equal(a.value[[0, 2]], b.value[[0, 2]])


def test_errors_name_value_bound_and_remedy():
    op = hessian(*LINEAR.args)
    with pytest.raises(ValueError, match="probes=1 gives no standard error; use probes >= 2"):
        trace(op, probes=1, generators=generators(0, 1, 2))
    with pytest.raises(ValueError, match="2 generators for 3 runs"):
        moments(op, probes=8, generators=generators(0, 1))
