"""Batch normalisation whose statistics have gradients: the bound pass is folded with those of the clean pass.

Functions of their own, because the built-in one does not differentiate through the statistics that it returns, and
doing it in single operations costs twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from training.compute import distributed, kernels


class Normalize(torch.autograd.Function):
    """(gamma (x - mean) / sqrt(var + epsilon) + beta, mean, var): batch normalisation whose statistics have gradients.

    mean and var (biased) are those of the batch over all ranks: with local means m_r and variances v_r of equally many
    values, mean = avg m_r and var = avg [v_r + (m_r - mean)^2].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        mean, var = _statistics(x, gamma.dtype)
        out = torch.nn.functional.batch_norm(x, mean, var, gamma, beta, training=False, eps=epsilon)
        ctx.save_for_backward(x, gamma, mean, var)
        ctx.epsilon = epsilon
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gamma, mean, var = ctx.saved_tensors
        # with mean and var held fixed: grad_x, grad_gamma = sum grad (x - mean) / std, grad_beta = sum grad
        unsaved = mean.new_empty(0)  # "compute it from mean and var": CUDA's channels_last kernel refuses None here
        grad_x, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
            grad, x, gamma, mean, var, unsaved, unsaved, False, ctx.epsilon, [True, True, True]
        )
        slope, offset = _through_statistics(
            ctx.epsilon, x, gamma, mean, var, grad_gamma, grad_beta, grad_mean, grad_var
        )
        shape = (1, -1) + (1,) * (x.dim() - 2)
        grad_x.addcmul_(x, slope.to(x.dtype).view(shape)).add_(offset.to(x.dtype).view(shape))
        return grad_x, grad_gamma, grad_beta, None


class NormalizeReLU(torch.autograd.Function):
    """(relu of `Normalize`'s output, mean, var), in the passes over memory of kernels.py, run by `run`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, run: Callable[..., Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _statistics(x, gamma.dtype)
        scale = gamma * torch.rsqrt(var + epsilon)
        out = run(kernels.normalize_relu)(kernels.rows(x), scale, beta - mean * scale)
        ctx.save_for_backward(x, gamma, mean, var, out)
        ctx.epsilon, ctx.run = epsilon, run
        return kernels.unrows(out, x), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gamma, mean, var, out = ctx.saved_tensors
        g, z = kernels.rows(grad), kernels.rows(x)
        inverse = torch.rsqrt(var + ctx.epsilon)
        grad_beta, products = ctx.run(kernels.normalize_relu_sums)(g, out, z)
        grad_gamma = (products - mean * grad_beta) * inverse
        slope, offset = _through_statistics(
            ctx.epsilon, x, gamma, mean, var, grad_gamma, grad_beta, grad_mean, grad_var
        )
        grad_x = ctx.run(kernels.normalize_relu_gradient)(g, out, z, gamma * inverse, slope, offset)
        return kernels.unrows(grad_x, x), grad_gamma, grad_beta, None, None


def _statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of the global batch, in `dtype`."""
    mean, var = (t.to(dtype) for t in torch.batch_norm_update_stats(x, None, None, 0.0))
    if distributed.world_size() > 1:
        means, variances = distributed.gather_over_ranks(torch.stack([mean, var])).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean) ** 2).mean(0)
    return mean, var


def _through_statistics(
    epsilon: float,
    x: Tensor,
    gamma: Tensor,
    mean: Tensor,
    var: Tensor,
    grad_gamma: Tensor,
    grad_beta: Tensor,
    grad_mean: Tensor,
    grad_var: Tensor,
) -> tuple[Tensor, Tensor]:
    """(slope, offset) [C]: slope x + offset is the gradient of x by way of the statistics.

    d mean / d x = 1 / n and d var / d x = 2 (x - mean) / n, n the values of a channel here times the ranks that sum.
    """
    inverse = torch.rsqrt(var + epsilon)
    grad_mean = grad_mean - gamma * inverse * grad_beta
    grad_var = grad_var - 0.5 * inverse**2 * gamma * grad_gamma
    if distributed.world_size() > 1:
        grad_mean, grad_var = distributed.mean_over_ranks(torch.stack([grad_mean, grad_var])).unbind(0)
    n = x.numel() // x.shape[1]
    slope = 2 * grad_var / n
    return slope, grad_mean / n - slope * mean
