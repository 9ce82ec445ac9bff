"""Branch and bound within its limits; that what it proves is true: test_against_enumeration.py."""

from __future__ import annotations

import time

import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.branch_and_bound import BranchAndBound
from acert_zoo.complete.decider import Limits
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU

F64 = torch.float64
MEBIBYTE = 2.0**20


def wide_network() -> Network:
    """f_0 - f_1 = the sum of |x_i|, over 12 inputs: every neuron is open, and no case is proved before many splits."""
    eye = torch.eye(12)
    first = Linear(weight=torch.cat([eye, -eye]), bias=torch.zeros(24), inputs=(0,))
    head = Linear(weight=torch.stack([torch.ones(24), torch.zeros(24)]), bias=torch.zeros(2), inputs=(2,))
    return Network((first, ReLU(inputs=(1,)), head))


def search_with(memory: float) -> BranchAndBound:
    """Of a claim that is false by 1e-3: it cannot end in a proof."""
    prover = LeafProver(wide_network())
    box = Interval(-torch.ones(1, 12, dtype=F64), torch.ones(1, 12, dtype=F64))
    bounds = LinearBounds(prover.network, prover.boxes(box))
    rows, const = torch.tensor([[1.0, -1.0]], dtype=F64), torch.tensor([-1e-3], dtype=F64)
    search = BranchAndBound(bounds, rows, const, memory=memory, cushion=1e-9)
    search.open_root(0, bounds.start(1), -24.0)
    return search


def test_the_memory_limit_ends_the_search() -> None:
    """As many open cases as fit, and one batch more at most; then it says so."""
    search = search_with(memory=20_000.0)
    assert search.run(time.perf_counter() + 60) == "memory"
    assert search.most < len(search.frontier) <= search.most + search.batch
    held = sum(leaf.alpha.nbytes + leaf.beta.nbytes for _, _, leaf in search.frontier.heap)
    assert held <= 2 * 20_000


def test_the_deadline_ends_the_search() -> None:
    search = search_with(memory=100 * MEBIBYTE)
    begun = time.perf_counter()
    assert search.run(begun - 1) == "time"
    assert search.visited == 0


@pytest.mark.parametrize("bad", [{"budget": 0.0}, {"budget": float("nan")}, {"memory": 2.0**19}])
def test_limits_that_cannot_be_kept_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="budget must be"):
        Limits(**bad)
