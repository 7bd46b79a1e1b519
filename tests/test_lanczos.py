"""Lanczos: the dense spectrum, honest convergence, breakdowns, and independence of runs."""

import pytest
import torch
from threefactors.measurement import (
    StackOperator,
    adaptive_sharpness,
    gauss_newton,
    hessian,
    normalized_sharpness,
    top_eigenvalues,
)

from tests.cases import ALIGNED, CASES, MLP, case
from tests.oracles import dense_gauss_newton, dense_hessian

each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
TANH, RELU = CASES[2], CASES[3]


def generators(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


def symmetric(eigenvalues, R=1, seed=0):
    """R matrices with the given eigenvalues and random eigenvectors."""
    g = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    Q, _ = torch.linalg.qr(torch.randn(R, len(values), len(values), generator=g, dtype=torch.float64))
    return Q @ (values[:, None] * Q.mT)


@each_case
def test_top_eigenvalues_are_those_of_the_dense_hessian(case):
    exact = torch.linalg.eigvalsh(dense_hessian(*case.args)).flip(-1)[:, :3]
    found = top_eigenvalues(hessian(*case.args), 3, tol=1e-4, generators=generators(*range(len(exact))))
    assert found.converged.all()
    torch.testing.assert_close(found.values, exact, rtol=1e-6, atol=0)


@each_case
def test_residuals_and_vectors_are_those_of_the_pairs(case):
    R = len(case.theta)
    A = dense_hessian(*case.args)
    found = top_eigenvalues(hessian(*case.args), 2, tol=1e-2, generators=generators(*range(R)))
    residuals = torch.linalg.vector_norm(A @ found.vectors - found.vectors * found.values[:, None], dim=1)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-5, atol=1e-12)
    gram = found.vectors.mT @ found.vectors
    torch.testing.assert_close(gram, torch.eye(2, dtype=gram.dtype).expand_as(gram), rtol=0, atol=1e-12)
    assert (found.residuals <= 1e-2 * found.values[:, :1].abs()).all()
    assert found.converged.all()


def test_tolerance_bounds_the_error_of_a_wide_spectrum():
    eigenvalues = torch.cat([torch.tensor([9.0, 5.0, 4.0]), torch.linspace(-1, 1, 197)])
    op = StackOperator.from_dense(symmetric(eigenvalues, R=3))
    coarse = top_eigenvalues(op, 3, tol=1e-2, generators=generators(0, 1, 2))
    fine = top_eigenvalues(op, 3, tol=1e-8, generators=generators(0, 1, 2))
    for found, error in ((coarse, 1e-3), (fine, 1e-13)):
        assert found.converged.all()
        torch.testing.assert_close(found.values, eigenvalues[:3].double().expand(3, 3), rtol=error, atol=0)
    assert (coarse.products < fine.products).all()
    assert (fine.products < 100).all()


