"""The depth L behind k = c g(L + 16) is neither too small nor larger than it must be, in every way of evaluation.

The planted sums lose as much as sums of that depth can: each begins with 1 (a value or a bias), and whatever is added
to it afterwards lies just below half an ulp of 1, within its block and from block to block. The bounds hold; and they
fail with k = g(L - 8), the constant of a depth that is smaller by 24.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds import blocked_sums as blocked
from acert_zoo.bounds import real_sound as rules
from acert_zoo.bounds.blocked_sums import BLOCK
from acert_zoo.bounds.directed_rounding import U64
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.layers import Affine, Conv, Linear
from tests.support import cases as cases
from tests.support import rational as exact
from tests.support.blas import HostileBlas

LOST = (1 - 2.0**-10) * U64  # 1 + LOST is rounded to 1


def long_sum(n: int, block: int, *, bias: bool) -> tuple[Tensor, float]:
    """n values and a bias for weights of 1: 1, the rest of a block just below half an ulp, and so every later block."""
    values = torch.full((n,), LOST / block, dtype=torch.float64)
    values[:block] = LOST
    if not bias:
        values[0] = 1.0
    return values, float(bias)


def dense(n: int, count: int) -> tuple[Affine, Interval]:
    values, bias = long_sum(n, BLOCK if n >= 2 * BLOCK else n, bias=n < 2 * BLOCK)
    step = Linear(inputs=(0,), weight=torch.ones(2, n), bias=torch.full((2,), bias))
    x = values.expand(count, n).clone()
    return step, Interval(x, x.clone())


def grid(
    channels: int, kernel: tuple[int, int], block: int, *, bias: bool, places_first: bool
) -> tuple[Conv, Interval]:
    """A convolution whose products are added channel by channel, or place by place of the kernel
    (`nonnegative_boxes.py`)."""
    height, width = kernel
    values, start = long_sum(channels * height * width, block, bias=bias)
    shape = (height, width, channels) if places_first else (channels, height, width)
    x = values.view(shape).permute(2, 0, 1) if places_first else values.view(shape)
    weight = torch.ones(2, channels, height, width)
    step = Conv(inputs=(0,), weight=weight, bias=torch.full((2,), start))
    x = x.expand(3, *x.shape).contiguous()
    return step, Interval(x, x.clone())


def many_channels() -> tuple[Affine, Interval]:
    """15 channels: too few for `nonnegative_boxes.py`; kernels of 9 x 9, so that a block is one channel."""
    return grid(15, (9, 9), 81, bias=False, places_first=False)


WAYS = {
    "a short dense layer, bias first": (lambda: dense(2 * BLOCK - 1, 6), False),
    "a long dense layer, many images": (lambda: dense(20 * BLOCK, 6), False),
    "a long dense layer, few images": (lambda: dense(20 * BLOCK, 2), False),
    "a convolution": (many_channels, False),
    "a convolution of a nonnegative box": (lambda: grid(32, (3, 3), 192, bias=True, places_first=True), True),
    "the same, a run for each place": (lambda: grid(200, (2, 2), 200, bias=True, places_first=True), True),
}


def holds(step: Affine, box: Interval, nonnegative: bool, hostile: bool = True) -> bool:
    """Whether the rule's interval of the first sample holds the exact image."""
    rule = rules.RealSound()
    prepared = rule.prepare(cases.in_float64(step))
    assert (prepared.nonnegative is not None) or not nonnegative
    with HostileBlas("forward") if hostile else contextlib.nullcontext():
        out = rule.affine(prepared, box, torch.ones(len(box.lower)).bool(), nonnegative=nonnegative)
    return exact.image_of(step, exact.box_of(box, 0)).contained(out.lower[0], out.upper[0])


@pytest.mark.parametrize("way", WAYS)
def test_the_depth_is_right(monkeypatch, way):
    build, nonnegative = WAYS[way]
    step, box = build()
    assert holds(step, box, nonnegative)
    assert holds(step, box, nonnegative, hostile=False)
    original = rules.real_sound_terms
    monkeypatch.setattr(rules, "real_sound_terms", lambda depth, c: original(depth - 24, c))
    assert not holds(step, box, nonnegative)


def test_the_depths_of_these_ways():
    """n for one block, else a block, the number of blocks (runs), as the docstrings count."""
    depths = {
        "a short dense layer, bias first": 2 * BLOCK - 1,
        "a long dense layer, many images": BLOCK + 20,
        "a long dense layer, few images": BLOCK + 20,
        "a convolution": 81 + 15,
        "a convolution of a nonnegative box": 192 + 2,
        "the same, a run for each place": 200 + 4,
    }
    for way, depth in depths.items():
        step, _ = WAYS[way][0]()
        mid = rules.RealSound().prepare(cases.in_float64(step)).terms.mid
        assert mid == rules.real_sound_terms(depth, 1.0).mid, way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("radius", [0.0, 1e-16])
def test_nesting_between_the_worst_orders(way, radius):
    """c in one order within 5c in any other one, of the same box: where rounding differs most."""
    build, nonnegative = WAYS[way]
    step, box = build()
    box = Interval((box.lower - radius).clamp(min=0) if nonnegative else box.lower - radius, box.upper + radius)
    orders = [contextlib.nullcontext(), *(HostileBlas(order) for order in ("forward", "backward", "random"))]
    for c in (1.0, 5.0):
        found = []
        for constant in (c, 5 * c):
            rule = rules.RealSound(constant)
            prepared = rule.prepare(cases.in_float64(step))
            for mode in orders:
                with mode:
                    found.append(rule.affine(prepared, box, torch.ones(len(box.lower)).bool(), nonnegative=nonnegative))
                if nonnegative:  # the general way, where few images come
                    found.append(rule.affine(prepared, box, torch.ones(len(box.lower)).bool()))
        half = len(found) // 2
        lowest, highest = min(i.lower.min() for i in found[:half]), max(i.upper.max() for i in found[:half])
        assert max(i.lower.max() for i in found[half:]) <= lowest
        assert min(i.upper.min() for i in found[half:]) >= highest


def test_zeros_that_fill_up_a_block_round_nothing():
    """Few images: inactive inputs are left out and the rest filled up with zeros, which must not add to the depth."""
    step, box = dense(20 * BLOCK, 2)
    for x in box:
        x[:, 5::3] = 0.0
    assert holds(step, box, False)
    apply, _, _ = blocked.blocked_linear(step.weight.double(), step.bias.double())
    assert torch.equal(apply(torch.zeros(2, 20 * BLOCK, dtype=torch.float64)), torch.zeros(2, 2, dtype=torch.float64))
