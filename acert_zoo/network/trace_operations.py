"""What each torch operation becomes in a `Network`; `trace_tables.py` says which function belongs to which.

Every handler takes the `Builder`, a name, and the operation's own arguments, in which the values that depend on the
network input are `Value`s; it returns a `Value`. Rearrangements keep the batch axis first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acert_zoo.errors import InvalidInputError
from acert_zoo.network import graph
from acert_zoo.network.graph import Step

SUPPORTED = (
    "Conv2d (zero padding), Linear, BatchNorm1d/2d (eval), ReLU, max and average pooling (no ceil_mode), adaptive "
    "pooling to sizes that divide the input, flatten, reshape, view, permute, transpose, squeeze, cat, residual "
    "addition, per-channel scaling and shifting by constants, mean over the image axes, dropout (eval), identity"
)
BATCH = 7919  # stands for the batch size wherever code asks for a shape: no layer size is likely to equal this prime


class Unsupported(Exception):
    """Raised by a handler; the caller adds the operation's name."""


@dataclass(frozen=True)
class Value:
    """A tensor of the traced program: value `index` of the network; `shape` of one sample, None where not known."""

    index: int
    shape: tuple[int, ...] | None

    @property
    def known_shape(self) -> tuple[int, ...]:
        if self.shape is None:
            raise InvalidInputError("this network needs its input shape to be traced; give input_shape=(C, H, W)")
        return self.shape


class Builder:
    """Collects steps; follows the shape of one sample where the input's is known."""

    def __init__(self, input_shape: Sequence[int] | None) -> None:
        self.steps: list[Step] = []
        self.input = Value(0, tuple(input_shape) if input_shape is not None else None)

    def add(self, kind: type[Step], name: str, *inputs: Value, **fields: Any) -> Value:
        step = kind(inputs=tuple(v.index for v in inputs), name=name, **fields)
        self.steps.append(step)
        shape = None
        if all(v.shape is not None for v in inputs):
            tensors = [f for f in vars(step).values() if isinstance(f, Tensor)]
            like = tensors[0] if tensors else torch.zeros(())
            try:
                with torch.no_grad():
                    shape = tuple(step(*(like.new_zeros(1, *v.known_shape) for v in inputs)).shape[1:])
            except RuntimeError as error:
                taken = " and ".join(str(v.known_shape) for v in inputs)
                raise InvalidInputError(
                    f"layer {name!r} ({kind.__name__}) does not take a value of shape {taken}, which an input of shape "
                    f"{self.input.shape} leads to: {str(error).splitlines()[0]}"
                ) from error
        return Value(len(self.steps), shape)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1 if len(value) > 1 else 0]))


# --- affine -----------------------------------------------------------------------------------------------------


