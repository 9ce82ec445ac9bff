"""torch's process-wide defaults, under which `torch.zeros(3)` may mean other things: dtype, device, inference mode.

Everything here is written for float32 on the CPU outside of inference mode, torch's own defaults. Public functions
work under these whatever the caller has set, and check that a module of the caller's does not depend on the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from acert_zoo.errors import UnsoundSettingError

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TorchDefaults:
    """What new tensors are made as."""

    dtype: torch.dtype = torch.float32
    device: torch.device = _CPU
    inference: bool = False

    @classmethod
    def current(cls) -> TorchDefaults:
        return cls(torch.get_default_dtype(), torch.get_default_device(), torch.is_inference_mode_enabled())

    @contextmanager
    def applied(self) -> Iterator[TorchDefaults]:
        """Sets these; yields those that were set before, and brings them back. Costs nothing where they agree."""
        before = TorchDefaults.current()
        with ExitStack() as changed:
            if before.inference != self.inference:
                changed.enter_context(torch.inference_mode(self.inference))
            if before.device != self.device:
                changed.enter_context(self.device)
            if before.dtype != self.dtype:
                torch.set_default_dtype(self.dtype)
                changed.callback(torch.set_default_dtype, before.dtype)
            yield before


STANDARD = TorchDefaults()
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def under_standard_defaults(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A decorator: the function runs under `STANDARD`."""

    @wraps(function)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with STANDARD.applied():
            return function(*arguments, **options)

    return run


def check_same_under(caller: TorchDefaults, model: nn.Module, images: Tensor) -> None:
    """Whether `model` gives the same logits under the caller's defaults as under those here, on two of `images`.

    Raises:
        UnsoundSettingError: it does not: its forward makes constants in the default dtype or on the default device.
    """
    if (caller.dtype, caller.device) == (STANDARD.dtype, STANDARD.device) or not len(images):
        return
    with torch.no_grad():
        here = model(images[:2])
        try:
            with caller.applied():
                there = model(images[:2])
            same = here.dtype == there.dtype and here.device == there.device and torch.equal(here, there)
        except (RuntimeError, TypeError, NotImplementedError):
            same = False
    if not same:
        raise UnsoundSettingError(
            f"the model computes something else under torch's default dtype {caller.dtype} and device {caller.device}, "
            "which are set now, than under float32 on the CPU, for which it is certified: set these first"
        )
