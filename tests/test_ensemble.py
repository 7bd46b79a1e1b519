"""The simulators' core: its normal numbers, what its results depend on and what they must not depend on."""

import numpy as np
import pytest
from threefactors.simulation.ensemble import BLOCK, Draws, simulate

N = 400_000


def random_walk(n, draws):
    def advance(x, t):
        x += draws.normal(*x.shape)

    return advance


def clock(n, draws):
    """Every component of x becomes the number of steps done; t must tell how many were done before."""

    def advance(x, t):
        assert (x[0] == t).all()
        x += 1

    return advance


@pytest.mark.parametrize("shape", [(N,), (2, N // 2), (N // 8, 8)])
def test_normals_have_the_moments_of_the_normal_law(shape):
    """E ξᵏ = 0, 1, 0, 3, 0, 15; the standard error of the k-th is √((E ξ²ᵏ − (E ξᵏ)²)/N)."""
    xi = Draws(0, "moments", 0).normal(*shape).ravel()
    exact = {0: 1, 2: 1, 4: 3, 6: 15, 8: 105, 10: 945, 12: 10395}
    for k in range(1, 7):
        error = np.sqrt((exact[2 * k] - exact.get(k, 0) ** 2) / N)
        assert abs(np.mean(xi**k) - exact.get(k, 0)) < 4 * error, f"E ξ^{k}"


def test_normals_are_independent_of_each_other():
    """Correlations of ξ and of ξ² with those drawn before, within a call, between calls, blocks, seeds and streams."""
    xi = Draws(0, "lags", 0).normal(N).copy()
    draws = Draws(0, "calls", 0)
    first, second = draws.normal(N).copy(), draws.normal(N).copy()
    pairs = {f"lag {lag}": (xi[:-lag], xi[lag:]) for lag in (1, 2, 8, 16, 624)}
    pairs["calls"] = first, second
    pairs["blocks"] = xi, Draws(0, "lags", 1).normal(N)
    pairs["seeds"] = xi, Draws(1, "lags", 0).normal(N)
    pairs["streams"] = xi, first
    for name, (a, b) in pairs.items():
        error = 1 / np.sqrt(len(a))
        assert abs(np.mean(a * b)) < 4 * error, name
        assert abs(np.mean((a**2 - 1) * (b**2 - 1))) < 4 * 2 * error, name


def test_whole_numbers_are_uniform():
    counts = np.bincount(Draws(0, "integers", 0).integers(5, 1000, 100).ravel(), minlength=5)
    assert len(counts) == 5
    assert ((counts - 20_000) ** 2 / 20_000).sum() < 18.5  # χ² with 4 degrees of freedom: P < 0.001


def test_a_random_walk_spreads_as_it_must():
    """E x² = t, with the standard error t √(2/n), seen on the way and at the end; the start is seen without noise."""
    n, times = 20_000, [0, 1, 7, 20]
    path = simulate(
        random_walk,
        [0.0, 0.0],
        20,
        trajectories=n,
        seed=0,
        at=times,
        observe=lambda x: np.vstack([x**2, x[:1] * x[1:]]),
    )
    t = np.array(times, dtype=float)
    assert path.steps.tolist() == times
    for k, (expected, error) in enumerate([(t, t * np.sqrt(2 / n)), (t, t * np.sqrt(2 / n)), (0 * t, t / np.sqrt(n))]):
        assert (np.abs(path.means[:, k] - expected) <= 4 * error).all()
    np.testing.assert_allclose((path.final**2).mean(1), path.means[-1, :2], rtol=1e-12)


@pytest.mark.parametrize("at", [None, [0], [0, 3, 4], [2], [5], range(6)])
def test_steps_are_counted_and_seen_when_asked_for(at):
    path = simulate(clock, [0.0], 5, trajectories=10, seed=0, at=at, block=3)
    assert path.means.tolist() == [[t] for t in (at or [5])]
    assert (path.final == 5).all()


def test_no_step_leaves_everything_at_the_start():
    start = np.arange(20.0).reshape(2, 10)
    path = simulate(random_walk, start, 0, trajectories=10, seed=0, block=4)
    np.testing.assert_array_equal(path.final, start)
    np.testing.assert_array_equal(path.means, [start.mean(1)])


def test_the_caller_keeps_his_start():
    start = np.zeros((1, 10))
    simulate(random_walk, start, 3, trajectories=10, seed=0)
    assert (start == 0).all()


def run(**changes):
    asked = {"steps": 4, "trajectories": 1000, "seed": 0, "block": 64, "threads": 1, "at": [1, 4]} | changes
    return simulate(random_walk, [1.0, -1.0], asked.pop("steps"), **asked)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_nothing(threads):
    alone, together = run(), run(threads=threads)
    np.testing.assert_array_equal(together.final, alone.final)
    np.testing.assert_array_equal(together.means, alone.means)


def test_a_block_is_the_same_among_more_trajectories():
    few, many = run(trajectories=128), run(trajectories=1000)
    np.testing.assert_array_equal(many.final[:, :128], few.final)


def test_blocks_seeds_and_streams_differ():
    path = run()
    assert len(np.unique(path.final[0])) > 990
    for other in (run(seed=1), run(stream="another")):
        assert (other.final != path.final).mean() > 0.99


def test_a_start_of_its_own_for_each_trajectory():
    """The noise does not depend on the start, so that a shift of the start shifts the end."""
    shift = np.arange(1000.0) * [[1], [2]]
    one = simulate(random_walk, [0.0, 0.0], 4, trajectories=1000, seed=0, block=64)
    own = simulate(random_walk, shift, 4, trajectories=1000, seed=0, block=64)
    np.testing.assert_allclose(own.final - one.final, shift, atol=1e-9)


def test_blocks_are_contiguous_and_as_large_as_asked():
    sizes = []

    def dynamics(n, draws):
        sizes.append(n)

        def advance(x, t):
            assert x.flags.c_contiguous
            assert x.shape == (2, n)

        return advance

    simulate(dynamics, [0.0, 0.0], 1, trajectories=2 * BLOCK + 5, seed=0, threads=1)
    assert sizes == [BLOCK, BLOCK, 5]


def test_an_error_in_a_thread_is_not_lost():
    def dynamics(n, draws):
        raise RuntimeError("as planted")

    with pytest.raises(RuntimeError, match="as planted"):
        simulate(dynamics, [0.0], 1, trajectories=10, seed=0, block=1, threads=2)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("trajectories=0", {"trajectories": 0}),
        ("steps=-1", {"steps": -1, "at": None}),
        ("block=0", {"block": 0}),
        ("threads=0", {"threads": 0}),
        (r"at=\[\] must rise within 0 … steps=4", {"at": []}),
        (r"at=\[5\] must rise", {"at": [5]}),
        (r"at=\[-1, 2\] must rise", {"at": [-1, 2]}),
        (r"at=\[2, 1\] must rise", {"at": [2, 1]}),
        (r"at=\[2, 2\] must rise", {"at": [2, 2]}),
    ],
)
def test_what_makes_no_sense_is_refused(message, changes):
    with pytest.raises(ValueError, match=message):
        run(**changes)


@pytest.mark.parametrize("start", [0.0, np.zeros((1, 9)), np.zeros((1, 10, 1))])
def test_a_start_of_another_shape_is_refused(start):
    with pytest.raises(ValueError, match=r"use \(d,\) or \(d, trajectories=10\)"):
        simulate(random_walk, start, 1, trajectories=10, seed=0)
