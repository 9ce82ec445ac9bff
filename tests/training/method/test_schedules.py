"""The radius schedule and the learning rate, against numbers worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.method.schedules import learning_rate_schedule, radius_fraction, ramp
from training.recipes.recipe import Optimizer


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (0, Fraction(0)),
        (Fraction(1, 8), Fraction(256, 13) / 4096),  # 1/208
        (Fraction(1, 4), Fraction(1, 13)),
        (Fraction(1, 2), Fraction(5, 13)),
        (Fraction(3, 4), Fraction(9, 13)),
        (1, Fraction(1)),
        (2, Fraction(1)),
    ],
)
def test_ramp_by_hand(s: Fraction, expected: Fraction) -> None:
    assert ramp(float(s)) == pytest.approx(float(expected), rel=1e-12, abs=0)


def test_pieces_meet_with_equal_slopes() -> None:
    # (256/13) 4 s^3 at s = 1/4 is 16/13, the slope of the line
    h = 1e-6
    left, right = (ramp(0.25) - ramp(0.25 - h)) / h, (ramp(0.25 + h) - ramp(0.25)) / h
    assert left == pytest.approx(16 / 13, rel=1e-4)
    assert right == pytest.approx(16 / 13, rel=1e-4)


@given(st.floats(-1, 2), st.floats(-1, 2))
def test_ramp_is_monotone_within_the_unit_interval(a: float, b: float) -> None:
    low, high = ramp(min(a, b)), ramp(max(a, b))
    assert 0 <= low <= high <= 1


def test_steps_are_counted_from_the_ramps_first() -> None:
    # 10 steps an epoch, one first epoch, ramp of 2 epochs: N = 20, i = step - 10
    values = [radius_fraction(step, 10, 1, 2) for step in range(35)]
    assert values[:11] == [0.0] * 11  # the first epoch, and i = 0
    assert values[11] == pytest.approx(256 / 13 * (1 / 20) ** 4)
    assert values[15] == pytest.approx(1 / 13)
    assert values[20] == pytest.approx(5 / 13)
    assert values[29] == pytest.approx((16 * 19 / 20 - 3) / 13)
    assert values[30:] == [1.0] * 5


def test_a_ramp_of_length_zero_is_a_jump() -> None:
    assert [radius_fraction(step, 4, 1, 0) for step in (0, 3, 4)] == [0.0, 0.0, 1.0]


def test_onecycle_is_the_papers() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=2e-3)
    schedule = learning_rate_schedule(optimizer, Optimizer(lr=2e-3, warmup=0.3), 100)
    rates, betas = [], []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        if len(rates) < 100:
            schedule.step()
    # linear from lr/25 to lr at step 0.3 * 100 - 1, back to lr/25 at 2 * 0.3 * 100 - 2, then to lr/25/100 at the end
    assert rates[0] == pytest.approx(8e-5)
    assert rates[29] == pytest.approx(2e-3)
    assert rates[58] == pytest.approx(8e-5)
    assert rates[99] == pytest.approx(8e-7)
    assert rates[10] == pytest.approx(8e-5 + (2e-3 - 8e-5) * 10 / 29)
    assert betas[0] == pytest.approx(0.95)
    assert betas[29] == pytest.approx(0.85)
    assert betas[99] == pytest.approx(0.95)


@pytest.mark.parametrize("schedule", ["onecycle", "linear"])
@pytest.mark.parametrize("warmup", [0.1, 0.2, 0.3, 0.45])
def test_any_number_of_steps_has_a_schedule(schedule: str, warmup: float) -> None:
    for steps in range(1, 60):  # at warmup 0.1 and 10 steps, say, the warm-up is one step long
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        rates = learning_rate_schedule(optimizer, Optimizer(lr=0.1, warmup=warmup, schedule=schedule), steps)
        for _ in range(steps - 1):
            optimizer.step()
            rates.step()
            assert 0 <= rates.get_last_lr()[0] <= 0.1 * (1 + 1e-6), steps
