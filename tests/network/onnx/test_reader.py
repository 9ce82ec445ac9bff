"""Graphs as a whole: shape arithmetic of every opset, branches, softmax at the end, inputs and outputs of any rank.

Also tested here: network/onnx/operators.py, network/onnx/values.py.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

import acert_zoo
from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.onnx.files import load_onnx
from tests.support.onnx_files import check, make, node, weights

ZERO = np.array(0)
FLAT = {"w": weights(4, 3), "b": weights(3)}
GEMM = [node("Reshape", "x shape", "f"), node("Gemm", "f w b", "y")]


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17, 18, 21])
def test_a_shape_computed_from_the_batch_size(tmp_path, opset):
    """What torch's exporter writes for x.view(x.size(0), -1)."""
    old = opset < 13
    unsqueeze = node("Unsqueeze", "n", "n1", axes=[0]) if old else node("Unsqueeze", "n a", "n1")
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        unsqueeze,
        node("Concat", "n1 rest", "shape", axis=0),
    ]
    constants = {**FLAT, "zero": ZERO, "rest": [-1]} | ({} if old else {"a": [0]})
    network = check(tmp_path, make(nodes + GEMM, constants, ["batch", 1, 2, 2], opset, output=["batch", 3])).network
    assert [type(s).__name__ for s in network.steps] == ["Flatten", "Linear"]


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_shape_computed_by_a_product(tmp_path, opset):
    product = node("ReduceProd", "s a", "p") if opset >= 18 else node("ReduceProd", "s", "p", axes=[0])
    shape = node("Shape", "x", "s0")
    nodes = [shape, node("Slice", "s0 one four", "s"), product, node("Concat", "m p", "shape", axis=0)]
    constants = {**FLAT, "one": [1], "four": [4], "m": [-1]} | ({"a": [0]} if opset >= 18 else {})
    check(tmp_path, make(nodes + GEMM, constants, ["batch", 1, 2, 2], opset, output=["batch", 3]))


def test_constants_in_nodes_and_constants_of_a_shape(tmp_path):
    value = onnx.numpy_helper.from_array(np.array([0.5], dtype=np.float32))
    nodes = [
        node("Constant", "", "c", value=onnx.numpy_helper.from_array(weights(3))),
        node("Constant", "", "n", value_ints=[1, 3]),
        node("ConstantOfShape", "n", "o", value=value),
        node("Mul", "o c", "k"),
        node("Add", "x k", "y"),
    ]
    check(tmp_path, make(nodes, {}, [1, 3]))


