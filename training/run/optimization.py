"""Optimisers, and the running average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from training.recipes.recipe import Optimizer
from training.run.muon import Muon


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Convolution and linear weights: what weight decay and L1 act on (no biases, no BatchNorm)."""
    return [p for p in model.parameters() if p.dim() > 1]


def build_optimizer(settings: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that `settings.name` names; weight decay on `weights_of(model)` alone.

    `muon` makes the step of every weight orthogonal but the head's, which has no BatchNorm behind it.
    """
    weights, rest = weights_of(model), [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": settings.weight_decay}, {"params": rest}]
    fused = {"fused": True} if weights[0].is_cuda else {}  # one kernel for all parameters
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True, **fused)
    if settings.name == "muon":
        hidden = {"params": weights[:-1], "weight_decay": settings.weight_decay, "orthogonal": True}
        return Muon([hidden, {**groups[0], "params": weights[-1:]}, groups[1]], lr=settings.lr)
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}
    if settings.name == "adamw":  # its default for groups that do not say is not 0
        groups[1]["weight_decay"] = 0.0
    return kinds[settings.name](groups, lr=settings.lr, **({} if settings.name == "radam" else fused))


class WeightAverage:
    """An exponential moving average of a model's parameters and running statistics.

    After step t (from 1): average += (1 - d) (weights - average), d = min(decay, (1 + t) / (10 + t)), so that the
    random initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(new, rate)
            else:
                mine.copy_(new)
