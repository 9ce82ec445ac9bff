"""ONNX arithmetic and piecewise linear functions, constants of every shape that broadcasts, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.layers import Conv, Linear, Normalize
from acert_zoo.network.onnx.files import load_onnx

pytest.importorskip("onnx")
from tests.support.onnx_files import check, make, node, weights

SHAPES = [(), (1,), (1, 1, 1, 1), (1, 3, 1, 1), (3, 1, 1), (4, 5), (5,), (1, 3, 4, 5), (3, 4, 5), (1, 1, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_with_constants_of_every_shape(tmp_path, operator, shape):
    constants = {"c": weights(*shape) if shape else np.array(-1.75, dtype=np.float32)}
    check(tmp_path, make([node(operator, "x c", "y")], constants, ["batch", 3, 4, 5]))
    if operator != "Div":
        check(tmp_path, make([node(operator, "c x", "y")], constants, [1, 3, 4, 5]))


def test_constants_that_make_the_value_larger(tmp_path):
    check(tmp_path, make([node("Add", "x c", "y")], {"c": weights(1, 3, 4, 5)}, [1, 3, 1, 1]))
    check(tmp_path, make([node("Mul", "x c", "y")], {"c": weights(4, 1)}, [5]))


def test_the_normalisation_of_an_image_is_one_step(tmp_path):
    constants = {"m": weights(1, 3, 1, 1), "s": np.abs(weights(1, 3, 1, 1)) + 1}
    nodes = [node("Sub", "x m", "z"), node("Div", "z s", "n"), node("Conv", "n w", "c"), node("Flatten", "c", "y")]
    network = check(tmp_path, make(nodes, {**constants, "w": weights(2, 3, 3, 3)}, ["n", 3, 4, 4])).network
    assert [type(s).__name__ for s in network.steps[:2]] == ["Normalize", "Conv"]


@pytest.mark.parametrize("shape", [(3,), (1, 3), ()], ids=str)
def test_an_addition_behind_a_layer_is_its_bias(tmp_path, shape):
    nodes = [node("MatMul", "x w", "z"), node("Sub", "z b", "y")]
    network = check(tmp_path, make(nodes, {"w": weights(4, 3), "b": weights(*shape)}, [1, 4])).network
    assert [type(s) for s in network.steps] == [Linear]
    nodes = [node("Conv", "x w", "z"), node("Add", "b z", "y")]
    network = check(tmp_path, make(nodes, {"w": weights(3, 1, 2, 2), "b": weights(3, 1, 1)}, [1, 1, 4, 4])).network
    assert isinstance(network.steps[0], Conv)
    assert not any(isinstance(s, Normalize) for s in network.steps)


def test_a_layer_whose_output_is_used_twice_keeps_both(tmp_path):
    nodes = [node("MatMul", "x w", "z"), node("Add", "z b", "a"), node("Relu", "z", "r"), node("Add", "a r", "y")]
    check(tmp_path, make(nodes, {"w": weights(4, 3), "b": weights(3)}, [1, 4]))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (1, 3)), ((1, 3), (2, 1)), ((2, 1, 3), (3,))], ids=str)
def test_sums_of_values_that_broadcast(tmp_path, shapes):
    sizes = [int(np.prod(s)) for s in shapes]
    constants = {"split": sizes, "a": shapes[0], "b": shapes[1]}
    nodes = [node("Split", "x split", "u v", axis=1), node("Reshape", "u a", "p"), node("Reshape", "v b", "q")]
    for operator in ("Add", "Sub"):
        check(tmp_path, make([*nodes, node(operator, "p q", "y")], constants, [1, sum(sizes)]))


def test_division_that_is_refused(tmp_path):
    for inputs, message in (("x c", "division by zero"), ("c x", "depends on the input")):
        with pytest.raises(UnsupportedLayerError, match=message):
            check(tmp_path, make([node("Div", inputs, "y")], {"c": np.zeros(3, dtype=np.float32)}, [1, 3]))


@pytest.mark.parametrize("operator", ["Relu", "Abs", "Neg", "Sigmoid", "Sign", "Tanh"])
def test_functions_of_one_value(tmp_path, operator):
    check(tmp_path, make([node(operator, "x", "y")], {}, [1, 2, 3]))


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, 2.0, -0.5])
def test_leaky_relu_with_any_slope(tmp_path, slope):
    check(tmp_path, make([node("LeakyRelu", "x", "y", alpha=slope)], {}, [1, 6]))
    check(tmp_path, make([node("PRelu", "x s", "y")], {"s": np.array([slope], dtype=np.float32)}, [1, 6]))
    slopes = np.array([slope, 0.125], dtype=np.float32).reshape(2, 1, 1)
    check(tmp_path, make([node("PRelu", "x s", "y")], {"s": slopes}, [1, 2, 3, 3]))


def test_slopes_that_vary_over_places(tmp_path):
    check(tmp_path, make([node("PRelu", "x s", "y")], {"s": weights(1, 3)}, [1, 2, 3]))


LIMITS = [(-0.5, 0.5), (0.0, 6.0), (None, 0.25), (-0.25, None), (None, None)]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_clip_with_limits_as_attributes_or_inputs(tmp_path, limits):
    given = {k: v for k, v in zip(("min", "max"), limits, strict=True) if v is not None}
    check(tmp_path, make([node("Clip", "x", "y", **given)], {}, [1, 6], 9))
    names = " ".join(k if k in given else "-" for k in ("min", "max"))
    numbers = {k: np.array(v, dtype=np.float32) for k, v in given.items()}
    for opset in (11, 13):
        check(tmp_path, make([node("Clip", f"x {names}", "y")], numbers, [1, 6], opset))


@pytest.mark.parametrize("operator", ["Max", "Min", "Sum"])
def test_several_values(tmp_path, operator):
    constants = {"c": weights(3, 1, 1), "d": weights(2, 2, seed=1)}
    nodes = [node("Neg", "x", "n"), node(operator, "c x d n", "y")]
    check(tmp_path, make(nodes, constants, [1, 3, 2, 2], 13))


def test_functions_that_no_bound_covers_are_refused_by_name(tmp_path):
    for operator in ("Exp", "Erf", "Softplus", "Elu", "Floor"):
        with pytest.raises(UnsupportedLayerError, match=f"ONNX operator {operator} .*no bound covers it"):
            check(tmp_path, make([node(operator, "x", "y")], {}, [1, 3], 13))


@pytest.mark.parametrize("limit", ["low", "high"])
def test_a_limit_beyond_everything_is_no_missing_limit(tmp_path, limit):
    """max(x, 3.4e38) is 3.4e38, whatever x; ONNX's own defaults are the limits of the other sign."""
    import onnx

    largest = np.float32(3.4028235e38)
    inputs, value = ("x c", largest) if limit == "low" else ("x - c", -largest)
    model = make([node("Clip", inputs, "z"), node("MatMul", "z w", "y")], {"c": value, "w": weights(4, 3)}, [1, 4])
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises((InvalidInputError, UnsupportedLayerError)):
        load_onnx(tmp_path / "m.onnx")
