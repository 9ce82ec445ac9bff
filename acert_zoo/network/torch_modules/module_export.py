"""A module's forward as a program of core ATen operations, recorded by torch.export.

`torch.export` runs the forward once on tensors without contents (strict=False), through `__call__`, so that hooks,
replaced forwards, parametrizations and shared layers do what they do; decomposing the result makes it functional,
which resolves operations in place, on views too. The batch axis is free. Programs are kept, as long as the module is
unchanged (`module_state.py`).
"""

from __future__ import annotations

import logging
import os
import traceback
import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.building.builder import SUPPORTED
from acert_zoo.network.torch_modules.functional_program import FunctionalProgram, functional
from acert_zoo.network.torch_modules.module_state import ModuleState

BATCH = 5  # of the example; the axis is free
_KEPT = 8  # programs
# Operations without a rule, whose decompositions have none either.
_HOPELESS = ("aten.layer_norm", "scaled_dot_product", "multi_head_attention")
# Operations that have rules of their own, which their decompositions would only make harder to read.
_WHOLE = ("aten.linear.default", "aten.prelu.default", "aten._prelu_kernel.default")

_ON_VALUES = ("GuardOnDataDependentSymNode", "DataDependentOutputException")  # torch's words for a branch on numbers
_ELSEWHERE = (os.path.dirname(torch.__file__) + os.sep, __file__)  # whose lines say nothing about a forward

_log = logging.getLogger(__name__)
_Kept = tuple[weakref.ref[nn.Module], ModuleState, tuple[tuple[int, ...], torch.dtype], FunctionalProgram]
_programs: dict[int, _Kept] = {}  # by the id of the module
_table: dict[Any, Any] = {}


class Untraceable(UnsupportedLayerError):
    """The forward cannot be seen whole: whatever any tracer records of it may be one branch of several."""


class _Stopped(Exception):
    """What a forward raised. Of other exceptions torch prints the graph that it has so far, to standard error."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "partial_fx_graph":
            super().__setattr__(name, value)


class _Forward(nn.Module):
    """The module behind a forward of known signature."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Any:
        try:
            return self.model(images)
        except Exception as error:  # the user's own code
            raise _Stopped from error


def export(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> FunctionalProgram:
    """The program of images `dtype` [batch, *shape]; its parameters are named "model.NAME".

    Raises:
        Untraceable: torch.export cannot record the forward (it branches on values, leaves torch, changes state, ...).
    """
    key = id(model)
    kept = _programs.get(key)
    if kept is not None:
        reference, state, setting, program = kept
        if reference() is model and setting == (shape, dtype) and state.unchanged(model):
            return program
        del _programs[key]
    state = ModuleState(model)
    program = _export(model, shape, dtype)
    if state.whole and state.unchanged(model):  # else the forward may change what it reads: the comparison will say so
        while len(_programs) >= _KEPT:
            del _programs[next(iter(_programs))]
        _programs[key] = (weakref.ref(model), state, (shape, dtype), program)
    return program


def _export(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> FunctionalProgram:
    _log.info("reading %s with torch.export; large models take up to half a minute", type(model).__name__)
    example = torch.zeros(BATCH, *shape, dtype=dtype, device="cpu")
    free = ({0: torch.export.Dim("batch", min=1)},)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch's own words on what it cannot export; ours follow as an error
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(_Forward(model), (example,), dynamic_shapes=free, strict=False)
            _refuse_early(program)
            return functional(program, _decompositions())
    except UnsupportedLayerError:
        raise
    except Exception as error:  # the user's own forward runs here: anything may be raised
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
            raise Untraceable(
                "a scripted module cannot be read by torch.export, nor what holds one; "
                "give the module that it was made from"
            ) from error
        raise Untraceable(
            f"{type(model).__name__} cannot be read by torch.export{_reason(error)}; its forward must not branch on "
            "values or on the batch size, keep state or leave torch"
        ) from error
    finally:
        logging.disable(level)


def _reason(error: Exception) -> str:
    """Where in the forward it stopped and why, in words that are not torch's own about its insides."""
    cause = error.__cause__ if isinstance(error, _Stopped) else error
    frames = traceback.extract_tb(cause.__traceback__) if cause is not None else []
    own = [f for f in frames if not f.filename.startswith(_ELSEWHERE)] if isinstance(error, _Stopped) else []
    where = (
        f" at {os.path.basename(own[-1].filename)}, line {own[-1].lineno} ({(own[-1].line or '')[:80]})" if own else ""
    )
    if type(cause).__name__ in _ON_VALUES:
        return f"{where}: it asks for the numbers in a tensor"
    if type(cause).__name__ == "UserError" and "batch" in str(cause):
        return f"{where}: it is for some numbers of images only, or mixes the images of a batch"
    if own and own[-1] is frames[-1]:  # the module's own objection
        return f"{where}: {type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}"
    return where


def _refuse_early(program: Any) -> None:
    """Names operations that surely have no rule before they are decomposed, which takes long for large models."""
    for node in program.graph.nodes:
        if any(word in str(node.target) for word in _HOPELESS):
            raise UnsupportedLayerError(f"layer {node.name!r} ({node.target}) is not supported; supported: {SUPPORTED}")


def _decompositions() -> dict[Any, Any]:
    """torch's table of decompositions to core ATen, less what is kept whole; made once, which takes a second.

    Empty where torch offers no table (before 2.6); then everything is decomposed.
    """
    if not _table and hasattr(torch.export, "default_decompositions"):
        for operation, decomposition in torch.export.default_decompositions().items():
            if str(operation) not in _WHOLE:
                _table[operation] = decomposition
    return _table
