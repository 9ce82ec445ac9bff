"""ONNX layers without a window: Gemm, MatMul, BatchNormalization.

Each handler takes the `Context` of its node and the node's inputs, and gives an `Activation`. Whatever the operator's
form, the steps compute in real arithmetic what the file does; a form for which there are none is refused.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo.network.building import composed
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported, Value
from acert_zoo.network.onnx import elementwise
from acert_zoo.network.onnx.values import Activation, Context, constant


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


def batch_normalization(ctx: Context, x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Activation:
    """Batch normalisation with fixed statistics, over axis 1."""
    if ctx.get("training_mode", 0) or not ctx.get("spatial", 1) or len(x.dims) < 2 or x.dims[0] != 1:
        raise Unsupported(f"training_mode, spatial = 0, or on a value of shape {x.dims}")
    g, b, m, v = (ctx.weights(t) for t in (gamma, beta, mean, var))
    epsilon = float(ctx.get("epsilon", np.float32(1e-5)))
    if not bool((v + epsilon > 0).all()):
        raise Unsupported("a variance that is not positive")
    return Activation(ops.batch_norm(ctx.b, ctx.name, ctx.sampled(x), m, v, g, b, eps=epsilon), x.dims)
