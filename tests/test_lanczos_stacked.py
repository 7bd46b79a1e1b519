"""Lanczos for a whole stack at once: the dense spectrum, run after run as the oracle, and no number read in between."""

import math
from dataclasses import replace

import pytest
import torch
from threefactors._rng import generator
from threefactors.measurement import (
    StackOperator,
    adaptive_sharpness,
    gauss_newton,
    gradient_covariance,
    hessian,
    moments,
    spectral_density,
    top_eigenvalues,
)
from threefactors.measurement import stacked as module
from threefactors.measurement.curvature import curvature
from threefactors.measurement.draws import COUNTED, rademacher, signs, spares
from threefactors.measurement.krylov import lanczos
from threefactors.measurement.lanczos import MAX_PRODUCTS
from threefactors.measurement.operators import CHUNK, ON_GPU
from threefactors.measurement.stacked import LOOK, StackedKrylov, complement, sampled_moments, top_pairs
from threefactors.training.models import MLP
from threefactors.training.products import StackedProducts

from tests.cases import CASES
from tests.oracles import dense_gauss_newton, dense_hessian
from tests.test_lanczos import generators, symmetric
from tests.test_moments import decaying

TANH, RELU = CASES[2], CASES[3]
WIDE = torch.cat([torch.tensor([9.0, 5.0, 4.0]), torch.linspace(-1, 1, 197)])
SPECTRA = {
    "wide": WIDE,
    "clustered": torch.cat([3 + 1e-3 * torch.arange(4), torch.linspace(0, 1, 76)]),
    "indefinite": torch.cat([torch.tensor([-70.0, -30.0, 2.0]), torch.linspace(-1, 1, 77)]),
    "negative": -torch.linspace(1, 2, 60),
    "hard": torch.linspace(0, 1, 80),
    "huge": 1e30 * WIDE,
    "tiny": 1e-30 * WIDE,
}


def dense(matrices, chunk=None):
    return StackOperator.from_dense(matrices, chunk=chunk or len(matrices))


def same(found, expected, rtol=1e-9):
    """Eigenpairs up to rounding; vectors up to sign."""
    assert torch.equal(found.converged, expected.converged)
    torch.testing.assert_close(found.values, expected.values, rtol=rtol, atol=0, equal_nan=True)
    overlap = (found.vectors * expected.vectors).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-6)


# The dense spectrum


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_top_eigenvalues_are_those_of_the_dense_matrix(spectrum):
    exact = SPECTRA[spectrum].double().sort(descending=True).values
    a = symmetric(exact, R=3)
    found = top_eigenvalues(dense(a), 3, tol=1e-6, generators=generators(0, 1, 2), method="stacked")
    assert found.converged.all()
    torch.testing.assert_close(found.values, exact[:3].expand(3, 3), rtol=1e-9, atol=0)
    residuals = torch.linalg.vector_norm(a @ found.vectors - found.vectors * found.values[:, None], dim=1)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-5, atol=1e-12 * float(exact.abs().max()))
    gram = found.vectors.mT @ found.vectors
    torch.testing.assert_close(gram, torch.eye(3, dtype=gram.dtype).expand_as(gram), rtol=0, atol=1e-12)


