"""The benchmark: a competitor that does other steps than the library would make its ratios worthless."""

import dataclasses
import json
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from threefactors.training import kernel

from tests.bench import __main__ as command
from tests.bench import curvature, jax_peer, peers, problems, report, threshold, timing
from tests.bench.floor import step_flops

PEERS = {
    "DataLoader": peers.Loader,
    "sliced": peers.Loop,
    "vmap": peers.Vmap,
    "by hand": lambda problem: peers.Library(problem, "by hand"),
    "autograd": lambda problem: peers.Library(problem, "autograd"),
}
if kernel.available(torch.float64):
    PEERS["kernel"] = lambda problem: peers.Library(problem, "kernel")
if jax_peer.INSTALLED:
    PEERS["JAX"] = jax_peer.Jax
    PEERS["JAX, model after model"] = lambda problem: jax_peer.Jax(problem, model_major=True)
FIELDS = {
    "bench",
    "shape",
    "variant",
    "microseconds_per_model_step",
    "ratio_to_sliced_loop",
    "fraction_of_floor",
    "peak_mebibytes",
}


def double(problem, **changes):
    """In float64, where the same steps are the same numbers; two epochs, so that the orders differ, too."""
    return dataclasses.replace(problem, data=problem.data.to("cpu", torch.float64), epochs=2, **changes)


PROBLEMS = {
    "digits": double(problems.digits(64, runs=2, quick=True)),
    "batch norm": double(problems.wide(runs=2, quick=True, width=12, batch_size=16)),
    "an incomplete last batch": double(problems.digits(60, runs=2, quick=True)),
}


def trained(work):
    work.run()
    return work.theta()


@pytest.fixture(scope="module")
def expected():
    return {name: trained(peers.Library(problem, "autograd")) for name, problem in PROBLEMS.items()}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("peer", PEERS)
