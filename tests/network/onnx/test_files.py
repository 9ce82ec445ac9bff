"""ONNX out and in: parity with onnxruntime, files that other exporters write, refusals; and an outside verifier.

Also tested here: network/onnx/writer.py.
"""

from __future__ import annotations

import gzip
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import acert_zoo
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnsoundSettingError
from acert_zoo.network.layers import Linear, Normalize
from acert_zoo.network.onnx import files as onnx_files
from acert_zoo.network.onnx import runtime as onnx_runtime
from acert_zoo.network.onnx.files import export_onnx, load_onnx
from acert_zoo.network.tracing import trace
from tests.support import modules
from tests.support.models import small_model
from tests.support.onnx_files import make, node, weights

onnx = pytest.importorskip("onnx")
SHAPE = (3, 8, 8)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3))


def runtime_logits(path: Path, x: torch.Tensor) -> torch.Tensor:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("n", [1, 5])
def test_exported_models_run_on_onnxruntime_at_any_batch_size(tmp_path, n):
    model = small_model()
    export_onnx(model, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(images(n))
    assert torch.allclose(runtime_logits(tmp_path / "model.onnx", images(n)), expected, rtol=1e-5, atol=1e-5)


def test_what_the_file_says_of_itself(tmp_path):
    export_onnx(small_model(), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 17)]
    (pixels,), (logits,) = proto.graph.input, proto.graph.output
    assert pixels.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [d.dim_value for d in pixels.type.tensor_type.shape.dim][1:] == [3, 8, 8]
    assert (pixels.name, logits.name) == ("pixels", "logits")
    assert proto.graph.node[0].op_type == "Sub"  # the normalisation is inside


@pytest.mark.parametrize("name", modules.MODELS)
def test_every_kind_of_layer_goes_out_and_comes_back(tmp_path, name):
    model = modules.build(name)
    export_onnx(model, tmp_path / "model.onnx", SHAPE)
    with torch.no_grad():
        expected = model(images())
    assert torch.allclose(runtime_logits(tmp_path / "model.onnx", images()), expected, rtol=1e-5, atol=1e-5)
    back = load_onnx(tmp_path / "model.onnx")
    assert back.input_shape == SHAPE
    assert not back.training
    assert torch.allclose(back(images()), expected, rtol=1e-5, atol=1e-5)


def test_weights_come_back_bit_for_bit_and_so_do_certificates(tmp_path):
    model = small_model()
    export_onnx(model, tmp_path / "model.onnx")
    back = load_onnx(tmp_path / "model.onnx")
    assert isinstance(back.network.steps[0], Normalize)
    for a, b in zip(back.network.steps, trace(model).steps, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Linear):
            assert torch.equal(a.weight, b.weight)
    ours, theirs = (acert_zoo.certify(m, images()) for m in (model, back))
    assert torch.equal(ours.radius, theirs.radius)


WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2) - 3
BIAS = np.array([0.5, -1], dtype=np.float32)


