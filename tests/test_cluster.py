"""A sweep on the workers of dask.distributed: equal to the serial one, whatever dies on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import torch
from threefactors.cli import main
from threefactors.experiments import Loss, Sharpness, Store, cluster, run, schedulers
from threefactors.experiments.cluster import ClusterError
from threefactors.experiments.executors import attempt
from threefactors.experiments.landscape import Surface
from threefactors.publishing import doctor
from threefactors.settings import Settings, SettingsError
from threefactors.training import MLP, SGD, Epochs, Run, Sweep, Task
from threefactors.training.engines import DeviceError

from tests.books import chapter, write_book
from tests.test_experiments import same

SWEEP = Sweep.grid(Task(model=MLP((8,)), train_size=128), lr=[0.05, 0.1], batch_size=16, seed=range(3), until=Epochs(2))
PROBES = [Loss(), Sharpness()]
LOCAL = "local:2"
QUIET = {"env": {**os.environ, "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}, "stderr": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    return run(SWEEP, PROBES, store=tmp_path_factory.mktemp("serial"), progress=False)


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left():
    yield
    schedulers.stop(LOCAL, "cpu")
    left = psutil.Process().children(recursive=True)
    workers = [child for child in left if "distributed" in " ".join(child.cmdline()) or "dask" in child.name()]
    assert not workers


@pytest.fixture(scope="module")
def local():
    """Two workers with an environment of their own, as if for two GPUs; their scheduler's address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedulers, "_places", lambda *_: [{"CUDA_VISIBLE_DEVICES": str(i)} for i in (3, 5)])
        before = dict(os.environ)
        address = schedulers.connect(LOCAL, "cpu").scheduler.address
        assert dict(os.environ) == before
    return address


