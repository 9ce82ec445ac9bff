"""Every safeguard of the rounding-sound rules is needed: without it, a check that passes now fails.

Each test runs the check as it is (0 violations), removes one safeguard, and sees the violations appear.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from acert_zoo.bounds import float32_deployed as deployed
from acert_zoo.bounds import margin_rows
from acert_zoo.bounds import real_sound as rules
from acert_zoo.bounds import rigorous_ibp as rigorous
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from tests.support import cases as cases
from tests.support import deployed as programs

LABEL = torch.zeros(1, dtype=torch.int64)


def without(monkeypatch: pytest.MonkeyPatch, **changes: float) -> None:
    """Replaces constants of the affine rule at real-sound."""
    original = rules.real_sound_terms
    monkeypatch.setattr(rules, "real_sound_terms", lambda n, c: dataclasses.replace(original(n, c), **changes))


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"mid": 0.0}, "rounding_of_the_centre"),
        ({"bias": 0.0}, "rounding_of_the_bias"),
        ({"rad": 0.0, "dev": 0.0}, "rounding_of_the_radius"),
        ({"tiny": 0.0}, "underflow"),
        ({"tiny": 2.0**-1074}, "underflow"),
        ({"tiny": 1e-300}, "underflow"),
    ],
)
def test_a_constant_of_the_affine_rule(monkeypatch, changes, family):
    planted = list(cases.FAMILIES[family]())
    assert cases.affine_violations(planted) == 0
    without(monkeypatch, **changes)
    assert cases.affine_violations(planted) > 0


@pytest.mark.parametrize("kept", ["rad", "dev"])
def test_either_of_k_r_and_k_d_alone_would_do(monkeypatch, kept):
    """Stated in the derivation; so removing one of them is no mutation that a test could catch."""
    without(monkeypatch, **{({"rad", "dev"} - {kept}).pop(): 0.0})
    assert cases.affine_violations(cases.rounding_of_the_radius()) == 0


def test_the_overflow_guard_of_a_layer(monkeypatch):
    assert cases.affine_violations(cases.overflow()) == 0
    monkeypatch.setattr(rules, "guard_overflow", lambda x: x)
    assert cases.affine_violations(cases.overflow()) > 0


def test_the_refusal_of_infinite_margins(monkeypatch):
    net, x = RigorousNetwork(cases.overflowing_network()), torch.ones(1, 1, 1, 1)
    assert not net.proves(x, LABEL, 0.0).any()
    monkeypatch.setattr(margin_rows, "nothing_where_not_finite", lambda lower: lower)
    assert not net.proves(x, LABEL, 0.0).any()
    monkeypatch.setattr(rigorous, "refuse_unproved", lambda margin, alive: margin)
    assert net.margins(x, LABEL, 0.0).item() == math.inf  # "proves" a true margin of 0


def test_the_refusal_of_an_overflow_in_one_class(monkeypatch):
    x = torch.ones(1, 1, 1, 1)
    net = RigorousNetwork(cases.overflow_in_one_class())
    assert net.margins(x, LABEL, 0.0).item() == -math.inf
    assert not RigorousNetwork(cases.overflow_in_one_class(), "float32-deployed").proves(x, LABEL, 0.0).any()
    monkeypatch.setattr(margin_rows, "nothing_where_not_finite", lambda lower: lower)
    assert net.proves(x, LABEL, 0.0).all()  # though class 1 wins


@pytest.mark.parametrize("check", [cases.box_violations, cases.normalize_violations, cases.add_violations])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_nextafter(monkeypatch, check: Callable[[], int], direction):
    assert check() == 0
    monkeypatch.setattr(rules, direction, lambda x: x)
    assert check() > 0


# --- float32-deployed -----------------------------------------------------------------------------------------------


def test_the_error_of_both_logits(monkeypatch):
    """Rows an ulp apart: an error relative to |W_y - W_t| rather than |W_y| + |W_t| certifies wrongly."""
    planted = programs.nearly_equal_rows()
    assert programs.wrongly_certified(planted) == 0
    # Relative to |W_y - W_t| the error would be below 1e-5 of the margin: here, nothing.
    monkeypatch.setattr(deployed, "logit_error", lambda h, label, n: torch.zeros_like(h))
    assert programs.wrongly_certified(planted) > 0


def test_the_float32_overflow_guard(monkeypatch):
    planted = programs.float32_overflow()
    assert programs.wrongly_certified(planted) == 0
    monkeypatch.setattr(deployed, "fits", lambda x, *_: torch.ones(len(x.lower), dtype=torch.bool))
    assert programs.wrongly_certified(planted) > 0


@pytest.mark.parametrize("family", [programs.large_bias, programs.cancelling_weights])
def test_the_rounding_of_hidden_layers(monkeypatch, family):
    assert programs.wrongly_certified(family()) == 0
    monkeypatch.setattr(deployed, "deployed_terms", lambda n, depth, c, **_: rules.real_sound_terms(depth, c))
    assert programs.wrongly_certified(family()) > 0


def test_the_rounding_of_normalize(monkeypatch):
    assert programs.normalize_violations() == 0
    monkeypatch.setattr(deployed, "widen", lambda x, relative, absolute: x)
    assert programs.normalize_violations() > 0
