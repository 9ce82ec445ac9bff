"""ONNX operators with weights and windows: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization, pooling, resizing.

Each handler takes the `Context` of its node and the node's inputs, and gives an `Activation`. Whatever the operator's
form, the steps compute in real arithmetic what the file does; a form for which there are none is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo.network import composed_operations as composed
from acert_zoo.network import onnx_elementwise as elementwise
from acert_zoo.network import trace_operations as ops
from acert_zoo.network.builder import Unsupported, Value
from acert_zoo.network.onnx_values import Activation, Context, constant

Handler = Callable[..., Activation]

# --- matrices -------------------------------------------------------------------------------------------------------


def matmul(ctx: Context, x: Any, y: Any) -> Activation:
    """Value times constant matrix, or constant matrix times value."""
    if isinstance(x, Activation) and isinstance(y, Activation):
        raise Unsupported("the product of two values that depend on the input")
    if isinstance(x, Activation):
        weight = _matrix(ctx.weights(y))
        kept = () if weight.dim() == 1 else (weight.shape[1],)
        dims = (*x.dims[:-1], *kept)
        return Activation(_rows(ctx, x, weight.reshape(weight.shape[0], -1).T.contiguous()), dims)
    weight = _matrix(ctx.weights(x))
    rows = weight.reshape(-1, weight.shape[-1])
    kept = () if weight.dim() == 1 else (weight.shape[0],)
    if len(y.dims) == 1:
        return Activation(_rows(ctx, y, rows), kept)
    ctx.check_size((len(rows), *y.dims))
    value, axis = ctx.along(y, -2)
    return Activation(composed.along_axis(ctx.b, ctx.name, value, axis, rows), (*y.dims[:-2], *kept, y.dims[-1]))


def _matrix(weight: Tensor) -> Tensor:
    while weight.dim() > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.dim() not in (1, 2):
        raise Unsupported(f"a constant of shape {tuple(weight.shape)}: one matrix for each of several parts")
    return weight


def _rows(ctx: Context, x: Activation, weight: Tensor) -> Value:
    """weight times each row along the last axis."""
    if not x.dims or x.dims[-1] != weight.shape[1]:
        raise Unsupported(f"a matrix of shape {tuple(weight.shape)} on a value of shape {x.dims}")
    if math.prod(x.dims[:-1]) == 1:
        return ops.linear(ctx.b, ctx.name, ctx.shaped(x, (x.dims[-1],)), weight)
    ctx.check_size((*x.dims[:-1], weight.shape[0]))
    value, axis = ctx.along(x, -1)
    return composed.along_axis(ctx.b, ctx.name, value, axis, weight)


def gemm(ctx: Context, a: Any, b: Any, c: Any = None) -> Activation:
    """alpha A' B' + beta C, A or B a constant. A product of constants that would be rounded is a step of its own."""
    alpha, beta = float(ctx.get("alpha", 1.0)), float(ctx.get("beta", 1.0))
    a, b = (_transposed(ctx, m, bool(ctx.get(key, 0))) for m, key in ((a, "transA"), (b, "transB")))
    if isinstance(a, Activation):
        scaled = b if isinstance(b, Activation) else _times(b, alpha)
        product = matmul(ctx, a, b if scaled is None else scaled)
    else:
        scaled = _times(a, alpha)
        product = matmul(ctx, a if scaled is None else scaled, b)
    if scaled is None:
        product = elementwise.mul(ctx, product, np.array(alpha, dtype=_numpy_type(ctx)))
    if c is None or beta == 0:
        return product
    if isinstance(c, Activation):
        raise Unsupported("C that depends on the input")
    scaled = _times(c, beta)
    if scaled is not None:
        return elementwise.add(ctx, product, scaled)
    spread = np.broadcast_to(c, product.dims)
    term = Activation(constant(ctx, product.value, ctx.weights(spread, "C")), product.dims)
    return elementwise.add(ctx, product, elementwise.mul(ctx, term, np.array(beta, dtype=_numpy_type(ctx))))


def _numpy_type(ctx: Context) -> Any:
    return np.float64 if ctx.b.dtype == torch.float64 else np.float32


def _transposed(ctx: Context, m: Any, wanted: bool) -> Any:
    if not wanted:
        return m
    if isinstance(m, Activation):
        if 1 not in m.dims:
            value = ops.permute(ctx.b, ctx.name, ctx.shaped(m, m.dims), [0, 2, 1])
            return Activation(value, m.dims[::-1])
        return Activation(m.value, m.dims[::-1])
    return np.ascontiguousarray(m.T)


def _times(array: Any, factor: float) -> Any:
    """array * factor where that is exact; None elsewhere."""
    if factor == 1:
        return array
    product = array * array.dtype.type(factor)
    if array.dtype == np.float64:
        return product if abs(factor) in (0.5, 1.0, 2.0) else None
    exact = array.astype(np.float64) * factor
    return product if np.isfinite(product).all() and np.array_equal(product.astype(np.float64), exact) else None


# --- convolutions ---------------------------------------------------------------------------------------------------


def _plane(ctx: Context, x: Activation, rank: int) -> Value:
    """The value as [C, H, W] per sample; a signal [C, L] is an image of width 1."""
    if len(x.dims) != rank or rank not in (3, 4) or x.dims[0] != 1:
        raise Unsupported(f"on a value of shape {x.dims}; [1, C, L] and [1, C, H, W] are read")
    return ctx.shaped(x, (*x.dims[1:], 1) if rank == 3 else x.dims[1:])


def _image(value: Value, rank: int) -> Activation:
    return Activation(value, (1, *value.known_shape[: rank - 1]))


def _window(ctx: Context, key: str, rank: int, default: int) -> list[int]:
    """An attribute with one number an axis of the plane."""
    numbers = [int(v) for v in ctx.get(key, [default] * (rank - 2))]
    if len(numbers) != rank - 2 or min(numbers) < 1:
        raise Unsupported(f"{key} = {numbers}")
    return [*numbers, 1] if rank == 3 else numbers


def _pads(ctx: Context, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], rank: int) -> list[Any]:
    """(before, after) for both axes of the plane; SAME_UPPER and SAME_LOWER keep ceil(size / stride)."""
    automatic = ctx.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, strides, extents, strict=True)]
        pairs = [(t // 2, t - t // 2) for t in totals]
        return pairs if automatic == "SAME_UPPER" else [p[::-1] for p in pairs]
    pads = [int(v) for v in ctx.get("pads", [0] * (2 * (rank - 2)))]
    if automatic == "VALID" or not pads:
        return [(0, 0), (0, 0)]
    if automatic != "NOTSET" or len(pads) != 2 * (rank - 2) or min(pads) < 0:
        raise Unsupported(f"auto_pad = {automatic}, pads = {pads}")
    half = rank - 2
    return [*zip(pads[:half], pads[half:], strict=True), *([(0, 0)] if rank == 3 else [])]


def _padded(ctx: Context, value: Value, pads: Sequence[Any], channels: int) -> tuple[Value, tuple[int, int]]:
    """The value padded by zeros as far as its two sides differ, and the padding that is left to the layer."""
    sizes = value.known_shape[1:]
    ctx.check_size((max(channels, value.known_shape[0]), *(n + a + b for n, (a, b) in zip(sizes, pads, strict=True))))
    left = tuple(min(pair) for pair in pads)
    for axis, (before, after) in enumerate(pads, 1):
        least = min(before, after)
        if before != after:
            value = composed.pad(ctx.b, ctx.name, value, axis, before - least, after - least)
    return value, (left[0], left[1])


def conv(ctx: Context, x: Any, weight: Any, bias: Any = None) -> Activation:
    """Convolution in one or two dimensions."""
    w = ctx.weights(weight)
    rank = w.dim()
    plane = _plane(ctx, x, rank)
    w = w.unsqueeze(-1) if rank == 3 else w
    kernel = list(w.shape[2:])
    strides, dilations = _window(ctx, "strides", rank, 1), _window(ctx, "dilations", rank, 1)
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = _pads(ctx, plane.known_shape[1:], extents, strides, rank)
    plane, padding = _padded(ctx, plane, pads, len(w))
    b = None if bias is None else ctx.weights(bias)
    return _image(ops.conv2d(ctx.b, ctx.name, plane, w, b, strides, padding, dilations, ctx.get("group", 1)), rank)


def conv_transpose(ctx: Context, x: Any, weight: Any, bias: Any = None) -> Activation:
    """Transposed convolution: the plane with zeros between its entries, convolved with the kernel turned round."""
    w = ctx.weights(weight)
    rank = w.dim()
    plane = _plane(ctx, x, rank)
    w = w.unsqueeze(-1) if rank == 3 else w
    if ctx.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in ctx.attributes:
        raise Unsupported("auto_pad or output_shape")
    groups, strides, dilations = (
        ctx.get("group", 1),
        _window(ctx, "strides", rank, 1),
        _window(ctx, "dilations", rank, 1),
    )
    pads = _pads(ctx, plane.known_shape[1:], [1, 1], [1, 1], rank)
    extra = [int(v) for v in ctx.get("output_padding", [0] * (rank - 2))] + [0] * (4 - rank)
    if len(w) != plane.known_shape[0] or len(w) % groups or min(extra) < 0:
        raise Unsupported(f"weights of shape {tuple(w.shape)} in {groups} groups, output_padding = {extra}")
    for axis in (1, 2):
        size, stride = plane.known_shape[axis], strides[axis - 1]
        reach = dilations[axis - 1] * (w.shape[axis + 1] - 1)
        before, after = (reach - p for p in pads[axis - 1])
        places = torch.arange(size) * stride + before
        length = (size - 1) * stride + 1 + before + after + extra[axis - 1]
        if length < 1:
            raise Unsupported("an empty result")
        ctx.check_size((size, length))
        ctx.check_size(
            (max(plane.known_shape[0], w.shape[1] * groups), length, *plane.known_shape[3 - axis : 4 - axis])
        )
        rows = torch.zeros(length, size, dtype=ctx.b.dtype)
        inside = (places >= 0) & (places < length)
        rows[places[inside], torch.arange(size)[inside]] = 1
        if length != size or not torch.equal(rows, torch.eye(size, dtype=ctx.b.dtype)):
            plane = composed.along_axis(ctx.b, ctx.name, plane, axis, rows)
    split = w.reshape(groups, -1, *w.shape[1:]).transpose(1, 2)  # [groups, out, in, kh, kw]
    w = split.reshape(-1, *split.shape[2:]).flip(2, 3).contiguous()
    b = None if bias is None else ctx.weights(bias)
    return _image(ops.conv2d(ctx.b, ctx.name, plane, w, b, 1, 0, dilations, groups), rank)


def batch_normalization(ctx: Context, x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Activation:
    """Batch normalisation with fixed statistics, over axis 1."""
    if ctx.get("training_mode", 0) or not ctx.get("spatial", 1) or len(x.dims) < 2 or x.dims[0] != 1:
        raise Unsupported(f"training_mode, spatial = 0, or on a value of shape {x.dims}")
    g, b, m, v = (ctx.weights(t) for t in (gamma, beta, mean, var))
    epsilon = float(ctx.get("epsilon", 1e-5))
    if not bool((v + epsilon > 0).all()):
        raise Unsupported("a variance that is not positive")
    return Activation(ops.batch_norm(ctx.b, ctx.name, ctx.sampled(x), m, v, g, b, eps=epsilon), x.dims)


# --- windows --------------------------------------------------------------------------------------------------------


def _pooling(ctx: Context, x: Activation) -> tuple[Value, list[int], list[int], list[Any], int]:
    """(plane, kernel, strides, pads, rank) of a pooling operator without dilation and without a last, cut window."""
    rank = len(x.dims)
    plane = _plane(ctx, x, rank)
    kernel, strides = _window(ctx, "kernel_shape", rank, 0), _window(ctx, "strides", rank, 1)
    if max(_window(ctx, "dilations", rank, 1)) > 1:
        raise Unsupported("dilation")
    pads = _pads(ctx, plane.known_shape[1:], kernel, strides, rank)
    sizes = zip(plane.known_shape[1:], kernel, strides, pads, strict=True)
    if ctx.get("ceil_mode", 0) and any((n + sum(p) - k) % s for n, k, s, p in sizes):
        raise Unsupported("ceil_mode with windows that reach beyond the padding")
    return plane, kernel, strides, pads, rank


def max_pool(ctx: Context, x: Activation) -> Activation:
    """Maximum over windows; its second output, the indices, is not read."""
    plane, kernel, strides, pads, rank = _pooling(ctx, x)
    if any(before != after for before, after in pads):
        raise Unsupported("padding that differs between opposite sides")
    return _image(ops.max_pool2d(ctx.b, ctx.name, plane, kernel, strides, [p[0] for p in pads]), rank)


def average_pool(ctx: Context, x: Activation) -> Activation:
    """Mean over windows; where padding does not count, a sum divided by how many entries each window holds."""
    plane, kernel, strides, pads, rank = _pooling(ctx, x)
    sizes = plane.known_shape
    counted = bool(ctx.get("count_include_pad", 0)) or not any(map(sum, pads))
    plane, padding = _padded(ctx, plane, pads, sizes[0])
    if counted:
        return _image(ops.avg_pool2d(ctx.b, ctx.name, plane, kernel, strides, padding), rank)
    window = torch.ones(sizes[0], 1, *kernel, dtype=ctx.b.dtype)
    sums = ops.conv2d(ctx.b, ctx.name, plane, window, None, strides, padding, 1, sizes[0])
    inside = torch.nn.functional.pad(torch.ones(1, 1, *sizes[1:], dtype=ctx.b.dtype), (*pads[1], *pads[0]))
    counts = torch.nn.functional.conv2d(inside, window[:1], stride=strides)[0].expand(sums.known_shape)
    image = Activation(sums, (1, *sums.known_shape))
    means = elementwise.div(ctx, image, counts.unsqueeze(0).numpy())
    return _image(ctx.shaped(means, sums.known_shape), rank)


def global_pool(kind: str) -> Handler:
    """The mean or maximum ("mean", "max") of each channel."""

    def pool(ctx: Context, x: Activation) -> Activation:
        if len(x.dims) < 3 or x.dims[0] != 1:
            raise Unsupported(f"on a value of shape {x.dims}")
        axes = list(range(1, len(x.sample)))
        value = composed.reduce(ctx.b, ctx.name, ctx.sampled(x), axes, True, kind)
        return Activation(value, (*x.dims[:2], *(1 for _ in axes)))

    return pool


def resize(ctx: Context, x: Activation, *inputs: Any) -> Activation:
    """Upsample, and Resize to a multiple of the size, by repeating entries."""
    if ctx.get("mode", "nearest") != "nearest" or "axes" in ctx.attributes:
        raise Unsupported(f"mode {ctx.get('mode', '')}, axes = {ctx.get('axes', None)}; nearest over all axes is read")
    old = ctx.operator == "Upsample" or ctx.opset < 11
    how = ctx.get("coordinate_transformation_mode", "half_pixel"), ctx.get("nearest_mode", "round_prefer_floor")
    rounding = ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"), ("asymmetric", "floor")
    if not old and how not in rounding:
        raise Unsupported(f"{how[0]} with {how[1]}")
    given = [v for v in inputs[0 if old else 1 :] if v is not None and np.size(v)] or [ctx.attributes["scales"]]
    if any(isinstance(v, Activation) for v in given) or np.size(given[0]) != len(x.dims):
        raise Unsupported("sizes that are not constant")
    numbers = np.ravel(given[0])
    sizes = numbers if numbers.dtype.kind in "iu" else numbers.astype(np.float64) * np.array(x.dims)
    dims = tuple(int(v) for v in sizes)
    if any(wanted != new or new < 1 or new % have for wanted, new, have in zip(sizes, dims, x.dims, strict=True)):
        raise Unsupported(f"from {x.dims} to {sizes.tolist()}; multiples are read")
    ctx.check_size(dims)
    for i, new in enumerate(dims):
        if new != x.dims[i]:
            value, axis = ctx.along(x, i)
            value = composed.take(ctx.b, ctx.name, value, axis, [j * x.dims[i] // new for j in range(new)])
            x = Activation(value, (*x.dims[:i], new, *x.dims[i + 1 :]))
    return x
