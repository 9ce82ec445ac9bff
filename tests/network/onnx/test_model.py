"""A file's own answers beside the network's: gradients, batches, float64, and differences that nothing may hide.

Also tested here: network/onnx/runtime.py.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

import acert_zoo
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.layers import Linear
from acert_zoo.network.onnx import files as onnx_files
from acert_zoo.network.onnx import reader as onnx_reader
from acert_zoo.network.onnx import runtime as onnx_runtime
from acert_zoo.network.onnx.files import load_onnx
from acert_zoo.network.onnx.model import OnnxModel
from acert_zoo.network.vnnlib.reader import parse_property
from tests.support.onnx_files import make, node, weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def saved(folder, bias: float = 0.0, shape=("batch", 1, 4, 4)):
    constants = {"a": weights(16, 8), "w": weights(8, 3, seed=1), "b": weights(3, seed=2) + np.float32(bias)}
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f a", "h"), node("Relu", "h", "r"), node("Gemm", "r w b", "y")]
    onnx.save(make(nodes, constants, shape), folder / "m.onnx")
    return folder / "m.onnx"


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_answers_are_the_files_and_gradients_the_networks(tmp_path):
    import onnxruntime

    model = load_onnx(saved(tmp_path))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    x = images().requires_grad_()
    logits = model(x)
    assert torch.equal(logits, torch.from_numpy(session.run(None, {"x": images().numpy()})[0]))
    (got,) = torch.autograd.grad(logits[:, 1].sum(), x)
    (want,) = torch.autograd.grad(model.network(x)[:, 1].sum(), x)
    assert torch.equal(got, want)


def test_a_file_for_one_image_takes_batches(tmp_path):
    model = load_onnx(saved(tmp_path, shape=(1, 1, 4, 4)))
    assert torch.allclose(model(images()), model.network(images()), atol=1e-5)


def test_a_free_batch_axis_that_only_takes_one_image(tmp_path):
    nodes = [node("Reshape", "x s", "f"), node("MatMul", "f w", "y")]
    onnx.save(make(nodes, {"s": [1, 16], "w": weights(16, 3)}, ["n", 1, 4, 4], output=[1, 3]), tmp_path / "m.onnx")
    model = load_onnx(tmp_path / "m.onnx")
    assert torch.allclose(model(images()), model.network(images()), atol=1e-5)


def test_an_answer_that_depends_on_the_other_images_is_refused(tmp_path):
    """The mean over the batch axis is nothing for one image."""
    nodes = [node("ReduceMean", "x", "m", axes=[0], keepdims=1), node("Sub", "x m", "d"), node("Add", "d x", "s")]
    nodes += [node("Flatten", "s", "f"), node("MatMul", "f w", "y")]
    onnx.save(make(nodes, {"w": weights(16, 3)}, ["n", 1, 4, 4]), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match="differs from"):
        load_onnx(tmp_path / "m.onnx")


def test_float64_and_copies(tmp_path):
    model = load_onnx(saved(tmp_path))
    assert isinstance(model, OnnxModel)
    wide = copy.deepcopy(model).double()
    logits = wide(images().double())
    assert logits.dtype == torch.float64
    assert torch.allclose(logits, model.network.to(torch.float64)(images().double()), rtol=1e-13, atol=1e-13)
    assert model(images()).dtype == torch.float32


def changed(graph: onnx_reader.Graph, by: float) -> onnx_reader.Graph:
    """What a wrong reader might give: a weight of the last layer off by `by`."""
    *before, head = graph.network.steps
    assert isinstance(head, Linear)
    weight = head.weight.clone()
    weight[0, 0] += by
    steps = (*before, dataclasses.replace(head, weight=weight))
    return dataclasses.replace(graph, network=type(graph.network)(steps))


@pytest.mark.parametrize("bias", [0.0, 1e6])
def test_a_difference_is_seen_however_large_a_common_bias_is(tmp_path, monkeypatch, bias):
    load_onnx(saved(tmp_path, bias))
    monkeypatch.setattr(onnx_files, "read_graph", lambda *a, **k: changed(onnx_reader.read_graph(*a, **k), 1e-2))
    with pytest.raises(InvalidInputError, match="differs from"):
        load_onnx(saved(tmp_path, bias))


def test_the_very_images_that_are_certified_are_compared(tmp_path, monkeypatch):
    """A file that answers otherwise on one image alone, which no random image shows."""
    model = load_onnx(saved(tmp_path))
    certificates = acert_zoo.certify(model, images())
    assert certificates.radius.max() > 0
    special, original = images(), onnx_runtime.Runtime.run

    def run(self, points):
        found = original(self, points)
        hit = (points.reshape(len(points), -1) == special[2].flatten().numpy()).all(1)
        return np.where(hit[:, None], found[:, ::-1], found)

    monkeypatch.setattr(onnx_runtime.Runtime, "run", run)
    acert_zoo.certify(model, images()[:2])
    with pytest.raises(InvalidInputError, match="differs from"):
        acert_zoo.certify(model, images())


def test_normalised_input_is_certified_with_mean_and_std(tmp_path):
    plain = load_onnx(saved(tmp_path))
    want = plain((images() - 0.5) / 0.25)
    for model, constants in (
        (plain, {"mean": [0.5], "std": [0.25]}),
        (load_onnx(saved(tmp_path), mean=[0.5], std=[0.25]), {}),
    ):
        got = acert_zoo.certify(model, images(), **constants)
        assert torch.equal(got.prediction, want.argmax(1))
    assert torch.equal(model(images()), want)
    with pytest.raises(InvalidInputError, match="give both mean and std"):
        load_onnx(saved(tmp_path), mean=[0.5])


def test_properties_that_fit_the_file_and_its_softmax(tmp_path):
    variables = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(16))
    variables += "".join(f"(declare-const Y_{i} Real)" for i in range(3))
    order = parse_property(variables + "(assert (or (>= Y_1 Y_0) (and (<= Y_0 Y_2) (> Y_1 Y_2))))")
    value = parse_property(variables + "(assert (>= Y_1 0.5))")
    plain = load_onnx(saved(tmp_path), classifier=False)
    plain.check_property(order)
    plain.check_property(value)
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "z"), node("Softmax", "z", "y")]
    onnx.save(make(nodes, {"w": weights(16, 3)}, [1, 1, 4, 4]), tmp_path / "s.onnx")
    softmax = load_onnx(tmp_path / "s.onnx", classifier=False)
    softmax.check_property(order)
    with pytest.raises(InvalidInputError, match="ends in a softmax"):
        softmax.check_property(value)
    small = parse_property("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))")
    with pytest.raises(InvalidInputError, match="1 inputs and 1 outputs, the ONNX model 16 and 3"):
        plain.check_property(small)
