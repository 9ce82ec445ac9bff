"""What the operations that torch and ONNX share become in a `Network`: affine ones and rearrangements.

Every handler takes the `Builder`, a name, and the operation's own arguments, in which the values that depend on the
network input are `Value`s; it returns a `Value`. Rearrangements keep the batch axis first. Which ATen operation belongs
to which handler stands in `torch_modules/aten_operations.py`; pooling is in `pooling.py`, handlers of more than one
step in `composed.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from acert_zoo.network import layers
from acert_zoo.network.building.builder import Builder, Unsupported, Value

Size: TypeAlias = int | Sequence[int]  # one number for both image axes, or one each
Operand: TypeAlias = Value | Tensor | float


def pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1 if len(value) > 1 else 0]))


# --- affine -----------------------------------------------------------------------------------------------------


def conv2d(
    b: Builder,
    name: str,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Value:
    if isinstance(padding, str):
        extent = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
        if padding == "same" and any(e % 2 for e in extent):
            raise Unsupported("padding='same' with an even kernel")
        padding = 0 if padding == "valid" else [e // 2 for e in extent]
    return b.add(
        layers.Conv,
        name,
        x,
        weight=weight,
        bias=bias if bias is not None else weight.new_zeros(weight.shape[0]),
        stride=pair(stride),
        padding=pair(padding),
        dilation=pair(dilation),
        groups=groups,
    )


def linear(b: Builder, name: str, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    if x.shape is not None and len(x.shape) != 1:
        raise Unsupported(f"a Linear layer on values of shape {x.shape}; flatten first")
    bias = bias if bias is not None else weight.new_zeros(weight.shape[0])
    return b.add(layers.Linear, name, x, weight=weight, bias=bias)


def batch_norm(
    b: Builder,
    name: str,
    x: Value,
    mean: Tensor | None,
    var: Tensor | None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
) -> Value:
    if mean is None or var is None:
        raise Unsupported("BatchNorm without fixed statistics")
    gamma = gamma if gamma is not None else torch.ones_like(mean)
    beta = beta if beta is not None else torch.zeros_like(mean)
    return b.add(layers.BatchNorm, name, x, gamma=gamma, beta=beta, mean=mean, var=var, epsilon=eps)


def _constant(b: Builder, x: Value, value: Tensor | float) -> Tensor:
    """A number or tensor as it is added to or multiplied with x: [C] if it varies along axis 1 only, else x's shape."""
    t = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64, device="cpu")
    if not bool(torch.isfinite(t).all()):
        raise Unsupported("a constant that is not finite")
    if t.numel() == 1 and t.dim() <= 1 + len(x.shape or ()):
        t = t.to(b.dtype).reshape(1)
        return t if x.shape is None else t.repeat(x.shape[0])
    t = t if t.is_floating_point() else t.to(b.dtype)
    axes = 1 + len(x.known_shape)
    shape = (1,) * (axes - t.dim()) + tuple(t.shape)
    fits = len(shape) == axes and shape[0] == 1
    if not fits or any(have not in (1, size) for have, size in zip(shape[1:], x.known_shape, strict=True)):
        raise Unsupported(f"a constant of shape {tuple(t.shape)} with a value of shape {x.known_shape} per sample")
    if shape[1] == t.numel() == x.known_shape[0]:
        return t.reshape(-1)
    return t.reshape(shape[1:]).expand(x.known_shape)


_Operation: TypeAlias = Callable[[Builder, str, Value, Tensor | float], Value]


def _of_numbers_too(operation: _Operation) -> _Operation:
    """An operation with a constant, for a value that is a single number an image as well: as a channel of its own."""

    def apply(b: Builder, name: str, x: Value, by: Tensor | float) -> Value:
        if x.shape != ():
            return operation(b, name, x, by)
        return to_shape(b, name, operation(b, name, to_shape(b, name, x, (1,)), by), ())

    return apply


@_of_numbers_too
def shift(b: Builder, name: str, x: Value, by: Tensor | float) -> Value:
    """x - by."""
    by = _constant(b, x, by)
    if by.dim() <= 1:
        return b.add(layers.Normalize, name, x, mean=by, std=torch.ones_like(by))
    flat = to_shape(b, name, x, (by.numel(),))
    by = by.reshape(-1)
    return to_shape(b, name, b.add(layers.Normalize, name, flat, mean=by, std=torch.ones_like(by)), x.known_shape)


@_of_numbers_too
def scale(b: Builder, name: str, x: Value, by: Tensor | float) -> Value:
    """x * by, as a layer with one weight a channel, or a value."""
    return _scale(b, name, x, _constant(b, x, by))


_LARGEST_DIAGONAL = 256  # channels; a matrix would be mostly zeros beyond it


def _scale(b: Builder, name: str, x: Value, by: Tensor) -> Value:
    """x * by for `by` of shape [C] or x's: a diagonal matrix, or a 1x1 convolution with as many groups as weights."""
    shape = x.known_shape
    if len(shape) == 1 and shape[0] <= _LARGEST_DIAGONAL:
        return linear(b, name, x, torch.diag(by))
    if by.dim() > 1 or len(shape) == 1:
        form: tuple[int, ...] = (by.numel(), 1, 1)
    else:
        form = shape if len(shape) == 3 else (shape[0], math.prod(shape[1:]), 1)
    x = to_shape(b, name, x, form)
    x = conv2d(b, name, x, by.reshape(-1, 1, 1, 1), groups=by.numel())
    return to_shape(b, name, x, shape)


