"""Reads a module's forward through torch.fx, operation by operation, into the steps of a `Network`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network import trace_operations as ops
from acert_zoo.network import trace_tables as tables
from acert_zoo.network.trace_operations import BATCH, Builder, Value


class Untraceable(UnsupportedLayerError):
    """The forward cannot be seen whole: whatever any tracer records of it may be one branch of several."""


def handler_of(module: nn.Module) -> Any:
    """The table's entry for a module, unless a subclass has given it another `forward`."""
    for base in type(module).__mro__:
        if base in tables.MODULES:
            return tables.MODULES[base] if type(module).forward is base.forward else None  # type: ignore[attr-defined]
    return None


def apply_module(builder: Builder, name: str, module: nn.Module, *args: Any, **kwargs: Any) -> Value:
    handler = handler_of(module)
    if handler is None:
        raise tables.unsupported(name, str(module))
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    try:
        return handler(builder, name, module, *args, **kwargs)
    except (ops.Unsupported, TypeError) as error:
        raise tables.unsupported(name, str(module), error) from None


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return handler_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


def trace_fx(model: nn.Module, builder: Builder) -> Value:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx runs the user's own forward: anything may be raised there
        raise Untraceable(
            f"{type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}); its forward must "
            "not branch on values or shapes"
        ) from error
    env: dict[Any, Any] = {}
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.op == "placeholder":
            if any(v == builder.input for v in env.values()):
                if node.args:
                    env[node] = node.args[0]
                    continue
                raise UnsupportedLayerError(f"the model takes a second input {node.target!r}; one tensor is supported")
            env[node] = builder.input
        elif node.op == "get_attr":
            env[node] = _attribute(model, node.target)
        elif node.op == "output":
            (result,) = torch.fx.node.map_arg(node.args, env.__getitem__)
            if not isinstance(result, Value):
                raise UnsupportedLayerError(f"the model must return one tensor of logits, it returns {result!r}")
            return result
        else:
            env[node] = _call(node, env, modules, builder)
    raise UnsupportedLayerError("the model returns nothing")


def _attribute(model: nn.Module, path: str) -> Any:
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _call(node: torch.fx.Node, env: dict[Any, Any], modules: dict[str, nn.Module], builder: Builder) -> Any:
    args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), env.__getitem__)
    args, kwargs, name = tuple(args), dict(kwargs), node.name
    if not args and "input" in kwargs:  # what torch calls the first argument of most operations
        args = (kwargs.pop("input"),)
    found: list[Value] = []
    torch.fx.node.map_aggregate((args, kwargs), lambda v: found.append(v) if isinstance(v, Value) else None)
    if not found:
        return _evaluate(node, modules, args, kwargs)
    if node.op == "call_module":
        module = modules[str(node.target)]
        out = apply_module(builder, str(node.target), module, *args, **kwargs)
        modifies = bool(getattr(module, "inplace", False))
    else:
        shape = _shape_query(node, args)
        if shape is not None:
            return shape
        is_method = node.op == "call_method"
        what = str(node.target) if is_method else getattr(node.target, "__name__", str(node.target))
        handler = tables.METHODS.get(str(node.target)) if is_method else tables.FUNCTIONS.get(node.target)
        if handler is None:
            raise tables.unsupported(name, what)
        try:
            out = handler(builder, name, *args, **kwargs)
        except (ops.Unsupported, TypeError) as error:
            raise tables.unsupported(name, what, error) from None
        modifies = (
            (is_method and what.endswith("_")) or node.target in tables.MODIFYING or kwargs.get("inplace") is True
        )
    if modifies and isinstance(args[0], Value):  # every name of the modified tensor now means the result
        for key, value in env.items():
            if value == args[0]:
                env[key] = out
    return out


def _evaluate(node: torch.fx.Node, modules: dict[str, nn.Module], args: tuple[Any, ...], kwargs: Any) -> Any:
    """An operation on constants alone."""
    if node.op == "call_module":
        return modules[str(node.target)](*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _shape_query(node: torch.fx.Node, args: tuple[Any, ...]) -> Any:
    """x.shape, x.size(), x.size(i), x.dim(): numbers, with BATCH for the batch size; None for other operations."""
    if (node.target is getattr and args[1] == "shape") or node.target == "size":
        sizes = (BATCH, *args[0].known_shape)
        return sizes[args[1]] if node.target == "size" and len(args) > 1 else sizes
    if node.target == "dim" or (node.target is getattr and args[1] == "ndim"):
        return 1 + len(args[0].known_shape)
    return None
