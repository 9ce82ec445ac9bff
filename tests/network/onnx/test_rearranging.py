"""ONNX operators that rearrange, select and reduce, in the forms of old and new opsets, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from acert_zoo.errors import UnsupportedLayerError

pytest.importorskip("onnx")
from tests.support.onnx_files import check, make, node, weights


@pytest.mark.parametrize("shape", [[1, -1], [-1], [0, 0, 6], [6, 2, 1], [3, 4]], ids=str)
def test_reshape(tmp_path, shape):
    loaded = check(tmp_path, make([node("Reshape", "x s", "z"), node("Relu", "z", "y")], {"s": shape}, [1, 2, 6]))
    assert [type(s).__name__ for s in loaded.network.steps] == ["ReLU", "Flatten", "Linear"]  # reshaping is no step


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3, 4])
def test_flatten_at_every_axis(tmp_path, axis):
    check(tmp_path, make([node("Flatten", "x", "z", axis=axis), node("Relu", "z", "y")], {}, [1, 2, 3, 2], 11))


@pytest.mark.parametrize("opset", [9, 12, 13])
@pytest.mark.parametrize("axes", [[0], [1, 3], [-1, -2]], ids=str)
def test_unsqueeze_and_squeeze_with_axes_as_attribute_or_input(tmp_path, opset, axes):
    if min(axes) < 0 and opset < 11:
        pytest.skip("negative axes came with opset 11")
    old = opset < 13
    constants = {} if old else {"a": axes}
    given = {"axes": axes} if old else {}
    inputs = "{}" if old else "{} a"
    nodes = [
        node("Unsqueeze", inputs.format("x"), "u", **given),
        node("Relu", "u", "r"),
        node("Squeeze", inputs.format("r"), "y", **given),
    ]
    check(tmp_path, make(nodes, constants, [1, 2, 3], opset))


def test_squeeze_of_all_axes_of_size_1(tmp_path):
    check(tmp_path, make([node("Squeeze", "x", "y")], {}, [1, 2, 1, 3]))


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((1, 2, 3, 4), [0, 2, 3, 1]), ((1, 2, 3, 4), None), ((1, 2, 3, 4), [2, 1, 0, 3]), ((1, 2, 1, 4), [2, 3, 0, 1]),
     ((2, 3), [1, 0]), ((1, 1, 2, 3), [1, 0, 2, 3])],
    ids=str,
)  # fmt: skip
def test_transpose_of_any_axes(tmp_path, shape, perm):
    given = {} if perm is None else {"perm": perm}
    check(tmp_path, make([node("Transpose", "x", "y", **given)], {}, shape))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concatenation_with_constants_along_any_axis(tmp_path, axis):
    sizes = [1, 2, 3]
    sizes[axis] = 2
    nodes = [node("Neg", "x", "n"), node("Concat", "x c n", "y", axis=axis)]
    check(tmp_path, make(nodes, {"c": weights(*sizes)}, [1, 2, 3]))


def test_concatenation_of_shapes_that_do_not_fit_is_refused(tmp_path):
    nodes = [node("Concat", "x c", "z", axis=2), node("Flatten", "z", "y")]
    model = make(nodes, {"c": weights(1, 1, 3)}, [1, 1, 3])
    model.graph.initializer[0].dims[:] = [1, 3, 1]
    with pytest.raises(UnsupportedLayerError, match="Concat"):
        check(tmp_path, model)


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_split_in_the_forms_of_every_opset(tmp_path, opset):
    sizes = {} if opset >= 13 else {"split": [1, 3]}
    nodes = [node("Split", "x s" if opset >= 13 else "x", "a b", axis=1, **sizes)]
    nodes += [node("Relu", "b", "r"), node("Concat", "r a", "y", axis=1)]
    check(tmp_path, make(nodes, {"s": [1, 3]} if opset >= 13 else {}, [1, 4, 2], opset))
    equal = {"num_outputs": 2} if opset >= 18 else {}
    nodes = [node("Split", "x", "a b", axis=-1, **equal), node("Sub", "a b", "y")]
    check(tmp_path, make(nodes, {}, [1, 4, 2], opset))


def test_slice_with_ranges_as_attributes_or_inputs(tmp_path):
    attributes = {"starts": [1, -3], "ends": [9, -1], "axes": [1, 2]}
    check(tmp_path, make([node("Slice", "x", "y", **attributes)], {}, [1, 4, 5], 9))
    check(tmp_path, make([node("Slice", "x s e a", "y")], {"s": [1, -3], "e": [9, -1], "a": [1, 2]}, [1, 4, 5], 10))
    far = -(2**63)
    for start, end, step in ((4, far, -1), (-1, -4, -2), (0, 2**63 - 1, 2), (3, 0, -1)):
        numbers = {"s": [start], "e": [end], "a": [-1], "t": [step]}
        check(tmp_path, make([node("Slice", "x s e a t", "y")], numbers, [1, 4, 5], 13))


@pytest.mark.parametrize(("axis", "indices"), [(1, [2, 0]), (-1, [[0, -1], [1, 1]]), (1, 1), (0, 0)], ids=str)
def test_gather(tmp_path, axis, indices):
    check(tmp_path, make([node("Gather", "x i", "y", axis=axis)], {"i": np.array(indices)}, [1, 3, 2]))


def test_pad_with_pads_as_attribute_or_input(tmp_path):
    pads = [0, 1, 0, 2, 0, 0, 3, -1]
    nodes = [node("Pad", "x", "y", pads=pads, value=0.5)]
    check(tmp_path, make(nodes, {}, [1, 2, 3, 4], 9))
    constants = {"p": pads, "v": np.array(0.5, dtype=np.float32)}
    check(tmp_path, make([node("Pad", "x p v", "y")], constants, [1, 2, 3, 4], 11))
    check(tmp_path, make([node("Pad", "x p", "y")], constants, [1, 2, 3, 4], 13))
    check(tmp_path, make([node("Pad", "x p - a", "y")], {"p": [1, 2], "a": [-1]}, [1, 2, 3], 18))
    with pytest.raises(UnsupportedLayerError, match="mode reflect"):
        check(tmp_path, make([node("Pad", "x p", "y", mode="reflect")], {"p": [0, 1, 0, 1]}, [1, 5], 13))


def test_expand(tmp_path):
    check(tmp_path, make([node("Expand", "x s", "y")], {"s": [2, 1, 3, 4]}, [1, 3, 1]))


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [1], [0, 2], None], ids=str)
def test_reductions_with_axes_as_attribute_or_input(tmp_path, operator, keepdims, axes):
    given = {} if axes is None else {"axes": axes}
    opsets = (9, 11, 13) if operator == "ReduceSum" else (9, 11, 18)
    for opset in opsets:
        if opset == opsets[-1]:
            inputs = "x" if axes is None else "x a"
            model = make([node(operator, inputs, "y", keepdims=keepdims)], {"a": axes or []}, [1, 2, 3, 4], opset)
        elif opset == 9 and axes == [-1]:
            continue  # negative axes came with opset 11
        else:
            model = make([node(operator, "x", "y", keepdims=keepdims, **given)], {}, [1, 2, 3, 4], opset)
        check(tmp_path, model)


def test_reduction_over_no_axes(tmp_path):
    nodes = [node("ReduceSum", "x a", "y", noop_with_empty_axes=1)]
    check(tmp_path, make(nodes, {"a": np.array([], dtype=np.int64)}, [1, 3]))


def test_what_changes_nothing(tmp_path):
    nodes = [node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Cast", "b", "c", to=1)]
    nodes += [node("CastLike", "c f", "d"), node("Relu", "d", "y")]
    network = check(tmp_path, make(nodes, {"f": weights(1)}, [1, 3], 15)).network
    assert [type(s).__name__ for s in network.steps] == ["ReLU", "Linear"]


@pytest.mark.parametrize("target", [6, 7, 10, 11], ids=["int32", "int64", "float16", "float64"])
def test_conversions_that_round_are_refused(tmp_path, target):
    nodes = [node("Cast", "x", "i", to=target), node("Cast", "i", "y", to=1)]
    with pytest.raises(UnsupportedLayerError, match=r"Cast .*from float32 to"):
        check(tmp_path, make(nodes, {}, [1, 3]))


def test_dropout_in_training_is_refused(tmp_path):
    nodes = [node("Dropout", "x r t", "y")]
    constants = {"r": np.array(0.5, dtype=np.float32), "t": np.array(True)}
    with pytest.raises(UnsupportedLayerError, match="training"):
        check(tmp_path, make(nodes, constants, [1, 3], 13))
