"""Counterexamples of properties: found by gradient descent, believed only after a check that rounding cannot fool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from acert_zoo.bounds.directed_rounding import down, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.complete.conditions import Conditions, outer_box
from acert_zoo.exact_numbers import round_down, round_up
from acert_zoo.network.graph import Network
from acert_zoo.network.properties import Case, Conjunction

_STEPS, _AT_ONCE = 60, 8
_RESTARTS, _MANY_RESTARTS = 12, 512  # starting points of a conjunction; the latter for up to _FEW inputs
_FEW = 16
_CANDIDATES = 4  # points of a batch that are checked


@dataclass(frozen=True)
class Counterexample:
    """An input of the box, exact, and what the network gives there, to print."""

    point: tuple[Fraction, ...]
    outputs: tuple[float, ...]

    def __str__(self) -> str:
        """In the format of the VNN competitions: ((X_0 0.5) ... (Y_0 1.2) ...)."""
        values = [(f"X_{i}", _decimal(v)) for i, v in enumerate(self.point)]
        values += [(f"Y_{i}", repr(v)) for i, v in enumerate(self.outputs)]
        return "(" + "\n".join(f"({name} {value})" for name, value in values) + ")"


def _decimal(value: Fraction) -> str:
    """A float64 as it reads back; a decimal fraction of a property file as it is."""
    near = float(value)
    if Fraction(near) == value:
        return repr(near)
    for digits in range(18, 400):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            sign, whole = ("-" if scaled < 0 else ""), str(abs(scaled.numerator)).rjust(digits + 1, "0")
            return f"{sign}{whole[:-digits]}.{whole[-digits:]}"
    return repr(near)


class CounterexampleSearch:
    """Looks for counterexamples of one network.

    Args:
        network: float32. crown: of the same network. shape: of one input.
        outputs: what to print as the outputs at an input float32 [1, *shape]; by default the float64 network's.
    """

    def __init__(
        self,
        network: Network,
        crown: RigorousCrown,
        shape: Sequence[int],
        outputs: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.network, self.crown, self.shape = network, crown, tuple(shape)
        self._outputs = outputs

    @torch.enable_grad()
    def descend(self, case: Case, end: float) -> Counterexample | None:
        """Gradient descent on the largest inequality of each conjunction, from many points of the box at once."""
        box = outer_box(case, self.shape)
        lower, upper = box.lower.float(), box.upper.float()
        generator = torch.Generator().manual_seed(0)
        restarts = _MANY_RESTARTS if lower.numel() <= _FEW else _RESTARTS
        for begin in range(0, len(case.conjunctions), _AT_ONCE):
            some = case.conjunctions[begin : begin + _AT_ONCE]
            conditions = Conditions(some, self.network.num_classes, torch.float32)
            points = torch.lerp(lower, upper, torch.rand(len(some) * restarts, *self.shape, generator=generator))
            points[::restarts] = (lower + upper) / 2
            own = torch.arange(len(some)).repeat_interleave(restarts)
            for step in range(_STEPS):
                if time.perf_counter() > end:
                    return None
                points = points.detach().requires_grad_()
                worst = conditions.worst(self.network(points))
                found = self.among(case, some, points.detach(), worst.detach())
                if found is not None:
                    return found
                (gradient,) = torch.autograd.grad(worst.gather(1, own.unsqueeze(1)).sum(), points)
                size = (upper - lower) * (0.25 * 0.02 ** (step / _STEPS))
                points = (points.detach() - size * gradient.sign()).clamp(lower, upper)
        return None

    def among(
        self, case: Case, conjunctions: Sequence[Conjunction], points: Tensor, worst: Tensor
    ) -> Counterexample | None:
        """The first proved counterexample among points [N, *shape] with `Conditions.worst` [N, C] <= 0 somewhere."""
        likely = worst.min(1)
        for i in likely.values.argsort()[:_CANDIDATES].tolist():
            if not likely.values[i] <= 0:
                return None
            found = self.check(case, conjunctions[int(likely.indices[i])], points[i])
            if found is not None:
                return found
        return None

    @torch.no_grad()
    def check(self, case: Case, conjunction: Conjunction, point: Tensor) -> Counterexample | None:
        """A counterexample at `point` (or just beside it, where the box says so); None where that is not proved.

        The point is made to lie in the box in rational arithmetic. The network is enclosed over the float64 numbers
        around it, and every inequality must hold for all that is enclosed.
        """
        values = []
        for value, low, high in zip(point.flatten().tolist(), case.lower, case.upper, strict=True):
            values.append(min(max(Fraction(value), low), high))
        lower = torch.tensor([round_down(v) for v in values], dtype=torch.float64).view(1, *self.shape)
        upper = torch.tensor([round_up(v) for v in values], dtype=torch.float64).view(1, *self.shape)
        boxes = self.crown.boxes_over(Interval(down(lower), up(upper)), refine=False)
        for row, const, strict in self._slacks(conjunction):
            if row is None:
                return None
            slack = float(self.crown.rows_over(boxes, row, const)[0])
            if not (slack > 0 or (slack == 0 and not strict)):
                return None
        nearest = torch.tensor([float(v) for v in values], dtype=torch.float64).view(1, *self.shape)
        outputs = self.crown.network(nearest) if self._outputs is None else self._outputs(nearest.float())
        return Counterexample(tuple(values), tuple(outputs[0].tolist()))

    def _slacks(self, conjunction: Conjunction) -> Iterator[tuple[Tensor | None, Tensor, bool]]:
        """(row, const, strict) with row y + const >= 0 (> 0 where strict) if y satisfies the inequality."""
        for inequality in conjunction:
            const = torch.tensor([round_down(inequality.bound)], dtype=torch.float64)
            if any(abs(coefficient) > 2**53 for _, coefficient in inequality.coefficients):
                yield None, const, True  # no float64
                return
            row = torch.zeros(1, self.network.num_classes, dtype=torch.float64)
            for index, coefficient in inequality.coefficients:
                row[0, index] = -coefficient
            yield row, const, inequality.strict
