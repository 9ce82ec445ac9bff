"""Decimal strings and fractions to float64 and back: the direction of rounding is the point."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import (
    decimal_down,
    down,
    duration,
    parse_eps,
    parse_pixel_eps,
    round_down,
    round_up,
    shortest_down,
    up,
)

BAD_NUMBERS = [-0.5, math.nan, math.inf, Fraction(-1, 2), b"1"]


def test_by_hand():
    assert parse_eps("2/255") == Fraction(2, 255)
    assert parse_eps(" 2 / 255 ") == Fraction(2, 255)
    assert parse_eps("0.3") == Fraction(3, 10) != parse_eps(0.3) == Fraction(0.3)
    assert parse_eps("1e-3") == Fraction(1, 1000)
    assert parse_eps(0) == parse_eps("-0") == 0
    assert round_up(Fraction(2, 255)) == math.nextafter(2 / 255, 1) > 2 / 255
    assert round_down(Fraction(2, 255)) == 2 / 255
    assert round_up(Fraction(1, 2)) == round_down(Fraction(1, 2)) == 0.5
    assert shortest_down(0.1) == "0.1"
    assert shortest_down(0.3) == "0.29999999999999998"  # "0.3" is more than the float64 0.3
    assert [shortest_down(r) for r in (0.0, 1.0, 1e22)] == ["0.0", "1.0", "1e+22"]


def test_how_often_the_nearest_float_lies_below_a_pixel_radius():
    assert sum(Fraction(k / 255) < Fraction(k, 255) for k in range(1, 256)) == 143


@pytest.mark.parametrize(
    "bad",
    [*BAD_NUMBERS, "abc", "2/0", "-1/255", "nan", "inf", "", "1/2/3", "1e99999", "0x10", "1_000", "٣", True, None, [1]],
)
def test_what_is_no_radius_is_named_in_the_error(bad):
    with pytest.raises(InvalidInputError) as caught:
        parse_eps(bad)
    assert repr(bad) in str(caught.value)


@given(st.fractions())
def test_neighbouring_floats_enclose_a_fraction(f):
    low, high = round_down(f), round_up(f)
    assert Fraction(low) <= f <= Fraction(high)
    assert high in (low, math.nextafter(low, math.inf))


def test_beyond_the_largest_and_below_the_smallest_float():
    huge, small = Fraction(10) ** 400, Fraction(1, 10**400)
    assert (round_up(huge), round_up(-huge)) == (math.inf, -1.7976931348623157e308)
    assert (round_down(huge), round_down(-huge)) == (1.7976931348623157e308, -math.inf)
    assert (round_up(small), round_down(small)) == (5e-324, 0.0)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_the_printed_radius_reads_back_and_never_exceeds_what_was_proved(r):
    text = shortest_down(r)
    assert float(text) == r
    assert Fraction(text) <= Fraction(r)
    assert parse_eps(text) <= Fraction(r) or len(text) > 400


@given(st.floats(min_value=1e-12, max_value=1, exclude_max=True))
def test_no_shorter_decimal_would_do(r):
    digits = len(shortest_down(r).split("e")[0].replace(".", "").strip("0"))
    if digits > 1:
        exact = Fraction(r)
        place = Fraction(10) ** (digits - 2 - math.floor(math.log10(r)))
        for shift in (0, 1):  # the two ways in which log10 may have rounded
            shorter = Fraction(math.floor(exact * place / 10**shift), 1) / place * 10**shift
            assert float(shorter) != r


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_only_radii_are_printed(bad):
    with pytest.raises(InvalidInputError, match="finite"):
        shortest_down(bad)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.0, 2, "0.00"), (0.0299, 2, "0.02"), (1.0, 3, "1.000"), (0.3, 17, "0.29999999999999998"), (12.999, 0, "12")],
)
def test_down_by_hand(value: float, digits: int, text: str) -> None:
    assert down(value, digits) == text


def test_up_by_hand() -> None:
    assert up(0.0201, 2) == "0.03"
    assert up(0.5, 2) == "0.50"
    assert up(0.0, 2) == "0.00"


@given(st.floats(0, 1), st.integers(0, 12))
def test_down_and_up_enclose_the_value_tightly(value: float, digits: int) -> None:
    low, high = Fraction(down(value, digits)), Fraction(up(value, digits))
    assert low <= Fraction(value) <= high
    assert high - low in (0, Fraction(1, 10**digits))


def test_numbers_of_json_files_mean_the_decimal_they_print_as() -> None:
    assert down(54.3, 2) == "54.29"  # the float64 lies below
    assert decimal_down(54.3, 2) == "54.30"
    assert decimal_down(0.29999999, 3) == "0.299"
    assert decimal_down(7, 0) == "7"


def test_a_radius_above_the_whole_range_of_a_pixel_is_refused() -> None:
    assert parse_pixel_eps("1") == 1
    assert parse_pixel_eps("2/255") == Fraction(2, 255)
    with pytest.raises(InvalidInputError, match=r"eps '2' is more than 1.*for 2 grey levels of 255 write '2/255'"):
        parse_pixel_eps("2")
    with pytest.raises(InvalidInputError, match=r"eps '2.5' is more than 1, the whole range of a pixel$"):
        parse_pixel_eps("2.5")


def test_ratios_of_decimals_are_exact() -> None:
    assert parse_eps("8.8/255") == Fraction(88, 2550)
    assert parse_eps("0.4") == Fraction(2, 5)


def test_durations() -> None:
    assert duration(0.314) == "0.31 s"
    assert duration(245) == "4 min 05 s"
    assert duration(7380) == "2 h 03 min"
