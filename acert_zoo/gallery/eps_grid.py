"""The radii at which the gallery's slider stops, and exact counts of certified images there.

A browser compares float64 numbers, and fl64(2/255) < 2/255. So the page never compares a radius with the slider's
value: for each stop k * step, a fraction, the number of images that are certified there is counted here, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.exact_numbers import parse_eps, round_down, round_up

FEWEST_STOPS = 240
REACH = Fraction(3, 2)  # the last stop, in units of eps_max
_DIVISIONS = (1, 2, 4, 5, 10, 20, 25, 40, 50, 100, 200, 250, 500)


@dataclass(frozen=True)
class EpsGrid:
    """Stops 0, step, 2 step, ..., `last` * step in pixel units of [0, 1]."""

    step: Fraction
    last: int
    grey_levels: bool  # written in 1/255, as the data set's eps_max is

    @property
    def stops(self) -> list[Fraction]:
        return [k * self.step for k in range(self.last + 1)]

    def text(self, eps: Fraction) -> str:
        """`eps` as people write it: "2.05/255" or "0.302"."""
        value = eps * 255 if self.grey_levels else eps
        text = f"{float(value):.6f}".rstrip("0").rstrip(".")
        return f"{text}/255" if self.grey_levels else text

    def counts(self, radii: np.ndarray) -> list[int]:
        """How many of the radii (float64 [n], 0 where nothing is certified) are positive and at least each stop."""
        ordered = np.sort(radii[radii > 0])
        at_least = np.searchsorted(ordered, [round_up(eps) for eps in self.stops], side="left")
        return [int(len(ordered) - below) for below in at_least]

    def unbroken(self, distances: np.ndarray) -> list[int]:
        """How many of the distances of adversarial images (float64 [n], 0 misclassified, inf none found) lie beyond
        each stop: those images withstood what attacks within it found."""
        ordered = np.sort(distances)
        within = np.searchsorted(ordered, [round_down(eps) for eps in self.stops], side="right")
        return [int(len(ordered) - broken) for broken in within]


def eps_grid(info: DatasetInfo) -> EpsGrid:
    """The grid of a data set, from 0 to 1.5 eps_max: eps_max and every reported eps are stops, with at least
    FEWEST_STOPS of them where a round division of their common measure gives that."""
    measure = Fraction(0)
    for text in (info.eps_max, *info.reported_eps):
        measure = _common_measure(measure, parse_eps(text))
    top = REACH * parse_eps(info.eps_max)
    division = next((d for d in _DIVISIONS if top * d / measure >= FEWEST_STOPS), _DIVISIONS[-1])
    step = measure / division
    return EpsGrid(step, int(top / step), "/255" in info.eps_max)


def _common_measure(a: Fraction, b: Fraction) -> Fraction:
    """The largest fraction of which both are whole multiples."""
    while b:
        a, b = b, a % b
    return a
