"""Fixtures shared by the tests: a small data set, the built book, a browser; one thread, so that tests do not fight."""

import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from threefactors.publishing import browser as browsers
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


@pytest.fixture(scope="session")
def browser_path():
    """Where a Chromium lies; without one the test is skipped, unless THREEFACTORS_BROWSER demands or names one."""
    try:
        return browsers.require()
    except browsers.BrowserError as error:
        if os.environ.get(browsers.VARIABLE):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")  # not longer: while Playwright runs, nothing else may run an event loop here
def browser(browser_path):
    """A running Chromium, driven by Playwright."""
    with browsers.opened() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def smoke_book(tmp_path_factory):
    """The whole book at smoke scale, built by one worker for all of them."""
    from tests.smoke_book import build_once  # which imports all of publishing, needed by few tests

    own = tmp_path_factory.getbasetemp()
    return build_once(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
