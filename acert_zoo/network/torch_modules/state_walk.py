"""What a module's forward can depend on, one thing after the other: `walk`.

Of every submodule, registered or kept in a list or an object: its type, the functions and attributes of that type, its
hooks, its children, and every attribute. Of functions: their code, what they close over, defaults, and the globals that
they name. Of other objects and of classes: their attributes. Of generators of random numbers and iterators: where they
stand. Global hooks, torch's default dtype, and autocast count too.

Not seen: what code keeps in places of its own (files, the inside of the standard library, of torch, or of extensions in
C, globals of installed packages), and what lies deeper than `_DEPTH` objects inside each other.
"""

from __future__ import annotations

import array
import contextvars
import functools
import itertools
import operator
import random
import sys
import sysconfig
import threading
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
_DEPTH = 7  # of containers and objects inside each other
_LIBRARIES = {*sys.stdlib_module_names, "torch", "numpy"}
# Whose objects change without any effect on a forward, or are too large to look into.
_LIVELY = {"logging", "threading", "_thread", "weakref", "concurrent", "asyncio", "multiprocessing", "torch", "numpy"}
_INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
_LARGE = 2**22  # numbers of a tensor among the globals
_NOT_STATE = ("__doc__", "__dict__", "__weakref__", "__module__", "__annotations__", "__abstractmethods__")
GLOBAL_HOOKS = tuple(
    value
    for name, value in vars(nn_module).items()
    if name.startswith("_global_forward") and isinstance(value, Mapping)
)


class Identity:
    """An object that counts as itself; the reference keeps its address from being used again."""

    def __init__(self, value: Any) -> None:
        self.value = value


UNSEEN = Identity("something that is not looked into")


def walk(model: nn.Module) -> Iterator[Any]:
    """Numbers, strings, tensors, arrays and `Identity`s: equal sequences come of equal states, if none is `UNSEEN`."""
    return _Walk().items(model)


