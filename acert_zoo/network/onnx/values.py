"""What the ONNX reader passes from operator to operator: values of the network, and the shapes that ONNX gives them.

A file is read as a function of one image: its batch axis, where it has one, is an axis of size 1 like any other. An
`Activation` is a value of the network and the shape that ONNX sees. The two hold the same entries in the same order; so
Reshape, Flatten, Squeeze and Unsqueeze are no steps, and a step changes a value's shape only where a layer needs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo.network.building import operations as ops
from acert_zoo.network.building.builder import Builder, Unsupported, Value

MAX_ENTRIES = 2**27  # of one activation: 512 MiB in float32


@dataclass(frozen=True)
class Activation:
    """A tensor of the file that depends on its input; `dims` is its shape there, for a batch of one image."""

    value: Value
    dims: tuple[int, ...]

    @property
    def sample(self) -> tuple[int, ...]:
        """`dims` without a leading 1: the shape of one image where axis 0 is the batch."""
        return self.dims[1:] if len(self.dims) > 1 and self.dims[0] == 1 else (self.dims or (1,))


class Context:
    """One node being read: its name, attributes and opset, and the network that is built."""

    def __init__(
        self, builder: Builder, name: str, operator: str, attributes: dict[str, Any], opset: int, outputs: int = 1
    ) -> None:
        self.b, self.name, self.operator, self.attributes = builder, name, operator, attributes
        self.opset, self.outputs = opset, outputs

    def get(self, key: str, default: Any) -> Any:
        """An attribute; strings as text."""
        value = self.attributes.get(key, default)
        return value.decode() if isinstance(value, bytes) else value

    def shaped(self, x: Activation, shape: Sequence[int]) -> Value:
        """The value in another shape per sample."""
        return ops.to_shape(self.b, self.name, x.value, tuple(shape) or (1,))

    def sampled(self, x: Activation) -> Value:
        """The value in the shape of one image."""
        return self.shaped(x, x.sample)

    def along(self, x: Activation, axis: int) -> tuple[Value, int]:
        """The value, and which of its axes per sample is the file's `axis`."""
        axis = self.axis(axis, len(x.dims))
        if axis == 0 or x.sample == x.dims:
            return self.shaped(x, x.dims), axis
        return self.sampled(x), axis - 1

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as one from 0."""
        if not -rank <= axis < max(rank, 1):
            raise Unsupported(f"axis {axis} of {rank}")
        return axis % max(rank, 1)

    def check_size(self, dims: Sequence[int]) -> None:
        """Refuses a result that is too large, before it is computed."""
        if math.prod(dims) > MAX_ENTRIES:
            raise Unsupported(f"a value of shape {tuple(dims)}; at most {MAX_ENTRIES:,} entries are read")

    def weights(self, array: Any, what: str = "weights") -> Tensor:
        """Constants as a tensor of the network's dtype, which they must have."""
        if isinstance(array, Activation):
            raise Unsupported(f"{what} that depend on the input")
        wanted = {torch.float32: np.float32, torch.float64: np.float64}[self.b.dtype]
        if array.dtype != wanted:
            raise Unsupported(f"{what} of type {array.dtype} in a network of type {np.dtype(wanted)}")
        if not np.isfinite(array).all():
            raise Unsupported(f"{what} with numbers that are not finite")
        return torch.from_numpy(np.array(array))

    def integers(self, array: Any, what: str) -> list[int]:
        """A constant list of integers."""
        if isinstance(array, Activation) or array.dtype.kind not in "iu":
            raise Unsupported(f"{what} that are no constant integers")
        return [int(v) for v in np.ravel(array)]

    def axes(self, key: str, array: Any) -> list[int] | None:
        """Axes given as attribute `key` (older opsets) or as an input (newer ones); None where in neither."""
        if array is not None:
            return self.integers(array, key)
        value = self.attributes.get(key)
        return None if value is None else [int(v) for v in value]


def constant(ctx: Context, like: Value, array: Tensor) -> Value:
    """A constant as a value [n]: a linear layer whose weights are 0 on one entry of `like`."""
    flat = ops.to_shape(ctx.b, ctx.name, like, (math.prod(like.known_shape),))
    ctx.check_size((flat.known_shape[0], array.numel()))
    weight = torch.zeros(array.numel(), flat.known_shape[0], dtype=ctx.b.dtype)
    return ops.linear(ctx.b, ctx.name, flat, weight, array.reshape(-1).clone())
