"""`acert-zoo verify-property` on a network that computes y = (x_0, -x_0)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from acert_zoo.network.onnx.files import export_onnx
from tests.support.cli import refused, run

pytest.importorskip("onnx")


@pytest.fixture
def network(tmp_path: Path) -> str:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).eval()
    model[1].weight.data = torch.tensor([[1.0], [-1.0]])
    export_onnx(model, tmp_path / "net.onnx", (1, 1, 1))
    return str(tmp_path / "net.onnx")


def prop(tmp_path: Path, low: float, outputs: int = 2) -> str:
    """Violated where y_1 >= y_0 for an x_0 in [low, 1]: exactly if low <= 0."""
    lines = ["(declare-const X_0 Real)", *(f"(declare-const Y_{i} Real)" for i in range(outputs))]
    lines += [f"(assert (>= X_0 {low}))", "(assert (<= X_0 1.0))", "(assert (>= Y_1 Y_0))"]
    (tmp_path / "p.vnnlib").write_text("\n".join(lines))
    return str(tmp_path / "p.vnnlib")


def test_what_holds_is_unsat(tmp_path: Path, network: str) -> None:
    shown = run("verify-property", network, prop(tmp_path, 0.125), "--out", str(tmp_path / "result"))
    assert shown.exit_code == 0
    assert shown.stdout == "unsat\n" == (tmp_path / "result").read_text()


def test_what_does_not_hold_comes_with_a_counterexample(tmp_path: Path, network: str) -> None:
    shown = run("verify-property", network, prop(tmp_path, -0.5))
    assert shown.exit_code == 1
    assert shown.stdout.startswith("sat\n((X_0 -0.")
    x = float(shown.stdout.split()[2].rstrip(")"))
    assert -0.5 <= x <= 0
    assert f"(Y_0 {x}" in shown.stdout


def test_another_number_of_outputs_is_refused(tmp_path: Path, network: str) -> None:
    refused("outputs", "verify-property", network, prop(tmp_path, 0.0, outputs=3))
