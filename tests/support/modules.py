"""Modules as people write them: every kind of layer, and code in `forward`."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acert_zoo.network.graph import Network
from acert_zoo.network.reading import read

SHAPE = (3, 8, 8)


class Code(nn.Module):
    """A module made of a function of (self, x); layers are given by name."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = function
        self.register_buffer("offset", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(inputs: int = 3, outputs: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options})


def head(inputs: int = 192) -> nn.Linear:
    return nn.Linear(inputs, 4)


MODELS: dict[str, tuple] = {
    "flatten, relu": (lambda m, x: m.head(torch.flatten(F.relu(m.conv(x)), 1)), {"conv": conv(), "head": head()}),
    "view with size": (lambda m, x: m.head(m.conv(x).relu().view(x.size(0), -1)), {"conv": conv(), "head": head()}),
    "view with shape": (lambda m, x: m.head(x.view(x.shape[0], 192)), {"head": head()}),
    "reshape with -1 first": (lambda m, x: m.head(x.reshape(-1, 192)), {"head": head()}),
    "residual": (lambda m, x: m.head((m.conv(x).relu() + x).flatten(1)), {"conv": conv(), "head": head()}),
    "in-place relu before a residual": (
        lambda m, x: m.head((m.act(m.a(x)) + m.b(x)).flatten(1)),
        {"a": conv(), "b": conv(), "act": nn.ReLU(inplace=True), "head": head()},
    ),
    "in-place relu of a value read later": (
        lambda m, x: (lambda z: m.head((m.b(F.relu(z, inplace=True)) + z).flatten(1)))(m.a(x)),
        {"a": conv(), "b": conv(), "head": head()},
    ),
    "in-place addition": (
        lambda m, x: (lambda z: m.head(z.add_(m.b(x)).flatten(1) + z.flatten(1)))(m.a(x)),
        {"a": conv(), "b": conv(), "head": head()},
    ),
    "batchnorm": (lambda m, x: m.head(m.norm(m.conv(x)).flatten(1)), {
        "conv": conv(), "norm": nn.BatchNorm2d(3), "head": head(),
    }),
    "batchnorm first, without affine": (lambda m, x: m.head(m.norm(x).relu().flatten(1)), {
        "norm": nn.BatchNorm2d(3, affine=False), "head": head(),
    }),
    "max pooling": (lambda m, x: m.head(F.max_pool2d(x, 3, 2, 1).flatten(1)), {"head": head(48)}),
    "average pooling": (lambda m, x: m.head(m.pool(x).flatten(1)), {"pool": nn.AvgPool2d(2), "head": head(48)}),
    "adaptive pooling to 1": (lambda m, x: m.head(m.pool(x).flatten(1)), {
        "pool": nn.AdaptiveAvgPool2d(1), "head": head(3),
    }),
    "adaptive pooling to 2x4": (lambda m, x: m.head(F.adaptive_max_pool2d(x, (2, 4)).flatten(1)), {"head": head(24)}),
    "mean over the image": (lambda m, x: m.head(m.conv(x).mean(dim=(2, 3))), {"conv": conv(), "head": head(3)}),
    "mean, kept dims, squeezed": (
        lambda m, x: m.head(x.mean([-1, -2], keepdim=True).squeeze(-1).squeeze(-1)), {"head": head(3)},
    ),
    "extremes along axes": (
        lambda m, x: m.head((m.conv(x).max(3).values - x.min(2, keepdim=True)[0].squeeze(2) + x.amin((3,))).flatten(1)),
        {"conv": conv(), "head": head(24)},
    ),
    "permute": (lambda m, x: m.head(x.permute(0, 2, 3, 1).reshape(x.size(0), -1)), {"head": head()}),
    "transpose, unsqueeze": (
        lambda m, x: m.head(x.transpose(1, 2).unsqueeze(1).flatten(1)), {"head": head()},
    ),
    "concatenation": (lambda m, x: m.head(torch.cat([x, m.conv(x)], 1).flatten(1)), {
        "conv": conv(), "head": head(384),
    }),
    "constants": (
        lambda m, x: m.head(((x * 2 - m.offset) / 0.5 + 1).flatten(1)), {"head": head()},
    ),
    "negation": (lambda m, x: m.head((1 - m.conv(-x) / -3.0).flatten(1)), {"conv": conv(), "head": head()}),
    "difference of values": (lambda m, x: m.head((m.conv(x) - x).flatten(1)), {"conv": conv(), "head": head()}),
    "dropout in eval": (
        lambda m, x: m.head(F.dropout(m.drop(x), 0.5, training=m.training).flatten(1)),
        {"drop": nn.Dropout2d(0.5), "head": head()},
    ),
    "functional layers": (
        lambda m, x: F.linear(F.conv2d(x, m.conv.weight, m.conv.bias, padding=1).flatten(1), m.head.weight),
        {"conv": conv(), "head": head()},
    ),
    "padding by name": (lambda m, x: m.head(m.conv(x).flatten(1)), {
        "conv": conv(padding="same", dilation=2), "head": head(),
    }),
    "no linear layer at the end": (lambda m, x: m.pool(m.conv(x)).flatten(1), {
        "conv": conv(outputs=5), "pool": nn.AdaptiveAvgPool2d(1),
    }),
    "identity, contiguous, an unused branch": (
        lambda m, x: (m.conv(x), m.head(m.same(x).contiguous().flatten(1)))[1],
        {"conv": conv(), "same": nn.Identity(), "head": head()},
    ),
    "nested modules": (lambda m, x: m.head(m.body(x).flatten(1)), {
        "body": nn.Sequential(conv(), nn.Sequential(nn.ReLU(), conv(bias=False))), "head": head(),
    }),
}  # fmt: skip


@cache
def build(name: str) -> nn.Module:
    function, layers = MODELS[name]
    model = Code(function, **layers)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * torch.rand(3, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(3, generator=generator))
    return model.eval()


@cache
def built(name: str) -> Network:
    """The network of `build(name)`: reading takes a second."""
    return prepare(build(name), SHAPE)


def prepare(*arguments, **options) -> Network:
    return read(*arguments, **options).network


def images(n: int = 3) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(7))
