"""A classifier as a graph of affine and monotone steps: the one form in which bounds see a network.

`Network` is a tuple of steps in execution order. Value 0 is the network input; step i reads the values named by its
`inputs` and produces value i + 1. The last step is always a `Linear` layer, the *head*, because margins are bounded
through rows W_y - W_t of that layer (Gowal et al. 2018, section 3, "elision of the last layer").

A `Network` is a snapshot: steps cache |W|. After the weights change, trace or fold again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.errors import UnsupportedLayerError


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One operation. `inputs` are indices of values; `name` is the layer's name in the traced module."""

    inputs: tuple[int, ...]
    name: str = ""

    def __call__(self, *values: Tensor) -> Tensor:
        raise NotImplementedError


class Monotone(Step):
    """A step that is non-decreasing in every input: its interval bound is the step applied to both ends."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(Monotone):
    """(x - mean) / std per channel, in that order; mean, std of shape [C], std > 0."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x - self.mean.to(x.dtype).view(shape)) / self.std.to(x.dtype).view(shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReLU(Monotone):
    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.relu(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Monotone):
    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.flatten(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Monotone):
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool(Monotone):
    """Mean over windows, padding counted as zeros (as torch's default `count_include_pad=True`)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Monotone):
    """Sum of two values (a residual connection)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        return a + b


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Step):
    """W x + b. `map(x, weight, bias)` applies the layer's linear structure with other weights, e.g. |W|."""

    weight: Tensor
    bias: Tensor

    def map(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.map(x, self.weight, self.bias)

    @cached_property
    def abs_weight(self) -> Tensor:
        """|W|, computed once per snapshot."""
        return self.weight.abs()

    @property
    def inner_length(self) -> int:
        """n: the number of products in one output (C_in/groups * kh * kw, or in_features)."""
        return self.weight[0].numel()


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Affine):
    def map(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Affine):
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def map(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNorm(Step):
    """Batch normalisation with fixed statistics; `gamma`, `beta`, `mean`, `var` of shape [C]."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        scale, shift = self.scale_shift(self.mean, self.var)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)

    def scale_shift(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """(s, t) with BN(x) = s x + t, for the given statistics."""
        scale = self.gamma * torch.rsqrt(var + self.epsilon)
        return scale, self.beta - mean * scale


Statistics = Mapping[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of steps ending in a Linear head; see the module's docstring."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps or not isinstance(self.steps[-1], Linear):
            last = type(self.steps[-1]).__name__ if self.steps else "nothing"
            raise UnsupportedLayerError(
                f"the network must end in a Linear layer that gives the logits; it ends in {last}"
            )

    @property
    def head(self) -> Linear:
        return self.steps[-1]  # type: ignore[return-value]

    @property
    def num_classes(self) -> int:
        return self.head.weight.shape[0]

    def run(self, x: Tensor) -> list[Tensor]:
        """All values, index 0 being `x` itself ([N, C, H, W])."""
        values = [x]
        for step in self.steps:
            values.append(step(*(values[i] for i in step.inputs)))
        return values

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [N, K] of raw pixels [N, C, H, W] in [0, 1]."""
        return self.run(x)[-1]

    def map_tensors(self, f: Any) -> Network:
        """A copy whose every tensor t is f(t)."""
        return Network(
            tuple(
                dataclasses.replace(
                    s,
                    **{
                        k.name: f(getattr(s, k.name))
                        for k in dataclasses.fields(s)
                        if isinstance(getattr(s, k.name), Tensor)
                    },
                )
                for s in self.steps
            )
        )

    def detach(self) -> Network:
        """A copy without gradient (a new snapshot)."""
        return self.map_tensors(lambda t: t.detach())

    def to(self, dtype: torch.dtype) -> Network:
        """A detached copy in another floating dtype (exact from float32 to float64)."""
        return self.map_tensors(lambda t: t.detach().to(dtype))

    def fold_batchnorm(self, statistics: Statistics | None = None) -> Network:
        """A network without the BatchNorm steps that directly follow an affine step.

        W' = s W and b' = s b + t, with s, t of `BatchNorm.scale_shift`. `statistics` maps the index of a BatchNorm
        step to the (mean, var) to use in place of its own, with gradient (training: those of the clean batch).
        Other BatchNorm steps stay as they are.
        """
        statistics = statistics or {}
        used = [i for step in self.steps for i in step.inputs]
        renumber: dict[int, int] = {0: 0}
        out: list[Step] = []
        for index, step in enumerate(self.steps):
            source = renumber[step.inputs[0]]
            if isinstance(step, BatchNorm):
                mean, var = statistics.get(index, (step.mean, step.var))
                before = out[source - 1] if source else None
                if isinstance(before, Affine) and used.count(step.inputs[0]) == 1:
                    scale, shift = step.scale_shift(mean, var)
                    weight = before.weight * scale.view((-1,) + (1,) * (before.weight.dim() - 1))
                    out[source - 1] = dataclasses.replace(before, weight=weight, bias=before.bias * scale + shift)
                    renumber[index + 1] = source
                    continue
                step = dataclasses.replace(step, mean=mean, var=var)
            out.append(dataclasses.replace(step, inputs=tuple(renumber[i] for i in step.inputs)))
            renumber[index + 1] = len(out)
        return Network(tuple(out))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _flat_layers(module: torch.nn.Module, prefix: str = "") -> list[tuple[str, torch.nn.Module]]:
    if not isinstance(module, torch.nn.Sequential):
        return [(prefix, module)]
    return [
        item
        for name, child in module.named_children()
        for item in _flat_layers(child, f"{prefix}.{name}" if prefix else name)
    ]


def trace(model: torch.nn.Module) -> Network:
    """The `Network` of a zoo model (its `layers`) or of an `nn.Sequential`.

    Raises:
        UnsupportedLayerError: naming the first layer that no bound here covers.
    """
    root = getattr(model, "layers", model)
    steps: list[Step] = []
    for name, layer in _flat_layers(root):
        steps.append(_step(name, layer, (len(steps),)))
    return Network(tuple(steps))


def _step(name: str, layer: torch.nn.Module, inputs: tuple[int, ...]) -> Step:
    nn = torch.nn
    common: dict[str, Any] = {"inputs": inputs, "name": name}
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(layer.out_channels)
        return Conv(
            weight=layer.weight,
            bias=bias,
            stride=_pair(layer.stride),
            padding=_pair(layer.padding),
            dilation=_pair(layer.dilation),
            groups=layer.groups,
            **common,
        )
    if isinstance(layer, nn.Linear):
        bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(layer.out_features)
        return Linear(weight=layer.weight, bias=bias, **common)
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.affine and layer.running_mean is not None:
        return BatchNorm(
            gamma=layer.weight,
            beta=layer.bias,
            mean=layer.running_mean,
            var=layer.running_var,
            epsilon=layer.eps,
            **common,
        )
    if isinstance(layer, nn.ReLU):
        return ReLU(**common)
    if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1:
        return Flatten(**common)
    if type(layer).__name__ == "Normalize" and hasattr(layer, "mean") and hasattr(layer, "std"):
        return Normalize(mean=layer.mean, std=layer.std, **common)
    if isinstance(layer, nn.MaxPool2d) and not layer.ceil_mode and _pair(layer.dilation) == (1, 1):
        return MaxPool(
            kernel_size=_pair(layer.kernel_size), stride=_pair(layer.stride), padding=_pair(layer.padding), **common
        )
    if (
        isinstance(layer, nn.AvgPool2d)
        and not layer.ceil_mode
        and layer.count_include_pad
        and layer.divisor_override is None
    ):
        return AvgPool(
            kernel_size=_pair(layer.kernel_size), stride=_pair(layer.stride), padding=_pair(layer.padding), **common
        )
    raise UnsupportedLayerError(
        f"layer {name!r} ({layer}) is not supported; supported: Conv2d (zero padding), Linear, BatchNorm1d/2d, ReLU, "
        "Flatten, MaxPool2d, AvgPool2d, Normalize and nn.Sequential of these"
    )
