"""Numbers for people. What was proved is printed rounded down, never to nearest: no figure says more than the proof."""

from __future__ import annotations

from fractions import Fraction

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import down


def percent(part: int, whole: int) -> str:
    """ "54.3 %" for 543 of 1,000, rounded down; "-" of nothing."""
    return f"{down(Fraction(100 * part, whole), 2)} %" if whole else "-"


def radius(value: float) -> str:
    """A radius in pixel units and in units of one grey level, both rounded down: "0.014117 (3.59/255)"."""
    return f"{down(value, 6)} ({down(Fraction(value) * 255, 2)}/255)"


def parse_share(text: str) -> Fraction:
    """ "40%" or "0.4" as the exact share 2/5; anything not in [0, 1] is an InvalidInputError."""
    try:
        number = text.strip()
        share = Fraction(number[:-1]) / 100 if number.endswith("%") else Fraction(number)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise InvalidInputError(f"--fail-under {text!r}: expected a share such as 40% or 0.4")
    return share
