"""The two warm-up regularisers of Shi et al. 2021 (section 3.3), from the intervals at the ReLU inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Interval


def tightness(input_box: Interval, preactivations: list[Interval], tolerance: float = 0.5) -> Tensor:
    """L_tight: mean over ReLU inputs i of relu(tol - w_0 / max(w_i, 1e-12)) / tol.

    w is the mean interval half-width over batch and neurons, w_0 that of `input_box` (the normalised network input).
    """
    w_0 = (input_box.upper - input_box.lower).mean() / 2
    terms = [
        torch.relu(tolerance - w_0 / ((b.upper - b.lower).mean() / 2).clamp(min=1e-12)) / tolerance
        for b in preactivations
    ]
    return torch.stack(terms).mean()


def relu_balance(preactivations: list[Interval], tolerance: float = 0.5) -> Tensor:
    """L_relu: mean over ReLU inputs of [relu(tol - a) + relu(tol - v)] / tol.

    a and v compare active (lower > 0) with inactive (upper < 0) neurons: the ratio q of their summed centres and of
    their summed squared deviations, folded to min(q, 1/q). A layer where either set is empty is skipped before the
    ratios are formed (their value would be finite and their gradient NaN); its term is 0.
    """
    total = preactivations[0].lower.new_zeros(())
    for box in preactivations:
        center = (box.lower + box.upper) / 2
        active = (box.lower > 0).to(center.dtype)
        inactive = (box.upper < 0).to(center.dtype)
        if not bool(active.any()) or not bool(inactive.any()):
            continue
        squared = (center - center.mean()) ** 2
        a = _balanced((center * active).mean() / (-center * inactive).mean())
        v = _balanced((squared * active).sum() / (squared * inactive).sum())
        total = total + (torch.relu(tolerance - a) + torch.relu(tolerance - v)) / tolerance
    return total / len(preactivations)


def _balanced(q: Tensor) -> Tensor:
    return torch.minimum(q, 1 / q.clamp(min=1e-12))


def l1(parameters: list[Tensor]) -> Tensor:
    """Sum of |w| over convolution and linear weights."""
    return torch.stack([p.abs().sum() for p in parameters]).sum()
