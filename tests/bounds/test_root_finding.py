"""The root search: functions with known roots first, then hostile ones against its bound on the evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.bounds.root_finding import CUSHION, SMALLEST, find_roots, most_evaluations, project

RTOL = 1e-6


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("rtol", "most"), [(1e-6, 37), (7.5e-7, 37), (1e-4, 30), (0.01, 23)])
def test_the_bound_is_that_of_bisection_and_ten_more(rtol: float, most: int) -> None:
    halvings = 0
    width = math.log1p(rtol) - math.log(SMALLEST)
    while width > math.log1p(rtol):
        width, halvings = width / 2, halvings + 1
    assert most_evaluations(rtol) == halvings + 10 == most


def test_a_point_is_moved_only_where_the_bound_asks_for_it() -> None:
    point, low, high = numbers(0.9), numbers(0.01), numbers(1.0)
    assert project(point, low, high, RTOL, 36).item() == 0.9
    assert project(point, low, high, RTOL, 1).item() == pytest.approx(0.1)  # nothing left to give away: the middle
    left = math.ceil(math.log2(math.log(100) / math.log1p(RTOL)))  # as many as bisection needs
    halved = project(point, low, high, RTOL, left).item()
    assert 0.1 <= halved < 0.9
    assert math.log(halved / 0.01) <= math.ldexp(math.log1p(RTOL), left - 1) * (1 + 1e-9)


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e-300, 0.0])
def test_a_bound_that_is_never_positive_ends(value: float) -> None:
    one, guess = torch.ones(3, dtype=torch.float64), numbers(0.01, 1, 1e-30)
    roots = find_roots(lambda i, e: torch.full_like(e, value), one, guess, one, RTOL)
    assert roots.low.tolist() == [0, 0, 0]
    assert roots.evaluations <= 3 * most_evaluations(RTOL)


@settings(max_examples=60, deadline=None)
@given(
    root=st.floats(1e-7, 0.99),
    power=st.floats(0.3, 6),
    factor=st.floats(1e-3, 1e3),
    jump=st.booleans(),
    guess=st.floats(1e-6, 1),
)
def test_find_roots_brackets_from_below(root: float, power: float, factor: float, jump: bool, guess: float) -> None:
    """Any decreasing function, smooth or with a jump to NaN at its root: the end that passed, close to the root."""

    def evaluate(index: Tensor, eps: Tensor) -> Tensor:
        value = factor * (1 - (eps / root) ** power)
        return torch.where(eps < root, factor, math.nan) if jump else value

    roots = find_roots(evaluate, numbers(factor), numbers(guess), numbers(1.2), RTOL)
    assert root * (1 - 2e-6) <= roots.low.item() <= root
    assert roots.evaluations <= most_evaluations(RTOL)


def test_margins_are_followed_one_by_one() -> None:
    """Where another class takes over, R has a kink, and the two margins have none."""

    def margins(index: Tensor, eps: Tensor) -> Tensor:
        return torch.stack([1 - eps, 2 - (eps / 0.125) ** 2, torch.full_like(eps, math.inf)], 1)

    root = 0.125 * math.sqrt(2)
    clean = numbers(1.0, 2.0, math.inf).unsqueeze(0)
    each = find_roots(margins, clean, numbers(0.02), numbers(1.5), RTOL)
    smallest = find_roots(lambda i, e: margins(i, e).amin(1), clean.amin(1), numbers(0.02), numbers(1.5), RTOL)
    for roots in (each, smallest):
        assert root * (1 - 1e-6) <= roots.low.item() <= root
    assert each.evaluations < smallest.evaluations


HOSTILE = st.one_of(
    st.floats(-1e-6, 1e-6),
    st.floats(-1.0, 1.0),
    st.floats(-1e-300, 1e-300),  # subnormals, too
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, -4e-7, 4e-7, 1.7e308, -1.7e308]),
)


def steps(edges: list[float], values: list[float]) -> Callable[[float], float]:
    """values[j] on the j-th interval between the edges: a step function."""
    ordered = sorted(edges)
    return lambda eps: values[sum(eps > edge for edge in ordered)]


@settings(max_examples=300, deadline=None)
@given(
    edges=st.lists(st.floats(-30, 0).map(lambda z: 10.0**z), min_size=1, max_size=6),
    drawn=st.lists(HOSTILE, min_size=7, max_size=7),
    monotone=st.booleans(),
    slope=st.sampled_from([0.0, 1e-12, 1e-7, 1.0]),
    guess=st.one_of(st.floats(0, 2), st.sampled_from([math.nan, math.inf, 5e-324])),
    exponent=st.sampled_from([1.2, 0.0, math.nan, math.inf, -1.0]),
    growth=st.sampled_from([0.0, 0.5, 30.0]),
    scale=st.sampled_from([1.0, 5e-324, 1e-300, 1e300]),
    rtol=st.sampled_from([1e-6, 0.01]),
)
@example([0.01], [1.0, -4e-7, 0, 0, 0, 0, 0], True, 1e-7, 0.5, 1.2, 0.0, 1.0, 1e-6)  # a plateau just below 0
def test_hostile_functions_end_within_the_bound(
    edges: list[float],
    drawn: list[float],
    monotone: bool,
    slope: float,
    guess: float,
    exponent: float,
    growth: float,
    scale: float,
    rtol: float,
) -> None:
    """Plateaus, jumps, NaN, infinities, subnormals: an end, and a radius that was seen to pass."""
    values = sorted(drawn, key=lambda v: (math.isnan(v), -v if v == v else 0.0)) if monotone else drawn
    function = steps(edges, [v * scale for v in values])
    passed: dict[float, float] = {}
    count = 0

    def evaluate(index: Tensor, eps: Tensor) -> Tensor:
        nonlocal count
        count += len(eps)
        point = eps.item()
        assert SMALLEST <= point <= 1
        value = function(point) - slope * scale * point
        if value > CUSHION * scale:
            passed[point] = value
        return numbers(value)

    roots = find_roots(evaluate, numbers(scale), numbers(guess), numbers(exponent), rtol, growth=growth)
    assert roots.evaluations == count <= most_evaluations(rtol)
    low = roots.low.item()
    assert low == max(passed, default=0.0) if monotone else low == 0 or low in passed
    if low:
        assert roots.low_value.item() == passed[low]


@settings(max_examples=100, deadline=None)
@given(edge=st.floats(-29, -0.01).map(lambda z: 10.0**z), guess=st.floats(1e-9, 1), depth=st.floats(1e-15, 1e3))
def test_a_step_is_found_to_the_tolerance(edge: float, guess: float, depth: float) -> None:
    """1 before the edge, a plateau just below 0 behind it: both ends of the bracket are met."""
    found = find_roots(
        lambda i, e: torch.where(e <= edge, 1.0, -depth), numbers(1.0), numbers(guess), numbers(1.2), RTOL
    )
    assert edge * (1 - 1.01 * RTOL) <= found.low.item() <= edge
    assert found.evaluations <= most_evaluations(RTOL)
