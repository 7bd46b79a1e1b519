"""Data: splits, normalization, label noise, and clear errors for what cannot be used."""

import numpy as np
import pytest
import torch
from threefactors._rng import generator
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


def test_torchvision_sets_are_read_from_their_files(tmp_path):
    """IDX files of 12 + 4 images, laid where torchvision looks, are a data set like any other."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("t10k", 4)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        header = np.array([0x803, n, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, n], ">i4").tobytes() + labels.tobytes())
    data = load("mnist", tmp_path)
    assert data.x_train.shape == (10, 28, 28)
    assert (len(data.y_validation), len(data.y_test), data.classes) == (2, 4, 10)
    (tmp_path / "own.npz").touch()
    assert found(tmp_path) == ["mnist", "own.npz"]
