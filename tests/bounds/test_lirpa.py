"""auto-LiRPA on this torch: the gaps that are filled, its bounds, and radii that hold what they claim."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import logging
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo import architectures, attack
from acert_zoo.bounds import _lirpa_compat, lirpa
from acert_zoo.bounds._lirpa_cost import crown_cost
from acert_zoo.bounds.crown_rigorous import rigorous_check
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.lirpa import METHODS, LirpaBounds, certified_radius_lirpa
from acert_zoo.certificate_file import read_file
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnknownNameError
from acert_zoo.network import Network, trace
from acert_zoo.radius import certified_radius
from acert_zoo.verification import verify_file
from tests.support_models import small_model

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = architectures.build(
            "cnn", input_shape=SHAPE, num_classes=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
            convs=[(4, 2), (6, 1)], hidden=8,
        )  # fmt: skip
    return trace(model.eval()).detach()


@pytest.fixture(scope="module")
def batch(network: Network) -> tuple[Tensor, Tensor]:
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    return images, network(images).argmax(1)


# --- what is filled in for auto-LiRPA 0.3 ---------------------------------------------------------------------------


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_import_is_quiet_and_leaves_logging_and_warnings_alone():
    code = (
        "import logging, sys, warnings, torch.onnx; before = list(warnings.filters); limit = sys.getrecursionlimit();"
        "from acert_zoo.bounds import _lirpa_compat; _lirpa_compat.load();"
        "assert logging.getLogger().handlers == [];"
        "assert warnings.filters == before;"
        "assert sys.getrecursionlimit() == limit;"
        "print(_lirpa_compat.fill_gaps())"
    )
    assert run_python(code) == "[]"  # the second call finds nothing missing


def test_only_what_is_missing_is_filled(monkeypatch: pytest.MonkeyPatch):
    _lirpa_compat.load()
    helper = torch.onnx.symbolic_helper
    kept = helper._set_opset_version
    monkeypatch.delattr(helper, "_set_opset_version")
    assert _lirpa_compat.fill_gaps() == ["torch.onnx.symbolic_helper._set_opset_version"]
    assert helper._set_opset_version is not kept or kept is _lirpa_compat._set_opset_version
    helper._set_opset_version(17)
    try:
        from torch.onnx._internal.torchscript_exporter import _globals
    except ImportError:  # until torch 2.8
        from torch.onnx import _globals

    assert _globals.GLOBALS.export_onnx_opset_version == 17


def test_parameters_accepts_the_newer_argument_and_keeps_a_module_that_has_it():
    library = _lirpa_compat.load()
    assert not _lirpa_compat._accept_remove_duplicate(library.BoundedModule)
    assert not _lirpa_compat._accept_remove_duplicate(nn.Module)


def test_slopes_have_a_gradient_at_both_ends():
    _lirpa_compat.load()
    from auto_LiRPA.bound_ops import BoundRelu

    slopes = torch.tensor([0.0, 0.5, 1.0, 0.5, 0.5], requires_grad=True)
    lower, upper = torch.tensor([-1.0, -1, -1, 0.5, -2]), torch.tensor([1.0, 1, 1, 2, -1])
    masked, none, dead = BoundRelu._relu_mask_alpha(lower, upper, slopes, None)
    assert masked.tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    masked.sum().backward()
    assert slopes.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert none is None
    assert not dead
    assert not _lirpa_compat._let_slopes_move()  # a second time there is nothing to mend


def test_a_newer_release_is_told_by_its_features(monkeypatch: pytest.MonkeyPatch):
    """0.4 to 0.7, as published on GitHub: another name for the inner boxes, a ReLU of another form."""

    class Newer:
        def compute_bounds(self, x=None, C=None, interm_bounds=None, reference_bounds=None):
            """As in 0.4 and later."""

    assert _lirpa_compat.inner_boxes_argument(Newer) == "interm_bounds"
    assert _lirpa_compat.inner_boxes_argument(_lirpa_compat.load().BoundedModule) == "intermediate_layer_bounds"

    class BoundRelu:
        def _relu_mask_alpha(self, lower, upper, alpha):
            raise AssertionError("nothing may rely on its form")

    operators = importlib.import_module("auto_LiRPA.bound_ops")
    monkeypatch.setattr(operators, "BoundRelu", BoundRelu)
    assert not _lirpa_compat._let_slopes_move()
    monkeypatch.setattr(operators, "BoundRelu", type("BoundRelu", (), {}))
    assert not _lirpa_compat._let_slopes_move()


def test_without_auto_lirpa_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_lirpa_compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps auto-LiRPA==0\.3"):
        _lirpa_compat.load()


def test_nothing_is_printed(network: Network, batch: tuple[Tensor, Tensor], capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LirpaBounds(network, SHAPE).margins(*batch, 0.01, "alpha-crown")
    assert logging.getLogger("auto_LiRPA.utils").handlers == []
    assert capfd.readouterr().out == ""


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_interval_bounds_are_ours(network: Network, batch: tuple[Tensor, Tensor]):
    theirs = LirpaBounds(network, SHAPE, torch.float64).margins(*batch, 0.02, "ibp")
    ours = robust_margin(network.to(torch.float64), batch[0].double(), batch[1], 0.02)
    assert torch.allclose(theirs, ours, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tighter_methods_are_tighter_and_true(network: Network, batch: tuple[Tensor, Tensor], dtype: torch.dtype):
    images, labels = batch
    bounds = LirpaBounds(network, SHAPE, dtype)
    eps = torch.tensor([0.01, 0.02, 0.03])
    ladder = [bounds.margins(images, labels, eps, m) for m in ("ibp", *METHODS)]
    assert bool((ladder[0] < ladder[1]).any())
    assert bool((ladder[2] < ladder[3]).any())  # optimised slopes do move
    for looser, tighter in itertools.pairwise(ladder):
        assert bool((looser <= tighter + 1e-5).all())
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        moved = images + eps.view(-1, 1, 1, 1) * (2 * torch.rand(images.shape, generator=generator) - 1).sign()
        logits = network(moved.clamp(0, 1))
        others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
        margins = logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others
        assert bool((ladder[3] <= margins.double() + 1e-5).all())


def test_one_call_leaves_nothing_behind_for_the_next(network: Network, batch: tuple[Tensor, Tensor]):
    """From few open neurons to nearly all of them and back: auto-LiRPA keeps slopes and their places."""
    bounds, fresh = LirpaBounds(network, SHAPE), LirpaBounds(network, SHAPE)
    first = fresh.margins(*batch, 0.03, "alpha-crown")
    for eps in (0.001, 0.3, 0.03):
        last = bounds.margins(*batch, eps, "alpha-crown")
    assert torch.allclose(last, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_our_rigorous_bounds_are_auto_lirpas_to_rounding(network: Network, batch: tuple[Tensor, Tensor], method: str):
    theirs = LirpaBounds(network, SHAPE, torch.float64).margins(*batch, 0.02, method)
    ours = rigorous_check(network, method).margins(*batch, 0.02)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


class Everything(nn.Module):
    """A layer of each kind that a network can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(8, 4, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm(self.first(x)))
        b = torch.cat([a, a * 0.5 - 0.1], dim=1)
        c = torch.relu(self.second(b) + a)
        d = nn.functional.max_pool2d(nn.functional.avg_pool2d(c, 2), 2)
        return self.head(d.permute(0, 2, 3, 1).reshape(x.shape[0], -1))


