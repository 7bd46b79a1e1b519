"""Which engine carries out the steps of a stack, and whether the device can do what is asked of it."""

from __future__ import annotations

import torch
from torch import Tensor

from threefactors.training import kernel
from threefactors.training.augmentation import Augmenter
from threefactors.training.captured import Captured
from threefactors.training.engines import Engine
from threefactors.training.losses import StackLosses
from threefactors.training.models import MLP
from threefactors.training.steps import Stacked

ENGINES = ("kernel", "by hand", "autograd", "captured")
AMPERE = (8, 0)  # the first generation of GPUs that multiplies in TF32 and bfloat16


def check_precision(precision: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
    """Refuses a precision of products that the device, or the type of θ, does not have.

    Raises ValueError. float32 is to be had everywhere, bfloat16 on a CPU, too (slowly).
    """
    place = torch.device(device)
    if precision == "float32":
        return
    if dtype != torch.float32:
        raise ValueError(f"precision={precision!r} rounds the products of float32, but θ is {dtype}; use 'float32'")
    if place.type == "cuda":
        if torch.cuda.get_device_capability(place) < AMPERE:
            name = torch.cuda.get_device_name(place)
            raise ValueError(f"precision={precision!r} is not what {name} can do; use precision='float32'")
    elif precision == "tf32":
        raise ValueError(
            f"precision='tf32' is arithmetic of a GPU, but the device is {place}; "
            "use device='cuda', or precision='float32'"
        )


def choose(
    engine: str | None, losses: StackLosses, theta: Tensor, precision: str = "float32", augmented: object = None
) -> str:
    """The engine asked for, if it can do this; if none is, the fastest that can.

    On a GPU that is ``captured``. On a CPU it is ``kernel`` for perceptrons where there is a compiler, which knows
    neither augmentation nor other precisions; else ``by hand`` for perceptrons and ``autograd`` for all others.

    Raises ValueError for an engine that does not exist or cannot do this.
    """
    check_precision(precision, theta.device, theta.dtype)
    in_c = augmented is None and precision == "float32"
    if theta.device.type == "cuda":
        # PyTorch lets convolutions round to TF32 unasked, and ten bits of mantissa are too few for curvature
        torch.backends.cudnn.allow_tf32 = False
    if engine is None:
        if theta.device.type == "cuda":
            return "captured"
        by_hand = isinstance(losses.model, MLP)
        return "kernel" if in_c and losses.in_c(theta) else "by hand" if by_hand else "autograd"
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown; use one of {', '.join(ENGINES)}, or none, and it is chosen")
    if engine == "kernel" and not in_c:
        what = f"precision={precision!r}" if augmented is None else f"{augmented}"
        raise ValueError(
            f"engine='kernel' knows no {what}; use engine='by hand' or engine='autograd', or none, and it is chosen"
        )
    return engine


def make(
    name: str, losses: StackLosses, x: Tensor, labels: Tensor, precision: str, augmenter: Augmenter | None
) -> Engine:
    """The engine of that name, for the training set x (N, ...) and each run's labels (R, N)."""
    if name == "kernel":
        widths = losses.perceptron.widths(losses.inputs, losses.classes)
        return kernel.Kernel(widths, losses.model.batch_norm, losses.loss, x, labels)
    if name == "captured":
        by_hand = isinstance(losses.model, MLP)
        return Captured(losses, x, labels, by_hand=by_hand, precision=precision, augmenter=augmenter)
    return Stacked(losses, x, labels, by_hand=name == "by hand", precision=precision, augmenter=augmenter)