def test_a_matrix_that_commutes_with_turning_breaks_no_restart():
    """Spare vectors are turned to be fresh: a circulant matrix, of which each eigenvalue but two is double."""
    first = torch.tensor([4.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    a = torch.stack([first.roll(i) for i in range(8)])[None]
    found = top_eigenvalues(dense(a), 8, generators=generators(0), method="stacked")
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(a).flip(-1), rtol=1e-12, atol=1e-12)


def test_a_basis_stays_orthonormal_through_hundreds_of_steps_and_breakdowns():
    a = symmetric([-1.0, 0.0, 0.5, 2.0, 3.0] * 48, R=2)
    krylov = StackedKrylov(torch.ones(2, 240, dtype=a.dtype), spares(dense(a), generators(0, 1)), 240)
    krylov.advance(dense(a).product(), 240)
    gram = torch.bmm(krylov.basis, krylov.basis.mT)
    torch.testing.assert_close(gram, torch.eye(240, dtype=a.dtype).expand_as(gram), rtol=0, atol=1e-12)
    T = torch.bmm(torch.bmm(krylov.basis, a), krylov.basis.mT)
    for seen, t in zip(krylov.look(), T, strict=True):
        assert 40 < seen.breakdowns <= 47  # 48 copies of each of five eigenvalues, to rounding
        alpha, beta = torch.tensor([seen.alpha, seen.beta], dtype=a.dtype)
        rebuilt = alpha.diag() + beta[:-1].diag(1) + beta[:-1].diag(-1)
        torch.testing.assert_close(rebuilt, t, rtol=0, atol=1e-12)


# Run after run


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_same_as_run_after_run(case):
    R = len(case.theta)
    op = hessian(*case.args)
    one, all_ = ({"method": method} for method in ("runs", "stacked"))
    g = lambda: generators(*range(R))  # noqa: E731
    runs = top_eigenvalues(op, 2, tol=1e-5, generators=g(), **one)
    together = top_eigenvalues(op, 2, tol=1e-5, generators=g(), **all_)
    same(together, runs)
    assert (together.products <= runs.products + LOOK - 1).all()
    torch.testing.assert_close(
        adaptive_sharpness(op, case.theta, tol=1e-7, generators=g(), **all_).values,
        adaptive_sharpness(op, case.theta, tol=1e-7, generators=g(), **one).values,
        rtol=1e-9, atol=0,
    )  # fmt: skip
    for probes in (2, 7):
        pairs = zip(
            moments(op, probes=probes, generators=g(), **one), moments(op, probes=probes, generators=g(), **all_),
            strict=True,
        )  # fmt: skip
        for a, b in pairs:
            assert a.n == b.n
            torch.testing.assert_close(b.value, a.value, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(b.stderr, a.stderr, rtol=1e-7, atol=1e-10)
    steps = min(4, case.theta.shape[1] - 1)
    a, b = (spectral_density(op, steps=steps, probes=3, generators=g(), **way) for way in (one, all_))
    torch.testing.assert_close(b.nodes, a.nodes, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(b.weights, a.weights, rtol=1e-7, atol=1e-10)


def test_other_operators_too():
    losses, theta, x, y = RELU.args
    few = (losses, theta, x[:, :2], y[:, :2])
    exact = torch.linalg.eigvalsh(dense_gauss_newton(*few)).flip(-1)[:, :6]
    found = top_eigenvalues(gauss_newton(*few), 6, tol=1e-9, generators=generators(0, 1), method="stacked")
    assert (found.products < theta.shape[1] // 2).all()  # rank is at most 4
    torch.testing.assert_close(found.values, exact, rtol=1e-9, atol=1e-12)
    runs, together = (
        top_eigenvalues(gradient_covariance(*RELU.args), 2, tol=1e-6, generators=generators(0, 1), method=method)
        for method in ("runs", "stacked")
    )
    same(together, runs)


def test_a_cpu_goes_run_after_run_by_default():
    op, g = hessian(*TANH.args), lambda: generators(0, 1, 2)
    assert not module.is_stacked(op, None)
    meta = StackOperator((3, 43), torch.float32, torch.device("meta"), lambda rows: lambda v: v)
    assert module.is_stacked(meta, None)
    by_default = top_eigenvalues(op, 2, generators=g())
    for name in ("values", "vectors", "residuals", "products", "converged"):
        assert torch.equal(
            getattr(by_default, name), getattr(top_eigenvalues(op, 2, generators=g(), method="runs"), name)
        )
    default, runs = (moments(op, probes=8, generators=g(), **way) for way in ({}, {"method": "runs"}))
    assert all(torch.equal(a.value, b.value) for a, b in zip(default, runs, strict=True))
    default, runs = (spectral_density(op, steps=5, probes=2, generators=g(), **w) for w in ({}, {"method": "runs"}))
    assert torch.equal(default.nodes, runs.nodes)
    with pytest.raises(ValueError, match="method='both' is unknown; use 'runs', 'stacked', or None"):
        top_eigenvalues(op, generators=g(), method="both")


def test_a_run_does_not_depend_on_its_company_nor_on_chunks_nor_on_memory():
    spectra = [WIDE, torch.linspace(0, 1, 200), torch.cat([torch.tensor([50.0]), torch.zeros(199)]), -WIDE, WIDE**3]
    a = torch.cat([symmetric(values, seed=i) for i, values in enumerate(spectra)])
    options = {"tol": 1e-7, "method": "stacked"}
    whole = top_eigenvalues(dense(a), 2, generators=generators(*range(5)), **options)
    assert len(set(whole.products.tolist())) > 2  # they leave at different looks
    most = MAX_PRODUCTS - 2 + 3 * 2  # vectors kept for a run: of its basis, and what k = 2 pairs need
    for op in (dense(a, chunk=2), replace(dense(a), budget=3 * module.basis_bytes(dense(a), most))):
        split = top_eigenvalues(op, 2, generators=generators(*range(5)), **options)
        torch.testing.assert_close(split.values, whole.values, rtol=1e-12, atol=1e-12)
        assert torch.equal(split.products, whole.products)
    tight = replace(dense(a), budget=1000)
    assert [len(rows) for rows, _ in tight.chunks(400)] == [2, 2, 1]
    assert [len(rows) for rows, _ in tight.chunks(4000)] == [1] * 5  # less than one run there is not
    for i in range(5):
        alone = top_eigenvalues(dense(a[i : i + 1]), 2, generators=generators(i), **options)
        torch.testing.assert_close(alone.values[0], whole.values[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.residuals[0], whole.residuals[i], rtol=1e-3, atol=1e-12)
        assert alone.products[0] == whole.products[i]


def test_more_runs_are_linearized_at_once_on_a_gpu():
    losses, *data = TANH.args
    assert hessian(losses, *data).chunk == CHUNK
    assert hessian(losses, *(t.to("meta") for t in data)).chunk == ON_GPU  # where nothing is on the CPU
    assert hessian(losses, *(t.to("meta") for t in data), chunk=3).chunk == 3


# Honesty


def test_unconverged_is_said():
    op = dense(symmetric(torch.linspace(0, 1, 200)))
    found = top_eigenvalues(op, tol=1e-6, max_products=10, generators=generators(0), method="stacked")
    assert not found.converged.any()
    assert found.products.tolist() == [10]
    assert found.residuals[0, 0] > 1e-6 * found.values[0, 0]
    assert top_eigenvalues(op, tol=1e-6, generators=generators(0), method="stacked").converged.all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_nan_and_spares_its_neighbors(bad):
    losses, theta, x, y = TANH.args
    broken = theta.clone()
    broken[1] = bad
    ops = [hessian(losses, t, x, y) for t in (broken, theta)]
    g = lambda: generators(0, 1, 2)  # noqa: E731
    found, healthy = (top_eigenvalues(op, 2, generators=g(), method="stacked") for op in ops)
    assert found.converged.tolist() == [True, False, True]
    assert found.values[1].isnan().all()
    assert found.vectors[1].isnan().all()
    assert found.products[1] <= LOOK + 2
    torch.testing.assert_close(found.values[[0, 2]], healthy.values[[0, 2]], rtol=1e-12, atol=0)
    estimates, unbroken = (moments(op, probes=8, generators=g(), method="stacked") for op in ops)
    for a, b in zip(estimates, unbroken, strict=True):
        assert a.value.isnan().tolist() == [False, True, False]
        torch.testing.assert_close(a.value[[0, 2]], b.value[[0, 2]], rtol=1e-12, atol=0)
    density, whole = (spectral_density(op, steps=5, probes=2, generators=g(), method="stacked") for op in ops)
    assert density.nodes[1].isnan().all()
    torch.testing.assert_close(density.nodes[[0, 2]], whole.nodes[[0, 2]], rtol=1e-12, atol=1e-12)


def test_float32_reaches_its_tolerance():
    losses, theta, x, y = RELU.args
    exact = torch.linalg.eigvalsh(dense_hessian(*RELU.args)).flip(-1)[:, :3]
    op = hessian(losses, theta.float(), x.float(), y)
    found = top_eigenvalues(op, 3, vectors=False, generators=generators(0, 1), method="stacked")
    assert found.converged.all()
    assert found.vectors is None
    torch.testing.assert_close(found.values, exact, rtol=1e-4, atol=0)


def test_settled_runs_leave_the_working_set_at_looks():
    easy, hard = [9.0] + [0.0] * 299, torch.linspace(0, 1, 300)
    a = torch.cat([symmetric(easy), symmetric(easy, seed=1), symmetric(hard)])
    asked = []

    def linearize(rows):
        product = StackOperator.from_dense(a).linearize(rows)
        return lambda v: (asked.append(rows.tolist()), product(v))[1]

    found = top_eigenvalues(
        StackOperator((3, 300), a.dtype, a.device, linearize), generators=generators(0, 1, 2), method="stacked"
    )
    assert found.converged.all()
    assert found.products.tolist()[:2] == [LOOK + 1] * 2  # the last one checks the residual
    assert asked[:LOOK] == [[0, 1, 2]] * LOOK
    assert asked[LOOK:-1] == [[2]] * (int(found.products[2]) - 1 - LOOK)


# Nothing is read from the device


def blind(R=3, P=40, asked=None):
    """On the meta device there are shapes and no numbers: whatever reads one raises."""

    def product(v):
        if asked is not None:
            asked.append(len(v))
        return 2 * v

    return StackOperator((R, P), torch.float32, torch.device("meta"), lambda rows: product, R)


def a_number_is_read():
    """What PyTorch itself answers when a tensor on the meta device is asked for a value."""
    return pytest.raises(NotImplementedError, match="no data")


def test_steps_read_no_number_from_the_device():
    op = blind()
    krylov = StackedKrylov(torch.ones(3, 40, device="meta"), spares(op, generators(0, 1, 2)), 40)
    krylov.advance(op.product(), 40)
    assert krylov.size == 40
    with a_number_is_read():
        krylov.look()  # the one place that does


def test_there_is_one_look_for_so_many_products():
    asked = []
    with a_number_is_read():
        top_pairs(blind(asked=asked), 1, generators(0, 1, 2), steps=30, settled=lambda run: False)
    assert asked == [3] * LOOK
    asked.clear()
    with a_number_is_read():
        sampled_moments(blind(asked=asked), generators(0, 1, 2), steps=9, samples=11)
    assert asked == [3] * 20


def test_looks_are_counted(monkeypatch):
    looks, look = [], StackedKrylov.look
    monkeypatch.setattr(StackedKrylov, "look", lambda self: (looks.append(self.size), look(self))[1])
    found = top_eigenvalues(dense(symmetric(WIDE, R=4)), tol=1e-8, generators=generators(*range(4)), method="stacked")
    assert looks == list(range(LOOK, int(found.products.max()), LOOK))


@pytest.mark.parametrize("batch_norm", [None, 4])
def test_products_of_perceptrons_read_no_number_either(batch_norm):
    model = MLP((7, 5), batch_norm)
    theta = torch.zeros(3, model.parameters(6, 4), device="meta")
    x, y = torch.zeros(3, 8, 6, device="meta"), torch.zeros(3, 8, dtype=torch.int64, device="meta")
    assert StackedProducts(model, "cross-entropy", theta, x, y, 4)(theta).shape == theta.shape


# Random vectors


def test_signs_are_those_that_are_drawn_one_after_another():
    op = dense(torch.zeros(3, 9, 9))
    one, all_ = generators(0, 1, 2), generators(0, 1, 2)
    for v in signs(op, all_, 4):
        assert torch.equal(v, rademacher(op, one))
    for a, b in zip(one, all_, strict=True):
        assert torch.equal(a.get_state(), b.get_state())


def test_large_networks_have_counted_signs(monkeypatch):
    monkeypatch.setattr("threefactors.measurement.draws.COUNTED", 100)
    op = dense(torch.zeros(3, 20_000).expand(20_000, 3, 20_000).transpose(0, 1))
    g = lambda: [generator(seed, "probe") for seed in range(3)]  # noqa: E731
    v = torch.stack(list(signs(op, g(), 4)), 1)
    assert set(v.unique().tolist()) == {-1.0, 1.0}
    one = g()
    assert torch.equal(v, torch.stack([rademacher(op, one) for _ in range(4)], 1))
    alone = torch.stack(list(signs(op.rows(torch.tensor([1])), g()[1:2], 4)), 1)
    assert torch.equal(alone[0], v[1])
    rows = v.flatten(0, 1)
    gram = rows @ rows.T / 20_000
    assert (gram - torch.eye(12)).abs().max() < 5 / math.sqrt(20_000)
    assert rows.mean(1).abs().max() < 4.5 / math.sqrt(20_000)


def test_estimates_from_counted_signs_are_unbiased(monkeypatch):
    monkeypatch.setattr("threefactors.measurement.draws.COUNTED", 100)
    A, seeds = decaying(), 200
    op = StackOperator.from_dense(A.expand(seeds, *A.shape), chunk=50)
    draws = [generator(seed, "probe") for seed in range(seeds)]
    for estimate, exact in zip(
        moments(op, probes=24, generators=draws, method="stacked"), (A.trace(), (A**2).sum()), strict=True
    ):
        errors = estimate.value - exact
        assert abs(errors.mean()) < 3.5 * errors.std() / math.sqrt(seeds)
        assert 0.85 < estimate.stderr.pow(2).mean().sqrt() / errors.std() < 1.15


def test_every_network_of_the_digits_keeps_its_draws():
    assert COUNTED > MLP((128,) * 4).parameters(64, 10) > MLP((50,) * 20, 8).parameters(64, 10)


def test_spare_vectors_draw_nothing():
    op, g = dense(torch.zeros(2, 50, 50)), generators(0, 1)
    before = [one.get_state() for one in g]
    found = spares(op, g)
    assert all(torch.equal(one.get_state(), state) for one, state in zip(g, before, strict=True))
    assert torch.equal(found[1], spares(op.rows(torch.tensor([1])), g[1:])[0])
    assert found.abs().max() <= 1
    assert found.unique().numel() == 100


# One pass through the chunks


@pytest.mark.parametrize("method", ["runs", "stacked"])
def test_curvature_is_its_parts(method):
    op, g = hessian(*TANH.args, chunk=2), generators(0, 1, 2)
    whole = curvature(op, 2, probes=6, tol=1e-4, generators=generators(0, 1, 2), method=method)
    top = top_eigenvalues(op, 2, tol=1e-4, vectors=False, generators=g, method=method)
    tr, square = moments(op, probes=6, generators=g, method=method)
    assert whole.top.vectors is None
    for name in ("values", "residuals", "products", "converged"):
        assert torch.equal(getattr(whole.top, name), getattr(top, name))
    for a, b in ((whole.trace, tr), (whole.frobenius_squared, square)):
        assert torch.equal(a.value, b.value)
        assert torch.equal(a.stderr, b.stderr)
        assert a.n == b.n


def test_curvature_linearizes_each_chunk_once():
    linearized = []

    class Apart:
        def __init__(self, factors):
            self.factors = factors

        def __call__(self, v):
            return self.factors[:, None] * v

        def only(self, places):
            return Apart(self.factors[places])

    class Losses:
        def hessian_products(self, theta, x, y):
            linearized.append(len(theta))
            return Apart(theta[:, 0])

    theta = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None].expand(5, 30).contiguous()
    op = hessian(Losses(), theta, torch.zeros(5, 2, 1), torch.zeros(5, 2), chunk=2)
    found = curvature(op, 1, probes=62, generators=generators(*range(5)), method="stacked")
    assert linearized == [2, 2, 1]
    torch.testing.assert_close(found.top.values[:, 0], theta[:, 0])
    torch.testing.assert_close(found.trace.value, 30 * theta[:, 0])


def test_stacked_and_single_bases_agree_with_each_other():
    a = symmetric(WIDE, R=2)
    op, starts = dense(a), torch.randn(2, 200, generator=generators(0)[0], dtype=a.dtype)
    runs = lanczos(op, starts, generators(0, 1), steps=20)
    krylov = StackedKrylov(starts, spares(op, generators(0, 1)), 20)
    krylov.advance(op.product(), 20)
    torch.testing.assert_close(krylov.basis, torch.stack([run.basis for run in runs]), rtol=0, atol=1e-9)
    v = torch.randn(2, 3, 200, generator=generators(1)[0], dtype=a.dtype)
    left, c = complement(v, krylov.basis)
    torch.testing.assert_close(left + c @ krylov.basis, v, rtol=0, atol=1e-12)
    assert torch.bmm(left, krylov.basis.mT).abs().max() < 1e-13
