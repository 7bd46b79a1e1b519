"""Memory: what a stack takes is known before it is trained; what does not fit is made smaller, no number changes."""

import importlib
import logging
import resource
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from threefactors.cli import main
from threefactors.experiments import Every, Loss, Moments, Result, Store, Weights, run
from threefactors.experiments import memory as memory_module
from threefactors.experiments import work as work_module
from threefactors.experiments.faults import device_failed, out_of_memory
from threefactors.experiments.memory import GIB, SHARE, Budget, TooLittleMemory, halving, parts, within
from threefactors.experiments.peaks import Need, _Live, _peaks, counted, largest_batch, measured
from threefactors.experiments.probes import _hessian
from threefactors.settings import Settings, SettingsError
from threefactors.training import (
    MLP,
    SGD,
    ConvNet,
    Dataset,
    Epochs,
    Run,
    SquareCycle,
    Stack,
    Steps,
    Sweep,
    Task,
    Trainer,
    kernel,
    load,
)
from threefactors.training.engines import DeviceError

from tests.test_experiments import OTHERS, nothing_may_be_trained, same, sweep

PROBES = [Loss(at=Every(1)), Loss(), Moments(probes=4), Weights()]
IMAGES = Task(model=ConvNet(stages=((8,), (16,)), hidden=()), train_size=256)
NETWORKS = {
    "convolutional": IMAGES,
    "batch norm": Task(model=ConvNet(stages=((8,), (8,)), batch_norm=16), train_size=128),
    "residual": Task(model=ConvNet(stages=((8,), (8, 8)), residual=True, features="average"), train_size=128),
}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return run(sweep(), PROBES, store=tmp_path_factory.mktemp("serial"), progress=False)


@pytest.fixture(autouse=True)
def counts_of_references_must_do(monkeypatch):
    """To look for cycles takes half a second among all that tests import; and there are none that hold tensors."""
    monkeypatch.setattr("threefactors.experiments.faults.gc.collect", lambda: 0)


FEW = {"batch_size": 16, "lr": 0.1}  # three runs


def same_as(result, whole):
    """Equal to what the larger sweep found for the same runs."""
    records = dict(zip(whole.runs, whole.records, strict=True))
    same(result, Result(result.runs, tuple(records[one] for one in result.runs)))


# What a stack takes


def test_need_is_the_highest_of_its_lines():
    need = Need(((100, 10), (150, 1)))
    assert [need.of(r) for r in (1, 5, 6, 20)] == [151, 155, 160, 300]
    assert [need.fitting(b) for b in (90, 150, 151, 159, 300)] == [0, 0, 1, 5, 20]
    for budget in range(100, 400, 7):
        r = need.fitting(budget)
        assert need.of(r + 1) > budget
        assert r == 0 or need.of(r) <= budget


def test_the_meter_on_a_cpu_counts_live_tensors():
    """Two tensors at once are two, one after another one; views and in-place results are none."""
    size = 1000 * 4
    with _Live() as meter:
        a = torch.zeros(1000)
        b = a.view(10, 100).add_(1).t()
        assert meter.lap() == size
        c = a + 1
        assert meter.lap() == 2 * size
        del c
        d = a * 2  # in the place of c
        assert meter.lap() == 2 * size
        del a, b, d
        meter.lap()
        assert meter.lap() == 0
        w = torch.ones(1000, requires_grad=True)
        loss = (w.exp() * 2).exp().sum()  # the graph keeps both exponentials
        assert 3 * size < meter.lap() <= 5 * size
        (g,) = torch.autograd.grad(loss, w)
        assert g.shape == w.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_the_measured_line_foretells_larger_stacks(name):
    """From one run and two: the peak of six, which is measured here, within a tenth; and no more than was counted."""
    runs = Sweep.grid(NETWORKS[name], lr=1e-9, batch_size=32, seed=range(6), until=Steps(3)).runs
    data, probes = load("digits"), (Moments(),)
    need, peaks = measured(runs[0], data, probes), _peaks(Stack(runs), data, -1)
    assert need.of(6) == pytest.approx(max(peaks), rel=0.1)
    for r in (1, 2, 6):
        assert need.of(r) <= counted(Stack(runs), data, probes).of(r)


def test_a_planted_hoard_is_measured(monkeypatch):
    """A trainer that keeps 4 MB more for each run takes 4 MB more for each run."""
    one = Sweep.grid(IMAGES, lr=0.1, batch_size=32, until=Epochs(1)).runs[0]
    before, own = measured(one, load("digits")), Trainer.__init__

    def hoard(self, stack, *rest, **options):
        own(self, stack, *rest, **options)
        self.hoard = torch.zeros(len(stack), 1 << 20)

    monkeypatch.setattr(Trainer, "__init__", hoard)
    each = measured(one, load("digits")).phases[0][1]
    assert each - before.phases[0][1] == pytest.approx(4 << 20, rel=0.01)


