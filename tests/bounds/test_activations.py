"""Enclosures of sigmoid and tanh against 400-bit arithmetic, on ordinary and on hostile numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.bounds import activations
from acert_zoo.bounds.activations import E, exp_of_minus, sigmoid_box, tanh_box
from acert_zoo.bounds.box_changes import BoxChange
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, Sigmoid, Tanh

CONTEXT = mpmath.mp.clone()
CONTEXT.prec = 400
Box = Callable[[Interval], Interval]


def sigmoid(x: float) -> mpmath.mpf:
    return 1 / (1 + CONTEXT.exp(-CONTEXT.mpf(x)))


def tanh(x: float) -> mpmath.mpf:
    return CONTEXT.tanh(CONTEXT.mpf(x))


FUNCTIONS = {"sigmoid": (sigmoid_box, sigmoid), "tanh": (tanh_box, tanh)}
# where reduction begins, where n changes, where values saturate, underflow, overflow
EDGES = [0.17, 0.34, *(k * math.log(2) / 2 for k in range(1, 30)), 18.0, 19.1, 36.0, 354.0, 372.5, 707.9, 708.0, 745.2]
HOSTILE = [
    0.0,
    5e-324,
    1e-310,
    2.0**-1022,
    1e-300,
    2.0**-149,
    2.0**-126,
    1e-17,
    1e-9,
    1e3,
    1e300,
    1.7976931348623157e308,
]


def numbers() -> Tensor:
    """About 3,000 float64 numbers, each with its negative."""
    drawn = torch.cat([torch.logspace(-20, 2.9, 900), torch.linspace(0, 40, 500)]).double().tolist()
    near = [math.nextafter(e, s * math.inf) for e in EDGES for s in (-1, 1)]
    values = torch.tensor([*drawn, *EDGES, *near, *HOSTILE], dtype=torch.float64)
    return torch.cat([values, -values])


def violations(box: Box, function: Callable[[float], mpmath.mpf], x: Tensor) -> int:
    out = box(Interval(x, x.clone()))
    ends = zip(x.tolist(), out.lower.tolist(), out.upper.tolist(), strict=True)
    return sum(not CONTEXT.mpf(low) <= function(v) <= CONTEXT.mpf(high) for v, low, high in ends)


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand() -> None:
    """sigmoid(log 3) = 3/4, sigmoid(0) = 1/2, tanh(log 2) = 3/5."""
    out = sigmoid_box(Interval(float64(0.0, -math.log(3)), float64(math.log(3), 0.0)))
    assert torch.allclose(out.lower, float64(0.5, 0.25), rtol=1e-12, atol=0)
    assert torch.allclose(out.upper, float64(0.75, 0.5), rtol=1e-12, atol=0)
    assert (out.lower < float64(0.5, 0.25)).all()
    assert (out.upper > float64(0.75, 0.5)).all()
    out = tanh_box(Interval(float64(-math.log(2)), float64(0.0)))
    assert out.lower.item() == pytest.approx(-0.6, rel=1e-12)
    assert 0 <= out.upper.item() <= 1e-200


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_value_lies_inside_and_the_box_is_thin(name: str) -> None:
    box, function = FUNCTIONS[name]
    x = numbers()
    assert violations(box, function, x) == 0
    out = box(Interval(x, x.clone()))
    assert (out.upper - out.lower <= 2.0**-43 * out.upper.abs().maximum(out.lower.abs()) + 1e-290).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20), st.sampled_from(sorted(FUNCTIONS)))
def test_any_numbers(values: list[float], name: str) -> None:
    box, function = FUNCTIONS[name]
    x = torch.tensor(sorted(values), dtype=torch.float64)
    finite = x[x.isfinite()]
    assert violations(box, function, finite) == 0
    out = box(Interval(x[:1], x[-1:]))  # monotone: the whole box lies between the ends
    inner = box(Interval(x, x.clone()))
    assert (inner.lower >= out.lower).all()
    assert (inner.upper <= out.upper).all()


@pytest.mark.parametrize(("name", "least"), [("sigmoid", 0.0), ("tanh", -1.0)])
def test_infinite_ends_and_nan_give_the_whole_range(name: str, least: float) -> None:
    box, _ = FUNCTIONS[name]
    ends = torch.tensor([math.inf, math.nan], dtype=torch.float64)
    out = box(Interval(-ends, ends))
    assert out.lower.tolist() == [least, least]
    assert out.upper.tolist() == [1.0, 1.0]


def test_the_exponential_is_as_exact_as_is_said() -> None:
    x = numbers()
    a = x[(x >= 0) & (x <= 708)]
    worst = max(
        abs(CONTEXT.mpf(q) / CONTEXT.exp(-CONTEXT.mpf(v)) - 1)
        for v, q in zip(a.tolist(), exp_of_minus(a).tolist(), strict=True)
    )
    assert 0 < worst < E


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("lost", ["RELATIVE", "LN2_LOW"])
def test_without_a_safeguard_the_value_lies_outside(monkeypatch: pytest.MonkeyPatch, name: str, lost: str) -> None:
    monkeypatch.setattr(activations, lost, 0.0)
    monkeypatch.setattr(activations, "down", lambda x: x)  # two roundings outward cover most of the real error
    monkeypatch.setattr(activations, "up", lambda x: x)
    assert violations(*FUNCTIONS[name], numbers()) > 0


def test_without_the_absolute_term_underflow_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh(x) < x, by one part in 2^2147 where x is the smallest float64."""
    monkeypatch.setattr(CONTEXT, "prec", 2500)
    x = float64(5e-324, -5e-324)
    assert violations(tanh_box, tanh, x) == 0
    monkeypatch.setattr(activations, "TINY", 0.0)
    monkeypatch.setattr(activations, "down", lambda x: x)
    monkeypatch.setattr(activations, "up", lambda x: x)
    assert violations(tanh_box, tanh, x) > 0


