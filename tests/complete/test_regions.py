"""Regions against the exact minimum of tiny networks: they prove what is true, and nothing else.

Also tested here: complete/region_branching.py.
"""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete import regions
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.complete.optimise import Schedule, optimise
from acert_zoo.complete.region_branching import influence, scores
from acert_zoo.complete.regions import RegionSearch
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU
from tests.support.relu_patterns import exact_minimum, tiny_network

F64 = torch.float64
BOX = Interval(torch.tensor([[-1.0, -1.0]], dtype=F64), torch.tensor([[1.0, 1.0]], dtype=F64))


def search(network: Network, shift: float) -> tuple[RegionSearch, LeafProver]:
    """For f_0 - f_1 + shift > 0 and f_1 - f_0 + 100 > 0 on the box."""
    prover = LeafProver(network)
    rows = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=F64)
    found = RegionSearch(
        prover,
        network,
        BOX,
        rows,
        torch.tensor([shift, 100.0], dtype=F64),
        cushion=1e-6,
        memory=1e8,
        corner=lambda coefficients: False,
        choose=lambda bounds: torch.arange(len(bounds)),
    )
    return found, prover


@pytest.mark.parametrize("seed", [0, 2, 6])
@pytest.mark.parametrize("share", [0.0, 5.0])  # of time: regions alone, or branch and bound within them
def test_against_the_exact_minimum(monkeypatch: pytest.MonkeyPatch, seed: int, share: float) -> None:
    monkeypatch.setattr(regions, "FIRST", share)
    monkeypatch.setattr(regions, "LATER", share)
    network = tiny_network(seed)
    ends = ([Fraction(v) for v in end[0].tolist()] for end in BOX)
    lower, upper = ends
    minimum = exact_minimum(network, lower, upper, (Fraction(1), Fraction(-1)))
    assert minimum is not None
    above, prover = search(network, 1e-3 - float(minimum))
    assert above.run(prover.boxes(BOX), time.perf_counter() + 30) == "proved"
    assert above.parts >= 2
    below, prover = search(network, -1e-3 - float(minimum))
    assert below.run(prover.boxes(BOX), time.perf_counter() + 30) != "proved"


def test_what_time_is_for() -> None:
    network = tiny_network(0, hidden=(4, 3))
    late, prover = search(network, 0.0)
    assert late.run(prover.boxes(BOX), time.perf_counter() - 1) == "time"
    assert late.parts == 0


def test_the_neuron_with_the_widest_gap_is_split() -> None:
    """f = -relu(x) - 10 relu(y): the gap of the second neuron counts ten times, until it is fixed."""
    first = Linear(weight=torch.eye(2), bias=torch.zeros(2), inputs=(0,))
    head = Linear(weight=torch.tensor([[-1.0, -10.0]]), bias=torch.zeros(1), inputs=(2,))
    network = Network((first, ReLU(inputs=(1,)), head))
    boxes = LeafProver(network).boxes(BOX)
    for fixed, expected in (((), 1), (((1, 1),), 0), (((0, -1), (1, 1)), None)):
        bounds = LinearBounds(network, boxes, fixed=fixed)
        found = optimise(bounds, torch.ones(1, 1), torch.zeros(1), bounds.start(1), Schedule(0))
        assert influence(bounds, found, [0], []) == expected
    free = LinearBounds(network, boxes)
    minimum = optimise(free, torch.ones(1, 1), torch.zeros(1), free.start(1), Schedule(0)).minimum
    assert scores(free, minimum, []).tolist() == pytest.approx([0.5, 5.0])  # coefficient times 1/2
