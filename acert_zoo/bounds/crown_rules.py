"""The rules by which a claim (*) of `rigorous_crown.py` passes backward through one step; proofs stand there.

Coefficients have shape [S, *value], one row per claim; boxes have shape [1, *value], or [S, *value] where each claim is
about a box of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.directed_rounding import U64, down, gamma, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import TINY, per_channel
from acert_zoo.network.layers import (
    Add,
    Affine,
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


class Claim(NamedTuple):
    """target >= <coefficients, value> + beta (+ what is said about other values); beta has shape [S]."""

    coefficients: Tensor
    beta: Tensor


Boxes = Sequence[Interval]
Pulled = tuple[list[Tensor], Tensor]


def factor(terms: int) -> float:
    """k = 4 g(terms + 16)."""
    return 4 * gamma(terms + 16, U64)


def magnitude(box: Interval) -> Tensor:
    """M >= |v| over the box."""
    return torch.maximum(box.lower.abs(), box.upper.abs())


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a_s, b> for every row s: [S]; b has shape [1, *value], or <a_s, b_s> where it has S rows."""
    if len(b) == 1:
        return a.flatten(1) @ b.expand(1, *a.shape[1:]).reshape(-1)
    return (a * b).flatten(1).sum(1)


def pay(beta: Tensor, error: Tensor, box: Interval | None = None) -> Tensor:
    """down(beta - up(error + underflow)); the underflow of products with values of `box` is scaled by their size.

    While slopes are being optimised (beta carries a gradient) nothing is proved, and nothing rounded.
    """
    if beta.requires_grad:
        return beta - error
    size = 1.0 if box is None else 1.0 + magnitude(box).sum()
    return down(beta - up(up(error + TINY * size)))


def gain(beta: Tensor, amount: Tensor) -> Tensor:
    total = beta + amount
    return total if total.requires_grad else down(total)


def rows(head: Linear, label: int, others: Sequence[int], hidden: Interval) -> Claim:
    """Claims of f_label - f_t for t in `others`, about the head's input."""
    chosen = list(others)
    v = head.weight[label] - head.weight[chosen]
    bias = head.bias[label] - head.bias[chosen]
    beta = pay(bias, 4 * U64 * (inner(v.abs(), magnitude(hidden)) + bias.abs()), hidden)
    return Claim(v.reshape(len(chosen), *hidden.lower.shape[1:]), beta)


def concretise(claim: Claim, box: Interval) -> Tensor:
    """beta after the value has been bounded by its box."""
    a, beta = claim
    amount = inner(a.clamp(min=0), box.lower) + inner(a.clamp(max=0), box.upper)
    # 2 N terms, the two halves summed one by one
    return pay(gain(beta, amount), factor(2 * a[0].numel()) * inner(a.abs(), magnitude(box)), box)


def accumulate(a: Tensor, b: Tensor, beta: Tensor, box: Interval) -> tuple[Tensor, Tensor]:
    """Two claims about one value made one."""
    total = a + b
    return total, pay(beta, 4 * U64 * inner(total.abs(), magnitude(box)), box)


def default_slopes(x: Interval) -> Tensor:
    """1 where the neuron is more positive than negative, else 0: the smaller triangle."""
    return (x.upper > -x.lower).to(x.lower.dtype)


def relu(claim: Claim, x: Interval, slopes: Tensor | None) -> Claim:
    """`slopes`: lower slopes, clamped to [0, 1]; upper slopes are those of the chord."""
    a, beta = claim
    low, high = x
    if slopes is None:
        slopes = default_slopes(x)
    lower_slope = slopes if slopes.requires_grad else slopes.to(a.dtype).clamp(0, 1)
    upper_slope = (high / (high - low)).clamp(0, 1)
    active, dead = low >= 0, high <= 0
    lower_slope, upper_slope = (s.masked_fill(active, 1.0) for s in (lower_slope, upper_slope))
    new = torch.where(a > 0, a * lower_slope, a * upper_slope).masked_fill(dead, 0.0)
    below, above = (-low).clamp(min=0), high.clamp(min=0)
    size, kept = a.clamp(max=0).neg(), new.clamp(max=0).neg()
    excess = torch.maximum(kept * below, (size - kept) * above).masked_fill(dead, 0.0)
    return Claim(new, pay(beta, excess.flatten(1).sum(1) * (1 + 4 * gamma(a[0].numel() + 8, U64)), x))


