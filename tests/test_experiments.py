"""Experiments: nothing computed is lost, nothing is computed twice, and how it was run changes no number."""

import errno
import itertools
import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch
from threefactors.experiments import (
    Accuracy,
    AtClock,
    Every,
    Loss,
    Moments,
    Sharpness,
    Spectrum,
    Store,
    StoreError,
    Weights,
    executors,
    run,
)
from threefactors.experiments import runner as runner_module
from threefactors.experiments import work as work_module
from threefactors.experiments.store import key
from threefactors.settings import SettingsError
from threefactors.training import MLP, SGD, Architecture, Clock, Epochs, Run, Steps, Sweep, Task, load

TINY = Task(model=MLP((8,)), train_size=128)
OTHERS = get_context("forkserver")  # processes of their own, for which the dear import is made once
OTHERS.set_forkserver_preload(["threefactors.experiments"])
PROBES = [Loss(), Accuracy(), Sharpness(), Moments(probes=4), Weights()]


def sweep(**changes):
    settings = {"lr": [0.05, 0.1], "batch_size": [16, 32], "seed": range(3), "until": Epochs(2), **changes}
    return Sweep.grid(settings.pop("task", TINY), **settings)


def same(a, b):
    """Equal numbers bit for bit, apart from when and where they were made."""
    assert a.runs == b.runs
    for left, right in zip(a.records, b.records, strict=True):
        left, right = ({k: v for k, v in r.items() if k != "provenance"} for r in (left, right))
        np.testing.assert_equal(left, right)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return run(sweep(), PROBES, store=tmp_path_factory.mktemp("serial"), progress=False)


def test_one_row_a_run(serial):
    table = serial.table()
    assert len(table) == 12
    assert table.finished.all()
    assert not table.diverged.any()
    assert table.sharpness_converged.all()
    np.testing.assert_allclose(table.ratio, table.lr / table.batch_size)
    assert table[["train_loss", "validation_accuracy", "sharpness", "trace", "frobenius"]].notna().to_numpy().all()
    assert ((table.frobenius >= table.sharpness * 0.8) & (table.trace > 0)).all()


def test_measures_agree_with_the_dense_hessian(tmp_path):
    """From sweep to table: λ_max, Tr H, ‖H‖_F and the adaptive sharpness against P × P matrices in float64."""
    task = Task(model=MLP((6,)), train_size=64)
    result = run(sweep(task=task, seed=[0]), [Sharpness(tol=1e-4), Moments(probes=60), Weights()], store=tmp_path)
    data = load("digits").first(64)
    x, y = data.x_train.double().flatten(1), data.y_train

    def loss(theta):
        w1, b1, w2, b2 = theta.split([64 * 6, 6, 60, 10])
        hidden = (x @ w1.view(64, 6) + b1).relu()
        return torch.nn.functional.cross_entropy(hidden @ w2.view(6, 10) + b2, y)

    for row in result.table().itertuples():
        theta = torch.from_numpy(row.theta).double()
        dense = torch.autograd.functional.hessian(loss, theta)
        values = torch.linalg.eigvalsh(dense)
        assert row.sharpness == pytest.approx(float(values[-1]), rel=1e-3)
        assert row.frobenius == pytest.approx(float(dense.norm()), abs=max(4 * row.frobenius_stderr, 1e-3))
        assert row.trace == pytest.approx(float(values.sum()), abs=max(4 * row.trace_stderr, 1e-3))
        scaled = theta.abs()[:, None] * dense * theta.abs()
        assert row.adaptive_sharpness == pytest.approx(float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-3)
        weights = torch.cat([theta[: 64 * 6], theta[64 * 6 + 6 : 64 * 6 + 66]])
        assert row.normalized_sharpness == pytest.approx(float(values[-1] * weights.square().sum()), rel=1e-3)


def test_order_and_company_change_nothing(serial, tmp_path):
    turned = run(Sweep(sweep().runs[::-1]), PROBES, store=tmp_path, progress=False)
    same(runner_module.Result(turned.runs[::-1], turned.records[::-1]), serial)


def test_one_by_one_changes_nothing(serial, tmp_path):
    for one in sweep().runs[:3]:
        run(Sweep((one,)), PROBES, store=tmp_path, progress=False)
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)


def test_worker_processes_change_nothing(serial, tmp_path):
    with ProcessPoolExecutor(2, mp_context=OTHERS) as executor:
        same(run(sweep(), PROBES, store=tmp_path, executor=executor, progress=False), serial)


