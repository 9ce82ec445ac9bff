"""Whether a module is still the one that was read: its tensors' contents and all else that its forward can depend on.

A snapshot (what is in it: `state_walk.py`) holds tensors and arrays by copies of their contents (edits through `.data`
or `.detach().numpy()` leave no other trace), numbers and strings by value, other objects by identity.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.network.torch_modules.state_walk import GLOBAL_HOOKS, UNSEEN, Identity, walk

__all__ = ["GLOBAL_HOOKS", "ModuleState"]

_MOST = 2**17  # items


class ModuleState:
    """A snapshot of `model`; `unchanged(model)` compares it with what the module is now.

    Attributes:
        whole: False where there was more to look at than is looked at (a module that holds a whole data set, say):
            then `unchanged` can find a change, but not that there was none.
    """

    def __init__(self, model: nn.Module) -> None:
        items = walk(model)
        self._items = [_kept(item) for item in islice(items, _MOST)]
        self.whole = next(items, None) is None and not any(item is UNSEEN for item in self._items)

    def unchanged(self, model: nn.Module) -> bool:
        now = walk(model)
        same = all(_same(a, b) for a, b in zip(self._items, now, strict=False))
        return same and (len(self._items) == _MOST or next(now, None) is None)


def _kept(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.detach().clone()
    return item.copy() if isinstance(item, np.ndarray) else item


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Identity) or isinstance(b, Identity):
        return isinstance(a, Identity) and isinstance(b, Identity) and a.value is b.value
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and _same_tensors(a, b.detach())
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if type(a) is not type(b) or a.dtype != b.dtype:
            return False
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _same_tensors(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape, a.device) != (b.dtype, b.shape, b.device):
        return False
    try:
        if torch.equal(a, b):
            return True
        return a.is_floating_point() and bool(torch.isclose(a, b, rtol=0.0, atol=0.0, equal_nan=True).all())
    except (RuntimeError, NotImplementedError):  # layouts without a comparison: taken for changed
        return False
