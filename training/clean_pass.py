"""The clean pass of a training step: train-mode logits, and the batch statistics that the bound pass reuses."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.network.graph import BatchNorm, Network
from training import distributed


@dataclasses.dataclass(frozen=True)
class CleanPass:
    """Logits [N, K] and, for each BatchNorm step's index, the (mean, biased variance) of the batch, with gradient.

    `count[i]` is the number of values behind each entry of `statistics[i]`, over all ranks.
    """

    logits: Tensor
    statistics: dict[int, tuple[Tensor, Tensor]]
    count: dict[int, int]


def clean_pass(network: Network, images: Tensor, precision: torch.dtype = torch.float32) -> CleanPass:
    """Runs `network` with the BatchNorm statistics (biased variance, with gradient) of the global batch.

    Args:
        precision: float32, or the lower precision of the affine layers' products (autocast); the statistics, which the
            bound pass uses too, and the logits are always of the images' dtype.
    """
    values: list[Any] = [images]
    statistics: dict[int, tuple[Tensor, Tensor]] = {}
    count: dict[int, int] = {}
    exact = precision == torch.float32
    with contextlib.nullcontext() if exact else torch.autocast(images.device.type, dtype=precision):
        for index, step in enumerate(network.steps):
            inputs = [values[i] for i in step.inputs]
            if isinstance(step, BatchNorm):
                x = inputs[0].to(images.dtype)
                out, mean, var = _Normalize.apply(x, step.gamma, step.beta, step.epsilon)
                statistics[index] = (mean, var)
                count[index] = x.numel() // x.shape[1] * distributed.world_size()
                values.append(out)
            else:
                values.append(step(*inputs))
            for i in step.inputs:  # autograd keeps what it needs
                if network.last_use[i] == index:
                    values[i] = None
    return CleanPass(values[-1].to(images.dtype), statistics, count)


class _Normalize(torch.autograd.Function):
    """(gamma (x - mean) / sqrt(var + epsilon) + beta, mean, var): batch normalisation whose statistics have gradients.

    mean and var (biased) are those of the batch over all ranks: with local means m_r and variances v_r of equally many
    values, mean = avg m_r and var = avg [v_r + (m_r - mean)^2]. A function of its own because the built-in one does
    not differentiate through the statistics that it returns, and doing it in single operations costs twice the time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        if distributed.world_size() > 1:
            means, variances = distributed.gather_over_ranks(torch.stack([mean, var])).unbind(1)
            mean = means.mean(0)
            var = (variances + (means - mean) ** 2).mean(0)
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
        inverse = torch.rsqrt(var + ctx.epsilon)
        grad_mean = grad_mean - gamma * inverse * grad_beta
        grad_var = grad_var - 0.5 * inverse**2 * gamma * grad_gamma
        if distributed.world_size() > 1:
            grad_mean, grad_var = distributed.mean_over_ranks(torch.stack([grad_mean, grad_var])).unbind(0)
        # d mean / d x = 1 / n, d var / d x = 2 (x - mean) / n; the sum over ranks and n / world_size values here
        n = x.numel() // x.shape[1]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        slope = 2 * grad_var / n
        grad_x.addcmul_(x, slope.view(shape)).add_((grad_mean / n - slope * mean).view(shape))
        return grad_x, grad_gamma, grad_beta, None


@torch.no_grad()
def update_running_statistics(network: Network, model: nn.Module, result: CleanPass) -> None:
    """One update of `model`'s running statistics (momentum and unbiased variance as torch does), once a step."""
    layers = {id(m.running_mean): m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))}
    for index, (mean, var) in result.statistics.items():
        layer = layers[id(network.steps[index].mean)]  # type: ignore[attr-defined]
        n = result.count[index]
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(var * (n / max(n - 1, 1)), layer.momentum)
        layer.num_batches_tracked += 1
