"""Rules of ATen operations: pooling, reductions over axes, and rearrangements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acert_zoo.network.building import composed, pooling
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported, Value
from acert_zoo.network.torch_modules.aten_rules import (
    RULES,
    Call,
    Repeated,
    Rule,
    axis_of,
    check_constants,
    rule,
    value_of,
)


def _image(x: Any) -> Value:
    value = value_of(x)
    if len(value.known_shape) != 3:
        raise Unsupported(f"pooling of a value of shape {value.known_shape} per sample")
    return value


@rule("max_pool2d_with_indices.default")
def _max_pool(
    c: Call,
    x: Any,
    kernel_size: ops.Size,
    stride: ops.Size = (),
    padding: ops.Size = 0,
    dilation: ops.Size = 1,
    ceil_mode: bool = False,
) -> tuple[Value, None]:
    ceil_mode = ceil_mode and not _whole_windows(_image(x), kernel_size, stride, padding)
    return pooling.max_pool2d(c.b, c.name, _image(x), kernel_size, stride, padding, dilation, ceil_mode), None


@rule("avg_pool2d.default")
def _avg_pool(
    c: Call,
    x: Any,
    kernel_size: ops.Size,
    stride: ops.Size = (),
    padding: ops.Size = 0,
    ceil_mode: bool = False,
    counted: bool = True,
    divisor: int | None = None,
) -> Value:
    ceil_mode = ceil_mode and not _whole_windows(_image(x), kernel_size, stride, padding)
    return pooling.avg_pool2d(c.b, c.name, _image(x), kernel_size, stride, padding, ceil_mode, counted, divisor)


def _whole_windows(x: Value, kernel_size: ops.Size, stride: ops.Size, padding: ops.Size) -> bool:
    """Whether ceil_mode changes nothing, since windows of the stride fill the padded image."""
    kernel, pad = ops.pair(kernel_size), ops.pair(padding)
    steps = kernel if stride == () or stride == [] else ops.pair(stride)
    sizes = zip(x.known_shape[1:], kernel, steps, pad, strict=True)
    return all((size + 2 * p - k) % s == 0 for size, k, s, p in sizes)


@rule("_adaptive_avg_pool2d.default", "adaptive_avg_pool2d.default")
def _adaptive_avg(c: Call, x: Any, output_size: Any) -> Value:
    return pooling.adaptive_avg_pool2d(c.b, c.name, _image(x), output_size)


@rule("adaptive_max_pool2d.default")
def _adaptive_max(c: Call, x: Any, output_size: Any) -> tuple[Value, None]:
    return pooling.adaptive_max_pool2d(c.b, c.name, _image(x), output_size), None


def _reduction(kind: str) -> Rule:
    def reduce(c: Call, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        if not dims or dtype not in (None, c.b.dtype):
            raise Unsupported(f"over all axes, the batch's included, or in {dtype}")
        return composed.reduce(c.b, c.name, value_of(x), [axis_of(x, d) for d in dims], keepdim, kind)

    return reduce


RULES["aten.mean.dim"] = _reduction("mean")
RULES["aten.sum.dim_IntList"] = _reduction("sum")
RULES["aten.amax.default"] = _reduction("max")
RULES["aten.amin.default"] = _reduction("min")


@rule("max.dim")
def _max_along(c: Call, x: Any, dim: int, keepdim: bool = False) -> tuple[Value, None]:
    return composed.reduce(c.b, c.name, value_of(x), [axis_of(x, dim)], keepdim, "max"), None


@rule("min.dim")
def _min_along(c: Call, x: Any, dim: int, keepdim: bool = False) -> tuple[Value, None]:
    return composed.reduce(c.b, c.name, value_of(x), [axis_of(x, dim)], keepdim, "min"), None


# --- rearrangements ---------------------------------------------------------------------------------------------------


@rule("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints")
@rule("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default")
def _reshape(c: Call, x: Any, *_: Any) -> Value | Repeated:
    """Elements keep their order; that the batch axis stays first is checked of every result."""
    if isinstance(x, Repeated):
        return Repeated(x.tensor.reshape(1, *c.sample))
    return ops.to_shape(c.b, c.name, value_of(x), c.sample)


@rule("permute.default")
def _permute(c: Call, x: Any, dims: Any) -> Value:
    return ops.permute(c.b, c.name, value_of(x), list(dims))


@rule("transpose.int")
def _transpose(c: Call, x: Any, first: int, second: int) -> Value:
    return ops.transpose(c.b, c.name, value_of(x), first, second)


@rule("expand.default")
def _expand(c: Call, x: Any, size: Any, *, implicit: bool = False) -> Value | Repeated:
    if isinstance(x, Repeated) and len(size) == x.tensor.dim():
        return Repeated(x.tensor.expand(1, *c.sample))
    if len(size) != 1 + len(value_of(x).known_shape):
        raise Unsupported("new axes before the batch axis")
    return composed.expand(c.b, c.name, x, c.shape or ())


@rule("cat.default")
def _cat(c: Call, tensors: Any, dim: int = 0) -> Value:
    like = value_of(next((t for t in tensors if isinstance(t, Value)), None))
    if not all(isinstance(t, (Value, Repeated)) for t in tensors):
        raise Unsupported("joining with a constant of fixed batch size")
    tensors = [_as_value(c, like, t) for t in tensors]
    axis_of(tensors[0], dim)
    return ops.cat(c.b, c.name, tensors, dim) if len(tensors) > 1 else tensors[0]


def _range(x: Value, axis: int, start: Any, end: Any, step: int) -> list[int]:
    if any(not isinstance(v, (int, type(None))) for v in (start, end)):
        raise Unsupported("a slice that depends on the batch size")
    return list(range(x.known_shape[axis])[slice(start, end, step)])


def _whole_batch(dim: int, start: Any, end: Any, step: int) -> bool:
    return dim == 0 and start in (None, 0) and (end is None or (type(end) is int and end >= 2**62)) and step == 1


@rule("slice.Tensor")
def _slice(c: Call, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    if _whole_batch(dim, start, end, step):
        return value_of(x)
    axis = axis_of(value_of(x), dim)
    return composed.take(c.b, c.name, x, axis, _range(x, axis, start, end, step))


@rule("slice_scatter.default")
def _slice_scatter(
    c: Call, x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """x with `source` in place of a slice."""
    if _whole_batch(dim, start, end, step):
        return source
    axis = axis_of(value_of(x), dim)
    return _put(c, x, _as_value(c, x, source), axis, _range(x, axis, start, end, step))


@rule("select.int")
def _select(c: Call, x: Any, dim: int, index: int) -> Value:
    axis = axis_of(value_of(x), dim)
    size = x.known_shape[axis]
    return ops.to_shape(c.b, c.name, composed.take(c.b, c.name, x, axis, [index % size]), c.sample)


@rule("select_scatter.default")
def _select_scatter(c: Call, x: Any, source: Any, dim: int, index: int) -> Value:
    axis = axis_of(value_of(x), dim)
    shape = x.known_shape
    source = ops.to_shape(c.b, c.name, _as_value(c, x, source), (*shape[:axis], 1, *shape[axis + 1 :]))
    return _put(c, x, source, axis, [index % shape[axis]])


@rule("full_like.default")
def _full_like(c: Call, x: Any, value: float, **options: Any) -> Repeated:
    return Repeated(torch.full((1, *c.sample), float(value), dtype=c.b.dtype))


@rule("fill.Scalar", "fill.Tensor")
def _fill(c: Call, x: Any, value: Any) -> Repeated:
    if not isinstance(value, (int, float, Tensor)):
        raise Unsupported("filling with a value")
    return Repeated(torch.full((1, *c.sample), float(value), dtype=c.b.dtype))


@rule("copy.default")
def _copy(c: Call, x: Any, source: Any, non_blocking: bool = False) -> Any:
    """What is written over x: `source` in x's shape."""
    if isinstance(source, Value):
        if len(source.known_shape) != len(c.sample):
            raise Unsupported("copying a value to another number of axes")
        return composed.expand(c.b, c.name, source, c.sample)
    tensor = source.tensor if isinstance(source, Repeated) else source
    if not isinstance(tensor, Tensor) or tensor.dim() > 1 + len(c.sample) or tensor.dtype != c.b.dtype:
        raise Unsupported("copying anything but a tensor of the same dtype")
    if tensor.dim() == 1 + len(c.sample) and tensor.shape[0] != 1:
        raise Unsupported("copying a constant of fixed batch size")
    return Repeated(tensor.expand(1, *c.sample))


