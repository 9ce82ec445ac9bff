"""The processes of one run (torch.distributed under torchrun), and the few collectives that a step needs.

Every function here is the identity in a run of one process, so the code of a step reads the same in both cases.
A global batch of B samples is cut into one block of B / world_size for each rank; all means over a batch are means over
ranks of local means.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def initialize(device: str) -> None:
    """Joins the process group that torchrun describes in the environment; nothing to do without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")


def shutdown() -> None:
    """Leaves the process group. Nothing to do without one."""
    if dist.is_initialized():
        # A thread of gloo may still have to release the tensors of the last collective; it needs the GIL for that.
        # Destroying the group waits for it with the GIL held (torch 2.4: forever), and at the interpreter's end it
        # aborts the process (torch 2.14: SIGABRT). So let it finish first; while this thread sleeps the GIL is free.
        time.sleep(0.2)
        dist.destroy_process_group()


@contextmanager
def first_process_of_machine() -> Iterator[None]:
    """Entered by the first process of each machine alone, and by the others once that one has left it."""
    if world_size() == 1:
        yield
    elif int(os.environ.get("LOCAL_RANK", "0")) > 0:
        dist.barrier()
        yield
    else:
        try:
            yield
        finally:  # after an error too: the others then meet it themselves, with its message
            dist.barrier()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def parallel(module: nn.Module) -> nn.Module:
    """`module` with its gradients averaged over the ranks. Buffers are not exchanged: every rank computes the same."""
    if world_size() == 1:
        return module
    wrapper = nn.parallel.DistributedDataParallel
    named = "forward_sync_buffers" in inspect.signature(wrapper).parameters  # its name in newer torch
    options: dict[str, Any] = {"forward_sync_buffers" if named else "broadcast_buffers": False}
    return wrapper(module, **options)


class _MeanOverRanks(torch.autograd.Function):
    """y = mean over ranks of x_r. Rank r's gradient is that of the *sum over ranks* of the losses, as DDP expects."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _mean(grad)


def _mean(x: Tensor) -> Tensor:
    out = x.contiguous().clone()
    dist.all_reduce(out)
    return out / world_size()


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of `x` over the ranks, differentiable."""
    if world_size() == 1:
        return x
    return _MeanOverRanks.apply(x) if x.requires_grad else _mean(x)


def gather_over_ranks(x: Tensor) -> Tensor:
    """[world_size, *x.shape]: `x` of every rank, without gradient."""
    if world_size() == 1:
        return x.unsqueeze(0)
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def any_rank(*flags: bool, device: torch.device | str = "cpu") -> list[bool]:
    """Whether each flag is set on any rank: what all ranks must decide alike (to stop, to save)."""
    if world_size() == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [bool(v) for v in votes.tolist()]


def merge_newest(values: Tensor, pending: Tensor) -> Tensor:
    """`values` [n], overwritten where some rank's `pending` is not NaN (each entry is set on at most one rank)."""
    if world_size() == 1:
        return torch.where(pending.isnan(), values, pending)
    known = (~pending.isnan()).to(values.dtype)
    both = torch.stack([torch.nan_to_num(pending), known])
    dist.all_reduce(both)
    return torch.where(both[1] > 0, both[0], values)
