"""Random layers that fit a value, for `random_modules.py`."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn


def random_layer(x: Tensor, rng: random.Random) -> nn.Module:
    """A layer that takes x [N, ...]."""
    simple: list[Callable[[], nn.Module]] = [
        nn.ReLU,
        lambda: nn.ReLU(inplace=True),
        lambda: nn.LeakyReLU(rng.choice((0.01, 0.3, 1.0, 1.5, -0.5, 0.0)), inplace=rng.random() < 0.3),
        lambda: nn.PReLU(rng.choice((1, x.shape[1])), rng.choice((0.25, -0.5, 1.7))),
        nn.ReLU6,
        lambda: nn.Hardtanh(*rng.choice(((-1, 1), (0.1, 0.4), (-0.2, 0.0)))),
        nn.Identity,
        nn.Dropout,
        lambda: nn.Linear(x.shape[-1], rng.choice((x.shape[-1], 2, 5)), bias=rng.random() < 0.8),
        nn.Flatten,
        lambda: nn.Sequential(*[nn.ReLU()] * 2, nn.Linear(x.shape[-1], x.shape[-1])),
        lambda: rng.choice((nn.Sigmoid, nn.Tanh, nn.ELU, nn.GELU, nn.Softplus, nn.Hardswish, nn.Hardsigmoid))(),
    ]
    if x.dim() == 4:
        simple += (
            [lambda: _convolution(x, rng)] * 6 + [lambda: _pooling(x, rng)] * 3 + [lambda: _batch_norm(x, rng)] * 2
        )
    if x.dim() == 3:
        simple += [lambda: nn.Conv1d(x.shape[1], 3, 2, padding=rng.choice((0, 1)))]
    if x.dim() == 2:
        simple += [lambda: nn.Linear(x.shape[-1], 8)] * 4 + [lambda: nn.BatchNorm1d(x.shape[1])]
    layer = rng.choice(simple)()
    for parameter in layer.parameters():
        parameter.data.mul_(rng.choice((1.0, 1.0, 2.0)))
    return layer.eval()


def _convolution(x: Tensor, rng: random.Random) -> nn.Module:
    inputs = x.shape[1]
    groups = rng.choice([g for g in (1, 1, inputs) if inputs % g == 0])
    kernel = rng.choice((1, 2, 3, (1, 3), (2, 1)))
    padding = rng.choice((0, 1, 1, "same", (0, 1)))
    kind = nn.ConvTranspose2d if rng.random() < 0.05 else nn.Conv2d
    if kind is nn.ConvTranspose2d:
        return nn.ConvTranspose2d(inputs, 3, 3, padding=1)
    return nn.Conv2d(
        inputs,
        groups * rng.choice((1, 2, 3)),
        kernel,
        stride=1 if padding == "same" else rng.choice((1, 1, 2, (1, 2))),
        padding=padding,
        dilation=rng.choice((1, 1, 1, 2)),
        groups=groups,
        bias=rng.random() < 0.8,
        padding_mode=rng.choice(("zeros",) * 9 + ("reflect", "circular", "replicate")),
    )


def _pooling(x: Tensor, rng: random.Random) -> nn.Module:
    size, stride = rng.choice((1, 2, 3, (1, 2), (2, 1))), rng.choice((None, 1, 2))
    padding, ceil = rng.choice((0, 0, 1)), rng.random() < 0.25
    return rng.choice(
        (
            lambda: nn.MaxPool2d(size, stride, padding, dilation=rng.choice((1, 1, 2)), ceil_mode=ceil),
            lambda: nn.AvgPool2d(size, stride, padding, ceil, rng.random() < 0.7, rng.choice((None, None, 3))),
            lambda: nn.AdaptiveAvgPool2d(rng.choice((1, 2, 3, (1, None), (None, 2)))),
            lambda: nn.AdaptiveMaxPool2d(rng.choice((1, 2, 3))),
        )
    )()


def _batch_norm(x: Tensor, rng: random.Random) -> nn.Module:
    norm = nn.BatchNorm2d(x.shape[1], affine=rng.random() < 0.7, track_running_stats=rng.random() < 0.9)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(torch.rand(x.shape[1]) - 0.5)
        norm.running_var.copy_(0.2 + torch.rand(x.shape[1]))
    if norm.affine:
        norm.weight.data.copy_(torch.randn(x.shape[1]))
    return norm
