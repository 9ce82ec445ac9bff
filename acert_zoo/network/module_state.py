"""Whether a module is still the one that was read: its tensors' contents and all else that its forward can depend on.

A snapshot holds, for every submodule, its type, the functions of that type, its hooks, its children by identity, and
every attribute; tensors and arrays by copies of their contents (edits through `.data` or `.detach().numpy()` leave no
other trace), numbers and strings by value, functions with what they close over and the numbers and tensors among their
globals, other objects by identity. Global hooks and torch's default dtype count too.

Not seen: what code keeps in places of its own (files, attributes of foreign objects, C extensions).
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
_DEPTH = 4  # of containers inside containers
GLOBAL_HOOKS = tuple(
    value
    for name, value in vars(nn_module).items()
    if name.startswith("_global_forward") and isinstance(value, Mapping)
)


class ModuleState:
    """A snapshot of `model`; `unchanged(model)` compares it with what the module is now."""

    def __init__(self, model: nn.Module) -> None:
        self._items = [_kept(item) for item in _walk(model)]

    def unchanged(self, model: nn.Module) -> bool:
        now = _walk(model)
        return all(_same(a, b) for a, b in zip(self._items, now, strict=False)) and next(now, None) is None


class _Identity:
    """An object that counts as itself; the reference keeps its address from being used again."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _walk(model: nn.Module) -> Iterator[Any]:
    yield torch.get_default_dtype()
    yield torch.is_autocast_enabled("cpu")
    for hooks in GLOBAL_HOOKS:
        yield from _flatten(hooks, 1)
    seen: set[int] = set()
    todo = [model]
    while todo:
        module = todo.pop()
        yield _Identity(module)
        if id(module) in seen:
            continue
        seen.add(id(module))
        kind = type(module)
        yield _Identity(kind)
        for base in kind.__mro__:
            if base not in (nn.Module, object):
                for name, value in list(vars(base).items()):
                    if isinstance(value, (types.FunctionType, *_PLAIN)) and name != "__doc__":
                        yield from _flatten(value, 2)
        yield from _flatten(nn.Module.__call__, 3)
        for name, value in list(vars(module).items()):
            yield name
            if name == "_modules":
                for key, child in value.items():
                    yield key
                    if child is not None:
                        todo.append(child)
            else:
                yield from _flatten(value, 0)
    yield "end"


def _flatten(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, (*_PLAIN, Tensor, np.ndarray)):
        yield value
    elif isinstance(value, types.FunctionType):
        yield _Identity(value)
        yield _Identity(value.__code__)
        if depth < _DEPTH:
            for cell in value.__closure__ or ():
                try:
                    yield from _flatten(cell.cell_contents, depth + 1)
                except ValueError:  # an empty cell
                    yield None
            for default in value.__defaults__ or ():
                yield from _flatten(default, depth + 1)
            for name in value.__code__.co_names:
                held = value.__globals__.get(name)
                if isinstance(held, (int, float, bool, str, Tensor, np.ndarray, types.FunctionType)):
                    yield from _flatten(held, max(depth + 1, 3))
    elif isinstance(value, types.MethodType):
        yield _Identity(value.__self__)
        yield from _flatten(value.__func__, depth)
    elif isinstance(value, Mapping) and depth < _DEPTH:
        yield len(value)
        for key, held in list(value.items()):
            yield key if isinstance(key, _PLAIN) else _Identity(key)
            yield from _flatten(held, depth + 1)
    elif isinstance(value, (list, tuple)) and depth < _DEPTH:
        yield len(value)
        for held in value:
            yield from _flatten(held, depth + 1)
    elif isinstance(value, (set, frozenset)):
        yield frozenset(v if isinstance(v, _PLAIN) else id(v) for v in value)
    else:
        yield _Identity(value)


def _kept(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.detach().clone()
    return item.copy() if isinstance(item, np.ndarray) else item


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, _Identity) or isinstance(b, _Identity):
        return isinstance(a, _Identity) and isinstance(b, _Identity) and a.value is b.value
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or (a.dtype, a.shape, a.device) != (
            b.dtype,
            b.shape,
            b.device,
        ):
            return False
        try:
            return torch.equal(a, b.detach())
        except (RuntimeError, NotImplementedError):  # layouts without a comparison: taken for changed
            return False
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))