class _Walk:
    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # objects that have been gone into; kept, so that no address is used again
        self.outside = 0  # of the module: how many functions' globals this is among

    def items(self, model: nn.Module) -> Iterator[Any]:
        yield torch.get_default_dtype()
        yield torch.is_autocast_enabled("cpu")
        for hooks in GLOBAL_HOOKS:
            yield from self._any(hooks, 1)
        yield from self._function(nn.Module.__call__, 0)
        yield from self._module(model)

    def _new(self, value: Any) -> bool:
        if id(value) in self.seen:
            return False
        self.seen[id(value)] = value
        return True

    def _any(self, value: Any, depth: int) -> Iterator[Any]:
        if isinstance(value, _PLAIN):
            yield value
        elif isinstance(value, (Tensor, np.ndarray)):
            yield from self._numbers(value, depth)
        elif isinstance(value, nn.Module):
            yield from self._module(value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, depth)
        elif depth >= _DEPTH:
            yield Identity(value)
        elif isinstance(value, types.MethodType):
            yield Identity(value.__func__)
            yield from self._any(value.__self__, depth + 1)
            yield from self._any(value.__func__, depth)
        elif isinstance(value, (property, functools.cached_property, staticmethod, classmethod, functools.partial)):
            for part in ("fget", "func", "__func__", "args", "keywords"):
                yield from self._any(getattr(value, part, None), depth + 1)
        elif isinstance(value, (Mapping, list, tuple, deque, set, frozenset)):
            yield from self._container(value, depth)
        elif isinstance(value, type):
            yield from self._class(value, depth)
        else:
            yield from self._object(value, depth)

    def _numbers(self, value: Tensor | np.ndarray, depth: int) -> Iterator[Any]:
        yield Identity(type(value))
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            yield from self._named(dict(enumerate(value.ravel().tolist())), depth + 1)
            return
        if self.outside and (value.numel() if isinstance(value, Tensor) else value.size) > _LARGE:
            yield UNSEEN
            return
        yield value
        if isinstance(value, Tensor):
            if isinstance(value, nn.Parameter):
                yield value.requires_grad
            if value.layout == torch.strided:
                yield torch.Size(value.stride())
            yield from self._any(vars(value), depth + 1)

    def _container(self, value: Any, depth: int) -> Iterator[Any]:
        yield len(value)
        if isinstance(value, (set, frozenset)):
            yield frozenset(v if isinstance(v, _PLAIN) else id(v) for v in value)
            return
        if not self._new(value):  # it may hold itself
            return
        for held in list(value):
            yield from self._any(held, depth + 1)
            if isinstance(value, Mapping):
                yield from self._any(value[held], depth + 1)

    def _named(self, held: Mapping[Any, Any], depth: int) -> Iterator[Any]:
        """The entries of a mapping that is made anew for every walk, whose identity says nothing."""
        for name, value in list(held.items()):
            yield name
            yield from self._any(value, depth)

    def _module(self, module: nn.Module) -> Iterator[Any]:
        yield Identity(module)
        if self._new(module):
            yield from self._class(type(module), 1)
            yield from self._any(vars(module), 0)
            if isinstance(module, torch.jit.ScriptModule):  # what it has lies in C++
                yield str(getattr(module, "code", ""))
                for held in (dict(module.named_parameters()), dict(module.named_buffers())):
                    yield from self._named(held, 0)

    def _class(self, kind: type, depth: int) -> Iterator[Any]:
        yield Identity(kind)
        for base in kind.__mro__:
            library = base.__module__.partition(".")[0] in _LIBRARIES and not issubclass(base, nn.Module)
            if base is nn.Module or library or not self._new(base):
                continue
            for name, value in list(vars(base).items()):
                if name not in _NOT_STATE:
                    yield name
                    yield from self._any(value, max(depth + 1, 2))

    def _function(self, function: Any, depth: int) -> Iterator[Any]:
        yield Identity(function)
        yield Identity(function.__code__)
        if depth >= _DEPTH or not self._new(function):
            return
        for cell in function.__closure__ or ():
            try:
                yield from self._any(cell.cell_contents, depth + 1)
            except ValueError:  # an empty cell
                yield None
        if function.__code__.co_filename.startswith(_INSTALLED):
            return
        for held in (function.__defaults__, function.__kwdefaults__, vars(function)):
            yield from self._any(held, depth + 1)
        self.outside += 1
        yield from self._globals(function, depth)
        self.outside -= 1

    def _globals(self, function: Any, depth: int) -> Iterator[Any]:
        names = _names(function.__code__)
        for name in names:
            held = function.__globals__.get(name)
            if isinstance(held, types.ModuleType):  # `settings.LIMIT`, `F.relu`: what may be meant of it
                for inner in names:
                    if inner in vars(held) and not isinstance(vars(held)[inner], types.ModuleType):
                        yield from self._any(vars(held)[inner], depth + 1)
            elif held is not None:
                yield from self._any(held, depth + 1)

    def _object(self, value: Any, depth: int) -> Iterator[Any]:
        yield Identity(value)
        if isinstance(value, random.Random):
            yield hash(value.getstate())
        elif isinstance(value, torch.Generator):
            yield value.get_state()
        elif isinstance(value, (np.random.Generator, np.random.RandomState)):
            yield str(value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state())
        elif isinstance(value, (bytearray, array.array)):
            yield bytes(value)
        elif isinstance(value, contextvars.ContextVar):
            yield from self._any(value.get(None), depth + 1)
        elif isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            yield -1 if frame is None else frame.f_lasti
            yield from self._named({} if frame is None else frame.f_locals, depth + 1)
        elif isinstance(value, Iterator) and type(value).__module__ in _LIBRARIES:
            left = operator.length_hint(value, -1)
            yield repr(value)  # of itertools.count says where it stands
            yield UNSEEN if left < 0 and not isinstance(value, itertools.count) else left
        elif not isinstance(value, types.ModuleType) and self._new(value):
            top = type(value).__module__.partition(".")[0]
            if top not in _LIBRARIES:
                yield from self._class(type(value), depth)
            if top not in _LIVELY or isinstance(value, threading.local):
                yield from self._named(_attributes(value), depth + 1)


def _names(code: types.CodeType) -> tuple[str, ...]:
    """The names that code reads, of the functions inside it too."""
    inner = (name for held in code.co_consts if isinstance(held, types.CodeType) for name in _names(held))
    return tuple(dict.fromkeys((*code.co_names, *inner)))


def _attributes(value: Any) -> dict[str, Any]:
    slots = [s for base in type(value).__mro__ for s in _listed(vars(base).get("__slots__", ()))]
    found = {s: getattr(value, s) for s in slots if not s.startswith("__") and hasattr(value, s)}
    return {**found, **getattr(value, "__dict__", {})}


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
