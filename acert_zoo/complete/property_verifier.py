"""Decides properties as verifiers state them (VNN-LIB): unsat with a rounding-sound proof, or sat with a checked input.

For every case (a box) and every conjunction of A y <= b it is to be shown that no input of the box satisfies it: some
row has A_i y > b_i, on the whole box or on each part of it. In order of cost: gradient descent for a counterexample;
linear bounds on interval boxes; then, for few inputs, bisection of the box (`input_split.py`), else CROWN boxes, boxes
by slopes of their own (`hidden_boxes.py`), and branch and bound over ReLU signs, all conjunctions at once. Every part
that counts as done is proved in float64 with outward rounding, on a box that was rounded outward.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.conditions import Conditions, outer_box
from acert_zoo.complete.counterexample import Counterexample, CounterexampleSearch
from acert_zoo.complete.input_split import split_inputs
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.regions import RegionSearch
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network
from acert_zoo.network.properties import Case, Property

UNSAT, SAT, UNKNOWN, TIMEOUT = "unsat", "sat", "unknown", "timeout"
FEW_INPUTS = 16  # up to here the box itself is bisected
ATTACK_SHARE = 0.2  # of the time, at most
CUSHION = 1e-5  # of the outputs' size, that a leaf must have to spare in float32


@dataclass(frozen=True)
class PropertyAnswer:
    """Attributes:
    status: "unsat" (the property holds, proved), "sat" (violated), "unknown" or "timeout".
    counterexample: None unless sat.
    parts: how many parts the proofs have in all.
    """

    status: str
    counterexample: Counterexample | None = None
    parts: int = 0


class PropertyVerifier:
    """Decides properties of one network.

    Args:
        network: float32, on the CPU. input_shape: of one input, without the batch axis.
        memory: bytes that a batch of cases, and all waiting ones, may each take.
        outputs: what a counterexample's outputs are printed from; see `CounterexampleSearch`.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: as `RigorousNetwork`.
    """

    def __init__(
        self,
        network: Network,
        input_shape: Sequence[int],
        memory: float = 2**30,
        outputs: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.network, self.shape, self.memory = network, tuple(input_shape), memory
        self.prover = LeafProver(network)
        self.search = CounterexampleSearch(network, self.prover.crown, self.shape, outputs)

    def __call__(self, prop: Property, timeout: float) -> PropertyAnswer:
        """The answer within about `timeout` seconds.

        Raises:
            InvalidInputError: the property has other numbers of inputs or outputs than the network.
        """
        end = time.perf_counter() + timeout
        size = math.prod(self.shape)
        if (prop.num_inputs, prop.num_outputs) != (size, self.network.num_classes):
            raise InvalidInputError(
                f"the property has {prop.num_inputs} inputs and {prop.num_outputs} outputs, the network {size} and "
                f"{self.network.num_classes}"
            )
        attack_end = time.perf_counter() + ATTACK_SHARE * timeout
        for case in prop.cases:
            found = self.search.descend(case, attack_end)
            if found is not None:
                return PropertyAnswer(SAT, found)
        answer = PropertyAnswer(UNSAT)
        for case in prop.cases:
            try:
                one = self._exclude(case, end)
            except TimeoutError:
                one = PropertyAnswer(TIMEOUT)
            if one.status in (SAT, TIMEOUT):
                return one
            answer = PropertyAnswer(
                UNKNOWN if UNKNOWN in (one.status, answer.status) else UNSAT, None, answer.parts + one.parts
            )
        return answer

    @torch.no_grad()
    def _exclude(self, case: Case, end: float) -> PropertyAnswer:
        """Shows that no conjunction has a solution in the case's box, or finds one."""
        box = outer_box(case, self.shape)
        conditions = Conditions(case.conjunctions, self.network.num_classes)
        if self._by_default(self.prover.boxes(box, refine=False), conditions):
            return PropertyAnswer(UNSAT, parts=1)
        if box.lower.numel() > FEW_INPUTS:
            return self._branch(case, conditions, box, end)
        outcome = split_inputs(self.prover.crown, self.search, case, end, memory=self.memory)
        if outcome.found is not None:
            return PropertyAnswer(SAT, outcome.found)
        status = UNSAT if outcome.done else TIMEOUT if outcome.late else UNKNOWN
        return PropertyAnswer(status, parts=outcome.parts)

    def _by_default(self, boxes: list[Interval], conditions: Conditions) -> bool:
        """Whether default slopes, nothing split, exclude every conjunction."""
        bounds, _ = self.prover.crown.rows_over(boxes, conditions.rows, conditions.const)
        return bool((conditions.best(bounds) > 0).all())

    def _branch(self, case: Case, conditions: Conditions, box: Interval, end: float) -> PropertyAnswer:
        """Branch and bound; of each conjunction, on the row that is nearest to being proved."""
        boxes = self.prover.boxes(box, deadline=end)
        if self._by_default(boxes, conditions):
            return PropertyAnswer(UNSAT, parts=1)
        cushion = CUSHION * max(1e-3, float(self.network(box.lower.float()).abs().max()))
        hits: list[Counterexample] = []

        def corner(coefficients: Tensor) -> bool:
            if coefficients.shape[1:] != box.lower.shape[1:]:
                return False
            points = torch.where(coefficients > 0, box.lower.float(), box.upper.float())
            worst = conditions.worst(self.network(points).double())
            hit = self.search.among(case, case.conjunctions, points, worst)
            hits.extend([] if hit is None else [hit])
            return hit is not None

        search = RegionSearch(
            self.prover,
            self.network,
            box,
            conditions.rows,
            conditions.const,
            cushion=cushion,
            memory=self.memory,
            corner=corner,
            choose=lambda bounds: self._nearest(conditions, bounds),
        )
        outcome = search.run(boxes, end)
        if outcome == "adversarial":
            return PropertyAnswer(SAT, hits[0])
        status = {"proved": UNSAT, "time": TIMEOUT}.get(outcome, UNKNOWN)
        return PropertyAnswer(status, parts=search.parts)

    def _nearest(self, conditions: Conditions, bounds: Tensor) -> Tensor | None:
        """For each conjunction the row with the largest bound; None where one has no row."""
        chosen = []
        for k in range(conditions.count):
            own = (conditions.owner == k).nonzero().squeeze(1)
            if len(own) == 0:
                return None
            chosen.append(own[bounds[own].argmax()])
        return torch.stack(chosen)
