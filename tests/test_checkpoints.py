"""Checkpoints: a stack that is interrupted anywhere goes on where it stood, to the same numbers bit for bit."""

import errno
import importlib
import itertools
import logging
import os
import signal
import time

import pytest
import torch
from threefactors.experiments import (
    Accuracy,
    AtClock,
    Every,
    Loss,
    Moments,
    Result,
    Spectrum,
    Store,
    Weights,
    run,
)
from threefactors.experiments import checkpoints as checkpoints_module
from threefactors.experiments import work as work_module
from threefactors.experiments.checkpoints import Checkpoints
from threefactors.training import MLP, Clock, ConvNet, Epochs, Stack, Steps, Sweep, Task, Trainer, TrainLoss, load
from threefactors.training.augmentation import Augmentation

from tests.test_experiments import OTHERS, same, sweep

train_module = importlib.import_module("threefactors.training.train")  # the package has a function of that name
PROBES = [
    Loss(at=Every(2)), Accuracy(at=AtClock((0.6, 1.3))), Spectrum(3, 2, at=Every(3)), Loss(), Moments(probes=4),
    Weights(),
]  # fmt: skip
CASES = {
    "epochs": {"until": Epochs(5)},
    "steps": {"until": Steps(37)},
    "clock": {"until": Clock(1.7)},
    "loss": {"until": TrainLoss(0.9, at_most=Epochs(8))},
    "loss, often": {"until": TrainLoss(0.9, at_most=Epochs(8), every=0.3)},
    "momentum": {"momentum": 0.9, "lr": [0.01, 0.02], "until": Epochs(5)},
    "isotropic noise": {"gradient_noise": 0.1, "momentum": 0.5, "until": Epochs(4)},
    "covariance noise": {"gradient_noise": 1.0, "gradient_noise_like": "covariance", "until": Epochs(4)},
    "label flips": {"label_flips": 0.2, "label_draws": 2, "until": Epochs(4)},
    "svag": {"svag": 2, "until": Epochs(4)},
    "importance": {"importance": 0.5, "sampling": "replacement", "until": Epochs(4)},
    "antithetic": {"antithetic": True, "label_flips": 0.2, "until": Epochs(4)},
    "replacement": {"sampling": "replacement", "until": Epochs(4)},
    "diverging": {"lr": [0.1, 40.0], "until": Epochs(5)},
    "label noise": {"task": Task(model=MLP((8,), batch_norm=16), train_size=128, label_noise=0.3), "until": Epochs(4)},
}


class Interrupted(Exception):
    pass


@pytest.fixture
def often(monkeypatch):
    """A checkpoint at every epoch's end, each of them a pause."""
    monkeypatch.setattr(checkpoints_module, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints_module, "DUTY", 0.0)
    monkeypatch.setattr(train_module, "SEGMENT", 1)


def until_written(rest, then=lambda: None):
    """``rest`` of a training that waits for its checkpoint."""

    def waiting(self, runs):
        rest(self, runs)
        if self.written is not None:
            self.written.result()
        then()

    return waiting


def interrupted(pauses, work, error=Interrupted):
    """The work, broken off behind the checkpoint of its n-th pause."""
    count = itertools.count(1)

    def stop():
        if next(count) == pauses:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_module._Training, "rest", until_written(work_module._Training.rest, stop))
        with pytest.raises(error):
            work()


def left(store):
    return sorted(path.name for path in (store / "checkpoints").glob("*") if path.suffix == ".pt")


@pytest.mark.parametrize("case", CASES)
def test_interrupted_anywhere_changes_nothing(often, case, tmp_path):
    """Broken off at the second pause, and again at the next."""
    settings = {"seed": range(2), "batch_size": 16, **CASES[case]}
    whole = run(sweep(**settings), PROBES, store=tmp_path / "whole", progress=False)
    broken = tmp_path / "broken"
    for pauses in (2, 1):
        interrupted(pauses, lambda: run(sweep(**settings), PROBES, store=broken, progress=False))
        assert left(broken)
    again = run(sweep(**settings), PROBES, store=broken, progress=False)
    same(again, whole)
    assert any(record["provenance"]["resumed"] for record in again.records)
    assert not any(record["provenance"]["resumed"] for record in whole.records)
    assert any("interruption" in line for line in again.incidents)
    assert whole.incidents == ()
    assert left(broken) == left(tmp_path / "whole") == []


