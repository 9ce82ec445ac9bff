"""A property of a network as verifiers state it: boxes of inputs and, for each, outputs that must not occur.

A property is *violated* ("sat") by an input x if one of its cases holds: x lies in the case's box, and the network's
outputs satisfy every inequality of one of the case's conjunctions. It holds ("unsat") if no input does so. Every number
is exact (a `Fraction`): files hold decimals, and a box rounded to the nearest floats would not enclose what they say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from acert_zoo.exact_numbers import round_down, round_up

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Inequality:
    """sum of c_i y_i <= bound (< where strict), over outputs y; coefficients are integers, c_i != 0.

    Attributes:
        coefficients: (index of an output, c_i), ordered by index; empty: 0 <= bound.
    """

    coefficients: tuple[tuple[int, int], ...]
    bound: Fraction
    strict: bool = False

    @classmethod
    def of(cls, coefficients: dict[int, Fraction], bound: Fraction, *, strict: bool = False) -> Inequality:
        """The inequality with rational coefficients, multiplied by what makes them integers without a common factor."""
        kept = {i: c for i, c in sorted(coefficients.items()) if c}
        scale = Fraction(math.lcm(*(c.denominator for c in kept.values())))
        if kept:
            scale /= math.gcd(*(int(c * scale) for c in kept.values()))
        return cls(tuple((i, int(c * scale)) for i, c in kept.items()), bound * scale, strict)

    @property
    def orders(self) -> bool:
        """Whether it says y_i <= y_j (or <): what a softmax behind the outputs does not change."""
        return sorted(c for _, c in self.coefficients) == [-1, 1] and self.bound == 0

    def holds(self, outputs: Sequence[Fraction | float]) -> bool:
        """Whether these outputs satisfy it, in exact arithmetic (floats are taken for the numbers that they are)."""
        total = sum((c * Fraction(outputs[i]) for i, c in self.coefficients), Fraction(0))
        return total < self.bound or (total == self.bound and not self.strict)


Conjunction = tuple[Inequality, ...]


@dataclass(frozen=True)
class Case:
    """Inputs within [lower, upper] whose outputs satisfy all inequalities of one of the `conjunctions`.

    Attributes:
        lower, upper: one exact bound an input, lower <= upper; inputs are numbered in C order of the network's input.
        conjunctions: at least one; an empty one is satisfied by any output.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    conjunctions: tuple[Conjunction, ...]

    def box(self) -> tuple[Floats, Floats]:
        """float64 (lower, upper), rounded outward: whatever is proved on this box is proved on the case's."""
        return np.array([round_down(v) for v in self.lower]), np.array([round_up(v) for v in self.upper])

    def contains(self, point: Sequence[Fraction | float]) -> bool:
        """Whether an input lies in the box, in exact arithmetic."""
        if len(point) != len(self.lower):
            return False
        return all(
            low <= Fraction(value) <= high for low, value, high in zip(self.lower, point, self.upper, strict=True)
        )

    def violated(self, point: Sequence[Fraction | float], outputs: Sequence[Fraction | float]) -> bool:
        """Whether an input with these outputs is a counterexample of this case, in exact arithmetic."""
        return self.contains(point) and any(all(c.holds(outputs) for c in each) for each in self.conjunctions)


@dataclass(frozen=True)
class Property:
    """The cases of which none may occur, and the sizes that the property speaks of.

    Attributes:
        cases: empty if every box is empty: the property then holds.
        num_inputs, num_outputs: how many variables are declared, in C order of the network's input and output.
        input_shape, output_shape: as declared, batch axis included; None in VNN-LIB 1.0, which numbers variables.
    """

    cases: tuple[Case, ...]
    num_inputs: int
    num_outputs: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None

    def violated(self, point: Sequence[Fraction | float], outputs: Sequence[Fraction | float]) -> bool:
        """Whether an input with these outputs is a counterexample, in exact arithmetic."""
        return any(case.violated(point, outputs) for case in self.cases)


def matrix(conjunction: Conjunction, num_outputs: int) -> tuple[Floats, Floats]:
    """(A float64 [m, num_outputs], b float64 [m]) with A y <= b for all outputs y that satisfy the conjunction.

    b is rounded up and strictness dropped, so that "A y <= b has no solution" proves that the conjunction has none.
    Rows whose coefficients are no float64 are left out: fewer inequalities have more solutions.
    """
    rows = [c for c in conjunction if all(abs(v) <= 2**53 for _, v in c.coefficients)]
    a = np.zeros((len(rows), num_outputs))
    for row, inequality in zip(a, rows, strict=True):
        for index, value in inequality.coefficients:
            row[index] = value
    return a, np.array([round_up(c.bound) for c in rows])