def test_largest_means_algebraically_largest():
    op = StackOperator.from_dense(symmetric([-7.0, -3.0, -2.0, 0.5, 1.0, 1.5]))
    found = top_eigenvalues(op, 2, generators=generators(0))
    torch.testing.assert_close(found.values, torch.tensor([[1.5, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("method", ["runs", "stacked"])
@pytest.mark.parametrize(
    "eigenvalues",
    [
        [0.0] * 6,
        [0.0] * 5 + [-2.0],
        [3.0] + [0.0] * 9,
        [3.0] + [0.0] * 30,
        [5.0, 5.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        [7.0] * 3 + [-1.0] * 14,
        [2.0] * 5,
        [4.0],
        [1.0, -1.0],
    ],
    ids=str,
)
def test_breakdowns_are_exact_and_keep_multiple_eigenvalues(eigenvalues, method):
    exact = torch.tensor(sorted(eigenvalues, reverse=True), dtype=torch.float64)
    op = StackOperator.from_dense(symmetric(eigenvalues, R=2))
    for k in range(1, min(len(exact), 10) + 1):
        found = top_eigenvalues(op, k, generators=generators(0, 1), method=method)
        assert found.converged.all()
        torch.testing.assert_close(found.values, exact[:k].expand(2, k), rtol=1e-12, atol=1e-12)


def test_few_examples_make_a_low_rank_gauss_newton_and_an_early_end():
    losses, theta, x, y = RELU.args
    few = (losses, theta, x[:, :2], y[:, :2])
    exact = torch.linalg.eigvalsh(dense_gauss_newton(*few)).flip(-1)[:, :6]
    found = top_eigenvalues(gauss_newton(*few), 6, tol=1e-9, generators=generators(0, 1))
    assert found.converged.all()
    assert (found.products < theta.shape[1] // 2).all()  # rank is at most 4
    torch.testing.assert_close(found.values, exact, rtol=1e-9, atol=1e-12)


def test_unconverged_is_said():
    op = StackOperator.from_dense(symmetric(torch.linspace(0, 1, 200)))
    found = top_eigenvalues(op, tol=1e-6, max_products=10, generators=generators(0))
    assert not found.converged.any()
    assert found.products.tolist() == [10]
    assert found.residuals[0, 0] > 1e-6 * found.values[0, 0]
    assert top_eigenvalues(op, tol=1e-6, generators=generators(0)).converged.all()


def test_a_diverged_run_is_nan_and_spares_its_neighbors():
    losses, theta, x, y = TANH.args
    broken = theta.clone()
    broken[1] = torch.inf
    found = top_eigenvalues(hessian(losses, broken, x, y), 2, generators=generators(0, 1, 2))
    healthy = top_eigenvalues(hessian(losses, theta, x, y), 2, generators=generators(0, 1, 2))
    assert found.converged.tolist() == [True, False, True]
    assert found.values[1].isnan().all()
    assert found.vectors[1].isnan().all()
    assert torch.equal(found.values[[0, 2]], healthy.values[[0, 2]])


@pytest.mark.parametrize("case", ALIGNED, ids=lambda c: c.name)
def test_a_run_is_the_same_alone_and_in_any_stack(case):
    R = len(case.theta)
    whole = top_eigenvalues(hessian(*case.args), 2, generators=generators(*range(R)))
    for chunk in (1, 2):
        chunked = top_eigenvalues(hessian(*case.args, chunk=chunk), 2, generators=generators(*range(R)))
        assert torch.equal(whole.values, chunked.values)
        assert torch.equal(whole.vectors, chunked.vectors)
    order = list(range(R))[::-1]
    turned = top_eigenvalues(hessian(*case.run(*order)), 2, generators=generators(*order))
    for i in range(R):
        alone = top_eigenvalues(hessian(*case.run(i)), 2, generators=generators(i))
        for name in ("values", "vectors", "residuals", "products", "converged"):
            assert torch.equal(getattr(whole, name)[i], getattr(alone, name)[0]), name
            assert torch.equal(getattr(whole, name)[i], getattr(turned, name)[order.index(i)]), name


def test_converged_runs_leave_the_working_set():
    easy, hard = [9.0] + [0.0] * 299, torch.linspace(0, 1, 300)
    a = torch.cat([symmetric(easy), symmetric(hard)])
    rows_multiplied = []

    def linearize(rows):
        product = StackOperator.from_dense(a).linearize(rows)
        return lambda v: (rows_multiplied.extend(rows.tolist()), product(v))[1]

    op = StackOperator((2, 300), a.dtype, a.device, linearize)
    found = top_eigenvalues(op, generators=generators(0, 1))
    assert found.converged.all()
    assert [rows_multiplied.count(i) for i in (0, 1)] == found.products.tolist()
    assert found.products[0] < 5 < 20 < found.products[1]


def test_float32_reaches_its_tolerance():
    losses, theta, x, y = RELU.args
    exact = torch.linalg.eigvalsh(dense_hessian(*RELU.args)).flip(-1)[:, :3]
    op = hessian(losses, theta.float(), x.float(), y)
    found = top_eigenvalues(op, 3, vectors=False, generators=generators(0, 1))
    assert found.vectors is None
    assert found.converged.all()
    torch.testing.assert_close(found.values, exact, rtol=1e-4, atol=0)


def test_errors_name_value_bound_and_remedy():
    op = StackOperator.from_dense(symmetric([1.0, 2.0, 3.0], R=2))
    two = generators(0, 1)
    with pytest.raises(ValueError, match="k=4 eigenvalues of a 3 × 3 matrix; use 1 <= k <= 3"):
        top_eigenvalues(op, 4, generators=two)
    with pytest.raises(ValueError, match="k=0"):
        top_eigenvalues(op, 0, generators=two)
    for tol in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="use a finite tol > 0"):
            top_eigenvalues(op, tol=tol, generators=two)
    with pytest.raises(ValueError, match="max_products=3 is too few for k=2; use max_products >= 4"):
        top_eigenvalues(op, 2, max_products=3, generators=two)
    with pytest.raises(ValueError, match="1 generators for 2 runs"):
        top_eigenvalues(op, generators=two[:1])
    with pytest.raises(ValueError, match="one generator twice"):
        top_eigenvalues(op, generators=[two[0], two[0]])


# Sharpness under rescaling


def sharpness(losses, theta, x, y):
    op, seeds = hessian(losses, theta, x, y), range(len(theta))
    raw = top_eigenvalues(op, tol=1e-9, generators=generators(*seeds)).values[:, 0]
    adaptive = adaptive_sharpness(op, theta, tol=1e-9, generators=generators(*seeds)).values[:, 0]
    return raw, adaptive, normalized_sharpness(theta, raw)


def test_adaptive_sharpness_alone_survives_rescaling_relu_layers():
    two_layers = case("two layers", MLP((4, 6, 3)))
    losses, theta, x, y = two_layers.args
    alpha = 3.0
    first = 4 * 6 + 6
    scales = torch.ones(theta.shape[1], dtype=torch.float64)
    scales[:first] = alpha
    scales[first : first + 6 * 3] = 1 / alpha
    torch.testing.assert_close(losses(theta * scales, x, y), losses(theta, x, y))
    before, after = sharpness(losses, theta, x, y), sharpness(losses, theta * scales, x, y)
    torch.testing.assert_close(after[1], before[1], rtol=1e-9, atol=0)
    for raw in (0, 2):
        assert ((after[raw] / before[raw] - 1).abs() > 0.1).all()
    H = dense_hessian(*two_layers.args)
    exact = torch.linalg.eigvalsh(theta.abs()[:, :, None] * H * theta.abs()[:, None, :])[:, -1]
    torch.testing.assert_close(before[1], exact, rtol=1e-9, atol=0)


def test_normalized_sharpness_survives_the_scale_of_a_scale_invariant_loss():
    class OnSphere:
        def __call__(self, theta, x, y):
            return TANH.losses(theta / torch.linalg.vector_norm(theta, dim=1, keepdim=True) * 4, x, y)

    _, theta, x, y = TANH.args
    before, after = sharpness(OnSphere(), theta, x, y), sharpness(OnSphere(), 3 * theta, x, y)
    torch.testing.assert_close(after[0], before[0] / 9, rtol=1e-9, atol=0)
    torch.testing.assert_close(after[1:], before[1:], rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="use one per run"):
        normalized_sharpness(theta, torch.ones(2))