def conv2d(b, name, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Value:
    if isinstance(padding, str):
        extent = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
        if padding == "same" and any(e % 2 for e in extent):
            raise Unsupported("padding='same' with an even kernel")
        padding = 0 if padding == "valid" else [e // 2 for e in extent]
    return b.add(
        graph.Conv,
        name,
        x,
        weight=weight,
        bias=bias if bias is not None else weight.new_zeros(weight.shape[0]),
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
        groups=groups,
    )


def linear(b, name, x, weight, bias=None) -> Value:
    if x.shape is not None and len(x.shape) != 1:
        raise Unsupported(f"a Linear layer on values of shape {x.shape}; flatten first")
    bias = bias if bias is not None else weight.new_zeros(weight.shape[0])
    return b.add(graph.Linear, name, x, weight=weight, bias=bias)


def batch_norm(b, name, x, mean, var, gamma=None, beta=None, training=False, momentum=0.1, eps=1e-5) -> Value:
    if training or mean is None or var is None:
        raise Unsupported("BatchNorm without fixed statistics")
    gamma = gamma if gamma is not None else torch.ones_like(mean)
    beta = beta if beta is not None else torch.zeros_like(mean)
    return b.add(graph.BatchNorm, name, x, gamma=gamma, beta=beta, mean=mean, var=var, epsilon=eps)


def _constant(x: Value, value: Any) -> Tensor:
    """A number or tensor that varies along axis 1 of the batched value only, as [C] ([1] where C is not known)."""
    t = value if isinstance(value, Tensor) else torch.tensor(float(value))
    t = t if t.is_floating_point() else t.float()
    if t.numel() == 1:
        return t.reshape(1) if x.shape is None else t.reshape(1).repeat(x.shape[0])
    axes = 1 + len(x.known_shape)
    shape = (1,) * (axes - t.dim()) + tuple(t.shape)
    if len(shape) != axes or shape[1] != t.numel() or shape[1] != x.known_shape[0]:
        raise Unsupported(f"a constant of shape {tuple(t.shape)} with a value of shape {x.known_shape} per sample")
    return t.reshape(-1)


def shift(b, name, x: Value, by: Any) -> Value:
    """x - by."""
    by = _constant(x, by)
    return b.add(graph.Normalize, name, x, mean=by, std=torch.ones_like(by))


def scale(b, name, x: Value, by: Any) -> Value:
    """x * by, as a layer with one weight a channel."""
    return _scale(b, name, x, _constant(x, by).expand(x.known_shape[0]))


def _scale(b, name, x: Value, by: Tensor) -> Value:
    if len(x.known_shape) == 1:
        return linear(b, name, x, torch.diag(by))
    if len(x.known_shape) == 3:
        return conv2d(b, name, x, by.reshape(-1, 1, 1, 1), groups=len(by))
    raise Unsupported(f"scaling of values of shape {x.known_shape}")


def add(b, name, x, y, alpha=1) -> Value:
    if alpha != 1:
        y = scale(b, name, y, alpha) if isinstance(y, Value) else y * alpha
    if isinstance(x, Value) and isinstance(y, Value):
        if x.shape != y.shape:
            raise Unsupported(f"adding values of shapes {x.shape} and {y.shape} (broadcasting)")
        return b.add(graph.Add, name, x, y)
    return shift(b, name, x, -y) if isinstance(x, Value) else shift(b, name, y, -x)


def sub(b, name, x, y, alpha=1) -> Value:
    if isinstance(y, Value):
        return add(b, name, x, scale(b, name, y, -alpha))
    return shift(b, name, x, y * alpha)


def mul(b, name, x, y) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        raise Unsupported("the product of two values that depend on the input")
    return scale(b, name, x, y) if isinstance(x, Value) else scale(b, name, y, x)


def div(b, name, x, y) -> Value:
    """x / y; (u - mean) / std becomes one Normalize step."""
    if not isinstance(x, Value) or isinstance(y, Value):
        raise Unsupported("division by a value that depends on the input")
    y = _constant(x, y)
    if not bool((y != 0).all()):
        raise Unsupported("division by zero")
    if bool((y < 0).any()):
        x, y = _scale(b, name, x, torch.sign(y)), y.abs()
    before = b.steps[x.index - 1] if x.index else None
    if isinstance(before, graph.Normalize) and torch.equal(before.std, torch.ones_like(before.std)):
        mean, std = torch.broadcast_tensors(before.mean, y)
        return b.add(graph.Normalize, name, Value(before.inputs[0], x.shape), mean=mean.clone(), std=std.clone())
    return b.add(graph.Normalize, name, x, mean=torch.zeros_like(y), std=y)


# --- elementwise, pooling, rearranging ----------------------------------------------------------------------------


def relu(b, name, x, inplace=False) -> Value:
    return b.add(graph.ReLU, name, x)


def identity(b, name, x, *_args, **_kwargs) -> Value:
    return x


def dropout(b, name, x, p=0.5, training=True, inplace=False) -> Value:
    if training and p:
        raise Unsupported("dropout in train mode; call model.eval()")
    return x


def max_pool2d(b, name, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    if ceil_mode or return_indices or _pair(dilation) != (1, 1):
        raise Unsupported("max pooling with ceil_mode, dilation or indices")
    return _pool(b, graph.MaxPool, name, x, kernel_size, stride, padding)


def avg_pool2d(
    b, name, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    if ceil_mode or divisor_override is not None or (_pair(padding) != (0, 0) and not count_include_pad):
        raise Unsupported("average pooling with ceil_mode, divisor_override or padding left out of the mean")
    return _pool(b, graph.AvgPool, name, x, kernel_size, stride, padding)


def _pool(b, kind, name, x, kernel_size, stride, padding) -> Value:
    kernel = _pair(kernel_size)
    stride = _pair(stride) if stride not in (None, ()) else kernel
    return b.add(kind, name, x, kernel_size=kernel, stride=stride, padding=_pair(padding))


def _adaptive(kind) -> Callable:
    def pool(b, name, x, output_size, return_indices=False) -> Value:
        _, *sizes = x.known_shape
        wanted = (output_size,) * 2 if isinstance(output_size, int) or output_size is None else output_size
        targets = [s if o is None else o for s, o in zip(sizes, wanted, strict=True)]
        if return_indices or any(s % o for s, o in zip(sizes, targets, strict=True)):
            raise Unsupported(f"adaptive pooling of {tuple(sizes)} to {tuple(targets)}: windows of unequal size")
        kernel = tuple(s // o for s, o in zip(sizes, targets, strict=True))
        return x if kernel == (1, 1) else _pool(b, kind, name, x, kernel, kernel, 0)

    return pool


adaptive_avg_pool2d, adaptive_max_pool2d = _adaptive(graph.AvgPool), _adaptive(graph.MaxPool)


def mean(b, name, x, dim=None, keepdim=False) -> Value:
    axes = 1 + len(x.known_shape)
    if dim is None or axes != 4 or {d % axes for d in (dim if isinstance(dim, (tuple, list)) else (dim,))} != {2, 3}:
        raise Unsupported("mean over other axes than both image axes")
    pooled = adaptive_avg_pool2d(b, name, x, 1)
    return pooled if keepdim else flatten(b, name, pooled, 1)


def flatten(b, name, x, start_dim=0, end_dim=-1) -> Value:
    if start_dim == 1 and end_dim == -1:
        return b.add(graph.Flatten, name, x)
    axes = 1 + len(x.known_shape)
    start, end = start_dim % axes, end_dim % axes
    if start == 0:
        raise Unsupported("flattening the batch axis")
    dims = x.known_shape
    return _to_shape(b, name, x, (*dims[: start - 1], math.prod(dims[start - 1 : end]), *dims[end:]))


def reshape(b, name, x, *shape) -> Value:
    dims = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
    size = math.prod(x.known_shape)
    rest = dims[1:]
    if rest.count(-1) == 1 and -math.prod(rest) and size % -math.prod(rest) == 0:
        rest[rest.index(-1)] = size // -math.prod(rest)
    if not dims or dims[0] not in (BATCH, -1) or math.prod(rest) != size or any(d < 0 for d in rest):
        shown = [("batch" if d == BATCH else d) for d in dims]
        raise Unsupported(f"reshaping {x.known_shape} per sample to {shown}: the batch axis must stay first")
    return _to_shape(b, name, x, tuple(rest))


def _to_shape(b, name, x, shape: tuple[int, ...]) -> Value:
    if shape == x.known_shape:
        return x
    return b.add(graph.Flatten, name, x) if len(shape) == 1 else b.add(graph.Reshape, name, x, shape=shape)


def permute(b, name, x, *dims) -> Value:
    dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    order = tuple(d % len(dims) for d in dims)
    if order[0] != 0:
        raise Unsupported("moving the batch axis")
    return x if order == tuple(range(len(order))) else b.add(graph.Permute, name, x, dims=order)


def transpose(b, name, x, dim0, dim1) -> Value:
    order = list(range(1 + len(x.known_shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(b, name, x, order)


def squeeze(b, name, x, *dims) -> Value:
    dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    axes = 1 + len(x.known_shape)
    chosen = {d % axes for d in dims} if dims else set(range(1, axes))
    shape = tuple(s for i, s in enumerate(x.known_shape, 1) if not (s == 1 and i in chosen))
    return _to_shape(b, name, x, shape)


def unsqueeze(b, name, x, dim) -> Value:
    position = dim % (2 + len(x.known_shape))
    if position == 0:
        raise Unsupported("a new axis before the batch axis")
    return _to_shape(b, name, x, (*x.known_shape[: position - 1], 1, *x.known_shape[position - 1 :]))


def cat(b, name, tensors, dim=0) -> Value:
    axes = 1 + len(tensors[0].known_shape)
    if dim % axes == 0 or not all(isinstance(t, Value) for t in tensors):
        raise Unsupported("joining along the batch axis, or with constants")
    return b.add(graph.Concat, name, *tensors, dim=dim % axes)
