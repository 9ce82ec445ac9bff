"""The certifier itself as an ONNX graph: a network with its interval bounds, for browsers, phones and C++.

What is computed is `ibp.class_margins` for the network's own answer, in float32, by ONNX operators alone (opset 17):

    inputs   pixels [batch, C, H, W] in [0, 1];  eps [batch], radii in pixel units
    outputs  logits [batch, K];  prediction [batch], int64, argmax of the logits;
             margins [batch, K], lower bounds of f_y - f_t on B(pixels, eps), y = prediction; inf where t = y;
             robust_margin [batch], the smallest of them

An answer is certified at eps where robust_margin > 0. Rounding is not controlled (level `float32`): the runtime may sum
in any order. A bound that is NaN is given as -inf, so that no minimum can lose it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._files import write_atomically
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
    Step,
    Tanh,
)
from acert_zoo.network.onnx.files import export_target, onnx_package
from acert_zoo.network.onnx.writer import OPSET, WRITERS, Place, convolution_attributes
from acert_zoo.network.rule_table import RuleTable
from acert_zoo.network.tracing import trace

STATEMENT = "prediction is certified on the l-inf ball of radius eps, cut with [0, 1], where robust_margin > 0"
Box = tuple[str, str]  # names of the values that hold the lower and the upper ends


def export_onnx_bounds(
    model: nn.Module, path: str | os.PathLike[str], input_shape: tuple[int, ...] | None = None
) -> None:
    """Writes `model` (in eval mode, raw pixels in) with its interval bounds as an ONNX file, atomically.

    Args:
        model: a network of the zoo, or any module that `trace` reads.
        path: the file.
        input_shape: (C, H, W), where the model does not say it.

    Raises:
        MissingDependencyError: onnx is not installed.
        InvalidInputError: no input shape is known, or the folder does not exist.
        UnsupportedLayerError: a cascade, or a layer that has no ONNX form or no interval rule.
        UnsoundSettingError: a model in train mode.
    """
    onnx = onnx_package()
    shape, target = export_target(model, path, input_shape)
    network = trace(model, shape).detach().to(torch.float32)
    proto = _BoundsGraph(onnx, network, shape).proto()
    info = getattr(model, "info", None)
    facts = {"statement": STATEMENT, "rounding": "float32", "method": "ibp"}
    if info is not None:
        facts["model"] = info.versioned_name
        facts["weights_sha256"] = info.sha256 or ""
    onnx.helper.set_model_props(proto, facts)
    write_atomically(target, proto.SerializeToString())


class _BoundsGraph:
    """Builds the graph: the plain forward pass beside the interval pass, node by node."""

    def __init__(self, onnx: Any, network: Network, shape: tuple[int, ...]) -> None:
        self.onnx, self.network, self.shape = onnx, network, shape
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.axes = [v.dim() for v in network.run(torch.zeros(1, *shape))]

    def proto(self) -> Any:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        self._forward()
        self._margins(self._propagate())
        classes = self.network.num_classes
        graph = helper.make_graph(
            self.nodes,
            "acert_zoo_bounds",
            [
                helper.make_tensor_value_info("pixels", kinds.FLOAT, ["batch", *self.shape]),
                helper.make_tensor_value_info("eps", kinds.FLOAT, ["batch"]),
            ],
            [
                helper.make_tensor_value_info("logits", kinds.FLOAT, ["batch", classes]),
                helper.make_tensor_value_info("prediction", kinds.INT64, ["batch"]),
                helper.make_tensor_value_info("margins", kinds.FLOAT, ["batch", classes]),
                helper.make_tensor_value_info("robust_margin", kinds.FLOAT, ["batch"]),
            ],
            list(self.tensors.values()),
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="acert_zoo")
        proto.ir_version = 8  # the one that came with opset 17: older runtimes refuse newer files
        self.onnx.checker.check_model(proto, full_check=True)
        return proto

    def _constant(self, name: str, value: Tensor) -> str:
        if name not in self.tensors:
            self.tensors[name] = self.onnx.numpy_helper.from_array(value.contiguous().numpy(), name)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _step(self, index: int, inputs: list[str], suffix: str, output: str) -> str:
        """The step's own operators on `inputs`; its constants are shared by all passes."""
        step = self.network.steps[index - 1]
        name = f"step_{index}"

        def constant(constant_name: str, value: Tensor) -> str:
            return self._constant(constant_name.replace(f"{name}{suffix}.", f"{name}."), value)

        for node in WRITERS[step](step, Place(f"{name}{suffix}", inputs, output, self.axes[index], constant)):
            self._node(node.operator, node.inputs, node.output, **node.attributes)
        return output

    def _forward(self) -> None:
        values = ["pixels"]
        last = len(self.network.steps)
        for index, step in enumerate(self.network.steps, 1):
            output = "logits" if index == last else f"value_{index}"
            values.append(self._step(index, [values[i] for i in step.inputs], "", output))

    def _propagate(self) -> Box:
        """Nodes of the interval pass; the box of the head's input."""
        radius = self._node(
            "Reshape", ["eps", self._constant("eps.shape", torch.tensor([-1, *[1] * len(self.shape)]))], "eps.each"
        )
        below, above = self._node("Sub", ["pixels", radius], "below"), self._node("Add", ["pixels", radius], "above")
        zero, one = self._constant("zero", torch.tensor(0.0)), self._constant("one", torch.tensor(1.0))
        boxes: list[Box] = [(self._node("Max", [below, zero], "lower_0"), self._node("Min", [above, one], "upper_0"))]
        for index, step in enumerate(self.network.steps[:-1], 1):
            boxes.append(INTERVALS[step](self, index, step, [boxes[i] for i in step.inputs]))
        return boxes[self.network.head.inputs[0]]

    def _ball(self, box: Box, name: str) -> tuple[str, str]:
        """(centre, half-width) of a box."""
        half = self._constant("half", torch.tensor(0.5))
        total = self._node("Add", [box[1], box[0]], f"{name}.sum")
        width = self._node("Sub", [box[1], box[0]], f"{name}.width")
        return self._node("Mul", [total, half], f"{name}.centre"), self._node("Mul", [width, half], f"{name}.radius")

    def _monotone(self, index: int, step: Step, boxes: list[Box]) -> Box:
        """The step itself at both ends."""
        lower, upper = (
            self._step(index, [box[end] for box in boxes], f".{name}", f"{name}_{index}")
            for end, name in enumerate(("lower", "upper"))
        )
        return lower, upper

    def _affine(self, index: int, boxes: list[Box], spread: Callable[[str, str], str]) -> Box:
        """centre' = W centre + b and half-width' = |W| half-width, which `spread` writes (half-width, output)."""
        name = f"step_{index}.box"
        centre, radius = self._ball(boxes[0], name)
        moved = self._step(index, [centre], ".centre", f"{name}.moved")
        half_width = spread(radius, f"{name}.spread")
        lower = self._node("Sub", [moved, half_width], f"lower_{index}")
        return lower, self._node("Add", [moved, half_width], f"upper_{index}")

    def _magnitude(self, index: int) -> str:
        return self._node("Abs", [f"step_{index}.weight"], f"step_{index}.magnitude")

    def _linear(self, index: int, step: Linear, boxes: list[Box]) -> Box:
        def spread(radius: str, output: str) -> str:
            return self._node("Gemm", [radius, self._magnitude(index)], output, transB=1)

        return self._affine(index, boxes, spread)

    def _conv(self, index: int, step: Conv, boxes: list[Box]) -> Box:
        def spread(radius: str, output: str) -> str:
            return self._node("Conv", [radius, self._magnitude(index)], output, **convolution_attributes(step))

        return self._affine(index, boxes, spread)

    def _batchnorm(self, index: int, step: BatchNorm, boxes: list[Box]) -> Box:
        def spread(radius: str, output: str) -> str:
            scale = step.scale_shift(step.mean, step.var)[0].abs()
            factor = self._constant(f"step_{index}.scale", scale.view(1, -1, *[1] * (self.axes[index] - 2)))
            return self._node("Mul", [radius, factor], output)

        return self._affine(index, boxes, spread)

    def _margins(self, box: Box) -> None:
        """(W_y - W_t) m + b_y - b_t - |W_y - W_t| r for every class t, y the largest logit at the image itself."""
        last = len(self.network.steps)
        weight, classes = f"step_{last}.weight", self.network.num_classes
        centre, radius = self._ball(box, "head")
        one, two = self._constant("axis_1", torch.tensor([1])), self._constant("axis_2", torch.tensor([2]))
        self._node("ArgMax", ["logits"], "prediction", axis=1, keepdims=0)
        scores = self._step(last, [centre], ".centre", "head.scores")
        chosen = self._node("Unsqueeze", ["prediction", one], "head.chosen")
        own = self._node("GatherElements", [scores, chosen], "head.own", axis=1)
        row = self._node("Gather", [weight, chosen], "head.row", axis=0)  # [batch, 1, n]
        rows = self._node("Abs", [self._node("Sub", [row, weight], "head.differences")], "head.rows")  # [batch, K, n]
        column = self._node("Unsqueeze", [radius, two], "head.column")
        spread = self._node("Squeeze", [self._node("MatMul", [rows, column], "head.product"), two], "head.spread")
        bounds = self._node("Sub", [self._node("Sub", [own, scores], "head.difference"), spread], "head.bounds")
        values = self._constant("head.values", torch.tensor([0.0, float("inf")]))
        depth = self._constant("head.classes", torch.tensor(classes))
        is_own = self._node("OneHot", ["prediction", depth, values], "head.is_own", axis=1)
        others = self._node("Add", [bounds, is_own], "head.others")
        worst = self._constant("head.worst", torch.tensor(-float("inf")))
        unknown = self._node("IsNaN", [others], "head.unknown")
        self._node("Where", [unknown, worst, others], "margins")
        self._node("ReduceMin", ["margins"], "robust_margin", axes=[1], keepdims=0)


IntervalRule = Callable[[_BoundsGraph, int, Any, list[Box]], Box]  # (graph, index, the step, boxes of its inputs)

INTERVALS: RuleTable[IntervalRule] = RuleTable(
    "ONNX interval",
    {
        Linear: _BoundsGraph._linear,
        Conv: _BoundsGraph._conv,
        BatchNorm: _BoundsGraph._batchnorm,
        **dict.fromkeys(
            (Normalize, ReLU, Sigmoid, Tanh, Sign, Flatten, Reshape, Permute, Concat, MaxPool, AvgPool, Add),
            _BoundsGraph._monotone,
        ),
    },
    {},
)