def test_the_largest_batch_to_come_is_what_is_measured():
    growing = SGD(0.1, 16, batch_schedule=SquareCycle(4, 1, 4))
    assert largest_batch(Run(IMAGES, growing, 0, Epochs(4)), 256) == 64
    assert largest_batch(Run(IMAGES, growing, 0, Epochs(2)), 256) == 16
    assert largest_batch(Run(IMAGES, replace(growing, batch_size=100), 0, Epochs(4)), 256) == 256
    large = measured(Run(IMAGES, growing, 0, Epochs(4)), load("digits"))
    small = measured(Run(IMAGES, growing, 0, Epochs(2)), load("digits"))
    assert large.phases[0][1] > small.phases[0][1]
    assert large.phases[1] == small.phases[1]  # an evaluation has nothing to do with it


@pytest.mark.parametrize("hidden", [(), (64, 64, 64), (300, 20)])
@pytest.mark.parametrize("batch_norm", [None, 16])
def test_what_is_counted_covers_the_c_kernels(hidden, batch_norm):
    """Their workspaces, as they say themselves, and all the tensors around them, which are measured here."""
    if not kernel.available():
        assert kernel.compiler() is None
        return
    task, data, probes = Task(model=MLP(hidden, batch_norm)), load("digits"), (Moments(),)
    stack = Stack(Sweep.grid(task, lr=1e-9, batch_size=64, momentum=0.9, seed=range(4), until=Steps(3)).runs)
    widths, seen = task.model.widths(data.inputs, data.classes), len(data.x_train) + len(data.x_test)
    scratch, hessian = kernel.scratch(widths, batch_norm, seen)
    need, threads = counted(stack, data, probes), torch.get_num_threads()
    assert threads * scratch < need.phases[0][0]
    assert kernel.scratch(widths, batch_norm, len(data.x_train))[1] < hessian < need.phases[1][0]
    peak = max(_peaks(stack, data, -1))
    assert peak < need.of(4) < 30 * peak


def test_what_is_counted_does_not_shut_out_what_fits():
    """MLPs on 60 000 images, 64 at once on a laptop of 16 GiB: the upper bound is not so high as to refuse them."""
    data = load("digits")
    train, test = (torch.zeros(1, 784).expand(count, -1) for count in (60_000, 10_000))
    images = replace(data, x_train=train, x_test=test)
    stack = Stack(Sweep.grid(Task(model=MLP((500,) * 3)), lr=0.1, batch_size=128, seed=range(64), until=Epochs(1)).runs)
    assert counted(stack, images, (Moments(),)).of(64) < 12 * GIB


# The budget


def test_the_budget_is_given_or_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * GIB))
    assert Budget("cpu").bytes() == round(SHARE * 10 * GIB)
    assert Budget("cpu", beside=4).bytes() == round(SHARE * 10 * GIB / 4)
    assert Budget("cpu", 0.5, beside=4).bytes() == GIB // 2
    assert str(Budget("cpu", beside=4)) == "2 GiB, 80% of what is free on cpu, divided among 4 processes"
    assert str(Budget("cpu", 0.5)) == "the 0.5 GiB given by --memory"


def test_on_a_gpu_blocks_that_this_process_holds_in_reserve_are_free(monkeypatch):
    held = {"mem_get_info": (3 * GIB, 80 * GIB), "memory_reserved": 6 * GIB, "memory_allocated": 4 * GIB}
    for name, value in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert Budget("cuda").bytes() == round(SHARE * 5 * GIB)
    assert Budget("cuda").room() == round(SHARE * 5 * GIB)
    assert Budget("cuda", 5).room() == GIB  # beside what the stack in training takes
    assert Budget("cuda", 4.5, beside=2).room() == GIB // 2


def test_curvature_on_a_gpu_takes_what_is_left(monkeypatch):
    """Half of the room for linearizations, half for vectors; shapes are all that is asked of the device here."""
    monkeypatch.setattr(Budget, "room", lambda self: 64 << 20)
    trainer = Trainer(Stack(sweep(batch_size=16).runs), load("digits"))
    there = SimpleNamespace(theta=trainer.theta.to("meta"), labels=trainer.labels.to("meta"), losses=trainer.losses)
    there.data = trainer.data.to("meta", torch.float32)
    op = _hessian(there, range(6), None)
    assert op.chunk == (32 << 20) // trainer.losses.curvature_bytes(128, torch.float32)
    assert op.budget == 32 << 20
    monkeypatch.setattr(Budget, "room", lambda self: -5)
    assert _hessian(there, range(6), None).chunk == 1  # never none: then memory itself will tell


