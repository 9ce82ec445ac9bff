"""IBP initialisation (Shi et al. 2021, section 3.2): interval widths neither explode nor vanish with depth."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def ibp_initialization(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws the weights of all but the last affine layer from N(0, (sqrt(2 pi) / fan_in)^2); biases and BN stay.

    fan_in = C_in / groups * kh * kw (or in_features).
    """
    affine = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer in affine[:-1]:
        layer.weight.normal_(0.0, math.sqrt(2 * math.pi) / layer.weight[0].numel(), generator=generator)
