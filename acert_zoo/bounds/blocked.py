"""Long float64 inner products summed in blocks, so that their rounding errors stay small.

The error of a sum grows with the number of additions a term passes through, the *depth*: n for plain products of length
n, but only BLOCK + (number of blocks) where each block is summed first, then the blocks, then the bias.
Which order is used inside a block does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.network import Conv

BLOCK = 144  # 16 channels of a 3x3 kernel
_COLUMNS = 2**18  # numbers of an unfolded input that are multiplied at a time: 2 MiB, so that caches hold them


def blocked_linear(weight: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """x -> W x + b, x of shape [N, n]; and its depth."""
    n = weight.shape[1]
    if n < 2 * BLOCK:
        return (lambda x: F.linear(x, weight, bias)), n
    blocks = [block.t().contiguous() for block in weight.split(BLOCK, dim=1)]

    def apply(x: Tensor) -> Tensor:
        return _sum_of_products(x.split(BLOCK, dim=1), blocks).add_(bias)

    return apply, BLOCK + len(blocks)


def blocked_conv(step: Conv, weight: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """The convolution `step` with these weights, blocks being groups of input channels; and its depth.

    The input is unfolded ([C kh kw, N L], one column for each output position) and multiplied by the weights as a
    matrix, in blocks of its rows. Grouped convolutions go to torch, whose float64 convolutions on the CPU do the same
    without blocks (tests look at torch's choice).
    """
    outputs, channels, *kernel = weight.shape
    n = channels * math.prod(kernel)
    if step.groups > 1:
        return (lambda x: step.map(x, weight, bias)), n
    size = BLOCK // math.prod(kernel) * math.prod(kernel) or math.prod(kernel)
    blocks = [block.contiguous() for block in weight.flatten(1).split(n if n < 2 * BLOCK else size, dim=1)]
    shift = bias.unsqueeze(1)

    def apply(x: Tensor) -> Tensor:
        columns_each = n * math.prod(_output_size(step, x))
        parts = [product(part) for part in x.split(max(1, _COLUMNS // columns_each))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def product(x: Tensor) -> Tensor:
        columns = _unfold(step, x)
        rows = columns.split(blocks[0].shape[1])
        out = _sum_of_products(blocks, rows).add_(shift)
        return out.view(outputs, len(x), *_output_size(step, x)).transpose(0, 1)

    return apply, n if len(blocks) == 1 else size + len(blocks)


def _sum_of_products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The sum of the matrix products left_i right_i, the first block first."""
    out = left[0] @ right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        out.addmm_(a, b)
    return out


def _output_size(step: Conv, x: Tensor) -> tuple[int, int]:
    """(height, width) of the convolution's output."""
    spans = zip(x.shape[2:], step.padding, step.dilation, step.weight.shape[2:], step.stride, strict=True)
    height, width = (
        (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for size, pad, dilation, k, stride in spans
    )
    return height, width


def _unfold(step: Conv, x: Tensor) -> Tensor:
    """[C kh kw, N L]: what each weight of a kernel meets at each output position, zeros in the padding."""
    (count, channels, height, width), (top, side) = x.shape, step.padding
    padded = x.new_zeros(channels, count, height + 2 * top, width + 2 * side)
    padded[:, :, top : top + height, side : side + width] = x.transpose(0, 1)
    channel, image, row, column = padded.stride()
    kernel, size = step.weight.shape[2:], _output_size(step, x)
    windows = padded.as_strided(
        (channels, *kernel, count, *size),
        (
            channel,
            row * step.dilation[0],
            column * step.dilation[1],
            image,
            row * step.stride[0],
            column * step.stride[1],
        ),
    )
    return windows.reshape(channels * math.prod(kernel), count * math.prod(size))
