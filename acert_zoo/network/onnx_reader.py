"""An ONNX graph as a `Network`: each operator through the same handlers as torch's (`trace_operations.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network import trace_operations as ops
from acert_zoo.network.graph import Linear, Network
from acert_zoo.network.trace_operations import BATCH, Builder, Unsupported, Value
from acert_zoo.network.tracing import finish


def read_graph(onnx: Any, proto: Any) -> tuple[Network, tuple[int, ...]]:
    """The network of an ONNX model and its input shape (C, H, W); errors as `onnx_io.load_onnx`."""
    graph = proto.graph
    env: dict[str, Any] = {"": None}
    for tensor in graph.initializer:
        env[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    inputs = [i for i in graph.input if i.name not in env]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InvalidInputError(f"the ONNX model has {len(inputs)} inputs and {len(graph.output)} outputs; 1 of each")
    dims = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT or len(dims) != 4 or min(dims[1:]) < 1:
        raise InvalidInputError(f"the ONNX input must be float32 [batch, C, H, W] with fixed C, H, W; it is {dims}")
    if dims[0] not in (0, 1):
        raise InvalidInputError(f"the ONNX input has a fixed batch of {dims[0]}; free or 1 is supported")
    builder = Builder(tuple(dims[1:]))
    env[inputs[0].name] = builder.input
    reader = _Reader(onnx, builder, batch_is_one=dims[0] == 1)
    for node in graph.node:
        values = [env[name] for name in node.input]
        for name, value in zip(node.output, reader.node(node, values), strict=False):
            env[name] = value
    output = env[graph.output[0].name]
    if not isinstance(output, Value):
        raise InvalidInputError("the ONNX output does not depend on its input")
    return finish(builder, output), tuple(dims[1:])


class _Reader:
    def __init__(self, onnx: Any, builder: Builder, *, batch_is_one: bool) -> None:
        self.onnx, self.builder, self.batch_is_one = onnx, builder, batch_is_one

    def node(self, node: Any, values: list[Any]) -> list[Any]:
        """The outputs of one node."""
        name = node.name or f"{node.op_type}_{node.output[0]}"
        if node.domain not in ("", "ai.onnx"):
            raise self._unsupported(name, node, f"operator domain {node.domain!r}")
        attributes = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Shape" and isinstance(values[0], Value):
            sizes = [BATCH, *values[0].known_shape]
            return [torch.tensor(sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))])]
        if not any(isinstance(v, Value) for v in values):
            return self._constant(node, values)
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise self._unsupported(name, node, "no bound covers it")
        try:
            return [handler(self, name, attributes, *values)]
        except (Unsupported, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise self._unsupported(name, node, str(error)) from None

    def _unsupported(self, name: str, node: Any, why: str) -> UnsupportedLayerError:
        supported = ", ".join(sorted(_HANDLERS))
        return UnsupportedLayerError(f"ONNX operator {node.op_type} ({name}): {why}; supported: {supported}")

    def _constant(self, node: Any, values: list[Any]) -> list[Any]:
        """An operator on constants alone, by onnx's reference implementation."""
        from onnx.reference import ReferenceEvaluator

        names = [n for n in node.input if n]
        helper = self.onnx.helper
        infos = [helper.make_empty_tensor_value_info(n) for n in dict.fromkeys(names)]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output]
        evaluator = ReferenceEvaluator(helper.make_graph([node], "constant", infos, outputs), opsets={"": 17})
        feeds = {n: v.numpy() for n, v in zip(node.input, values, strict=True) if n}
        return [torch.from_numpy(np.asarray(a).copy()) for a in evaluator.run(None, feeds)]


