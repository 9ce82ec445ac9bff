"""The ONNX operators that are read, and what reads each; Shape, Size, If and a softmax at the end are the reader's own.

A handler is called with the `Context` of its node and the node's inputs, at least one of which depends on the network's
input; it returns an `Activation`, or a list of them for the first outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acert_zoo.network.layers import Sigmoid, Sign, Tanh
from acert_zoo.network.onnx import elementwise, layers, rearranging, windows

HANDLERS: dict[str, Callable[..., Any]] = {
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_normalization,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "GlobalAveragePool": windows.global_pool("mean"),
    "GlobalMaxPool": windows.global_pool("max"),
    "Upsample": windows.resize,
    "Resize": windows.resize,
    "Add": elementwise.add,
    "Sub": elementwise.sub,
    "Mul": elementwise.mul,
    "Div": elementwise.div,
    "Neg": elementwise.negate,
    "Sum": elementwise.total,
    "Max": elementwise.maximum,
    "Min": elementwise.minimum,
    "Abs": elementwise.absolute,
    "Relu": elementwise.relu,
    "Sigmoid": elementwise.monotone(Sigmoid),
    "Sign": elementwise.monotone(Sign),
    "Tanh": elementwise.monotone(Tanh),
    "LeakyRelu": elementwise.leaky_relu,
    "PRelu": elementwise.leaky_relu,
    "Clip": elementwise.clip,
    "ReduceMean": rearranging.reduction("mean"),
    "ReduceSum": rearranging.reduction("sum"),
    "ReduceMax": rearranging.reduction("max"),
    "ReduceMin": rearranging.reduction("min"),
    "Flatten": rearranging.flatten,
    "Reshape": rearranging.reshape,
    "Transpose": rearranging.transpose,
    "Squeeze": rearranging.squeeze,
    "Unsqueeze": rearranging.unsqueeze,
    "Concat": rearranging.concat,
    "Split": rearranging.split,
    "Slice": rearranging.slice_,
    "Gather": rearranging.gather,
    "Pad": rearranging.pad,
    "Expand": rearranging.expand,
    "Identity": rearranging.identity,
    "Dropout": rearranging.dropout,
    "Cast": rearranging.cast,
    "CastLike": rearranging.cast,
}
