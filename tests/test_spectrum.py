"""Spectral density: quadrature identities, convergence to the dense spectrum, independence of runs."""

import pytest
import torch
from threefactors.measurement import StackOperator, hessian, spectral_density

from tests.cases import ALIGNED, CASES
from tests.oracles import dense_hessian

TANH, RELU = CASES[2], CASES[3]


def generators(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


def test_moments_of_the_quadrature_are_those_of_its_start_vectors():
    A = dense_hessian(*TANH.args)
    R, P = TANH.theta.shape
    found = spectral_density(hessian(*TANH.args), steps=4, probes=3, generators=generators(*range(R)))
    for i, g in enumerate(generators(*range(R))):
        v = torch.stack([2.0 * torch.randint(2, (P,), generator=g) - 1 for _ in range(3)]).double()
        for k in range(8):  # exact up to degree 2m − 1 = 7
            exact = ((v @ torch.linalg.matrix_power(A[i], k)) * v).sum(1).mean() / P
            torch.testing.assert_close(found.moment(k)[i], exact, rtol=1e-10, atol=1e-14)
        beyond = ((v @ torch.linalg.matrix_power(A[i], 8)) * v).sum(1).mean() / P
        assert abs(found.moment(8)[i] / beyond - 1) > 1e-8


def test_weights_are_a_probability():
    found = spectral_density(hessian(*RELU.args), steps=10, probes=5, generators=generators(0, 1))
    assert found.nodes.shape == found.weights.shape == (2, 5, 10)
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(2), torch.ones(2, 5, dtype=torch.float64))
    grid = torch.linspace(-20, 20, 4001)
    area = found.density(grid, width=0.1).sum(1) * 0.01
    torch.testing.assert_close(area, torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=0)


def test_density_converges_to_the_dense_spectrum():
    A = dense_hessian(*RELU.args)
    op, eigenvalues = StackOperator.from_dense(A), torch.linalg.eigvalsh(A)
    grid = torch.linspace(-1, 4, 200, dtype=torch.float64)
    width = 0.1
    z = (grid[None, :, None] - eigenvalues[:, None, :]) / width
    exact = torch.exp(-z * z / 2).mean(2) / (width * (2 * torch.pi) ** 0.5)

    def error(steps, probes):
        found = spectral_density(op, steps=steps, probes=probes, generators=generators(0, 1))
        return float((found.density(grid, width) - exact).abs().sum() / exact.abs().sum())

    few, more, many = error(15, 2), error(15, 32), error(15, 250)
    assert many < more < few
    assert many < 0.03


def test_a_diagonal_matrix_is_exact_with_one_probe():
    # Signs give every eigenvector of a diagonal matrix the same weight 1/P.
    eigenvalues = torch.tensor([[-1.0, 0.0, 2.0, 2.0, 5.0]], dtype=torch.float64)
    op = StackOperator.from_dense(torch.diag_embed(eigenvalues))
    found = spectral_density(op, steps=9, probes=1, generators=generators(0))
    for k in range(6):
        torch.testing.assert_close(found.moment(k), (eigenvalues**k).mean(1))
    for value, mass in ((-1.0, 0.2), (0.0, 0.2), (2.0, 0.4), (5.0, 0.2)):
        near = (found.nodes - value).abs() < 1e-9
        torch.testing.assert_close(float((found.weights * near).sum()), mass)


def test_a_run_is_the_same_alone_and_in_any_stack():
    for case in ALIGNED:
        R = len(case.theta)
        whole = spectral_density(hessian(*case.args), steps=6, probes=2, generators=generators(*range(R)))
        chunked = spectral_density(hessian(*case.args, chunk=1), steps=6, probes=2, generators=generators(*range(R)))
        assert torch.equal(whole.nodes, chunked.nodes)
        for i in range(R):
            alone = spectral_density(hessian(*case.run(i)), steps=6, probes=2, generators=generators(i))
            assert torch.equal(whole.nodes[i], alone.nodes[0])
            assert torch.equal(whole.weights[i], alone.weights[0])


def test_a_diverged_run_is_nan_and_spares_its_neighbors():
    losses, theta, x, y = TANH.args
    broken = theta.clone()
    broken[0] = torch.nan
    found = spectral_density(hessian(losses, broken, x, y), steps=5, probes=2, generators=generators(0, 1, 2))
    healthy = spectral_density(hessian(losses, theta, x, y), steps=5, probes=2, generators=generators(0, 1, 2))
    assert found.nodes[0].isnan().all()
    assert torch.equal(found.nodes[1:], healthy.nodes[1:])


def test_errors_name_value_bound_and_remedy():
    op = hessian(*TANH.args)
    for steps, probes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"steps={steps} and probes={probes}; use at least 1"):
            spectral_density(op, steps=steps, probes=probes, generators=generators(0, 1, 2))
    with pytest.raises(ValueError, match="2 generators for 3 runs"):
        spectral_density(op, steps=1, probes=1, generators=generators(0, 1))
    found = spectral_density(op, steps=2, probes=1, generators=generators(0, 1, 2))
    with pytest.raises(ValueError, match="width=0"):
        found.density(torch.zeros(1), width=0)
