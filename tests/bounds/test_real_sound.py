"""The float64 rules of level real-sound, in planted cases and against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from acert_zoo.bounds import blocked_sums as blocked
from acert_zoo.bounds import ibp
from acert_zoo.bounds import nonnegative_boxes as nonnegative
from acert_zoo.bounds import real_sound as rules
from acert_zoo.bounds.directed_rounding import U64
from acert_zoo.network.layers import Conv
from tests.support import cases as cases
from tests.support import rational as exact


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_the_affine_rule_holds_in_every_planted_case(family):
    planted = list(cases.FAMILIES[family]())
    assert planted
    assert cases.affine_violations(planted) == 0


def test_the_box_normalize_and_add():
    assert cases.box_violations() == cases.normalize_violations() == cases.add_violations() == 0


def test_float64_convolutions_are_plain_inner_products():
    """The derivation needs im2col and a matrix product (or a direct loop), never Winograd or FFT."""
    for groups, dilation in ((1, 1), (2, 1), (1, 2)):
        x, w = torch.zeros(3, 4, 9, 9, dtype=torch.float64), torch.zeros(4, 4 // groups, 3, 3, dtype=torch.float64)
        choice = torch._C._select_conv_backend(x, w, None, [1, 1], [1, 1], [dilation] * 2, False, [0, 0], groups)
        assert choice.name in ("Slow2d", "SlowDilated2d"), choice


@pytest.mark.parametrize("n", [289, 432, 1000])
def test_long_matrix_products_are_summed_in_blocks(n):
    """Tighter constants, still sound, for lengths that are multiples of the block and that are not."""
    rng = np.random.default_rng(n)
    weight, m = torch.from_numpy(rng.normal(size=(4, n))), torch.from_numpy(rng.uniform(-1, 1, n))
    step = cases.linear(weight, torch.from_numpy(rng.normal(size=4)))
    for radius in (0.0, 1e-12, 0.1):
        box = ibp.Interval(m.view(1, -1) - radius, m.view(1, -1) + radius)
        assert cases.affine_violations([(step, box)]) == 0
    terms = rules.RealSound().prepare(cases.in_float64(step)).terms
    depth = blocked.BLOCK + -(-n // blocked.BLOCK)
    assert terms.mid == rules.real_sound_terms(depth, 1.0).mid < rules.real_sound_terms(n, 1.0).mid


def test_long_convolutions_are_summed_in_blocks():
    rng = np.random.default_rng(0)
    channels = 50  # of 3x3: blocks of 16, 16, 16 and 2
    weight, bias = torch.from_numpy(rng.normal(size=(2, channels, 3, 3))), torch.from_numpy(rng.normal(size=2))
    step = Conv(inputs=(0,), weight=weight.float(), bias=bias.float(), padding=(1, 1), stride=(2, 2))
    prepared = rules.RealSound().prepare(cases.in_float64(step))
    depth = max(144 + 4, nonnegative.shifted_depth(step))  # the larger one of the two ways
    assert prepared.terms.mid == rules.real_sound_terms(depth, 1.0).mid
    x = torch.from_numpy(rng.normal(size=(1, channels, 3, 3)))
    for radius in (0.0, 1e-12, 0.1):
        box = ibp.Interval(x - radius, x + radius)
        out = rules.RealSound().affine(prepared, box, torch.ones(1, dtype=torch.bool))
        assert exact.image_of(step, exact.box_of(box, 0)).contained(out.lower[0], out.upper[0])


def test_terms_scale_with_the_constant():
    one, five = rules.real_sound_terms(9, 1.0), rules.real_sound_terms(9, 5.0)
    assert (five.mid, five.rad, five.dev, five.bias, five.tiny) == tuple(
        5 * v for v in (one.mid, one.rad, one.dev, one.bias, one.tiny)
    )
    assert one.tiny == 2.0**-800
    assert Fraction(one.mid) >= Fraction(25 * U64) / (1 - Fraction(25 * U64))
