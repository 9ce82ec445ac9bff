"""Tables {type of step -> rule}: exact types, refusals with their reason."""

from __future__ import annotations

import pytest

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.layers import Add, Flatten, MaxPool, ReLU
from acert_zoo.network.rule_table import RuleTable

TABLE = RuleTable("test", {ReLU: "relu", Flatten: "flatten"}, {Add: "for no reason"})
POOL = MaxPool(inputs=(0,), kernel_size=(2, 2), stride=(2, 2), name="pool")


def test_a_rule_is_found_by_the_type_of_the_step() -> None:
    assert TABLE[ReLU(inputs=(0,))] == "relu"
    assert Flatten(inputs=(3,)) in TABLE
    assert Add(inputs=(0, 1)) not in TABLE


def test_a_refusal_names_the_step_and_the_reason() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"no test rule for a Add step: for no reason"):
        TABLE[Add(inputs=(0, 1))]
    with pytest.raises(UnsupportedLayerError, match=r"no test rule for step 'pool' \(MaxPool\)$"):
        TABLE[POOL]


def test_a_subclass_may_compute_something_else() -> None:
    class Leaky(ReLU):
        pass

    assert Leaky(inputs=(0,)) not in TABLE


def test_a_table_with_changes() -> None:
    other = TABLE.but("other", {Add: "add"}, {Flatten: "flat enough"})
    assert other.rules == {ReLU: "relu", Add: "add"}
    assert other.refused == {Flatten: "flat enough"}
    assert TABLE.refused == {Add: "for no reason"}  # unchanged


def test_no_type_is_both_covered_and_refused() -> None:
    with pytest.raises(ValueError, match="both covered and refused: ReLU"):
        RuleTable("test", {ReLU: 1}, {ReLU: "why"})
