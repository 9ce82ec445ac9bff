"""The slider's stops and the exact counts there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.gallery.eps_grid import FEWEST_STOPS, EpsGrid, eps_grid


def test_counts_by_hand() -> None:
    grid = EpsGrid(Fraction(1, 10), 3, grey_levels=False)
    radii = np.array([0.0, 0.05, np.nextafter(0.1, 0), np.nextafter(0.1, 1), 0.2, 0.25])
    assert Fraction(0.1) > Fraction(1, 10)  # so the float64 0.1 would count, and the one below it does not
    assert Fraction(0.2) > Fraction(2, 10)
    assert grid.counts(radii) == [5, 3, 2, 0]


def test_a_radius_of_the_float_nearest_to_2_255_is_not_certified_there() -> None:
    grid = eps_grid(dataset_info("cifar10"))
    stop = int(Fraction(2, 255) / grid.step)
    below = float(Fraction(2, 255))
    assert Fraction(below) < Fraction(2, 255)
    assert grid.counts(np.array([below, np.nextafter(below, 1)]))[stop] == 1


@pytest.mark.parametrize("name", ["mnist", "cifar10", "tinyimagenet"])
def test_reported_radii_are_stops(name: str) -> None:
    info = dataset_info(name)
    grid = eps_grid(info)
    assert grid.last >= FEWEST_STOPS
    assert grid.stops[-1] <= Fraction(3, 2) * parse_eps(info.eps_max) < grid.stops[-1] + grid.step
    for text in (info.eps_max, *info.reported_eps):
        assert parse_eps(text) in grid.stops
        assert grid.text(parse_eps(text)) == text


def test_unbroken_by_hand() -> None:
    grid = EpsGrid(Fraction(1, 4), 3, grey_levels=False)
    distances = np.array([0.0, 0.25, np.nextafter(0.25, 1), 0.6, np.inf])
    assert grid.unbroken(distances) == [4, 3, 2, 1]  # an adversarial image at exactly eps breaks the image
