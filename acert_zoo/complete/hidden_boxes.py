"""Boxes of hidden values, each open neuron's by slopes of its own (alpha-CROWN for hidden neurons).

Boxes that CROWN finds with default slopes are loose, and what is loose in one layer is looser in the next: in deep
fully connected networks most of what is missing to a proof is lost there. Layer by layer, slopes for +z_i and -z_i are
found in float32 on the boxes found so far; what they give is then proved by the rigorous backward pass, to which slopes
are mere data, and the intersection with the box that CROWN had proved is kept.

The same for a part of the input box, that in which some neurons have given signs (`regions.py`): every box is then true
of the points of that part, where the constraints s_i z_i >= 0 hold. They clip the boxes of their neurons and come with
multipliers, as in `leaf_proof.py`. An empty box means that the part is empty.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.leaf_proof import LeafProver, Leaves
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
from acert_zoo.complete.optimise import Optimised, Schedule, optimise
from acert_zoo.complete.split_tree import Path
from acert_zoo.network.graph import Network

SCHEDULE = Schedule(20, alpha=0.3, beta=0.1, decay=0.9)
AGAIN = Schedule(8, alpha=0.1, beta=0.1, decay=0.8)
_CUSHION = 1e-5  # a neuron whose sign is known by so much needs no better slopes
_CHUNK_BYTES = 2**24  # what the rows of a chunk may take
_TENSORS = 5  # [S, T] that an `Optimised` has


@dataclass(frozen=True, eq=False)
class Sides:
    """How the ends of the boxes of some neurons were found: what is best for +z (below) and for -z (above).

    Attributes:
        step: index of the ReLU that reads them. neurons: int64 [S], their places in its flattened input, ascending.
        columns: int64 [T], the numbers of the earlier neurons that have slopes.
    """

    step: int
    neurons: Tensor
    columns: Tensor
    below: Optimised
    above: Optimised

    def start(self, found: Optimised, bounds: LinearBounds, neurons: Tensor) -> Relaxation:
        """Where to begin for `neurons`: with what was found for them, else with default slopes."""
        state = bounds.start(len(neurons))
        place = torch.searchsorted(self.neurons, neurons).clamp(max=len(self.neurons) - 1)
        own = (self.neurons[place] == neurons).nonzero().squeeze(1)
        old = bounds.carried(found.state.pick(place[own]), self.columns)
        state.alpha[own], state.beta[own] = old.alpha, old.beta
        return state


class HiddenBoxes:
    """Tightens the boxes over one input box; to be passed to `RigorousNetwork.boxes` as `refine`.

    Args:
        prover: of the network. network: the same in float32, for the search of slopes.
        path: signs of neurons, numbered as in `split_tree.py`; the boxes are about the points that have them.
        known: boxes of all values but the logits that are true of these points already; default: CROWN's are found.
        before: the sides of `known`, with whose slopes the search begins.
        memory: bytes that `sides` may take; what does not fit is not kept.
        until: a value of `time.perf_counter()`; layers after it keep the boxes they have.
        deadline: another one, after which TimeoutError is raised.

    Attributes:
        sides: of every value that was tightened, in order; for branching.
        empty: whether no point has those signs: some box was empty.
    """

    def __init__(
        self,
        prover: LeafProver,
        network: Network,
        path: Path = (),
        known: Sequence[Interval] | None = None,
        before: Sequence[Sides] = (),
        *,
        memory: float = math.inf,
        until: float = math.inf,
        deadline: float = math.inf,
    ) -> None:
        self.prover, self.network, self.path, self.known = prover, network, path, known
        self.before, self.left, self.until, self.deadline = before, memory, until, deadline
        self.readers = {network.steps[number].inputs[0]: number for number in prover.relus}
        self.sides: list[Sides] = []
        self.empty = False

    @torch.no_grad()
    def __call__(self, index: int, values: list[Interval], box: Interval) -> Interval:
        """The box of value `index`, tightened if a ReLU reads it and lies behind another one, and clipped.

        Args:
            values: boxes [1, *value] of the earlier values. box: [1, *value], true already.
        """
        if self.empty:
            return box
        if self.known is not None:
            box = _intersection(box, self.known[index])
        if index in self.prover.crown.refined:
            if self.known is None:
                box = self.prover.crown.tighten(index, values, box, deadline=self.deadline)
            if time.perf_counter() <= self.until:
                box = self._tighten(index, values, box)
        box = self._clipped(index, values, box)
        self.empty = bool((box.lower > box.upper).any())
        return box

    def _clipped(self, index: int, values: list[Interval], box: Interval) -> Interval:
        reader = self.readers.get(index)
        if reader is None or not self.path:
            return box
        first = self.prover.numbers([*values, box])[reader]
        lower, upper = box.lower.flatten().clone(), box.upper.flatten().clone()
        for neuron, sign in self.path:
            if first <= neuron < first + len(lower):
                end = lower if sign > 0 else upper
                end[neuron - first] = end[neuron - first].clamp(min=0) if sign > 0 else end[neuron - first].clamp(max=0)
        return Interval(lower.view(box.lower.shape), upper.view(box.upper.shape))

    def _tighten(self, index: int, values: list[Interval], box: Interval) -> Interval:
        bounds = LinearBounds(self.network, values, index, self.path)
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten().nonzero().squeeze(1)
        if bounds.columns == 0 or len(open_) == 0:
            return box
        lower, upper = box.lower.flatten().clone(), box.upper.flatten().clone()
        boxes = [*values, box]
        size = max(1, _CHUNK_BYTES // max(bounds.bytes_per_row(), 8 * max(v.lower.numel() for v in boxes)))
        for neurons in open_.split(size):
            if time.perf_counter() > self.until:
                break
            begin = [bounds.start(len(neurons)), bounds.start(len(neurons))]
            for side in self.before:
                if side.step == self.readers[index]:
                    begin = [side.start(found, bounds, neurons) for found in (side.below, side.above)]
                    break
            low, below = self._lower_bounds(bounds, boxes, neurons, 1.0, begin[0])
            high, above = self._lower_bounds(bounds, boxes, neurons, -1.0, begin[1])
            lower[neurons] = torch.maximum(lower[neurons], low)
            upper[neurons] = torch.minimum(upper[neurons], -high)
            self._keep(Sides(self.readers[index], neurons, bounds.neurons, below, above))
        return Interval(lower.view(box.lower.shape), upper.view(box.upper.shape))

    def _keep(self, side: Sides) -> None:
        self.left -= 2 * _TENSORS * 4 * len(side.neurons) * len(side.columns)
        if self.left >= 0:
            for found in (side.below, side.above):
                found.minimum.corner = found.minimum.corner[:0].clone()
            self.sides.append(side)

    def _lower_bounds(
        self, bounds: LinearBounds, boxes: list[Interval], neurons: Tensor, sign: float, start: Relaxation
    ) -> tuple[Tensor, Optimised]:
        """Rigorous lower bounds [S] of sign * z for neurons of the last of the boxes; -inf: nothing is proved."""
        rows = torch.zeros(len(neurons), boxes[-1].lower.numel())
        rows[torch.arange(len(neurons)), neurons] = sign
        rows = rows.view(-1, *boxes[-1].lower.shape[1:])
        const = torch.zeros(len(neurons))
        schedule = AGAIN if self.before else SCHEDULE
        found = optimise(bounds, rows, const, start, schedule, target=_CUSHION, deadline=self.until)
        columns = [column for column, _ in bounds.prefix]
        leaves = Leaves(
            rows.double(),
            const.double(),
            [tuple((int(bounds.neurons[column]), s) for column, s in bounds.prefix)] * len(neurons),
            found.state.beta[:, columns].tolist(),
            bounds.neurons,
            found.state.alpha,
        )
        proved = self.prover.lower_bounds(boxes, leaves, value=len(boxes) - 1, deadline=self.deadline)
        return proved, found


def _intersection(one: Interval, other: Interval) -> Interval:
    return Interval(torch.maximum(one.lower, other.lower), torch.minimum(one.upper, other.upper))


def tight_boxes(box: Interval, hidden: HiddenBoxes) -> list[Interval]:
    """Rigorous boxes of all values but the logits over the input box [1, *input], float64.

    Raises:
        TimeoutError: the deadline has passed.
    """
    return hidden.prover.crown.rigorous.boxes(box, hidden)
