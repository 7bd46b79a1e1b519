"""The whole book at smoke scale, built once a session, whichever worker of pytest-xdist asks first."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from threefactors.publishing import build as builder
from threefactors.publishing.build import Report
from threefactors.settings import Settings

from tests.books import REPOSITORY


@dataclass(frozen=True)
class SmokeBook:
    """A copy of the sources at ``root``, built, and the ``report`` of the build."""

    root: Path
    report: Report

    @property
    def html(self) -> Path:
        return self.root / "_build" / "html"


def build_once(shared: Path) -> SmokeBook:
    """The book in the folder ``shared``: built by the first who asks, while the others wait for it."""
    folder, record = shared / "smoke-book", shared / "smoke-book.pickle"
    with FileLock(shared / "smoke-book.lock"):
        if not record.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that was cut off
            record.write_bytes(pickle.dumps(_build(folder)))
    return SmokeBook(folder, pickle.loads(record.read_bytes()))


def _build(root: Path) -> Report:
    root.mkdir()
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(REPOSITORY / name, root)
    shutil.copytree(REPOSITORY / "book", root / "book", ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for stray in (".pytest_cache/README.md", "venv/lib/notes.md", "README.md", "draft.ipynb"):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_text("# No page of the book\n")
    return builder.build(root, scale="smoke", settings=Settings(store=root / "store", jobs=2))
