"""A browser on this machine, and a local server for it: the site as a reader has it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VARIABLE = "THREEFACTORS_BROWSER"
REMEDY = (
    f"name one by {VARIABLE}=/path/to/chromium, install Chromium or Chrome, "
    "or run: python -m playwright install chromium"
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class BrowserError(Exception):
    """There is no browser to look with; the message says what to do."""


def require() -> str:
    """The path of a Chromium: the one that THREEFACTORS_BROWSER names, on the PATH, or Playwright's own.

    BrowserError when there is none, or no Playwright to drive it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BrowserError("playwright is not installed; pip install -r requirements.txt") from error
    named = os.environ.get(VARIABLE, "")
    if named not in ("", "required"):
        if found := shutil.which(named):
            return found
        raise BrowserError(f"{VARIABLE}={named} is no program; {REMEDY}")
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if Path(own).is_file():
        return own
    raise BrowserError(f"no browser was found; {REMEDY}")


@contextmanager
def opened() -> Iterator[Browser]:
    """A running Chromium, without a window; it ends with the context. BrowserError as for ``require``."""
    path = require()
    from playwright.sync_api import sync_playwright

    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # refused to the superuser
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_ARGUMENTS, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(html: Path) -> Iterator[str]:
    """The address of a server of the folder ``html`` on this machine, for as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(html)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection serves many requests, as on the web

    def log_message(self, *_: object) -> None:
        pass
