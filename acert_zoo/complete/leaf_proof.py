"""Rounding-sound proofs of leaves: the float64 backward pass of `bounds/rigorous_crown.py` under split constraints.

What is carried is the claim (*) of that module, now for every x in the box *that satisfies the leaf's constraints*
s_i z_i(x) >= 0. Two things change, and both are covered by rules that are proved there.

**Boxes.** Where s_i = 1 the box [l, u] of z_i becomes [max(l, 0), u], where s_i = -1 it becomes [l, min(u, 0)]: exact
operations, and true of every x in question. (An empty interval means that there is no such x: then any claim is true.)
All other boxes hold for the whole input box and are kept, so the magnitudes M in what is paid are those of the root.

**Multipliers.** For b_i >= 0 the constraint gives 0 >= -b_i s_i z_i: a claim about the value z with target 0. Adding it
to (*) by the rule for the sum of claims puts A_i - b_i s_i in place of A_i and pays 4 u <|A'|, M>. So multipliers, as
slopes, are mere data: any b >= 0 is sound (a negative or infinite one is refused).

A row <c, logits> + d begins as a claim about the logits, c and d exact float64 numbers, and the head is pulled like any
affine layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds import crown_rules, preconditions
from acert_zoo.bounds.crown_rules import Claim, Pulled
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown, carry
from acert_zoo.complete.split_tree import Path
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import ReLU, Step

_CHUNK_BYTES = 2**24  # coefficients of one value, all rows of a chunk


@dataclass(frozen=True, eq=False)
class Leaves:
    """S leaves, each with the row that is to be proved positive there.

    Attributes:
        rows: [S, K] float64 over the logits, or [S, *value] over another value. const: [S] float64.
        paths: their constraints. multipliers: one number >= 0 for each constraint of each path.
        neurons: int64 [T], those that have slopes of their own; slopes: [S, T] in [0, 1]. Others take the default.
    """

    rows: Tensor
    const: Tensor
    paths: Sequence[Path]
    multipliers: Sequence[Sequence[float]]
    neurons: Tensor
    slopes: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, begin: int, end: int) -> Leaves:
        s = slice(begin, end)
        return Leaves(self.rows[s], self.const[s], self.paths[s], self.multipliers[s], self.neurons, self.slopes[s])


class LeafProver:
    """Proves leaves of one network, at level real-sound.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: as `RigorousNetwork`.
    """

    def __init__(self, network: Network) -> None:
        self.crown = RigorousCrown(network)
        self.network = self.crown.network
        self.relus = [i for i, step in enumerate(self.network.steps) if isinstance(step, ReLU)]

    def boxes(self, box: Interval, *, refine: bool = True, deadline: float = math.inf) -> list[Interval]:
        """Rigorous boxes of all values but the logits over the input box [1, *input]; refine: CROWN, not intervals.

        Raises:
            TimeoutError: the deadline has passed.
        """
        return self.crown.boxes_over(box, refine=refine, deadline=deadline)

    @torch.no_grad()
    def lower_bounds(
        self, boxes: list[Interval], leaves: Leaves, *, value: int | None = None, deadline: float = math.inf
    ) -> Tensor:
        """[S] float64 lower bounds of the rows, true of every point of the box in their leaf; -inf: nothing proved.

        Args:
            boxes: true of every point of the input box, or at least of every point in all of the leaves.
            value: the index of the value that rows [S, *value] are functions of, by default the logits.

        Raises:
            InvalidInputError: a multiplier is negative or not finite, or not one for each constraint.
            TimeoutError: the deadline has passed.
        """
        preconditions.check_backend("real-sound")
        starts = self.numbers(boxes)
        size = max(1, _CHUNK_BYTES // (8 * max(b.lower.numel() for b in boxes)))
        found = []
        for begin in range(0, len(leaves), size):
            if time.perf_counter() > deadline:
                raise TimeoutError("the rigorous proof of the leaves did not end in time")
            found.append(self._pull(boxes, leaves.part(begin, begin + size), starts, value))
        bounds = torch.cat(found) if found else torch.empty(0, dtype=torch.float64)
        return torch.where(bounds.isfinite(), bounds, -math.inf)

    def neurons(self, boxes: list[Interval]) -> int:
        """How many neurons the network's ReLUs have in all."""
        return sum(boxes[s.inputs[0]].lower.numel() for s in self.network.steps if isinstance(s, ReLU))

    def numbers(self, boxes: list[Interval]) -> dict[int, int]:
        """Number of the first neuron of each ReLU step."""
        starts, count = {}, 0
        for index, step in enumerate(self.network.steps):
            if isinstance(step, ReLU) and step.inputs[0] < len(boxes):
                starts[index] = count
                count += boxes[step.inputs[0]].lower.numel()
        return starts

    def _pull(self, boxes: list[Interval], leaves: Leaves, starts: dict[int, int], value: int | None) -> Tensor:
        def pull(number: int, step: Step, claim: Claim) -> Pulled:
            inputs = [boxes[i] for i in step.inputs]
            if not isinstance(step, ReLU):
                return crown_rules.pull(step, claim, inputs, None)
            new, beta = self._relu(claim, inputs[0], leaves, starts[number])
            return [new], beta

        rows = Claim(leaves.rows.double(), leaves.const.double())
        index = len(self.network.steps) if value is None else value
        a, beta = carry(self.network, rows, index, boxes, pull)
        return beta if a is None else crown_rules.concretise(Claim(a, beta), boxes[0])

    def _relu(self, claim: Claim, box: Interval, leaves: Leaves, first: int) -> Claim:
        """The ReLU rule on the leaves' boxes, then the sum with the claims that the constraints give."""
        size, count = box.lower.numel(), len(leaves)
        lower, upper = box.lower.reshape(1, -1), box.upper.reshape(1, -1)
        where, signs, weights = _constraints(leaves, first, size)
        if len(where[0]):
            lower, upper = lower.repeat(count, 1), upper.repeat(count, 1)
            above = signs > 0
            lower[where[0][above], where[1][above]] = lower[where[0][above], where[1][above]].clamp(min=0)
            upper[where[0][~above], where[1][~above]] = upper[where[0][~above], where[1][~above]].clamp(max=0)
        slopes = crown_rules.default_slopes(Interval(lower, upper)).repeat(count // len(lower), 1)
        mine = ((leaves.neurons >= first) & (leaves.neurons < first + size)).nonzero().squeeze(1)
        if len(mine):
            slopes[:, leaves.neurons[mine] - first] = leaves.slopes[:, mine].double()
        shape = (-1, *box.lower.shape[1:])
        clipped = Interval(lower.view(shape), upper.view(shape))
        new, beta = crown_rules.relu(claim, clipped, slopes.view(shape))
        if not bool((weights > 0).any()):
            return Claim(new, beta)
        constraint = torch.zeros(count, size, dtype=torch.float64)
        constraint.index_put_(where, -weights * signs, accumulate=True)
        return Claim(*crown_rules.accumulate(new, constraint.view(new.shape), beta, box))


def _constraints(leaves: Leaves, first: int, size: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """((leaf, place), sign, multiplier) of every constraint on the neurons of one ReLU."""
    rows, places, signs, weights = [], [], [], []
    for row, (path, multipliers) in enumerate(zip(leaves.paths, leaves.multipliers, strict=True)):
        if len(path) != len(multipliers) or not all(0 <= b < math.inf for b in multipliers):
            raise InvalidInputError(f"{len(path)} constraints need as many finite multipliers >= 0, got {multipliers}")
        for (neuron, sign), multiplier in zip(path, multipliers, strict=True):
            if first <= neuron < first + size:
                rows.append(row)
                places.append(neuron - first)
                signs.append(float(sign))
                weights.append(float(multiplier))
    index = torch.tensor(rows, dtype=torch.int64), torch.tensor(places, dtype=torch.int64)
    return index, torch.tensor(signs, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