def test_settings_carry_the_budget(tmp_path):
    there = Settings(tmp_path, memory=0.1)
    assert there.environment()["THREEFACTORS_MEMORY"] == "0.1"
    assert Settings.from_environment(there.environment()) == there
    assert Settings.from_environment({}).memory is None
    for text in ("0", "-2", "nan", "inf"):
        with pytest.raises(SettingsError, match=r"memory=.* is no number of GiB > 0; use such as 4"):
            Settings.from_environment({"THREEFACTORS_MEMORY": text})
    with pytest.raises(SettingsError, match=r"THREEFACTORS_MEMORY='much' is no number; use such as 4 or 0\.5"):
        Settings.from_environment({"THREEFACTORS_MEMORY": "much"})


def test_the_command_takes_the_budget(capsys):
    assert main(["doctor", "--memory", "much"]) == 1
    assert "THREEFACTORS_MEMORY='much' is no number" in capsys.readouterr().err


# Stacks in parts


def of_runs(count, probes=PROBES):
    """A budget in GiB that holds so many runs of the sweep and no more."""
    (stack, *_), data = sweep(batch_size=32).stacks(), load("digits")
    need = counted(stack, data, probes)
    return (need.of(count) + need.of(count + 1)) / 2 / GIB


def test_a_stack_is_trained_in_parts_that_fit(serial, tmp_path, monkeypatch):
    monkeypatch.setenv("THREEFACTORS_MEMORY", str(of_runs(2)))
    result = run(sweep(), PROBES, store=tmp_path, progress=False)
    same(result, serial)
    assert {(r["provenance"]["stack"], r["provenance"]["splits"]) for r in result.records} == {(2, 1)}
    assert {(r["provenance"]["stack"], r["provenance"]["splits"]) for r in serial.records} == {(6, 0)}
    assert result.incidents == (
        "12 of 12 runs were carried out in a smaller stack than asked for, because memory did not hold it",
    )


def test_workers_keep_to_the_budget(serial, tmp_path, monkeypatch):
    """It goes with the work, wherever that is carried out."""
    monkeypatch.setenv("THREEFACTORS_MEMORY", str(of_runs(1)))
    with ThreadPoolExecutor(1) as executor:
        result = run(sweep(**FEW), PROBES, store=tmp_path, executor=executor, progress=False)
    same_as(result, serial)
    assert {record["provenance"]["stack"] for record in result.records} == {1}


def test_parts_of_a_network_that_has_to_be_measured(monkeypatch):
    """Seven runs where three fit: parts of three, three and one would do, and so do these."""
    monkeypatch.setattr(memory_module, "_known", {})
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return Need(((0, GIB),))

    monkeypatch.setattr(memory_module, "measured", count)
    stack = Stack(Sweep.grid(IMAGES, lr=0.1, batch_size=32, seed=range(7), until=Epochs(1)).runs)
    pieces = parts(stack, load("digits"), Budget("cpu", 3.5))
    assert parts(stack, load("digits"), Budget("cpu", 100.0)) == [stack.runs]
    monkeypatch.setattr(memory_module, "counted", lambda *_: Need(((0, 9 * GIB),)))
    pieces = parts(stack, load("digits"), Budget("cpu", 3.5))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert sum(pieces, ()) == stack.runs
    assert [len(piece) for piece in parts(stack, load("digits"), Budget("cpu", 4.0))] == [4, 3]
    assert len(calls) == 1  # once a process, not once a stack


def test_small_stacks_are_not_measured(tmp_path, monkeypatch):
    """The default on the digits: what surely fits is not looked at more closely."""
    monkeypatch.setattr(memory_module, "measured", lambda *_: pytest.fail("a measurement was paid for"))
    run(sweep(task=IMAGES, until=Steps(2), **FEW), [Loss(), Moments(examples=32)], store=tmp_path, progress=False)