@pytest.mark.parametrize("condition", [True, False])
def test_a_branch_on_a_constant(tmp_path, condition):
    def branch(name: str, operator: str):
        info = onnx.helper.make_tensor_value_info(name, 1, [1, 3])
        return onnx.helper.make_graph([node(operator, "x", name)], name, [], [info])

    nodes = [
        node("If", "c", "z", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")),
        node("Abs", "z", "y"),
    ]
    check(tmp_path, make(nodes, {"c": np.array(condition)}, [1, 3]))


def test_a_branch_on_the_input_is_refused(tmp_path):
    info = onnx.helper.make_tensor_value_info("z", 1, [1, 3])
    branch = onnx.helper.make_graph([node("Relu", "x", "z")], "g", [], [info])
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=9)]
    nodes += [node("If", "c", "y", then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedLayerError, match="Cast"):
        check(tmp_path, make(nodes, {}, [1, 3]))
    nodes = [node("If", "x", "y", then_branch=branch, else_branch=branch)]
    with pytest.raises((UnsupportedLayerError, InvalidInputError), match=r"depends on the input|not a valid"):
        check(tmp_path, make(nodes, {}, [1, 3]))


@pytest.mark.parametrize(
    "shape", [[3], [1, 3], [3, 1], [1, 3, 1], [2, 3], [1, 1, 1, 3], ["batch", 3], [1, 2, 1, 2, 3]], ids=str
)
def test_inputs_of_any_rank_and_one_output(tmp_path, shape):
    loaded = check(tmp_path, make([node("Relu", "x", "r"), node("ReduceSum", "r", "y")], {}, shape))
    assert loaded.network.num_classes == 1
    assert int(np.prod(loaded.input_shape)) == int(np.prod([d for d in shape if d != "batch"]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [(["a", "b"], "fixed sizes"), (["n"], "length is needed"), ([1, 0], "fixed sizes"),
     ([2**15, 2**15], "1,073,741,824 numbers")],
    ids=str,
)  # fmt: skip
def test_inputs_that_are_refused_before_memory_is_taken(tmp_path, shape, message):
    onnx.save(make([node("Relu", "x", "y")], {}, shape), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match=message):
        load_onnx(tmp_path / "m.onnx", classifier=False)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [([node("Expand", "x s", "y")], {"s": [2**30, 4, 4]}),
     ([node("Pad", "x p", "y")], {"p": [0, 0, 2**30, 2**30]}),
     ([node("Resize", "x - s", "y")], {"s": np.array([2**20, 2**20], dtype=np.float32)}),
     ([node("ConstantOfShape", "s", "z"), node("Add", "x z", "y")], {"s": [2**40]}),
     ([node("Expand", "c s", "z"), node("Add", "x z", "y")], {"s": [2**40, 1, 1], "c": weights(1)}),
     ([node("Unsqueeze", "x a", "u"), node("Conv", "u w", "y", pads=[2**20, 2**20, 2**20, 2**20])],
      {"a": [0, 1], "w": weights(1, 1, 1, 1)}),
     ([node("Unsqueeze", "x a", "u"), node("ConvTranspose", "u w", "y", strides=[2**20, 2**20])],
      {"a": [0, 1], "w": weights(1, 1, 1, 1)})],
    ids=["Expand", "Pad", "Resize", "ConstantOfShape", "constant Expand", "Conv", "ConvTranspose"],
)  # fmt: skip
def test_small_files_that_ask_for_much_memory_are_refused(tmp_path, nodes, constants):
    with pytest.raises(UnsupportedLayerError, match=r"entries|matrix"):
        check(tmp_path, make(nodes, constants, [4, 4], 13, output=["n"]))


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [([node("Slice", "x s e a", "y")], {"s": [0], "e": [16], "a": [1]}, "matrix of shape"),
     ([node("Gather", "x i", "y", axis=1)], {"i": [5, 9] * 100}, "matrix of shape"),
     ([node("Split", "x", "y z", axis=1)], {}, "matrix of shape")],
    ids=["Slice", "Gather", "Split"],
)  # fmt: skip
def test_a_few_entries_of_a_large_image_take_no_square_matrix(tmp_path, nodes, constants, message):
    """By rows of the identity matrix each would take 90 GB; what fits is read, the rest is refused beforehand."""
    model = make(nodes, constants, [1, 3 * 224 * 224], 13, output=["n", "m"])
    if len(constants.get("e", ())):
        assert check(tmp_path, model).network.num_classes == 16
    else:
        with pytest.raises(UnsupportedLayerError, match=message):
            check(tmp_path, model)


def changed_type(element):
    def change(model):
        model.graph.initializer[0].data_type = element

    return change


def reference_attribute(model):
    model.graph.node[0].attribute.add(name="alpha", ref_attr_name="z", type=1)


