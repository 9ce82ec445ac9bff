"""Figures of an evaluation: by hand, rounded down, never above the exact ones, and with their provenance."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import decimal_down
from tests.support.training import evaluation
from training.results.evaluation import floor_decimal


def test_metrics_by_hand() -> None:
    # 8.8/255 = 0.0345098...: the second radius is half of it, the third beyond it
    half = float(Fraction(44, 2550))
    it = evaluation([0.0, half, 0.5, 0.0], [False, True, True, True])
    assert it.accuracy == 75.0
    assert it.acr == pytest.approx((half + 0.5) / 4, abs=1e-9)
    assert it.acr_percent("8.8/255") == pytest.approx(100 * 1.5 / 4, abs=1e-6)
    assert it.acr_percent("8.8/255") <= 37.5
    assert it.certified_accuracy("2/255") == 50.0
    assert it.certified_accuracy("0.5") == 25.0
    assert it.certified_accuracy("0.51") == 0.0
    assert it.certified_accuracy("0") == 75.0


def test_certified_accuracy_compares_exactly() -> None:
    below = float(Fraction(2, 255))  # the float64 nearest to 2/255 lies below it
    assert Fraction(below) < Fraction(2, 255)
    assert evaluation([below], [True]).certified_accuracy("2/255") == 0.0
    assert evaluation([np.nextafter(below, 1)], [True]).certified_accuracy("2/255") == 100.0


def test_one_third_is_rounded_down() -> None:
    it = evaluation([0.1, 0.0, 0.0], [True, True, False])
    assert it.accuracy == 66.666666
    assert it.certified_accuracy("2/255") == 33.333333
    assert decimal_down(it.accuracy, 2) == "66.66"


def test_figures_of_each_class_by_hand() -> None:
    it = evaluation([0.0, 0.01, 0.04, 0.0], [False, True, True, True], label=np.array([0, 0, 2, 2]))
    first, second, third = it.classes()[:3]
    assert first == {"class": 0, "n": 2, "correct": 1, "certified": {"2/255": 1, "8/255": 0}}
    assert second["n"] == 0
    assert third == {"class": 2, "n": 2, "correct": 2, "certified": {"2/255": 1, "8/255": 1}}
    assert sum(c["certified"]["2/255"] for c in it.classes()) == it.certified_accuracy("2/255") * 4 / 100
    assert evaluation([0.0], [False]).classes() == []
    with pytest.raises(InvalidInputError, match="one label each"):
        evaluation([0.0], [False], label=np.array([0, 1]))


def test_metrics_carry_their_provenance() -> None:
    metrics = evaluation([0.1, 0.0], [True, False]).metrics()
    assert [(m["metric"], m["eps"]) for m in metrics] == [
        ("accuracy", None),
        ("acr", None),
        ("acr_percent", "8.8/255"),
        ("certified_accuracy", "2/255"),
        ("certified_accuracy", "8/255"),
    ]
    assert all(m["n"] == 2 and m["dataset"] == "cifar10" and m["split"] == "test" for m in metrics)
    assert all(m["rounding"] == "real-sound" and m["method"] == "ibp" for m in metrics[1:])


@pytest.mark.parametrize(
    ("radius", "correct"),
    [([], []), ([0.1, 0.2], [True]), ([np.nan], [True]), ([-0.1], [True]), ([0.1], [False]), ([[0.1]], [[True]])],
)
def test_impossible_results_are_refused(radius, correct) -> None:
    with pytest.raises(InvalidInputError):
        evaluation(radius, correct)


@given(st.fractions(0, 1000), st.integers(0, 9))
def test_floored_decimals_never_exceed_the_value(value: Fraction, digits: int) -> None:
    floored = floor_decimal(value, digits)
    assert value - Fraction(1, 10**digits) < Fraction(repr(floored)) <= value
    assert Fraction(decimal_down(floored, digits)) == Fraction(repr(floored))
    assert Fraction(decimal_down(floored, 2)) <= value


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_metrics_never_exceed_the_exact_ones(images: list[tuple[float, bool]]) -> None:
    radius, correct = [r if right else 0.0 for r, right in images], [right for _, right in images]
    it, cap = evaluation(radius, correct), Fraction(88, 2550)
    exact = [Fraction(r) for r in radius]
    assert 0 <= sum(exact) / len(exact) - Fraction(repr(it.acr)) < Fraction(1, 10**9)
    share = 100 * sum(min(r, cap) for r in exact) / len(exact) / cap
    assert 0 <= share - Fraction(repr(it.acr_percent("8.8/255"))) < Fraction(1, 10**6)
    curve = it.curve()["certified_accuracy"]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] == it.accuracy
