"""What is asked: linear functions of the logits that must be positive on a box."""

from __future__ import annotations

import torch
from torch import Tensor


def margin_rows(label: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[K - 1, K]: f_label - f_t for every t != label, in order of t."""
    others = [t for t in range(classes) if t != label]
    rows = torch.zeros(classes - 1, classes, dtype=dtype)
    rows[:, label] = 1
    rows[range(classes - 1), others] = -1
    return rows
