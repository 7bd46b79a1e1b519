"""Alignment of two matrices: closed forms, dense float64 matrices, calibration of the errors, planted bugs."""

import pytest
import torch
from threefactors.measurement import Eigenpairs, StackOperator, gauss_newton, hessian, top_eigenvalues
from threefactors.measurement.alignment import common_basis, fisher, gram, rayleigh, subspace_overlap

from tests.cases import CASES
from tests.oracles import dense_gauss_newton, dense_hessian, per_example_gradients, relative_error

SOFTMAX, TANH, RELU = CASES[1:4]
CLASSES = 3
classifiers = pytest.mark.parametrize("case", [SOFTMAX, TANH, RELU], ids=lambda c: c.name)


def generators(n, seed=0):
    return [torch.Generator().manual_seed(1000 * seed + i) for i in range(n)]


def symmetric(R=2, P=12, seed=0):
    a = torch.randn(R, P, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a + a.mT


def pairs(vectors):
    R, _, k = vectors.shape
    flags = torch.ones(R, dtype=torch.bool)
    return Eigenpairs(torch.ones(R, k), vectors, torch.zeros(R, k), torch.ones(R), flags)


def random_frames(R, P, k, seed=0):
    a = torch.randn(R, P, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(a)[0]


# Fisher


@classifiers
def test_fisher_is_the_second_moment_of_gradients_over_the_models_labels(case):
    """Against the definition: explicit gradients for every label, weighted by its probability."""
    losses, theta, x, y = case.args
    p = losses.outputs(theta, x).softmax(-1)
    exact = 0
    for c in range(CLASSES):
        g = per_example_gradients(losses, theta, x, torch.full_like(y, c))
        exact = exact + g.mT @ (p[..., c : c + 1] * g) / y.shape[1]
    assert relative_error(fisher(losses, theta, x, classes=CLASSES).dense(), exact) < 1e-12


@classifiers
def test_fisher_is_the_gauss_newton_matrix(case):
    F = fisher(*case.args[:3], classes=CLASSES).dense()
    assert relative_error(F, gauss_newton(*case.args).dense()) < 1e-12
    assert relative_error(F, dense_gauss_newton(*case.args)) < 1e-12


def test_fisher_of_softmax_regression_in_closed_form():
    """F = H = E[(x, 1)(x, 1)ᵀ ⊗ (diag p − ppᵀ)]."""
    losses, theta, x, _ = SOFTMAX.args
    p = losses.outputs(theta, x).softmax(-1)
    A = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    ones = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    exact = torch.einsum("rbi,rbj,rbkl->rikjl", ones, ones, A).flatten(3, 4).flatten(1, 2) / x.shape[1]
    assert relative_error(fisher(losses, theta, x, classes=CLASSES).dense(), exact) < 1e-13
    assert relative_error(exact, dense_hessian(*SOFTMAX.args)) < 1e-13


def test_fisher_is_the_mean_over_drawn_labels():
    """By Monte Carlo: the trace of the second moment with drawn labels, within four standard errors."""
    losses, theta, x, y = TANH.args
    F = fisher(losses, theta, x, classes=CLASSES).dense()
    p = losses.outputs(theta, x).softmax(-1)
    by_label = torch.stack(
        [per_example_gradients(losses, theta, x, torch.full_like(y, c)).square().sum(-1) for c in range(CLASSES)], -1
    )
    draws = torch.multinomial(p.flatten(0, 1), 2000, replacement=True, generator=generators(1)[0]).view(*y.shape, -1)
    traces = by_label.gather(-1, draws).mean(1)  # (R, draws)
    error = traces.mean(1) - torch.einsum("rii->r", F)
    assert (error.abs() < 4 * traces.std(1) / 2000**0.5).all()
    observed = by_label.gather(-1, y[..., None]).mean((1, 2))  # the data's own labels make another matrix
    assert ((observed - torch.einsum("rii->r", F)).abs() > 20 * traces.std(1) / 2000**0.5).any()


def test_fisher_refuses_a_loss_that_is_no_log_probability():
    squared = CASES[4]
    with pytest.raises(ValueError, match="use a log loss"):
        fisher(*squared.args[:3], classes=1)


def test_the_hessians_residual_has_no_trace_for_relu_but_has_for_tanh():
    """A ReLU network is piecewise linear in each single weight."""
    for case, traceless in ((RELU, True), (TANH, False)):
        residual = hessian(*case.args).dense() - gauss_newton(*case.args).dense()
        trace, size = torch.einsum("rii->r", residual), residual.norm(dim=(1, 2))
        assert (size > 1e-2).all()
        assert bool((trace.abs() < 1e-12 * size).all()) == traceless


# Eigenspaces


def test_overlap_of_equal_turned_and_orthogonal_spaces():
    frame = random_frames(3, 20, 8)
    U, V = frame[..., :4], frame[..., 4:]
    turn = random_frames(3, 4, 4, seed=1)
    torch.testing.assert_close(subspace_overlap(pairs(U), pairs(U @ turn)), torch.ones(3, dtype=torch.float64))
    assert (subspace_overlap(pairs(U), pairs(V)) < 1e-25).all()
    half = torch.cat([U[..., :2], V[..., :2]], dim=-1)
    torch.testing.assert_close(subspace_overlap(pairs(U), pairs(half)), torch.full((3,), 0.5, dtype=torch.float64))


def test_overlap_by_chance_is_k_over_P():
    R, P, k = 4000, 30, 3
    found = subspace_overlap(pairs(random_frames(R, P, k)), pairs(random_frames(R, P, k, seed=1)))
    assert abs(found.mean() - k / P) < 4 * found.std() / R**0.5


def test_rayleigh_quotients_and_their_optimum():
    A = symmetric()
    op = StackOperator.from_dense(A)
    top = top_eigenvalues(op, 3, tol=1e-10, generators=generators(2))
    torch.testing.assert_close(rayleigh(op, top), top.values)
    B = StackOperator.from_dense(symmetric(seed=5))
    best = top_eigenvalues(B, 3, tol=1e-10, generators=generators(2)).values.sum(1)
    assert (rayleigh(B, top).sum(1) < best).all()  # Ky Fan


# Inner products


def basis_of(*matrices, k=3):
    tops = [top_eigenvalues(StackOperator.from_dense(m), k, generators=generators(len(m))) for m in matrices]
    return common_basis(*tops)


def test_a_complete_basis_gives_the_exact_gram_matrix():
    A, B = symmetric(seed=0), symmetric(seed=1)
    Q = random_frames(2, 12, 12)
    found = gram([StackOperator.from_dense(m) for m in (A, B)], Q, probes=2, generators=generators(2))
    torch.testing.assert_close(found.inner(0, 1).value, (A * B).sum((1, 2)))
    cosine = (A * B).sum((1, 2)) / (A.norm(dim=(1, 2)) * B.norm(dim=(1, 2)))
    torch.testing.assert_close(found.cosine(0, 1).value, cosine)
    torch.testing.assert_close(found.scale(0, 1).value, (A * B).sum((1, 2)) / B.square().sum((1, 2)))
    assert (found.cosine(0, 1).stderr < 1e-12).all()


def test_a_multiple_has_cosine_one_and_its_factor_as_scale():
    A = symmetric()
    ops = [StackOperator.from_dense(m) for m in (3 * A, A)]
    found = gram(ops, basis_of(A, A), probes=4, generators=generators(2))
    torch.testing.assert_close(found.cosine(0, 1).value, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(found.scale(0, 1).value, torch.full((2,), 3.0, dtype=torch.float64))
    assert (found.scale(0, 1).stderr < 1e-12).all()


def test_estimates_are_unbiased_and_their_errors_honest():
    """300 trials: the mean within four standard errors, and the 95 % intervals cover."""
    R = 300
    A, B = (m.expand(R, -1, -1) for m in (symmetric(1, seed=0), symmetric(1, seed=0) + symmetric(1, seed=1)))
    ops = [StackOperator.from_dense(m) for m in (A, B)]
    found = gram(ops, random_frames(1, 12, 3).expand(R, -1, -1), probes=24, generators=generators(R))
    exact = {"inner": float((A * B)[0].sum()), "cosine": float((A * B)[0].sum() / (A[0].norm() * B[0].norm()))}
    for name, truth in exact.items():
        estimate = getattr(found, name)(0, 1)
        covered = ((estimate.value - truth).abs() < 2.07 * estimate.stderr).double().mean()
        assert 0.88 < covered < 0.99, name
    inner = found.inner(0, 1).value
    assert abs(inner.mean() - exact["inner"]) < 4 * inner.std() / R**0.5


def test_a_run_does_not_depend_on_its_neighbors():
    ops = [StackOperator.from_dense(symmetric(3, seed=s)) for s in (0, 1)]
    Q = random_frames(3, 12, 4)
    together = gram(ops, Q, probes=3, generators=generators(3)).value
    alone = gram([op.rows(torch.tensor([1])) for op in ops], Q[1:2], probes=3, generators=generators(3)[1:2]).value
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda op, Q: gram([op], Q, probes=1, generators=generators(2)), "use probes >= 2"),
        (lambda op, Q: gram([op, op.rows(torch.tensor([0]))], Q, probes=2, generators=generators(2)), "use one"),
        (lambda op, Q: gram([op], Q[:, :5], probes=2, generators=generators(2)), "use one"),
        (lambda op, Q: gram([op], Q, probes=2, generators=generators(1)), "one generator per run"),
        (lambda op, Q: subspace_overlap(pairs(Q), pairs(Q[..., :2])), "use the same k"),
        (lambda op, Q: rayleigh(op, Eigenpairs(Q, None, Q, Q, Q)), "vectors=True"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(StackOperator.from_dense(symmetric()), random_frames(2, 12, 3))
