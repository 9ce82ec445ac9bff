"""What rules of ATen operations are made of: `Call`, the table `RULES`, and what arguments may be besides values.

A rule takes the `Call` and the operation's own arguments: a `Value` where it depends on the network input, a tensor or
a number where it does not. It returns what the operation does (a tuple where the operation has several outputs), or
raises `Unsupported`. Shapes that the program computes from the batch size are not interpreted: `Call.shape` is that
of one sample that torch.export found for the result. What has no rule is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from acert_zoo.network.building.builder import Builder, Unsupported, Value


@dataclass(frozen=True)
class Call:
    """One operation of the exported program.

    Attributes:
        b: collects the steps.
        name: of the layer that it belongs to.
        shape: of one sample of the result; None for several results.
    """

    b: Builder
    name: str
    shape: tuple[int, ...] | None

    @property
    def sample(self) -> tuple[int, ...]:
        """`shape`, of an operation with one result."""
        if self.shape is None:
            raise Unsupported("several results")
        return self.shape


class BatchSize:
    """The number of images, or anything computed from it."""

    def __repr__(self) -> str:
        return "batch size"


@dataclass(frozen=True)
class Repeated:
    """A constant that the program repeats for every image: `tensor` [1, ...]."""

    tensor: Tensor


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
F = TypeVar("F", bound=Rule)


def rule(*names: str) -> Callable[[F], F]:
    def add(function: F) -> F:
        RULES.update(dict.fromkeys((f"aten.{name}" for name in names), function))
        return function

    return add


def value_of(x: Any) -> Value:
    if not isinstance(x, Value):
        raise Unsupported("its first argument does not depend on the input, another one does")
    return x


def check_constants(*tensors: Any) -> None:
    if any(not isinstance(t, (Tensor, type(None))) for t in tensors):
        raise Unsupported("weights that depend on the input")


def operand(x: Any) -> Any:
    if isinstance(x, Repeated):
        return x.tensor
    if isinstance(x, (Value, Tensor)) or (isinstance(x, (int, float)) and not isinstance(x, bool)):
        return x
    raise Unsupported(f"an argument that depends on the {x!r}")


def axis_of(x: Value, dim: int) -> int:
    """The per-sample axis of `dim`, which counts the batch axis."""
    axis = dim % (1 + len(x.known_shape)) - 1
    if axis < 0:
        raise Unsupported("an operation along the batch axis")
    return axis
