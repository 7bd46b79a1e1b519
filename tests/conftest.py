"""Fixtures shared by the tests: a small data set, and one thread so that tests side by side do not fight."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from threefactors.training import load

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_figures():
    """No test finds the figures of another one."""
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory):
    """A data set of a user's own: 48 + 12 examples of 6 numbers in 3 classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = (rng.normal(size=(60, 6)) + 2 * np.eye(6)[y]).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "own.npz"
    np.savez(path, x_train=x[:48], y_train=y[:48], x_test=x[48:], y_test=y[48:])
    return str(path)
