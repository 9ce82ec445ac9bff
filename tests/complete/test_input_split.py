"""Parts of a box in batches: each gets the bounds that it has alone."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.complete.counterexample import CounterexampleSearch
from acert_zoo.complete.input_split import split_inputs
from acert_zoo.network.properties import Case, Inequality
from tests.support.relu_patterns import exact_minimum, tiny_network

F64 = torch.float64


def test_a_batch_gives_what_each_box_gives_alone() -> None:
    crown = RigorousCrown(tiny_network(4))
    generator = torch.Generator().manual_seed(0)
    lower = torch.rand(5, 2, generator=generator, dtype=F64) - 0.5
    upper = lower + torch.rand(5, 2, generator=generator, dtype=F64)
    rows, const = torch.tensor([[1.0, -1.0]], dtype=F64), torch.zeros(1, dtype=F64)
    batch = crown.boxes_over(Interval(lower, upper))
    bounds, weight = crown.rows_over(batch, rows.expand(5, -1), const.expand(5))
    assert weight is not None
    for i in range(5):
        alone = crown.boxes_over(Interval(lower[i : i + 1], upper[i : i + 1]))
        for one, many in zip(alone, batch, strict=True):
            torch.testing.assert_close(many.lower[i : i + 1], one.lower, rtol=0, atol=1e-13)
            torch.testing.assert_close(many.upper[i : i + 1], one.upper, rtol=0, atol=1e-13)
        own, a = crown.rows_over(alone, rows, const)
        torch.testing.assert_close(bounds[i : i + 1], own, rtol=0, atol=1e-13)
        torch.testing.assert_close(weight[i : i + 1], a)


def test_parts_are_excluded_to_just_below_the_minimum() -> None:
    network = tiny_network(6)
    low, high = (Fraction(-1, 2),) * 2, (Fraction(1, 2),) * 2
    true = exact_minimum(network, low, high, (Fraction(1), Fraction(-1)))
    assert true is not None
    crown = RigorousCrown(network)
    search = CounterexampleSearch(network, crown, (2,))
    for shift, excluded in ((Fraction(-1, 1000), True), (Fraction(1, 1000), False)):
        inequality = Inequality.of({0: Fraction(1), 1: Fraction(-1)}, true + shift)
        case = Case(low, high, ((inequality,),))
        outcome = split_inputs(crown, search, case, time.perf_counter() + 60, batch=3)
        assert outcome.done == excluded
        assert (outcome.found is None) == excluded


def test_the_time_is_kept() -> None:
    network = tiny_network(6)
    crown = RigorousCrown(network)
    case = Case((Fraction(0),) * 2, (Fraction(1),) * 2, ((Inequality.of({0: Fraction(1)}, Fraction(0)),),))
    outcome = split_inputs(crown, CounterexampleSearch(network, crown, (2,)), case, time.perf_counter() - 1)
    assert outcome.late
    assert not outcome.done


def test_a_bound_that_is_no_number_excludes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What overflows gives NaN, which is neither above 0 nor below."""
    network = tiny_network(6)
    crown = RigorousCrown(network)
    case = Case((Fraction(0),) * 2, (Fraction(1),) * 2, ((Inequality.of({0: Fraction(1)}, Fraction(-(10**6))),),))
    search = CounterexampleSearch(network, crown, (2,))
    assert split_inputs(crown, search, case, time.perf_counter() + 60).done  # the first output is never that small
    monkeypatch.setattr(
        crown, "rows_over", lambda boxes, rows, const: (torch.full((len(rows),), torch.nan, dtype=F64), None)
    )
    assert not split_inputs(crown, search, case, time.perf_counter() + 0.5).done


def test_without_the_memory_for_zonotopes_crown_answers() -> None:
    network = tiny_network(6)
    crown = RigorousCrown(network)
    case = Case((Fraction(0),) * 2, (Fraction(1),) * 2, ((Inequality.of({0: Fraction(1)}, Fraction(-(10**6))),),))
    search = CounterexampleSearch(network, crown, (2,))
    assert split_inputs(crown, search, case, time.perf_counter() + 60, memory=1.0).done
