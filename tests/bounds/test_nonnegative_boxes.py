"""The convolution rule for boxes with lo >= 0 against exact rational arithmetic, and against the general rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from acert_zoo.bounds import nonnegative_boxes as nonnegative
from acert_zoo.bounds import real_sound as rules
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.layers import Conv
from tests.support import cases as cases
from tests.support import rational as exact

ALIVE = torch.ones(3, dtype=torch.bool)


def conv(rng: np.random.Generator, channels: int = 32, kernel: int = 3, **options) -> Conv:
    weight = torch.from_numpy(rng.normal(size=(2, channels, kernel, kernel))).float()
    return Conv(inputs=(0,), weight=weight, bias=torch.from_numpy(rng.normal(size=2)).float(), **options)


def boxes(rng: np.random.Generator, channels: int, size: tuple[int, int], radius: float) -> Interval:
    """What a ReLU makes of boxes of this radius: many zeros, one end of some of them."""
    center = torch.from_numpy(rng.normal(size=(3, channels, *size)))
    return Interval((center - radius).relu(), (center + radius).relu())


def violations(step: Conv, prepared: rules.AffineMap, box: Interval) -> int:
    out = rules.RealSound().affine(prepared, box, ALIVE, nonnegative=True)
    return sum(
        not exact.image_of(step, exact.box_of(box, i)).contained(out.lower[i], out.upper[i])
        for i in range(len(box.lower))
    )


@pytest.mark.parametrize("radius", [0.0, 1e-12, 0.3])
@pytest.mark.parametrize(
    ("channels", "kernel", "options"),
    [
        (32, 3, {"padding": (1, 1)}),
        (33, 3, {"padding": (1, 1), "stride": (2, 2)}),
        (32, 3, {}),
        (18, 4, {"padding": (0, 2), "stride": (1, 3)}),
        (32, 3, {"padding": (2, 1), "dilation": (2, 1), "stride": (2, 1)}),
        (200, 2, {"padding": (1, 0), "stride": (3, 2)}),
    ],
)
def test_it_encloses_the_exact_image(channels, kernel, options, radius):
    rng = np.random.default_rng(channels + kernel)
    step = conv(rng, channels, kernel, **options)
    prepared = rules.RealSound().prepare(cases.in_float64(step))
    assert prepared.nonnegative is not None
    box = boxes(rng, channels, (5, 6), radius)
    assert violations(step, prepared, box) == 0
    ours = rules.RealSound().affine(prepared, box, ALIVE, nonnegative=True)
    general = rules.RealSound().affine(prepared, box, ALIVE)
    assert ours.lower.shape == general.lower.shape
    for a, b in zip(ours, general, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("changes", "bias", "weight"),
    [({"mid": 0.0, "rad": 0.0, "dev": 0.0}, 0.0, 1.0), ({"bias": 0.0}, 2.0**40, 2.0**-30), ({"tiny": 0.0}, 0.0, 0.0)],
)
def test_each_constant_is_needed(monkeypatch, changes, bias, weight):
    rng = np.random.default_rng(0)
    step = conv(rng)
    step.bias.fill_(bias)
    step.weight.mul_(weight) if weight else step.weight.fill_(2.0**-149)
    box = boxes(rng, 32, (3, 3), 0.0)
    if not weight:  # products near 2^-1074 are rounded, or vanish
        box = Interval(box.lower * 2.0**-925, box.upper * 2.0**-925)
    assert violations(step, rules.RealSound().prepare(cases.in_float64(step)), box) == 0
    original = rules.real_sound_terms
    monkeypatch.setattr(rules, "real_sound_terms", lambda n, c: dataclasses.replace(original(n, c), **changes))
    monkeypatch.setattr(nonnegative, "U64", 0.0)
    assert violations(step, rules.RealSound().prepare(cases.in_float64(step)), box) > 0


def test_overflow_proves_nothing():
    step = conv(np.random.default_rng(0))
    step.weight.fill_(3e38)
    prepared = rules.RealSound().prepare(cases.in_float64(step))
    box = Interval(torch.zeros(3, 32, 3, 3).double(), torch.full((3, 32, 3, 3), 1e300, dtype=torch.float64))
    out = rules.RealSound().affine(prepared, box, ALIVE, nonnegative=True)
    assert (out.lower == -torch.inf).all()
    assert (out.upper == torch.inf).all()


def test_larger_constants_give_nested_bounds():
    rng = np.random.default_rng(0)
    step = conv(rng, padding=(1, 1))
    tight, loose = (rules.RealSound(c) for c in (1.0, 5.0))
    inner = boxes(rng, 32, (4, 4), 1e-13)
    a = tight.affine(tight.prepare(cases.in_float64(step)), inner, ALIVE, nonnegative=True)
    b = loose.affine(loose.prepare(cases.in_float64(step)), inner, ALIVE, nonnegative=True)
    assert (a.lower >= b.lower).all()
    assert (a.upper <= b.upper).all()


def test_few_or_short_products_go_the_general_way():
    rng = np.random.default_rng(0)
    assert rules.RealSound().prepare(cases.in_float64(conv(rng, 8))).nonnegative is None
    assert nonnegative.shifted_depth(conv(rng)) == 6 * 32 + 2
