"""auto-LiRPA on a current torch: what is filled, and that nothing else is touched."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from acert_zoo.bounds import auto_lirpa_compat
from acert_zoo.errors import MissingDependencyError


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
