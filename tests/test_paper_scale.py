"""The chapters at the paper's own size: rehearsed from top to bottom without training, and each network tried out."""

import re

import pytest
import torch
from threefactors.experiments import landscape
from threefactors.inference import VOID
from threefactors.training import SGD, Run, Stack, Steps, Task, convolution
from threefactors.training.models import MLP
from threefactors.training.train import Trainer

from tests import rehearsal
from tests.books import REPOSITORY

CHAPTERS = sorted((REPOSITORY / "book").glob("2[0-6]_*.py"))
HOURS, FASHION_MINUTES = 3.0, 10.0  # on one GPU, at rehearsal.RATE


@pytest.fixture(scope="module")
def performed():
    """Each chapter at scale paper, once, by the name of its file."""
    done = {}

    def perform(path):
        if path.stem not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MPLBACKEND", "Agg")
                done[path.stem] = rehearsal.rehearse(path, patch, images="cifar10-jpeg")
        return done[path.stem]

    return perform


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_from_top_to_bottom_at_the_papers_size(performed, path, capsys):
    """Every sweep can be made, every probe can measure its network, every claim can be judged on its grid."""
    chapter = performed(path)
    assert chapter.sweeps
    void = {v.reason for v in chapter.names["verdicts"] if v.verdict == VOID}
    assert void == set()
    for sweep, _, _ in chapter.sweeps:
        assert len({one.seed for one in sweep}) >= 2  # full grids: every setting with every seed
        settings = {(one.task, one.sgd, one.until) for one in sweep}
        assert len(sweep) == sum(len({r.seed for r in sweep}) for _ in settings)
    with capsys.disabled():
        print(f"\n{path.stem:20s} {chapter.total}")


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_batch_leaves_no_example_out(performed, path):
    """E epochs are the clock E N η/S of the text only where S divides N. (Ghost batches: ``Run.check``.)"""
    for sweep, _, _ in performed(path).sweeps:
        for one in sweep:
            examples = one.task.train_size or rehearsal.SHAPES[one.task.dataset][0]
            sizes = {one.sgd.batch_at(epoch) for epoch in range(0, 400, 7)}
            assert all(examples % size == 0 for size in sizes), (one.task.train_size, sizes)


@pytest.mark.slow
def test_the_book_fits_into_hours_and_fashion_mnist_into_minutes(performed):
    """By counted operations, at an assumed rate: what it takes on a GPU is for `make bench-gpu` to measure."""
    minutes, fashion = 0.0, 0.0
    for path in CHAPTERS:
        chapter = performed(path)
        minutes += chapter.total.seconds / 60
        for sweep, _, cost in chapter.sweeps:
            judged = path.stem[:2] == "20" or len(getattr(sweep.runs[0].task.model, "hidden", ())) == 20
            fashion += judged * (sweep.runs[0].task.dataset == "fashion-mnist") * cost.seconds / 60
    assert minutes < 60 * HOURS
    assert fashion < FASHION_MINUTES


def test_what_a_rehearsal_is_for(tmp_path, monkeypatch):
    """Planted errors that only show at the size of the paper: a batch, a training set, a probe that does not fit."""
    head = '# %% tags=["parameters"]\nscale = "paper"\n\n# %%\nfrom threefactors import *\n'
    head += "from threefactors.training.convolution import VGG11\n"
    head += "from threefactors.experiments.first_order import NoiseTrace\n"
    cells = {
        "not a multiple of the ghost batch": "run(Sweep.grid(Task('cifar10', VGG11(128)), lr=0.1, batch_size=200,"
        " until=Epochs(1)), [Loss()])",
        "train_size=45000 exceeds the 41667": "run(Sweep.grid(Task('cifar10', VGG11(), 45000), lr=0.1, batch_size=50,"
        " until=Epochs(1)), [Loss()])",
        "written for an MLP, not for ConvNet": "run(Sweep.grid(Task('cifar10', VGG11()), lr=0.1, batch_size=50,"
        " until=Epochs(1)), [NoiseTrace()])",
        "has 3072 numbers, but an example has 784": "run(Sweep.grid(Task('mnist', VGG11()), lr=0.1, batch_size=50,"
        " until=Epochs(1)), [Loss()])",
    }
    for message, cell in cells.items():
        (tmp_path / "20_planted.py").write_text(head + cell + "\n")
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=re.escape(message)):
            rehearsal.rehearse(tmp_path / "20_planted.py", patch)


def test_operations_are_counted_as_they_are():
    """VGG-11 has 153 million multiplications for each 32×32 image, ResNet-56 125 million (He et al., Table 6)."""
    counted = rehearsal.Rehearsal(None, {})
    for network, dataset, millions in (
        (convolution.VGG11(), "cifar10", 153),
        (convolution.RESNET56(), "cifar10", 125),
        (MLP((128,) * 3), "fashion-mnist", 0.134),
    ):
        one = Run(Task(dataset, network), SGD(0.1, 50), 0, Steps(1))
        assert counted.multiplications(one) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_line_between_large_networks_need_not_see_every_image():
    task = Task("digits", MLP((4,)), train_size=100)
    surface = landscape.Surface.of(task, examples=30, held_out=20)
    assert [len(part) for part in (surface.x, surface.y, surface.x_validation, surface.y_validation)] == [
        30,
        30,
        20,
        20,
    ]
    assert len(landscape.Surface.of(task).x_validation) == 288


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [convolution.VGG11(), convolution.VGG11(4), convolution.RESNET56(4)],
    ids=["VGG-11", "VGG-11 with batch norm", "ResNet-56"],
)
def test_the_papers_networks_train_at_their_full_width(network):
    """Two steps of two runs on eight color images: the loss is finite and θ has moved."""
    task = Task("cifar10", network)
    runs = tuple(Run(task, SGD(0.01, 4), seed, Steps(2)) for seed in range(2))
    trainer = Trainer(Stack(runs), rehearsal.dataset("cifar10", 8))
    start = trainer.theta.clone()
    trainer.train()
    assert trainer.steps == [2, 2]
    assert trainer.diverged_at == [-1, -1]
    assert torch.isfinite(trainer.train_losses([0, 1])).all()
    assert (trainer.theta != start).any(1).all()
