"""ONNX convolutions, pooling and resizing in every legal form, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from acert_zoo.errors import UnsupportedLayerError

pytest.importorskip("onnx")
from tests.support.onnx_files import check, make, node, weights

CONVOLUTIONS = {
    "plain": {},
    "strides": {"strides": [2, 1]},
    "pads": {"pads": [1, 1, 1, 1]},
    "pads of unequal sides": {"pads": [0, 1, 2, 1]},
    "dilations": {"dilations": [2, 1]},
    "SAME_UPPER": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "SAME_LOWER": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "VALID": {"auto_pad": "VALID"},
}


@pytest.mark.parametrize("settings", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(tmp_path, settings, groups):
    constants = {"w": weights(4, 2 // groups, 3, 2), "b": weights(4, seed=1)}
    check(tmp_path, make([node("Conv", "x w b", "y", group=groups, **settings)], constants, [1, 2, 6, 5]))


def test_convolution_of_signals(tmp_path):
    constants = {"w": weights(3, 2, 4)}
    check(tmp_path, make([node("Conv", "x w", "y", strides=[2], pads=[1, 2])], constants, [1, 2, 9]))


TRANSPOSED = {
    "plain": {},
    "strides": {"strides": [2, 3]},
    "pads": {"strides": [2, 2], "pads": [1, 0, 1, 2]},
    "output_padding": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    "dilations": {"dilations": [2, 1], "strides": [1, 2]},
    "pads that cut": {"pads": [2, 1, 2, 1]},
}


@pytest.mark.parametrize("settings", TRANSPOSED.values(), ids=TRANSPOSED)
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(tmp_path, settings, groups):
    constants = {"w": weights(4, 2, 3, 2), "b": weights(2 * groups, seed=1)}
    check(tmp_path, make([node("ConvTranspose", "x w b", "y", group=groups, **settings)], constants, [1, 4, 4, 3]))


def test_transposed_convolution_with_an_output_shape_is_refused(tmp_path):
    nodes = [node("ConvTranspose", "x w", "y", output_shape=[9, 9], strides=[2, 2])]
    with pytest.raises(UnsupportedLayerError, match="output_shape"):
        check(tmp_path, make(nodes, {"w": weights(2, 2, 3, 3)}, [1, 2, 4, 4]))


POOLS = {
    "plain": {},
    "strides": {"strides": [2, 1]},
    "pads": {"pads": [1, 1, 1, 1]},
    "ceil_mode without effect": {"ceil_mode": 1},
    "SAME_UPPER": {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]},
}


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("settings", POOLS.values(), ids=POOLS)
def test_pooling(tmp_path, operator, settings):
    nodes = [node(operator, "x", "y", **{"kernel_shape": [3, 2], **settings})]
    check(tmp_path, make(nodes, {}, [1, 2, 7, 6], 12))


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("pads", [[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 2, 1]], ids=str)
def test_average_pooling_that_counts_padding_or_not(tmp_path, counted, pads):
    nodes = [node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=counted)]
    check(tmp_path, make(nodes, {}, [1, 2, 6, 6]))


def test_pooling_that_is_refused(tmp_path):
    for settings, message in (
        ({"kernel_shape": [2, 2], "pads": [0, 0, 0, 1]}, "opposite sides"),
        ({"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, "ceil_mode"),
        ({"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilation"),
    ):
        with pytest.raises(UnsupportedLayerError, match=message):
            check(tmp_path, make([node("MaxPool", "x", "y", **settings)], {}, [1, 1, 5, 5]))
    nodes = [node("MaxPool", "x", "p i", kernel_shape=[2, 2]), node("Cast", "i", "y", to=1)]
    with pytest.raises(UnsupportedLayerError, match="second output"):
        check(tmp_path, make(nodes, {}, [1, 1, 4, 4]))


def test_global_pooling(tmp_path):
    for operator in ("GlobalAveragePool", "GlobalMaxPool"):
        check(tmp_path, make([node(operator, "x", "y")], {}, [1, 3, 4, 5]))


def test_resizing_by_repetition(tmp_path):
    scales = {"s": np.array([1, 1, 2, 3], dtype=np.float32)}
    check(tmp_path, make([node("Upsample", "x s", "y", mode="nearest")], scales, [1, 2, 3, 2], 9))
    check(tmp_path, make([node("Resize", "x s", "y", mode="nearest")], scales, [1, 2, 3, 2], 10))
    for settings in ({}, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}):
        check(tmp_path, make([node("Resize", "x - s", "y", **settings)], scales, [1, 2, 3, 2], 13))
    check(tmp_path, make([node("Resize", "x - - z", "y")], {"z": [1, 2, 6, 6]}, [1, 2, 3, 2], 13))


def test_resizing_that_interpolates_is_refused(tmp_path):
    for settings, scale in (({"mode": "linear"}, 2), ({}, 1.5), ({"nearest_mode": "ceil"}, 2)):
        scales = {"s": np.array([1, 1, scale, 2], dtype=np.float32)}
        with pytest.raises(UnsupportedLayerError, match="Resize"):
            check(tmp_path, make([node("Resize", "x - s", "y", **settings)], scales, [1, 2, 3, 2], 13))
