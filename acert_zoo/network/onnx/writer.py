"""`Network` -> ONNX: one or two operators a step, opset 17."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Tanh,
)
from acert_zoo.network.rule_table import RuleTable

OPSET = 17


class Node(NamedTuple):
    """One ONNX node; its one output gives it its name."""

    operator: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = {}


@dataclass(frozen=True)
class Place:
    """Where a step's nodes stand in the file."""

    name: str  # of the step: the prefix of its constants and inner values
    inputs: list[str]
    output: str
    axes: int  # of the output, batch included
    constant: Callable[[str, Tensor], str]  # stores a tensor under a name, and gives the name to read it by


Writer = Callable[[Any, Place], list[Node]]


def _normalize(step: Normalize, place: Place) -> list[Node]:
    shape = (1, -1, *(1,) * (place.axes - 2))
    mean, std = (place.constant(f"{place.name}.{k}", getattr(step, k).view(shape)) for k in ("mean", "std"))
    centred = f"{place.name}.centred"
    return [Node("Sub", [*place.inputs, mean], centred), Node("Div", [centred, std], place.output)]


def _weights(step: Linear | Conv, place: Place) -> list[str]:
    return [place.constant(f"{place.name}.{k}", getattr(step, k)) for k in ("weight", "bias")]


def _linear(step: Linear, place: Place) -> list[Node]:
    return [Node("Gemm", [*place.inputs, *_weights(step, place)], place.output, {"transB": 1})]


def convolution_attributes(step: Conv) -> dict[str, Any]:
    """The attributes of ONNX's Conv that say how the windows of a convolution lie."""
    return {
        "kernel_shape": list(step.weight.shape[2:]),
        "strides": list(step.stride),
        "pads": [*step.padding, *step.padding],
        "dilations": list(step.dilation),
        "group": step.groups,
    }


def _conv(step: Conv, place: Place) -> list[Node]:
    return [Node("Conv", [*place.inputs, *_weights(step, place)], place.output, convolution_attributes(step))]


def _batchnorm(step: BatchNorm, place: Place) -> list[Node]:
    parameters = [place.constant(f"{place.name}.{k}", getattr(step, k)) for k in ("gamma", "beta", "mean", "var")]
    return [Node("BatchNormalization", [*place.inputs, *parameters], place.output, {"epsilon": step.epsilon})]


def _pool(operator: str, **attributes: int) -> Writer:
    def write(step: MaxPool | AvgPool, place: Place) -> list[Node]:
        window = {
            "kernel_shape": list(step.kernel_size),
            "strides": list(step.stride),
            "pads": [*step.padding, *step.padding],
        }
        return [Node(operator, place.inputs, place.output, window | attributes)]

    return write


def _reshape(step: Reshape, place: Place) -> list[Node]:
    shape = place.constant(f"{place.name}.shape", torch.tensor([-1, *step.shape]))
    return [Node("Reshape", [*place.inputs, shape], place.output)]


def _permute(step: Permute, place: Place) -> list[Node]:
    return [Node("Transpose", place.inputs, place.output, {"perm": list(step.dims)})]


def _concat(step: Concat, place: Place) -> list[Node]:
    return [Node("Concat", place.inputs, place.output, {"axis": step.dim})]


def _operator(operator: str, **attributes: int) -> Writer:
    return lambda step, place: [Node(operator, place.inputs, place.output, attributes)]


WRITERS: RuleTable[Writer] = RuleTable(
    "ONNX",
    {
        Normalize: _normalize,
        Linear: _linear,
        Conv: _conv,
        BatchNorm: _batchnorm,
        MaxPool: _pool("MaxPool"),
        AvgPool: _pool("AveragePool", count_include_pad=1),
        Reshape: _reshape,
        Permute: _permute,
        Concat: _concat,
        Flatten: _operator("Flatten", axis=1),
        Add: _operator("Add"),
        ReLU: _operator("Relu"),
        Sigmoid: _operator("Sigmoid"),
        Tanh: _operator("Tanh"),
        Sign: _operator("Sign"),
    },
    {},
)


def to_proto(onnx: Any, network: Network, shape: tuple[int, ...]) -> Any:
    """The ONNX model of a network of images [N, *shape]: "pixels" in, "logits" out, the batch axis free.

    Numbers are of the network's own type, float32 or float64.

    Raises:
        UnsupportedLayerError: a step without an ONNX form here.
    """
    helper, dtype = onnx.helper, network.head.weight.dtype
    kind = onnx.TensorProto.DOUBLE if dtype == torch.float64 else onnx.TensorProto.FLOAT
    nodes: list[Any] = []
    tensors: list[Any] = []

    def constant(name: str, value: Tensor) -> str:
        tensors.append(onnx.numpy_helper.from_array(value.contiguous().numpy(), name))
        return name

    def value(index: int) -> str:
        return "pixels" if index == 0 else "logits" if index == len(network.steps) else f"value_{index}"

    axes = [v.dim() for v in network.run(torch.zeros(1, *shape, dtype=dtype))]
    for index, step in enumerate(network.steps, 1):
        inputs = [value(i) for i in step.inputs]
        place = Place(f"step_{index}", inputs, value(index), axes[index], constant)
        for node in WRITERS[step](step, place):
            nodes.append(
                helper.make_node(node.operator, node.inputs, [node.output], name=node.output, **node.attributes)
            )
    graph = helper.make_graph(
        nodes,
        "acert_zoo",
        [helper.make_tensor_value_info("pixels", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", kind, ["batch", network.num_classes])],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="acert_zoo")
    proto.ir_version = 8  # the one that came with opset 17: older runtimes refuse newer files
    onnx.checker.check_model(proto, full_check=True)
    return proto
