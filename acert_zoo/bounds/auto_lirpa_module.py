"""A `Network` as the plain torch module that auto-LiRPA bounds best.

The leading Normalize step is left out (its box is computed by us: it maps a box to a box exactly, whereas auto-LiRPA
0.3 relaxes a division and cannot push convolution patches through it), BatchNorm is folded, and every step is one of
the layers that all releases of auto-LiRPA convert. Convolutions are given to it without groups and dilation, as the
same ones with zeros in their kernels, and average pooling as a convolution: 0.3 pushes patches through grouped and
dilated kernels as if they were neither, and through average pooling without its padding or with windows that overlap
wrongly, so that its bounds are above what the network does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Tanh,
)
from acert_zoo.network.rule_table import RuleTable


class LirpaModule(nn.Module):
    """Runs `network` from the value after its leading Normalize to the logits [N, K].

    Args:
        network: folded, without average pooling, in one dtype.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        first = network.steps[0]
        uses = sum(0 in s.inputs for s in network.steps)
        self.normalize = first if isinstance(first, Normalize) and uses == 1 else None
        self.steps = network.steps[1:] if self.normalize is not None else network.steps
        self.start = 1 if self.normalize is not None else 0
        self.operations = nn.ModuleList(LAYERS[step](step) for step in self.steps)

    def box(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The module's input box for a box of pixels."""
        return (lower, upper) if self.normalize is None else (self.normalize(lower), self.normalize(upper))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.start: x}
        for number, (step, operation) in enumerate(zip(self.steps, self.operations, strict=True), self.start + 1):
            values[number] = operation(*(values[i] for i in step.inputs))
        return values[number]


class _Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class _Rearrange(nn.Module):
    def __init__(self, step: Reshape | Permute | Concat) -> None:
        super().__init__()
        self.step = step

    def forward(self, *values: Tensor) -> Tensor:
        if isinstance(self.step, Reshape):
            return values[0].reshape(-1, *self.step.shape)
        if isinstance(self.step, Permute):
            return values[0].permute(self.step.dims)
        return torch.cat(values, dim=self.step.dim)


class _PerChannel(nn.Module):
    """scale x + shift along axis 1, as a layer that auto-LiRPA takes for linear."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        n = len(scale)
        self.images = _load(nn.Conv2d(n, n, 1), dense_kernel(scale.view(-1, 1, 1, 1), n), shift)
        self.vectors = _load(nn.Linear(n, n), torch.diag(scale), shift)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.vectors(x) if x.dim() == 2 else self.images(x)
        return out


_LARGEST_KERNEL = 2**24  # entries


def dense_kernel(weight: Tensor, groups: int, dilation: tuple[int, int] = (1, 1)) -> Tensor:
    """[C_out, C_in, kh', kw'] of a plain convolution that does what `weight` [C_out, C_in/groups, kh, kw] does.

    Raises:
        UnsupportedLayerError: it would have more than 2^24 entries.
    """
    out, per_group, *window = weight.shape
    height, width = (1 + d * (k - 1) for d, k in zip(dilation, window, strict=True))
    if out * per_group * groups * height * width > _LARGEST_KERNEL:
        raise UnsupportedLayerError(
            f"a convolution of {groups} groups, dilation {dilation}, is too large for auto-LiRPA without them"
        )
    dense = weight.new_zeros(groups, out // groups, groups, per_group, height, width)
    for g, own in enumerate(weight.split(out // groups)):
        dense[g, :, g, :, :: dilation[0], :: dilation[1]] = own
    return dense.view(out, groups * per_group, height, width)


def _conv(step: Conv) -> nn.Module:
    weight = dense_kernel(step.weight, step.groups, step.dilation)
    out, inputs, height, width = weight.shape
    return _load(nn.Conv2d(inputs, out, (height, width), step.stride, step.padding), weight, step.bias)


def averages_as_convolutions(network: Network, input_shape: Sequence[int]) -> Network:
    """The network with a convolution in place of each average pooling; the inputs are [N, *input_shape]."""
    if not any(isinstance(step, AvgPool) for step in network.steps):
        return network
    dtype = network.head.weight.dtype
    values = network.run(torch.zeros(1, *input_shape, dtype=dtype))
    return Network(tuple(_averaging(s, values[s.inputs[0]]) if isinstance(s, AvgPool) else s for s in network.steps))


def _averaging(step: AvgPool, x: Tensor) -> Conv:
    channels, window = x.shape[1], step.kernel_size
    weight = torch.full((channels, 1, *window), 1 / math.prod(window), dtype=x.dtype)
    settings: dict[str, Any] = {"stride": step.stride, "padding": step.padding, "groups": channels}
    return Conv(inputs=step.inputs, name=step.name, weight=weight, bias=x.new_zeros(channels), **settings)


def _linear(step: Linear) -> nn.Module:
    return _load(nn.Linear(step.weight.shape[1], step.weight.shape[0]), step.weight, step.bias)


def _load(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


LAYERS: RuleTable[Callable[[Any], nn.Module]] = RuleTable(
    "auto-LiRPA",
    {
        Conv: _conv,
        Linear: _linear,
        BatchNorm: lambda step: _PerChannel(*step.scale_shift(step.mean, step.var)),
        Normalize: lambda step: _PerChannel(1 / step.std, -step.mean / step.std),
        ReLU: lambda step: nn.ReLU(),
        Sigmoid: lambda step: nn.Sigmoid(),
        Tanh: lambda step: nn.Tanh(),
        Flatten: lambda step: nn.Flatten(),
        MaxPool: lambda step: nn.MaxPool2d(step.kernel_size, step.stride, step.padding),
        Add: lambda step: _Sum(),
        Reshape: _Rearrange,
        Permute: _Rearrange,
        Concat: _Rearrange,
    },
    {
        AvgPool: "its rule is wrong with padding and with windows that overlap (see `averages_as_convolutions`)",
        Sign: "its rules are for continuous functions",
    },
)
