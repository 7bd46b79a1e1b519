"""Data: splits, normalization, label noise, and clear errors for what cannot be used."""

import gc
import hashlib
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from threefactors._rng import generator
from threefactors.training import data, pinned
from threefactors.training.data import corrupt, found, load


def test_digits_are_split_without_overlap(digits):
    sizes = [len(digits.y_train), len(digits.y_validation), len(digits.y_test)]
    assert sizes == [1152, 288, 357]
    assert sum(sizes) == 1797
    rows = torch.cat([digits.x_train, digits.x_validation, digits.x_test]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 1797


def test_normalized_by_the_training_split(digits):
    assert abs(float(digits.x_train.mean())) < 1e-5
    assert abs(float(digits.x_train.std(unbiased=False)) - 1) < 1e-5
    assert abs(float(digits.x_test.mean())) > 1e-4  # the test split had no say


def test_checksum_names_the_content(small_npz, tmp_path):
    first = load(small_npz)
    with np.load(small_npz) as file:
        arrays = dict(file)
    np.savez(tmp_path / "same.npz", **arrays)
    assert load(str(tmp_path / "same.npz")).checksum == first.checksum
    arrays["x_train"] = arrays["x_train"].copy()
    arrays["x_train"][0, 0] += 1e-3
    np.savez(tmp_path / "other.npz", **arrays)
    assert load(str(tmp_path / "other.npz")).checksum != first.checksum


def test_own_data_keeps_its_test_set(small_npz):
    data = load(small_npz)
    assert (len(data.y_train), len(data.y_validation), len(data.y_test), data.classes) == (40, 8, 12, 3)


def test_color_images_are_normalized_by_channel(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal([0, 10, 100], [1, 2, 3], size=(30, 4, 4, 3))
    np.savez(tmp_path / "c.npz", x_train=x, y_train=np.arange(30) % 2, x_test=x[:5], y_test=np.arange(5) % 2)
    data = load(str(tmp_path / "c.npz"))
    assert data.x_train.shape[1:] == (3, 4, 4)
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "own.npz"
    for shift in (0, 1):
        x = np.arange(40.0).reshape(20, 2)
        x[3, 1] += shift
        np.savez(path, x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
        if shift == 0:
            before = load(str(path)).checksum
    assert load(str(path)).checksum != before


def test_corruption_is_exact_and_reproducible():
    y = torch.arange(1000) % 10
    noisy, chosen = corrupt(y, 0.25, 10, generator(3, "labels"))
    assert int(chosen.sum()) == 250
    assert torch.equal(noisy[~chosen], y[~chosen])
    again, _ = corrupt(y, 0.25, 10, generator(3, "labels"))
    assert torch.equal(noisy, again)
    assert torch.equal(corrupt(y, 0.0, 10, generator(3, "labels"))[0], y)


GOOD = {
    "x_train": np.zeros((6, 2)),
    "y_train": np.array([0, 1] * 3),
    "x_test": np.zeros((2, 2)),
    "y_test": np.array([0, 1]),
}
BROKEN = {
    "lacks y_test": {"y_test": None},
    "do not fit": {"y_train": np.array([0, 1])},
    "not finite": {"x_train": np.full((6, 2), np.nan)},
    "whole numbers": {"y_train": np.array([0.0, 1.0] * 3)},
    "labels of y_test range over 0 … 5": {"y_test": np.array([0, 5])},
    "labels of y_train range over -1": {"y_train": np.array([-1, 1] * 3)},
    "test examples of shape": {"x_test": np.zeros((2, 3))},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_arrays_are_refused(tmp_path, message):
    arrays = {k: v for k, v in {**GOOD, **BROKEN[message]}.items() if v is not None}
    np.savez(tmp_path / "broken.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "broken.npz"))


def test_an_archive_cut_off_is_refused(small_npz, tmp_path):
    whole = Path(small_npz).read_bytes()
    for kept in (len(whole) // 2, 0):
        (tmp_path / "cut.npz").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"cut.npz has {kept} bytes that are no whole .npz .*copy it anew"):
            load(str(tmp_path / "cut.npz"))


def test_unknown_and_missing_sets_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"dataset='imagenet' is unknown; use one of digits, mnist"):
        load("imagenet")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(str(tmp_path / "none.npz"))
    with pytest.raises(FileNotFoundError, match="THREEFACTORS_DATA"):
        load("mnist")

    from torchvision import datasets

    def no_network(root, train, download):
        raise RuntimeError("no network") if download else RuntimeError("not found")

    monkeypatch.setattr(datasets, "MNIST", no_network)
    with pytest.raises(FileNotFoundError, match=f"not under the data root {tmp_path}.*could not be downloaded"):
        load("mnist", tmp_path)


def idx(values):
    """An array of bytes in the IDX format of MNIST."""
    kind = np.array([0x800 + values.ndim, *values.shape], ">i4")
    return kind.tobytes() + np.ascontiguousarray(values, np.uint8).tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A data root with an MNIST of 12 + 4 images, and pins that know it."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    files = []
    for part, n in (("train", 12), ("t10k", 4)):
        for kind, values in (("images-idx3", rng.integers(0, 256, (n, 28, 28))), ("labels-idx1", np.arange(n) % 10)):
            content = idx(values)
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
            files.append(pinned.File(f"{part}-{kind}-ubyte", len(content), hashlib.md5(content).hexdigest()))
    free = pinned.Pinned("MNIST/raw", tuple(files))
    monkeypatch.setitem(pinned.SETS, "mnist", free)
    own = replace(free, checksum=load("mnist", tmp_path).checksum)
    data._load.cache_clear()
    monkeypatch.setitem(pinned.SETS, "mnist", own)
    yield tmp_path
    data._load.cache_clear()


def test_torchvision_sets_are_read_from_their_files(tiny):
    """IDX files laid where torchvision looks are a data set like any other."""
    mnist = load("mnist", tiny)
    assert mnist.x_train.shape == (10, 28, 28)
    assert (len(mnist.y_validation), len(mnist.y_test), mnist.classes) == (2, 4, 10)
    (tiny / "own.npz").touch()
    assert found(tiny) == ["mnist", "own.npz"]
    assert data.damaged(tiny) == []


def missing(path):
    path.unlink()
    return "train-labels-idx1-ubyte is missing"


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])
    return "train-labels-idx1-ubyte has 17 bytes, expected 20"


def another(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return f"train-labels-idx1-ubyte has the MD5 {hashlib.md5(content).hexdigest()}, expected "


@pytest.mark.parametrize("harm", [missing, truncated, another])
def test_a_damaged_set_is_named_with_its_file_and_the_remedy(tiny, monkeypatch, harm):
    """Before torchvision opens it, or goes to the network for what is there already."""
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *_, **__: pytest.fail("torchvision was asked"))
    message = harm(tiny / "MNIST" / "raw" / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match=r"mnist under the data root .* is not whole") as error:
        load("mnist", tiny)
    assert message in str(error.value)
    assert f"threefactors doctor --data {tiny} --download mnist" in str(error.value)
    seen = data.damaged(tiny)  # what doctor shows: sizes only
    assert len(seen) == (harm is not another)
    assert all(message in flaw for flaw in seen)


def test_other_arrays_do_not_pass_under_a_known_name(tiny, monkeypatch):
    """Files without pins of their own are held by the checksum of what was read from them."""
    files = tuple(pinned.File(file.name, file.size) for file in pinned.SETS["mnist"].files)
    monkeypatch.setitem(pinned.SETS, "mnist", replace(pinned.SETS["mnist"], files=files))
    another(tiny / "MNIST" / "raw" / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match=r"is not mnist: .*save it as an .npz file under another name"):
        load("mnist", tiny)


def test_compressed_color_images_have_a_name_of_their_own(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 10
    with pytest.raises(FileNotFoundError, match=r"cifar10-jpeg.npz is missing; copy cifar10-jpeg.npz"):
        load("cifar10-jpeg", tmp_path)
    np.savez(tmp_path / "cifar10-jpeg.npz", x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])
    with pytest.raises(ValueError, match="is not cifar10-jpeg"):
        load("cifar10-jpeg", tmp_path)
    own = load(str(tmp_path / "cifar10-jpeg.npz"))  # the same file by its path is a user's own
    monkeypatch.setitem(pinned.SETS, "cifar10-jpeg", replace(pinned.SETS["cifar10-jpeg"], checksum=own.checksum))
    named = load("cifar10-jpeg", tmp_path)
    assert (named.name, named.x_train.shape, named.classes) == ("cifar10-jpeg", (25, 3, 8, 8), 10)
    assert torch.equal(named.x_train, own.x_train)
    assert found(tmp_path) == ["cifar10-jpeg"]


def test_blocks_of_images_are_scaled_as_all_at_once(tmp_path, monkeypatch):
    x = np.random.default_rng(3).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "c.npz", x_train=x, y_train=np.arange(30) % 2, x_test=x[:7], y_test=np.arange(7) % 2)
    whole = load(str(tmp_path / "c.npz"))
    data._load.cache_clear()
    monkeypatch.setattr(data, "BLOCK", 4)
    assert torch.equal(load(str(tmp_path / "c.npz")).x_train, whole.x_train)


def test_a_set_is_moved_to_a_device_once_and_its_copy_dies_with_it(small_npz):
    """``meta`` stands for a device other than the CPU: it has tensors without numbers."""
    source = load(small_npz)
    moved = source.to("meta")
    assert moved.x_train.device.type == "meta"
    assert source.to("meta") is moved
    assert source.to(torch.device("meta")) is moved
    assert source.to("meta", torch.float64).x_train.dtype == torch.float64
    assert source.to("meta") is moved
    assert source.to("cpu").x_train is source.x_train
    copy = weakref.ref(moved)
    del source, moved
    data._load.cache_clear()
    gc.collect()
    assert copy() is None
