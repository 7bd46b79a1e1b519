"""Results on disk: one small file a run, named by what the run is, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from threefactors._identity import canonical
from threefactors.training import Run

# Raise it when the meaning of a run or of a probe changes: everything is then computed anew.
# 2: training sets of more than 10 000 examples are shuffled by counted numbers.
PROTOCOL = 2


class StoreError(RuntimeError):
    """The store cannot be read or written; the message names the folder and the remedy."""


def key(run: Run, probes: tuple[Any, ...], checksum: str) -> str:
    """SHA-256 of (run, probes, protocol, data checksum): the same experiment, the same name."""
    identity = {"run": run, "probes": list(probes), "protocol": PROTOCOL, "data": checksum}
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": value.ravel().tolist()}
    raise TypeError(f"{type(value).__name__} cannot be stored; use numbers, strings, lists, dicts or arrays")


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() == {"dtype", "shape", "values"}:
        return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
    return value


class Store:
    """A folder of results, safe to share between processes and to kill at any moment.

    A file is its own SHA-256, a newline, and JSON (which keeps every bit of a float). It is written under another
    name, flushed to the disk and moved into place, so that a reader sees a whole file or none. On reading the
    checksum is verified; a file that fails is renamed to ``.bad`` and counts as missing, so it is computed again.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def check(self) -> None:
        """Makes the folder and writes a first file, so that a store that cannot be written fails before any work."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(self.folder / f".check-{os.getpid()}", b"ok")
            (self.folder / f".check-{os.getpid()}").unlink()
        except OSError as error:
            raise self._error(error) from error

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """The record under the key, or None if there is none or it is damaged."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(error) from error
        digest, _, body = content.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            os.replace(path, path.with_suffix(".bad"))
            return None
        record: dict[str, Any] = json.loads(body, object_hook=_decode)
        return record

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Writes the record under the key, whole or not at all."""
        body = json.dumps(record, default=_encode, sort_keys=True).encode()
        self.adopt(key, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def adopt(self, key: str, content: bytes) -> None:
        """Writes the file of a record from another store; on reading its checksum tells whether it came whole."""
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, content)
        except OSError as error:
            raise self._error(error) from error

    def _write(self, path: Path, content: bytes) -> None:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def _error(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full; free some space or name another folder with --store DIR"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "it cannot be written; make it writable or name another folder with --store DIR"
        else:
            remedy = "name another folder with --store DIR"
        return StoreError(f"store {self.folder}: {error.strerror or error}; {remedy}. What was computed is kept.")

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("??/*.json"))
