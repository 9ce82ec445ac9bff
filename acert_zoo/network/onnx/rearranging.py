"""ONNX operators that move, join, select, repeat or reduce entries along axes; opsets differ in where axes stand.

Each handler takes the `Context` of its node and the node's inputs. Reshaping changes no value, only its `dims`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from acert_zoo.network import layers
from acert_zoo.network.building import composed
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported
from acert_zoo.network.onnx.elementwise import expand_to
from acert_zoo.network.onnx.values import Activation, Context, constant


def identity(ctx: Context, x: Activation) -> Activation:
    """x."""
    return x


def dropout(ctx: Context, x: Activation, ratio: Any = None, training: Any = None) -> Activation:
    """x, outside of training."""
    if isinstance(training, Activation) or (training is not None and bool(np.any(training))):
        raise Unsupported("training mode")
    return x


def cast(ctx: Context, x: Activation, like: Any = None) -> Activation:
    """x, where the type stays; any other conversion rounds."""
    names = {1: "float32", 11: "float64"}
    have = str(ctx.b.dtype).removeprefix("torch.")
    if ctx.operator == "CastLike":
        wanted = have if isinstance(like, Activation) else str(like.dtype)
    else:
        wanted = names.get(ctx.get("to", 0), f"type {ctx.get('to', 0)}")
    if wanted != have:
        raise Unsupported(f"from {have} to {wanted}")
    return x


def reshape(ctx: Context, x: Activation, shape: Any) -> Activation:
    """Another shape; 0 keeps a size (unless allowzero), -1 is what is left."""
    wanted = ctx.integers(shape, "a shape")
    dims = [x.dims[i] if d == 0 and not ctx.get("allowzero", 0) else d for i, d in enumerate(wanted)]
    size = math.prod(x.dims)
    known = math.prod(d for d in dims if d != -1)
    if dims.count(-1) == 1 and known > 0 and size % known == 0:
        dims[dims.index(-1)] = size // known
    if math.prod(dims) != size or min(dims, default=1) < 1:
        raise Unsupported(f"from {x.dims} to {wanted}")
    return Activation(x.value, tuple(dims))


def flatten(ctx: Context, x: Activation) -> Activation:
    """Two axes: those before `axis`, and the rest."""
    axis = ctx.get("axis", 1)
    if not -len(x.dims) <= axis <= len(x.dims):
        raise Unsupported(f"axis {axis} of {len(x.dims)}")
    axis += len(x.dims) if axis < 0 else 0
    return Activation(x.value, (math.prod(x.dims[:axis]), math.prod(x.dims[axis:])))


def squeeze(ctx: Context, x: Activation, axes: Any = None) -> Activation:
    """Without axes of size 1: the named ones, or all."""
    given = ctx.axes("axes", axes)
    chosen = {i for i, d in enumerate(x.dims) if d == 1} if given is None else {ctx.axis(a, len(x.dims)) for a in given}
    if any(x.dims[i] != 1 for i in chosen):
        raise Unsupported(f"axes {given} of {x.dims}")
    return Activation(x.value, tuple(d for i, d in enumerate(x.dims) if i not in chosen))


def unsqueeze(ctx: Context, x: Activation, axes: Any = None) -> Activation:
    """With new axes of size 1; negative axes count from the end of the result."""
    given = ctx.axes("axes", axes) or []
    rank = len(x.dims) + len(given)
    chosen = {ctx.axis(a, rank) for a in given}
    if len(chosen) != len(given):
        raise Unsupported(f"axes {given}")
    old = iter(x.dims)
    return Activation(x.value, tuple(1 if i in chosen else next(old) for i in range(rank)))


def transpose(ctx: Context, x: Activation) -> Activation:
    """Axes in another order; those of size 1 move without a step."""
    perm = [ctx.axis(p, len(x.dims)) for p in ctx.get("perm", range(len(x.dims) - 1, -1, -1))]
    if sorted(perm) != list(range(len(x.dims))):
        raise Unsupported(f"perm = {perm} of {x.dims}")
    dims = tuple(x.dims[p] for p in perm)
    moving = [p for p in perm if x.dims[p] != 1]
    if moving == sorted(moving):
        return Activation(x.value, dims)
    kept = sorted(moving)
    if len(x.dims) > 1 and x.dims[0] == 1 and perm[0] == 0:  # the usual case: an image keeps its axes of size 1
        kept, moving = list(range(1, len(perm))), perm[1:]
    value = ctx.shaped(x, [x.dims[i] for i in kept])
    return Activation(ops.permute(ctx.b, ctx.name, value, [0, *(kept.index(p) + 1 for p in moving)]), dims)


def concat(ctx: Context, *parts: Any) -> Activation:
    """Parts joined along an axis; constants among them."""
    like = next(p for p in parts if isinstance(p, Activation))
    axis = ctx.axis(ctx.get("axis", 0), len(like.dims))
    filled = []
    for part in parts:
        if not isinstance(part, Activation):
            part = Activation(constant(ctx, like.value, ctx.weights(part, "a part")), np.shape(part))
        if part.dims[:axis] != like.dims[:axis] or part.dims[axis + 1 :] != like.dims[axis + 1 :]:
            raise Unsupported(f"shapes {like.dims} and {part.dims}")
        if math.prod(part.dims):
            filled.append(part)
    dims = (*like.dims[:axis], sum(p.dims[axis] for p in filled), *like.dims[axis + 1 :])
    ctx.check_size(dims)
    if len(filled) == 1:
        return Activation(filled[0].value, dims)
    without_batch = axis > 0 and like.dims[0] == 1 and len(like.dims) > 1
    values = [ctx.shaped(p, p.dims[1:] if without_batch else p.dims) for p in filled]
    return Activation(ctx.b.add(layers.Concat, ctx.name, *values, dim=axis + (0 if without_batch else 1)), dims)


def take(ctx: Context, x: Activation, axis: int, indices: list[int]) -> Activation:
    """Entries along an axis."""
    dims = (*x.dims[:axis], len(indices), *x.dims[axis + 1 :])
    if not indices:
        raise Unsupported("a selection of nothing")
    ctx.check_size(dims)
    value, place = ctx.along(x, axis)
    return Activation(composed.take(ctx.b, ctx.name, value, place, indices), dims)


def gather(ctx: Context, x: Activation, indices: Any) -> Activation:
    """Entries at constant indices."""
    axis = ctx.axis(ctx.get("axis", 0), len(x.dims))
    size = x.dims[axis]
    places = ctx.integers(indices, "indices")
    if any(not -size <= i < size for i in places):
        raise Unsupported(f"indices {places[:5]} beyond an axis of {size}")
    found = take(ctx, x, axis, [i % size for i in places])
    return Activation(found.value, (*x.dims[:axis], *np.shape(indices), *x.dims[axis + 1 :]))


def slice_(ctx: Context, x: Activation, *inputs: Any) -> Activation:
    """Ranges along axes: attributes before opset 10, then inputs."""
    if ctx.opset < 10:
        starts, ends = ([int(v) for v in ctx.attributes[key]] for key in ("starts", "ends"))
        axes, steps = [int(v) for v in ctx.get("axes", range(len(starts)))], [1] * len(starts)
    else:
        given = [None if v is None else ctx.integers(v, "a range") for v in (*inputs, None, None)[:4]]
        starts, ends = given[0] or [], given[1] or []
        axes, steps = given[2] or list(range(len(starts))), given[3] or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = ctx.axis(axis, len(x.dims))
        size = x.dims[place]
        if step == 0:
            raise Unsupported("a step of 0")
        # As Python's slices, but an end below -size of a negative step means "to the first entry".
        stop = None if step < 0 and end < -size else end
        x = take(ctx, x, place, list(range(size))[start:stop:step])
    return x


def split(ctx: Context, x: Activation, sizes: Any = None) -> list[Activation]:
    """Parts along an axis: of sizes given as attribute or input, or of equal size (the last one may be smaller)."""
    axis = ctx.axis(ctx.get("axis", 0), len(x.dims))
    parts = ctx.axes("split", sizes)
    if parts is None:
        number = ctx.get("num_outputs", 0) or ctx.outputs
        step = -(-x.dims[axis] // number)
        parts = [min(step, x.dims[axis] - i * step) for i in range(number)]
    if sum(parts) != x.dims[axis] or min(parts) < 1:
        raise Unsupported(f"parts {parts} of an axis of {x.dims[axis]}")
    ends = np.cumsum(parts).tolist()
    return [take(ctx, x, axis, list(range(end - n, end))) for n, end in zip(parts, ends, strict=True)]


def pad(ctx: Context, x: Activation, *inputs: Any) -> Activation:
    """A constant around the value: attributes before opset 11, then inputs."""
    if ctx.get("mode", "constant") != "constant":
        raise Unsupported(f"mode {ctx.get('mode', '')}")
    if ctx.opset < 11:
        pads, value = [int(v) for v in ctx.attributes["pads"]], float(ctx.get("value", 0.0))
        axes = list(range(len(x.dims)))
    else:
        amounts, number, chosen = (*inputs, None, None)[:3]
        pads = ctx.integers(amounts, "pads")
        value = 0.0 if number is None or not np.size(number) else float(ctx.weights(number, "a value"))
        axes = list(range(len(x.dims))) if chosen is None else ctx.integers(chosen, "axes")
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            place = ctx.axis(axis, len(x.dims))
            dims = (*x.dims[:place], x.dims[place] + before + after, *x.dims[place + 1 :])
            ctx.check_size(dims)
            of, within = ctx.along(x, place)
            x = Activation(composed.pad(ctx.b, ctx.name, of, within, before, after, value), dims)
    return x


def expand(ctx: Context, x: Activation, shape: Any) -> Activation:
    """x repeated to a constant shape, or x's own where that is larger."""
    return expand_to(ctx, x, tuple(np.broadcast_shapes(x.dims, tuple(ctx.integers(shape, "a shape")))))


def reduction(kind: str):  # type: ignore[no-untyped-def]
    """ReduceMean, ReduceSum, ReduceMax, ReduceMin; axes as attribute or input; without axes all of them."""

    def reduce(ctx: Context, x: Activation, axes: Any = None) -> Activation:
        given = ctx.axes("axes", axes)
        if not given and ctx.get("noop_with_empty_axes", 0):
            return x
        chosen = {ctx.axis(a, len(x.dims)) for a in given} if given else set(range(len(x.dims)))
        dims = tuple(1 if i in chosen else d for i, d in enumerate(x.dims) if i not in chosen or ctx.get("keepdims", 1))
        if all(x.dims[i] == 1 for i in chosen):
            return Activation(x.value, dims)
        offset = 1 if x.sample != x.dims else 0
        over = [i - offset for i in sorted(chosen) if i >= offset]
        return Activation(composed.reduce(ctx.b, ctx.name, ctx.sampled(x), over, True, kind), dims)

    return reduce
