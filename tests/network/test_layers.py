"""Every layer is either taught to an algorithm or refused by it, on purpose: the tables of CONTRIBUTING's page."""

from __future__ import annotations

import inspect

import pytest

from acert_zoo.bounds import auto_lirpa_module, box_changes, crown_rules, ibp, onnx_bounds, rigorous_rules
from acert_zoo.complete import linear_rules
from acert_zoo.network import layers
from acert_zoo.network.layers import Step
from acert_zoo.network.onnx import writer as onnx_writer
from acert_zoo.network.rule_table import RuleTable
from training.method import crown_ibp

TABLES = {
    "interval bounds": ibp.RULES,
    "real-sound": rigorous_rules.REAL_SOUND,
    "float32-deployed": rigorous_rules.FLOAT32_DEPLOYED,
    "changes of boxes": box_changes.RULES,
    "rigorous CROWN": crown_rules.RULES,
    "linear bounds of complete verification": linear_rules.RULES,
    "auto-LiRPA": auto_lirpa_module.LAYERS,
    "training's CROWN-IBP": crown_ibp.RULES,
    "ONNX": onnx_writer.WRITERS,
    "interval bounds as ONNX": onnx_bounds.INTERVALS,
}
LAYERS = {
    kind
    for _, kind in inspect.getmembers(layers, inspect.isclass)
    if issubclass(kind, Step) and "__call__" in vars(kind) and kind not in (Step, layers.Affine)
} | {layers.Linear, layers.Conv}


@pytest.mark.parametrize("algorithm", TABLES)
def test_every_layer_is_taught_or_refused(algorithm: str) -> None:
    table: RuleTable = TABLES[algorithm]
    assert set(table.rules) | set(table.refused) == LAYERS
    assert all(reason for reason in table.refused.values())


def test_these_are_the_layers() -> None:
    """So that a layer cannot hide from the test above."""
    named = {"Normalize", "ReLU", "Flatten", "Reshape", "Permute", "Concat", "MaxPool", "AvgPool", "Add", "BatchNorm"}
    assert named | {"Linear", "Conv"} <= {kind.__name__ for kind in LAYERS}
    assert not {"Step", "Monotone", "Selection", "Affine"} & {kind.__name__ for kind in LAYERS}
