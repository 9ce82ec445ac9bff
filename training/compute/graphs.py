"""CUDA graphs: the kernels that a function launches, recorded once and launched again at the price of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def cuda_capture(run: Callable[[], T]) -> tuple[T, Callable[[], None]]:
    """Records what `run` launches, without doing it: (what it returns, the launch of the recording).

    The tensors that `run` reads and returns, and those that it leaves elsewhere (gradients), keep their places: a
    launch reads and writes them there. `run` must have run before, and must not make the host wait for the device.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        found = run()
    return found, graph.replay
