"""auto-LiRPA on this torch: the gaps that are filled, its bounds, and radii that hold what they claim."""

from __future__ import annotations

import importlib
import itertools
import logging
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.bounds.auto_lirpa import LirpaBounds
from acert_zoo.bounds.auto_lirpa_module import dense_kernel
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_crown import rigorous_check
from acert_zoo.errors import MissingDependencyError, UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import AvgPool, Conv, Flatten, Linear, ReLU
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import CROWN_METHODS
from tests.support.models import SHAPE

# --- what is filled in for auto-LiRPA 0.3 ---------------------------------------------------------------------------


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_import_is_quiet_and_leaves_logging_and_warnings_alone():
    code = (
        "import logging, sys, warnings, torch.onnx; before = list(warnings.filters); limit = sys.getrecursionlimit();"
        "from acert_zoo.bounds import auto_lirpa_compat; auto_lirpa_compat.load();"
        "assert logging.getLogger().handlers == [];"
        "assert warnings.filters == before;"
        "assert sys.getrecursionlimit() == limit;"
        "print(auto_lirpa_compat.fill_gaps())"
    )
    assert run_python(code) == "[]"  # the second call finds nothing missing


def test_only_what_is_missing_is_filled(monkeypatch: pytest.MonkeyPatch):
    auto_lirpa_compat.load()
    helper = torch.onnx.symbolic_helper
    kept = helper._set_opset_version
    monkeypatch.delattr(helper, "_set_opset_version")
    assert auto_lirpa_compat.fill_gaps() == ["torch.onnx.symbolic_helper._set_opset_version"]
    assert helper._set_opset_version is not kept or kept is auto_lirpa_compat._set_opset_version
    helper._set_opset_version(17)
    try:
        from torch.onnx._internal.torchscript_exporter import _globals
    except ImportError:  # until torch 2.8
        from torch.onnx import _globals

    assert _globals.GLOBALS.export_onnx_opset_version == 17


def test_parameters_accepts_the_newer_argument_and_keeps_a_module_that_has_it():
    library = auto_lirpa_compat.load()
    assert not auto_lirpa_compat._accept_remove_duplicate(library.BoundedModule)
    assert not auto_lirpa_compat._accept_remove_duplicate(nn.Module)


def test_slopes_have_a_gradient_at_both_ends():
    auto_lirpa_compat.load()
    from auto_LiRPA.bound_ops import BoundRelu

    slopes = torch.tensor([0.0, 0.5, 1.0, 0.5, 0.5], requires_grad=True)
    lower, upper = torch.tensor([-1.0, -1, -1, 0.5, -2]), torch.tensor([1.0, 1, 1, 2, -1])
    masked, none, dead = BoundRelu._relu_mask_alpha(lower, upper, slopes, None)
    assert masked.tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    masked.sum().backward()
    assert slopes.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert none is None
    assert not dead
    assert not auto_lirpa_compat._let_slopes_move()  # a second time there is nothing to mend


def test_a_newer_release_is_told_by_its_features(monkeypatch: pytest.MonkeyPatch):
    """0.4 to 0.7, as published on GitHub: another name for the inner boxes, a ReLU of another form."""

    class Newer:
        def compute_bounds(self, x=None, C=None, interm_bounds=None, reference_bounds=None):
            """As in 0.4 and later."""

    assert auto_lirpa_compat.inner_boxes_argument(Newer) == "interm_bounds"
    assert auto_lirpa_compat.inner_boxes_argument(auto_lirpa_compat.load().BoundedModule) == "intermediate_layer_bounds"

    class BoundRelu:
        def _relu_mask_alpha(self, lower, upper, alpha):
            raise AssertionError("nothing may rely on its form")

    operators = importlib.import_module("auto_LiRPA.bound_ops")
    monkeypatch.setattr(operators, "BoundRelu", BoundRelu)
    assert not auto_lirpa_compat._let_slopes_move()
    monkeypatch.setattr(operators, "BoundRelu", type("BoundRelu", (), {}))
    assert not auto_lirpa_compat._let_slopes_move()


