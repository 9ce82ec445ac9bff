"""ONNX operators that move a window over an image or a signal: Conv, ConvTranspose, pooling, resizing.

Each handler takes the `Context` of its node and the node's inputs, and gives an `Activation`. Whatever the operator's
form, the steps compute in real arithmetic what the file does; a form for which there are none is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from acert_zoo.network.building import composed, pooling
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported, Value
from acert_zoo.network.onnx import elementwise
from acert_zoo.network.onnx.values import Activation, Context

Handler = Callable[..., Activation]

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


# --- pooling and resizing ------------------------------------------------------------------------------------------


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
    return _image(pooling.max_pool2d(ctx.b, ctx.name, plane, kernel, strides, [p[0] for p in pads]), rank)


def average_pool(ctx: Context, x: Activation) -> Activation:
    """Mean over windows; where padding does not count, a sum divided by how many entries each window holds."""
    plane, kernel, strides, pads, rank = _pooling(ctx, x)
    sizes = plane.known_shape
    counted = bool(ctx.get("count_include_pad", 0)) or not any(map(sum, pads))
    plane, padding = _padded(ctx, plane, pads, sizes[0])
    if counted:
        return _image(pooling.avg_pool2d(ctx.b, ctx.name, plane, kernel, strides, padding), rank)
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
