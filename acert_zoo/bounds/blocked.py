"""Long float64 inner products summed in blocks, so that their rounding errors stay small.

The error of a sum grows with the number of additions a term passes through, the *depth*: n for plain products of length
n, but only BLOCK + (number of blocks) where each block is summed first, then the blocks, then the bias.
Which order is used inside a block does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.network import Conv

BLOCK = 144  # 16 channels of a 3x3 kernel


def blocked_linear(weight: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """x -> W x + b, x of shape [N, n]; and its depth."""
    outputs, n = weight.shape
    if n < 2 * BLOCK:
        return (lambda x: F.linear(x, weight, bias)), n
    padding = -n % BLOCK  # by zeros, whose products and sums are exact
    blocks = F.pad(weight, (0, padding)).view(outputs, -1, BLOCK).permute(1, 2, 0).contiguous()

    def apply(x: Tensor) -> Tensor:
        x = F.pad(x, (0, padding)) if padding else x
        return torch.bmm(x.reshape(len(x), -1, BLOCK).transpose(0, 1), blocks).sum(0).add_(bias)

    return apply, BLOCK + len(blocks)


def blocked_conv(step: Conv, weight: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], int]:
    """The convolution `step` with these weights, blocks being groups of input channels; and its depth.

    float64 convolutions on the CPU unfold the input and multiply matrices (tests look at torch's choice).
    """
    n, (_, channels, *kernel) = weight[0].numel(), weight.shape
    width = max(1, BLOCK // math.prod(kernel))
    if n < 2 * BLOCK or step.groups > 1 or width >= channels:
        return (lambda x: step.map(x, weight, bias)), n
    starts = range(0, channels, width)
    blocks = [weight[:, i : i + width].contiguous() for i in starts]
    shift = bias.view(1, -1, 1, 1)

    def apply(x: Tensor) -> Tensor:
        out = step.map(x[:, :width], blocks[0])
        for i, block in zip(starts[1:], blocks[1:], strict=True):
            out += step.map(x[:, i : i + width], block)
        return out.add_(shift)

    return apply, width * math.prod(kernel) + len(blocks)