def test_all_do_the_same_steps(peer, problem, expected):
    torch.testing.assert_close(trained(PEERS[peer](PROBLEMS[problem])), expected[problem], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("peer", PEERS)
def test_reset_goes_back_to_the_start(peer):
    work = PEERS[peer](PROBLEMS["batch norm"])
    once = trained(work).clone()
    assert (once - PROBLEMS["batch norm"].theta).abs().max() > 1e-3
    work.reset()
    torch.testing.assert_close(trained(work), once, rtol=0, atol=0)


def test_processes_do_the_same_steps(expected):
    with closing(peers.Processes(1)) as processes:
        processes.take(PROBLEMS["digits"])
        torch.testing.assert_close(trained(processes), expected["digits"], rtol=1e-9, atol=1e-11)


def test_a_competitor_with_another_step_is_seen(monkeypatch, expected):
    monkeypatch.setattr(peers, "LR", problems.LR * 2**0.5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(trained(peers.Vmap(PROBLEMS["digits"])), expected["digits"], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("problem", ["digits", "batch norm"])
def test_all_multiply_by_the_same_hessian(problem):
    problem = PROBLEMS[problem]
    works = [curvature.DoubleBackward(problem, 1)]
    works += [curvature.Operator(problem, 1, way=way) for way in curvature.WAYS.values()]
    if problem.model.batch_norm is None:  # curvlinops supposes a loss that is a sum over examples
        works.append(curvature.Curvlinops(problem, 1))
    for work in works:
        work.run()
    for work in works[1:]:
        torch.testing.assert_close(work.image, works[0].image, rtol=1e-8, atol=1e-9)


def test_all_find_the_same_threshold():
    problem = threshold.Problem(14, 12)
    works = [way(problem) for way in threshold.WAYS.values()]
    for work in works:
        work.run()
    values = [work.value for work in works]
    assert values == pytest.approx([values[0]] * len(works), rel=1e-3)
    assert values[:3] == pytest.approx([values[0]] * 3, rel=1e-9)


def test_peak_memory_is_that_of_the_largest_array():
    class Work:
        def run(self):
            _ = [bytearray(10**6) for _ in range(3)]

    assert threshold.peak(Work()) == pytest.approx(3e6, rel=0.01)


def test_interleaving_takes_turns_and_leaves_the_warm_up_out():
    turns = []

    class Work:
        def __init__(self, name):
            self.name = name

        def reset(self):
            turns.append(("reset", self.name, torch.get_num_threads()))

        def run(self):
            turns.append(("run", self.name, torch.get_num_threads()))

    before = torch.get_num_threads()
    times = timing.interleave([timing.Variant("A", Work("A"), 1, 1), timing.Variant("B", Work("B"), 1, 2)], rounds=2)
    once = [(what, name, threads) for name, threads in (("A", 1), ("B", 2)) for what in ("reset", "run")]
    assert turns == 3 * once
    assert torch.get_num_threads() == before
    assert list(times) == ["A", "B"]
    assert all(t > 0 for t in times.values())


def test_medians_are_per_unit_and_without_the_warm_up(monkeypatch):
    clock = iter([0, 1, 0, 9, 0, 2])  # seconds; that nothing is asked while it warms up is part of the test
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    idle = SimpleNamespace(reset=lambda: None, run=lambda: None)
    assert timing.interleave([timing.Variant("A", idle, units=4, threads=1)], rounds=3) == {"A": 0.5e6}


def test_peak_memory_of_a_variant_is_what_it_allocates():
    """Even where memory that others have freed would serve."""
    freed = [torch.ones(1, 1024, 1024 // 4) for _ in range(100)]
    del freed

    class Work:
        def reset(self):
            self.held = torch.ones(50, 1024, 1024 // 4)  # 50 MiB, every page of them touched

        def run(self):
            _ = torch.ones(100, 1024, 1024 // 4)

    small = SimpleNamespace(reset=lambda: None, run=lambda: None)
    times = timing.interleave([timing.Variant("large", Work, 1, 1), timing.Variant("small", small, 1, 1)], rounds=1)
    if sys.platform == "linux":
        assert times.peaks["large"] == pytest.approx(150, rel=0.1)
        assert times.peaks["small"] < 8
    else:  # nobody keeps the high water, and none is made up
        assert times.peaks == {}


def test_who_runs_out_of_memory_is_left_out_and_the_others_are_measured():
    def too_much():
        raise torch.OutOfMemoryError("CUDA out of memory")

    idle = SimpleNamespace(reset=lambda: None, run=lambda: None)
    greedy = SimpleNamespace(reset=lambda: None, run=too_much)
    times = timing.interleave([timing.Variant("A", greedy, 1, 1), timing.Variant("B", idle, 1, 1)], rounds=2)
    assert list(times) == ["B"]
    assert times.left_out == ["A"]
    part = report.section("training", "shape", times, 1.0, 1.0, [])
    assert part.notes == ["A: left out, the memory does not suffice"]


def test_flops_of_a_step():
    # two layers, B = 5: z = h W (2·5·3·4 + 2·5·4·2), dW the same, ∂h for the second layer only (2·5·4·2)
    assert step_flops((3, 4, 2), 5) == 2 * (120 + 80) + 80


def test_rows_hold_ratios_and_targets_say_what_is_missed():
    part = report.section(
        "training", "shape", {"loop": 100.0, "library": 4.0, "floor": 2.0}, loop=100.0, floor=2.0,
        targets=[report.Target("reached", 25.0, 20.0), report.Target("not reached", 25.0, 30.0)],
    )  # fmt: skip
    assert part.rows[1] == report.Row("training", "shape", "library", 4.0, 25.0, 0.5)
    lines = str(part).splitlines()
    assert [line.split()[-1] for line in lines if "target" in line] == ["ok", "MISSED"]


@pytest.mark.slow
def test_the_whole_command(tmp_path, capsys):
    path = tmp_path / "new folder" / "bench.json"
    command.main(["--quick", "--output", str(path)])
    rows = json.loads(path.read_text())
    assert all(set(row) == FIELDS for row in rows)
    assert all(
        row[k] > 0 for row in rows for k in FIELDS if not isinstance(row[k], str | None) and k != "peak_mebibytes"
    )
    derived = {row["variant"] for row in rows if row["peak_mebibytes"] is None}
    assert all("ceiling" in name or "floor" in name for name in derived), "a row without its peak of memory"
    networks = [row for row in rows if row["bench"] in ("training", "curvature")]
    assert {(row["bench"], row["shape"].split(",")[0]) for row in networks} == {
        ("training", "64-64-64-64-10"), ("training", "784-32-32-32-10 batch norm"), ("curvature", "64-64-64-64-10"),
    }  # fmt: skip
    assert {"simulation", "threshold"} < {row["bench"] for row in rows}
    printed = capsys.readouterr().out
    for row in rows:
        assert row["variant"] in printed
        if row["variant"].startswith(("(f)", "floor")):
            assert row["fraction_of_floor"] == 1


def test_rounds_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rounds", "0"])
    assert "use --rounds 1 or more" in capsys.readouterr().err