@pytest.mark.parametrize("sampling", ["epoch", "replacement"])
def test_counted_draws_go_on_too(often, sampling, tmp_path, monkeypatch):
    """As those of large training sets are."""
    monkeypatch.setattr("threefactors.training.sampling.COUNTED", 10)
    settings = {"seed": range(2), "batch_size": 16, "sampling": sampling, "until": Epochs(4)}
    whole = run(sweep(**settings), PROBES, store=tmp_path / "whole", progress=False)
    interrupted(2, lambda: run(sweep(**settings), PROBES, store=tmp_path / "broken", progress=False))
    same(run(sweep(**settings), PROBES, store=tmp_path / "broken", progress=False), whole)


@pytest.mark.parametrize("engine", ["kernel", "by hand", "captured", "autograd", "augmented"])
def test_every_engine_goes_on_bit_for_bit(engine):
    """State taken at a pause and handed to a new trainer."""
    images = Task(model=ConvNet(stages=((8,),), hidden=()), train_size=64, augmentation=Augmentation(crop=1))
    task = images if engine == "augmented" else Task(model=MLP((8,)), train_size=64)
    engine = None if engine == "augmented" else engine
    stack = Stack(Sweep.grid(task, lr=[0.05, 0.1], batch_size=16, momentum=0.5, seed=range(2), until=Epochs(4)).runs)
    whole = Trainer(stack, load("digits"), engine=engine).train()
    taken = {}

    def take(epoch, runs, ended):
        if epoch == 2 and not ended:
            taken.update({i: trainer.state(i) for i in runs})

    trainer = Trainer(stack, load("digits"), engine=engine)
    trainer.train(take, lambda epoch, before, after: epoch == 2)
    assert torch.equal(trainer.theta, whole.theta)  # to be looked at changes nothing
    again = Trainer(stack, load("digits"), engine=engine)
    again.restore([taken[i] for i in range(len(stack))])
    again.train()
    assert torch.equal(again.theta, whole.theta)
    assert (again.steps, again.clock, again.epochs) == (whole.steps, whole.clock, whole.epochs)
    assert taken[0]["epoch"] == 2


@pytest.mark.parametrize("forgotten", ["draws", "noise", "velocity", "passes", "looked"])
def test_a_planted_gap_in_the_state_shows(often, forgotten, tmp_path, monkeypatch):
    """Each part of the state is needed: without it some number comes out otherwise."""
    settings = {"gradient_noise": 0.1, "momentum": 0.5, "until": TrainLoss(0.9, at_most=Epochs(6), every=0.37)}
    whole = run(sweep(seed=[0], **settings), PROBES, store=tmp_path / "whole", progress=False)
    state = Trainer.state

    def gap(self, i):
        fresh = Trainer(Stack((self.runs[i],)), self.data)
        return {**state(self, i), forgotten: state(fresh, 0)[forgotten]}

    monkeypatch.setattr(Trainer, "state", gap)
    work = lambda: run(sweep(seed=[0], **settings), PROBES, store=tmp_path / "broken", progress=False)  # noqa: E731
    interrupted(2, work)
    with pytest.raises(AssertionError):
        same(work(), whole)


def in_a_process(store, writes):
    """A sweep whose process is killed when it is about to move its n-th file into place."""
    checkpoints_module.EVERY = checkpoints_module.DUTY = 0.0
    turns, replace = itertools.count(), os.replace

    def replace_or_die(*names):
        if next(turns) == writes:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = replace_or_die
    rest = work_module._Training.rest
    work_module._Training.rest = until_written(rest)
    train_module.SEGMENT = 1
    run(sweep(until=Epochs(6)), PROBES, store=store, progress=False)


