"""ONNX layers in every legal form, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from acert_zoo.errors import UnsupportedLayerError

pytest.importorskip("onnx")
from tests.support.onnx_files import check, make, node, weights

BIASES = {"[3]": (3,), "[1, 3]": (1, 3), "[1, 1]": (1, 1), "[1]": (1,), "[]": ()}


@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("factors", [{}, {"alpha": 0.5, "beta": 2.0}, {"alpha": 0.3, "beta": 0.7}], ids=str)
def test_gemm_with_every_bias(tmp_path, shape, factors):
    constants = {"w": weights(5, 3), "c": weights(*shape, seed=1)}
    loaded = check(tmp_path, make([node("Gemm", "x w c", "y", **factors)], constants, ["batch", 5]))
    if factors.get("alpha", 1) in (1, 0.5):  # exact products fold into one layer
        assert len(loaded.network.steps) == 1


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_gemm_transposed_and_without_a_bias(tmp_path, opset):
    optional = "" if opset >= 11 else " c"
    constants = {"w": weights(3, 5)} | ({"c": weights(3)} if optional else {})
    check(tmp_path, make([node("Gemm", "x w" + optional, "y", transB=1, beta=0.0)], constants, [1, 5], opset))


def test_gemm_with_the_constant_on_the_left_and_the_value_transposed(tmp_path):
    nodes = [node("Gemm", "w x c", "y", transB=1)]
    check(tmp_path, make(nodes, {"w": weights(3, 5), "c": weights(3, 1)}, [1, 5]))
    nodes = [node("Transpose", "x", "t", perm=[1, 0]), node("Gemm", "t w", "y", transA=1)]
    check(tmp_path, make(nodes, {"w": weights(5, 3)}, [1, 5]))
    nodes = [node("Gemm", "x w", "y", transA=1)]  # three rows of five
    check(tmp_path, make(nodes, {"w": weights(5, 2)}, [5, 3]))


@pytest.mark.parametrize(
    ("shape", "left", "right"),
    [((1, 5), None, (5, 3)), ((5,), None, (5, 3)), ((1, 5), None, (5,)), ((1, 4, 5), None, (5, 3)),
     ((4, 5), (2, 4), None), ((1, 4, 5), (2, 4), None), ((4, 5), (4,), None),
     ((5,), (3, 5), None), ((1, 2, 4, 5), None, (1, 1, 5, 3))],
    ids=str,
)  # fmt: skip
def test_matmul_on_either_side_and_of_any_rank(tmp_path, shape, left, right):
    constants = {"w": weights(*(left or right))}
    check(tmp_path, make([node("MatMul", "w x" if left else "x w", "y")], constants, shape))


def test_products_of_two_values_are_refused(tmp_path):
    for operator in ("MatMul", "Gemm", "Mul"):
        with pytest.raises(UnsupportedLayerError, match="two values that depend on the input"):
            check(tmp_path, make([node(operator, "x x", "y")], {}, [2, 2]))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 2, 2), (1, 3, 4)])
@pytest.mark.parametrize("opset", [9, 14, 15])
def test_batch_normalization(tmp_path, shape, opset):
    constants = {"g": weights(3), "b": weights(3, seed=1), "m": weights(3, seed=2), "v": np.abs(weights(3, seed=3))}
    check(tmp_path, make([node("BatchNormalization", "x g b m v", "y", epsilon=1e-3)], constants, shape, opset))


def test_batch_normalization_in_training_is_refused(tmp_path):
    constants = {"g": weights(3), "b": weights(3), "m": weights(3), "v": np.abs(weights(3))}
    nodes = [node("BatchNormalization", "x g b m v", "y m2 v2", training_mode=1)]
    with pytest.raises(UnsupportedLayerError, match="training_mode"):
        check(tmp_path, make(nodes, constants, (1, 3, 2, 2), 15))


def test_weights_of_another_type_are_refused(tmp_path):
    nodes = [node("Cast", "w", "v", to=10), node("Cast", "x", "z", to=10), node("MatMul", "z v", "u")]
    nodes += [node("Cast", "u", "y", to=1)]
    with pytest.raises(UnsupportedLayerError, match="from float32 to type 10"):
        check(tmp_path, make(nodes, {"w": weights(3, 2)}, [1, 3]))
