"""Numbers for people: rounded down exactly, shares parsed exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest

from acert_zoo.cli.numbers import parse_share, percent, radius
from acert_zoo.errors import InvalidInputError


def test_a_radius_never_shows_more_than_it_is() -> None:
    assert radius(2 / 255) == "0.007843 (1.99/255)"  # fl(2/255) < 2/255
    assert radius(0.0) == "0.000000 (0.00/255)"


def test_percent_is_rounded_down_and_of_nothing_is_a_dash() -> None:
    assert percent(2, 3) == "66.66 %"
    assert percent(100, 100) == "100.00 %"
    assert percent(0, 0) == "-"


@pytest.mark.parametrize(("text", "share"), [("40%", "2/5"), ("0.4", "2/5"), ("1", "1"), ("100 %", "1"), ("0", "0")])
def test_shares(text: str, share: str) -> None:
    assert parse_share(text) == Fraction(share)


@pytest.mark.parametrize("text", ["40", "-1%", "101%", "nan", "", "%", "1/0", "inf"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="40%"):
        parse_share(text)
