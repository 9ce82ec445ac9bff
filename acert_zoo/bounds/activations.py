"""Sound float64 enclosures of the sigmoid and of tanh, from +, -, *, / and powers of two alone.

What torch's own `sigmoid` and `tanh` compute depends on the vector library that it was built with, and is not correctly
rounded anywhere. So both are computed here, from IEEE operations (with or without FMA), and the error is proved.
u = 2^-53; "within e" is meant relatively; (1 + a u)(1 + b u) is written 1 + (a + b) u, what is missing being below u/4.

**q = exp(-a) for 0 <= a <= 708.** n = round(a / ln 2) <= 1022, and r = a - n ln 2. ln 2 = H + L + rest: H has 42 bits,
so that n H is exact; |L| < 2^-44; |rest| < 2^-101. r is computed as fl(fl(a - n H) - fl(n L)): |a - n H| and |r| are
below 0.3475 and |n L| < 2^-33, so the computed r is off by at most (0.3475 + 0.3475) u + 2^-86 + n 2^-101 <= u, and
exp(-r) changes by at most 1.01 u. For a < 0.34 no reduction takes place: n = 0 and r = a, exactly.

exp(-r) = sum of (-r)^k / k! up to k = 14: the rest of the series is below 0.3475^15 / 15! * 1.1 < u / 900. Horner's
rule with rounded coefficients deviates by at most g(2 * 14 + 1) times the sum of |r|^k / k!, which is below exp(|r|)
(Higham 2002, section 5.1); relative to exp(-r) that is 29.1 u exp(2 |r|) <= 58.4 u. A factor of 2^-n is exact, since q
is a normal number. Together, q is within 61 u < E = 2^-47.

**1 - q for a < 0.34** is a P, P = sum of (-a)^k / (k + 1)! up to k = 13: likewise P is within
27.1 u exp(0.34) / 0.847 + u <= 47 u, as the sum of a^k / (k + 1)! is below exp(a) and P(a) >= P(0.34) > 0.847.
So a P is within 48 u < E, unless it underflows.

**sigmoid**: 1 / (1 + q) for x >= 0, q / (1 + q) for x < 0, a = |x|. 1 + q is within E/2 + u, as q <= 1; the quotient
within 2 E + 2 u.

**tanh**, with q = exp(-2 a), a = |x|: m = 1 - q, tanh = m / (2 - m). For 2 a < 0.34, m is within E, and 2 - m > 1.7
within E/4 + u; the quotient within 2 E + 2 u. Otherwise q < 0.712 and m > 0.288: m is within 2.48 E + u, and
2 - m = 1 + q within E/2 + 2 u; the quotient within 3 E + 4 u.

`RELATIVE` = 4 E + 16 u covers both, and the roundings of the ends themselves; `TINY` covers underflow (of a P, of
q / (1 + q)). Both functions being monotone, the value at 708 is a lower bound beyond it, and the limit an upper one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from acert_zoo.bounds.directed_rounding import U64, down, up
from acert_zoo.bounds.ibp import Interval

LN2_HIGH = float.fromhex("0x1.62e42fefa38p-1")  # H: ln 2 to 42 bits, so that its product with n < 2^11 is exact
LN2_LOW = float.fromhex("0x1.ef35793c7673p-45")  # L: the rest of ln 2, to 53 bits
LARGEST = 708.0  # exp(-708) > 2^-1022: a normal number
UNREDUCED = 0.34  # below it n = 0
E = 2.0**-47  # within which q and a P are computed
RELATIVE = 4 * E + 16 * U64  # within which both functions are
TINY = 2.0**-1000  # above every underflow
_EXP = [(-1.0) ** k / math.factorial(k) for k in range(15)]
_EXPM1 = [(-1.0) ** k / math.factorial(k + 1) for k in range(14)]


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.mul_(x).add_(c)
    return total


def exp_of_minus(a: Tensor) -> Tensor:
    """exp(-a) within E, for float64 0 <= a <= 708."""
    n = torch.where(a < UNREDUCED, 0.0, torch.round(a / math.log(2)))
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    power = ((1023 - n.long()) << 52).view(torch.float64)  # 2^-n by its bits
    return _polynomial(_EXP, r) * power


def _one_minus_exp(a: Tensor) -> Tensor:
    """1 - exp(-a) within E for float64 0 <= a < UNREDUCED, underflow apart; something else for larger a."""
    return a * _polynomial(_EXPM1, a)


def _sigmoid(x: Tensor) -> Tensor:
    q = exp_of_minus(x.abs().clamp(max=LARGEST))
    return torch.where(x < 0, q, 1.0) / (1 + q)


def _tanh(x: Tensor) -> Tensor:
    a = (2 * x.abs()).clamp(max=LARGEST)
    m = torch.where(a < UNREDUCED, _one_minus_exp(a), 1 - exp_of_minus(a))
    return torch.copysign(m / (2 - m), x)


def _enclosed(
    function: Callable[[Tensor], Tensor], least: float, x: Interval, relative: float, absolute: float
) -> Interval:
    """Both ends, moved outward by so much and cut with [least, 1]; an end that is NaN is taken for infinite."""
    lower, upper = function(x.lower.nan_to_num(-math.inf)), function(x.upper.nan_to_num(math.inf))
    lower = down(down(lower - relative * lower.abs()) - absolute).clamp_(least, 1.0)
    upper = up(up(upper + relative * upper.abs()) + absolute).clamp_(least, 1.0)
    # beyond 708 the function is nearer to its limits than its value at 708
    lower.masked_fill_(~(x.lower >= -LARGEST), least)
    upper.masked_fill_(~(x.upper <= LARGEST), 1.0)
    return Interval(lower, upper)


def sigmoid_box(x: Interval, relative: float = 0.0, absolute: float = 0.0) -> Interval:
    """Encloses 1 / (1 + exp(-v)) for every v of a float64 box, and what is off by at most so much of it."""
    return _enclosed(_sigmoid, 0.0, x, RELATIVE + relative, TINY + absolute)


def tanh_box(x: Interval, relative: float = 0.0, absolute: float = 0.0) -> Interval:
    """Encloses tanh(v) for every v of a float64 box, and what is off by at most so much of it."""
    return _enclosed(_tanh, -1.0, x, RELATIVE + relative, TINY + absolute)
