"""`Network` -> ONNX: one or two operators a step, opset 17."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.graph import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Step,
    Tanh,
)

OPSET = 17


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
        operators = step_operators(step, f"step_{index}", inputs, value(index), axes[index], constant)
        for operator, names, attributes, output in operators:
            nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
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


def step_operators(
    step: Step, name: str, inputs: list[str], output: str, axes: int, constant: Any
) -> list[tuple[Any, ...]]:
    """(operator, inputs, attributes, output) of each ONNX node of a step."""
    if isinstance(step, Normalize):
        mean, std = (constant(f"{name}.{k}", getattr(step, k).view(1, -1, *(1,) * (axes - 2))) for k in ("mean", "std"))
        return [("Sub", [*inputs, mean], {}, f"{name}.centred"), ("Div", [f"{name}.centred", std], {}, output)]
    if isinstance(step, (Conv, Linear)):
        parameters = [constant(f"{name}.weight", step.weight), constant(f"{name}.bias", step.bias)]
        if isinstance(step, Linear):
            return [("Gemm", [*inputs, *parameters], {"transB": 1}, output)]
        window = {
            "kernel_shape": list(step.weight.shape[2:]),
            "strides": list(step.stride),
            "pads": [*step.padding, *step.padding],
            "dilations": list(step.dilation),
            "group": step.groups,
        }
        return [("Conv", [*inputs, *parameters], window, output)]
    if isinstance(step, BatchNorm):
        parameters = [constant(f"{name}.{k}", getattr(step, k)) for k in ("gamma", "beta", "mean", "var")]
        return [("BatchNormalization", [*inputs, *parameters], {"epsilon": step.epsilon}, output)]
    if isinstance(step, (MaxPool, AvgPool)):
        window = {
            "kernel_shape": list(step.kernel_size),
            "strides": list(step.stride),
            "pads": [*step.padding, *step.padding],
        }
        if isinstance(step, MaxPool):
            return [("MaxPool", inputs, window, output)]
        return [("AveragePool", inputs, {**window, "count_include_pad": 1}, output)]
    if isinstance(step, Reshape):
        return [("Reshape", [*inputs, constant(f"{name}.shape", torch.tensor([-1, *step.shape]))], {}, output)]
    for kind, operator, attributes in (
        (ReLU, "Relu", {}),
        (Sigmoid, "Sigmoid", {}),
        (Sign, "Sign", {}),
        (Tanh, "Tanh", {}),
        (Add, "Add", {}),
        (Flatten, "Flatten", {"axis": 1}),
        (Permute, "Transpose", {"perm": list(step.dims) if isinstance(step, Permute) else []}),
        (Concat, "Concat", {"axis": step.dim if isinstance(step, Concat) else 0}),
    ):
        if isinstance(step, kind):
            return [(operator, inputs, attributes, output)]
    raise UnsupportedLayerError(f"step {step.name!r} ({type(step).__name__}) has no ONNX form here")