def test_kill_nine_in_the_middle_of_a_stack(tmp_path):
    """Killed within the third checkpoint, half of the runs stand an epoch ahead of the others; all go on."""
    process = OTHERS.Process(target=in_a_process, args=(tmp_path / "killed", 1 + 6 * 2 + 3))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert len(Store(tmp_path / "killed")) == 0
    assert len(left(tmp_path / "killed")) == 6
    again = run(sweep(until=Epochs(6)), PROBES, store=tmp_path / "killed", progress=False)
    same(again, run(sweep(until=Epochs(6)), PROBES, store=tmp_path / "whole", progress=False))
    happened = [record["provenance"] for record in again.records]
    assert [one["resumed"] for one in happened].count(True) == 6
    assert {one["stack"] for one in happened if one["resumed"]} == {3}  # those that stand at the same epoch


def test_what_is_in_the_store_is_not_trained_again_and_each_run_counted_once(often, tmp_path, monkeypatch):
    """Half of a stack ends before the interruption. What is left finds its checkpoints in the company of new runs."""
    until = TrainLoss(1.5, at_most=Epochs(8))
    few, all_of_them = sweep(batch_size=16, until=until), sweep(batch_size=16, seed=range(5), until=until)
    whole = run(all_of_them, PROBES, store=tmp_path / "whole", progress=False)
    epochs = {one: int(record["epochs"]) for one, record in zip(whole.runs, whole.records, strict=True)}
    assert len({epochs[one] for one in few}) > 1
    interrupted(min(epochs[one] for one in few), lambda: run(few, PROBES, store=tmp_path / "broken", progress=False))
    done = len(Store(tmp_path / "broken"))
    assert 0 < done < len(few)
    monkeypatch.setenv("THREEFACTORS_PROGRESS", str(tmp_path / "progress"))
    again = run(all_of_them, PROBES, store=tmp_path / "broken")
    same(again, whole)
    assert [record["provenance"]["resumed"] for record in again.records].count(True) == len(few) - done
    missing = len(all_of_them) - done
    assert (tmp_path / "progress").read_text().splitlines() == [f"{i} {missing}" for i in range(1, missing + 1)]


def test_a_task_that_is_sent_twice_trains_what_is_missing(tmp_path, monkeypatch):
    """As a scheduler does when a worker is lost: what the first one stored stays as it is."""
    result = run(sweep(batch_size=16), [Loss()], store=tmp_path, progress=False)
    (stack,) = sweep(batch_size=16).stacks()
    names = {one: path.stem for one, path in zip(result.runs, sorted(tmp_path.glob("??/*.json")), strict=True)}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("??/*.json")}
    counted = []
    options = {"probes": (Loss(),), "store": str(tmp_path), "device": "cpu", "root": None, "each": counted.append}
    work_module.train_stack(stack, names, **options)
    assert sum(counted) == len(stack)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("??/*.json")}


DAMAGE = {
    "a flipped bit": lambda path, content: path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]),
    "a torn file": lambda path, content: path.write_bytes(content[:-20]),
    "something else": lambda path, content: path.write_bytes(b"# not a checkpoint\n"),
    "nothing": lambda path, content: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_its_run_starts_anew(often, damage, tmp_path):
    whole = run(sweep(batch_size=16, until=Epochs(4)), PROBES, store=tmp_path / "whole", progress=False)
    broken = tmp_path / "broken"
    interrupted(2, lambda: run(sweep(batch_size=16, until=Epochs(4)), PROBES, store=broken, progress=False))
    victim = broken / "checkpoints" / left(broken)[3]
    DAMAGE[damage](victim, victim.read_bytes())
    again = run(sweep(batch_size=16, until=Epochs(4)), PROBES, store=broken, progress=False)
    same(again, whole)
    assert victim.with_suffix(".bad").exists()
    assert [record["provenance"]["resumed"] for record in again.records].count(True) == 5


