"""Many small operations as one launch: a CUDA graph on a GPU, a plain call on a CPU.

A kernel that runs for three microseconds takes as long to be launched. A CUDA graph records all launches of a
function once and repeats them as one, with the same arguments: so the function may take nothing and return nothing,
it reads and writes tensors that stay where they are, never asks for a number on the host, and does the same at every
call. Run on the CPU, the same function shows in tests that what it computes is right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

_log = logging.getLogger(__name__)


class Launch:
    """``launch()`` carries out ``function`` exactly once, on the current stream of ``device``.

    On CUDA the first call is a plain one on a side stream, where libraries make their workspaces and PyTorch loads its
    kernels, which a capture does not admit; the second captures, and from then on the graph is replayed. What the
    function allocates within the graph belongs to it and stays taken as long as it lives; launches that never run at
    once and hand nothing on in such memory can share it (``beside``). What cannot be captured is called plainly, with
    one line in the log. Not thread-safe: a graph must not run beside itself.

    Raises what the function raises; running out of memory in a capture is not taken for an operation that cannot be
    captured.
    """

    def __init__(
        self, function: Callable[[], None], device: torch.device | str, *, beside: Launch | None = None
    ) -> None:
        self.function, self.device = function, torch.device(device)
        self.captured = False
        self._graph: Any = None  # torch.cuda.CUDAGraph, once captured
        self._beside = beside
        self._warm = self._plain = False

    def __call__(self) -> None:
        if self.device.type != "cuda" or self._plain:
            self.function()
        elif self._graph is not None:
            self._graph.replay()
        else:
            with torch.cuda.device(self.device):
                self._capture() if self._warm else self._warm_up()

    def _warm_up(self) -> None:
        side, here = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            self.function()
        here.wait_stream(side)
        self._warm = True

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        other = None if self._beside is None else self._beside._graph
        try:
            with torch.cuda.graph(graph, pool=None if other is None else other.pool()):
                self.function()  # recorded, not carried out
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._plain = True
            _log.info("not captured, called plainly from now on: %s", str(error).partition("\n")[0])
            self.function()
        else:
            self._graph, self.captured = graph, True
            graph.replay()
