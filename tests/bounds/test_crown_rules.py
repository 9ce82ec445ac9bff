"""The rules by which a claim passes backward, each against exact rationals, and by mutation."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from acert_zoo.bounds import crown_rules
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    Permute,
    ReLU,
    Reshape,
    Step,
)
from tests.support import rational as exact

F64 = torch.float64


def value_of(claim: crown_rules.Claim, row: int, values: list[Fraction]) -> Fraction:
    """<a, v> + beta, exactly."""
    a = [Fraction(v) for v in claim.coefficients[row].flatten().tolist()]
    return sum((x * y for x, y in zip(a, values, strict=True)), Fraction(float(claim.beta[row])))


def fractions(t: Tensor) -> list[Fraction]:
    return [Fraction(v) for v in t.flatten().tolist()]


def violations(step: Step, shapes: list[tuple[int, ...]], seeds: range, spread: float, beta: float = 0.0) -> int:
    """How often a claim carried through `step` fails at a point of the box, computed exactly."""
    bad = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        points = [torch.from_numpy(rng.normal(size=(1, *s))) for s in shapes]
        boxes = [Interval(p - spread * rng.random(), p + spread * rng.random()) for p in points]
        images = [exact.image_of(step, *(exact.box_of(Interval(p, p), 0) for p in points))]
        out_shape = images[0].shape
        outputs = [Fraction(int(v), images[0].den) for v in images[0].lower]
        a = torch.from_numpy(rng.normal(size=(4, *out_shape)))
        before = crown_rules.Claim(a, torch.full((4,), beta, dtype=F64))
        parts, after = crown_rules.pull(step, before, boxes, None)
        for row in range(4):
            target = value_of(before, row, outputs)
            total = Fraction(float(after[row])) + sum(
                value_of(crown_rules.Claim(part, torch.zeros(4, dtype=F64)), row, fractions(p))
                for part, p in zip(parts, points, strict=True)
            )
            bad += total > target
    return bad


def linear(n: int = 12, bias: float = 1.0) -> Linear:
    generator = torch.Generator().manual_seed(n)
    weight = torch.randn(5, n, generator=generator)
    return Linear(inputs=(0,), weight=weight.double(), bias=bias * torch.randn(5, generator=generator).double())


def conv(**options) -> Conv:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 2 // options.get("groups", 1), 3, 3, generator=generator)
    return Conv(inputs=(0,), weight=weight.double(), bias=torch.randn(4, generator=generator).double(), **options)


def batchnorm() -> BatchNorm:
    gamma, beta, mean = torch.tensor([[0.7, -1.3], [0.1, 3.0], [0.3, -0.9]], dtype=F64)
    var = torch.tensor([0.6, 2.1], dtype=F64)
    return BatchNorm(inputs=(0,), gamma=gamma, beta=beta, mean=mean, var=var, epsilon=1e-5)


IMAGE = (2, 5, 4)
RULES: list[tuple[str, Step, list[tuple[int, ...]]]] = [
    ("linear", linear(), [(12,)]),
    ("conv", conv(padding=(1, 1)), [IMAGE]),
    ("strided conv", conv(stride=(2, 2), padding=(1, 0)), [IMAGE]),
    ("grouped, dilated conv", conv(groups=2, dilation=(2, 1), padding=(2, 1)), [IMAGE]),
    ("batchnorm", batchnorm(), [IMAGE]),
    ("average pooling", AvgPool(inputs=(0,), kernel_size=(3, 2), stride=(2, 2), padding=(1, 0)), [IMAGE]),
    ("relu", ReLU(inputs=(0,)), [(30,)]),
    ("add", Add(inputs=(0, 1)), [IMAGE, IMAGE]),
    ("concat", Concat(inputs=(0, 1), dim=1), [IMAGE, (3, 5, 4)]),
    ("flatten", Flatten(inputs=(0,)), [IMAGE]),
    ("reshape", Reshape(inputs=(0,), shape=(4, 10)), [IMAGE]),
    ("permute", Permute(inputs=(0,), dims=(0, 3, 1, 2)), [IMAGE]),
]


@pytest.mark.parametrize(("step", "shapes"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_claim_stays_true_through_a_step(step, shapes, spread):
    assert violations(step, shapes, range(6), spread) == 0


@pytest.mark.parametrize("name", ["linear", "conv", "batchnorm", "average pooling"])
def test_mutation_without_the_payment_for_rounding(monkeypatch, name):
    monkeypatch.setattr(crown_rules, "factor", lambda terms: 0.0)
    step, shapes = next(r[1:] for r in RULES if r[0] == name)
    assert violations(step, shapes, range(12), 0.0) > 0


def test_mutation_without_rounding_beta_down(monkeypatch):
    """beta = 2^40: adding <a, b> to it rounds by far more than is paid for the products."""
    assert violations(linear(), [(12,)], range(6), 0.0, beta=2.0**40) == 0
    monkeypatch.setattr(crown_rules, "down", lambda x: x)
    assert violations(linear(), [(12,)], range(6), 0.0, beta=2.0**40) > 0


def test_mutation_with_the_excess_of_another_slope(monkeypatch):
    """The excess must belong to the slope that was used: with that of a steeper chord the claim is false."""
    original = torch.maximum
    monkeypatch.setattr(torch, "maximum", lambda a, b: 0.9 * original(a, b))
    assert violations(ReLU(inputs=(0,)), [(30,)], range(12), 1.0) > 0


def test_underflow_is_paid_for(monkeypatch):
    """Coefficients near 2^-500 times weights near 2^-600 vanish; values near 2^200 would have made them count."""
    weight = torch.full((1, 3), 2.0**-600, dtype=F64)
    step = Linear(inputs=(0,), weight=weight, bias=torch.zeros(1, dtype=F64))
    box = Interval(torch.full((1, 3), -(2.0**200), dtype=F64), torch.full((1, 3), -(2.0**200), dtype=F64))

    def bound() -> Fraction:
        claim = crown_rules.Claim(torch.full((1, 1), 2.0**-500, dtype=F64), torch.zeros(1, dtype=F64))
        (part,), beta = crown_rules.pull(step, claim, [box], None)
        return Fraction(float(beta)) + sum(x * y for x, y in zip(fractions(part), fractions(box.lower), strict=True))

    truth = -3 * Fraction(2) ** -900
    assert bound() <= truth
    monkeypatch.setattr(crown_rules, "TINY", 0.0)
    assert bound() > truth


@pytest.mark.parametrize("kind", ["linear", "conv", "batchnorm", "average pooling"])
def test_the_payment_survives_the_underflow_of_its_own_factors(monkeypatch, kind):
    """|W| M, about 2^-1080, vanishes; with A about 2^900 the rounding of W^T A still moves the claim by 2^-230."""
    shape = (12,) if kind == "linear" else IMAGE
    step = next(s for name, s, _ in RULES if name == kind)
    if kind == "batchnorm":
        zero = torch.zeros(2, dtype=F64)
        step = dataclasses.replace(step, gamma=2.0**-120 * step.gamma, beta=zero, mean=zero)
    elif kind != "average pooling":
        step = dataclasses.replace(step, weight=2.0**-120 * step.weight, bias=torch.zeros_like(step.bias))
    small, rng = 2.0 ** (-1068 if kind == "average pooling" else -960), np.random.default_rng(0)

    def bad() -> int:
        count = 0
        for _ in range(12):
            point = small * torch.from_numpy(rng.integers(1, 5, size=(1, *shape)).astype(float))
            image = exact.image_of(step, exact.box_of(Interval(point, point), 0))
            outputs = [Fraction(int(v), image.den) for v in image.lower]
            zeros = torch.zeros(4, dtype=F64)
            before = crown_rules.Claim(2.0**900 * torch.from_numpy(rng.normal(size=(4, *image.shape))), zeros)
            (part,), after = crown_rules.pull(step, before, [Interval(point, point)], None)
            for row in range(4):
                carried = value_of(crown_rules.Claim(part, zeros), row, fractions(point)) + Fraction(float(after[row]))
                count += carried > value_of(before, row, outputs)
        return count

    assert bad() == 0
    if kind != "average pooling":  # whose underflow is a thirtieth of what it averages: no rounding shows
        monkeypatch.setattr(crown_rules, "TINY", 0.0)
        assert bad() > 0


@pytest.mark.parametrize("mutated", [False, True])
def test_sum_of_two_claims_about_one_value(monkeypatch, mutated):
    if mutated:
        monkeypatch.setattr(crown_rules, "U64", 0.0)
        monkeypatch.setattr(crown_rules, "TINY", 0.0)
        monkeypatch.setattr(crown_rules, "up", lambda x: x)
        monkeypatch.setattr(crown_rules, "down", lambda x: x)
    rng, bad = np.random.default_rng(0), 0
    for _ in range(20):
        a, b = (torch.from_numpy(rng.normal(size=(3, 20))) for _ in range(2))
        v = torch.from_numpy(rng.normal(size=(1, 20)))
        total, beta = crown_rules.accumulate(a, b, torch.zeros(3, dtype=F64), Interval(v, v))
        values = fractions(v)
        zero = torch.zeros(3, dtype=F64)
        for row in range(3):
            before = value_of(crown_rules.Claim(a, zero), row, values) + value_of(
                crown_rules.Claim(b, zero), row, values
            )
            bad += value_of(crown_rules.Claim(total, beta), row, values) > before
    assert (bad > 0) == mutated


@pytest.mark.parametrize("mutated", [False, True])
def test_concretising(monkeypatch, mutated):
    if mutated:
        monkeypatch.setattr(crown_rules, "factor", lambda terms: 0.0)
    rng, bad = np.random.default_rng(1), 0
    for _ in range(20):
        a = torch.from_numpy(rng.normal(size=(3, 40)))
        low = torch.from_numpy(rng.normal(size=(1, 40)))
        high = low + torch.from_numpy(rng.random((1, 40)))
        got = crown_rules.concretise(crown_rules.Claim(a, torch.zeros(3, dtype=F64)), Interval(low, high))
        for row in range(3):
            ends = zip(fractions(a[row]), fractions(low), fractions(high), strict=True)
            bad += Fraction(float(got[row])) > sum(min(c * lo, c * hi) for c, lo, hi in ends)
    assert (bad > 0) == mutated


@pytest.mark.parametrize("mutated", [False, True])
def test_rows_of_the_head(monkeypatch, mutated):
    """Rows of float64 numbers, so that their difference rounds."""
    if mutated:
        monkeypatch.setattr(crown_rules, "U64", 0.0)
        monkeypatch.setattr(crown_rules, "TINY", 0.0)
        monkeypatch.setattr(crown_rules, "up", lambda x: x)
        monkeypatch.setattr(crown_rules, "down", lambda x: x)
    rng, bad = np.random.default_rng(2), 0
    for _ in range(20):
        weight, bias = torch.from_numpy(rng.normal(size=(3, 16))), torch.from_numpy(rng.normal(size=3))
        v = torch.from_numpy(rng.normal(size=(1, 16)))
        claim = crown_rules.rows(Linear(inputs=(0,), weight=weight, bias=bias), 1, [0, 2], Interval(v, v))
        values = fractions(v)
        for row, t in enumerate((0, 2)):
            logits = [
                sum((w * x for w, x in zip(fractions(weight[k]), values, strict=True)), Fraction(float(bias[k])))
                for k in (1, t)
            ]
            bad += value_of(claim, row, values) > logits[0] - logits[1]
    assert (bad > 0) == mutated
