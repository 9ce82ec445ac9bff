"""What one evaluation of a CROWN-family bound will cost, before it is begun.

A backward pass from a layer carries one row of coefficients for each of its neurons that is open (whose interval
contains 0); a row costs what the layers before it cost in a forward pass, and takes as much memory as the largest
value it passes. Interval bounds, which take milliseconds, say how many neurons are open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, input_box, propagate
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine, ReLU
from acert_zoo.rounding import BoundMethod

_COPIES = 6  # lower and upper coefficients, and what one step makes of them
_ITERATIONS = 60  # passes of alpha-crown: 20 iterations, forward and backward, autograd's records


@dataclass(frozen=True)
class Cost:
    """Multiplications and peak bytes of one evaluation, by estimate."""

    multiplications: float
    bytes: float


@torch.no_grad()
def crown_cost(network: Network, images: Tensor, eps: float, method: str) -> Cost:
    """The cost of one evaluation of `method` over B(x, eps), for images [N, C, H, W] together."""
    preactivations: list[Ball] = []
    propagate(network, input_box(images, eps), preactivations)
    opened = [_open_neurons(p) for p in preactivations]
    values = network.run(images[:1])
    sizes = [v[0].numel() for v in values]
    item = images.element_size()
    work, peak, forward, largest, relu = 0.0, 0.0, 0.0, float(sizes[0]), 0
    for index, step in enumerate(network.steps):
        if isinstance(step, ReLU):
            rows = opened[relu] if method in (BoundMethod.CROWN, BoundMethod.ALPHA_CROWN) and relu > 0 else 0
            relu += 1
            work += 2 * rows * forward
            peak = max(peak, rows * largest * item * _COPIES)
        if isinstance(step, Affine):
            forward += sizes[index + 1] * step.inner_length
        largest = max(largest, sizes[index + 1])
    rows = (network.num_classes - 1) * len(images)
    passes = _ITERATIONS if method == BoundMethod.ALPHA_CROWN else 1
    work += 2 * rows * forward * passes + 2 * len(images) * forward
    peak = max(peak, rows * sum(sizes) * item * _COPIES)
    return Cost(work, peak)


def _open_neurons(ball: Ball) -> int:
    """Neurons of the layer whose sign is open for some image of the batch."""
    return int(((ball.lower < 0) & (ball.upper > 0)).any(0).sum())
