"""What a case of a property forbids, as arrays: the box, and the rows of all its conjunctions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acert_zoo.bounds.directed_rounding import down, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.properties import Case, Conjunction, matrix


def outer_box(case: Case, shape: Sequence[int]) -> Interval:
    """float64 [1, *shape], rounded outward."""
    lower, upper = (torch.from_numpy(end).view(1, *shape) for end in case.box())
    return Interval(down(lower), up(upper))


class Conditions:
    """C conjunctions as M rows (c, d): outputs y that satisfy conjunction k have c y + d <= 0 in each of its rows.

    So conjunction k has no solution where one of its rows is positive; without rows nothing excludes it.

    Attributes:
        rows: [M, K]. const: [M]. owner: int64 [M], the conjunction of each row.
    """

    def __init__(self, conjunctions: Sequence[Conjunction], outputs: int, dtype: torch.dtype = torch.float64) -> None:
        parts = [matrix(conjunction, outputs) for conjunction in conjunctions]
        self.rows = torch.cat([torch.from_numpy(a) for a, _ in parts]).to(dtype)
        self.const = -torch.cat([torch.from_numpy(b) for _, b in parts]).to(dtype)
        self.owner = torch.repeat_interleave(torch.tensor([len(b) for _, b in parts]))
        self.count = len(conjunctions)

    def best(self, bounds: Tensor) -> Tensor:
        """[..., C]: the largest of the rows' bounds [..., M] in each conjunction; it is excluded where that is > 0."""
        shape = (*bounds.shape[:-1], self.count)
        index = self.owner.expand(bounds.shape)
        return bounds.new_full(shape, -torch.inf).scatter_reduce(-1, index, bounds, "amax")

    def worst(self, outputs: Tensor) -> Tensor:
        """[N, C] of outputs [N, K]: <= 0 where a conjunction is satisfied (up to rounding)."""
        return self.best(outputs @ self.rows.t() + self.const)
