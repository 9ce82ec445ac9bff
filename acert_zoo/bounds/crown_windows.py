"""CROWN claims about single neurons of convolutional layers, carried back on the windows that they depend on.

A neuron behind a few convolutions sees a small part of the image, so that the coefficients of a claim about it are zero
outside a window. Here only the window is stored and computed: [S, C, h, w] with the place (row, column) of each claim's
window in its value, which may reach over the border; entries outside the value are set to 0, exactly, as is what they
would multiply. All rules and what they pay are those of `rigorous_crown.py`: a sum over a window is the same sum with
terms left out that are exact zeros (a 0 times anything finite rounds nothing), so N and m there bound the lengths here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds import crown_rules
from acert_zoo.bounds.crown_rules import Claim
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import TINY, per_channel
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Conv, ReLU


class Window(NamedTuple):
    """Claims about one value: coefficients [S, C, h, w], beta [S], and where each window begins, int64 [S] each."""

    coefficients: Tensor
    beta: Tensor
    row: Tensor
    column: Tensor


def suits(network: Network, index: int) -> bool:
    """Whether claims about value `index` meet plain convolutions and ReLUs only, before they are concretised."""
    steps = network.steps
    while index > 0 and crown_rules.covered(steps[index - 1]):
        step = steps[index - 1]
        plain = isinstance(step, Conv) and step.groups == 1 and step.dilation == (1, 1)
        if not (plain or isinstance(step, ReLU)):
            return False
        index = step.inputs[0]
    return True


def pull_windows(network: Network, index: int, boxes: list[Interval], neurons: Tensor, sign: float) -> Tensor:
    """[S] lower bounds of sign * z for `neurons`, int64 [S], places in the flattened value `index`, [1, C, H, W].

    Args:
        boxes: rigorous boxes of the values before `index`, and of `index` itself.
    """
    _, height, width = boxes[index].lower.shape[1:]
    count = len(neurons)
    a = torch.zeros(count, boxes[index].lower.shape[1], 1, 1, dtype=torch.float64)
    a[torch.arange(count), neurons // (height * width), 0, 0] = sign
    claim = Window(a, torch.zeros(count, dtype=torch.float64), neurons // width % height, neurons % width)
    while index > 0 and crown_rules.covered(network.steps[index - 1]):
        step = network.steps[index - 1]
        index = step.inputs[0]
        claim = _conv(step, claim, boxes[index]) if isinstance(step, Conv) else _relu(claim, boxes[index])
    return _concretise(claim, boxes[index])


def _cut(t: Tensor, claim: Window) -> Tensor:
    """[S, C, h, w]: each claim's window of t [1, C, H, W], 0 beyond the border."""
    size = claim.coefficients.shape[2:]
    picked, inside = [], []
    for begin, length, whole in zip((claim.row, claim.column), size, t.shape[2:], strict=True):
        place = begin.unsqueeze(1) + torch.arange(length)
        inside.append((place >= 0) & (place < whole))
        picked.append(place.clamp(0, whole - 1))
    flat = picked[0].unsqueeze(2) * t.shape[3] + picked[1].unsqueeze(1)
    out = t[0].flatten(1).index_select(1, flat.flatten()).view(t.shape[1], *flat.shape).transpose(0, 1)
    within = (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)
    return out.masked_fill(~within, 0.0)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _relu(claim: Window, box: Interval) -> Window:
    local = Interval(_cut(box.lower, claim), _cut(box.upper, claim))
    new, beta = crown_rules.relu(Claim(claim.coefficients, claim.beta), local, None)
    return claim._replace(coefficients=new, beta=beta)


def _conv(step: Conv, claim: Window, box: Interval) -> Window:
    a = claim.coefficients
    magnitude = crown_rules.magnitude(box)
    error = _cut(step.map(magnitude, step.abs_weight, step.bias.abs()), claim)
    outputs = a[0].numel()
    products = step.weight.shape[0] * step.weight[0, 0].numel()
    k = crown_rules.factor(max(products, outputs, step.inner_length))
    beta = crown_rules.gain(claim.beta, _inner(a, per_channel(step.bias, a).expand_as(a)))
    beta = crown_rules.pay(beta, k * _inner(a.abs(), error + TINY), box)
    new = F.conv_transpose2d(a, step.weight, None, step.stride)
    row = claim.row * step.stride[0] - step.padding[0]
    column = claim.column * step.stride[1] - step.padding[1]
    moved = Window(new, beta, row, column)
    return moved._replace(coefficients=new * _cut(torch.ones_like(box.lower[:, :1]), moved))


def _concretise(claim: Window, box: Interval) -> Tensor:
    a, local = claim.coefficients, Interval(_cut(box.lower, claim), _cut(box.upper, claim))
    amount = _inner(a.clamp(min=0), local.lower) + _inner(a.clamp(max=0), local.upper)
    error = crown_rules.factor(2 * a[0].numel()) * _inner(a.abs(), crown_rules.magnitude(local))
    return crown_rules.pay(crown_rules.gain(claim.beta, amount), error, box)
