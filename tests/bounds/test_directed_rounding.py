"""Numbers moved outward, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.bounds.directed_rounding import U32, U64, difference_down, down, gamma, sum_up, up
from acert_zoo.exact_numbers import round_down, round_up

NUMBER = st.floats(-1e300, 1e300)


def tensor(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_up_and_down_by_hand() -> None:
    assert up(tensor(1.0)).item() == 1 + 2 * U64
    assert down(tensor(1.0)).item() == 1 - U64
    assert up(tensor(0.0)).item() == 5e-324
    assert down(tensor(math.inf)).item() == 1.7976931348623157e308


def test_up_and_down_pass_gradients() -> None:
    x = tensor(1.0).requires_grad_()
    (3 * up(x) + 4 * down(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 7


@given(NUMBER, NUMBER)
def test_sums_and_differences_are_rounded_in_one_direction(a: float, b: float) -> None:
    assert sum_up(tensor(a), tensor(b)).item() == round_up(Fraction(a) + Fraction(b))
    assert difference_down(tensor(a), tensor(b)).item() == round_down(Fraction(a) - Fraction(b))


@pytest.mark.parametrize("u", [U64, U32])
@pytest.mark.parametrize("k", [1, 9, 1000, 2**20])
def test_gamma_is_not_below_its_definition(k: int, u: float) -> None:
    exact = k * Fraction(u) / (1 - k * Fraction(u))
    assert exact <= Fraction(gamma(k, u)) <= exact * (1 + Fraction(2) ** -50)
