"""For few inputs: the box itself is cut in parts until each is excluded, all in rigorous float64, in batches of parts.

CROWN bounds over a part come with coefficients of the inputs; the input whose coefficient times width is largest is
halved. The halves [l, m] and [m, u] cover [l, u]: nothing is lost between them. Parts that are left are a stack, so
that few are ever waiting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.complete.conditions import Conditions, outer_box
from acert_zoo.complete.counterexample import Counterexample, CounterexampleSearch
from acert_zoo.network.properties import Case

BATCH = 64


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
    crown: RigorousCrown, search: CounterexampleSearch, case: Case, end: float, batch: int = BATCH
) -> Outcome:
    """Excludes every conjunction on all of the case's box, or finds a counterexample.

    Args:
        end: a value of `time.perf_counter()`.
    """
    conditions = Conditions(case.conjunctions, crown.network.num_classes)
    whole = outer_box(case, search.shape)
    stack = [(whole.lower, whole.upper)]
    parts = 0
    while stack:
        if time.perf_counter() > end:
            return Outcome(False, parts=parts, late=True)
        taken, stack = stack[-batch:], stack[:-batch]
        box = Interval(torch.cat([low for low, _ in taken]), torch.cat([high for _, high in taken]))
        boxes = crown.boxes_over(box, deadline=end)
        lowest, weight = _excluded(crown, conditions, boxes)
        left = (~(lowest > 0)).nonzero().squeeze(1)  # NaN is left, too
        parts += len(box.lower) - len(left)
        if len(left) == 0:
            continue
        box, weight = Interval(box.lower[left], box.upper[left]), weight[left]
        middle = (box.lower + box.upper) / 2
        points = torch.cat([middle, torch.where(weight > 0, box.lower, box.upper)])
        found = search.among(case, case.conjunctions, points, conditions.worst(crown.network(points)))
        if found is not None:
            return Outcome(False, found, parts)
        width = (box.upper - box.lower).flatten(1)
        score = weight.abs().flatten(1) * width + 1e-9 * width
        inside = ((middle > box.lower) & (middle < box.upper)).flatten(1)
        cut = score.masked_fill(~inside, -1.0).argmax(1)
        if not bool(inside.gather(1, cut.unsqueeze(1)).all()):
            return Outcome(False, parts=parts)  # a part without a float64 between its ends
        stack += _halves(box, middle, cut, lowest[left])
    return Outcome(True, parts=parts)


def _excluded(crown: RigorousCrown, conditions: Conditions, boxes: list[Interval]) -> tuple[Tensor, Tensor]:
    """([N]: > 0 where every conjunction is excluded on box n, [N, *input]: coefficients of the row that is nearest)."""
    count, rows = len(boxes[0].lower), len(conditions.rows)
    repeated = [Interval(b.lower.repeat_interleave(rows, 0), b.upper.repeat_interleave(rows, 0)) for b in boxes]
    bounds, weight = crown.rows_over(repeated, conditions.rows.repeat(count, 1), conditions.const.repeat(count))
    bounds = bounds.view(count, rows)
    lowest, conjunction = conditions.best(bounds).min(1)
    if weight is None:
        return lowest, torch.ones_like(boxes[0].lower)
    own = conditions.owner == conjunction.unsqueeze(1)  # [N, M]
    row = bounds.masked_fill(~own, -torch.inf).argmax(1)
    return lowest, weight.view(count, rows, *weight.shape[1:])[torch.arange(count), row]


def _halves(box: Interval, middle: Tensor, cut: Tensor, lowest: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both halves of every part, those of the lowest bound last: they are taken first."""
    found = []
    for i in lowest.argsort(descending=True).tolist():
        for half in range(2):
            ends = [box.lower[i : i + 1].clone(), box.upper[i : i + 1].clone()]
            ends[1 - half].view(-1)[cut[i]] = middle[i].flatten()[cut[i]]
            found.append((ends[0], ends[1]))
    return found
