"""The regularisers against hand-worked numbers and a slow implementation with Python loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.bounds.ibp import Ball, Interval
from training.method.regularizers import l1, relu_balance, tightness


def _ball(lower: list[float], upper: list[float], scale: float = 1.0) -> Ball:
    low, high = torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64)
    return Ball((low + high) / 2 / scale, (high - low) / 2 / scale, scale)


def test_tightness_by_hand() -> None:
    box = Interval(torch.tensor([[0.0, 0.2]]), torch.tensor([[0.2, 0.4]]))  # w_0 = 0.1
    tight = _ball([0.0, 0.0], [0.2, 0.2])  # w = 0.1: w_0 / w = 1, no penalty
    loose = _ball([-1.0, -0.2], [0.0, 0.4])  # w = (0.5 + 0.3) / 2 = 0.4: (0.5 - 0.25) / 0.5 = 0.5
    assert tightness(box, [tight, loose]).item() == pytest.approx(0.25)
    assert tightness(box, [loose._replace(center=loose.center / 2, radius=loose.radius / 2, scale=2.0)]).item() == (
        pytest.approx(0.5)
    )


def test_balance_by_hand() -> None:
    # centres 1, 2 active; -1 inactive; 0.5 undecided. q = 3 / 1 -> a = 1/3. mean c = 0.625
    box = _ball([0.5, 1.5, -1.5, -0.5], [1.5, 2.5, -0.5, 1.5])
    v = (0.375**2 + 1.375**2) / 1.625**2
    expected = ((0.5 - 1 / 3) + max(0.5 - min(v, 1 / v), 0)) / 0.5
    assert relu_balance([box]).item() == pytest.approx(expected)
    empty = _ball([0.5, 1.5], [1.5, 2.5])  # nothing inactive: term 0, but it counts in the average
    assert relu_balance([box, empty]).item() == pytest.approx(expected / 2)


def test_the_gradient_of_an_empty_set_is_zero_not_nan() -> None:
    for lower, upper in (([0.5, 1.0], [1.0, 2.0]), ([-2.0, -1.0], [-1.5, -0.5]), ([-1.0, -1.0], [1.0, 1.0])):
        center = (torch.tensor([lower]) + torch.tensor([upper])).div(2).requires_grad_()
        radius = (torch.tensor([upper]) - torch.tensor([lower])).div(2)
        value = relu_balance([Ball(center, radius)])
        (gradient,) = torch.autograd.grad(value, center)
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def _slow_balance(boxes: list[tuple[list[float], list[float]]], tolerance: float) -> float:
    total = 0.0
    for lower, upper in boxes:
        centers = [(a + b) / 2 for a, b in zip(lower, upper, strict=True)]
        mean = sum(centers) / len(centers)
        active = [c for c, a in zip(centers, lower, strict=True) if a > 0]
        inactive = [c for c, b in zip(centers, upper, strict=True) if b < 0]
        if not active or not inactive:
            continue
        for q in (
            sum(active) / -sum(inactive),
            sum((c - mean) ** 2 for c in active) / sum((c - mean) ** 2 for c in inactive),
        ):
            total += max(tolerance - min(q, 1 / q), 0) / tolerance
    return total / len(boxes)


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=3), st.floats(0.2, 1.0))
def test_against_the_slow_implementation(seeds: list[int], tolerance: float) -> None:
    layers = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        center = torch.randn(3, 4, 2, 2, generator=g, dtype=torch.float64) + 0.5 * torch.randn(1, generator=g).item()
        layers.append(Ball(center, torch.rand(3, 4, 2, 2, generator=g, dtype=torch.float64)))
    slow = _slow_balance([(b.lower.flatten().tolist(), b.upper.flatten().tolist()) for b in layers], tolerance)
    assert relu_balance(layers, tolerance).item() == pytest.approx(slow, rel=1e-9, abs=1e-12)


def test_gradients_through_centres_and_widths() -> None:
    torch.manual_seed(3)
    # values away from the kinks at lower = 0 and upper = 0, where finite differences mean nothing
    center = torch.tensor([2.0, 1.0, -1.5, -0.7, 0.3, 3.0, -2.2, 0.1], dtype=torch.float64).view(2, 4).requires_grad_()
    radius = torch.tensor([0.5, 0.2, 0.4, 0.3, 0.8, 1.0, 0.9, 0.6], dtype=torch.float64).view(2, 4).requires_grad_()
    box = Interval(torch.zeros(2, 3, dtype=torch.float64), torch.full((2, 3), 0.2, dtype=torch.float64))

    def f(c: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return tightness(box, [Ball(c, r)], 1.0) + relu_balance([Ball(c, r)], 1.0)

    assert torch.autograd.gradcheck(f, (center, radius))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(f(center, radius), (center, radius)))


def test_l1_by_hand() -> None:
    assert l1([torch.tensor([[1.0, -2.0]]), torch.tensor([[[[-0.5]]]])]).item() == 3.5
    assert math.isfinite(l1([torch.zeros(2, 2)]).item())
