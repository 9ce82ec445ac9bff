"""Binarised networks: a step that jumps, bounded at both ends, certified up to the jump and not beyond it."""

from __future__ import annotations

import pytest
import torch

from acert_zoo.bounds.ibp import class_margins
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, Sign


def network() -> Network:
    """f = (sign(x - 1/2), 0) for one pixel x: class 0 above 1/2, class 1 below, a tie at 1/2."""
    first = Linear(inputs=(1,), weight=torch.ones(1, 1), bias=torch.tensor([-0.5]))
    head = Linear(inputs=(3,), weight=torch.tensor([[1.0], [0.0]]), bias=torch.zeros(2))
    return Network((Flatten(inputs=(0,)), first, Sign(inputs=(2,)), head))


def pixel(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


@pytest.mark.parametrize("level", ["real-sound", "float32-deployed"])
def test_proved_up_to_the_jump_and_not_beyond(level):
    rigorous = RigorousNetwork(network(), level)
    for x, label in ((0.75, 0), (0.25, 1)):
        assert rigorous.proves(pixel(x), torch.tensor([label]), 0.2499).item()
        assert not rigorous.proves(pixel(x), torch.tensor([label]), 0.25).item()
        assert not rigorous.proves(pixel(x), torch.tensor([1 - label]), 0.0).item()


def test_intervals_and_the_search_by_hand():
    net = network()
    margins = class_margins(net, pixel(0.75), torch.tensor([0]), 0.125)
    assert margins[0, 1] == 1
    assert class_margins(net, pixel(0.75), torch.tensor([0]), 0.375)[0, 1] == -1
    found = certified_radius(net, torch.cat([pixel(0.75), pixel(0.25)]), torch.tensor([0, 1]))
    assert found.radius.tolist() == pytest.approx([0.25, 0.25], abs=1e-5)
    assert bool((found.radius <= 0.25).all())


def test_an_overflow_proves_nothing():
    """Beyond float64's range the sign is unknown, and both are enclosed."""
    net = network()
    first = Linear(inputs=(1,), weight=torch.full((1, 1), 3e38), bias=torch.tensor([-3e38]))
    steps = (net.steps[0], first, Sign(inputs=(2,)), net.steps[3])
    assert not RigorousNetwork(Network(steps)).proves(pixel(0.5), torch.tensor([0]), 0.0).item()