def test_one_run_that_does_not_fit_is_refused_before_any_work(tmp_path, monkeypatch):
    nothing_may_be_trained(monkeypatch)
    monkeypatch.setenv("THREEFACTORS_MEMORY", "1e-4")
    said = (
        r"one run of MLP 8 on 'digits' with batch_size=16 does not fit into memory: it takes 0\.0\d+ GiB, but may take "
        r"the 0\.0001 GiB given by --memory; use a smaller network, batch_size or train_size, more --memory"
    )
    with pytest.raises(TooLittleMemory, match=said):
        run(sweep(), PROBES, store=tmp_path, progress=False)
    assert len(Store(tmp_path)) == 0


def test_one_run_that_runs_out_while_it_is_measured_is_refused(monkeypatch):
    monkeypatch.setattr(memory_module, "_known", {})
    monkeypatch.setattr("threefactors.experiments.peaks.Trainer", lambda *_: (_ for _ in ()).throw(CUDA))
    stack = Stack(Sweep.grid(IMAGES, lr=0.1, batch_size=32, seed=range(2), until=Epochs(1)).runs)
    with pytest.raises(TooLittleMemory, match=r"more than there was when it was measured \(OutOfMemoryError: CUDA out"):
        parts(stack, load("digits"), Budget("cpu", 0.001))


def test_data_that_do_not_fit_are_refused_before_any_work(tmp_path, monkeypatch):
    nothing_may_be_trained(monkeypatch)
    monkeypatch.setattr(Dataset, "to", lambda *_: (_ for _ in ()).throw(CUDA))
    with pytest.raises(TooLittleMemory, match=r"dataset='digits' does not fit into the memory of cpu .*CUDA out of"):
        run(sweep(), PROBES, store=tmp_path, progress=False)


# Out of memory all the same

CUDA = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
WORDS = {
    "cuda": CUDA,
    "cpu": RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
    "python": MemoryError(),
    "driver": RuntimeError("CUDA error: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.mark.parametrize("who", WORDS)
def test_all_words_for_it_are_known(who):
    assert out_of_memory(WORDS[who])
    assert not device_failed(WORDS[who])


def test_other_errors_are_not_taken_for_it():
    for error in (RuntimeError("shapes differ"), ValueError("can't allocate memory"), RuntimeError("CUDA error: 700")):
        assert not out_of_memory(error)
    assert device_failed(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert device_failed(DeviceError("the graph of the driver"))
    assert not device_failed(RuntimeError("shapes differ"))


@pytest.fixture
def allocator(monkeypatch):
    """An allocator that refuses to train, or to measure, more than so many runs together."""

    def limit(training=10**9, measuring=10**9, error=CUDA, after=0):
        calls = []

        advance = Trainer._advance

        def together(self, plans):
            calls.append(len(self.runs))
            if len(self.runs) > training and len(calls) > after:
                raise type(error)(*error.args)
            advance(self, plans)

        monkeypatch.setattr(Trainer, "_advance", together)
        measure = Moments.measure

        def few(self, trainer, runs):
            if len(runs) > measuring:
                raise type(error)(*error.args)
            return measure(self, trainer, runs)

        monkeypatch.setattr(Moments, "measure", few)
        return calls

    return limit


@pytest.mark.parametrize("who", ["cuda", "cpu"])
def test_a_stack_that_runs_out_of_memory_is_halved_and_goes_on(serial, who, allocator, tmp_path, caplog):
    """Three runs, of which two fit."""
    allocator(training=2, error=WORDS[who])
    with caplog.at_level(logging.WARNING, "threefactors"):
        result = run(sweep(**FEW), PROBES, store=tmp_path, progress=False)
    same_as(result, serial)
    assert sorted(record["provenance"]["stack"] for record in result.records) == [1, 2, 2]
    assert {record["provenance"]["splits"] for record in result.records} == {1}
    library = logging.getLogger("threefactors")
    assert any(isinstance(handler, logging.NullHandler) for handler in library.handlers)  # nothing on stderr
    assert "3 runs ran out of memory" in caplog.text
    assert len(result.incidents) == 1


def test_in_the_middle_of_training_too(serial, allocator, tmp_path, monkeypatch):
    monkeypatch.setattr(work_module.checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(importlib.import_module("threefactors.training.train"), "SEGMENT", 1)
    calls = allocator(training=1, after=1)
    result = run(sweep(**FEW), PROBES, store=tmp_path, progress=False)
    same_as(result, serial)
    assert calls[:2] == [3, 3]
    assert all(record["provenance"]["resumed"] for record in result.records)


def test_an_attempt_that_failed_holds_no_memory(allocator, tmp_path, monkeypatch):
    """A traceback holds the tensors of all its frames: they are gone when the next attempt asks for its own."""
    allocator(training=2)
    own, alive = Trainer.__init__, []

    def watched(self, *arguments, **options):
        alive.append([ref for ref in held if ref() is not None])
        own(self, *arguments, **options)
        held.append(weakref.ref(self.theta))

    held = []
    monkeypatch.setattr(Trainer, "__init__", watched)
    run(sweep(**FEW), [Loss()], store=tmp_path, progress=False)
    assert alive == [[]] * 3  # of 3, 2 and 1 runs


def test_measurements_are_halved_before_the_stack_is(serial, allocator, tmp_path):
    allocator(measuring=1)
    result = run(sweep(**FEW), PROBES, store=tmp_path, progress=False)
    same_as(result, serial)
    for record in result.records:
        assert (record["provenance"]["stack"], record["provenance"]["splits"]) == (3, 0)
        assert record["provenance"]["measured_apart"] == 2
    assert "measured in halves" in result.incidents[0]


def test_one_run_that_runs_out_of_memory_ends_it_and_what_is_finished_is_kept(serial, allocator, tmp_path, monkeypatch):
    """The stack of S = 16 went through; the one of 32 has no memory even for one run, which the error says."""
    spared = sweep(batch_size=16)
    advance = Trainer._advance

    def large(self, plans):
        if plans[0].order.shape[1] == 32:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        advance(self, plans)

    monkeypatch.setattr(Trainer, "_advance", large)
    said = r"one run .*batch_size=32 .*it takes OutOfMemoryError: CUDA out of memory.*What had ended is in the store"
    with pytest.raises(TooLittleMemory, match=said):
        run(sweep(), PROBES, store=tmp_path, progress=False)
    assert len(Store(tmp_path)) == len(spared)
    monkeypatch.setattr(Trainer, "_advance", advance)
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)


def test_halving_keeps_the_order_and_gives_up_at_one():
    asked = []

    def work(runs):
        asked.append(list(runs))
        if len(runs) > 2:
            raise MemoryError
        return [10 * i for i in runs]

    with within(Budget("cpu")) as budget:
        assert halving(work, range(5), "cpu") == [0, 10, 20, 30, 40]
    assert asked == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4]]
    assert budget.measured_apart == 2

    def refuse(runs):
        raise MemoryError

    with pytest.raises(MemoryError):
        halving(refuse, range(4), "cpu")


def in_little_memory(folder):
    """Sixteen convolutional networks in a process that may take 20 MB more than one of them needed."""
    task = Task(model=ConvNet(stages=((64,), (64,))), train_size=256)
    one, many = (
        Sweep.grid(task, lr=0.05, batch_size=256, seed=seeds, until=Steps(2)) for seeds in (range(99, 100), range(16))
    )
    run(one, [Loss()], store=folder / "one", progress=False)
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + (20 << 20), unlimited[1]))
    run(many, [Loss()], store=folder / "little", progress=False)
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
    run(many, [Loss()], store=folder / "much", progress=False)


