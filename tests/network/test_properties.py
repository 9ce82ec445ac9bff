"""Properties: exact membership, boxes rounded outward, inequalities as matrices that lose no solution."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.network.properties import Case, Inequality, Property, matrix

TENTH = Fraction(1, 10)


def test_an_inequality_by_hand():
    # y_1 / 2 - y_0 / 3 <= 1/4, times 6
    inequality = Inequality.of({1: Fraction(1, 2), 0: Fraction(-1, 3)}, Fraction(1, 4))
    assert inequality == Inequality(((0, -2), (1, 3)), Fraction(3, 2))
    assert inequality.holds([0.0, 0.5])  # 3/2 <= 3/2
    assert not inequality.holds([0.0, 0.5000001])
    assert not Inequality.of({1: Fraction(1)}, Fraction(1, 2), strict=True).holds([0.0, 0.5])


def test_an_inequality_without_variables_is_a_truth_value():
    assert Inequality.of({0: Fraction(0)}, Fraction(0)).holds([7.0])
    assert not Inequality.of({}, Fraction(0), strict=True).holds([7.0])


def test_what_a_softmax_keeps():
    assert Inequality(((0, 1), (2, -1)), Fraction(0), strict=True).orders
    for other in (((0, 1),), ((0, 1), (1, 1)), ((0, 2), (1, -2)), ((0, 1), (1, -1), (2, -1))):
        assert not Inequality(other, Fraction(0)).orders
    assert not Inequality(((0, 1), (1, -1)), Fraction(1, 10)).orders


def test_membership_is_exact():
    """float64(0.1) is more than 1/10: it lies in [1/10, 1], and not in [0, 1/10]."""
    assert Case((TENTH,), (Fraction(1),), ((),)).contains([0.1])
    assert not Case((Fraction(0),), (TENTH,), ((),)).contains([0.1])
    assert not Case((Fraction(0),), (TENTH,), ((),)).contains([0.05, 0.05])


def test_a_box_is_rounded_outward():
    low, high = Case((TENTH,) * 2, (TENTH,) * 2, ((),)).box()
    assert low.dtype == np.float64
    assert Fraction(low[0]) < TENTH < Fraction(high[0])
    assert np.nextafter(low[0], 1) == high[0]


def test_a_counterexample_needs_one_case_and_all_of_one_conjunction():
    above = Inequality(((0, -1),), Fraction(-2))  # y_0 >= 2
    below = Inequality(((1, 1),), Fraction(0))  # y_1 <= 0
    case = Case((Fraction(0),), (Fraction(1),), ((above, below), (Inequality(((1, -1),), Fraction(-9)),)))
    prop = Property((case,), 1, 2)
    assert prop.violated([0.5], [2.0, 0.0])
    assert prop.violated([0.5], [0.0, 9.0])
    assert not prop.violated([0.5], [2.0, 1.0])
    assert not prop.violated([1.5], [2.0, 0.0])
    assert not Property((), 1, 2).violated([0.5], [2.0, 0.0])


fractions = st.fractions(-9, 9, max_denominator=10**6)


@given(st.lists(st.tuples(st.dictionaries(st.integers(0, 2), fractions), fractions), max_size=3), st.data())
def test_the_matrix_keeps_every_solution(rows, data):
    conjunction = tuple(Inequality.of(c, b) for c, b in rows)
    outputs = data.draw(st.lists(fractions, min_size=3, max_size=3))
    a, b = matrix(conjunction, 3)
    if all(i.holds(outputs) for i in conjunction):
        for row, bound in zip(a, b, strict=True):
            assert sum(Fraction(c) * y for c, y in zip(row, outputs, strict=True)) <= Fraction(bound)


def test_coefficients_beyond_float64_leave_the_matrix():
    wide = Inequality(((0, 2**60 + 1), (1, 1)), Fraction(0))
    a, b = matrix((wide, Inequality(((1, 2),), Fraction(1))), 2)
    assert a.tolist() == [[0, 2]]
    assert b.tolist() == [1]
