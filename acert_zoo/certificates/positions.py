"""Which images an index means: positions, a slice, or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from acert_zoo.errors import InvalidInputError


def positions(index: Any, n: int) -> list[int]:
    """The positions among n images, from 0, that a slice, positions (negative ones from the end) or a mask [n] mean.

    Raises:
        InvalidInputError: it is none of these. IndexError: a position beyond the ends.
    """
    everything = range(n)
    if isinstance(index, slice):
        return list(everything[index])
    if isinstance(index, (Tensor, np.ndarray, Sequence)) and not isinstance(index, str):
        values = index.tolist() if isinstance(index, (Tensor, np.ndarray)) else list(index)
        if isinstance(values, list) and all(isinstance(v, bool) for v in values) and len(values) == n:
            return [i for i, chosen in enumerate(values) if chosen]
        if isinstance(values, list) and all(type(v) is int for v in values):
            return [everything[v] for v in values]
    raise InvalidInputError(
        f"certificates are chosen by a position, a slice, positions or a mask of {n} truth values, got {index!r:.80}"
    )