def test_matmul_and_add_are_one_linear_layer_as_other_exporters_write_it(tmp_path):
    """x.view(x.size(0), -1) exported: Shape, Gather, Unsqueeze, Concat, Reshape; then MatMul and Add."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 minus", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("MatMul", "flat w", "z"),
        node("Add", "b z", "y"),
    ]
    numbers = {"zero": np.array(0), "axis": np.array([0]), "minus": np.array([-1])}
    onnx.save(make(nodes, {"w": WEIGHT, "b": BIAS, **numbers}), tmp_path / "m.onnx")
    network = load_onnx(tmp_path / "m.onnx").network
    assert [type(s).__name__ for s in network.steps] == ["Flatten", "Linear"]
    x = torch.tensor([1.0, 0, 0, 2]).view(1, 1, 2, 2)
    assert network(x).tolist() == [[(-3 + 2 * 3) + 0.5, (-2 + 2 * 4) - 1]]


def test_a_file_with_a_batch_of_one(tmp_path):
    nodes = [node("Reshape", "x s", "flat"), node("Gemm", "flat w b", "y")]
    onnx.save(make(nodes, {"w": WEIGHT, "b": BIAS, "s": np.array([1, 4])}, shape=(1, 1, 2, 2)), tmp_path / "m.onnx")
    assert load_onnx(tmp_path / "m.onnx")(torch.zeros(3, 1, 2, 2)).tolist() == [[0.5, -1.0]] * 3


def test_files_that_are_no_classifiers(tmp_path):
    with pytest.raises(InvalidInputError, match="not a file"):
        load_onnx(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InvalidInputError, match="not a valid ONNX"):
        load_onnx(tmp_path / "text.onnx")
    for nodes, shape, message in (
        ([node("Gemm", "x w b", "y")], (8, 4), r"output has the shape \(8, 2\) per image"),
        ([node("Gemm", "x w c", "y")], (1, 4), r"\(1, 1\) per image, not \[1, K\] with K >= 2"),
    ):
        numbers = {"w": WEIGHT, "b": BIAS} if shape[0] == 8 else {"w": WEIGHT[:, :1], "c": BIAS[:1]}
        onnx.save(make(nodes, numbers, shape), tmp_path / "m.onnx")
        with pytest.raises(InvalidInputError, match=message):
            load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("shape", "wanted", "images"),
    [((1, 16), None, (1, 4, 4)), (("n", 12), None, (3, 2, 2)), ((1, 5), None, (1, 1, 5)), ((1, 16, 1), None, (1, 4, 4)),
     ((1, 4, 2, 3), None, (3, 4, 2)), ((1, 4, 2, 5), None, (4, 2, 5)), ((1, 12), (1, 3, 4), (1, 3, 4)),
     ((1, 4, 2, 5), (5, 4, 2), (5, 4, 2))],
    ids=str,
)  # fmt: skip
def test_inputs_that_are_images_in_another_form(tmp_path, shape, wanted, images):
    """Flat inputs are images in C order; (H, W, C) is recognised by its channels, or asked for."""
    n = int(np.prod(images))
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w", "y")]
    weight = weights(n, 2)
    onnx.save(make(nodes, {"w": weight}, shape), tmp_path / "m.onnx")
    model = load_onnx(tmp_path / "m.onnx", wanted)
    assert model.input_shape == images
    x = torch.rand(3, *images)
    last = len(shape) == 4 and tuple(shape[1:]) != images
    flat = (x.permute(0, 2, 3, 1) if last else x).flatten(1)
    for got in (model(x), model.network(x)):
        torch.testing.assert_close(got, flat @ torch.from_numpy(weight), rtol=1e-5, atol=1e-5)


def test_images_of_another_size_are_refused(tmp_path):
    onnx.save(make([node("Gemm", "x w", "y")], {"w": weights(16, 2)}, (1, 16)), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match="16 numbers"):
        load_onnx(tmp_path / "m.onnx", (3, 4, 4))


def test_packed_files(tmp_path):
    model = make([node("Flatten", "x", "f"), node("Gemm", "f w b", "y")], {"w": WEIGHT, "b": BIAS})
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(model.SerializeToString()))
    assert load_onnx(tmp_path / "m.onnx.gz")(torch.zeros(1, 1, 2, 2)).tolist() == [BIAS.tolist()]
    (tmp_path / "m.onnx.gz").write_bytes(b"not packed")
    with pytest.raises(InvalidInputError, match="not a valid ONNX"):
        load_onnx(tmp_path / "m.onnx.gz")


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"0" * 200)
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(b"0" * 200))
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 100)
    for name in ("m.onnx", "m.onnx.gz"):
        with pytest.raises(InvalidInputError, match="larger than"):
            load_onnx(tmp_path / name)


def test_what_was_read_is_compared_with_the_files_own_output(tmp_path, monkeypatch):
    export_onnx(small_model(), tmp_path / "model.onnx")
    original = onnx_runtime.Runtime.run
    monkeypatch.setattr(onnx_runtime.Runtime, "run", lambda *a: original(*a) + 1e-3)
    with pytest.raises(InvalidInputError, match="differs from the ONNX"):
        load_onnx(tmp_path / "model.onnx")


def test_without_onnxruntime_onnxs_own_reference_judges(tmp_path, monkeypatch):
    export_onnx(small_model(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = load_onnx(tmp_path / "model.onnx")
    assert torch.equal(model(images()), model.network(images()))


def test_a_float64_model_stays_float64(tmp_path):
    model = small_model().double()
    export_onnx(model, tmp_path / "model.onnx")
    back = load_onnx(tmp_path / "model.onnx")  # onnxruntime has no float64 convolutions: the reference judges
    assert back.network.head.weight.dtype == torch.float64
    assert torch.equal(back.network.head.weight, trace(model, SHAPE).head.weight)


def test_a_file_is_not_overwritten_unasked(tmp_path):
    export_onnx(small_model(), tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(InvalidInputError, match=r"m.onnx' exists.*--force"):
        export_onnx(small_model(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == before
    export_onnx(small_model(), tmp_path / "m.onnx", overwrite=True)


def test_errors_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(UnsoundSettingError, match="train mode"):
        export_onnx(small_model().train(), tmp_path / "m.onnx")
    with pytest.raises(InvalidInputError, match="does not exist"):
        export_onnx(small_model(), tmp_path / "absent" / "m.onnx")
    with pytest.raises(InvalidInputError, match="input shape"):
        export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        export_onnx(small_model(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


# --- an outside verifier --------------------------------------------------------------------------------------------


def marabou_holds(path: Path, image: torch.Tensor, label: int, eps: float) -> tuple[bool, torch.Tensor | None]:
    """Whether Marabou proves the label on B(image, eps); else its counterexample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that tensorflow is not there
        marabou = pytest.importorskip("maraboupy.Marabou", reason="maraboupy has no wheel here", exc_type=ImportError)
    for other in range(3):
        if other == label:
            continue
        network = marabou.read_onnx(str(path))
        variables, logits = network.inputVars[0].flatten(), network.outputVars[0].flatten()
        for variable, pixel in zip(variables, image.flatten().tolist(), strict=True):
            network.setLowerBound(variable, max(0.0, pixel - eps))
            network.setUpperBound(variable, min(1.0, pixel + eps))
        network.addInequality([logits[label], logits[other]], [1.0, -1.0], 0.0)  # f_label <= f_other
        answer, values, _ = network.solve(verbose=False, options=marabou.createOptions(verbosity=0))
        assert answer in ("sat", "unsat")
        if answer == "sat":
            return False, torch.tensor([values[v] for v in variables]).view(image.shape)
    return True, None


def test_marabou_agrees_with_our_certificates(tmp_path):
    """A complete verifier: it must prove whatever we certify, and what it refutes we must not have certified."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)
    ).eval()
    batch = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # logits centred on the batch, so that labels can be changed
        model[-1].bias -= model(batch).mean(0)
    export_onnx(model, tmp_path / "model.onnx", (1, 4, 4))
    network = trace(model).detach()
    labels = network(batch).argmax(1)
    radii = certified_radius(network, batch, labels).radius
    rigorous, refuted = RigorousNetwork(network), 0
    for image, label, radius in zip(batch, labels.tolist(), radii.tolist(), strict=True):
        for eps in (radius, 0.05, 0.2, 0.8):
            holds, counterexample = marabou_holds(tmp_path / "model.onnx", image, label, eps)
            if rigorous.proves(image.unsqueeze(0), torch.tensor([label]), eps).item():
                assert holds
            if not holds:
                refuted += 1
                assert eps > radius
                assert (counterexample - image).abs().max() <= eps + 1e-6
                logits = network(counterexample.clamp(0, 1).float().unsqueeze(0))[0]
                others = torch.cat([logits[:label], logits[label + 1 :]])
                assert logits[label] <= others.max() + 1e-5
    assert refuted > 0