def test_jobs_from_the_environment(serial, tmp_path, monkeypatch):
    monkeypatch.setenv("THREEFACTORS_JOBS", "1")
    monkeypatch.setenv("THREEFACTORS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("THREEFACTORS_PROGRESS", str(tmp_path / "progress"))
    same(run(sweep(), PROBES), serial)
    assert (tmp_path / "progress").read_text().splitlines()[-1] == "12 12"


def test_a_network_that_only_this_process_knows_reaches_the_workers(tmp_path, monkeypatch):
    """As one that is defined in a notebook: there is nothing to import it from."""

    @dataclass(frozen=True)
    class Own(Architecture):
        def build(self, inputs, outputs):
            return torch.nn.Linear(inputs, outputs)

    own = sweep(task=Task(model=Own(), train_size=128), lr=0.1, batch_size=32, seed=range(2))
    here = run(own, [Loss()], store=tmp_path / "here", progress=False).table()
    monkeypatch.setenv("THREEFACTORS_JOBS", "1")
    there = run(own, [Loss()], store=tmp_path / "there", progress=False).table()
    np.testing.assert_allclose(there["train_loss"], here["train_loss"], rtol=1e-5)


def test_second_run_computes_nothing(serial, tmp_path, monkeypatch):
    run(sweep(), PROBES, store=tmp_path, progress=False)
    nothing_may_be_trained(monkeypatch)
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)


def test_a_larger_sweep_computes_what_is_missing(tmp_path, monkeypatch):
    run(sweep(seed=range(2)), [Loss()], store=tmp_path, progress=False)
    trained = []
    whole = runner_module.train_stack
    monkeypatch.setattr(
        runner_module, "train_stack", lambda stack, *a, **k: (trained.extend(stack.runs), whole(stack, *a, **k))
    )
    run(sweep(seed=range(3)), [Loss()], store=tmp_path, progress=False)
    assert {one.seed for one in trained} == {2}
    assert len(trained) == 4


def nothing_may_be_trained(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("training was started")

    monkeypatch.setattr(runner_module, "train_stack", refuse)


def in_a_process(store, seeds, writes=None):
    """A sweep as the work of a process; its last result is written, but not yet in place, when it is killed."""
    turns, replace = itertools.count(), os.replace  # the first write is the check of the store itself

    def replace_or_die(*names):
        if next(turns) == writes:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = replace_or_die
    run(sweep(seed=range(seeds)), PROBES, store=store, progress=False)


def start(*arguments):
    process = OTHERS.Process(target=in_a_process, args=arguments)
    process.start()
    return process


def test_kill_nine_and_run_again(tmp_path):
    """Killed in the middle, the sweep goes on where it stopped and ends with the same numbers."""
    seeds, writes = 5, 15  # of twenty: one stack is done, the other one half
    process = start(tmp_path / "killed", seeds, writes)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    store = Store(tmp_path / "killed")
    kept = {path: path.stat().st_mtime_ns for path in store.folder.glob("??/*.json")}
    assert len(kept) == writes - 1
    assert len(list(store.folder.rglob(".writing-*"))) == 1
    again = run(sweep(seed=range(seeds)), PROBES, store=store.folder, progress=False)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()), "something was computed twice"
    same(again, run(sweep(seed=range(seeds)), PROBES, store=tmp_path / "whole", progress=False))


def test_two_at_once_on_one_store(serial, tmp_path):
    processes = [start(tmp_path, 3) for _ in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert len(Store(tmp_path)) == 12
    assert not list(tmp_path.rglob(".writing-*"))
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)


def test_a_flipped_bit_is_noticed_set_aside_and_computed_again(serial, tmp_path):
    run(sweep(), PROBES, store=tmp_path, progress=False)
    victim = sorted(tmp_path.glob("??/*.json"))[5]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)
    assert victim.with_suffix(".bad").read_bytes() == content
    assert victim.read_bytes() != content


def test_a_torn_file_is_never_taken(tmp_path):
    store = Store(tmp_path)
    store.put("ab" * 32, {"end": {"a": np.arange(3.0), "b": float("nan"), "c": 0.1}})
    got = store.get("ab" * 32)
    np.testing.assert_equal(got, {"end": {"a": np.arange(3.0), "b": float("nan"), "c": 0.1}})
    path = store.path("ab" * 32)
    path.write_bytes(path.read_bytes()[:-20])
    assert store.get("ab" * 32) is None
    assert store.get("cd" * 32) is None