if sys.platform == "linux":  # elsewhere a process cannot be kept from taking more

    @pytest.mark.slow
    def test_an_allocator_that_really_has_no_more(tmp_path, monkeypatch):
        process = OTHERS.Process(target=in_little_memory, args=(tmp_path,))
        process.start()
        process.join(300)
        assert process.exitcode == 0
        records = [
            [Store(tmp_path / name).get(path.stem) for path in sorted((tmp_path / name).glob("??/*.json"))]
            for name in ("little", "much")
        ]
        little, much = ([record["end"]["train_loss"] for record in one] for one in records)
        np.testing.assert_allclose(little, much, rtol=1e-6)
        assert len(little) == 16
        assert {record["provenance"]["stack"] for record in records[1]} == {16}
        for record in records[0]:
            assert record["provenance"]["splits"] > 0
            assert record["provenance"]["stack"] < 16


# A driver that fails


def test_a_driver_error_is_not_tried_again_and_what_is_finished_is_kept(serial, tmp_path, monkeypatch):
    advance, tries = Trainer._advance, []

    def broken(self, plans):
        tries.append(plans[0].order.shape[1])
        if tries[-1] == 32:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")
        advance(self, plans)

    monkeypatch.setattr(Trainer, "_advance", broken)
    said = r"cpu failed in the middle of training \(RuntimeError: CUDA error: an illegal memory access.*\); .*run again"
    with pytest.raises(DeviceError, match=said):
        run(sweep(), PROBES, store=tmp_path, progress=False)
    assert tries.count(32) == 1
    assert len(Store(tmp_path)) == 6
    monkeypatch.setattr(Trainer, "_advance", advance)
    same(run(sweep(), PROBES, store=tmp_path, progress=False), serial)
