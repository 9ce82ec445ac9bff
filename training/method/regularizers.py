"""The two warm-up regularisers of Shi et al. 2021 (arXiv 2103.17268, section 3.3), from the boxes at ReLU inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, Interval
from training.compute import kernels
from training.compute.distributed import mean_over_ranks


def tightness(input_box: Interval, preactivations: list[Ball], tolerance: float = 0.5, compile: bool = False) -> Tensor:
    """L_tight: mean over ReLU inputs i of relu(tol - w_0 / max(w_i, 1e-12)) / tol.

    w is the mean interval half-width over batch and neurons, w_0 that of `input_box` (the normalised network input).
    """
    run = kernels.compiled if compile else kernels.plain
    widths = [
        (input_box.upper - input_box.lower).mean() / 2,
        *(_Mean.apply(_flat(b.radius), run) * b.scale for b in preactivations),
    ]
    w = mean_over_ranks(torch.stack(widths))
    return torch.relu(tolerance - w[0] / w[1:].clamp(min=1e-12)).mean() / tolerance


def relu_balance(preactivations: list[Ball], tolerance: float = 0.5, compile: bool = False) -> Tensor:
    """L_relu: mean over ReLU inputs of [relu(tol - a) + relu(tol - v)] / tol.

    a and v compare active (lower > 0) with inactive (upper < 0) neurons: the ratio q of their summed centres and of
    their summed squared deviations, folded to min(q, 1/q). A layer where either set is empty is taken out before the
    ratios are formed (their value would be finite and their gradient NaN); its term is 0.
    """
    run = kernels.compiled if compile else kernels.plain
    moments = [_Moments.apply(_flat(b.center), _flat(b.radius), run) for b in preactivations]  # the scale cancels out
    n_active, n_inactive, c_active, c_inactive, v_active, v_inactive = mean_over_ranks(torch.stack(moments)).unbind(1)
    both = (n_active > 0) & (n_inactive > 0)
    one = torch.ones_like(c_active)
    a = _balanced(torch.where(both, c_active, one) / torch.where(both, -c_inactive, one))
    v = _balanced(torch.where(both, v_active, one) / torch.where(both, v_inactive, one))
    terms = (torch.relu(tolerance - a) + torch.relu(tolerance - v)) / tolerance
    return torch.where(both, terms, torch.zeros_like(terms)).mean()


def _balanced(q: Tensor) -> Tensor:
    return torch.minimum(q, 1 / q.clamp(min=1e-12))


class _Mean(torch.autograd.Function):
    """`kernels.mean` of a flat tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[..., Any]) -> Tensor:  # type: ignore[override]
        ctx.like = x.numel(), x.dtype
        return run(kernels.mean)(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        n, dtype = ctx.like
        return (grad / n).to(dtype).expand(n), None


def _flat(x: Tensor) -> Tensor:
    """All entries in one dimension, in channels_last order (a view of a channels_last tensor)."""
    return x.movedim(1, -1).reshape(-1)


class _Moments(torch.autograd.Function):
    """[6]: mean of active, inactive, c active, c inactive, (c - m)^2 active, (c - m)^2 inactive over flat c and r; m is
    the mean of c over all ranks, with gradient.

    Not a chain of single operations, because these passes over all preactivations would cost as much as the bounds.
    """

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor, run: Callable[..., Any]) -> Tensor:  # type: ignore[override]
        mean = mean_over_ranks(run(kernels.mean)(center))
        sums = run(kernels.balance_moments)(center, radius, mean)
        ctx.save_for_backward(center, radius, mean, sums)
        ctx.run = run
        return sums / center.numel()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        center, radius, mean, sums = ctx.saved_tensors
        grad = grad / center.numel()
        deviations = sums[2:4] - mean * sums[:2]  # sums of c - m over active and over inactive
        to_mean = mean_over_ranks(-2 * torch.dot(grad[4:], deviations)) / center.numel()
        return ctx.run(kernels.balance_moments_gradient)(center, radius, mean, grad[2:], to_mean), None, None


def l1(parameters: Sequence[Tensor]) -> Tensor:
    """Sum of |w| over convolution and linear weights."""
    return torch.stack([p.abs().sum() for p in parameters]).sum()
