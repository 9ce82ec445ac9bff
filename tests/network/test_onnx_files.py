"""ONNX out and in: parity with onnxruntime, files that other exporters write, refusals; and an outside verifier."""

from __future__ import annotations

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
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network import onnx_files
from acert_zoo.network.graph import Linear, Normalize
from acert_zoo.network.onnx_files import OPSET, export_onnx, load_onnx
from acert_zoo.network.tracing import trace
from tests.network import test_tracing as modules
from tests.support.models import small_model

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
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
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


def make(nodes: list, constants: dict[str, np.ndarray], shape=("batch", 1, 2, 2), outputs: int = 2):
    h, f = onnx.helper, onnx.TensorProto.FLOAT
    graph = h.make_graph(
        nodes,
        "test",
        [h.make_tensor_value_info("x", f, list(shape))],
        [h.make_tensor_value_info("y", f, [shape[0], outputs])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def node(operator: str, inputs: str, output: str, **attributes):
    return onnx.helper.make_node(operator, inputs.split(), [output], **attributes)


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


@pytest.mark.parametrize(
    ("automatic", "kernel"), [("SAME_UPPER", 3), ("SAME_LOWER", 3), ("SAME_UPPER", 2), ("SAME_LOWER", 2), ("VALID", 2)]
)
def test_automatic_padding(tmp_path, automatic, kernel):
    """torch's TorchScript exporter writes padding="same" so; an even kernel would pad the two sides unequally."""
    side = 1 if automatic == "VALID" else 2
    numbers = {"k": np.arange(kernel**2, dtype=np.float32).reshape(1, 1, kernel, kernel)}
    numbers |= {"w": np.ones((side * side, 2), dtype=np.float32), "b": BIAS}
    nodes = [node("Conv", "x k", "c", auto_pad=automatic), node("Flatten", "c", "f"), node("Gemm", "f w b", "y")]
    onnx.save(make(nodes, numbers), tmp_path / "m.onnx")
    if automatic != "VALID" and kernel == 2:
        with pytest.raises(UnsupportedLayerError, match="opposite sides"):
            load_onnx(tmp_path / "m.onnx")
    else:  # what is read is compared with onnxruntime
        assert load_onnx(tmp_path / "m.onnx").network.steps[0].padding == ((0, 0) if automatic == "VALID" else (1, 1))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Transpose", "x", "t", {}), ("Flatten", "t", "f", {}), ("Gemm", "f w b", "y", {})], "batch axis"),
        ([("Flatten", "x", "f", {}), ("Gemm", "f w b", "z", {}), ("Sigmoid", "z", "y", {})], "Sigmoid"),
        ([("Flatten", "x", "f", {}), ("Gemm", "f w b", "y", {"alpha": 2.0})], "alpha"),
        ([("MaxPool", "x", "p", {"kernel_shape": [1, 1], "pads": [0, 0, 0, 1]}), ("Flatten", "x", "f", {}),
          ("Gemm", "f w b", "y", {})], "opposite sides"),
    ],
    ids=["Transpose", "Sigmoid", "Gemm", "padding"],
)  # fmt: skip
def test_operators_that_no_bound_covers(tmp_path, nodes, message):
    built = [node(op, i, o, **a) for op, i, o, a in nodes]
    onnx.save(make(built, {"w": WEIGHT, "b": BIAS}), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedLayerError, match=message):
        load_onnx(tmp_path / "m.onnx")


def test_files_that_are_no_classifiers(tmp_path):
    with pytest.raises(InvalidInputError, match="not a file"):
        load_onnx(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InvalidInputError, match="not a valid ONNX"):
        load_onnx(tmp_path / "text.onnx")
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w b", "y")]
    for shape, message in ((("batch", 2, 2), "must be float32"), ((8, 1, 2, 2), "fixed batch of 8")):
        onnx.save(make(nodes, {"w": WEIGHT, "b": BIAS}, shape=shape), tmp_path / "m.onnx")
        with pytest.raises(InvalidInputError, match=message):
            load_onnx(tmp_path / "m.onnx")


def test_what_was_read_is_compared_with_the_files_own_output(tmp_path, monkeypatch):
    export_onnx(small_model(), tmp_path / "model.onnx")
    original = onnx_files._run
    monkeypatch.setattr(onnx_files, "_run", lambda *a: original(*a) + 1e-3)
    with pytest.raises(InvalidInputError, match="differs from the ONNX"):
        load_onnx(tmp_path / "model.onnx")


def test_without_onnxruntime_onnxs_own_reference_judges(tmp_path, monkeypatch):
    export_onnx(small_model(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    load_onnx(tmp_path / "model.onnx")


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
