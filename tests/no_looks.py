"""A mode in which no value of a tensor may be looked at: what a GPU would have to be waited for, or a graph refuses."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero", "masked_select", "equal", "unique")


class NoLooks(TorchDispatchMode):
    """Raises RuntimeError for any operation whose result, or its shape, the host has to know before it goes on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if any(name == look or name.startswith(f"{look}_") for look in LOOKS):
            raise RuntimeError(f"aten.{name} looks at values: the host would wait for the device")
        if name.startswith("index") and any(is_mask(place) for place in args[1]):
            raise RuntimeError(f"aten.{name} with a mask looks at values: how many are chosen the host has to know")
        return func(*args, **(kwargs or {}))


def is_mask(place):
    return isinstance(place, torch.Tensor) and place.dtype in (torch.bool, torch.uint8)
