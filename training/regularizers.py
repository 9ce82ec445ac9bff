"""The two warm-up regularisers of Shi et al. 2021 (arXiv 2103.17268, section 3.3), from the boxes at ReLU inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, Interval
from training.distributed import mean_over_ranks


def tightness(input_box: Interval, preactivations: list[Ball], tolerance: float = 0.5) -> Tensor:
    """L_tight: mean over ReLU inputs i of relu(tol - w_0 / max(w_i, 1e-12)) / tol.

    w is the mean interval half-width over batch and neurons, w_0 that of `input_box` (the normalised network input).
    """
    widths = [(input_box.upper - input_box.lower).mean() / 2, *(b.radius.mean() * b.scale for b in preactivations)]
    w = mean_over_ranks(torch.stack(widths))
    return torch.relu(tolerance - w[0] / w[1:].clamp(min=1e-12)).mean() / tolerance


def relu_balance(preactivations: list[Ball], tolerance: float = 0.5) -> Tensor:
    """L_relu: mean over ReLU inputs of [relu(tol - a) + relu(tol - v)] / tol.

    a and v compare active (lower > 0) with inactive (upper < 0) neurons: the ratio q of their summed centres and of
    their summed squared deviations, folded to min(q, 1/q). A layer where either set is empty is taken out before the
    ratios are formed (their value would be finite and their gradient NaN); its term is 0.
    """
    boxes = [(_flat(b.center), _flat(b.radius)) for b in preactivations]  # the scale cancels in all ratios
    means = mean_over_ranks(torch.stack([center.mean() for center, _ in boxes]))
    moments = [_Moments.apply(c, r, mean) for (c, r), mean in zip(boxes, means, strict=True)]
    n_active, n_inactive, c_active, c_inactive, v_active, v_inactive = mean_over_ranks(torch.stack(moments)).unbind(1)
    both = (n_active > 0) & (n_inactive > 0)
    one = torch.ones_like(c_active)
    a = _balanced(torch.where(both, c_active, one) / torch.where(both, -c_inactive, one))
    v = _balanced(torch.where(both, v_active, one) / torch.where(both, v_inactive, one))
    terms = (torch.relu(tolerance - a) + torch.relu(tolerance - v)) / tolerance
    return torch.where(both, terms, torch.zeros_like(terms)).mean()


def _balanced(q: Tensor) -> Tensor:
    return torch.minimum(q, 1 / q.clamp(min=1e-12))


def _flat(x: Tensor) -> Tensor:
    """All entries in one dimension, in channels_last order (a view of a channels_last tensor)."""
    return x.movedim(1, -1).reshape(-1)


class _Moments(torch.autograd.Function):
    """[6]: mean of active, inactive, c active, c inactive, (c - m)^2 active, (c - m)^2 inactive, for flat c, r and m.

    Not a chain of single operations, because these passes over all preactivations would cost as much as the bounds.
    """

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor, mean: Tensor) -> Tensor:  # type: ignore[override]
        active = (center > radius).to(center.dtype)
        inactive = (center + radius < 0).to(center.dtype)
        deviation = center - mean
        squared = deviation * deviation
        ctx.save_for_backward(active, inactive, deviation)
        masks = torch.stack([active.sum(), inactive.sum()])
        sums = [torch.dot(x, m) for x in (center, squared) for m in (active, inactive)]
        return torch.cat([masks, torch.stack(sums)]) / center.numel()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:  # type: ignore[override]
        active, inactive, deviation = ctx.saved_tensors
        _, _, first_a, first_i, second_a, second_i = grad / active.numel()
        slope = (active * (2 * second_a)).addcmul_(inactive, 2 * second_i).mul_(deviation)
        grad_mean = -slope.sum()
        return slope.addcmul_(active, first_a).addcmul_(inactive, first_i), None, grad_mean


def l1(parameters: list[Tensor]) -> Tensor:
    """Sum of |w| over convolution and linear weights."""
    return torch.stack([p.abs().sum() for p in parameters]).sum()
