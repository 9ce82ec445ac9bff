"""Operations that become several steps: along one axis, over several axes, and piecewise linear ones through ReLUs.

`along_axis` is a matrix that acts on one axis, as a 1x1 convolution: with rows of the identity it selects, reverses,
repeats and (with rows of zeros) pads, with rows of ones it adds up. Piecewise linear functions are written with relu,
so that real arithmetic gives the same function:
    max(x, c) = relu(x - c) + c,   min(x, c) = c - relu(c - x),   leaky(x) = relu(x) - s relu(-x),   for any slope s.
The first three lose nothing in interval bounds, since each reads its input once or (leaky, s >= 0) is monotone in both
terms; other combinations may be looser, never wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acert_zoo.network import layers
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Builder, Unsupported, Value
from acert_zoo.network.building.operations import permute, to_shape

_LARGEST_MATRIX = 2**24  # entries


def along_axis(b: Builder, name: str, x: Value, axis: int, weight: Tensor, bias: Tensor | None = None) -> Value:
    """y[..., i, ...] = sum over j of weight[i, j] x[..., j, ...] + bias[i] along per-sample axis `axis` (from 0)."""
    shape = x.known_shape
    if weight.dim() != 2 or weight.shape[1] != shape[axis] or weight.numel() > _LARGEST_MATRIX:
        raise Unsupported(f"a matrix of shape {tuple(weight.shape)} along an axis of a value of shape {shape}")
    if len(shape) == 1:
        return ops.linear(b, name, x, weight, bias)
    moved = [axis, *(i for i in range(len(shape)) if i != axis)]
    x = permute(b, name, x, [0, *(i + 1 for i in moved)])
    rest = x.known_shape[1:]
    x = to_shape(b, name, x, (shape[axis], *(rest if len(rest) == 2 else (math.prod(rest), 1))))
    x = ops.conv2d(b, name, x, weight.reshape(*weight.shape, 1, 1), bias)
    x = to_shape(b, name, x, (weight.shape[0], *rest))
    return permute(b, name, x, [0, *(moved.index(i) + 1 for i in range(len(shape)))])


def take(b: Builder, name: str, x: Value, axis: int, indices: Sequence[int]) -> Value:
    """Entries `indices` along per-sample axis `axis`, in that order; all of them in order is x itself."""
    size = x.known_shape[axis]
    if list(indices) == list(range(size)):
        return x
    if not len(indices):
        raise Unsupported("a selection of nothing")
    return along_axis(b, name, x, axis, _selection(b, size, indices))


def _selection(b: Builder, size: int, indices: Sequence[int | None]) -> Tensor:
    """The matrix [len(indices), size] that takes the entries `indices`; None is a row of zeros."""
    _check_matrix(len(indices), size)
    weight = torch.zeros(len(indices), size, dtype=b.dtype, device="cpu")
    for row, index in enumerate(indices):
        if index is not None:
            weight[row, index] = 1.0
    return weight


def _check_matrix(rows: int, columns: int) -> None:
    """Before memory is taken for it: an image of 224 x 224, flattened, is 150,528 columns."""
    if rows * columns > _LARGEST_MATRIX:
        raise Unsupported(f"a matrix of shape {(rows, columns)}: {_LARGEST_MATRIX:,} entries at most")


def pad(b: Builder, name: str, x: Value, axis: int, before: int, after: int, value: float = 0.0) -> Value:
    """`before` and `after` entries of `value` (or, where negative, so many entries cut off) along an axis."""
    size = x.known_shape[axis]
    if (before, after) == (0, 0):
        return x
    kept = range(max(0, -before), size - max(0, -after))
    if not len(kept) and before <= 0 and after <= 0:
        raise Unsupported("a selection of nothing")
    _check_matrix(max(0, before) + len(kept) + max(0, after), size)
    weight = _selection(b, size, [*[None] * max(0, before), *kept, *[None] * max(0, after)])
    bias = torch.zeros(len(weight), dtype=b.dtype)
    bias[: max(0, before)] = value
    bias[len(weight) - max(0, after) :] = value
    if not bool(torch.isfinite(bias).all()):
        raise Unsupported(f"padding with {value}")
    return along_axis(b, name, x, axis, weight, bias)


def expand(b: Builder, name: str, x: Value, shape: Sequence[int]) -> Value:
    """x repeated along its axes of size 1 (and along new leading axes) to `shape` per sample."""
    x = to_shape(b, name, x, (1,) * (len(shape) - len(x.known_shape)) + x.known_shape)
    for axis, (have, wanted) in enumerate(zip(x.known_shape, shape, strict=True)):
        if have != wanted:
            if have != 1:
                raise Unsupported(f"expanding a value of shape {x.known_shape} to {tuple(shape)}")
            x = along_axis(b, name, x, axis, torch.ones(wanted, 1, dtype=b.dtype))
    return x


def broadcast(b: Builder, name: str, x: Value, y: Value) -> tuple[Value, Value]:
    """Both values in their common shape."""
    try:
        shape = torch.broadcast_shapes((1, *x.known_shape), (1, *y.known_shape))
    except RuntimeError:
        raise Unsupported(f"values of shapes {x.known_shape} and {y.known_shape}") from None
    if len(x.known_shape) != len(y.known_shape):  # the batch axes would not meet
        raise Unsupported(f"values of shapes {x.known_shape} and {y.known_shape}, of different numbers of axes")
    return expand(b, name, x, shape[1:]), expand(b, name, y, shape[1:])


def reduce(b: Builder, name: str, x: Value, axes: Sequence[int], keepdim: bool, kind: str) -> Value:
    """The mean, sum, maximum or minimum (`kind`: "mean", "sum", "max", "min") over per-sample axes."""
    if kind == "min":  # -max(-x)
        return ops.scale(b, name, reduce(b, name, ops.scale(b, name, x, -1.0), axes, keepdim, "max"), -1.0)
    shape, over = x.known_shape, sorted(set(axes))
    kept = [i for i in range(len(shape)) if i not in over]
    if len(shape) == 3 and over == [1, 2]:
        window = shape[1:]
    else:
        x = permute(b, name, x, [0, *(i + 1 for i in (*kept, *over))])
        window = (math.prod(shape[i] for i in over), 1)
        x = to_shape(b, name, x, (math.prod(shape[i] for i in kept), *window))
    if kind == "sum":
        weight = torch.ones(x.known_shape[0], 1, *window, dtype=b.dtype)
        x = ops.conv2d(b, name, x, weight, groups=x.known_shape[0])
    elif window != (1, 1):
        pooling = layers.AvgPool if kind == "mean" else layers.MaxPool
        x = b.add(pooling, name, x, kernel_size=tuple(window), stride=tuple(window))
    return to_shape(b, name, x, tuple(1 if i in over else s for i, s in enumerate(shape) if keepdim or i not in over))


def constant(b: Builder, name: str, like: Value, value: Tensor) -> Value:
    """`value` (one sample's) as a value of the network: nothing of `like`, plus a bias."""
    flat = to_shape(b, name, like, (math.prod(like.known_shape),))
    _check_matrix(value.numel(), flat.known_shape[0])
    weight = torch.zeros(value.numel(), flat.known_shape[0], dtype=b.dtype)
    return to_shape(b, name, ops.linear(b, name, flat, weight, value.reshape(-1).to(b.dtype)), tuple(value.shape))


def relu_above(b: Builder, name: str, x: Value, low: Any) -> Value:
    """max(x, low) for a constant."""
    return ops.shift(b, name, ops.relu(b, name, ops.shift(b, name, x, low)), -low)


def clamp(b: Builder, name: str, x: Value, low: float | None, high: float | None) -> Value:
    """min(max(x, low), high), low <= high."""
    low, high = None if low == -math.inf else low, None if high == math.inf else high
    numbers = [v for v in (low, high) if v is not None]
    if any(not isinstance(v, (int, float)) or not math.isfinite(v) for v in numbers) or numbers != sorted(numbers):
        raise Unsupported(f"clamping to [{low}, {high}]")
    if low is not None:
        x = ops.relu(b, name, x) if low == 0 else relu_above(b, name, x, low)
    if high is not None:
        x = ops.scale(b, name, relu_above(b, name, ops.scale(b, name, x, -1.0), -high), -1.0)
    return x


def leaky_relu(b: Builder, name: str, x: Value, slope: Any) -> Value:
    """x for x > 0, slope x elsewhere; `slope` a number, or [C] along axis 1."""
    below = ops.relu(b, name, ops.scale(b, name, x, -1.0))
    if isinstance(slope, Tensor) and slope.numel() > 1:
        slope = slope.reshape(1, -1, *(1,) * (len(x.known_shape) - 1))
    return ops.add(b, name, ops.relu(b, name, x), ops.scale(b, name, below, -slope))


def maximum(b: Builder, name: str, x: Any, y: Any) -> Value:
    """max(x, y); a constant is a number or a tensor that broadcasts."""
    if not (isinstance(x, Value) and isinstance(y, Value)):
        x, y = (x, y) if isinstance(x, Value) else (y, x)
        return relu_above(b, name, x, y)
    x, y = broadcast(b, name, x, y)
    return ops.add(b, name, x, ops.relu(b, name, ops.sub(b, name, y, x)))


def minimum(b: Builder, name: str, x: Any, y: Any) -> Value:
    """min(x, y) = -max(-x, -y)."""
    x, y = (ops.scale(b, name, v, -1.0) if isinstance(v, Value) else -v for v in (x, y))
    return ops.scale(b, name, maximum(b, name, x, y), -1.0)
