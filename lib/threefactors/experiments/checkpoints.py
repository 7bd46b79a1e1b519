"""Where the runs of a stack in training stand, written now and then, so that a process that is killed loses little.

A file holds one run, not a stack: whichever runs are still missing when the work is taken up again, alone, in other
company or in smaller parts, each finds its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from threefactors.experiments.store import Store, _decode, _encode

EVERY = 60.0  # seconds of training between two writings: what a killed process loses at most, besides one epoch
DUTY = 20  # writing takes at most one in so many seconds
FORGOTTEN = 7 * 24 * 3600.0  # seconds after which what nobody took up again is thrown away

State = dict[str, Any]
log = logging.getLogger("threefactors")


class Checkpoints:
    """States of runs in a folder beside the results, each under the key that its result will have.

    A file is its own SHA-256, a newline, and what torch.save makes of the state; written whole or not at all. One that
    is damaged, or that another engine, device or version of PyTorch made, is renamed to ``.bad``, and its run starts
    anew. A run that is stored has no checkpoint any more.
    """

    def __init__(self, store: Store) -> None:
        self._store, self.folder = store, store.folder / "checkpoints"
        self._tidy = False

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.pt"

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()

    def get(self, key: str, maker: str) -> State | None:
        """The state under the key, as ``maker`` wrote it; None if there is none that can be used."""
        path = self.path(key)
        try:
            digest, _, body = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        state = None
        if hashlib.sha256(body).hexdigest().encode() == digest:
            with suppress(Exception):  # whatever another version may have put there
                state = torch.load(io.BytesIO(body), weights_only=True)
        if not isinstance(state, dict) or state.pop("maker", None) != maker:
            with suppress(OSError):
                os.replace(path, path.with_suffix(".bad"))
            return None
        state["series"] = json.loads(state["series"], object_hook=_decode)
        return state

    def put(self, key: str, state: State, maker: str) -> None:
        """Writes the state, whole or not at all. Raises OSError."""
        series = json.dumps(state["series"], default=_encode)  # every bit of a float, and arrays, which torch.load bars
        body = io.BytesIO()
        torch.save({**state, "series": series, "maker": maker}, body)
        content = body.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget()
        self._store._write(self.path(key), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def put_all(self, states: dict[str, State], maker: str) -> float:
        """Writes every state; seconds that it took. What cannot be written costs time at worst, and ends nothing."""
        started = time.perf_counter()
        for key, state in states.items():
            try:
                self.put(key, state, maker)
            except OSError as error:
                log.warning("no checkpoint in %s: %s", self.folder, error)
                break
        return time.perf_counter() - started

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def _forget(self) -> None:
        """What was left behind long ago goes, so that the folder holds no more than what is being trained."""
        if self._tidy:
            return
        self._tidy = True
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process is at it, too
                if path.stat().st_mtime < time.time() - FORGOTTEN:
                    path.unlink()
