"""Interval bound propagation (Gowal et al. 2018, arXiv 1810.12715): the one implementation that training and
certification share. Differentiable, in the dtype of its inputs, rounding *not* controlled (see `rigorous_ibp.py`).

For an affine layer with centre m = (lo + hi)/2 and half-width r = (hi - lo)/2 of its input box:
    centre' = W m + b,   half-width' = |W| r.
A monotone step is applied to both ends. The last linear layer is elided: the margin f_y - f_t is bounded through the
row W_y - W_t, lower_t = (W_y - W_t) m + b_y - b_t - |W_y - W_t| r, never looser than bounding both logits.

Between an affine layer and a ReLU the box stays in centre/half-width form (`Ball`): going to both ends and back costs
as much memory traffic as the convolutions themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acert_zoo.network.graph import Network
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
from acert_zoo.network.traversal import forward


class Interval(NamedTuple):
    """An axis-aligned box; `lower` and `upper` have one shape, lower <= upper."""

    lower: Tensor
    upper: Tensor


class Ball(NamedTuple):
    """The box with centre `scale * center` and half-widths `scale * radius` >= 0.

    `scale` is a power of two that the next affine layer folds into its weights, exactly: it saves two passes over the
    data, (lo + hi)/2 and (hi - lo)/2 being needed only there.
    """

    center: Tensor
    radius: Tensor
    scale: float = 1.0

    @property
    def lower(self) -> Tensor:
        return (self.center - self.radius) * self.scale

    @property
    def upper(self) -> Tensor:
        return (self.center + self.radius) * self.scale


def as_ball(box: Interval | Ball) -> Ball:
    """`box` in centre/half-width form."""
    return box if isinstance(box, Ball) else Ball(box.lower + box.upper, box.upper - box.lower, 0.5)


def input_box(images: Tensor, eps: Tensor | float) -> Interval:
    """B(x, eps) = {x' : |x' - x|_inf <= eps} cut with [0, 1]^d.

    Args:
        images: pixels [N, C, H, W] in [0, 1].
        eps: radius in pixel units, one number or shape [N].
    """
    if isinstance(eps, Tensor):
        eps = eps.to(images.dtype).view(-1, *(1,) * (images.dim() - 1))
    return Interval((images - eps).clamp(min=0.0), (images + eps).clamp(max=1.0))


def propagate(
    network: Network,
    box: Interval,
    preactivations: list[Ball] | None = None,
    *,
    relu: Callable[[Ball], Ball] | None = None,
) -> Interval | Ball:
    """Bounds of the head's input over `box`.

    Args:
        preactivations: bounds at each ReLU's input are appended to it.
        relu: another program for the box of relu(x), such as a compiled one of a training step.
    """
    own = frozenset() if preactivations is not None or torch.is_grad_enabled() else network.overwritable

    def rule(index: int, step: Step, inputs: list[Interval | Ball]) -> Interval | Ball:
        if preactivations is not None and isinstance(step, ReLU):
            preactivations.append(as_ball(inputs[0]))
        if relu is not None and isinstance(step, ReLU) and isinstance(inputs[0], Ball):
            return relu(inputs[0])
        if index in own:
            return _relu_in_place(inputs[0])  # type: ignore[arg-type]
        return RULES[step](step, *inputs)

    start: Interval | Ball = box
    return forward(network, start, rule)


def _affine(step: Affine, box: Interval | Ball) -> Ball:
    x = as_ball(box)
    center, radius = x.center, x.radius
    weight, magnitude = step.weight, step.abs_weight
    if x.scale != 1.0:
        if weight.numel() < center.numel():
            weight, magnitude = weight * x.scale, magnitude * x.scale
        else:
            center, radius = center * x.scale, radius * x.scale
    if weight.dtype == torch.bfloat16:  # a training step in lower precision (training/compute/precision.py)
        center, radius = center.bfloat16(), radius.bfloat16()
    return Ball(step.map(center, weight, step.bias), step.map(radius, magnitude))


def _batchnorm(step: BatchNorm, box: Interval | Ball) -> Ball:
    x = as_ball(box)
    scale, _ = step.scale_shift(step.mean, step.var)
    shape = (1, -1) + (1,) * (x.center.dim() - 2)
    return Ball(step(x.center * x.scale), x.radius * (x.scale * scale.abs()).view(shape))


def _monotone(step: Step, *inputs: Interval | Ball) -> Interval:
    """Both ends."""
    return Interval(step(*(x.lower for x in inputs)), step(*(x.upper for x in inputs)))


def _nonnegative(step: Step, x: Interval | Ball) -> Interval | Ball:
    """Linear, with weights >= 0: centre and half-width, where they are what is known."""
    return Ball(step(x.center), step(x.radius), x.scale) if isinstance(x, Ball) else _monotone(step, x)


def _add(step: Add, a: Interval | Ball, b: Interval | Ball) -> Interval | Ball:
    if not (isinstance(a, Ball) and isinstance(b, Ball)):
        return _monotone(step, a, b)
    alpha = a.scale / b.scale
    center, radius = torch.add(b.center, a.center, alpha=alpha), torch.add(b.radius, a.radius, alpha=alpha)
    return Ball(center, radius, b.scale)


def _relu(step: ReLU, x: Interval | Ball) -> Interval | Ball:
    if not isinstance(x, Ball):
        return _monotone(step, x)
    sum_, difference = _ReLUOfBall.apply(x.center, x.radius)
    return Ball(sum_, difference, 0.5 * x.scale)  # relu(s x) = s relu(x)


def _relu_in_place(x: Ball) -> Ball:
    """As `_ReLUOfBall`, over its input: memory that is written for the first time costs more than the arithmetic."""
    lower = (x.center - x.radius).relu_()
    upper = x.center.add_(x.radius).relu_()
    return Ball(torch.add(upper, lower, out=x.radius), upper.sub_(lower), 0.5 * x.scale)


RULES: RuleTable[Callable[..., Interval | Ball]] = RuleTable(  # (step, boxes of its inputs) -> box
    "interval",
    {
        Linear: _affine,
        Conv: _affine,
        BatchNorm: _batchnorm,
        ReLU: _relu,
        Add: _add,
        **dict.fromkeys((Flatten, Reshape, Permute, AvgPool), _nonnegative),
        **dict.fromkeys((Normalize, MaxPool, Concat, Sigmoid, Sign, Tanh), _monotone),
    },
    {},
)


class _ReLUOfBall(torch.autograd.Function):
    """(relu(c + r) + relu(c - r), relu(c + r) - relu(c - r)): what autograd would do, in half the memory passes."""

    @staticmethod
    def forward(ctx: Any, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        upper, lower = (center + radius).relu_(), (center - radius).relu_()
        total = upper + lower
        ctx.save_for_backward(total, lower)  # total > 0 exactly where upper > 0
        return total, upper.sub_(lower)

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, grad_difference: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        total, lower = ctx.saved_tensors
        to_upper = torch.ops.aten.threshold_backward(grad_sum + grad_difference, total, 0)
        to_lower = torch.ops.aten.threshold_backward(grad_sum - grad_difference, lower, 0)
        return to_upper + to_lower, to_upper - to_lower


def margin_bounds(head: Linear, hidden: Interval | Ball, labels: Tensor) -> Tensor:
    """Lower bounds [N, K] of f_y - f_t over the hidden box, y = labels [N]; the column t = y holds 0."""
    ball = as_ball(hidden)
    center, radius = ball.center * ball.scale, ball.radius * ball.scale
    if center.dtype == torch.bfloat16:
        center, radius = center.to(head.weight.dtype), radius.to(head.weight.dtype)
    logits = torch.nn.functional.linear(center, head.weight, head.bias)
    rows = (head.weight[labels].unsqueeze(1) - head.weight.unsqueeze(0)).abs()  # [N, K, n]
    spread = torch.bmm(rows, radius.unsqueeze(2)).squeeze(2)
    return logits.gather(1, labels.unsqueeze(1)) - logits - spread


def smallest_margin(margins: Tensor, labels: Tensor) -> Tensor:
    """R = min over t != y of the margin bounds; NaN where any of them is NaN (NaN is never proved). Shape [N]."""
    others = margins.scatter(1, labels.unsqueeze(1), torch.inf)
    return others.min(dim=1).values


def class_margins(network: Network, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
    """Margin bounds [N, K] of every image on B(x, eps), in logit units; the column of the label holds inf."""
    hidden = propagate(network, input_box(images, eps))
    return margin_bounds(network.head, hidden, labels).scatter(1, labels.unsqueeze(1), torch.inf)


def robust_margin(
    network: Network,
    images: Tensor,
    labels: Tensor,
    eps: Tensor | float,
    *,
    relu: Callable[[Ball], Ball] | None = None,
) -> Tensor:
    """R(x, eps) of every image, shape [N]: the smallest IBP margin bound on B(x, eps), in logit units.

    `relu` as in `propagate`.
    """
    hidden = propagate(network, input_box(images, eps), relu=relu)
    return smallest_margin(margin_bounds(network.head, hidden, labels), labels)
