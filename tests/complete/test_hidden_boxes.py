"""Boxes of hidden neurons against their exact ranges, and against those of CROWN's default slopes."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.hidden_boxes import HiddenBoxes, tight_boxes
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
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


def exact_range(
    network: Network, neuron: int, fixed: tuple[tuple[int, int], ...] = ()
) -> tuple[Fraction, Fraction] | None:
    """Of a neuron of value 3, over the points where the fixed neurons have their signs; None if there are none."""
    hidden = Network(network.steps[:3])
    ends = ([Fraction(v) for v in end[0].tolist()] for end in BOX)
    unit = [Fraction(int(i == neuron)) for i in range(hidden.num_classes)]
    lower, upper = ends
    low = exact_minimum(hidden, lower, upper, unit, fixed)
    high = exact_minimum(hidden, lower, upper, [-u for u in unit], fixed)
    return None if low is None or high is None else (low, -high)


@pytest.mark.parametrize("network", [by_hand(), *(tiny_network(seed, hidden=(4, 3)) for seed in range(6))])
def test_between_the_exact_range_and_default_slopes(network: Network) -> None:
    prover = LeafProver(network)
    before, after = prover.boxes(BOX)[3], tight_boxes(BOX, HiddenBoxes(prover, network))[3]
    assert bool((after.lower >= before.lower).all())
    assert bool((after.upper <= before.upper).all())
    for neuron in range(after.lower.shape[1]):
        found = exact_range(network, neuron)
        assert found is not None
        low, high = found
        assert Fraction(after.lower[0, neuron].item()) <= low
        assert high <= Fraction(after.upper[0, neuron].item())


def test_better_slopes_are_found() -> None:
    network = by_hand()
    prover = LeafProver(network)
    before, after = prover.boxes(BOX)[3], tight_boxes(BOX, HiddenBoxes(prover, network))[3]
    assert float((after.upper - after.lower).sum()) < float((before.upper - before.lower).sum()) - 0.05


def test_without_time_the_boxes_are_those_of_crown() -> None:
    network = tiny_network(0, hidden=(4, 3))
    prover = LeafProver(network)
    late = tight_boxes(BOX, HiddenBoxes(prover, network, until=time.perf_counter()))
    for one, other in zip(late, prover.boxes(BOX), strict=True):
        assert torch.equal(one.lower, other.lower)
        assert torch.equal(one.upper, other.upper)
    with pytest.raises(TimeoutError):
        tight_boxes(BOX, HiddenBoxes(prover, network, deadline=time.perf_counter()))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sign", [1, -1])
def test_under_constraints_the_exact_range_lies_inside(seed: int, sign: int) -> None:
    """Neuron 1 has a sign; no box of a part of the box may lose a point of that part."""
    network = tiny_network(seed, hidden=(4, 3))
    prover = LeafProver(network)
    whole = HiddenBoxes(prover, network)
    known = tight_boxes(BOX, whole)
    hidden = HiddenBoxes(prover, network, ((1, sign),), known, whole.sides)
    after = tight_boxes(BOX, hidden)
    some = exact_range(network, 0, ((1, sign),))
    if hidden.empty:
        assert some is None
        return
    end = after[1].lower if sign > 0 else -after[1].upper
    assert float(end[0, 1]) >= 0
    for neuron in range(after[3].lower.shape[1]):
        found = exact_range(network, neuron, ((1, sign),))
        if found is not None:
            assert Fraction(after[3].lower[0, neuron].item()) <= found[0]
            assert found[1] <= Fraction(after[3].upper[0, neuron].item())


def test_a_part_without_points() -> None:
    """Where the first neuron is at most 0, that of the second layer, relu(..) - relu(x)/2 - 1/2, is at most -1/2."""
    network = by_hand()
    prover = LeafProver(network)
    first = HiddenBoxes(prover, network, ((0, -1), (2, 1)))
    tight_boxes(BOX, first)
    assert first.empty


def test_slopes_are_carried_to_the_same_neurons() -> None:
    """Neurons 0 and 2 had slopes; 0, 1 and 2 have them now: what both have is kept."""
    network = Network((linear([[1.0]] * 4, [0.0, 0.0, 0.0, 5.0], 0), ReLU(inputs=(1,)), linear([[1.0] * 4], [0.0], 2)))
    line = Interval(torch.tensor([[-1.0]], dtype=F64), torch.tensor([[1.0]], dtype=F64))
    bounds = LinearBounds(network, LeafProver(network).boxes(line), fixed=((1, -1),))
    assert bounds.neurons.tolist() == [0, 1, 2]
    old = Relaxation(torch.tensor([[0.25, 0.5]]), torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    new = bounds.carried(old, torch.tensor([0, 2]))
    assert new.alpha.tolist() == [[0.25, 0.0, 0.5]]
    assert new.beta.tolist() == [[0.0, 0.0, 2.0]]
    assert new.sign.tolist() == [[0.0, -1.0, 0.0]]


def test_sides_are_kept_within_their_memory() -> None:
    network = tiny_network(0, hidden=(4, 3))
    prover = LeafProver(network)
    rich, poor = HiddenBoxes(prover, network), HiddenBoxes(prover, network, memory=10.0)
    one, other = tight_boxes(BOX, rich), tight_boxes(BOX, poor)
    assert len(rich.sides) == 1
    assert poor.sides == []
    assert torch.equal(one[3].lower, other[3].lower)
