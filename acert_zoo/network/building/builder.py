"""What readers of networks build: `Builder` collects steps, `Value` is a tensor that depends on the input.

Handlers (`operations.py` and beside it) take the `Builder`, a name and the operation's own arguments, in which
values that depend on the network input are `Value`s, and return a `Value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.layers import Step

SUPPORTED = (
    "Conv1d/2d (zero padding), Linear, BatchNorm1d/2d (eval), ReLU, LeakyReLU, PReLU, ReLU6, Hardtanh, clamp, abs, "
    "sigmoid, tanh, "
    "maximum, max and average pooling (no ceil_mode, no dilation), adaptive pooling to sizes that divide the input, "
    "flatten, reshape, permute, squeeze, slices, cat, zero padding, addition, scaling and shifting by constants, mean, "
    "sum, maximum and minimum over axes of an image, dropout (eval), identity"
)


# Weights of other types may do something else in torch's own functions (`__torch_function__`), here as in the module.
PLAIN_TENSORS: tuple[type, ...] = (Tensor, nn.Parameter, getattr(nn.parameter, "Buffer", nn.Parameter))


class Unsupported(Exception):
    """Raised by a handler; the caller adds the operation's name."""


@dataclass(frozen=True)
class Value:
    """A tensor of the traced program: value `index` of the network; `shape` of one sample, None where not known."""

    index: int
    shape: tuple[int, ...] | None

    @property
    def known_shape(self) -> tuple[int, ...]:
        if self.shape is None:
            raise InvalidInputError("this network needs its input shape to be traced; give input_shape=(C, H, W)")
        return self.shape


class Builder:
    """Collects steps; follows the shape of one sample where the input's is known."""

    def __init__(self, input_shape: Sequence[int] | None, dtype: torch.dtype = torch.float32) -> None:
        self.steps: list[Step] = []
        self.dtype = dtype
        self.input = Value(0, tuple(input_shape) if input_shape is not None else None)

    def add(self, kind: type[Step], name: str, *inputs: Value, **fields: Any) -> Value:
        step = kind(inputs=tuple(v.index for v in inputs), name=name, **fields)
        self.steps.append(step)
        shape = None
        if all(v.shape is not None for v in inputs):
            tensors = [f for f in vars(step).values() if isinstance(f, Tensor)]
            like = tensors[0] if tensors else torch.zeros((), dtype=self.dtype, device="cpu")
            try:
                with torch.no_grad():
                    shape = tuple(step(*(like.new_zeros(1, *v.known_shape) for v in inputs)).shape[1:])
            except RuntimeError as error:
                taken = " and ".join(str(v.known_shape) for v in inputs)
                raise InvalidInputError(
                    f"layer {name!r} ({kind.__name__}) does not take a value of shape {taken}, which an input of shape "
                    f"{self.input.shape} leads to: {str(error).splitlines()[0]}"
                ) from error
        return Value(len(self.steps), shape)
