"""The certifier as an ONNX graph, run by onnxruntime: the package's own bounds, and the same certified radii."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import acert_zoo
from acert_zoo.bounds.ibp import class_margins
from acert_zoo.bounds.onnx_bounds import export_onnx_bounds
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.tracing import trace
from tests.support import modules
from tests.support.models import small_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SHAPE = (3, 8, 8)


def images(n: int = 4, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(3))


def run(path: Path, x: torch.Tensor, eps: list[float]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixels": x.numpy(), "eps": np.array(eps, np.float32)}), strict=True))


def test_bounds_of_a_linear_network_by_hand(tmp_path: Path) -> None:
    # f = (x1 + 2 x2, x1): the margin is 2 x2, at (1/2, 1/4) it is 1/2, within eps at least 1/2 - 2 eps
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [1.0, 0.0]]))
        layer.bias.zero_()
    export_onnx_bounds(nn.Sequential(nn.Flatten(), layer).eval(), tmp_path / "it.onnx", (1, 1, 2))
    got = run(tmp_path / "it.onnx", torch.tensor([[[[0.5, 0.25]]]] * 3), [0.0, 0.125, 0.25])
    assert got["prediction"].tolist() == [0, 0, 0]
    assert got["logits"].tolist() == [[1.0, 0.5]] * 3
    assert got["margins"].tolist() == [[np.inf, 0.5], [np.inf, 0.25], [np.inf, 0.0]]
    assert got["robust_margin"].tolist() == [0.5, 0.25, 0.0]  # 0 is not certified


@pytest.mark.parametrize("name", modules.MODELS)
def test_every_kind_of_layer_has_the_bounds_of_the_package(tmp_path: Path, name: str) -> None:
    model = modules.build(name)
    export_onnx_bounds(model, tmp_path / "it.onnx", SHAPE)
    x, eps = images(), [0.0, 0.001, 0.02, 0.3]
    got = run(tmp_path / "it.onnx", x, eps)
    network = trace(model, SHAPE).detach()
    with torch.no_grad():
        logits = network(x)
        expected = class_margins(network, x, logits.argmax(1), torch.tensor(eps)).numpy()
    assert got["prediction"].tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(got["logits"], logits.numpy(), rtol=1e-5, atol=1e-5)
    scale = np.abs(expected[np.isfinite(expected)]).max()
    np.testing.assert_allclose(got["margins"], expected, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_array_equal(got["robust_margin"], got["margins"].min(1))


def test_radii_of_a_model_of_the_zoo(tmp_path: Path) -> None:
    model = acert_zoo.load_model("mnist_kappa000")
    export_onnx_bounds(model, tmp_path / "it.onnx")
    x, _ = acert_zoo.sample_data("mnist", 10)
    radius = acert_zoo.certify(model, x, rounding="float32").radius
    assert (radius > 0.05).all()
    inside = run(tmp_path / "it.onnx", x, (radius * (1 - 1e-4)).tolist())["robust_margin"]
    outside = run(tmp_path / "it.onnx", x, (radius * (1 + 1e-4)).tolist())["robust_margin"]
    assert (inside > 0).all()
    assert (outside[radius.numpy() < 1] <= 0).all()
    properties = {p.key: p.value for p in onnx.load(tmp_path / "it.onnx").metadata_props}
    assert properties["model"] == model.info.versioned_name
    assert properties["rounding"] == "float32"


def test_a_bound_that_overflows_is_not_certified(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3e19)
    export_onnx_bounds(model, tmp_path / "it.onnx")
    assert not (run(tmp_path / "it.onnx", images(1), [0.1])["robust_margin"] > 0).any()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedLayerError, match="cascade"):
        export_onnx_bounds(acert_zoo.load_model("mnist_cascade"), tmp_path / "it.onnx")
    with pytest.raises(UnsoundSettingError, match="train"):
        export_onnx_bounds(small_model().train(), tmp_path / "it.onnx")
    with pytest.raises(InvalidInputError, match="folder"):
        export_onnx_bounds(small_model(), tmp_path / "no" / "it.onnx")
    with pytest.raises(InvalidInputError, match="input shape"):
        export_onnx_bounds(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), tmp_path / "it.onnx")
    assert not list(tmp_path.iterdir())
