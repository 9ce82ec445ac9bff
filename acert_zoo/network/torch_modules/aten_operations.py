"""Rules of ATen operations: identities, affine ones, piecewise linear ones, sigmoid and tanh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from acert_zoo.network import layers
from acert_zoo.network.building import composed
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Unsupported, Value
from acert_zoo.network.torch_modules.aten_rules import RULES, Call, check_constants, operand, rule, value_of

IDENTITIES = ("clone", "alias", "detach", "contiguous", "lift_fresh_copy", "lift_fresh", "_to_copy")


@rule(*(f"{name}.default" for name in IDENTITIES))
def _identity(c: Call, x: Any, **options: Any) -> Value:
    return value_of(x)


@rule("dropout.default", "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default")
def _dropout(c: Call, x: Any, p: float, train: bool) -> Value:
    return ops.dropout(c.b, c.name, value_of(x), p, train)


# --- affine -------------------------------------------------------------------------------------------------------


@rule("linear.default")
def _linear(c: Call, x: Any, weight: Any, bias: Any = None) -> Value:
    check_constants(weight, bias)
    x = value_of(x)
    return composed.along_axis(c.b, c.name, x, len(x.known_shape) - 1, weight, bias)


@rule("mm.default", "matmul.default")
def _mm(c: Call, x: Any, weight: Any) -> Value:
    check_constants(weight)
    return _linear(c, x, weight.t().contiguous())


@rule("addmm.default")
def _addmm(c: Call, bias: Any, x: Any, weight: Any, *, beta: float = 1, alpha: float = 1) -> Value:
    check_constants(weight, bias)
    if (alpha, beta) != (1, 1):
        raise Unsupported("alpha and beta other than 1")
    return _linear(c, x, weight.t().contiguous(), bias.expand(weight.shape[1]).contiguous())


@rule("convolution.default")
def _convolution(
    c: Call,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    check_constants(weight, bias)
    x = value_of(x)
    if transposed:
        raise Unsupported("a transposed convolution")
    if weight.dim() == 3 and len(x.known_shape) == 2:  # one-dimensional: an image of height 1
        x = ops.to_shape(c.b, c.name, x, (x.known_shape[0], 1, x.known_shape[1]))
        settings = [1, *stride], [0, *padding], [1, *dilation]
        out = ops.conv2d(c.b, c.name, x, weight.unsqueeze(2), bias, *settings, groups)
        return ops.to_shape(c.b, c.name, out, (out.known_shape[0], out.known_shape[2]))
    if weight.dim() != 4 or len(x.known_shape) != 3:
        raise Unsupported(f"a convolution of a value of shape {x.known_shape} with a kernel {tuple(weight.shape)}")
    if len(stride) != 2 or len(padding) != 2 or len(dilation) != 2:
        raise Unsupported(f"stride {stride}, padding {padding}, dilation {dilation}")
    return ops.conv2d(c.b, c.name, x, weight, bias, stride, padding, dilation, groups)


@rule("_native_batch_norm_legit_no_training.default")
def _batch_norm(
    c: Call, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> tuple[Value, None, None]:
    check_constants(weight, bias, mean, var)
    return ops.batch_norm(c.b, c.name, value_of(x), mean, var, weight, bias, eps=eps), None, None


@rule("native_batch_norm.default")
def _native_batch_norm(
    c: Call, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Value, None, None]:
    if training:
        raise Unsupported("BatchNorm with the statistics of the batch")
    return _batch_norm(c, x, weight, bias, mean, var, momentum, eps)


@rule("add.Tensor", "add.Scalar")
def _add(c: Call, x: Any, y: Any, alpha: float = 1) -> Value:
    x, y = operand(x), operand(y)
    if isinstance(x, Value) and isinstance(y, Value):
        x, y = composed.broadcast(c.b, c.name, x, y)
    return ops.add(c.b, c.name, *_fitting(c, x, y), alpha)


@rule("sub.Tensor", "sub.Scalar")
def _sub(c: Call, x: Any, y: Any, alpha: float = 1) -> Value:
    x, y = operand(x), operand(y)
    if isinstance(x, Value) and isinstance(y, Value):
        x, y = composed.broadcast(c.b, c.name, x, y)
    x, y = _fitting(c, x, y)
    if not isinstance(x, Value) and alpha != 1:
        raise Unsupported("a constant less a multiple of a value")
    return ops.sub(c.b, c.name, x, y, alpha)


@rule("mul.Tensor", "mul.Scalar")
def _mul(c: Call, x: Any, y: Any) -> Value:
    return ops.mul(c.b, c.name, *_fitting(c, operand(x), operand(y)))


@rule("div.Tensor", "div.Scalar")
def _div(c: Call, x: Any, y: Any) -> Value:
    return ops.div(c.b, c.name, *_fitting(c, operand(x), operand(y)))


@rule("neg.default")
def _neg(c: Call, x: Any) -> Value:
    return ops.scale(c.b, c.name, value_of(x), -1.0)


def _fitting(c: Call, x: Any, y: Any) -> tuple[Any, Any]:
    """A value that a larger constant broadcasts is expanded first."""
    if isinstance(x, Value) and isinstance(y, Value):
        return x, y
    value, other = (x, y) if isinstance(x, Value) else (value_of(y), x)
    if isinstance(other, Tensor) and other.dim() > 1 + len(value.known_shape):
        raise Unsupported(f"a constant of shape {tuple(other.shape)} with {len(value.known_shape)} axes per sample")
    value = composed.expand(c.b, c.name, value, c.shape or value.known_shape)
    return (value, other) if isinstance(x, Value) else (other, value)


# --- piecewise linear ---------------------------------------------------------------------------------------------


@rule("relu.default")
def _relu(c: Call, x: Any) -> Value:
    return ops.relu(c.b, c.name, value_of(x))


@rule("clamp.default", "hardtanh.default")
def _clamp(c: Call, x: Any, low: Any = None, high: Any = None) -> Value:
    return composed.clamp(c.b, c.name, value_of(x), low, high)


@rule("clamp_min.default")
def _clamp_min(c: Call, x: Any, low: Any) -> Value:
    return composed.clamp(c.b, c.name, value_of(x), low, None)


@rule("clamp_max.default")
def _clamp_max(c: Call, x: Any, high: Any) -> Value:
    return composed.clamp(c.b, c.name, value_of(x), None, high)


RULES["aten.hardtanh.default"] = lambda c, x, low=-1.0, high=1.0: composed.clamp(c.b, c.name, value_of(x), low, high)
RULES["aten.relu6.default"] = lambda c, x: composed.clamp(c.b, c.name, value_of(x), 0, 6)


@rule("leaky_relu.default")
def _leaky_relu(c: Call, x: Any, slope: Any = 0.01) -> Value:
    return composed.leaky_relu(c.b, c.name, value_of(x), operand(slope))


@rule("prelu.default", "_prelu_kernel.default")
def _prelu(c: Call, x: Any, weight: Any) -> Value:
    check_constants(weight)
    return composed.leaky_relu(c.b, c.name, value_of(x), weight.reshape(-1))


@rule("abs.default")
def _abs(c: Call, x: Any) -> Value:
    return composed.leaky_relu(c.b, c.name, value_of(x), -1.0)


@rule("maximum.default")
def _maximum(c: Call, x: Any, y: Any) -> Value:
    return composed.maximum(c.b, c.name, *_fitting(c, operand(x), operand(y)))


@rule("minimum.default")
def _minimum(c: Call, x: Any, y: Any) -> Value:
    return composed.minimum(c.b, c.name, *_fitting(c, operand(x), operand(y)))


# --- smooth -------------------------------------------------------------------------------------------------------


RULES["aten.sigmoid.default"] = lambda c, x: c.b.add(layers.Sigmoid, c.name, value_of(x))
RULES["aten.tanh.default"] = lambda c, x: c.b.add(layers.Tanh, c.name, value_of(x))