@pytest.fixture(autouse=True)
def counted(tmp_path, monkeypatch):
    """Two stacks of three; whatever happens, no run is counted twice."""
    for name in [name for name in os.environ if name.startswith("THREEFACTORS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(cluster, "SHARES", 1)
    monkeypatch.setenv("THREEFACTORS_PROGRESS", str(tmp_path / "progress"))


def progress(folder):
    return (folder / "progress").read_text().splitlines()[-1]


# equal to the serial sweep ----------------------------------------------------------------------------------


def test_workers_of_a_scheduler_change_nothing(serial, local, tmp_path):
    same(run(SWEEP, PROBES, store=tmp_path / "store", scheduler=LOCAL), serial)
    assert progress(tmp_path) == "6 6"
    assert [path for path in (tmp_path / "store").iterdir() if path.name.startswith(".")] == []


def test_a_relative_store_and_the_settings_are_those_of_the_client(serial, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THREEFACTORS_SCHEDULER", local)
    monkeypatch.setenv("THREEFACTORS_JOBS", "7")  # the scheduler comes first
    same(run(SWEEP, PROBES, store="here"), serial)
    assert len(Store(tmp_path / "here")) == 6


def elsewhere(monkeypatch, **changes):
    """To the workers, the client's folders are not there."""
    home = cluster._Home
    monkeypatch.setattr(cluster, "_Home", lambda *fields: replace(home(*fields), **changes))


def test_without_a_shared_folder_results_come_home(serial, local, tmp_path, monkeypatch):
    elsewhere(monkeypatch, store=Path("/nowhere/store"))
    same(run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local), serial)
    assert progress(tmp_path) == "6 6"


def test_a_folder_of_the_same_name_is_not_the_store(serial, local, tmp_path, monkeypatch):
    """On another machine the path may exist as well; only the client's own file in it tells."""
    (tmp_path / "theirs").mkdir()
    elsewhere(monkeypatch, store=tmp_path / "theirs")
    same(run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local), serial)
    assert list((tmp_path / "theirs").iterdir()) == []


def test_each_worker_has_its_own_gpu_and_two_clients_share_them(serial, local, tmp_path):
    """The other client is another process, as two chapters of a book are."""
    code = (
        "import sys; from tests.test_cluster import *\n"
        "if __name__ == '__main__': run(SWEEP, PROBES, store=sys.argv[1], scheduler=sys.argv[2], progress=False)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "other"), local])
    client = schedulers.connect(LOCAL, "cpu")
    assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["3", "5"]
    while other.poll() is None and not list(tmp_path.glob("other/*")):
        time.sleep(0.05)
    same(run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local), serial)
    assert other.wait(60) == 0
    assert len(Store(tmp_path / "other")) == 6


# workers and runs that fail ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A probe that kills its worker, or raises, when it comes to one run, the first so many times."""

    folder: str
    times: int
    kills: bool = True
    at: str = "end"

    def measure(self, trainer, runs):
        for i in runs:
            one, seen = trainer.runs[i], len(os.listdir(self.folder))
            if one.seed == 2 and one.sgd.lr == 0.1 and seen < self.times:
                Path(self.folder, str(seen)).touch()
                if self.kills:
                    time.sleep(1)  # others of the stack that ended before are written meanwhile
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ArithmeticError("poisoned")
            Path(f"{self.folder}-none", f"{one.sgd.lr}-{one.seed}-{uuid4()}").touch()
        return {}


@pytest.fixture
def faults(tmp_path):
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults-none").mkdir()
    return tmp_path / "faults"


def test_a_worker_killed_in_the_middle_is_replaced(serial, local, tmp_path, faults):
    result = run(SWEEP, [*PROBES, Fault(str(faults), 1)], store=tmp_path / "store", scheduler=local)
    assert len(os.listdir(faults)) == 1
    same(result, serial)
    assert progress(tmp_path) == "6 6"


def test_a_run_that_raises_is_found_and_the_others_finish(local, tmp_path, faults):
    with pytest.raises(
        RuntimeError, match=r"1 run fails .*lr=0\.1, .*seed=2: it raises ArithmeticError.*run again for"
    ):
        run(SWEEP, [*PROBES, Fault(str(faults), 99, kills=False)], store=tmp_path / "store", scheduler=local)
    assert len(Store(tmp_path / "store")) == 5
    assert progress(tmp_path) == "5 6"


@pytest.mark.slow
def test_a_run_that_kills_every_worker_is_found_and_the_others_finish(local, tmp_path, faults, monkeypatch):
    """What ended before the death is kept even where it had to come home first, and is not computed again."""
    elsewhere(monkeypatch, store=Path("/nowhere/store"))
    scheduler = schedulers._clusters[LOCAL, "cpu"].scheduler
    monkeypatch.setattr(scheduler, "allowed_failures", 0)  # else twice as many deaths
    poison = Fault(str(faults), 99)
    longer = [replace(one, until=Epochs(3)) if one.seed == 2 and one.sgd.lr == 0.1 else one for one in SWEEP]
    with pytest.raises(RuntimeError, match=r"1 run fails .*lr=0\.1, .*seed=2: its worker dies each time"):
        run(Sweep(longer), [*PROBES, poison], store=tmp_path / "store", scheduler=local)
    assert len(Store(tmp_path / "store")) == 5
    assert len(os.listdir(faults)) == 2  # once with its stack, of which all others were kept, and once alone
    assert len(os.listdir(tmp_path / "faults-none")) == 5
    assert progress(tmp_path) == "5 6"


def test_a_worker_whose_gpu_failed_ends_with_a_word(monkeypatch, capsys):
    """The driver's context is dead: the next stack must not come to this process, but to the one in its place."""

    def work(stack, **options):
        raise DeviceError(f"cuda failed in the middle of {stack}")

    monkeypatch.setattr(os, "_exit", lambda status: ended.append(status))
    ended = []
    attempt(work, "a stack", store="here")
    assert ended == [1]
    assert "ends: cuda failed in the middle of a stack" in capsys.readouterr().err


def test_all_doors_are_open_to_this_machine_only(local):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    doors = {one.laddr.ip for child in family for one in child.net_connections() if one.status == "LISTEN"}
    assert doors == {"127.0.0.1"}


@dataclass(frozen=True)
class Waits:
    """A probe that waits for a file, as a long training would."""

    folder: str
    at: str = "end"

    def measure(self, trainer, runs):
        Path(self.folder, f"began-{trainer.runs[0].sgd.lr}").touch()
        for _ in range(300):
            if Path(self.folder, "go").exists():
                return {}
            time.sleep(0.1)
        raise TimeoutError("nobody said go")


def test_ctrl_c_frees_the_client_at_once(serial, local, tmp_path):
    def interrupt():
        while not list(tmp_path.glob("began-*")):
            time.sleep(0.05)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    pressed = []
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run(SWEEP, [*PROBES, Waits(str(tmp_path))], store=tmp_path / "store", scheduler=local)
    finally:
        signal.signal(signal.SIGINT, handler)
        (tmp_path / "go").touch()
    assert time.monotonic() - pressed[0] < 5
    same(run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local), serial)  # the workers serve again


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": Path("/nowhere/data")}, "worker tcp://.* on .*: data folder /nowhere/data does not exist there"),
        ({"checksums": {"digits": "0"}}, "worker tcp://.* on .*: digits in None is not the client's"),
        (
            {"same": {"torch": "0.1"}},
            "worker tcp://.* on .* has .*, but the client {'torch': '0.1'}; give all machines",
        ),
        ({"device": "cuda"}, "worker tcp://.* on .*: device='cuda' but torch .* finds no GPU"),
    ],
)
def test_a_worker_that_lacks_something_is_named(local, tmp_path, monkeypatch, changes, said):
    if "device" in changes and torch.cuda.is_available():
        changes, said = {"device": "cuda:99"}, "device='cuda:99' but there"
    elsewhere(monkeypatch, **changes)
    with pytest.raises(ClusterError, match=said):
        run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local)
    assert len(Store(tmp_path / "store")) == 0


