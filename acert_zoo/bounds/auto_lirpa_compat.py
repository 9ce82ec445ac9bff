"""Imports auto-LiRPA on current torch and numpy: fills the gaps its 0.3 release leaves, only where they are missing.

auto-LiRPA 0.3 (2022) asks at import or at run time for three things that later torch and numpy have moved:
- the module `numpy.lib.arraysetops` (it takes `isin` from it; removed in numpy 2.x);
- `torch.onnx.symbolic_helper._set_opset_version` (torch now keeps the value in its TorchScript exporter's globals);
- `torch._C.Node.__getitem__` (attributes of a graph node by name; torch used to patch it in).
Its `BoundedModule._named_members` also lacks the `remove_duplicate` argument that `Module.parameters` passes by now,
and its alpha-CROWN starts from slopes of exactly 0 and 1 behind a clamp, whose gradient is 0 there in current torch: no
slope ever moved. Both are mended after the import, if a probe shows them.
Its import configures the root logger and the warnings filter of the whole process: both are put back.
Nothing is replaced that exists, so newer auto-LiRPA (0.4 to 0.7) and older torch are left as they are; what those
releases call otherwise is told by looking (`inner_boxes_argument`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch import Tensor

from acert_zoo.errors import MissingDependencyError

INSTALL = "pip install appdirs pyyaml packaging ninja && pip install --no-deps auto-LiRPA==0.3"


def fill_gaps() -> list[str]:
    """Fills what is missing; returns the names of what was filled (empty on a second call)."""
    filled = []
    try:
        importlib.import_module("numpy.lib.arraysetops")
    except ModuleNotFoundError:
        module = types.ModuleType("numpy.lib.arraysetops", "Stand-in with what auto-LiRPA takes from it.")
        module.isin = numpy.isin  # type: ignore[attr-defined]
        sys.modules["numpy.lib.arraysetops"] = module
        filled.append("numpy.lib.arraysetops")
    if not hasattr(importlib.import_module("torch.onnx.symbolic_helper"), "_set_opset_version"):
        torch.onnx.symbolic_helper._set_opset_version = _set_opset_version  # type: ignore[attr-defined]
        filled.append("torch.onnx.symbolic_helper._set_opset_version")
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)  # type: ignore
        filled.append("torch._C.Node.__getitem__")
    return filled


def _set_opset_version(version: int) -> None:
    try:
        from torch.onnx._internal.torchscript_exporter import _globals
    except ImportError:  # until torch 2.8
        from torch.onnx import _globals  # type: ignore[attr-defined, no-redef]

    _globals.GLOBALS.export_onnx_opset_version = version


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """auto-LiRPA prints, logs, and warns about deprecations in its own code: none of it reaches the user's terminal.

    Warnings are recorded and dropped: a filter would not do, as its import sets filters of its own.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(record=True),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # torch's word on a missing CUDA run time
        ):
            yield
    finally:
        logging.disable(disabled)


def load() -> Any:
    """The module `auto_LiRPA`, ready to use.

    Raises:
        MissingDependencyError: it is not installed; the message holds the install command.
    """
    if importlib.util.find_spec("auto_LiRPA") is None:
        raise MissingDependencyError(f"CROWN bounds need auto-LiRPA; install it with: {INSTALL}")
    handlers, recursion_limit = list(logging.getLogger().handlers), sys.getrecursionlimit()
    with quiet():
        fill_gaps()
        try:
            module = importlib.import_module("auto_LiRPA")
        except ImportError as error:
            raise MissingDependencyError(
                f"auto-LiRPA is installed but does not import ({error}); install with: {INSTALL}"
            ) from error
        finally:
            logging.getLogger().handlers[:] = handlers
            sys.setrecursionlimit(recursion_limit)  # its import raises it to a million, for every user of the process
        _accept_remove_duplicate(module.BoundedModule)
        _let_slopes_move()
    return module


def inner_boxes_argument(bounded_module: type) -> str:
    """What `compute_bounds` calls the boxes of inner values: renamed in 0.4."""
    names = inspect.signature(bounded_module.compute_bounds).parameters  # type: ignore[attr-defined]
    return "interm_bounds" if "interm_bounds" in names else "intermediate_layer_bounds"


def _accept_remove_duplicate(bounded_module: type) -> bool:
    """Wraps `_named_members` where it lacks the argument (its own code never lists a member twice); True if done."""
    original = bounded_module._named_members  # type: ignore[attr-defined]
    if "remove_duplicate" in inspect.signature(original).parameters:
        return False

    def _named_members(
        self: Any, get_members_fn: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Any:
        return original(self, get_members_fn, prefix=prefix, recurse=recurse)

    bounded_module._named_members = _named_members  # type: ignore[attr-defined]
    return True


def _let_slopes_move() -> bool:
    """Gives `BoundRelu._relu_mask_alpha` a clamp with a gradient at its ends, where it has none; True if done."""
    relu = importlib.import_module("auto_LiRPA.bound_ops").BoundRelu
    original = inspect.getattr_static(relu, "_relu_mask_alpha", None)
    if not isinstance(original, staticmethod):  # the form of 0.3; later ones are left as they are
        return False
    probe = torch.zeros(1, requires_grad=True)
    try:
        with torch.enable_grad():
            slope = original.__func__(-torch.ones(1), torch.ones(1), probe, None)[0]
            (moved,) = torch.autograd.grad(slope.sum(), probe)
    except TypeError:
        return False
    if moved.item() != 0:
        return False

    def _relu_mask_alpha(
        lower: Tensor, upper: Tensor, lb_lower_d: Tensor | None = None, ub_lower_d: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        def straight_through(slope: Tensor | None) -> Tensor | None:
            return None if slope is None else slope + (slope.clamp(0, 1) - slope).detach()

        return (
            _masked(straight_through(lb_lower_d), lower, upper),
            _masked(straight_through(ub_lower_d), lower, upper),
            (upper <= 0).all(),
        )

    relu._relu_mask_alpha = staticmethod(_relu_mask_alpha)
    return True


def _masked(slope: Tensor | None, lower: Tensor, upper: Tensor) -> Tensor | None:
    """The slope where the neuron is open, 1 where it is active, 0 where it is dead."""
    if slope is None:
        return None
    active, dead = (lower >= 0).to(lower.dtype), (upper <= 0).to(lower.dtype)
    return slope * (1 - active) * (1 - dead) + active
