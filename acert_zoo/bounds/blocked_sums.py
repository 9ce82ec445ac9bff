"""Long float64 inner products summed in blocks, so that their rounding errors stay small.

The error of a sum grows with the number of additions a term passes through, the *depth*: n for plain products of length
n and a bias, but only BLOCK + (number of blocks) where each block is summed first, then the blocks, then the bias.

Nothing is assumed of the order in which a matrix product adds: in a block of b products each is rounded once and then
passes through at most b - 1 additions; the sum of B blocks adds at most B - 1 to that, the bias 1. So there are at most
b + B roundings, where a depth of L allows L + 1. It takes care that a block is finished before it is added: a product
*accumulated* into a matrix (`addmm_`) is one block with what the matrix held, since BLAS may add the products to that
one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.network.layers import Conv

_FEW = 4  # images
BLOCK = 144  # 16 channels of a 3x3 kernel
_COLUMNS = 2**18  # numbers of an unfolded input that are multiplied at a time: 2 MiB, so that caches hold them
_COLUMNS_ELSEWHERE = 2**26  # 512 MiB, on devices that are fast with large products


Product = Callable[[Tensor], Tensor]


def blocked_linear(weight: Tensor, bias: Tensor) -> tuple[Product, Product, int]:
    """x -> W x + b and x -> |W| x, x of shape [N, n]; and their depth."""
    n, none = weight.shape[1], torch.zeros_like(bias)
    if n < 2 * BLOCK:
        absolute = weight.abs()
        return (lambda x: F.linear(x, weight, bias)), (lambda x: F.linear(x, absolute)), n
    columns = weight.t().contiguous()
    return _blocked_product(columns, bias), _blocked_product(columns.abs(), none), BLOCK + -(-n // BLOCK)


def _blocked_product(columns: Tensor, bias: Tensor) -> Product:
    """x -> x columns + b."""
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

    return apply


def blocked_conv(step: Conv, weight: Tensor, bias: Tensor) -> tuple[Product, Product, int]:
    """x -> W x + b and x -> |W| x of the convolution `step` with these weights; and their depth.

    The input is unfolded ([C kh kw, L N], one column for each output position) and multiplied by the weights as a
    matrix, in blocks of its rows, groups of input channels. The result has the batch axis last in memory, as
    `nonnegative_boxes.py` likes it; elementwise operations keep that. Grouped convolutions go to torch, whose float64
    convolutions on the CPU do the same without blocks (tests look at torch's choice).
    """
    absolute, none, places = weight.abs(), torch.zeros_like(bias), math.prod(weight.shape[2:])
    n = weight.shape[1] * places
    if step.groups > 1:
        return (lambda x: step.map(x, weight, bias)), (lambda x: step.map(x, absolute)), n
    width = n if n < 2 * BLOCK else BLOCK // places * places or places
    depth = n if n < 2 * BLOCK else width + -(-n // width)
    return _unfolded_product(step, weight, bias, width), _unfolded_product(step, absolute, none, width), depth


def _unfolded_product(step: Conv, weight: Tensor, bias: Tensor, width: int) -> Product:
    """x -> W x + b in blocks of `width` products."""
    outputs, n = len(weight), weight[0].numel()
    blocks = [block.contiguous() for block in weight.flatten(1).split(width, dim=1)]
    shift = bias.unsqueeze(1)

    def apply(x: Tensor) -> Tensor:
        size = output_size(step, x)
        columns = _COLUMNS if x.device.type == "cpu" else _COLUMNS_ELSEWHERE
        count = max(1, columns // (n * math.prod(size)))
        if count >= len(x):
            return product(x, size)
        return torch.cat([product(part, size) for part in x.split(count)])

    def product(x: Tensor, size: tuple[int, int]) -> Tensor:
        columns = _unfold(step, x, size)
        rows = [columns] if len(blocks) == 1 else columns.split(blocks[0].shape[1])
        return _sum_of_products(blocks, rows).add_(shift).view(outputs, *size, len(x)).permute(3, 0, 1, 2)

    return apply


def _sum_of_products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The sum of the matrix products left_i right_i, each finished before it is added.

    `addmm_` would not do: BLAS may add the products of a block to the sum one by one (gemv kernels do), which is a
    depth of n.
    """
    out = left[0] @ right[0]
    part = torch.empty_like(out) if len(left) > 1 else out
    for a, b in zip(left[1:], right[1:], strict=True):
        out.add_(torch.mm(a, b, out=part))
    return out


def output_size(step: Conv, x: Tensor) -> tuple[int, int]:
    """(height, width) of the convolution's output."""
    spans = zip(x.shape[2:], step.padding, step.dilation, step.weight.shape[2:], step.stride, strict=True)
    height, width = (
        (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for size, pad, dilation, k, stride in spans
    )
    return height, width


def _unfold(step: Conv, x: Tensor, size: tuple[int, int]) -> Tensor:
    """[C kh kw, L N]: what each weight of a kernel meets at each output position, zeros in the padding."""
    (count, channels, height, width), (top, side) = x.shape, step.padding
    padded = x.new_zeros(channels, height + 2 * top, width + 2 * side, count)
    padded[:, top : top + height, side : side + width] = x.permute(1, 2, 3, 0)
    channel, row, column, image = padded.stride()
    kernel = step.weight.shape[2:]
    windows = padded.as_strided(
        (channels, *kernel, *size, count),
        (
            channel,
            row * step.dilation[0],
            column * step.dilation[1],
            row * step.stride[0],
            column * step.stride[1],
            image,
        ),
    )
    return windows.reshape(channels * math.prod(kernel), math.prod(size) * count)
