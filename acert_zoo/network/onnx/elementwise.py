"""ONNX operators that work entry by entry: arithmetic with constants and between values, piecewise linear functions.

Each handler takes the `Context` of its node and the node's inputs, of which at least one is an `Activation`; constants
are NumPy arrays that broadcast as ONNX says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo.network import layers
from acert_zoo.network.building import composed
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported, Value
from acert_zoo.network.onnx.values import Activation, Context


def _with_constant(ctx: Context, x: Activation, array: Any) -> tuple[Value, Tensor, tuple[int, ...]]:
    """(value, constant, dims): both in a form that the operations on constants take.

    A constant that varies over channels alone stays one number a channel; any other is spread over the whole value.
    """
    t = ctx.weights(array, "a constant")
    dims = tuple(np.broadcast_shapes(x.dims, tuple(t.shape)))
    x = expand_to(ctx, x, dims)
    if t.numel() == 1:
        return x.value, t.reshape(1), dims
    t = t.reshape((1,) * (len(dims) - t.dim()) + tuple(t.shape))
    t = t if x.sample == dims else t[0]
    if t.numel() == t.shape[0] == x.sample[0]:
        return ctx.sampled(x), t.unsqueeze(0), dims
    return ctx.shaped(x, (math.prod(dims),)), t.expand(x.sample).reshape(-1), dims


def expand_to(ctx: Context, x: Activation, dims: tuple[int, ...]) -> Activation:
    """x repeated along axes of size 1 to the shape `dims`, into which it broadcasts."""
    if math.prod(dims) == math.prod(x.dims):
        return Activation(x.value, dims)
    ctx.check_size(dims)
    wide = Activation(x.value, (1,) * (len(dims) - len(x.dims)) + x.dims)
    from_, to = (wide.dims[1:], dims[1:]) if dims[0] == 1 else (wide.dims, dims)
    return Activation(composed.expand(ctx.b, ctx.name, ctx.shaped(wide, from_), to), dims)


def _both(ctx: Context, x: Activation, y: Activation) -> tuple[Value, Value, tuple[int, ...]]:
    """Two values in their common shape."""
    dims = tuple(np.broadcast_shapes(x.dims, y.dims))
    x, y = expand_to(ctx, x, dims), expand_to(ctx, y, dims)
    if x.value.shape == y.value.shape:
        return x.value, y.value, dims
    return ctx.sampled(x), ctx.sampled(y), dims


def add(ctx: Context, x: Any, y: Any) -> Activation:
    """x + y; a constant added to an affine layer without a bias becomes its bias."""
    if isinstance(x, Activation) and isinstance(y, Activation):
        a, b, dims = _both(ctx, x, y)
        return Activation(ops.add(ctx.b, ctx.name, a, b), dims)
    value, other = (x, y) if isinstance(x, Activation) else (y, x)
    a, t, dims = _with_constant(ctx, value, other)
    return Activation(_as_bias(ctx, a, t) or ops.shift(ctx.b, ctx.name, a, -t), dims)


def _as_bias(ctx: Context, x: Value, t: Tensor) -> Value | None:
    step = ctx.b.steps[x.index - 1] if x.index else None
    if not isinstance(step, (layers.Linear, layers.Conv)) or bool(step.bias.any()):
        return None
    if t.numel() not in (1, len(step.bias)) or (t.numel() > 1 and x.known_shape[0] != len(step.bias)):
        return None
    bias = t.reshape(-1).expand(len(step.bias)).contiguous()
    ctx.b.steps.append(dataclasses.replace(step, bias=bias))  # the step without it drops out unless it is used
    return Value(len(ctx.b.steps), x.shape)


def sub(ctx: Context, x: Any, y: Any) -> Activation:
    """x - y."""
    if isinstance(y, Activation):
        return add(ctx, x, negate(ctx, y))
    a, t, dims = _with_constant(ctx, x, y)
    return Activation(_as_bias(ctx, a, -t) or ops.shift(ctx.b, ctx.name, a, t), dims)


def negate(ctx: Context, x: Activation) -> Activation:
    """-x."""
    return Activation(ops.scale(ctx.b, ctx.name, x.value, -1.0), x.dims)


def mul(ctx: Context, x: Any, y: Any) -> Activation:
    """x * y, one of them a constant."""
    if isinstance(x, Activation) and isinstance(y, Activation):
        raise Unsupported("the product of two values that depend on the input")
    value, other = (x, y) if isinstance(x, Activation) else (y, x)
    a, t, dims = _with_constant(ctx, value, other)
    return Activation(ops.scale(ctx.b, ctx.name, a, t), dims)


def div(ctx: Context, x: Any, y: Any) -> Activation:
    """x / y, y a constant without zeros."""
    if isinstance(y, Activation):
        raise Unsupported("division by a value that depends on the input")
    a, t, dims = _with_constant(ctx, x, y)
    return Activation(ops.div(ctx.b, ctx.name, a, t), dims)


def total(ctx: Context, *values: Any) -> Activation:
    """The sum of any number of values."""
    result: Activation = reduce(lambda x, y: add(ctx, x, y), _activations_first(values))
    return result


def maximum(ctx: Context, *values: Any) -> Activation:
    """The largest of any number of values, entry by entry."""

    def larger(x: Activation, y: Any) -> Activation:
        if isinstance(y, Activation):
            a, b, dims = _both(ctx, x, y)
            return Activation(composed.maximum(ctx.b, ctx.name, a, b), dims)
        a, t, dims = _with_constant(ctx, x, y)
        return Activation(composed.relu_above(ctx.b, ctx.name, a, t), dims)

    result: Activation = reduce(larger, _activations_first(values))
    return result


def minimum(ctx: Context, *values: Any) -> Activation:
    """min(x, ...) = -max(-x, ...)."""
    return negate(ctx, maximum(ctx, *(negate(ctx, v) if isinstance(v, Activation) else -v for v in values)))


def _activations_first(values: tuple[Any, ...]) -> list[Any]:
    return sorted(values, key=lambda v: not isinstance(v, Activation))


def relu(ctx: Context, x: Activation) -> Activation:
    """max(x, 0)."""
    return Activation(ops.relu(ctx.b, ctx.name, x.value), x.dims)


def monotone(kind: type[layers.Step]) -> Callable[[Context, Activation], Activation]:
    """A step of its own that keeps the shape: Sigmoid, Sign, Tanh."""
    return lambda ctx, x: Activation(ctx.b.add(kind, ctx.name, x.value), x.dims)


def clip(ctx: Context, x: Activation, low: Any = None, high: Any = None) -> Activation:
    """min(max(x, low), high); limits as attributes before opset 11."""
    limits = [ctx.get("min", None), ctx.get("max", None)] if ctx.opset < 11 else [low, high]
    largest = float(torch.finfo(ctx.b.dtype).max)
    numbers: list[float | None] = []
    for limit, sign in zip(limits, (-1.0, 1.0), strict=True):
        if isinstance(limit, Activation) or (limit is not None and np.size(limit) != 1):
            raise Unsupported("limits that are no constant numbers")
        number = None if limit is None else float(np.ravel(limit)[0])
        numbers.append(None if number is None or sign * number >= largest else number)
    return Activation(composed.clamp(ctx.b, ctx.name, x.value, *numbers), x.dims)


def leaky_relu(ctx: Context, x: Activation, slope: Any = None) -> Activation:
    """x for x > 0, slope x elsewhere (LeakyRelu: attribute alpha; PRelu: a number or one a channel)."""
    if slope is None:
        return Activation(
            composed.leaky_relu(ctx.b, ctx.name, x.value, ctx.get("alpha", float(np.float32(0.01)))), x.dims
        )
    a, t, dims = _with_constant(ctx, x, slope)
    if dims != x.dims or t.numel() not in (1, a.known_shape[0]):
        raise Unsupported(f"slopes of shape {np.shape(slope)} for a value of shape {x.dims}")
    return Activation(composed.leaky_relu(ctx.b, ctx.name, a, t.reshape(-1)), dims)


def absolute(ctx: Context, x: Activation) -> Activation:
    """|x| = relu(x) + relu(-x)."""
    parts = ops.relu(ctx.b, ctx.name, x.value), ops.relu(ctx.b, ctx.name, negate(ctx, x).value)
    return Activation(ops.add(ctx.b, ctx.name, *parts), x.dims)
