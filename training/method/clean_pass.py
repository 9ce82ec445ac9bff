"""The clean pass of a training step: train-mode logits, and the batch statistics that the bound pass reuses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine, BatchNorm, ReLU
from training.compute import distributed, kernels
from training.compute.precision import lowered
from training.method.batch_norm import Normalize, NormalizeReLU


@dataclasses.dataclass(frozen=True)
class CleanPass:
    """Logits [N, K] and, for each BatchNorm step's index, the (mean, biased variance) of the batch, with gradient.

    `count[i]` is the number of values behind each entry of `statistics[i]`, over all ranks.
    """

    logits: Tensor
    statistics: dict[int, tuple[Tensor, Tensor]]
    count: dict[int, int]


def clean_pass(
    network: Network, images: Tensor, precision: torch.dtype = torch.float32, compile: bool = False
) -> CleanPass:
    """Runs `network` with the BatchNorm statistics (biased variance, with gradient) of the global batch.

    Args:
        precision: of the activations and of the affine layers but the head; float32 leaves the network as it is. The
            statistics, which the bound pass uses too, and the logits are always of the images' dtype.
        compile: whether BatchNorm and the ReLU behind it are one compiled pass over memory.
    """
    if precision != torch.float32:
        network = lowered(network, precision)
    fused = _with_their_relu(network) if compile else frozenset()
    values: list[Any] = [images]
    statistics: dict[int, tuple[Tensor, Tensor]] = {}
    count: dict[int, int] = {}
    for index, step in enumerate(network.steps):
        inputs = [values[i] for i in step.inputs]
        if isinstance(step, BatchNorm):
            x = inputs[0]
            if index in fused:
                out, mean, var = NormalizeReLU.apply(x, step.gamma, step.beta, step.epsilon, kernels.compiled)
            else:
                out, mean, var = Normalize.apply(x, step.gamma, step.beta, step.epsilon)
            statistics[index] = (mean, var)
            count[index] = x.numel() // x.shape[1] * distributed.world_size()
        elif index - 1 in fused:
            out = inputs[0]
        elif isinstance(step, Affine):
            out = step(inputs[0].to(step.weight.dtype))
        else:
            out = step(*inputs)
        values.append(out)
        for i in step.inputs:  # autograd keeps what it needs
            if network.last_use[i] == index:
                values[i] = None
    return CleanPass(values[-1].to(images.dtype), statistics, count)


def _with_their_relu(network: Network) -> frozenset[int]:
    """Indices of the BatchNorm steps that the next step, a ReLU, reads and no other."""
    read = Counter(i for step in network.steps for i in step.inputs)
    pairs = zip(range(len(network.steps)), network.steps, network.steps[1:], strict=False)
    return frozenset(
        index
        for index, step, after in pairs
        if isinstance(step, BatchNorm)
        and isinstance(after, ReLU)
        and after.inputs == (index + 1,)
        and read[index + 1] == 1
    )


@torch.no_grad()
def update_running_statistics(network: Network, model: nn.Module, result: CleanPass, rate: float | None = None) -> None:
    """One update of `model`'s running statistics (unbiased variance as torch does), once a step; `rate`: the weight of
    the new ones, the layers' momentum by default."""
    layers: dict[int, Any] = {
        id(m.running_mean): m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))
    }
    for index, (mean, var) in result.statistics.items():
        layer = layers[id(network.steps[index].mean)]  # type: ignore[attr-defined]
        n = result.count[index]
        weight = layer.momentum if rate is None else rate
        layer.running_mean.lerp_(mean, weight)
        layer.running_var.lerp_(var * (n / max(n - 1, 1)), weight)
        layer.num_batches_tracked += 1