def test_another_engine_does_not_go_on_with_it(often, tmp_path, monkeypatch):
    """Half by one engine and half by another would be neither's numbers."""
    broken, settings = tmp_path / "broken", {"batch_size": 16, "until": Epochs(4)}
    interrupted(2, lambda: run(sweep(**settings), PROBES, store=broken, progress=False))
    before = len(left(broken))
    monkeypatch.setattr("threefactors.experiments.work._maker", lambda trainer: "Another on cuda, torch 9.9")
    again = run(sweep(**settings), PROBES, store=broken, progress=False)
    assert not any(record["provenance"]["resumed"] for record in again.records)
    assert len(list((broken / "checkpoints").glob("*.bad"))) == before
    same(again, run(sweep(**settings), PROBES, store=tmp_path / "whole", progress=False))


def test_a_checkpoint_runs_no_code(tmp_path):
    """What is read back is numbers: a file that would call something when loaded is set aside unread."""
    kept, called = Checkpoints(Store(tmp_path)), tmp_path / "called"

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(called),))

    kept.put("a" * 64, {"series": [], "trainer": Trap()}, "x")
    assert kept.get("a" * 64, "x") is None
    assert not called.exists()
    kept.put("b" * 64, {"series": [{"a": 0.1}], "trainer": {"clock": 0.1 + 0.2}}, "x")
    assert kept.get("b" * 64, "x") == {"series": [{"a": 0.1}], "trainer": {"clock": 0.1 + 0.2}}


def test_short_stacks_write_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "put", lambda *_: pytest.fail("a checkpoint was written"))
    run(sweep(), [Loss()], store=tmp_path, progress=False)
    assert not (tmp_path / "checkpoints").exists()


def test_the_interval_is_kept(tmp_path, monkeypatch):
    """The clock says how often: at most once in EVERY seconds, and one in DUTY of the time."""
    now, writes = itertools.count(0.0, 1.0), []
    monkeypatch.setattr(train_module, "SEGMENT", 1)
    monkeypatch.setattr(work_module.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(checkpoints_module, "EVERY", 20.0)
    monkeypatch.setattr(Checkpoints, "put_all", lambda self, states, maker: writes.append(len(states)) or 0.0)
    run(sweep(batch_size=16, lr=0.1, seed=[0], until=Epochs(100)), [Loss()], store=tmp_path, progress=False)
    assert 100 / 20 / 2 <= len(writes) <= 100 / 20 * 2


def test_a_disk_without_room_for_checkpoints_ends_nothing(often, tmp_path, monkeypatch, caplog):
    write = Store._write

    def full(self, path, content):
        if path.suffix == ".pt":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, content)

    monkeypatch.setattr(Store, "_write", full)
    with caplog.at_level(logging.WARNING, "threefactors"):
        result = run(sweep(until=Epochs(4)), PROBES, store=tmp_path, progress=False)
    assert len(result) == len(Store(tmp_path)) == 12
    assert "No space left on device" in caplog.text


def test_what_nobody_takes_up_is_forgotten(tmp_path):
    kept = Checkpoints(Store(tmp_path))
    for name in ("old", "new"):
        kept.put(name, {"series": []}, "x")
    old = time.time() - checkpoints_module.FORGOTTEN - 1
    os.utime(kept.path("old"), (old, old))
    Checkpoints(Store(tmp_path)).put("other", {"series": []}, "x")
    assert left(tmp_path) == ["new.pt", "other.pt"]


def test_states_that_do_not_fit_are_refused():
    stack = Stack(sweep(batch_size=16).runs[:2])
    trainer = Trainer(stack, load("digits"))
    state = trainer.state(0)
    for states in ([state], [state, {**state, "epoch": 3}], [state, {**state, "theta": torch.zeros(3)}]):
        with pytest.raises(ValueError, match="give one for each run, all of one epoch"):
            trainer.restore(states)


def test_records_of_older_stores_need_no_new_provenance():
    assert Result((), ({"provenance": {"engine": "Kernel"}},)).incidents == ()
