"""ONNX out and in: `export_onnx` writes a network for other runtimes, `load_onnx` reads a classifier to certify.

Both translate step by step between `Network` and ONNX operators, through the `onnx` package alone. What is written:
opset 17, one float32 input "pixels" [batch, C, H, W] of raw pixels in [0, 1], one output "logits" [batch, K], the
normalisation inside, BatchNorm as it is in the network (folded in published checkpoints).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._files import write_atomically
from acert_zoo._version import SOURCE
from acert_zoo.data.checks import check_eval_mode
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnsupportedLayerError
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
    Step,
)
from acert_zoo.network.reading import read
from acert_zoo.network.tracing import NetworkModule

OPSET = 17
INSTALL = f"pip install 'acert-zoo[onnx] @ {SOURCE}'"
PARITY = 1e-5  # largest difference between runtimes, relative to max(1, max |logit|)


def onnx_package() -> Any:
    """The module `onnx`, or MissingDependencyError."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(f"ONNX files need the onnx package; install it with: {INSTALL}") from error
    return onnx


def export_onnx(model: nn.Module, path: str | os.PathLike[str], input_shape: tuple[int, ...] | None = None) -> None:
    """Writes `model` (in eval mode, raw pixels in) as an ONNX file, atomically.

    Args:
        model: a model of the zoo, or any module that `read` reads, which compares it with what is written.
        path: the file.
        input_shape: (C, H, W), where the model does not say it.

    Raises:
        MissingDependencyError: onnx is not installed.
        InvalidInputError: no input shape is known, or the folder does not exist.
        InvalidInputError, UnsupportedLayerError, UnsoundSettingError: see `read`; a model in train mode.
    """
    onnx = onnx_package()
    check_eval_mode(model)
    shape = input_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise InvalidInputError("the model does not say its input shape; give input_shape=(C, H, W)")
    target = Path(path)
    if not target.parent.is_dir():
        raise InvalidInputError(f"{str(path)!r}: the folder does not exist")
    network = read(model, shape).network.to(torch.float32)
    write_atomically(target, _proto(onnx, network, tuple(shape)).SerializeToString())


def _proto(onnx: Any, network: Network, shape: tuple[int, ...]) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes: list[Any] = []
    tensors: list[Any] = []

    def constant(name: str, value: Tensor) -> str:
        tensors.append(onnx.numpy_helper.from_array(value.contiguous().numpy(), name))
        return name

    def value(index: int) -> str:
        return "pixels" if index == 0 else "logits" if index == len(network.steps) else f"value_{index}"

    axes = [v.dim() for v in network.run(torch.zeros(1, *shape))]
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
        (Add, "Add", {}),
        (Flatten, "Flatten", {"axis": 1}),
        (Permute, "Transpose", {"perm": list(step.dims) if isinstance(step, Permute) else []}),
        (Concat, "Concat", {"axis": step.dim if isinstance(step, Concat) else 0}),
    ):
        if isinstance(step, kind):
            return [(operator, inputs, attributes, output)]
    raise UnsupportedLayerError(f"step {step.name!r} ({type(step).__name__}) has no ONNX form here")


def load_onnx(path: str | os.PathLike[str]) -> NetworkModule:
    """A classifier from an ONNX file, checked against onnxruntime (or onnx's own reference) on random images.

    The file has one float input [batch, C, H, W] (batch free or 1) of raw pixels in [0, 1] and one output [batch, K].

    Raises:
        MissingDependencyError: onnx is not installed.
        InvalidInputError: no such file, not an ONNX model, inputs or outputs of another form, or what was read does
            not compute what the file does.
        UnsupportedLayerError: naming the first operator that no bound covers.
    """
    from acert_zoo.network.onnx_reader import read_graph

    onnx = onnx_package()
    if not Path(path).is_file():
        raise InvalidInputError(f"{str(path)!r} is not a file")
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker raise many kinds
        raise InvalidInputError(f"{str(path)!r} is not a valid ONNX model: {str(error).splitlines()[0]}") from error
    network, shape = read_graph(onnx, proto)
    module = NetworkModule(network, shape)
    _compare(proto, module)
    return module


def _compare(proto: Any, module: NetworkModule) -> None:
    """Raises InvalidInputError where the module's logits differ from the file's."""
    generator = torch.Generator().manual_seed(0)
    name = _inputs(proto)[0].name
    for _ in range(3):  # one image at a time: the file's batch size may be 1
        image = torch.rand(1, *module.input_shape, generator=generator)
        expected = torch.from_numpy(_run(proto, {name: image.numpy()})).flatten()
        got = module(image).flatten()
        difference = (expected - got).abs().max().item() if expected.shape == got.shape else float("inf")
        if not difference <= PARITY * max(1.0, expected.abs().max().item()):
            raise InvalidInputError(f"what was read differs from the ONNX file's own output by {difference:.3g}")


def _run(proto: Any, feeds: dict[str, Any]) -> Any:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        reference: Any = ReferenceEvaluator(proto).run(None, feeds)
        return reference[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, feeds)
    return outputs[0]


def _inputs(proto: Any) -> list[Any]:
    """Graph inputs that are not initialisers."""
    constants = {t.name for t in proto.graph.initializer}
    return [i for i in proto.graph.input if i.name not in constants]
