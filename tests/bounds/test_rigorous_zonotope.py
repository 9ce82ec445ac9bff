"""Zonotopes: by hand, against exact minima of tiny networks, and where rounding and overflow would deceive."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.bounds.rigorous_zonotope import Zonotope, ZonotopeBoxes, bytes_per_box, suits
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, Linear, ReLU
from tests.support.relu_patterns import exact_minimum, tiny_network

F64 = torch.float64


def layer(weight: list[list[float]], bias: list[float], source: int) -> Linear:
    return Linear(weight=torch.tensor(weight), bias=torch.tensor(bias), inputs=(source,))


def bent(width: float = 1.0) -> Network:
    """h = relu(x_0 - 1/4), relu(1/4 - x_0); f_0 = h_0 + h_1 + 1/8, f_1 = 0."""
    first = layer([[width, 0.0], [-width, 0.0]], [-0.25, 0.25], 0)
    return Network((first, ReLU(inputs=(1,)), layer([[1.0, 1.0], [0.0, 0.0]], [0.125, 0.0], 2)))


def rows_over(network: Network, box: Interval, row: list[float]) -> tuple[list[Interval], Zonotope]:
    rigorous = RigorousNetwork(network)
    forms = ZonotopeBoxes(rigorous.network)
    boxes = rigorous.boxes(box, forms)
    return boxes, forms.rows(boxes, torch.tensor([row], dtype=F64), torch.zeros(1, dtype=F64))


def test_by_hand() -> None:
    """z_0 = -z_1 in [-1/4, 1/4]: slope 1/2, t = 1/16, so f_0 = 1/8 + 2 t -+ 2 t: [1/8, 3/8], the exact range."""
    box = Interval(torch.zeros(1, 2, dtype=F64), torch.full((1, 2), 0.5, dtype=F64))
    _, form = rows_over(bent(), box, [1.0, -1.0])
    found = form.box()
    assert 0.125 - 1e-12 < float(found.lower) <= 0.125
    assert 0.375 <= float(found.upper) < 0.375 + 1e-12


def test_shares_blame_the_input_that_matters() -> None:
    """x_0 cancels in the sum of linear parts: all of the spread is that of the two neurons, which only x_0 moves."""
    box = Interval(torch.zeros(1, 2, dtype=F64), torch.full((1, 2), 0.5, dtype=F64))
    _, form = rows_over(bent(), box, [1.0, -1.0])
    blame = form.influence(torch.zeros(1, dtype=torch.int64))
    assert blame[0].tolist() == [pytest.approx(0.125), 0.0]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([1e-3, 0.1, 0.5]))
def test_never_above_the_exact_minimum(seed: int, radius: float) -> None:
    network = tiny_network(seed)
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(2, 2, generator=generator, dtype=F64)
    box = Interval(center - radius, center + radius)
    boxes, form = rows_over(network, box, [1.0, -1.0])
    for i in range(2):
        ends = [[Fraction(v) for v in end[i].tolist()] for end in box]
        true = exact_minimum(network, *ends, (Fraction(1), Fraction(-1)))
        assert true is not None
        assert Fraction(float(form.box().lower[i])) <= true
    for held, value in zip(boxes, network.to(F64).run(center)[:-1], strict=True):
        assert bool(((held.lower <= value) & (value <= held.upper)).all())


@pytest.mark.parametrize(
    "weights", [(2.0**60, 1.0, -(2.0**60)), (1.0, 2.0**60, -(2.0**60)), (2.0**60, -(2.0**60), 1.0)]
)
def test_what_cancels_is_paid_for(weights: tuple[float, float, float]) -> None:
    """The sum is 1 exactly; in float64 it is 0 or 1, as the order of summation has it."""
    point = torch.ones(1, 3, dtype=F64)
    form = Zonotope.of(Interval(point, point)).affine(
        Linear(weight=torch.tensor([weights], dtype=F64), bias=torch.zeros(1, dtype=F64), inputs=(0,))
    )
    found = form.box()
    assert float(found.lower) <= 0.0
    assert float(found.upper) >= 1.0


def test_a_slope_that_rounds_is_paid_for() -> None:
    """Every rule may round: points of the box, in rationals, lie in what the form of relu(x) encloses."""
    low, high = torch.tensor([[-1.0 / 3]], dtype=F64), torch.tensor([[0.7]], dtype=F64)
    box = Interval(low, high)
    found = Zonotope.of(box).relu(box).box()
    assert float(found.lower) <= 0.0
    assert Fraction(float(found.upper)) >= Fraction(float(high))
    assert float(found.upper) < 0.9


def test_overflow_falls_back_to_intervals() -> None:
    big = 3e38
    steps = []
    for i in range(10):  # 2^127 to the tenth power is beyond float64
        steps += [layer([[big, -big], [big, big]], [0.0, 0.0], 2 * i), ReLU(inputs=(2 * i + 1,))]
    network = Network((*steps, layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 20)))
    box = Interval(torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64))
    boxes, form = rows_over(network, box, [1.0, -1.0])
    plain = RigorousNetwork(network).boxes(box)
    for ours, theirs in zip(boxes, plain, strict=True):
        assert not bool(ours.lower.isnan().any() | ours.upper.isnan().any())
        assert bool((ours.lower >= theirs.lower).all() & (ours.upper <= theirs.upper).all())
    assert not bool(form.box().lower.isfinite().any())


def test_which_networks_suit() -> None:
    assert suits(bent())
    first = layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 0)
    residual = Network((first, Add(inputs=(0, 1)), layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 2)))
    assert not suits(residual)
    assert bytes_per_box(bent()) >= 8 * 2 * (2 + 2)
