"""Boxes of hidden neurons against their exact ranges, and against those of CROWN's default slopes."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.complete.hidden_boxes import tight_boxes
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU
from tests.support.relu_patterns import exact_minimum, tiny_network

F64 = torch.float64
BOX = Interval(torch.tensor([[-1.0, -1.0]], dtype=F64), torch.tensor([[1.0, 1.0]], dtype=F64))


def linear(weight: list[list[float]], bias: list[float], source: int) -> Linear:
    return Linear(weight=torch.tensor(weight), bias=torch.tensor(bias), inputs=(source,))


def by_hand() -> Network:
    """z = relu(x + y + 1/4) - relu(x)/2 - 1/2 is a hidden neuron: default slopes (1 and 0) are not the best ones."""
    first = linear([[1.0, 1.0], [1.0, 0.0]], [0.25, 0.0], 0)
    second = linear([[1.0, -0.5], [-1.0, 1.0]], [-0.5, 0.25], 2)
    return Network((first, ReLU(inputs=(1,)), second, ReLU(inputs=(3,)), linear([[1.0, 1.0]], [0.0], 4)))


def exact_range(network: Network, neuron: int) -> tuple[Fraction, Fraction]:
    """Of a neuron of value 3."""
    hidden = Network(network.steps[:3])
    ends = ([Fraction(v) for v in end[0].tolist()] for end in BOX)
    unit = [Fraction(int(i == neuron)) for i in range(hidden.num_classes)]
    lower, upper = ends
    low = exact_minimum(hidden, lower, upper, unit)
    high = exact_minimum(hidden, lower, upper, [-u for u in unit])
    assert low is not None
    assert high is not None
    return low, -high


@pytest.mark.parametrize("network", [by_hand(), *(tiny_network(seed, hidden=(4, 3)) for seed in range(6))])
def test_between_the_exact_range_and_default_slopes(network: Network) -> None:
    crown = RigorousCrown(network)
    before, after = crown.boxes_over(BOX)[3], tight_boxes(crown, network, BOX)[3]
    assert bool((after.lower >= before.lower).all())
    assert bool((after.upper <= before.upper).all())
    for neuron in range(after.lower.shape[1]):
        low, high = exact_range(network, neuron)
        assert Fraction(after.lower[0, neuron].item()) <= low
        assert high <= Fraction(after.upper[0, neuron].item())


def test_better_slopes_are_found() -> None:
    network = by_hand()
    crown = RigorousCrown(network)
    before, after = crown.boxes_over(BOX)[3], tight_boxes(crown, network, BOX)[3]
    assert float((after.upper - after.lower).sum()) < float((before.upper - before.lower).sum()) - 0.05


def test_without_time_the_boxes_are_those_of_crown() -> None:
    network = tiny_network(0, hidden=(4, 3))
    crown = RigorousCrown(network)
    late = tight_boxes(crown, network, BOX, until=time.perf_counter())
    for one, other in zip(late, crown.boxes_over(BOX), strict=True):
        assert torch.equal(one.lower, other.lower)
        assert torch.equal(one.upper, other.upper)
    with pytest.raises(TimeoutError):
        tight_boxes(crown, network, BOX, deadline=time.perf_counter())
