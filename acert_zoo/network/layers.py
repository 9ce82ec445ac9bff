"""The layers that a network is made of: affine and monotone steps, each a frozen dataclass that computes itself.

To add one: CONTRIBUTING.md. Its rules stand in one table for each algorithm (`rule_table.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One operation. `inputs` are indices of values; `name` is the layer's name in the traced module."""

    inputs: tuple[int, ...]
    name: str = ""

    def __call__(self, *values: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def inner_length(self) -> int:
        """n: how many products (or, in average pooling, summands) go into one output."""
        return 1


class Monotone(Step):
    """A step that is non-decreasing in every input: its interval bound is the step applied to both ends."""


class Selection(Monotone):
    """A monotone step whose every output is an entry of its inputs, or 0: floating point commits no rounding error."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(Monotone):
    """(x - mean) / std per channel, in that order; mean, std of shape [C], std > 0."""

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x - self.mean.to(x.dtype).view(shape)) / self.std.to(x.dtype).view(shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReLU(Selection):
    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.relu(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Monotone):
    """1 / (1 + e^-x)."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sigmoid(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tanh(Monotone):
    """The hyperbolic tangent."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sign(Monotone):
    """-1, 0 or 1 (binarised networks); it jumps, and commits no rounding error."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sign(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Selection):
    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.flatten(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Selection):
    """Each sample to `shape` (no batch axis in it; the batch axis stays first)."""

    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(x.shape[0], *self.shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Selection):
    """Axes reordered as by `Tensor.permute(dims)`; dims[0] = 0, the batch axis stays first."""

    dims: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.permute(self.dims)


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Selection):
    """Values joined along `dim` >= 1."""

    dim: int

    def __call__(self, *values: Tensor) -> Tensor:
        return torch.cat(values, dim=self.dim)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Selection):
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

    @property
    def inner_length(self) -> int:
        return self.kernel_size[0] * self.kernel_size[1]


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
        """n: C_in/groups * kh * kw, or in_features."""
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
