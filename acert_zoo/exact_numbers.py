"""Exact radii: decimal strings and fractions to float64 and back, always rounded in the direction that stays true.

`fl64(2/255) < 2/255`, and so for 143 of the 255 values k/255; `fl64(0.3) < 3/10`. A proof "for eps = 2/255" must
therefore run at the smallest float64 at or above 2/255, and a claim "certified at 2/255" must compare fractions.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction
from typing import Any, TypeVar

from acert_zoo.errors import InvalidInputError

# Bounded on purpose: Fraction("1e999999999") would compute a number of a billion digits.
_DECIMAL = re.compile(r"[+-]?(\d{1,60}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,3})?", re.ASCII)
_RATIO = re.compile(r"[+-]?\d{1,60}(\.\d{1,60})?\s*/\s*\d{1,60}(\.\d{1,60})?", re.ASCII)  # "8.8/255" too
_ACCEPTED = "a number >= 0 such as '2/255', '0.3', 1e-3 or Fraction(2, 255)"
_Float64 = TypeVar("_Float64", bound=Any)


def two_sum(a: _Float64, b: _Float64) -> tuple[_Float64, _Float64]:
    """(s, e) with s = fl(a + b) and a + b = s + e exactly, for float64 numbers, arrays or tensors; no overflow.

    TwoSum: Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B.

    >>> two_sum(1.0, 2.0**-60) == (1.0, 2.0**-60)
    True
    """
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


def parse_eps(value: str | int | float | Fraction) -> Fraction:
    """The exact value of a radius (pixel units): '2/255' is the fraction, '0.3' is 3/10, the float 0.3 is itself.

    Raises:
        InvalidInputError: negative, not finite, or not a number.

    >>> parse_eps("2/255"), parse_eps("0.3"), parse_eps(0.5)
    (Fraction(2, 255), Fraction(3, 10), Fraction(1, 2))
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Fraction)):
        raise InvalidInputError(f"eps {value!r} is not {_ACCEPTED}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"eps {value!r} is not finite; accepted: {_ACCEPTED}")
    if isinstance(value, str):
        text = value.strip()
        if not (_DECIMAL.fullmatch(text) or _RATIO.fullmatch(text)):
            raise InvalidInputError(f"eps {value!r} is not {_ACCEPTED}")
    try:
        if isinstance(value, str):
            numerator, _, denominator = text.partition("/")
            exact = Fraction(numerator.strip()) / Fraction(denominator.strip() or 1)
        else:
            exact = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidInputError(f"eps {value!r} is not {_ACCEPTED}") from error
    if exact < 0:
        raise InvalidInputError(f"eps {value!r} is negative; accepted: {_ACCEPTED}")
    return exact


def parse_pixel_eps(value: str | int | float | Fraction) -> Fraction:
    """As `parse_eps`, for pixels in [0, 1]: "2" is refused, which is almost surely meant as 2/255.

    Raises:
        InvalidInputError: as `parse_eps`, or above 1.
    """
    exact = parse_eps(value)
    if exact > 1:
        levels = f"; for {exact} grey levels of 255 write '{exact}/255'" if exact <= 255 and exact == int(exact) else ""
        raise InvalidInputError(f"eps {value!r} is more than 1, the whole range of a pixel{levels}")
    return exact


def round_up(f: Fraction) -> float:
    """The smallest float64 >= f (inf beyond the largest)."""
    try:
        x = float(f)  # correctly rounded, subnormals included
    except OverflowError:
        x = math.inf if f > 0 else -math.inf
    return math.nextafter(x, math.inf) if x == -math.inf or (x < math.inf and Fraction(x) < f) else x


def round_down(f: Fraction) -> float:
    """The largest float64 <= f (-inf below the smallest)."""
    return -round_up(-f)


def down(value: float | Fraction, digits: int) -> str:
    """`value` >= 0 with `digits` decimals, rounded down exactly: what was proved is never printed as more.

    >>> down(0.0299, 2), down(Fraction(2, 3), 3)
    ('0.02', '0.666')
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    scaled = math.floor(Fraction(value) * 10**digits)
    text = str(scaled).rjust(digits + 1, "0")
    return text[:-digits] + "." + text[-digits:] if digits else text


def up(value: float | Fraction, digits: int) -> str:
    """`value` >= 0 with `digits` decimals, rounded up exactly: for upper bounds."""
    return down(Fraction(math.ceil(Fraction(value) * 10**digits), 10**digits), digits)


def decimal_down(value: float, digits: int) -> str:
    """As `down`, for a number of a JSON file: the decimal it prints as is meant, 54.3 and not the float64 below."""
    return down(Fraction(repr(float(value))), digits) if math.isfinite(value) else str(value)


def shortest_down(r: float) -> str:
    """The shortest decimal string that reads back as the float64 `r` and whose exact decimal value is <= r.

    So neither a reader who parses it as float64 nor one who takes the decimal literally sees more than was proved
    (`repr(0.3)` is "0.3", which is more than the float64 0.3). Like `repr`, it always has a point or an exponent.

    Raises:
        InvalidInputError: `r` negative or not finite.

    >>> shortest_down(0.1), shortest_down(0.3), shortest_down(0.0)
    ('0.1', '0.29999999999999998', '0.0')
    """
    r = float(r)
    if not (math.isfinite(r) and r >= 0):
        raise InvalidInputError(f"radius {r!r} must be finite and >= 0")
    if r == 0:
        return "0.0"
    exact = Decimal(r)
    fewest = len(Decimal(repr(r)).normalize().as_tuple().digits)  # no shorter string reads back as r
    for digits in range(fewest, 800):  # 20 are enough for normal numbers; an exact binary fraction needs at most 767
        text = _plain(Context(prec=digits, rounding=ROUND_DOWN, Emin=-400, Emax=400).plus(exact))
        if float(text) == r:
            return text
    raise AssertionError(f"no decimal found for {r!r}")  # pragma: no cover


def duration(seconds: float) -> str:
    """ "0.31 s", "4 min 05 s", "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _plain(value: Decimal) -> str:
    """`value` without trailing zeros, in the notation `repr` would choose for a float of its size."""
    value = value.normalize(Context(prec=800, Emin=-2000, Emax=2000))
    if -5 < value.adjusted() < 16:
        text = f"{value:f}"
        return text if "." in text else text + ".0"
    return f"{value:e}"
