"""Operators on constants alone, such as the shape arithmetic that exporters leave: by onnx's reference implementation.

The reference implementation takes the file's own opset into account. Only operators whose result's size is known
beforehand are computed: a file of a few bytes may ask for any amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from acert_zoo.network.building.builder import Unsupported

MAX_ENTRIES = 2**26  # of a constant that is computed

_NOT_LARGER = {  # the result has at most as many entries as the inputs together, and one
    "Abs", "ArgMax", "ArgMin", "Cast", "Ceil", "Clip", "Concat", "Constant", "Cos", "CumSum", "Exp", "Flatten",
    "Floor", "Identity", "IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign", "Sin", "Size",
    "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Tanh", "Transpose", "Trilu", "Unsqueeze",
}  # fmt: skip
_BROADCAST = {
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
}  # fmt: skip


def fold(onnx: Any, node: Any, values: Sequence[Any], opset: int) -> list[Any]:
    """The outputs of `node` on constants (NumPy arrays; None where an optional input is left out).

    Raises:
        Unsupported: the operator is not computed here, or its result would be too large.
    """
    from onnx.reference import ReferenceEvaluator

    entries = _entries(node.op_type, [v for v in values if v is not None])
    if entries > MAX_ENTRIES:
        raise Unsupported(f"a constant of {entries:,} entries; at most {MAX_ENTRIES:,} are computed")
    helper = onnx.helper
    feeds = {n: v for n, v in zip(node.input, values, strict=True) if n}
    infos = [helper.make_empty_tensor_value_info(n) for n in feeds]
    outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
    try:
        evaluator = ReferenceEvaluator(helper.make_graph([node], "constant", infos, outputs), opsets={"": opset})
        with np.errstate(divide="raise", invalid="raise"):  # integers divided by 0 are whatever a runtime likes
            found: Any = evaluator.run(None, feeds)
    except Exception as error:  # it raises whatever its parts do
        message = (str(error).splitlines() or [""])[0]
        raise Unsupported(f"on constants: {type(error).__name__} {message}") from error
    results = iter(found)
    return [np.asarray(next(results)) if n else None for n in node.output]


def _entries(operator: str, values: Sequence[Any]) -> int:
    """At least as many entries as the result has."""
    sizes = [int(np.size(v)) for v in values]
    if operator in _NOT_LARGER:
        return max(1, sum(sizes))
    if operator in _BROADCAST:
        return math.prod(np.broadcast_shapes(*(np.shape(v) for v in values)))
    if operator == "ConstantOfShape":
        return math.prod(int(v) for v in np.ravel(values[0]))
    if operator in ("Expand", "Tile"):  # an axis of 0 would hide the others
        return max(1, sizes[0]) * math.prod(max(1, int(v)) for v in np.ravel(values[1]))
    if operator in ("Gather", "GatherElements", "GatherND"):
        return max(1, sizes[0]) * max(1, sizes[1])
    if operator == "MatMul":
        shared = np.shape(values[0])[-1] if np.ndim(values[0]) else 1
        return sizes[0] * sizes[1] // max(1, shared)
    if operator == "Range":
        start, limit, delta = (float(np.ravel(v)[0]) for v in values)
        if delta and math.isfinite(limit - start):
            return math.ceil(abs((limit - start) / delta)) + 1
    raise Unsupported("not computed on constants")