def test_a_store_that_cannot_be_written_fails_before_any_work(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    nothing_may_be_trained(monkeypatch)
    with pytest.raises(StoreError, match=f"store {blocked}.*--store DIR"):
        run(sweep(), [Loss()], store=blocked / "store")


def test_a_full_disk_keeps_what_was_computed(tmp_path, monkeypatch):
    """The fifth write finds the disk full: the error says so, four results stay, no half file remains."""
    count, fsync = iter(range(100)), os.fsync

    def full(handle):
        if next(count) >= 5:  # the first is the check of the store itself
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"the disk is full; free some space .*What was computed is kept"):
        run(sweep(), [Loss()], store=tmp_path, progress=False)
    assert len(Store(tmp_path)) == 4
    assert not list(tmp_path.rglob(".writing-*"))


def test_what_cannot_be_stored_ends_the_training_of_the_others(tmp_path, monkeypatch):
    """A run that diverges is stored at once; when that fails, the other one is not trained to its far end."""
    looks = []

    def refuse(store, name, record):
        raise StoreError("the disk is full")

    def count(probe, trainer, runs):
        looks.append(runs)
        return [{} for _ in runs]

    monkeypatch.setattr(Store, "put", refuse)
    monkeypatch.setattr(work_module, "take", count)
    both = Sweep.grid(TINY, lr=[1e6, 0.01], batch_size=8, seed=0, until=Epochs(3000))
    assert len(both.stacks()) == 1
    with pytest.raises(StoreError, match="disk is full"):
        run(both, [Loss(at=Every(1))], store=tmp_path, progress=False)
    assert len(looks) < 1500


def test_keys_tell_apart_what_differs():
    one, other = Run(TINY, SGD(0.1, 8), 0, Epochs(1)), Run(TINY, SGD(0.1, 8), 1, Epochs(1))
    names = {
        key(one, (Loss(),), "x"), key(other, (Loss(),), "x"), key(one, (Accuracy(),), "x"),
        key(one, (Loss(at=Every(1)),), "x"), key(one, (Loss(),), "y"), key(one, (Loss(), Accuracy()), "x"),
    }  # fmt: skip
    assert len(names) == 6


def test_probes_look_when_asked(tmp_path):
    probes = [Loss(at=Every(2)), Accuracy(at=AtClock((0.5, 1.0))), Loss()]
    result = run(sweep(lr=0.1, batch_size=16, until=Epochs(4)), probes, store=tmp_path, progress=False)
    series = result.series()
    seen = series[series.train_loss.notna()].groupby("seed").epoch.apply(list)
    assert seen.tolist() == [[0, 2, 4]] * 3
    clocks = series[series.validation_accuracy.notna()].groupby("seed").at_clock.apply(list)
    assert [np.round(c, 9).tolist() for c in clocks] == [[0.8, 1.6]] * 3  # the ends of the epochs that cross them
    last = series[series.epoch == 4].set_index("seed").train_loss
    pd.testing.assert_series_equal(last, result.table().set_index("seed").train_loss, check_exact=True)


def test_diverged_and_unfinished_runs_are_there(tmp_path):
    result = run(sweep(lr=[0.05, 1e6], until=Steps(40)), [Loss(), Sharpness()], store=tmp_path, progress=False)
    table = result.table()
    assert len(table) == 12
    wild = table[table.lr > 1]
    assert wild.diverged.all()
    assert (wild.diverged_at >= 0).all()
    assert wild.sharpness.isna().all()
    assert len(result.diverged) == 6
    assert table[table.lr < 1].finished.all()


def test_spectrum_has_unit_mass_and_the_trace(tmp_path):
    result = run(sweep(seed=[0]), [Spectrum(steps=30, probes=8), Moments(probes=60)], store=tmp_path, progress=False)
    for row in result.table().itertuples():
        np.testing.assert_allclose(row.spectrum_weights.sum(-1), 1, rtol=1e-5)
        mean = (row.spectrum_weights * row.spectrum_nodes).sum(-1)
        parameters = 64 * 8 + 8 + 8 * 10 + 10
        error = parameters * mean.std(ddof=1) / len(mean) ** 0.5
        assert abs(parameters * mean.mean() - row.trace) < 4 * (error + row.trace_stderr)


