"""Branch and bound that finds its hidden boxes anew: regions of the input box, each with boxes of its own.

`branch_and_bound.py` keeps the boxes of hidden values that hold on the whole input box, so that a split of an early
neuron tightens nothing but that neuron. A region is the part of the input box in which some neurons have given signs;
its boxes are found anew under these constraints (`hidden_boxes.py`), and each region is searched for a while. What is
not proved by then is split by one neuron into two regions, z >= 0 and z <= 0, which together cover it: so all rows hold
on the input box once no region is left. A region is dropped only if its boxes show it to be empty, or if every leaf of
its trees has been proved in float64 on its boxes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.branch_and_bound import BranchAndBound, Corner
from acert_zoo.complete.hidden_boxes import HiddenBoxes, Sides, tight_boxes
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
from acert_zoo.complete.optimise import Optimised, Schedule, optimise
from acert_zoo.complete.proof import check_proof
from acert_zoo.complete.region_branching import influence
from acert_zoo.complete.split_tree import Path
from acert_zoo.network.graph import Network

ROOT = Schedule(100, decay=0.95)
AGAIN = Schedule(30, decay=0.9)
BOX_SHARE = 0.1  # of the time that is left, at most, for the boxes of one region
SIDES_SHARE = 1 / 64  # of the memory, at most, for how the boxes of one region were found; a stack of them waits
FIRST, LATER = 5.0, 1.0  # how long a region is searched, in terms of the time that its boxes took


@dataclass(frozen=True, eq=False)
class Region:
    """Attributes:
    path: (neuron, sign), the constraints. rows: int64, those that are not proved on it.
    boxes: true on it, of a region that holds it. sides: how they were found.
    state: slopes and multipliers of the rows there, columns: of these neurons.
    """

    path: Path
    rows: Tensor
    boxes: list[Interval]
    sides: list[Sides]
    state: Relaxation | None = None
    columns: Tensor | None = None


class RegionSearch:
    """Proves rows over one input box.

    Args:
        prover, network: of one network; the latter float32. box: float64 [1, *input].
        rows, const: float64 [M, K], [M] over the logits, each to be proved positive.
        cushion, memory, corner: as for `BranchAndBound`.
        choose: of the first region's bounds [M], the rows to prove (None: it cannot be done).

    Attributes:
        parts: how many leaves and empty regions the proof has so far.
    """

    def __init__(
        self,
        prover: LeafProver,
        network: Network,
        box: Interval,
        rows: Tensor,
        const: Tensor,
        *,
        cushion: float,
        memory: float,
        corner: Corner,
        choose: Callable[[Tensor], Tensor | None],
    ) -> None:
        self.prover, self.network, self.box = prover, network, box
        self.rows, self.const = rows, const
        self.cushion, self.memory, self.corner, self.choose = cushion, memory, corner, choose
        self.parts = 0

    @torch.no_grad()
    def run(self, boxes: list[Interval], end: float) -> str:
        """ "proved", "adversarial", "time", "memory" or "stuck"; boxes: true on the whole input box.

        Raises:
            TimeoutError: the time was over in the middle of a proof.
        """
        stack = [Region((), torch.arange(len(self.rows)), boxes, [])]
        while stack:
            if time.perf_counter() > end:
                return "time"
            region = stack.pop()
            outcome, children = self._visit(region, end)
            if outcome != "proved":
                return outcome
            stack += children
        return "proved"

    def _visit(self, region: Region, end: float) -> tuple[str, list[Region]]:
        """(outcome, regions that are left of this one)."""
        started = time.perf_counter()
        until = started + BOX_SHARE * (end - started)
        hidden = HiddenBoxes(
            self.prover,
            self.network,
            region.path,
            region.boxes,
            region.sides,
            memory=SIDES_SHARE * self.memory,
            until=until,
            deadline=end,
        )
        boxes = tight_boxes(self.box, hidden)
        if hidden.empty:
            self.parts += 1
            return "proved", []
        bounds = LinearBounds(self.network, boxes, fixed=region.path)
        index = region.rows
        rows, const = self.rows[index].float(), self.const[index].float()
        start, schedule = bounds.start(len(index)), ROOT
        if region.state is not None and region.columns is not None:
            start, schedule = bounds.carried(region.state, region.columns), AGAIN
        found = optimise(bounds, rows, const, start, schedule, target=3 * self.cushion, deadline=end)
        if self.corner(found.minimum.corner):
            return "adversarial", []
        if not region.path:
            chosen = self.choose(found.bounds)
            if chosen is None:
                return "stuck", []
            index, rows, const, found = index[chosen], rows[chosen], const[chosen], _pick(found, chosen)
        search = self._search(bounds, rows, const, found)
        allowed = (LATER if region.path else FIRST) * (time.perf_counter() - started)
        outcome = search.run(min(end, time.perf_counter() + allowed))
        if outcome in ("adversarial", "memory", "stuck"):
            return outcome, []
        parts = self.parts
        left = self._prove(search, boxes, index, region.path, end)
        if not left:
            return "proved", []
        neuron = influence(bounds, found, left, hidden.sides)
        if neuron is None:  # every sign is known: the multipliers are all that is left to find
            outcome, self.parts = search.run(end), parts
            if outcome != "proved":
                return outcome, []
            return ("stuck" if self._prove(search, boxes, index, region.path, end) else "proved"), []
        state = found.state.pick(left)
        return "proved", [
            Region((*region.path, (neuron, sign)), index[left], boxes, hidden.sides, state, bounds.neurons)
            for sign in (1, -1)
        ]

    def _search(self, bounds: LinearBounds, rows: Tensor, const: Tensor, found: Optimised) -> BranchAndBound:
        search = BranchAndBound(
            bounds, rows, const, memory=self.memory, corner=self.corner, cushion=self.cushion, packed=False
        )
        for row, value in enumerate(found.bounds.tolist()):
            put = search.close_root if value > self.cushion else search.open_root
            put(row, found.state.pick(slice(row, row + 1)), value)
        return search

    def _prove(self, search: BranchAndBound, boxes: list[Interval], index: Tensor, path: Path, end: float) -> list[int]:
        """Proves the rows whose trees are done; returns the places of those that are left."""
        done = search.done()
        proof = search.proof(done)
        where = index[done]
        proved = check_proof(self.prover, boxes, self.rows[where], self.const[where], proof, prefix=path, deadline=end)
        failed = {leaf.row for leaf in search.failed(proved, done)}
        self.parts += sum(len(p) for row, p in zip(done, proved, strict=True) if row not in failed)
        return [row for row in range(len(index)) if row not in done or row in failed]


def _pick(found: Optimised, index: Tensor | Sequence[int]) -> Optimised:
    minimum = found.minimum
    for name in ("bounds", "z", "coefficients", "corner"):
        setattr(minimum, name, getattr(minimum, name)[index])
    return Optimised(found.bounds[index], found.state.pick(torch.as_tensor(index)), minimum)
