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

_FEW = 4  # images
BLOCK = 144  # 16 channels of a 3x3 kernel
_COLUMNS = 2**18  # numbers of an unfolded input that are multiplied at a time: 2 MiB, so that caches hold them


def blocked_linear(weight: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """x -> W x + b, x of shape [N, n]; and its depth."""
    n = weight.shape[1]
    if n < 2 * BLOCK:
        return (lambda x: F.linear(x, weight, bias)), n
    columns = weight.t().contiguous()
    blocks = columns.split(BLOCK)

    def few(x: Tensor) -> Tensor:
        """Reading the weights takes the time, and most inputs are exact zeros (inactive ReLUs), which add nothing.

        What is left is filled up to whole blocks by zeros, times some row of the weights.
        """
        index = (x != 0).any(0).nonzero().squeeze(1)
        padding = -len(index) % BLOCK
        left = F.pad(x.index_select(1, index), (0, padding)).view(len(x), -1, BLOCK).transpose(0, 1)
        right = columns.index_select(0, F.pad(index, (0, padding)))
        return torch.bmm(left, right.view(-1, BLOCK, len(bias))).sum(0).add_(bias)

    def apply(x: Tensor) -> Tensor:
        return few(x) if len(x) <= _FEW else _sum_of_products(x.split(BLOCK, dim=1), blocks).add_(bias)

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
    width = BLOCK // math.prod(kernel) * math.prod(kernel) or math.prod(kernel)
    blocks = [block.contiguous() for block in weight.flatten(1).split(n if n < 2 * BLOCK else width, dim=1)]
    shift = bias.unsqueeze(1)

    def apply(x: Tensor) -> Tensor:
        size = _output_size(step, x)
        count = max(1, _COLUMNS // (n * math.prod(size)))
        if count >= len(x):
            return product(x, size)
        return torch.cat([product(part, size) for part in x.split(count)])

    def product(x: Tensor, size: tuple[int, int]) -> Tensor:
        columns = _unfold(step, x, size)
        rows = [columns] if len(blocks) == 1 else columns.split(blocks[0].shape[1])
        return _sum_of_products(blocks, rows).add_(shift).view(outputs, len(x), *size).transpose(0, 1)

    return apply, n if len(blocks) == 1 else width + len(blocks)


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


def _unfold(step: Conv, x: Tensor, size: tuple[int, int]) -> Tensor:
    """[C kh kw, N L]: what each weight of a kernel meets at each output position, zeros in the padding."""
    (count, channels, height, width), (top, side) = x.shape, step.padding
    padded = x.new_zeros(channels, count, height + 2 * top, width + 2 * side)
    padded[:, :, top : top + height, side : side + width] = x.transpose(0, 1)
    channel, image, row, column = padded.stride()
    kernel = step.weight.shape[2:]
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