@dataclass(frozen=True)
class NoTime:
    def measure(self, trainer, runs):
        return {}


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("sharpness", "is no probe; use Loss, Accuracy, Sharpness"),
        (Loss, "is no probe"),
        (NoTime(), r"NoTime\(at=None\): use 'end', Every"),
        (Loss(at="sometimes"), r"Loss\(at='sometimes'\)"),
    ],
)
def test_unknown_probes_are_refused(tmp_path, probe, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(sweep(), [probe], store=tmp_path)


def test_bad_requests_fail_before_any_work(tmp_path, monkeypatch):
    nothing_may_be_trained(monkeypatch)
    with pytest.raises(ValueError, match=r"batch_size=256 .*exceeds the 128 training examples"):
        run(sweep(batch_size=[16, 256]), [Loss()], store=tmp_path)
    with pytest.raises(ValueError, match="train_size=5000 exceeds the 1152"):
        run(sweep(task=Task(train_size=5000)), [Loss()], store=tmp_path)
    with pytest.raises(ValueError, match="dataset='nowhere' is unknown"):
        run(sweep(task=Task(dataset="nowhere")), [Loss()], store=tmp_path)
    with pytest.raises(ValueError, match=r"Every\(0\)"):
        Every(0)
    with pytest.raises(ValueError, match="at least one time"):
        AtClock(())
    with pytest.raises(ValueError, match="split='train'"):
        Accuracy("train")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"device='cuda' but torch .* finds no GPU; use cpu"):
        run(sweep(), [Loss()], store=tmp_path, device="cuda")
    with pytest.raises(SettingsError, match="device='gpu0' is unknown; use cpu, cuda or cuda:N"):
        run(sweep(), [Loss()], store=tmp_path, device="gpu0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match="device='cuda:3' but there is 1 GPU; use cuda:0"):
        run(sweep(), [Loss()], store=tmp_path, device="cuda:3")


def test_any_executor_serves(serial, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        same(run(sweep(), PROBES, store=tmp_path, executor=executor, progress=False), serial)


@dataclass(frozen=True)
class Killer:
    """A probe that ends the process of one run, as running out of memory would: the first so many times."""

    folder: str
    times: int
    seed: int = 2
    at: str = "end"

    def measure(self, trainer, runs):
        deaths = len(os.listdir(self.folder))
        if deaths < self.times and any(
            trainer.runs[i].seed == self.seed and trainer.runs[i].sgd.lr == 0.1 for i in runs
        ):
            open(os.path.join(self.folder, str(deaths)), "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


def small(**changes):
    """Six runs of one batch size: three stacks, with one worker."""
    return sweep(batch_size=16, **changes)


@pytest.fixture
def one_job(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEFACTORS_JOBS", "1")
    monkeypatch.setenv("THREEFACTORS_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setattr(executors, "SHARES", 3)
    (tmp_path / "deaths").mkdir()
    yield tmp_path
    assert [int(line.split()[0]) for line in (tmp_path / "progress").read_text().splitlines()][-1] <= 6


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(one_job):
    probes = [Loss(), Killer(str(one_job / "deaths"), 1)]
    result = run(small(), probes, store=one_job / "store")
    assert len(os.listdir(one_job / "deaths")) == 1
    plain = run(small(), [Loss()], store=one_job / "plain", progress=False)
    pd.testing.assert_frame_equal(result.table(), plain.table(), check_exact=True)
    assert (one_job / "progress").read_text().splitlines()[-1] == "6 6"


@pytest.mark.slow
def test_a_run_that_kills_every_worker_is_found_and_named(one_job):
    probes = [Loss(), Killer(str(one_job / "deaths"), 99)]
    with pytest.raises(RuntimeError, match=r"1 run fails even alone: digits.*lr=0\.1, .*seed=2: its worker dies each"):
        run(small(), probes, store=one_job / "store")
    assert len(Store(one_job / "store")) == 5
    assert len(os.listdir(one_job / "deaths")) == 3  # in company, and twice alone
    assert (one_job / "progress").read_text().splitlines()[-1] == "5 6"


@dataclass(frozen=True)
class Poison:
    """A probe that fails for one batch size, and there for the seeds given."""

    seeds: tuple[int, ...]
    at: str = "end"

    def measure(self, trainer, runs):
        if trainer.runs[0].sgd.batch_size == 32 and any(trainer.runs[i].seed in self.seeds for i in runs):
            raise ArithmeticError("poisoned")
        return {}


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((1,), r"2 runs fail even alone, the first is .*batch_size=32, seed=1: it raises Arithm.*poisoned.*\. All"),
        (range(6), r"[345] runs fail even alone, .*; [789] more failed with others and were not tried alone\."),
    ],
)
def test_a_poisoned_stack_leaves_the_others_whole(tmp_path, seeds, said):
    """Of the stack itself the healthy runs are saved; where all fail, that is found out soon and not twelve times."""
    both = sweep(batch_size=[32, 16], seed=range(6))
    with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match=said):
        run(both, [Loss(), Poison(tuple(seeds))], store=tmp_path, executor=executor, progress=False)
    assert len(Store(tmp_path)) == 24 - 2 * len(seeds)


def test_clock_runs_have_their_clock(tmp_path):
    table = run(sweep(until=Clock(1.5)), [Loss()], store=tmp_path, progress=False).table()
    np.testing.assert_allclose(table.clock, 1.5, rtol=1e-9)
