"""The clean pass of a training step: train-mode logits, and the batch statistics that the bound pass reuses."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from acert_zoo.network import BatchNorm, Network


@dataclasses.dataclass(frozen=True)
class CleanPass:
    """Logits [N, K] and, for each BatchNorm step's index, the (mean, biased variance) of the batch, with gradient."""

    logits: Tensor
    statistics: dict[int, tuple[Tensor, Tensor]]
    count: dict[int, int]


def clean_pass(network: Network, images: Tensor) -> CleanPass:
    """Runs `network` with the batch's own BatchNorm statistics (biased variance, with gradient)."""
    values = [images]
    statistics: dict[int, tuple[Tensor, Tensor]] = {}
    count: dict[int, int] = {}
    for index, step in enumerate(network.steps):
        inputs = [values[i] for i in step.inputs]
        if isinstance(step, BatchNorm):
            dims = [0, *range(2, inputs[0].dim())]
            var, mean = torch.var_mean(inputs[0], dim=dims, correction=0)
            statistics[index] = (mean, var)
            count[index] = inputs[0].numel() // inputs[0].shape[1]
            step = dataclasses.replace(step, mean=mean, var=var)
        values.append(step(*inputs))
    return CleanPass(values[-1], statistics, count)


@torch.no_grad()
def update_running_statistics(network: Network, layers: list[nn.Module], result: CleanPass) -> None:
    """One update of the running statistics (momentum and unbiased variance as torch does), once a step."""
    indices = [i for i, step in enumerate(network.steps) if isinstance(step, BatchNorm)]
    for index, layer in zip(indices, layers, strict=True):
        mean, var = result.statistics[index]
        n = result.count[index]
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(var * (n / max(n - 1, 1)), layer.momentum)
        layer.num_batches_tracked += 1