def _linear(step: Linear, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    return _affine(step, claim, boxes[0], claim.coefficients @ step.weight, step.weight.shape[0])


def _conv(step: Conv, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    a, shape = claim.coefficients, boxes[0].lower.shape
    new = transposed_conv(a, step.weight, step.stride, step.padding, step.dilation, step.groups, shape)
    return _affine(step, claim, boxes[0], new, step.weight.shape[0] // step.groups * step.weight[0, 0].numel())


def _affine(step: Affine, claim: Claim, x: Interval, new: Tensor, products: int) -> Pulled:
    """`new`: W^T A, of so many products."""
    a, beta = claim
    error = step.map(magnitude(x), step.abs_weight, step.bias.abs())
    k = factor(max(products, a[0].numel(), step.inner_length))
    return [new], pay(gain(beta, inner(a, per_channel(step.bias, a))), k * inner(a.abs(), error + TINY), x)


def _avg_pool(step: AvgPool, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    (a, beta), (x,), n = claim, boxes, step.inner_length
    channels = x.lower.shape[1]
    ones = torch.ones(channels, 1, *step.kernel_size, dtype=a.dtype)
    new = transposed_conv(a, ones, step.stride, step.padding, (1, 1), channels, x.lower.shape) / n
    k = factor(max(n + 1, a[0].numel()))
    return [new], pay(gain(beta, torch.zeros_like(beta)), k * inner(a.abs(), step(magnitude(x)) + TINY), x)


def _batchnorm(step: BatchNorm, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    (a, beta), (x,) = claim, boxes
    scale = per_channel(step.gamma / torch.sqrt(step.var + step.epsilon), a)
    mean, shift = per_channel(step.mean, a), per_channel(step.beta, a)
    new = a * scale
    error = scale.abs() * (magnitude(x) + mean.abs()) + shift.abs()
    amount = inner(a, shift) - inner(new, mean)
    return [new], pay(gain(beta, amount), factor(2 * a[0].numel()) * inner(a.abs(), error + TINY), x)


def _relu(step: ReLU, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    a, beta = relu(claim, boxes[0], slopes)
    return [a], beta


def _add(step: Add, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    return [claim.coefficients, claim.coefficients], claim.beta


def _concat(step: Concat, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    return list(claim.coefficients.split([b.lower.shape[step.dim] for b in boxes], dim=step.dim)), claim.beta


def _permute(step: Permute, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    inverse = [step.dims.index(i) for i in range(len(step.dims))]
    return [claim.coefficients.permute(inverse).contiguous()], claim.beta


def _reshape(step: Step, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    a = claim.coefficients
    return [a.reshape(len(a), *boxes[0].lower.shape[1:])], claim.beta


def transposed_conv(
    a: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    shape: Sequence[int],
) -> Tensor:
    """The transpose of a convolution whose input has `shape`."""
    missing = [
        shape[2 + d] - ((a.shape[2 + d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (weight.shape[2 + d] - 1) + 1)
        for d in (0, 1)
    ]
    return F.conv_transpose2d(a, weight, None, stride, padding, missing, groups, dilation)


_CONCRETISED = "its output is bounded by its box"
RULES: RuleTable[Callable[..., Pulled]] = RuleTable(
    "backward",
    {
        Linear: _linear,
        Conv: _conv,
        AvgPool: _avg_pool,
        BatchNorm: _batchnorm,
        ReLU: _relu,
        Add: _add,
        Concat: _concat,
        Permute: _permute,
        Flatten: _reshape,
        Reshape: _reshape,
    },
    dict.fromkeys((Normalize, MaxPool, Sigmoid, Sign, Tanh), _CONCRETISED),
)


def covered(step: Step) -> bool:
    """Whether `pull` has a rule for the step; a claim about another one's output is concretised."""
    return step in RULES


def pull(step: Step, claim: Claim, boxes: Boxes, slopes: Tensor | None) -> Pulled:
    """Coefficients for each of the step's inputs, whose boxes are `boxes`, and the new beta."""
    return RULES[step](step, claim, boxes, slopes)