def test_every_kind_of_step_has_a_layer_for_auto_lirpa():
    torch.manual_seed(0)
    network = trace(Everything().eval(), SHAPE).detach()
    images = torch.rand(2, *SHAPE)
    labels = network(images).argmax(1)
    bounds = LirpaBounds(network, SHAPE, torch.float64)
    assert torch.allclose(bounds.module(images.double()), network.to(torch.float64)(images.double()), atol=1e-9)
    ours = robust_margin(network.to(torch.float64), images.double(), labels, 0.01)
    assert bool((bounds.margins(images, labels, 0.01, "crown-ibp") >= ours - 1e-6).all())


# --- radii ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def floor(network: Network, batch: tuple[Tensor, Tensor]) -> Tensor:
    return certified_radius(network, *batch).radius


def test_the_best_radii_are_at_least_ibps_and_rigorously_proved(network: Network, batch: tuple[Tensor, Tensor], floor):
    result = certified_radius_lirpa(network, *batch, method="best", floor=floor)
    assert bool((result.radius >= floor).all())
    assert bool((result.radius > 1.02 * floor).any())
    for i, (method, rounding) in enumerate(zip(result.method, result.rounding, strict=True)):
        if method == "ibp":
            assert (rounding, float(result.radius[i])) == ("", float(floor[i]))
            continue
        assert method in METHODS
        assert rounding == "real-sound"
        check = rigorous_check(network, method)
        assert check.proves(batch[0][i : i + 1], batch[1][i : i + 1], result.radius[i]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_the_rigorous_check_radii_are_labelled_by_their_arithmetic(network, batch, dtype):
    images, labels = batch[0][:1], batch[1][:1]
    result = certified_radius_lirpa(network, images, labels, method="crown-ibp", dtype=dtype, rigorous=False)
    assert result.rounding == [str(dtype).removeprefix("torch.")]
    value = LirpaBounds(network, SHAPE, dtype).margins(images, labels, result.radius, "crown-ibp")
    assert value.item() > 0  # the very eps that is returned was proved
    assert value.item() == pytest.approx(result.margin.item(), rel=1e-4)


def test_a_radius_that_the_rigorous_check_never_confirms_keeps_its_label(network, batch, monkeypatch):
    monkeypatch.setattr(lirpa.RigorousCrown, "margins", lambda self, x, y, e, deadline: torch.tensor([-1.0]))
    result = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown-ibp")
    assert result.rounding == ["float32"]
    assert result.radius.item() > 0


def test_only_evaluated_points_are_returned_where_the_bound_is_not_monotone():
    """Proved on [0, 0.1] and [0.3, 0.4] only: whatever the search makes of it, its radius lies in one of them."""
    seen: dict[float, float] = {}

    def evaluate(eps: float) -> float:
        seen[eps] = 1.0 if eps <= 0.1 or 0.3 <= eps <= 0.4 else -1.0
        return seen[eps]

    for start in (0.0, 0.02, 0.09, 0.29):
        seen.clear()
        lirpa.climb(evaluate, start)
        proved = [e for e, v in seen.items() if v > 0]
        assert all(e <= 0.1 or 0.3 <= e <= 0.4 for e in proved)
        assert len(seen) < 60


def test_the_search_finds_a_root_to_its_tolerance_and_stops_at_one():
    for root in (1e-5, 0.013, 0.4):
        proved = []
        lirpa.climb(lambda e, r=root, p=proved: (p.append(e) if e < r else None) or r - e, 0.0)
        assert root * (1 - 2 * lirpa.RTOL) < max(proved) < root
    visited: list[float] = []
    lirpa.climb(lambda e: visited.append(e) or 1.0, 0.3)
    assert max(visited) == 1.0


def test_limits_leave_the_best_radius_so_far(network: Network, batch: tuple[Tensor, Tensor], floor: Tensor):
    little = certified_radius_lirpa(network, *batch, method="crown", floor=floor, memory=10.0)
    assert torch.equal(little.radius, floor)
    assert little.evaluations == 0
    assert all("MiB" in note for note in little.note)
    short = certified_radius_lirpa(network, *batch, method="best", floor=floor, budget=1e-9)
    assert torch.equal(short.radius, floor)
    assert short.method == ["ibp"] * 3
    assert all("time budget" in note for note in short.note)


def test_the_rigorous_check_keeps_to_the_budget(network: Network, batch: tuple[Tensor, Tensor], monkeypatch):
    """A check that time runs out in leaves the radius with auto-LiRPA's label; the next image reckons with its cost."""
    for method in ("crown", "alpha-crown"):
        with pytest.raises(TimeoutError):
            rigorous_check(network, method).margins(batch[0][:1], batch[1][:1], 0.05, deadline=0.0)
    monkeypatch.setattr(lirpa.RigorousCrown, "_tighten", lambda *_, deadline: (_ for _ in ()).throw(TimeoutError))
    result = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown")
    assert result.radius.item() > 0
    assert (result.rounding, result.proofs) == (["float32"], 0)
    assert "no time was left for the rigorous check of crown" in result.note[0]
    speed = lirpa._Speed()
    speed.learn("proof by crown", 1.0, 1e6)
    monkeypatch.setattr(lirpa, "_Speed", lambda: speed)
    none = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown")
    assert (none.evaluations, none.radius.item()) == (0, 0.0)
    assert "time budget" in none.note[0]


def test_a_failure_inside_auto_lirpa_leaves_the_best_radius_so_far(network, batch, floor, monkeypatch):
    def margins(self, images, labels, eps, method):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(LirpaBounds, "margins", margins)
    result = certified_radius_lirpa(network, *batch, method="crown", floor=floor)
    assert torch.equal(result.radius, floor)
    assert all("auto-LiRPA failed in crown" in note and "shape mismatch" in note for note in result.note)


def test_the_cost_grows_with_the_radius_and_the_method(network: Network, batch: tuple[Tensor, Tensor]):
    costs = [crown_cost(network, batch[0], e, m) for m in METHODS for e in (0.01, 0.1)]
    work = [c.multiplications for c in costs]
    assert work[0] == work[1]  # crown-ibp: one pass, whatever is open
    assert work[1] < work[2] < work[3] < work[5]
    assert all(c.bytes > 0 for c in costs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "crwon"}, UnknownNameError, "did you mean crown"),
        ({"budget": 0.0}, InvalidInputError, "positive"),
        ({"memory": float("nan")}, InvalidInputError, "positive"),
        ({"dtype": torch.float16}, InvalidInputError, "float16"),
    ],
)
def test_bad_arguments(network, batch, arguments, error, message):
    with pytest.raises(error, match=message):
        certified_radius_lirpa(network, *batch, **arguments)