def _pads(attributes: dict[str, Any], x: Value, kernel: Sequence[int]) -> tuple[int, int]:
    """Padding (height, width) of a window operator; SAME_UPPER and SAME_LOWER keep ceil(size / stride)."""
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        sizes, strides = x.known_shape[1:], attributes.get("strides", [1, 1])
        extents = [d * (k - 1) + 1 for d, k in zip(attributes.get("dilations", [1, 1]), kernel, strict=True)]
        axes = zip(sizes, strides, extents, strict=True)
        total = [max((-(-size // stride) - 1) * stride + extent - size, 0) for size, stride, extent in axes]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    elif automatic == b"VALID":
        pads = [0, 0, 0, 0]
    if pads[:2] != pads[2:]:
        raise Unsupported("padding that differs between opposite sides")
    return pads[0], pads[1]


def _conv(r: _Reader, name: str, a: dict[str, Any], x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    pads = _pads(a, x, weight.shape[2:])
    return ops.conv2d(r.builder, name, x, weight, bias, strides, pads, dilations, a.get("group", 1))


def _gemm(r: _Reader, name: str, a: dict[str, Any], x: Any, weight: Any, bias: Tensor | None = None) -> Value:
    if not isinstance(x, Value) or isinstance(weight, Value) or a.get("transA", 0):
        raise Unsupported("only value times constant matrix")
    weight = weight if a.get("transB", 0) else weight.T
    alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
    if alpha != 1 or beta != 1:
        raise Unsupported("alpha and beta other than 1")
    bias = None if bias is None else bias.expand(weight.shape[0]).contiguous()
    return ops.linear(r.builder, name, x, weight.contiguous(), bias)


def _matmul(r: _Reader, name: str, a: dict[str, Any], x: Any, weight: Any) -> Value:
    return _gemm(r, name, {}, x, weight)


def _add(r: _Reader, name: str, a: dict[str, Any], x: Any, y: Any) -> Value:
    """A constant added to a MatMul is its bias."""
    value, other = (x, y) if isinstance(x, Value) else (y, x)
    last = r.builder.steps[value.index - 1] if value.index == len(r.builder.steps) and value.index else None
    if isinstance(last, Linear) and not isinstance(other, Value) and not bool(last.bias.any()):
        bias = other.reshape(-1).expand(last.weight.shape[0]).contiguous()
        r.builder.steps.append(dataclasses.replace(last, bias=bias))  # the step without it drops out unless it is used
        return Value(len(r.builder.steps), value.shape)
    return ops.add(r.builder, name, x, y)


def _reshape(r: _Reader, name: str, a: dict[str, Any], x: Value, shape: Tensor) -> Value:
    dims = [int(d) for d in shape]
    sizes = (BATCH, *x.known_shape)
    dims = [sizes[i] if d == 0 and not a.get("allowzero", 0) else d for i, d in enumerate(dims)]
    if r.batch_is_one and dims and dims[0] == 1:
        dims[0] = BATCH
    return ops.reshape(r.builder, name, x, dims)


def _flatten(r: _Reader, name: str, a: dict[str, Any], x: Value) -> Value:
    if a.get("axis", 1) != 1:
        raise Unsupported("flattening from another axis than 1")
    return ops.flatten(r.builder, name, x, 1)


def _pool(kind: Callable[..., Value]) -> Callable[..., Value]:
    def pool(r: _Reader, name: str, a: dict[str, Any], x: Value) -> Value:
        strides, kernel = a.get("strides", [1, 1]), a["kernel_shape"]
        if kind is ops.max_pool2d:
            dilations, ceil = a.get("dilations", [1, 1]), bool(a.get("ceil_mode"))
            return kind(r.builder, name, x, kernel, strides, _pads(a, x, kernel), dilations, ceil)
        counted = bool(a.get("count_include_pad", 0))
        return kind(r.builder, name, x, kernel, strides, _pads(a, x, kernel), bool(a.get("ceil_mode", 0)), counted)

    return pool


def _axes(a: dict[str, Any], axes: Tensor | None) -> list[int]:
    return [int(v) for v in (a.get("axes", []) if axes is None else axes)]


def _unsqueeze(r: _Reader, name: str, a: dict[str, Any], x: Value, axes: Tensor | None = None) -> Value:
    for axis in sorted(_axes(a, axes)):
        x = ops.unsqueeze(r.builder, name, x, axis)
    return x


_HANDLERS: dict[str, Callable[..., Value]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "Sub": lambda r, name, a, x, y: ops.sub(r.builder, name, x, y),
    "Mul": lambda r, name, a, x, y: ops.mul(r.builder, name, x, y),
    "Div": lambda r, name, a, x, y: ops.div(r.builder, name, x, y),
    "Neg": lambda r, name, a, x: ops.scale(r.builder, name, x, -1.0),
    "Relu": lambda r, name, a, x: ops.relu(r.builder, name, x),
    "BatchNormalization": lambda r, name, a, x, gamma, beta, mean, var: ops.batch_norm(
        r.builder, name, x, mean, var, gamma, beta, eps=a.get("epsilon", 1e-5)
    ),
    "MaxPool": _pool(ops.max_pool2d),
    "AveragePool": _pool(ops.avg_pool2d),
    "GlobalAveragePool": lambda r, name, a, x: ops.adaptive_avg_pool2d(r.builder, name, x, 1),
    "ReduceMean": lambda r, name, a, x, axes=None: ops.mean(
        r.builder, name, x, _axes(a, axes), bool(a.get("keepdims", 1))
    ),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda r, name, a, x: ops.permute(
        r.builder, name, x, a.get("perm", list(range(len(x.known_shape), -1, -1)))
    ),
    "Squeeze": lambda r, name, a, x, axes=None: ops.squeeze(r.builder, name, x, *_axes(a, axes)),
    "Unsqueeze": _unsqueeze,
    "Concat": lambda r, name, a, *values: ops.cat(r.builder, name, values, a["axis"]),
    "Identity": lambda r, name, a, x: x,
    "Dropout": lambda r, name, a, x, *_: x,
    "Cast": lambda r, name, a, x: x,
    "CastLike": lambda r, name, a, x, like: x,
}
