"""A network of one's own: an ordinary ``torch.nn.Module``, made a stack by ``torch.func``."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import textwrap
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector

from threefactors.training.models import Layerwise

_DRAWING = threading.Lock()  # layers draw their first weights from one generator for the whole process


@dataclass(frozen=True)
class Architecture(ABC):
    """A network of your own: a frozen dataclass whose ``build`` makes an ordinary torch module.

    ::

        @dataclass(frozen=True)
        class Smooth(Architecture):
            width: int = 32

            def build(self, inputs, outputs):
                return nn.Sequential(nn.Linear(inputs, self.width), nn.GELU(), nn.Linear(self.width, outputs))

    The module gets examples as rows (B, inputs), images too (begin with ``nn.Unflatten``), and returns (B, outputs).
    It is trained and measured by automatic differentiation, all networks of a stack at once; weights start as the
    layers, or ``build`` itself, draw them, from a generator of each run's own. A run comes out as it would alone up to
    rounding: a few 10⁻⁷ a step in float32, 10⁻¹⁵ in float64.

    ``code``, a digest of the methods, is part of a run's name in the store, so that one that you edit is trained anew.
    Of what they call elsewhere it knows nothing: where you edit that, rename the class or use another store.

    Raises TypeError for a class that is no frozen dataclass or whose code cannot be read; ``parameters``, which a
    sweep asks for before any work, raises ValueError for a module that has other outputs, no parameters, or outputs for
    an example that depend on chance or on the rest of its batch (Dropout, BatchNorm).
    """

    code: str = dataclasses.field(init=False, repr=False)
    batch_norm = None  # no field: examples are independent

    def __post_init__(self) -> None:
        kind = type(self)
        if "__dataclass_params__" not in vars(kind):
            raise TypeError(
                f"{kind.__name__} is no network yet; derive a class with @dataclass(frozen=True) and `build`"
            )
        object.__setattr__(self, "code", _digest(kind))

    @abstractmethod
    def build(self, inputs: int, outputs: int) -> nn.Module:
        """The module for so many numbers in and out: the one method to write."""

    @property
    def name(self) -> str:
        return repr(self)

    def parameters(self, inputs: int, outputs: int) -> int:
        """P, the length of θ: the module's parameters in its own order."""
        return sum(p.numel() for p in _module(self, inputs, outputs).parameters())

    def units(self, inputs: int, outputs: int) -> int:
        """Numbers that a forward pass keeps for each example: what autograd saves, and both ends."""
        module = _module(self, inputs, outputs)

        def saved(examples: int) -> int:
            sizes: list[int] = []

            def pack(t: Tensor) -> Tensor:
                sizes.append(t.numel())
                return t

            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                module(torch.zeros(examples, inputs))
            return sum(sizes)

        return inputs + outputs + saved(2) - saved(1)  # weights are saved as well, but once

    def widest(self, inputs: int, outputs: int) -> int:
        """No layer is wider than all of them together."""
        return self.units(inputs, outputs)

    def initial(self, inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """One θ (P,), as ``build`` draws it; in the same numbers whatever the dtype."""
        seed = int(torch.randint(1 << 62, (), generator=generator))
        return parameters_to_vector(_built(self, inputs, outputs, seed).parameters()).detach().to(dtype)

    def forward(self, theta: Tensor, x: Tensor, outputs: int, ghosts: int = 1, counted: int | None = None) -> Tensor:
        """(R, B, K) for θ (R, P) and x (R, B, D); see ``Network``."""
        return _stacked(_module(self, x.shape[-1], outputs), theta, x)

    def layerwise(self, theta: Tensor, x: Tensor, outputs: int) -> Layerwise:
        """The same pass, which never pauses."""
        yield from ()
        return self.forward(theta, x, outputs)

    def filters(self, inputs: int, outputs: int) -> Tensor:
        """(P,) number of the filter for each entry of θ: rows of weights with two axes or more; −1 for all others."""
        parts, first = [], 0
        for p in _module(self, inputs, outputs).parameters():
            units = len(p) if p.dim() > 1 else 0
            numbers = torch.arange(first, first + units).repeat_interleave(p.numel() // max(units, 1))
            parts.append(numbers if units else torch.full((p.numel(),), -1))
            first += units
        return torch.cat(parts)

    def weight_mask(self, inputs: int, outputs: int) -> Tensor:
        """(P,) True where θ holds an entry of a weight with two axes or more."""
        return self.filters(inputs, outputs) >= 0


def _stacked(module: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    """The module at each row of θ (R, P), on that row's examples (R, B, D)."""
    named = dict(module.named_parameters())
    fixed = {
        name: b.to(theta.device, theta.dtype if b.is_floating_point() else None) for name, b in module.named_buffers()
    }

    def alone(row: Tensor, examples: Tensor) -> Tensor:
        pieces = row.split([p.numel() for p in named.values()])
        weights = {name: piece.view(p.shape) for (name, p), piece in zip(named.items(), pieces, strict=True)}
        out: Tensor = functional_call(module, weights | fixed, (examples,))
        return out

    return vmap(alone)(theta, x)


def _module(model: Architecture, inputs: int, outputs: int) -> nn.Module:
    # one for each thread: functional_call puts weights into it for the time of a call
    return _checked(model, inputs, outputs, threading.get_ident())


@lru_cache(maxsize=64)
def _checked(model: Architecture, inputs: int, outputs: int, thread: int) -> nn.Module:
    """The module, after a first pass through it. Raises ValueError, and TypeError where it is no module."""
    module, what = _built(model, inputs, outputs, 0), f"{model!r}: build({inputs}, {outputs})"
    if not isinstance(module, nn.Module):
        raise TypeError(f"{what} gives {type(module).__name__}; return a torch.nn.Module")
    if not list(module.parameters()):
        raise ValueError(f"{what} gives a module without parameters; there is nothing to train")
    theta = parameters_to_vector(module.parameters()).detach().expand(2, -1)
    x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(0), dtype=theta.dtype)
    try:
        with torch.no_grad():
            out = _stacked(module, theta, x[torch.tensor([[0, 1], [0, 2]])])
    except RuntimeError as error:
        raise ValueError(
            f"{what} gives a module that does not take {inputs} numbers an example or cannot be stacked ({error}); "
            "a layer that keeps running statistics or draws at random (BatchNorm, Dropout) has to go"
        ) from error
    if out.shape != (2, 2, outputs):
        raise ValueError(f"{what} makes outputs of shape {tuple(out.shape[1:])} from 2 examples, not (2, {outputs})")
    if not torch.allclose(out[0, 0], out[1, 0], equal_nan=True):
        raise ValueError(
            f"{what} makes outputs for an example that depend on the others in its batch; leave out what ties them "
            "together (BatchNorm), or use MLP or ConvNet with batch_norm"
        )
    return module


def _built(model: Architecture, inputs: int, outputs: int, seed: int) -> nn.Module:
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return model.build(inputs, outputs)


def _digest(kind: type) -> str:
    """SHA-256 of the methods of a class and those that it inherits, without comments and layout."""
    kinds = kind.__mro__[: kind.__mro__.index(Architecture)]
    methods = [(name, getattr(one, name)) for one in kinds for name in sorted(vars(one)) if not name.startswith("__")]
    try:
        sources = [inspect.getsource(method) for _, method in methods if inspect.isroutine(method)]
    except OSError as error:
        raise TypeError(
            f"the code of {kind.__name__} cannot be read ({error}), so its runs would have no name in a store; "
            "define it in a file or a notebook"
        ) from error
    plain = [ast.unparse(ast.parse(textwrap.dedent(source))) for source in sources]
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()
