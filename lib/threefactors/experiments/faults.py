"""What can go wrong on a machine in the middle of the work, and how to tell it."""

from __future__ import annotations

import gc

import torch

from threefactors.training.engines import DeviceError


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on either device, as PyTorch, its libraries and Python say it."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    said = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def device_failed(error: BaseException) -> bool:
    """Whether the driver of the GPU gave up: its context is dead, and nothing more can be done in this process."""
    if isinstance(error, DeviceError) or type(error).__name__ == "AcceleratorError":  # the latter since PyTorch 2.8
        return not out_of_memory(error)
    return isinstance(error, RuntimeError) and "CUDA error" in str(error) and not out_of_memory(error)


def release(device: torch.device | str) -> None:
    """Gives back what nobody holds any more; to be called where the error is no longer at hand, whose traceback
    holds the tensors of all its frames."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
