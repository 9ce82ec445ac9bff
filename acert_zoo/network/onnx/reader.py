"""An ONNX graph as a `Network`: its nodes in order, each through the table of `operators.py`.

What an operator means can depend on the file's opset; handlers ask for it. An operator, or a form of one, that is not
in the table is an error with its name, never an approximation. Nodes on constants alone are computed
(`constants.py`); `If` on a constant is the branch that it names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.agreement import Constants
from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Builder, Unsupported
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, Normalize
from acert_zoo.network.onnx.constants import fold
from acert_zoo.network.onnx.operators import HANDLERS
from acert_zoo.network.onnx.values import Activation, Context
from acert_zoo.network.reading import channel_constants
from acert_zoo.network.tracing import finish

OPSETS = range(7, 24)
MAX_INPUTS = 2**24  # numbers of one image
MAX_OUTPUTS = 2**13  # unless the last layer is linear: an identity matrix stands behind the others
MAX_IF_DEPTH = 20


@dataclass(frozen=True)
class Graph:
    """What was read of a file.

    Attributes:
        network: takes images [N, *input_shape]; gives the outputs in C order.
        normalize: (mean, std), float32 [C]: the file takes (images - mean) / std.
        permutation: how images are permuted into the order of the file's input, where they are not in it.
        input_dims: the input's shape in the file, with 1 for a batch axis; batched: whether that axis is free.
        output: the name of the file's tensor that the network computes.
        order_only: whether a softmax at the end was left out, so that only the order of the outputs is the file's.
    """

    network: Network
    input_shape: tuple[int, ...]
    permutation: tuple[int, ...] | None
    normalize: Constants | None
    input_dims: tuple[int, ...]
    batched: bool
    output: str
    order_only: bool


def read_graph(
    onnx: Any,
    proto: Any,
    *,
    image_shape: Sequence[int] | None = None,
    as_images: bool = False,
    mean: Any = None,
    std: Any = None,
) -> Graph:
    """The network of a checked ONNX model, as a function of one image.

    Args:
        as_images: whether the network is to take images (C, H, W) whatever the file's input is: `image_shape`, or
            what `image_form` finds.
        mean, std: per-channel constants where the file takes normalised images.

    Raises:
        InvalidInputError: inputs or outputs of another number or form, too large an input, an output that does not
            depend on the input.
        UnsupportedLayerError: naming the first operator that is not understood.
    """
    graph = proto.graph
    opsets = {o.domain: o.version for o in proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise UnsupportedLayerError(f"ONNX opset {opset}; {OPSETS[0]} to {OPSETS[-1]} are read")
    constants = {t.name: t for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InvalidInputError(f"the ONNX model has {len(inputs)} inputs and {len(graph.output)} outputs; 1 of each")
    dims, batched, dtype = _input_form(onnx, inputs[0])
    sample = Activation(Builder(()).input, dims).sample
    shape, permutation = image_form(sample, image_shape) if as_images else (sample, None)
    builder = Builder(shape, dtype)
    start = Context(builder, "input", "", {}, opset)
    normalize = channel_constants(shape[0], mean, std)
    value = builder.input
    if normalize is not None:
        moved = (t.to(dtype) for t in normalize)
        value = builder.add(Normalize, "normalize", value, **dict(zip(("mean", "std"), moved, strict=True)))
    if permutation is not None:
        value = ops.permute(builder, "input", value, permutation)
    value = start.shaped(Activation(value, dims), sample)
    env: dict[str, Any] = {"": None, inputs[0].name: Activation(value, dims)}
    reader = _Reader(onnx, builder, opset, graph.output[0].name)
    reader.graph(graph, env, 0)
    if graph.output[0].name not in env:
        raise UnsupportedLayerError(f"the ONNX output {graph.output[0].name!r} is a second output that is not read")
    output = env[graph.output[0].name]
    if not isinstance(output, Activation):
        raise InvalidInputError("the ONNX output does not depend on its input")
    size = math.prod(output.dims)
    last = builder.steps[output.value.index - 1] if output.value.index else None
    if not isinstance(last, Linear) and size > MAX_OUTPUTS:
        raise UnsupportedLayerError(f"{size:,} outputs that are not of a linear layer; {MAX_OUTPUTS:,} at most")
    if as_images and (size < 2 or output.dims not in ((size,), (1, size))):
        raise InvalidInputError(f"the ONNX output has the shape {output.dims} per image, not [1, K] with K >= 2")
    flat = start.shaped(output, (size,))
    if not flat.index:  # the file gives its input
        flat = ops.linear(builder, "identity", flat, torch.eye(size, dtype=dtype))
    network = finish(builder, flat)
    name = reader.left_out or graph.output[0].name
    return Graph(network, shape, permutation, normalize, dims, batched, name, order_only=reader.left_out is not None)


def image_form(sample: tuple[int, ...], wanted: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """((C, H, W), permutation or None) of the images that an input of shape `sample` takes.

    `wanted` if it has as many entries (in C order, or with channels last where the input is (H, W, C)); else
    (C, H, W) as it stands, (H, W, C) with 1 or 3 channels, n = s^2 or 3 s^2 numbers as a square image, or (1, 1, n).

    Raises:
        InvalidInputError: `wanted` has another number of entries.
    """
    n = math.prod(sample)
    last = (0, 2, 3, 1)
    if wanted is not None:
        shape = tuple(wanted)
        if len(shape) != 3 or any(type(v) is not int or v < 1 for v in shape) or math.prod(shape) != n:
            raise InvalidInputError(f"images of shape {shape}; the ONNX input has {n} numbers, of shape {sample}")
        return shape, last if sample == (*shape[1:], shape[0]) and sample != shape else None
    if len(sample) == 3:
        if sample[2] in (1, 3) and sample[0] not in (1, 3):
            return (sample[2], *sample[:2]), last
        return sample, None
    for channels in (1, 3):
        side = math.isqrt(n // channels)
        if n == channels * side * side:
            return (channels, side, side), None
    return (1, 1, n), None


def _input_form(onnx: Any, info: Any) -> tuple[tuple[int, ...], bool, torch.dtype]:
    """(shape with 1 for a free batch axis, whether it is free, dtype)."""
    tensor = info.type.tensor_type
    dtypes = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.DOUBLE: torch.float64}
    sizes = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    if tensor.elem_type not in dtypes or not tensor.HasField("shape") or not sizes or any(d < 1 for d in sizes[1:]):
        raise InvalidInputError(
            "the ONNX input must be float32 or float64, [batch, ...] with fixed sizes after the batch; it is of type "
            f"{onnx.helper.tensor_dtype_to_string(tensor.elem_type).removeprefix('TensorProto.')} and shape {sizes}"
        )
    if sizes[0] < 0 or (sizes[0] == 0 and len(sizes) == 1):
        raise InvalidInputError(f"the ONNX input has the shape {sizes}: its length is needed")
    dims = (max(sizes[0], 1), *sizes[1:])
    if math.prod(dims) > MAX_INPUTS:
        raise InvalidInputError(f"the ONNX input has {math.prod(dims):,} numbers; at most {MAX_INPUTS:,} are read")
    return dims, sizes[0] == 0, dtypes[tensor.elem_type]


class _Reader:
    def __init__(self, onnx: Any, builder: Builder, opset: int, output: str) -> None:
        self.onnx, self.builder, self.opset, self.output = onnx, builder, opset, output
        self.left_out: str | None = None  # what a softmax at the end was applied to

    def graph(self, graph: Any, env: dict[str, Any], depth: int) -> None:
        """Reads a graph's nodes into `env`, names to constants (NumPy) and activations."""
        if len(graph.sparse_initializer):
            raise UnsupportedLayerError("ONNX sparse initialisers are not read")
        for tensor in graph.initializer:
            env[tensor.name] = self._array(tensor)
        for node in graph.node:
            for name, value in zip(node.output, self.node(node, env, depth), strict=False):
                if name:
                    env[name] = value

    def _array(self, tensor: Any) -> Any:
        try:
            return self.onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # the checker passes types of another size, and unknown ones
            raise InvalidInputError(f"the ONNX tensor {tensor.name!r} cannot be read: {error}") from error

    def node(self, node: Any, env: dict[str, Any], depth: int) -> Sequence[Any]:
        """The outputs of one node; a list shorter than its outputs leaves the last ones unknown."""
        name = node.name or f"{node.op_type}_{node.output[0]}"
        if node.domain not in ("", "ai.onnx"):
            raise self._unsupported(name, node, f"operator domain {node.domain!r}")
        if any(a.ref_attr_name for a in node.attribute):
            raise self._unsupported(name, node, "an attribute of a function, outside of one")
        attributes = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        unread = [n for n in node.input if n not in env]
        if unread:
            raise self._unsupported(name, node, f"its input {unread[0]!r} is a second output that is not read")
        values = [env[n] for n in node.input]
        try:
            if node.op_type == "If":
                return self._branch(node, values, attributes, env, depth)
            depends = [v for v in values if isinstance(v, Activation)]
            if node.op_type in ("Shape", "Size") and depends:
                return [_shape(node.op_type, attributes, depends[0].dims)]
            if not depends:
                return fold(self.onnx, node, values, self.opset)
            context = Context(self.builder, name, node.op_type, attributes, self.opset, len(node.output))
            if node.op_type in ("Softmax", "LogSoftmax"):
                return [self._softmax(context, node, values[0])]
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                raise Unsupported("no bound covers it")
            found = handler(context, *values)
            return found if isinstance(found, list) else [found]
        except (Unsupported, TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            if isinstance(error, UnsupportedLayerError):
                raise
            raise self._unsupported(name, node, (str(error).splitlines() or [""])[0]) from error

    def _unsupported(self, name: str, node: Any, why: str) -> UnsupportedLayerError:
        supported = ", ".join(sorted(HANDLERS))
        return UnsupportedLayerError(f"ONNX operator {node.op_type} ({name}): {why}; supported: {supported}")

    def _softmax(self, context: Context, node: Any, x: Activation) -> Activation:
        """Left out where it is the last operator, over all outputs: it keeps their order."""
        axis = context.axis(context.get("axis", 1 if self.opset < 13 else -1), len(x.dims))
        over = math.prod(x.dims[axis:]) if self.opset < 13 else x.dims[axis]
        if node.output[0] != self.output or over != math.prod(x.dims):
            raise Unsupported("other than as the last operator, over all outputs")
        self.left_out = node.input[0]
        return x

    def _branch(
        self, node: Any, values: list[Any], attributes: dict[str, Any], env: dict[str, Any], depth: int
    ) -> list[Any]:
        if isinstance(values[0], Activation) or np.size(values[0]) != 1 or depth >= MAX_IF_DEPTH:
            raise Unsupported("on a condition that depends on the input")
        branch = attributes["then_branch" if bool(np.ravel(values[0])[0]) else "else_branch"]
        inner = dict(env)
        self.graph(branch, inner, depth + 1)
        return [inner[o.name] for o in branch.output]


def _shape(operator: str, attributes: dict[str, Any], dims: tuple[int, ...]) -> Any:
    if operator == "Size":
        return np.array(math.prod(dims), dtype=np.int64)
    return np.array(dims[attributes.get("start", 0) : attributes.get("end", len(dims))], dtype=np.int64)
