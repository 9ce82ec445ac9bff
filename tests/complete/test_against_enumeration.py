"""Search and proofs against the exact minimum of tiny networks, found by enumerating activation patterns.

Also tested here: complete/branching.py, complete/leaf_proof.py, complete/linear_bounds.py, complete/linear_rules.py,
complete/linear_program.py, complete/optimise.py.
"""

from __future__ import annotations

import math
import random
import time
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.branch_and_bound import BranchAndBound
from acert_zoo.complete.leaf_proof import LeafProver, Leaves
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.complete.proof import check_proof
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU
from tests.support.relu_patterns import exact_minimum, tiny_network

F64 = torch.float64
ROW = (Fraction(1), Fraction(-1))


def box_of(seed: int, inputs: int) -> Interval:
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(1, inputs, generator=generator, dtype=F64)
    radius = 0.5 * torch.rand(1, inputs, generator=generator, dtype=F64)
    return Interval(center - radius, center + radius)


def minimum(network: Network, box: Interval, fixed: tuple[tuple[int, int], ...] = ()) -> Fraction | None:
    ends = ([Fraction(v) for v in end[0].tolist()] for end in box)
    return exact_minimum(network, *ends, ROW, fixed)


def rows() -> torch.Tensor:
    return torch.tensor([[1.0, -1.0]], dtype=F64)


def run(
    network: Network, box: Interval, shift: float, seconds: float = 20.0
) -> tuple[str, BranchAndBound, LeafProver, list[Interval]]:
    """Branch and bound in float64 of f_0 - f_1 + shift > 0."""
    prover = LeafProver(network)
    boxes = prover.boxes(box)
    bounds = LinearBounds(prover.network, boxes)
    const = torch.tensor([shift], dtype=F64)
    search = BranchAndBound(bounds, rows(), const, memory=1e8, cushion=1e-9)
    search.open_root(0, bounds.start(1), -math.inf)
    return search.run(time.perf_counter() + seconds), search, prover, boxes


def test_minimum_by_hand() -> None:
    """f = relu(x) - relu(-x) = x on [-1, 2]: every relaxation is loose, one split of each neuron makes it exact."""
    first = Linear(weight=torch.tensor([[1.0], [-1.0]]), bias=torch.zeros(2), inputs=(0,))
    head = Linear(weight=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), bias=torch.zeros(2), inputs=(2,))
    network = Network((first, ReLU(inputs=(1,)), head))
    box = Interval(torch.tensor([[-1.0]], dtype=F64), torch.tensor([[2.0]], dtype=F64))
    assert minimum(network, box) == -1
    assert minimum(network, box, ((0, 1),)) == 0
    assert minimum(network, box, ((0, 1), (1, 1))) == 0  # the point 0 alone
    outcome, search, prover, boxes = run(network, box, 1 + 1e-6)
    assert outcome == "proved"
    (bounds,) = check_proof(prover, boxes, rows(), torch.tensor([1 + 1e-6], dtype=F64), search.proof())
    assert 0 < float(bounds.min()) <= 1.1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20))
def test_leaf_bounds_never_exceed_the_minimum(seed: int) -> None:
    """Any constraints, slopes and multipliers, drawn without regard for what is sensible."""
    draw = random.Random(seed)
    network, box = tiny_network(seed), box_of(seed + 1, 2)
    prover = LeafProver(network)
    boxes = prover.boxes(box, refine=draw.random() < 0.5)
    neurons = prover.neurons(boxes)
    assert neurons == 5
    for _ in range(4):
        chosen = draw.sample(range(neurons), draw.randrange(neurons + 1))
        path = tuple((i, draw.choice((1, -1))) for i in chosen)
        multipliers = [draw.choice((0.0, 0.1, 1.0, 10.0)) for _ in path]
        slopes = torch.tensor([[draw.choice((0.0, 0.3, 1.0)) for _ in range(neurons)]], dtype=F64)
        const = torch.zeros(1, dtype=F64)
        leaf = Leaves(rows(), const, [path], [multipliers], torch.arange(neurons), slopes)
        bound = float(prover.lower_bounds(boxes, leaf))
        true = minimum(network, box, path)
        assert true is None or bound == -math.inf or Fraction(bound) <= true


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**20))
def test_search_to_the_end_reaches_the_minimum(seed: int) -> None:
    network, box = tiny_network(seed), box_of(seed + 1, 2)
    true = minimum(network, box)
    assert true is not None
    shift = float(-true) + 1e-6
    outcome, search, prover, boxes = run(network, box, shift)
    assert outcome == "proved"
    (bounds,) = check_proof(prover, boxes, rows(), torch.tensor([shift], dtype=F64), search.proof())
    assert bool((bounds > 0).all())
    assert Fraction(float(bounds.min())) <= true + Fraction(shift)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_false_is_never_proved(seed: int) -> None:
    """A row whose minimum is just below 0: no search, however long, may end in a proof that passes."""
    network, box = tiny_network(seed), box_of(seed + 1, 2)
    true = minimum(network, box)
    assert true is not None
    outcome, search, _, _ = run(network, box, float(-true) - 1e-6, seconds=5.0)
    assert outcome in ("stuck", "time")
    assert search.frontier