# schedulers that fail ---------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler that is a process of its own, and a way to give it workers."""
    file, started = tmp_path / "scheduler.json", []

    def start(*words, **options):
        command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
        started.append(subprocess.Popen(command, **{**QUIET, **options}))
        return started[-1]

    process = start("scheduler", "--port", "0", "--scheduler-file", str(file))
    while not file.exists() or not file.read_text().endswith("}"):
        assert process.poll() is None
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    yield process, address, lambda **options: start("worker", address, "--nthreads", "1", "--no-nanny", **options)
    schedulers.stop(address, "cpu")
    for one in started:
        one.kill()
        one.wait()


@dataclass(frozen=True)
class Beheads:
    """A probe that kills the scheduler when the second stack comes."""

    scheduler: int
    file: str
    at: str = "end"

    def measure(self, trainer, runs):
        if trainer.runs[0].sgd.lr == 0.1 and not os.path.exists(self.file):
            Path(self.file).touch()
            os.kill(self.scheduler, signal.SIGKILL)
            time.sleep(0.5)
        return {}


@pytest.mark.slow
def test_a_scheduler_lost_in_the_middle_is_named_and_what_finished_is_kept(serial, scheduler, tmp_path, monkeypatch):
    process, address, worker = scheduler
    worker()
    probes = [*PROBES, Beheads(process.pid, str(tmp_path / "beheaded"))]
    monkeypatch.setattr(cluster, "SHARES", 2)
    with pytest.raises(
        ClusterError, match=f"scheduler {address} was lost .*all that finished is in the store.*run again"
    ):
        run(SWEEP, probes, store=tmp_path / "store", scheduler=address)
    assert time.time() - (tmp_path / "beheaded").stat().st_mtime < 5
    assert progress(tmp_path) == "3 6"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("??/*.json")}
    assert len(kept) >= 3
    monkeypatch.setattr(schedulers, "PATIENCE", 1.0)
    with pytest.raises(SettingsError, match=f"scheduler '{address}' does not answer within 1 s"):
        run(SWEEP, probes, store=tmp_path / "again", scheduler=address)
    same(run(SWEEP, probes, store=tmp_path / "store"), serial)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_a_scheduler_without_workers_or_with_others_than_ours_is_refused(scheduler, tmp_path, monkeypatch):
    _, address, worker = scheduler
    monkeypatch.setattr(schedulers, "NO_WORKERS", 1.0)
    with pytest.raises(
        SettingsError, match=f"has had no workers for 1 s; start them with `dask worker {address} --nthreads 1`"
    ):
        run(SWEEP, PROBES, store=tmp_path / "store", scheduler=address)
    (tmp_path / "old" / "threefactors").mkdir(parents=True)
    (tmp_path / "old" / "threefactors" / "__init__.py").write_text("__version__ = '0.0.9'\n")
    worker(env={**QUIET["env"], "PYTHONPATH": str(tmp_path / "old")})
    monkeypatch.setattr(schedulers, "NO_WORKERS", 30.0)
    with pytest.raises(SettingsError, match=r"worker tcp://.*: threefactors is 0\.0\.9, but .* here"):
        run(SWEEP, PROBES, store=tmp_path / "store", scheduler=address)


@pytest.mark.parametrize("name", ["torch", "protocol"])
def test_another_torch_or_protocol_is_refused(local, tmp_path, monkeypatch, name):
    monkeypatch.setitem(schedulers.SAME, name, "__import__('os').getpid()")  # differs from process to process
    with pytest.raises(SettingsError, match=f"worker tcp://.*: {name} is .*, but {os.getpid()} here"):
        run(SWEEP, PROBES, store=tmp_path / "store", scheduler=local)


@pytest.mark.parametrize("listens", [False, True])
def test_a_scheduler_that_cannot_be_reached_is_named_before_any_work(tmp_path, monkeypatch, capsys, listens):
    """A port at which nobody listens, and one at which nobody answers."""
    monkeypatch.setattr(schedulers, "PATIENCE", 1.0)
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        root = write_book(tmp_path / "repository", c10_a=chapter("1"))
        began = time.monotonic()
        assert main(["book", "--root", str(root), "--scheduler", address]) == 1
        assert time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert f"scheduler '{address}' does not answer within 1 s" in said
    assert "--scheduler ADDRESS, or leave that out" in said
    assert not (root / "_build").exists()


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingsError, match=r"needs dask.distributed.*pip install 'threefactors\[cluster\]'"):
        run(SWEEP, PROBES, store=tmp_path / "store", scheduler="tcp://127.0.0.1:1")


# settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["here", "local:0", "local:", "tcp://", "127.0.0.1", "tcp://a b:1", "host:port"])
def test_a_scheduler_that_is_no_address_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match=f"scheduler='{name}' is no address; use tcp://HOST:PORT, local or local:N"):
        Settings(tmp_path, scheduler=name)
    with pytest.raises(SettingsError, match="is no address"):
        run(SWEEP, PROBES, store=tmp_path, scheduler=name)


@pytest.mark.parametrize("name", ["local", "local:12", "tcp://10.0.0.1:8786", "gpu-1.lab:8786", "tls://[fe80::1]:80"])
def test_schedulers_survive_the_way_through_the_environment(tmp_path, name):
    there = Settings(tmp_path, scheduler=name)
    assert Settings.from_environment(there.environment()) == there


def test_with_a_scheduler_elsewhere_the_gpus_are_elsewhere_too(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Settings(tmp_path, device="cuda", scheduler="tcp://gpus:8786").device == "cuda"
    with pytest.raises(SettingsError, match="finds no GPU"):
        Settings(tmp_path, device="cuda", scheduler="local")
    with pytest.raises(SettingsError, match=r"device='cuda:1' with a scheduler.*use cuda"):
        Settings(tmp_path, device="cuda:1", scheduler="tcp://gpus:8786")


def test_what_is_no_sweep_needs_the_device_here(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in Settings(tmp_path, device="cuda", scheduler="tcp://gpus:8786").environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"device='cuda' but torch .* finds no GPU; use cpu"):
        Surface.of(Task(model=MLP((8,)), train_size=128))


def test_a_local_worker_for_each_gpu_that_is_seen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert schedulers._places("local", "cuda") == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert schedulers._places("local", "cuda")[1] == {"CUDA_VISIBLE_DEVICES": "GPU-5"}
    assert schedulers._places("local:1", "cuda") == [{"CUDA_VISIBLE_DEVICES": "3"}]
    with pytest.raises(SettingsError, match="scheduler='local:3' but a worker needs a GPU, of which there are 2"):
        schedulers._places("local:3", "cuda")
    assert len(schedulers._places("local:3", "cpu")) == 3


def test_a_book_has_one_set_of_workers_for_all_its_chapters(local, tmp_path, monkeypatch):
    """Two kernels at a time, which are told the address; where it is computed does not make a chapter stale."""
    said = "import os\nprint(*map(os.environ.get, ['THREEFACTORS_SCHEDULER', 'THREEFACTORS_JOBS']))"
    root = write_book(tmp_path / "repository", c10_a=chapter(said), c20_b=chapter(said))
    monkeypatch.setattr(schedulers, "stop", lambda *_: None)
    words = ["book", "--root", str(root), "--scale", "smoke", "--only", "10", "20", "--store", str(tmp_path / "store")]
    monkeypatch.setattr("threefactors.publishing.site.build", lambda *_, **__: None)
    assert main([*words, "--scheduler", LOCAL, "--jobs", "1"]) == 0
    for path in root.glob("book/*.ipynb"):
        assert f"{local} 1" in path.read_text()
    stamps = [path.stat().st_mtime_ns for path in root.glob("book/*.ipynb")]
    assert len(stamps) == 2
    assert main([*words, "--jobs", "1"]) == 0
    assert [path.stat().st_mtime_ns for path in root.glob("book/*.ipynb")] == stamps


def test_the_doctor_looks_at_the_scheduler_too(local, tmp_path, monkeypatch):
    monkeypatch.setattr(schedulers, "stop", lambda *_: None)
    (found,) = [one for one in doctor.examine(Settings(tmp_path, scheduler=local)) if one.what == "scheduler"]
    assert (found.found, found.well) == (f"{local}: 2 workers", True)
    monkeypatch.setattr(schedulers, "PATIENCE", 0.5)
    gone = Settings(tmp_path, scheduler="tcp://127.0.0.1:9")
    (found,) = [one for one in doctor.examine(gone) if one.what == "scheduler"]
    assert "does not answer within 0.5 s" in found.found
    assert not found.well


def test_one_run_is_one_stack(local, tmp_path):
    one = Sweep((Run(Task(model=MLP((8,)), train_size=128), SGD(0.1, 16), 0, Epochs(1)),))
    assert len(run(one, [Loss()], store=tmp_path / "store", scheduler=local)) == 1