def add(b: Builder, name: str, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if alpha != 1:
        y = scale(b, name, y, alpha) if isinstance(y, Value) else _exact_product(b, y, alpha)
    if isinstance(x, Value) and isinstance(y, Value):
        if x.shape != y.shape:
            raise Unsupported(f"adding values of shapes {x.shape} and {y.shape} (broadcasting)")
        return b.add(layers.Add, name, x, y)
    if isinstance(x, Value):
        assert not isinstance(y, Value)
        return shift(b, name, x, -y)
    if isinstance(y, Value):
        return shift(b, name, y, -x)
    raise Unsupported("the sum of two constants")


def sub(b: Builder, name: str, x: Operand, y: Operand, alpha: float = 1) -> Value:
    if isinstance(y, Value):
        return add(b, name, x, scale(b, name, y, -alpha))
    if not isinstance(x, Value):
        raise Unsupported("the difference of two constants")
    return shift(b, name, x, y if alpha == 1 else _exact_product(b, y, alpha))


def _exact_product(b: Builder, y: Tensor | float, alpha: float) -> Tensor:
    """alpha * y where no rounding takes place: the real-valued network is the one with these very constants."""
    y = y if isinstance(y, Tensor) else torch.tensor(float(y), dtype=torch.float64, device="cpu").to(b.dtype)
    product, exact = y * alpha, y.double() * alpha
    if (product.dtype == torch.float64 and abs(alpha) not in (0.5, 1, 2)) or not torch.equal(product.double(), exact):
        raise Unsupported(f"the product of the constants {alpha} and another, which is rounded")
    return product


def mul(b: Builder, name: str, x: Operand, y: Operand) -> Value:
    if isinstance(x, Value) == isinstance(y, Value):
        raise Unsupported("the product of two values that depend on the input, or of two constants")
    if isinstance(x, Value):
        assert not isinstance(y, Value)
        return scale(b, name, x, y)
    assert isinstance(y, Value)
    return scale(b, name, y, x)


def div(b: Builder, name: str, x: Operand, y: Operand) -> Value:
    """x / y; (u - mean) / std becomes one Normalize step."""
    if not isinstance(x, Value) or isinstance(y, Value):
        raise Unsupported("division by a value that depends on the input")
    return _divided(b, name, x, y)


@_of_numbers_too
def _divided(b: Builder, name: str, x: Value, y: Tensor | float) -> Value:
    y = _constant(b, x, y)
    if not bool((y != 0).all()):
        raise Unsupported("division by zero")
    if y.dim() > 1:
        flat = div(b, name, to_shape(b, name, x, (y.numel(),)), y.reshape(-1))
        return to_shape(b, name, flat, x.known_shape)
    if bool((y < 0).any()):
        x, y = _scale(b, name, x, torch.sign(y)), y.abs()
    before = b.steps[x.index - 1] if x.index else None
    if isinstance(before, layers.Normalize) and torch.equal(before.std, torch.ones_like(before.std)):
        mean, std = torch.broadcast_tensors(before.mean, y)
        return b.add(layers.Normalize, name, Value(before.inputs[0], x.shape), mean=mean.clone(), std=std.clone())
    return b.add(layers.Normalize, name, x, mean=torch.zeros_like(y), std=y)


# --- elementwise, rearranging -------------------------------------------------------------------------------------


def relu(b: Builder, name: str, x: Value) -> Value:
    return b.add(layers.ReLU, name, x)


def dropout(b: Builder, name: str, x: Value, p: float = 0.5, training: bool = True) -> Value:
    if training and p:
        raise Unsupported("dropout in train mode; call model.eval()")
    return x


def flatten(b: Builder, name: str, x: Value) -> Value:
    return b.add(layers.Flatten, name, x)


def to_shape(b: Builder, name: str, x: Value, shape: tuple[int, ...]) -> Value:
    """Each sample in another shape, its elements in the same order."""
    if shape == x.known_shape:
        return x
    if len(shape) == 1 and x.known_shape:
        return b.add(layers.Flatten, name, x)
    return b.add(layers.Reshape, name, x, shape=shape)


def permute(b: Builder, name: str, x: Value, dims: Sequence[int]) -> Value:
    order = tuple(d % len(dims) for d in dims)
    if order[0] != 0:
        raise Unsupported("moving the batch axis")
    return x if order == tuple(range(len(order))) else b.add(layers.Permute, name, x, dims=order)


def transpose(b: Builder, name: str, x: Value, dim0: int, dim1: int) -> Value:
    order = list(range(1 + len(x.known_shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(b, name, x, order)


def cat(b: Builder, name: str, tensors: Sequence[Operand], dim: int = 0) -> Value:
    values = [t for t in tensors if isinstance(t, Value)]
    if len(values) < len(tensors):
        raise Unsupported("joining with constants")
    axes = 1 + len(values[0].known_shape)
    if dim % axes == 0:
        raise Unsupported("joining along the batch axis")
    return b.add(layers.Concat, name, *values, dim=dim % axes)
