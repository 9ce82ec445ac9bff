"""Operators on constants: by the file's own opset, and refused where their result could be of any size."""

from __future__ import annotations

import numpy as np
import pytest

from acert_zoo.network.building.builder import Unsupported
from acert_zoo.network.onnx.constants import MAX_ENTRIES, fold
from tests.support.onnx_files import node

onnx = pytest.importorskip("onnx")


def ints(*values: int):
    return np.array(values, dtype=np.int64)


def test_axes_stand_where_the_opset_puts_them():
    (old,) = fold(onnx, node("Unsqueeze", "a", "b", axes=[0, 2]), [ints(5)], 12)
    (new,) = fold(onnx, node("Unsqueeze", "a x", "b"), [ints(5), ints(0, 2)], 13)
    assert old.shape == new.shape == (1, 1, 1)
    (product,) = fold(onnx, node("ReduceProd", "a x", "b", keepdims=0), [ints(2, 3, 4), ints(0)], 18)
    assert product == 24


def test_an_input_that_is_left_out_and_an_output_that_nobody_names():
    (clipped,) = fold(onnx, node("Clip", "a - c", "b"), [ints(1, 9), None, np.array(4)], 13)
    assert clipped.tolist() == [1, 4]
    first, second = fold(onnx, node("Split", "a s", "b c"), [ints(1, 2, 3), ints(1, 2)], 13)
    assert (first.tolist(), second.tolist()) == ([1], [2, 3])


@pytest.mark.parametrize(
    ("operator", "values"),
    [("ConstantOfShape", [ints(MAX_ENTRIES, 2)]), ("Expand", [ints(1), ints(2**40, 1)]),
     ("Tile", [ints(1, 2), ints(2**40)]),
     ("Add", [np.zeros((2**20, 1)), np.zeros(2**20)]), ("MatMul", [np.zeros((2**20, 1)), np.zeros((1, 2**20))]),
     ("Gather", [np.zeros((2**14, 2**4)), np.zeros(2**14, dtype=np.int64)]),
     ("Range", [np.array(0.0), np.array(1e12), np.array(1.0)])],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_results_that_would_be_too_large_are_not_computed(operator, values):
    names = " ".join("abc"[: len(values)])
    with pytest.raises(Unsupported, match="entries"):
        fold(onnx, node(operator, names, "y"), values, 17)


def test_what_is_not_computed_is_refused():
    with pytest.raises(Unsupported, match="not computed on constants"):
        fold(onnx, node("Resize", "a - s", "y"), [np.zeros(1), None, np.full(1, 1e9)], 13)
    with pytest.raises(Unsupported, match="on constants"):
        fold(onnx, node("Reshape", "a s", "y"), [ints(1, 2), ints(3)], 13)
    with pytest.raises(Unsupported, match="on constants"):
        fold(onnx, node("Range", "a b c", "y"), [np.array(0.0), np.array(1.0), np.array(0.0)], 13)
