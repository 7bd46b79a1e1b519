"""The benchmark of curvature's summary: all competitors find the same of the same networks."""

import dataclasses

import pytest
import torch
from threefactors.training import MLP

from tests.bench import summary
from tests.test_bench import PROBLEMS

LARGE = PROBLEMS["digits"]  # in float64
PROBLEM = dataclasses.replace(LARGE, data=LARGE.data.first(80), model=MLP((6,)))


@pytest.fixture(scope="module")
def found():
    works = [make(PROBLEM) for make in (summary.Library, summary.PlainLoop, summary.CurvlinopsLoop)]
    for work in works:
        work.run()
    return works


def test_all_find_the_same_eigenvalues(found):
    library, *loops = found
    assert library.converged.all()
    assert library.values.shape == (PROBLEM.runs, summary.K)
    for loop in loops:
        torch.testing.assert_close(loop.values, library.values, rtol=1e-4, atol=0)


def test_all_estimate_the_same_trace_and_norm(found):
    library, *loops = found
    for loop in loops:  # by far fewer samples than would be needed to be close
        torch.testing.assert_close(loop.trace.double(), library.trace, rtol=0.5, atol=0)
        torch.testing.assert_close(loop.square.double(), library.square, rtol=0.7, atol=0)
    exact = summary.Operator(PROBLEM).operator.dense()
    torch.testing.assert_close(library.trace, exact.diagonal(dim1=1, dim2=2).sum(1), rtol=0.1, atol=0)
    torch.testing.assert_close(library.square, exact.square().sum((1, 2)), rtol=0.05, atol=0)


def test_the_table_has_a_row_for_each():
    part = summary.measure(PROBLEM, rounds=1, cores=1)
    assert [row.variant.split(",")[0] for row in part.rows] == [
        "library as it chooses", "double backward", "curvlinops loop", "floor: batched products alone",
    ]  # fmt: skip
    assert "2 of them converged" in str(part)
    assert "ms per network" in str(part)
