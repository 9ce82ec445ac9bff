"""For few inputs: the box itself is cut in parts until each is excluded, all in rigorous float64, in batches of parts.

Where the network is a chain of linear layers and ReLUs, hidden boxes come from zonotopes
(`bounds/rigorous_zonotope.py`); on ACAS Xu ten to twenty times as fast as CROWN's, and nearly as tight. The rows are
bounded by the zonotope and by CROWN. The input that is halved is the one to which most of the spread of the nearest
row is due, the relaxation of neurons included; elsewhere the one whose CROWN coefficient times width is largest. The
halves [l, m] and [m, u] cover [l, u]: nothing is lost between them. Parts that are left are a stack, so that few are
ever waiting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds import rigorous_zonotope
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.bounds.rigorous_zonotope import ZonotopeBoxes
from acert_zoo.complete.conditions import Conditions, outer_box
from acert_zoo.complete.counterexample import Counterexample, CounterexampleSearch
from acert_zoo.network.properties import Case

BATCH = 256  # parts
MEMORY = 2**30  # bytes
_COPIES = 8  # of a value's size that a backward pass holds for each row of each part


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    done: whether every part is excluded. found: a counterexample. parts: how many parts were excluded.
    late: whether the time was over.
    """

    done: bool
    found: Counterexample | None = None
    parts: int = 0
    late: bool = False


@torch.no_grad()
def split_inputs(
    crown: RigorousCrown,
    search: CounterexampleSearch,
    case: Case,
    end: float,
    *,
    batch: int = BATCH,
    memory: float = MEMORY,
) -> Outcome:
    """Excludes every conjunction on all of the case's box, or finds a counterexample.

    Args:
        end: a value of `time.perf_counter()`. batch: how many parts are bounded at once. memory: bytes they may take.
    """
    whole = outer_box(case, search.shape)
    largest = max(value.numel() for value in crown.network.run(whole.lower))
    bounds = _PartBounds(crown, Conditions(case.conjunctions, crown.network.num_classes), end, memory, largest)
    batch = max(1, min(batch, bounds.most))
    stack = [(whole.lower, whole.upper)]
    parts = 0
    while stack:
        if time.perf_counter() > end:
            return Outcome(False, parts=parts, late=True)
        taken, stack = stack[-batch:], stack[:-batch]
        box = Interval(torch.cat([low for low, _ in taken]), torch.cat([high for _, high in taken]))
        found = bounds(box)
        left = (~(found.lowest > 0)).nonzero().squeeze(1)  # NaN is left, too
        parts += len(box.lower) - len(left)
        if len(left) == 0:
            continue
        box, found = Interval(box.lower[left], box.upper[left]), found.pick(left)
        middle = (box.lower + box.upper) / 2
        points = torch.cat([middle, torch.where(found.weight > 0, box.lower, box.upper)])
        hit = search.among(case, case.conjunctions, points, bounds.conditions.worst(crown.network(points)))
        if hit is not None:
            return Outcome(False, hit, parts)
        inside = ((middle > box.lower) & (middle < box.upper)).flatten(1)
        cut = found.influence.nan_to_num().masked_fill(~inside, -1.0).argmax(1)
        if not bool(inside.gather(1, cut.unsqueeze(1)).all()):
            return Outcome(False, parts=parts)  # a part without a float64 between its ends
        stack += _halves(box, middle, cut, found.lowest)
    return Outcome(True, parts=parts)


@dataclass(frozen=True, eq=False)
class _Found:
    """Of N parts: lowest [N], > 0 where every conjunction is excluded; of the row that is nearest to being excluded its
    CROWN coefficients [N, *input], and how much of its spread each input is to blame for [N, inputs]."""

    lowest: Tensor
    weight: Tensor
    influence: Tensor

    def pick(self, index: Tensor) -> _Found:
        return _Found(self.lowest[index], self.weight[index], self.influence[index])


class _PartBounds:
    """Rigorous bounds over parts. `largest`: numbers in the largest value; `most`: how many parts at once."""

    def __init__(self, crown: RigorousCrown, conditions: Conditions, end: float, memory: float, largest: int) -> None:
        self.crown, self.conditions, self.end = crown, conditions, end
        self.most = int(memory / (_COPIES * 8 * len(conditions.rows) * largest))
        self.zonotopes = rigorous_zonotope.suits(crown.network)
        if self.zonotopes:
            fit = int(memory / rigorous_zonotope.bytes_per_box(crown.network))
            self.zonotopes = fit > 0
            self.most = min(self.most, fit) if fit else self.most

    def __call__(self, box: Interval) -> _Found:
        conditions = self.conditions
        if self.zonotopes:
            forms = ZonotopeBoxes(self.crown.network)
            boxes = self.crown.rigorous.boxes(box, forms)
            bounds, weight = self._backward(boxes)
            rows = forms.rows(boxes, conditions.rows, conditions.const)
            direct = rows.box().lower
            bounds = torch.maximum(bounds, torch.where(direct.isfinite(), direct, -torch.inf))
        else:
            boxes = self.crown.boxes_over(box, deadline=self.end)
            bounds, weight = self._backward(boxes)
        lowest, conjunction = conditions.best(bounds).min(1)
        own = conditions.owner == conjunction.unsqueeze(1)  # [N, M]
        row = bounds.masked_fill(~own, -torch.inf).argmax(1)
        weight = weight[torch.arange(len(row)), row]
        if self.zonotopes:
            return _Found(lowest, weight, rows.influence(row))
        width = (box.upper - box.lower).flatten(1)
        return _Found(lowest, weight, weight.abs().flatten(1) * width + 1e-9 * width)

    def _backward(self, boxes: list[Interval]) -> tuple[Tensor, Tensor]:
        """CROWN's bounds [N, M] of every row, and coefficients [N, M, *input]; 1 where nothing reaches the input."""
        conditions = self.conditions
        count, rows = len(boxes[0].lower), len(conditions.rows)
        repeated = [Interval(b.lower.repeat_interleave(rows, 0), b.upper.repeat_interleave(rows, 0)) for b in boxes]
        bounds, weight = self.crown.rows_over(
            repeated, conditions.rows.repeat(count, 1), conditions.const.repeat(count)
        )
        if weight is None:
            weight = torch.ones_like(repeated[0].lower)
        return bounds.view(count, rows), weight.view(count, rows, *weight.shape[1:])


def _halves(box: Interval, middle: Tensor, cut: Tensor, lowest: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both halves of every part, those of the lowest bound last: they are taken first."""
    order = lowest.argsort(descending=True)
    place = torch.arange(len(order))
    halves = []
    for half in range(2):
        ends = [box.lower[order], box.upper[order]]
        ends[1 - half].flatten(1)[place, cut[order]] = middle[order].flatten(1)[place, cut[order]]
        halves.append(zip(ends[0].split(1), ends[1].split(1), strict=True))
    return [part for both in zip(*halves, strict=True) for part in both]