def test_without_auto_lirpa_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto_lirpa_compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps auto-LiRPA==0\.3"):
        auto_lirpa_compat.load()


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
    ladder = [bounds.margins(images, labels, eps, m) for m in ("ibp", *CROWN_METHODS)]
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


def odd_network() -> Network:
    """What auto-LiRPA 0.3 bounds wrongly: groups, dilation, average pooling with padding and overlapping windows."""
    torch.manual_seed(0)
    kernel = torch.randn(4, 1, 3, 3)
    steps = (
        AvgPool(inputs=(0,), kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)),
        Conv(inputs=(1,), weight=kernel, bias=torch.rand(4), groups=2, dilation=(2, 1), padding=(1, 0)),
        ReLU(inputs=(2,)),
        AvgPool(inputs=(3,), kernel_size=(2, 2), stride=(2, 2)),
        Flatten(inputs=(4,)),
        Linear(inputs=(5,), weight=torch.randn(3, 36), bias=torch.zeros(3)),
    )
    return Network(steps)


def margins_of(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others


def test_grouped_dilated_and_averaging_layers_are_bounded_as_what_they_do():
    """No better than the worst corner, no worse than ours, and at a radius of nothing the margin itself."""
    network = odd_network()
    images = torch.rand(2, 2, 8, 8)
    labels = network(images).argmax(1)
    bounds = LirpaBounds(network, (2, 8, 8), torch.float64)
    corners = images + 0.05 * (2 * torch.rand(300, *images.shape) - 1).sign()
    worst = torch.stack([margins_of(network, c.clamp(0, 1), labels) for c in corners]).amin(0)
    for method in ("crown-ibp", "crown"):
        nothing = bounds.margins(images, labels, 1e-6, method).float()
        assert torch.allclose(nothing, margins_of(network, images, labels), atol=1e-3)
        theirs = bounds.margins(images, labels, 0.05, method)
        assert bool((theirs >= rigorous_check(network, method).margins(images, labels, 0.05) - 1e-6).all())
        assert bool((theirs <= worst).all())


def test_dense_kernels_are_the_same_convolution():
    conv = odd_network().steps[1]
    weight = dense_kernel(conv.weight, conv.groups, conv.dilation)
    assert weight.shape == (4, 2, 5, 3)
    x = torch.rand(2, 2, 8, 8)
    assert torch.allclose(nn.functional.conv2d(x, weight, conv.bias, padding=(1, 0)), conv(x), atol=1e-5)
    with pytest.raises(UnsupportedLayerError, match="5000 groups"):
        dense_kernel(torch.zeros(5000, 1, 1, 1), 5000)


def test_no_bound_is_above_what_the_network_does(monkeypatch: pytest.MonkeyPatch):
    """One pixel, logits (x, 1 - x), 0.75 within 0.3: the margin falls to 2 * 0.45 - 1 = -0.1, whatever is claimed."""
    head = Linear(inputs=(1,), weight=torch.tensor([[1.0], [-1.0]]), bias=torch.tensor([0.0, 1.0]))
    network = Network((Flatten(inputs=(0,)), head))
    bounds, image = LirpaBounds(network, (1, 1, 1), torch.float64), torch.full((1, 1, 1, 1), 0.75)
    label = torch.zeros(1, dtype=torch.int64)
    assert bounds.margins(image, label, 0.3, "crown").item() == pytest.approx(-0.1)
    bounds.margins(image, label, 0.3, "crown")
    claim = torch.full((1, 1), 7.0, dtype=torch.float64)
    monkeypatch.setattr(bounds._module(optimized=False), "compute_bounds", lambda **arguments: (claim, None))
    assert bounds.margins(image, label, 0.3, "crown").item() == pytest.approx(-0.1)


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
