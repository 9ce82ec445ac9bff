"""Floating-point numbers moved outward, and the unit roundoffs that proofs reckon with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from acert_zoo.exact_numbers import two_sum

U64 = 2.0**-53  # unit roundoff of float64
U32 = 2.0**-24  # unit roundoff of float32
_INF = torch.tensor(math.inf, dtype=torch.float64)


def up(x: Tensor) -> Tensor:
    """The next float64 towards +inf, elementwise. Its gradient is that of x."""
    return _next(x, _infinity(x))


def down(x: Tensor) -> Tensor:
    """The next float64 towards -inf, elementwise. Its gradient is that of x."""
    return _next(x, -_infinity(x))


def _infinity(x: Tensor) -> Tensor:
    return _INF if x.device.type == "cpu" else x.new_full((), math.inf)


def _next(x: Tensor, towards: Tensor) -> Tensor:
    return _Next.apply(x, towards) if x.requires_grad else torch.nextafter(x, towards)


class _Next(torch.autograd.Function):
    """nextafter with a gradient: older torch (2.4) has none for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, towards: Tensor) -> Tensor:  # type: ignore[override]
        return torch.nextafter(x, towards)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


def gamma(k: int, u: float) -> float:
    """k u / (1 - k u), rounded up: the relative error that k roundings can add up to."""
    return math.nextafter(k * u / (1 - k * u), math.inf)


def sum_up(a: Tensor, b: Tensor) -> Tensor:
    """The exact a + b rounded up to float64."""
    s, error = two_sum(a, b)
    return torch.where(error > 0, up(s), s)


def difference_down(a: Tensor, b: Tensor) -> Tensor:
    """The exact a - b rounded down to float64."""
    return -sum_up(-a, b)
