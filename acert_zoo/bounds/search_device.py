"""Where the float32 search runs: the CPU, or a GPU. Where the float64 proofs do: `proof_device.py`.

A search only finds the eps that is then proved, so nothing that it computes is part of a certificate at `real-sound` or
`float32-deployed`; what its kernels round, and in which order, costs evaluations and the last digits of a radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acert_zoo.errors import InvalidInputError


def search_device(name: str | torch.device) -> torch.device:
    """The device that `name` means: "cpu", "cuda" or "cuda:N".

    Raises:
        InvalidInputError: torch knows no such device, or this machine has none; what there is is named.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(number))])
    if device.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"device {str(name)!r:.40} is not one that certificates are searched on; here: {there}")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= number:
        built = "" if torch.version.cuda else " (this torch is built without CUDA)"
        raise InvalidInputError(f"device {str(name)!r:.40} is not on this machine{built}; here: {there}")
    return torch.device("cuda", index)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Float32 products of 24 bits on a GPU: TF32 has 11, less than the search's tolerance. The CPU's are left alone."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    products.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        products.allow_tf32 = before
