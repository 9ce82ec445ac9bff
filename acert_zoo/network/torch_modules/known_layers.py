"""Modules that are read without running them: chains of known layers that do exactly what their types say.

A module counts as known only if its type is exactly one of those below, the forward of that type is the one that was
there when this package was imported, nothing on the instance stands in front of a method, and no hook is registered on
it or globally. Weights are then read as the layer's own forward reads them, as attributes. Everything else goes through
torch.export (`module_export.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.network import architectures, layers
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building import pooling
from acert_zoo.network.building.builder import PLAIN_TENSORS, Builder, Unsupported, Value
from acert_zoo.network.torch_modules.module_state import GLOBAL_HOOKS

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
_TABLES = ("_modules", "_parameters", "_buffers")
_METHODS = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "_conv_forward", "__getattr__")


class _Unknown(Exception):
    """The module is not known to be what its type says."""


def _conv(b: Builder, name: str, m: Any, x: Value) -> Value:
    if m.padding_mode != "zeros":
        raise _Unknown
    return ops.conv2d(b, name, x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)


def _batch_norm(b: Builder, name: str, m: Any, x: Value) -> Value:
    """Train mode is allowed: training itself bounds the live network, with statistics that it supplies."""
    return ops.batch_norm(b, name, x, m.running_mean, m.running_var, m.weight, m.bias, eps=m.eps)


def _average(b: Builder, name: str, m: Any, x: Value) -> Value:
    return pooling.avg_pool2d(
        b, name, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    )


def _flatten(b: Builder, name: str, m: Any, x: Value) -> Value:
    if (m.start_dim, m.end_dim) != (1, -1):
        raise _Unknown
    return ops.flatten(b, name, x)


def _residual(b: Builder, name: str, m: Any, x: Value) -> Value:
    if any(isinstance(part, nn.ReLU) and part.inplace for part in m.modules()):
        raise _Unknown  # it may change what the other branch reads
    main, shortcut = _read(b, f"{name}.main", m.main, x), _read(b, f"{name}.shortcut", m.shortcut, x)
    return _read(b, f"{name}.relu", m.relu, ops.add(b, f"{name}.add", main, shortcut))


def _sequence(b: Builder, name: str, m: Any, x: Value) -> Value:
    for key, child in m._modules.items():  # not named_children: a module that stands twice is run twice
        x = _read(b, f"{name}.{key}" if name else key, child, x)
    return x


def _only(attribute: str) -> Callable[..., Value]:
    return lambda b, name, m, x: _read(b, f"{name}.{attribute}" if name else attribute, getattr(m, attribute), x)


def _normalize(b: Builder, name: str, m: Any, x: Value) -> Value:
    return b.add(layers.Normalize, name, x, mean=m.mean, std=m.std)


_LAYERS: dict[type, Callable[..., Value]] = {
    nn.Sequential: _sequence,
    nn.Conv2d: _conv,
    nn.Linear: lambda b, name, m, x: ops.linear(b, name, x, m.weight, m.bias),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda b, name, m, x: ops.relu(b, name, x),
    nn.Flatten: _flatten,
    nn.AvgPool2d: _average,
    architectures.Normalize: _normalize,
    architectures.CNN: _only("layers"),
    architectures.ResNet: _only("layers"),
    architectures.Residual: _residual,
}
_ORIGINAL = {kind: {name: getattr(kind, name, None) for name in _METHODS} for kind in _LAYERS}


def wrapper(attribute: str) -> Callable[[type], type]:
    """Declares that the forward of exactly this class is `return self.<attribute>(images)`, and nothing more."""

    def declare(kind: type) -> type:
        _LAYERS[kind] = _only(attribute)
        _ORIGINAL[kind] = {name: getattr(kind, name, None) for name in _METHODS}
        return kind

    return declare


def is_plain(module: nn.Module, kind: type | None = None) -> bool:
    """Whether `module` is exactly of its (known) type `kind`, with nothing hooked in or replaced on it or its class.

    For a `kind` that is not in the table only the instance is looked at.
    """
    if kind is not None and type(module) is not kind:
        return False
    original = _ORIGINAL.get(type(module), {})
    if any(getattr(type(module), name, None) is not function for name, function in original.items()):
        return False
    if any(GLOBAL_HOOKS) or any(vars(module).get(name) for name in _HOOKS):
        return False
    if vars(module).get("_compiled_call_impl") is not None:
        return False
    return not any(callable(getattr(type(module), name, None)) for name in vars(module))


def is_known(model: nn.Module) -> bool:
    """Whether `read` understands the module (with some input shape)."""
    try:
        _read(Builder(None), "", model, Builder(None).input)
    except (_Unknown, Unsupported):
        return False
    return True


def read(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[Builder, Value] | None:
    """The steps of a known module with its live parameters, and its output; None for any other module.

    Raises:
        InvalidInputError: the layers do not take this input shape.
    """
    builder = Builder(input_shape)
    try:
        return builder, _read(builder, "", model, builder.input)
    except (_Unknown, Unsupported):
        return None


def _read(b: Builder, name: str, module: nn.Module, x: Value) -> Value:
    if type(module) is nn.DataParallel and is_plain(module) and not module.device_ids:
        return _read(b, name, module.module, x)  # without devices it calls its module
    layer = _LAYERS.get(type(module))
    if layer is None or not is_plain(module):
        raise _Unknown
    if any(
        type(vars(module).get(name)) not in (dict, OrderedDict) for name in _TABLES
    ):  # others may list what they do not hold
        raise _Unknown
    for value in vars(module).values():
        if isinstance(value, Tensor) and type(value) not in PLAIN_TENSORS:
            raise _Unknown
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and (type(tensor) not in PLAIN_TENSORS or tensor.layout != torch.strided):
            raise _Unknown
    return layer(b, name, module, x)
