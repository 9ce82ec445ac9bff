"""Planted affine layers, one family for each term of the affine rule, and a count of how often a bound is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from acert_zoo.bounds import real_sound
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, Normalize, ReLU, Step
from tests.support import rational as exact

Case = tuple[Linear, Interval]


def linear(weight: Tensor, bias: Tensor) -> Linear:
    return Linear(inputs=(0,), weight=weight.float(), bias=bias.float())


def in_float64(step: Step) -> Step:
    tensors = {k: v.double() for k, v in vars(step).items() if isinstance(v, Tensor)}
    return dataclasses.replace(step, **tensors)


def point(values: Tensor) -> Interval:
    """A box of radius 0: whatever the rule adds for its own rounding is all that can save the bound."""
    x = values.double().reshape(1, -1)
    return Interval(x, x.clone())


def rounding_of_the_centre() -> Iterable[Case]:
    """W m of 50 products, radius 0, no bias: only k|m| covers the rounding of the sum."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        weight, m = torch.from_numpy(rng.normal(size=(6, 50))), torch.from_numpy(rng.uniform(-1, 1, 50))
        yield linear(weight, torch.zeros(6)), point(m)


def rounding_of_the_bias() -> Iterable[Case]:
    """A bias of 2^40 and a sum near 1: the last addition rounds by up to 2^-13, and only k|b| covers that."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        weight, m = torch.from_numpy(rng.normal(size=(6, 4))), torch.from_numpy(rng.uniform(-1, 1, 4))
        yield linear(weight, torch.full((6,), 2.0**40)), point(m)


def rounding_of_the_radius() -> Iterable[Case]:
    """Centre 0, 64 radii of 1, then thousands just below half an ulp of 1: every addition rounds down."""
    r = torch.full((8192,), 0.9 * 2.0**-53, dtype=torch.float64)
    r[:64] = 1.0
    yield linear(torch.ones(1, 8192), torch.zeros(1)), Interval(-r.view(1, -1), r.view(1, -1))


def underflow() -> Iterable[Case]:
    """Weights of 2^-149, values near 2^-925: the products are rounded to multiples of 2^-1074, or vanish."""
    rng = np.random.default_rng(3)
    for low in (-925, -960):
        m = torch.from_numpy(np.exp2(rng.uniform(low - 4, low, 5)))
        yield linear(torch.full((2, 5), 2.0**-149), torch.zeros(2)), point(m)


def overflow() -> Iterable[Case]:
    """The negative half overflows partial sums to -inf, though the whole sum is positive: ReLU would give 0."""
    m = torch.full((512,), 2.0**900, dtype=torch.float64)
    weight = torch.cat([torch.full((256,), -(2.0**120)), torch.full((256,), 2.0**121)]).view(1, -1)
    yield linear(weight, torch.zeros(1)), point(m)


FAMILIES: dict[str, Callable[[], Iterable[Case]]] = {
    f.__name__: f for f in (rounding_of_the_centre, rounding_of_the_bias, rounding_of_the_radius, underflow, overflow)
}


def affine_violations(cases: Iterable[Case], ruleset: real_sound.RealSound | None = None) -> int:
    """In how many cases the rule's interval does not hold the exact image."""
    ruleset = ruleset or real_sound.RealSound()
    wrong = 0
    for step, box in cases:
        out = ruleset.affine(ruleset.prepare(in_float64(step)), box, torch.ones(1, dtype=torch.bool))
        wrong += not exact.image_of(step, exact.box_of(box, 0)).contained(out.lower[0], out.upper[0])
    return wrong


def box_violations() -> int:
    """Images k/255 under the radii that occur, whose exact box is not within `rules.input_box`."""
    images = (torch.arange(256) / 255).float().view(1, 1, 16, 16)
    wrong = 0
    for eps in (1 / 255, 2 / 255, 1e-3, 1e-9, 0.3):
        box = real_sound.input_box(images, torch.tensor([eps], dtype=torch.float64))
        wrong += not exact.input_box(images[0], Fraction(eps)).contained(box.lower[0], box.upper[0])
    return wrong


def normalize_violations() -> int:
    """Boxes whose exact image under Normalize is not within `rules.normalize_box`."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(20):
        mean, std = torch.from_numpy(rng.uniform(0, 1, 3)).float(), torch.from_numpy(rng.uniform(0.1, 1, 3)).float()
        step = Normalize(inputs=(0,), mean=mean, std=std)
        x = torch.from_numpy(rng.uniform(0, 1, (1, 3, 2, 2)))
        box = Interval(x, x + 1e-3)
        shape = (1, 3, 1, 1)
        out = real_sound.normalize_box(box, mean.double().view(shape), std.double().view(shape))
        wrong += not exact.image_of(step, exact.box_of(box, 0)).contained(out.lower[0], out.upper[0])
    return wrong


def add_violations() -> int:
    """Sums whose exact value is not within `rules.add_boxes`."""
    rng = np.random.default_rng(5)
    a, b = (torch.from_numpy(rng.normal(size=(1, 50))) for _ in range(2))
    out = real_sound.add_boxes(Interval(a, a), Interval(b, b))
    exact_sums = [Fraction(p) + Fraction(q) for p, q in zip(a[0].tolist(), b[0].tolist(), strict=True)]
    ends = zip(out.lower[0].tolist(), exact_sums, out.upper[0].tolist(), strict=True)
    return sum(not Fraction(lo) <= s <= Fraction(hi) for lo, s, hi in ends)


def overflowing_network() -> Network:
    """Eight hidden layers take x = 1 to 512 values of 2^900; the margin, 256 products 2^1020 minus 256 others, is 0.

    Its partial sums overflow to +inf, which is greater than 0 and no NaN.
    """
    steps: list[Step] = [Flatten(inputs=(0,))]
    for width, exponent in (*[(1, 114)] * 7, (512, 102)):
        weight = torch.full((width, 1), 2.0**exponent)
        steps += [Linear(inputs=(len(steps),), weight=weight, bias=torch.zeros(width)), ReLU(inputs=(len(steps) + 1,))]
    rows = torch.zeros(2, 512)
    rows[0, :256], rows[0, 256:] = 2.0**120, -(2.0**120)
    return Network((*steps, Linear(inputs=(len(steps),), weight=rows, bias=torch.zeros(2))))


def overflow_in_one_class() -> Network:
    """The same with a class 1 that wins by 3e38 and a class 2 that loses by 1: f_0 - f_1 overflows to +inf, f_0 - f_2
    is found to be 1, and so is the smaller of the two."""
    net = overflowing_network()
    rows = torch.zeros(3, 512)
    rows[[0, 2]] = net.head.weight[0]
    bias = torch.tensor([1.0, 3e38, 0.0])
    return Network((*net.steps[:-1], dataclasses.replace(net.head, weight=rows, bias=bias)))