@pytest.mark.parametrize(("name", "torchs"), [("sigmoid", torch.sigmoid), ("tanh", torch.tanh)])
def test_torchs_float32_functions_keep_what_float32_deployed_assumes(name: str, torchs: Callable) -> None:
    """Every 4,093rd float32 from 0 to 128 and its negative, in vectors and alone; the assumption has 4 times room."""
    bits = torch.arange(0, 0x43000000, 4093, dtype=torch.int32)
    x = torch.cat([bits.view(torch.float32), -bits.view(torch.float32)])
    truth = torchs(x.double())  # a few 2^-53 off: nothing here
    found = torchs(x).double()
    alone = torch.stack([torchs(v) for v in x[::997]]).double()
    for ours, real in ((found, truth), (alone, truth[::997])):
        assert ((ours - real).abs() <= 2.0**-22 * real.abs() + 2.0**-126).all()


def network(seed: int) -> Network:
    """2 x 2 pixels, a tanh layer, a sigmoid layer, 3 classes."""
    generator = torch.Generator().manual_seed(seed)

    def linear(source: int, inputs: int, outputs: int) -> Linear:
        weight = torch.randn(outputs, inputs, generator=generator) * 2 / inputs**0.5
        return Linear(inputs=(source,), weight=weight, bias=torch.randn(outputs, generator=generator) / 2)

    hidden = (linear(1, 4, 12), Tanh(inputs=(2,)), linear(3, 12, 12), Sigmoid(inputs=(4,)), linear(5, 12, 3))
    return Network((Flatten(inputs=(0,)), *hidden))


def images(seed: int) -> Tensor:
    return torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", ["float32", "real-sound", "float32-deployed"])
@pytest.mark.parametrize("seed", range(4))
def test_a_network_with_both_is_certified_and_holds(level: str, seed: int) -> None:
    net, x = network(seed), images(seed)
    labels = net(x).argmax(1)
    found = certified_radius(net, x, labels, rounding=level)
    assert (found.radius > 0).sum() >= 7
    generator = torch.Generator().manual_seed(100 + seed)
    for _ in range(200):  # corners and points of every box, in float32
        step = torch.rand(x.shape, generator=generator) * 2 - 1
        step = torch.where(torch.rand(len(x), generator=generator).view(-1, 1, 1, 1) < 0.5, step.sign(), step)
        points = (x.double() + step * found.radius.view(-1, 1, 1, 1) * 0.999).clamp(0, 1).float()
        assert (net(points).argmax(1) == labels)[found.radius > 0].all()


@pytest.mark.parametrize("seed", range(4))
def test_rigorous_radii_lie_just_below_those_of_plain_interval_bounds(seed: int) -> None:
    net, x = network(seed), images(seed)
    labels = net(x).argmax(1)
    plain = certified_radius(net.to(torch.float64), x.double(), labels, rounding="float32").radius
    real = certified_radius(net, x, labels, rounding="real-sound").radius
    deployed = certified_radius(net, x, labels, rounding="float32-deployed").radius
    assert torch.allclose(real, plain, rtol=2e-6, atol=0)
    assert (deployed <= real * (1 + 1e-6)).all()
    assert (deployed >= real * 0.99).all()


def test_every_value_of_the_real_network_lies_in_its_box() -> None:
    """Two layers by hand in 400 bits: pixels at a corner of the box."""
    net, x = network(0), images(0)[:1]
    eps = 0.01
    boxes = RigorousNetwork(net).intervals(x, eps)
    corner = (x.double() + torch.tensor([eps, -eps, eps, -eps], dtype=torch.float64).view(1, 1, 2, 2)).clamp(0, 1)
    values = [CONTEXT.mpf(v) for v in corner.flatten().tolist()]
    for index in (1, 3):
        weight, bias = net.steps[index].weight.tolist(), net.steps[index].bias.tolist()
        sums = [
            CONTEXT.fsum([b, *(w * v for w, v in zip(row, values, strict=True))])
            for row, b in zip(weight, bias, strict=True)
        ]
        values = [CONTEXT.tanh(s) if index == 1 else 1 / (1 + CONTEXT.exp(-s)) for s in sums]
        low, high = (end.flatten().tolist() for end in boxes[index + 2])
        assert all(a <= v <= b for a, v, b in zip(low, values, high, strict=True))


def test_an_overflow_before_a_bounded_function_proves_only_what_is_true() -> None:
    """sigmoid of anything lies in [0, 1]: 2 - sigmoid > 0 is proved at real-sound, and nothing of the program."""
    steps = (
        Flatten(inputs=(0,)),
        *(Linear(inputs=(i,), weight=torch.full((1, 1), 3e38), bias=torch.zeros(1)) for i in range(1, 10)),
        Sigmoid(inputs=(10,)),
        Linear(inputs=(11,), weight=torch.tensor([[0.0], [1.0]]), bias=torch.tensor([2.0, 0.0])),
    )
    x, label = torch.ones(1, 1, 1, 1), torch.tensor([0])
    assert RigorousNetwork(Network(steps)).margins(x, label, 0.5).item() == pytest.approx(1.0, rel=1e-9)
    assert not RigorousNetwork(Network(steps), "float32-deployed").proves(x, label, 0.5).any()


def test_searches_without_changes_and_crown_stops_at_the_function() -> None:
    net, x = network(1), images(1)[:2]
    assert BoxChange.of(net, "real-sound") is None
    labels = net(x).argmax(1)
    crown, ibp = RigorousCrown(net).margins(x, labels, 1e-3), RigorousNetwork(net).margins(x, labels, 1e-3)
    assert (crown >= ibp).all()