def _as_value(c: Call, like: Value, source: Any) -> Value:
    if isinstance(source, Repeated):
        return composed.constant(c.b, c.name, like, source.tensor[0])
    return value_of(source)


def _put(c: Call, x: Value, source: Value, axis: int, places: list[int]) -> Value:
    """x with the entries of `source` at `places` along `axis`."""
    size = x.known_shape[axis]
    joined = ops.cat(c.b, c.name, [x, source], axis + 1)
    order = [size + places.index(i) if i in places else i for i in range(size)]
    return composed.take(c.b, c.name, joined, axis, order)


@rule("split_with_sizes.default")
def _split(c: Call, x: Any, sizes: Any, dim: int = 0) -> tuple[Value, ...]:
    axis, begin, parts = axis_of(value_of(x), dim), 0, []
    for size in sizes:
        parts.append(composed.take(c.b, c.name, x, axis, range(begin, begin + size)))
        begin += size
    return tuple(parts)


@rule("flip.default")
def _flip(c: Call, x: Any, dims: Any) -> Value:
    value = value_of(x)
    for dim in dims:
        axis = axis_of(value, dim)
        value = composed.take(c.b, c.name, value, axis, range(value.known_shape[axis])[::-1])
    return value


@rule("index_select.default")
def _index_select(c: Call, x: Any, dim: int, index: Any) -> Value:
    check_constants(index)
    axis = axis_of(value_of(x), dim)
    return composed.take(c.b, c.name, x, axis, index.reshape(-1).tolist())


@rule("index.Tensor")
def _index(c: Call, x: Any, indices: Any) -> Value:
    """Constant indices along one axis: `x[:, [2, 1, 0]]`, or what padding by reflection becomes."""
    chosen = [i for i, index in enumerate(indices) if index is not None]
    if len(chosen) != 1:
        raise Unsupported("indices along several axes at once")
    (dim,) = chosen
    index = indices[dim]
    check_constants(index)
    axis = axis_of(value_of(x), dim)
    size = x.known_shape[axis]
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
        raise Unsupported(f"indices {index.dtype} of shape {tuple(index.shape)}")
    return composed.take(c.b, c.name, x, axis, [i % size for i in index.tolist()])


@rule("constant_pad_nd.default")
def _pad(c: Call, x: Any, padding: Any, value: Any = 0.0) -> Value:
    out = value_of(x)
    axes = len(out.known_shape)
    if any(padding[2 * axes :]):
        raise Unsupported("padding the batch axis")
    for i in range(min(len(padding) // 2, axes)):
        before, after = int(padding[2 * i]), int(padding[2 * i + 1])
        out = composed.pad(c.b, c.name, out, axes - 1 - i, before, after, float(value))
    return out
