"""CROWN-IBP's backward bound (Zhang et al. 2020, arXiv 1906.06316, section 3): linear relaxations over IBP boxes.

The margins c_t . f = f_y - f_t are linear in the logits. Going backwards, a linear lower bound A_v . v + b in a value v
becomes one in the step's input:
    affine v = W u + w:      A_u = A_v W, b += A_v . w;
    v = relu(u), u in [l, h]: l >= 0: v = u; h <= 0: v = 0; else  alpha u <= v <= h (u - l) / (h - l), alpha = 1 where
    h > -l and else 0 (CROWN's adaptive slope); the lower line where A_v >= 0, the upper one where A_v < 0.
At the input box with centre c and half-width r the bound is A . c - |A| . r + b. Intermediate boxes come from IBP.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, Interval
from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Step,
    Tanh,
)
from acert_zoo.network.rule_table import RuleTable
from acert_zoo.network.traversal import backward


def backward_margins(network: Network, box: Interval, labels: Tensor, preactivations: list[Ball]) -> Tensor:
    """Lower bounds [N, K] of f_y - f_t over `box`; the column t = y holds 0.

    Args:
        preactivations: the boxes at the inputs of the ReLU steps, in their order.
        labels: [N].
    """
    head = network.head
    with torch.no_grad():  # only the shapes of the values are needed
        shapes = [v.shape[1:] for v in network.run(box.lower[:1])]
    rows = head.weight[labels].unsqueeze(1) - head.weight.unsqueeze(0)  # [N, K, features]
    offset = head.bias[labels].unsqueeze(1) - head.bias.unsqueeze(0)  # [N, K]
    relus = [index for index, step in enumerate(network.steps) if isinstance(step, ReLU)]
    balls = dict(zip(relus, preactivations, strict=True))

    def rule(index: int, step: Step, a: Tensor) -> list[Tensor]:
        nonlocal offset
        a, constant = RULES[step](step, a, shapes[step.inputs[0]], balls.get(index))
        offset = offset if constant is None else offset + constant
        return [a] * len(step.inputs)

    found = backward(network, head.inputs[0], rows, rule, lambda index, a, b: a + b)
    if found is None:
        raise UnsupportedLayerError("the logits do not depend on the image: there is nothing to bound")
    a = found.flatten(2)
    center, radius = ((box.lower + box.upper) / 2).flatten(1), ((box.upper - box.lower) / 2).flatten(1)
    value = torch.bmm(a, center.unsqueeze(2)) - torch.bmm(a.abs(), radius.unsqueeze(2))
    bounds = value.squeeze(2) + offset
    return bounds.scatter(1, labels.unsqueeze(1), 0.0)  # t = y exactly, where the relaxation gives 0 up to rounding


Pulled = tuple[Tensor, Tensor | None]  # coefficients [N, K, *input], constant [N, K] or None for 0


def _relu(step: ReLU, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    assert ball is not None, "every ReLU has a box"
    return _through_relu(a, ball)


def _linear(step: Linear, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    return a @ step.weight, a @ step.bias


def _conv(step: Conv, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    return _through_conv(a, step, shape), a.sum(dim=(3, 4)) @ step.bias


def _avg_pool(step: AvgPool, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    return _through_conv(a, _as_conv(step, a), shape), None


def _flatten(step: Flatten, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    return a.reshape(*a.shape[:2], *shape), None


def _normalize(step: Normalize, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    channels = (1, 1, -1) + (1,) * (a.dim() - 3)
    a = a / step.std.to(a.dtype).view(channels)
    return a, -(a * step.mean.to(a.dtype).view(channels)).flatten(2).sum(2)


def _add(step: Add, a: Tensor, shape: torch.Size, ball: Ball | None) -> Pulled:
    return a, None


def _through_relu(a: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    lower, upper = ball.lower, ball.upper
    crossing = (lower < 0) & (upper > 0)
    one, zero = torch.ones_like(lower), torch.zeros_like(lower)
    width = torch.where(crossing, upper - lower, one)  # no division by 0, not in the gradient either
    slope = torch.where(crossing, upper / width, (lower >= 0).to(lower.dtype))
    intercept = torch.where(crossing, -lower * slope, zero)
    alpha = torch.where(crossing, (upper > -lower).to(lower.dtype), slope.detach())
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    constant = (negative * intercept.unsqueeze(1)).flatten(2).sum(2)
    return positive * alpha.unsqueeze(1) + negative * slope.unsqueeze(1), constant


def _through_conv(a: Tensor, step: Conv, shape: torch.Size) -> Tensor:
    """The transposed convolution of the coefficients [N, K, C', H', W'], shaped like the input [N, K, C, H, W]."""
    n, k = a.shape[:2]
    out = a.shape[3:]
    padding = [
        shape[1 + d] - ((out[d] - 1) * step.stride[d] - 2 * step.padding[d] + step.dilation[d] * (kernel - 1) + 1)
        for d, kernel in enumerate(step.weight.shape[2:])
    ]
    back = F.conv_transpose2d(
        a.flatten(0, 1), step.weight, None, step.stride, step.padding, padding, step.groups, step.dilation
    )
    return back.view(n, k, *shape)


def _as_conv(step: AvgPool, like: Tensor) -> Conv:
    """Mean pooling of [N, K, C, H, W] as the convolution of each channel with 1 / (kh kw)."""
    channels, (height, width) = like.shape[2], step.kernel_size
    weight = like.new_full((channels, 1, height, width), 1 / (height * width))
    return Conv(
        inputs=step.inputs,
        weight=weight,
        bias=like.new_zeros(channels),
        stride=step.stride,
        padding=step.padding,
        groups=channels,
    )


_NOT_TRAINED = "no architecture of the zoo that is trained with CROWN-IBP has one"
RULES: RuleTable[Callable[..., Pulled]] = RuleTable(  # (step, A, shape of its input, box of a ReLU's input)
    "CROWN-IBP",
    {
        ReLU: _relu,
        Linear: _linear,
        Conv: _conv,
        AvgPool: _avg_pool,
        Flatten: _flatten,
        Normalize: _normalize,
        Add: _add,
    },
    {
        BatchNorm: "fold it",
        **dict.fromkeys((MaxPool, Reshape, Permute, Concat, Sigmoid, Sign, Tanh), _NOT_TRAINED),
    },
)
