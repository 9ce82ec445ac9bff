"""How coefficients pass backward through affine and rearranging steps, rounding not controlled: `linear_bounds.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from acert_zoo.bounds.crown_rules import transposed_conv
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

Shapes = Sequence[torch.Size]  # of a step's inputs
Pulled = tuple[list[Tensor], Tensor | None]  # coefficients for each input, what the bias adds [S]


def _add(step: Add, a: Tensor, shapes: Shapes) -> Pulled:
    return [a, a], None


def _concat(step: Concat, a: Tensor, shapes: Shapes) -> Pulled:
    return list(a.split([s[step.dim] for s in shapes], dim=step.dim)), None


def _permute(step: Permute, a: Tensor, shapes: Shapes) -> Pulled:
    return [a.permute([step.dims.index(i) for i in range(len(step.dims))]).contiguous()], None


def _reshape(step: Step, a: Tensor, shapes: Shapes) -> Pulled:
    return [a.reshape(len(a), *shapes[0][1:])], None


def _batchnorm(step: BatchNorm, a: Tensor, shapes: Shapes) -> Pulled:
    scale, shift = step.scale_shift(step.mean, step.var)
    shape = (1, -1) + (1,) * (a.dim() - 2)
    return [a * scale.view(shape)], (a.flatten(2).sum(2) if a.dim() > 2 else a) @ shift


def _avg_pool(step: AvgPool, a: Tensor, shapes: Shapes) -> Pulled:
    channels = shapes[0][1]
    ones = a.new_full((channels, 1, *step.kernel_size), 1.0 / step.inner_length)
    return [transposed_conv(a, ones, step.stride, step.padding, (1, 1), channels, shapes[0])], None


def _conv(step: Conv, a: Tensor, shapes: Shapes) -> Pulled:
    new = transposed_conv(a, step.weight, step.stride, step.padding, step.dilation, step.groups, shapes[0])
    return [new], a.flatten(2).sum(2) @ step.bias


def _linear(step: Linear, a: Tensor, shapes: Shapes) -> Pulled:
    return [a @ step.weight], a @ step.bias


_ENDS = "backward passes end at its output"
RULES: RuleTable[Callable[..., Pulled]] = RuleTable(  # (step, coefficients, shapes of its inputs)
    "linear bound",
    {
        Linear: _linear,
        Conv: _conv,
        AvgPool: _avg_pool,
        BatchNorm: _batchnorm,
        Add: _add,
        Concat: _concat,
        Permute: _permute,
        Flatten: _reshape,
        Reshape: _reshape,
    },
    {
        ReLU: "`linear_bounds.py` has it: slopes and multipliers",
        **dict.fromkeys((Normalize, MaxPool, Sigmoid, Sign, Tanh), _ENDS),
    },
)
