"""Which neuron a region is split by: the one on whose relaxation most of the bounds depends, directly or not.

The gap of a neuron's relaxation lowers the bounds of the rows, and it widens the boxes of later neurons, whose gaps
lower the bounds in turn. Both are added up by going backward once: from the rows to the ends of the last boxes, from
the bounds that gave these ends to earlier ones, and so on. Bounds are linear in the coefficients that were found, so
the derivative by the end of a box is that of the upper line at the minimising corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acert_zoo.complete.hidden_boxes import Sides
from acert_zoo.complete.linear_bounds import LinearBounds, Minimum
from acert_zoo.complete.optimise import Optimised


def scores(bounds: LinearBounds, minimum: Minimum, sides: Sequence[Sides]) -> Tensor:
    """[T]: about how much the sum of the rows' bounds would gain without the gap of each column's relaxation.

    Args:
        minimum: of the rows [S, T]. sides: of the boxes that `bounds` has, in the order of the values.
    """
    below, above = torch.zeros(bounds.columns), torch.zeros(bounds.columns)  # by the lower end, by the upper
    total = torch.zeros(bounds.columns)

    def add(weight: Tensor, found: Minimum) -> None:
        """weight [S]: how much what is sought gains from a bound of `found`."""
        count = found.coefficients.shape[1]  # the first columns
        low, high = bounds.lower[:count], bounds.upper[:count]
        a = (-found.coefficients).clamp(min=0)
        z = torch.minimum(torch.maximum(found.z, low), high)
        width = (high - low).clamp(min=1e-12).square()
        total[:count] += weight @ (a * bounds.intercept[:count])
        below[:count] += weight @ (a * high * (high - z) / width)
        above[:count] += weight @ (a * -low * (z - low) / width)

    add(torch.ones(len(minimum.bounds)), minimum)
    for side in reversed(sides):
        layer = bounds.layers[side.step]
        place = torch.full((layer.active.numel(),), -1)
        place[layer.index] = torch.arange(layer.columns.start, layer.columns.stop)
        column = place[side.neurons]
        kept = (column >= 0).nonzero().squeeze(1)  # the others are no longer open
        for ends, found in ((below, side.below), (above, side.above)):
            at = found.minimum
            picked = Minimum(at.bounds[kept], at.z[kept], at.coefficients[kept], at.corner[:0])
            add(ends[column[kept]], picked)
    return total


def influence(bounds: LinearBounds, found: Optimised, rows: Sequence[int], sides: Sequence[Sides]) -> int | None:
    """The number of the neuron to split for the given rows; None where every sign is known.

    Neurons that no other box depends on are left to `branch_and_bound.py` while there are others.
    """
    minimum = found.minimum
    part = Minimum(minimum.bounds[rows], minimum.z[rows], minimum.coefficients[rows], minimum.corner[:0])
    free = (found.state.sign[0] == 0).nonzero().squeeze(1)
    if len(free) == 0:
        return None
    early = free[free < max((len(side.columns) for side in sides), default=0)]
    free = early if len(early) else free
    best = free[scores(bounds, part, sides)[free].argmax()]
    return int(bounds.neurons[best])
