"""Interval bound propagation (Gowal et al. 2018, arXiv 1810.12715): the one implementation that training and
certification share. Differentiable, in the dtype of its inputs, rounding *not* controlled (see `rigorous.py`).

For an affine layer with centre m = (lo + hi)/2 and half-width r = (hi - lo)/2 of its input box:
    centre' = W m + b,   half-width' = |W| r.
A monotone step is applied to both ends. The last linear layer is elided: the margin f_y - f_t is bounded through the
row W_y - W_t, lower_t = (W_y - W_t) m + b_y - b_t - |W_y - W_t| r, never looser than bounding both logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network import Affine, BatchNorm, Linear, Monotone, Network, ReLU


class Interval(NamedTuple):
    """An axis-aligned box; `lower` and `upper` have one shape, lower <= upper."""

    lower: Tensor
    upper: Tensor


def input_box(images: Tensor, eps: Tensor | float) -> Interval:
    """B(x, eps) = {x' : |x' - x|_inf <= eps} cut with [0, 1]^d.

    Args:
        images: pixels [N, C, H, W] in [0, 1].
        eps: radius in pixel units, one number or shape [N].
    """
    if isinstance(eps, Tensor):
        eps = eps.to(images.dtype).view(-1, *(1,) * (images.dim() - 1))
    return Interval((images - eps).clamp(min=0.0), (images + eps).clamp(max=1.0))


def propagate(network: Network, box: Interval, preactivations: list[Interval] | None = None) -> Interval:
    """Bounds of the head's input over `box`. Bounds at each ReLU's input are appended to `preactivations` if given."""
    values: list[Interval | None] = [box]
    last_use = {i: index for index, step in enumerate(network.steps) for i in step.inputs}
    for index, step in enumerate(network.steps[:-1]):
        inputs = [values[i] for i in step.inputs]
        if isinstance(step, Affine):
            out = _affine(step, inputs[0])  # type: ignore[arg-type]
        elif isinstance(step, Monotone):
            if preactivations is not None and isinstance(step, ReLU):
                preactivations.append(inputs[0])  # type: ignore[arg-type]
            out = Interval(step(*(v.lower for v in inputs)), step(*(v.upper for v in inputs)))  # type: ignore[union-attr]
        elif isinstance(step, BatchNorm):
            out = _batchnorm(step, inputs[0])  # type: ignore[arg-type]
        else:
            raise UnsupportedLayerError(f"no interval rule for step {step.name!r} ({type(step).__name__})")
        values.append(out)
        for i in step.inputs:  # free what no later step reads
            if last_use[i] == index:
                values[i] = None
    return values[network.head.inputs[0]]  # type: ignore[return-value]


def _affine(step: Affine, x: Interval) -> Interval:
    center = step.map((x.lower + x.upper) * 0.5, step.weight, step.bias)
    radius = step.map((x.upper - x.lower) * 0.5, step.abs_weight)
    return Interval(center - radius, center + radius)


def _batchnorm(step: BatchNorm, x: Interval) -> Interval:
    scale, _ = step.scale_shift(step.mean, step.var)
    shape = (1, -1) + (1,) * (x.lower.dim() - 2)
    center = step((x.lower + x.upper) * 0.5)
    radius = (x.upper - x.lower) * 0.5 * scale.abs().view(shape)
    return Interval(center - radius, center + radius)


def margin_bounds(head: Linear, hidden: Interval, labels: Tensor) -> Tensor:
    """Lower bounds [N, K] of f_y - f_t over the hidden box, y = labels [N]; the column t = y holds 0."""
    center = (hidden.lower + hidden.upper) * 0.5
    radius = (hidden.upper - hidden.lower) * 0.5
    logits = torch.nn.functional.linear(center, head.weight, head.bias)
    rows = (head.weight[labels].unsqueeze(1) - head.weight.unsqueeze(0)).abs()  # [N, K, n]
    spread = torch.bmm(rows, radius.unsqueeze(2)).squeeze(2)
    return logits.gather(1, labels.unsqueeze(1)) - logits - spread


def smallest_margin(margins: Tensor, labels: Tensor) -> Tensor:
    """R = min over t != y of the margin bounds; NaN where any of them is NaN (NaN is never proved). Shape [N]."""
    others = margins.scatter(1, labels.unsqueeze(1), torch.inf)
    return others.min(dim=1).values


def robust_margin(network: Network, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
    """R(x, eps) of every image, shape [N]: the smallest IBP margin bound on B(x, eps), in logit units."""
    hidden = propagate(network, input_box(images, eps))
    return smallest_margin(margin_bounds(network.head, hidden, labels), labels)
