"""Small ONNX files built by hand, and what onnxruntime computes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acert_zoo.network.onnx.files import load_onnx

onnx = pytest.importorskip("onnx")

FLOAT = onnx.TensorProto.FLOAT


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    """A node; inputs and outputs are names with spaces between them, "-" being one left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return onnx.helper.make_node(operator, names, output.split(), **attributes)


def make(
    nodes: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
    shape: Sequence[Any] = ("batch", 1, 2, 2),
    opset: int = 17,
    element: int = FLOAT,
    output: Sequence[Any] | None = None,
) -> Any:
    """A model from input "x" of `shape` to output "y"; constants that are lists become int64.

    The output's shape is inferred by onnx where it is not given.
    """
    h = onnx.helper
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = h.make_graph(
        nodes,
        "test",
        [h.make_tensor_value_info("x", element, list(shape))],
        [h.make_tensor_value_info("y", element, output)],
        tensors,
    )
    ir = 7 if opset < 15 else 8 if opset < 19 else 9 if opset < 21 else 10
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir)
    return onnx.shape_inference.infer_shapes(model) if output is None else model


def weights(*shape: int, seed: int = 0) -> Any:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(folder: Path, model: Any) -> Any:
    """Loads a model for properties and holds its network, in float64, against onnxruntime; returns what was loaded."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx.save(model, folder / "m.onnx")
    loaded = load_onnx(folder / "m.onnx", classifier=False)
    dims = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    network = loaded.network.to(torch.float64)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        got = network(torch.from_numpy(x).double().view(1, *loaded.input_shape)).numpy()
        np.testing.assert_allclose(got.ravel(), np.ravel(want), rtol=2e-5, atol=2e-5)
    return loaded
