"""Decides properties as verifiers state them (VNN-LIB): unsat with a rounding-sound proof, or sat with a checked input.

For every case (a box) and every conjunction of A y <= b it is to be shown that no input of the box satisfies it: some
row has A_i y > b_i, on the whole box or on each part of it. In order of cost: gradient descent for a counterexample;
linear bounds on interval boxes; on CROWN boxes; with slopes of their own; then, for few inputs, bisection of the box,
else branch and bound over ReLU signs. Every part that counts as done is proved in float64 with outward rounding, on a
box that was rounded outward. A counterexample is checked the same way: its outputs are enclosed, and the inequalities
hold for the whole enclosure; that it lies in the box is checked in rational arithmetic.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from acert_zoo.bounds.directed_rounding import down, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.branch_and_bound import ROOT, BranchAndBound
from acert_zoo.complete.leaf_proof import LeafProver, Leaves
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
from acert_zoo.complete.optimise import optimise
from acert_zoo.complete.proof import LEVELS, check_proof
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import round_down, round_up
from acert_zoo.network.graph import Network
from acert_zoo.network.properties import Case, Conjunction, Property, matrix

UNSAT, SAT, UNKNOWN, TIMEOUT = "unsat", "sat", "unknown", "timeout"
FEW_INPUTS = 16  # up to here the box itself is bisected
CUSHION = 1e-6
_RESTARTS, _STEPS = 20, 60


@dataclass(frozen=True)
class PropertyAnswer:
    """Attributes:
    status: "unsat" (the property holds, proved), "sat" (violated), "unknown" or "timeout".
    point, outputs: the counterexample, exact inputs and float64 outputs; empty unless sat.
    parts: how many parts the proofs have in all.
    """

    status: str
    point: tuple[Fraction, ...] = ()
    outputs: tuple[float, ...] = ()
    parts: int = 0

    def counterexample(self) -> str:
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


class PropertyVerifier:
    """Decides properties of one network.

    Args:
        network: float32, on the CPU. input_shape: of one input, without the batch axis.
        memory: bytes that a batch of cases, and all waiting ones, may each take.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: as `RigorousNetwork`.
    """

    def __init__(self, network: Network, input_shape: Sequence[int], memory: float = 2**30) -> None:
        self.network, self.shape, self.memory = network, tuple(input_shape), memory
        self.prover = LeafProver(network)
        self.parts = 0

    def __call__(self, prop: Property, timeout: float) -> PropertyAnswer:
        """The answer within about `timeout` seconds.

        Raises:
            InvalidInputError: the property has other numbers of inputs or outputs than the network.
        """
        end = time.perf_counter() + timeout
        size = 1
        for n in self.shape:
            size *= n
        if (prop.num_inputs, prop.num_outputs) != (size, self.network.num_classes):
            raise InvalidInputError(
                f"the property has {prop.num_inputs} inputs and {prop.num_outputs} outputs, the network {size} and "
                f"{self.network.num_classes}"
            )
        for case in prop.cases:
            found = self._attack(case, min(end, time.perf_counter() + 0.2 * timeout))
            if found is not None:
                return found
        self.parts, worst = 0, UNSAT
        for case in prop.cases:
            for conjunction in case.conjunctions:
                try:
                    answer = self._refute(case, conjunction, end)
                except TimeoutError:
                    answer = PropertyAnswer(TIMEOUT)
                if answer.status == SAT:
                    return answer
                if answer.status != UNSAT:
                    worst = answer.status
                if worst == TIMEOUT:
                    return PropertyAnswer(TIMEOUT)
        return PropertyAnswer(worst, parts=self.parts)

    def _box(self, case: Case) -> Interval:
        lower, upper = (torch.from_numpy(end).view(1, *self.shape) for end in case.box())
        return Interval(down(lower), up(upper))

    def _rows(self, conjunction: Conjunction) -> tuple[Tensor, Tensor]:
        """(c, d) with c y + d <= 0 for all outputs of the conjunction."""
        a, b = matrix(conjunction, self.network.num_classes)
        return torch.from_numpy(a), -torch.from_numpy(b)

    @torch.enable_grad()
    def _attack(self, case: Case, end: float) -> PropertyAnswer | None:
        """Gradient descent on the largest violated inequality, from many points of the box at once."""
        lower, upper = (e.float() for e in self._box(case))
        generator = torch.Generator().manual_seed(0)
        for conjunction in case.conjunctions:
            c, d = (t.float() for t in self._rows(conjunction))
            points = torch.lerp(lower, upper, torch.rand(_RESTARTS, *self.shape, generator=generator))
            points[0] = (lower + upper)[0] / 2
            for step in range(_STEPS):
                points = points.detach().requires_grad_()
                worst = (self.network(points) @ c.t() + d).amax(1) if len(c) else points.flatten(1).sum(1) * 0 - 1
                if bool((worst <= 0).any()):
                    answer = self.check(case, conjunction, points[worst.argmin()].detach())
                    if answer is not None:
                        return answer
                if time.perf_counter() > end:
                    return None
                (gradient,) = torch.autograd.grad(worst.sum(), points, allow_unused=True)
                if gradient is None:
                    break
                size = (upper - lower) * (0.25 * 0.02 ** (step / _STEPS))
                points = (points.detach() - size * gradient.sign()).clamp(lower, upper)
        return None

    @torch.no_grad()
    def check(self, case: Case, conjunction: Conjunction, point: Tensor) -> PropertyAnswer | None:
        """A counterexample at (or, where the box leaves no float there, just beside) `point`; None if it is none."""
        values = []
        for value, low, high in zip(point.flatten().tolist(), case.lower, case.upper, strict=True):
            values.append(min(max(Fraction(value), low), high))
        if not case.contains(values):
            return None
        lower = torch.tensor([round_down(v) for v in values], dtype=torch.float64).view(1, *self.shape)
        upper = torch.tensor([round_up(v) for v in values], dtype=torch.float64).view(1, *self.shape)
        boxes = self.prover.boxes(Interval(down(lower), up(upper)), refine=False)
        for inequality in conjunction:
            if any(abs(coefficient) > 2**53 for _, coefficient in inequality.coefficients):
                return None  # no float64
            row = torch.zeros(1, self.network.num_classes, dtype=torch.float64)
            for index, coefficient in inequality.coefficients:
                row[0, index] = -coefficient
            const = torch.tensor([round_down(inequality.bound)], dtype=torch.float64)
            slack = float(self._default_bounds(boxes, row, const))
            if not (slack > 0 or (slack == 0 and not inequality.strict)):
                return None
        outputs = self.prover.network(lower)[0].tolist()
        return PropertyAnswer(SAT, tuple(values), tuple(outputs))

    def _default_bounds(self, boxes: list[Interval], rows: Tensor, const: Tensor) -> Tensor:
        """Rigorous bounds of c y + d, by default slopes, nothing split."""
        none = torch.empty(0, dtype=torch.int64)
        slopes = torch.empty(len(rows), 0, dtype=torch.float64)
        leaves = Leaves(rows, const, [()] * len(rows), [()] * len(rows), none, slopes)
        return self.prover.lower_bounds(boxes, leaves)

    @torch.no_grad()
    def _refute(self, case: Case, conjunction: Conjunction, end: float) -> PropertyAnswer:
        """Shows that the conjunction has no solution in the case's box, or finds one."""
        rows, const = self._rows(conjunction)
        if len(rows) == 0:
            return PropertyAnswer(UNKNOWN)
        box = self._box(case)
        if bool((self._default_bounds(self.prover.boxes(box, refine=False), rows, const) > 0).any()):
            self.parts += 1
            return PropertyAnswer(UNSAT)
        if box.lower.numel() <= FEW_INPUTS:
            return self._bisect(case, conjunction, box, end)
        return self._branch(case, conjunction, box, end)

    def _bisect(self, case: Case, conjunction: Conjunction, box: Interval, end: float) -> PropertyAnswer:
        """Parts of the box, the least proved one first; a part is cut in half where it matters most to the bound.

        The halves [l, m] and [m, u] cover [l, u]: nothing is lost between them.
        """
        rows, const = self._rows(conjunction)
        order = itertools.count()
        heap: list[tuple[float, int, Interval]] = [(0.0, next(order), box)]
        while heap:
            if time.perf_counter() > end:
                return PropertyAnswer(TIMEOUT)
            _, _, part = heapq.heappop(heap)
            boxes = self.prover.boxes(part, deadline=end)
            lower = self._default_bounds(boxes, rows, const)
            if bool((lower > 0).any()):
                self.parts += 1
                continue
            best = int(lower.argmax())
            bounds = LinearBounds(self.network, boxes)
            found = bounds.minimum(rows[best : best + 1].float(), const[best : best + 1].float(), bounds.start(1))
            middle = (part.lower + part.upper) / 2
            weight = torch.ones_like(part.lower)  # of each input in the bound, where that is what bounds end in
            if found.corner.shape == part.lower.shape:
                weight = found.corner.double()
            for point in (middle, torch.where(weight > 0, part.lower, part.upper)):
                if bool((self.prover.network(point) @ rows.t() + const <= 0).all()):
                    answer = self.check(case, conjunction, point)
                    if answer is not None:
                        return answer
            width = (part.upper - part.lower).flatten()
            cut = int((weight.abs().flatten() * width + 1e-9 * width).argmax())
            for half in range(2):
                ends = [part.lower.clone(), part.upper.clone()]
                ends[1 - half].view(-1)[cut] = middle.flatten()[cut]
                heapq.heappush(heap, (float(lower[best]), next(order), Interval(*ends)))
            if float(width[cut]) == 0:
                return PropertyAnswer(UNKNOWN)
        return PropertyAnswer(UNSAT)

    def _branch(self, case: Case, conjunction: Conjunction, box: Interval, end: float) -> PropertyAnswer:
        """Branch and bound on the row of the conjunction that is nearest to being proved."""
        rows, const = self._rows(conjunction)
        boxes = self.prover.boxes(box, deadline=end)
        if bool((self._default_bounds(boxes, rows, const) > 0).any()):
            self.parts += 1
            return PropertyAnswer(UNSAT)
        bounds = LinearBounds(self.network, boxes)
        found = optimise(
            bounds, rows.float(), const.float(), bounds.start(len(rows)), ROOT, target=3 * CUSHION, deadline=end
        )
        best = int(found.bounds.argmax())
        row, shift, own = rows[best : best + 1], const[best : best + 1], found.state.pick(slice(best, best + 1))
        answers: list[PropertyAnswer] = []

        def corner(coefficients: Tensor) -> bool:
            if coefficients.shape[1:] != box.lower.shape[1:]:
                return False
            points = torch.where(coefficients > 0, box.lower.float(), box.upper.float())
            hit = (self.network(points) @ rows.float().t() + const.float() <= 0).all(1).nonzero().flatten().tolist()
            for i in hit[:4]:
                answer = self.check(case, conjunction, points[i])
                if answer is not None:
                    answers.append(answer)
                    return True
            return False

        search = BranchAndBound(bounds, row.float(), shift.float(), memory=self.memory, corner=corner, cushion=CUSHION)
        own = Relaxation((own.alpha * LEVELS).round() / LEVELS, own.beta, own.sign)
        search.open_root(0, own, float(found.bounds[best]))
        if float(bounds.minimum(row.float(), shift.float(), own, gradient=False).bounds) > CUSHION:
            search.close_root(0, own, float(found.bounds[best]))
            search.frontier.pop(1)
        while True:
            outcome = search.run(end)
            if outcome == "adversarial":
                return answers[0]
            if outcome != "proved":
                return PropertyAnswer(TIMEOUT if outcome == "time" else UNKNOWN)
            proof = search.proof()
            (lower,) = check_proof(self.prover, boxes, row, shift, proof, deadline=end)
            failed = [leaf for leaf, ok in zip(search.leaves_in_order(0), (lower > 0).tolist(), strict=True) if not ok]
            if not failed:
                self.parts += proof.leaves
                return PropertyAnswer(UNSAT)
            for leaf in failed:
                search.reopen(leaf)