def test_certify_records_method_and_rounding(batch: tuple[Tensor, Tensor]):
    torch.manual_seed(2)
    model = architectures.build(
        "cnn", input_shape=SHAPE, num_classes=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), convs=[(4, 2)], hidden=8
    ).eval()
    labels = model(batch[0]).argmax(1)
    interval = acert_zoo.certify(model, batch[0], labels)
    tight = acert_zoo.certify(model, batch[0], labels, method="crown-ibp")
    assert bool((tight.radius >= interval.radius).all())
    assert set(tight.method) <= {"ibp", "crown-ibp"}
    assert set(tight.roundings) == {"real-sound"}
    assert tight.rounding == "real-sound"


@pytest.mark.parametrize(("method", "size", "second_stride"), [("crown", 12, True), ("crown-ibp", 32, False)])
def test_crown_on_cnn7(method: str, size: int, second_stride: bool):
    """The paper's architecture, two channels wide instead of 64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures.build(
            "cnn7", input_shape=(3, size, size), num_classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), width=2,
            hidden=16, second_stride=second_stride,
        ).eval()  # fmt: skip
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    interval, tight = acert_zoo.certify(model, images), acert_zoo.certify(model, images, method=method)
    assert bool((tight.radius > 1.2 * interval.radius).all())
    assert (set(tight.method), set(tight.roundings)) == ({method}, {"real-sound"})
    found = attack(model, images, tight.label, 0.999 * tight.radius, steps=10, restarts=2)
    assert not found.success.any()


def test_verify_proves_crown_radii_again_and_refuses_larger_ones(tmp_path):
    model = small_model()
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(5))
    found = acert_zoo.certify(model, images, method="crown-ibp", out=tmp_path / "c.jsonl")
    assert "crown-ibp" in found.method
    assert (found.rounding, read_file(tmp_path / "c.jsonl").header.rounding) == ("real-sound", "real-sound")
    report = verify_file(tmp_path / "c.jsonl", model=model, images=images)
    assert report.ok
    raised = dataclasses.replace(found, radius=found.radius * 1.01)
    raised.save(tmp_path / "raised.jsonl")
    report = verify_file(tmp_path / "raised.jsonl", model=model, images=images)
    assert report.counts["failed"] > 0


@pytest.mark.parametrize("name", ["cifar10_kappa025", "mnist_kappa000"])
def test_crown_methods_on_an_image_of_a_bundled_model(name: str):
    model = acert_zoo.load_model(name)
    images, labels = acert_zoo.sample_data(name.split("_")[0], n=2)
    interval = acert_zoo.certify(model, images, labels)
    assert bool((interval.radius > 0).any())
    for method in ("crown-ibp", "crown"):
        assert bool((acert_zoo.certify(model, images, labels, method=method).radius >= interval.radius).all())
