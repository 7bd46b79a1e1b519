"""Where a result comes from: commit, versions, machine and time."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARY = Path(__file__).resolve().parents[1]


@cache
def commit(folder: Path = LIBRARY) -> dict[str, Any] | None:
    """``{"id", "dirty"}`` of the working tree that holds the folder; None without git or outside a repository."""
    try:
        head, status = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"id": head.strip(), "dirty": bool(status.strip())}


@cache
def versions() -> dict[str, str]:
    """What computes: Python, the library and the packages under it."""
    packages = ("threefactors", "torch", "numpy", "scipy", "pandas", "matplotlib")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def device_name(device: str) -> str:
    """The processor or GPU in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def provenance(device: str, **more: Any) -> dict[str, Any]:
    """Commit, versions, device and the time now (UTC)."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"commit": commit(), "versions": versions(), "device": device_name(device), "date": now, **more}


def incidents(each: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """A line for whatever befell some of these runs, told from their provenance; in older stores there is nothing."""
    tales = {
        "splits": "in a smaller stack than asked for, because memory did not hold it",
        "measured_apart": "in a stack that was measured in halves, because memory ran out",
        "resumed": "from where an interruption had left them",
    }
    met = {tale: sum(bool(one.get(name)) for one in each) for name, tale in tales.items()}
    return tuple(f"{count} of {len(each)} runs were carried out {tale}" for tale, count in met.items() if count)