SPOILT = {
    "a type of half the size": ([node("Gemm", "x w b", "y")], FLAT, changed_type(10), "cannot be read|not a valid"),
    "a type that nobody knows": ([node("Gemm", "x w b", "y")], FLAT, changed_type(99), "cannot be read|not a valid"),
    "an attribute of no function": ([node("Gemm", "x w b", "y")], FLAT, reference_attribute, "outside of one"),
    "the indices of a maximum": (
        [node("Reshape", "x s", "u"), node("MaxPool", "u", "p y", kernel_shape=[2, 2])], {"s": [1, 1, 2, 2]}, None,
        "second output that is not read",
    ),
    "an input as an index": ([node("Gather", "c x", "y")], {"c": weights(5)}, None, "Gather|not a valid"),
    "an integer over 0": (
        [node("Div", "a z", "q"), node("Cast", "q", "f", to=1), node("Mul", "x f", "y")], {"a": [1], "z": [0]}, None,
        "divide by zero",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_files_end_in_one_kind_of_error(tmp_path, capfd, name):
    """onnx's checker passes them; no exception of Python's own comes out, and onnxruntime says nothing."""
    nodes, constants, spoil, message = SPOILT[name]
    model = make(nodes, constants, [1, 4], 13, output=["n", "m"])
    if spoil is not None:
        spoil(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises((UnsupportedLayerError, InvalidInputError), match=message):
        load_onnx(tmp_path / "m.onnx", classifier=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("operator", "opset"), [("Softmax", 9), ("Softmax", 13), ("LogSoftmax", 13)])
def test_a_softmax_at_the_end_is_left_out(tmp_path, operator, opset):
    nodes = [node("Gemm", "x w b", "z"), node(operator, "z", "y")]
    onnx.save(make(nodes, FLAT, ["batch", 4], opset), tmp_path / "m.onnx")
    model = load_onnx(tmp_path / "m.onnx")
    assert model.order_only
    x = torch.rand(5, *model.input_shape)
    assert torch.allclose(model(x), x.flatten(1) @ torch.from_numpy(FLAT["w"]) + torch.from_numpy(FLAT["b"]), atol=1e-5)


def test_a_softmax_elsewhere_is_refused(tmp_path):
    for nodes, shape in (
        ([node("Softmax", "x", "z"), node("Gemm", "z w b", "y")], [1, 4]),
        ([node("Softmax", "x", "y", axis=0)], [1, 4]),
        ([node("Softmax", "x", "y", axis=-1)], [2, 4]),
    ):
        with pytest.raises(UnsupportedLayerError, match=r"Softmax .*other than as the last operator"):
            check(tmp_path, make(nodes, FLAT, shape))


def test_versions_domains_and_many_outputs_that_are_refused(tmp_path):
    model = make([node("Relu", "x", "y")], {}, [1, 3], 6)
    with pytest.raises(UnsupportedLayerError, match="opset 6; 7 to"):
        check(tmp_path, model)
    model = make([onnx.helper.make_node("Relu", ["x"], ["y"], domain="other")], {}, [1, 3], output=[1, 3])
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    with pytest.raises(UnsupportedLayerError, match="domain 'other'"):
        check(tmp_path, model)
    with pytest.raises(UnsupportedLayerError, match="10,000 outputs"):
        check(tmp_path, make([node("Relu", "x", "y")], {}, [1, 10000]))


@pytest.mark.parametrize("domain", ["own", ""])
def test_functions_of_the_file_itself(tmp_path, domain):
    """A local function stands for its body; one that takes the place of an operator (here Relu negates) is refused."""
    helper = onnx.helper
    opsets = [helper.make_opsetid(d, v) for d, v in {"": 13, domain: 1 if domain else 13}.items()]
    nodes = [helper.make_node("Relu", ["x"], ["z"], domain=domain), node("MatMul", "z w", "y")]
    model = make(nodes, {"w": weights(4, 3)}, [1, 4], output=[1, 3])
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function(domain, "Relu", ["a"], ["b"], body, opsets[:1]))
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.save(model, tmp_path / "m.onnx")
    if not domain:
        with pytest.raises(InvalidInputError, match="'Relu', an operator of ONNX"):
            load_onnx(tmp_path / "m.onnx")
        return
    network, x = load_onnx(tmp_path / "m.onnx").network, torch.rand(2, 1, 2, 2)
    assert torch.allclose(network(x), -x.flatten(1) @ torch.from_numpy(weights(4, 3)))


def test_certificates_are_about_float32_files(tmp_path):
    double = onnx.TensorProto.DOUBLE
    nodes = [node("LeakyRelu", "x", "z"), node("MatMul", "z w", "y")]
    onnx.save(make(nodes, {"w": weights(4, 3).astype(np.float64)}, [1, 4], element=double), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match="certificates are about float32 networks"):
        acert_zoo.certify(load_onnx(tmp_path / "m.onnx"), torch.rand(1, 1, 2, 2))


def test_float64_files(tmp_path):
    double = onnx.TensorProto.DOUBLE
    nodes = [node("MatMul", "x w", "z"), node("Relu", "z", "y")]
    onnx.save(make(nodes, {"w": weights(4, 3).astype(np.float64)}, [1, 4], element=double), tmp_path / "m.onnx")
    model = load_onnx(tmp_path / "m.onnx")
    assert model.network.head.weight.dtype == torch.float64
    x = torch.rand(2, *model.input_shape, dtype=torch.float64)
    assert torch.allclose(model(x), torch.relu(x.flatten(1) @ torch.from_numpy(weights(4, 3)).double()))
