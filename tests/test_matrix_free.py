"""The threshold from products alone: against the dense one, its own certificate, and a hundred thousand dimensions."""

import numpy as np
import pytest
from threefactors.theory.linear_stability import mean_square_limit
from threefactors.theory.second_moment import Factors, matrix_free_limit, second_moment_limit

from tests.quadratics import SADDLE, TERMS, factors, matrices, problems

GOOD = TERMS["full rank"]


def of(Q, chunk=3):
    """Products with matrices, ``chunk`` terms at a time."""

    def products(V):
        for start in range(0, len(Q), chunk):
            yield Q[start : start + chunk] @ V

    return products


@pytest.mark.parametrize("replacement", [True, False])
def test_matrix_free_is_the_dense_limit_to_its_tolerance(replacement):
    for Q, S, _, _ in problems(40):  # here all directions fit into the subspace
        exact = second_moment_limit(Q, S, replacement=replacement)
        found = matrix_free_limit(of(Q), Q.shape[1], len(Q), S, replacement=replacement)
        assert found.value == pytest.approx(exact, rel=1e-8)
        assert found.converged
    ranks = []
    for seed, decay in enumerate([0.3, 0.8, 1.2, 2.0]):  # they do not
        Q = matrices(factors(30, 2, 80, seed, decay))
        exact = second_moment_limit(Q, 4, replacement=replacement)
        for tolerance in (0.03, 1e-3):
            found = matrix_free_limit(
                of(Q), 80, 30, 4, replacement=replacement, tolerance=tolerance, block=8, seed=seed
            )
            assert found.converged
            assert -1e-9 <= found.value / exact - 1 <= found.tolerance <= tolerance
            ranks.append(found.rank)
    assert min(ranks) < 20 < max(ranks)


def test_an_eigenvalue_is_as_close_to_one_as_the_residual_says():
    Q, p = matrices(factors(12, 1, 12, seed=1, decay=0.7)), 1 / 4
    for rank in (3, 5, 8):
        found = matrix_free_limit(of(Q), 12, 12, 4, tolerance=1e-9, rank=rank, block=3)
        assert not found.converged
        lr, Qbar = found.value, Q.mean(0)
        step = np.eye(12) - lr * Qbar
        noise = sum(np.kron(q, q) for q in Q) / 12 - np.kron(Qbar, Qbar)
        values = np.linalg.eigvalsh(np.kron(step, step) + lr**2 * p * noise)
        assert np.abs(values - 1).min() <= 1.5 * found.residual


@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_that_the_mean_hardly_curves_is_not_missed(seed):
    """Any two of 60 steady directions are an exact solution of the equations: a residual of 0 at 29 times the limit."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((150, 61)))[0]
    curvatures = np.ones((100, 61))
    curvatures[:, 60] = [30] + 99 * [0]  # one term alone

    def products(V):
        yield basis * curvatures[:, None] @ (basis.T @ V)

    found = matrix_free_limit(products, 150, 100, 1, seed=seed)
    assert found.converged
    assert found.value == pytest.approx(mean_square_limit(curvatures[:, 60], 1), rel=1e-9)
    assert mean_square_limit(curvatures[:, 0], 1) > 29 * found.value


def test_more_directions_never_raise_the_bound():
    Q = matrices(
        np.random.default_rng(2).standard_normal((40, 1, 60))
    )  # noise without common directions: the hard case
    exact = second_moment_limit(Q, 2)
    found = [matrix_free_limit(of(Q), 60, 40, 2, rank=rank, block=8) for rank in (8, 16, 32, 60)]
    values = [limit.value for limit in found]
    assert values == sorted(values, reverse=True)
    assert [limit.converged for limit in found] == [False, False, False, True]
    assert found[2].value > 1.01 * exact  # and says that it is not there yet
    assert found[3].value == pytest.approx(exact, rel=1e-9)


def test_a_hundred_thousand_dimensions_as_their_factors_say():
    A = factors(10, 1, 100_000, decay=0.5)

    def products(V):
        for a in A:
            yield (a.T @ (a @ V))[None]

    found = matrix_free_limit(products, 100_000, 10, 3, block=6)
    assert found.value == pytest.approx(second_moment_limit(Factors(A), 3), rel=1e-9)
    assert found.rank == 10


def test_a_hundred_thousand_parabolas_and_one_that_is_unsteady():
    q = np.random.default_rng(0).exponential(size=(6, 100_000)) * np.arange(1, 100_001) ** -0.5
    q[:, 777] = 5 * np.array([0, 2, 0, 2, 0, 2])

    def products(V):
        for each in q:
            yield (each[:, None] * V)[None]

    found = matrix_free_limit(products, 100_000, 6, 3, replacement=False, block=8)
    mean, variance = q.mean(0), q.var(0) * (6 - 3) / (3 * 5)
    exact = (2 * mean / (mean**2 + variance)).min()
    assert exact == pytest.approx(mean_square_limit(q[:, 777], 3, replacement=False))
    assert found.converged
    assert 0 <= found.value / exact - 1 <= found.tolerance <= 1e-3


def test_matrix_free_on_degenerate_terms():
    assert matrix_free_limit(of(np.broadcast_to(np.diag([4.0, 1.0]), (5, 2, 2))), 2, 5, 2).value == pytest.approx(0.5)
    flat = np.array([[[1.0, 1.0], [1.0, 0.0]], [[1.0, -1.0], [-1.0, 0.0]]])
    assert matrix_free_limit(of(flat), 2, 2, 1).value == 0
    assert matrix_free_limit(of(np.array([np.eye(2), -np.eye(2)])), 2, 2, 1).value == 0
    assert matrix_free_limit(of(TERMS["rank 1"]), 3, 4, 4, replacement=False).value == pytest.approx(
        2 / np.linalg.norm(TERMS["rank 1"].mean(0), 2)
    )


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("products yield 4 terms, examples=5", lambda: matrix_free_limit(of(GOOD), 2, 5, 1)),
        ("products yield 4 terms, examples=3", lambda: matrix_free_limit(of(GOOD, 2), 2, 3, 1)),
        ("for V", lambda: matrix_free_limit(lambda V: iter([GOOD @ V[:, :1]]), 2, 4, 1)),
        ("those of symmetric", lambda: matrix_free_limit(of(GOOD + np.triu(np.ones((2, 2)), 1)), 2, 4, 1)),
        ("no minimum", lambda: matrix_free_limit(of(SADDLE), 2, 2, 1)),
        ("are 0", lambda: matrix_free_limit(of(0 * GOOD), 2, 4, 1)),
        ("cannot be drawn", lambda: matrix_free_limit(of(GOOD), 2, 4, 5, replacement=False)),
        ("use tolerance > 0", lambda: matrix_free_limit(of(GOOD), 2, 4, 1, tolerance=0)),
    ],
)  # fmt: skip
def test_products_that_cannot_be_are_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
