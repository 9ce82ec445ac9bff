"""A matrix library that does what the derivations allow and no real one would: every product added one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ORDERS = ("forward", "backward", "random")


class HostileBlas(TorchDispatchMode):
    """Inside it, float64 matrix products and sums are formed term by term, in the given order.

    A product that is added to a matrix (`addmm`, `baddbmm`) begins with that matrix, so that it takes part in all of
    the additions.
    """

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order, self.generator, self.calls = order, torch.Generator().manual_seed(0), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        if name not in ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "sum"):
            return func(*args, **kwargs)
        assert (kwargs.get("alpha", 1), kwargs.get("beta", 1)) == (1, 1)
        if name == "sum":
            if len(args) < 2 or args[1] != [0]:
                return func(*args, **kwargs)
            return self._total(args[0].new_zeros(args[0].shape[1:]), list(args[0]))
        self.calls += 1
        start, (left, right) = (args[0], args[1:]) if "add" in name else (None, args)
        vector = right.dim() == 1
        right = right.unsqueeze(-1) if vector else right
        if start is None:
            start = left.new_zeros(*left.shape[:-1], right.shape[-1])
        elif vector:
            start = start.unsqueeze(-1)
        terms = [left[..., k : k + 1] * right[..., k : k + 1, :] for k in range(left.shape[-1])]
        found = self._total(start, terms)
        found = found.squeeze(-1) if vector else found
        if func._schema.name.endswith("_"):
            return args[0].copy_(found)
        return kwargs["out"].copy_(found) if "out" in kwargs else found

    def _total(self, start: Tensor, terms: list[Tensor]) -> Tensor:
        order = list(range(len(terms)))
        if self.order == "backward":
            order.reverse()
        elif self.order == "random":
            order = torch.randperm(len(terms), generator=self.generator).tolist()
        total = start
        for k in order:
            total = total + terms[k]
        return total
