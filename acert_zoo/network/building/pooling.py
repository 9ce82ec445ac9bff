"""Pooling, as torch and ONNX share it, in a `Network`; see `operations.py` for what a handler is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acert_zoo.network import layers
from acert_zoo.network.building.builder import Builder, Unsupported, Value
from acert_zoo.network.building.operations import Size, pair


def max_pool2d(
    b: Builder,
    name: str,
    x: Value,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Value:
    if ceil_mode or pair(dilation) != (1, 1):
        raise Unsupported("max pooling with ceil_mode or dilation")
    return _pool(b, layers.MaxPool, name, x, kernel_size, stride, padding)


def avg_pool2d(
    b: Builder,
    name: str,
    x: Value,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    if ceil_mode or divisor_override is not None or (pair(padding) != (0, 0) and not count_include_pad):
        raise Unsupported("average pooling with ceil_mode, divisor_override or padding left out of the mean")
    return _pool(b, layers.AvgPool, name, x, kernel_size, stride, padding)


def _pool(
    b: Builder, kind: type[layers.Step], name: str, x: Value, kernel_size: Size, stride: Size | None, padding: Size
) -> Value:
    kernel = pair(kernel_size)
    steps = kernel if stride is None or stride == () or stride == [] else pair(stride)
    return b.add(kind, name, x, kernel_size=kernel, stride=steps, padding=pair(padding))


def _adaptive(kind: type[layers.Step]) -> Callable[[Builder, str, Value, int | Sequence[int | None] | None], Value]:
    def pool(b: Builder, name: str, x: Value, output_size: int | Sequence[int | None] | None) -> Value:
        _, *sizes = x.known_shape
        wanted = (output_size,) * 2 if isinstance(output_size, int) or output_size is None else output_size
        targets = [s if o is None else o for s, o in zip(sizes, wanted, strict=True)]
        if any(s % o for s, o in zip(sizes, targets, strict=True)):
            raise Unsupported(f"adaptive pooling of {tuple(sizes)} to {tuple(targets)}: windows of unequal size")
        kernel = tuple(s // o for s, o in zip(sizes, targets, strict=True))
        return x if kernel == (1, 1) else _pool(b, kind, name, x, kernel, kernel, 0)

    return pool


adaptive_avg_pool2d, adaptive_max_pool2d = _adaptive(layers.AvgPool), _adaptive(layers.MaxPool)
