"""What a GPU asks of code, on the CPU: no value is looked at, and operations recorded once can be repeated."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Tape(TorchDispatchMode):
    """What a CUDA graph does, on the CPU: records operations with their arguments, and repeats them in place."""

    def __init__(self):
        super().__init__()
        self.recorded = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.recorded.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, before in self.recorded:
            for new, old in zip(tree_leaves(func(*args, **kwargs)), tree_leaves(before), strict=True):
                if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)
