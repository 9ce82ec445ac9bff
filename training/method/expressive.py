"""Expressive losses (De Palma et al. 2024, arXiv 2305.13991): an adversarial and a bound loss, joined by one number a.

With z(adv) the logit differences f_t - f_y at an adversarial example, z(ibp) their upper bounds over the box and CE the
cross-entropy,
    cc-ibp    CE((1 - a) z(adv) + a z(ibp)),
    mtl-ibp   (1 - a) CE(z(adv)) + a CE(z(ibp)),
    exp-ibp   CE(z(adv))^(1 - a) CE(z(ibp))^a.
All of them are CE(z(adv)) at a = 0 and CE(z(ibp)) at a = 1, and grow with a.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Combination = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # (z(adv), z(ibp), labels, a) -> losses [N]


def convex(adversarial: Tensor, bounds: Tensor, labels: Tensor, a: float) -> Tensor:
    """cc-ibp: the loss of the mixed logits."""
    return F.cross_entropy(torch.lerp(adversarial, bounds, a), labels, reduction="none")


def multitask(adversarial: Tensor, bounds: Tensor, labels: Tensor, a: float) -> Tensor:
    """mtl-ibp: the mixed losses."""
    first, second = (F.cross_entropy(z, labels, reduction="none") for z in (adversarial, bounds))
    return torch.lerp(first, second, a)


def exponential(adversarial: Tensor, bounds: Tensor, labels: Tensor, a: float) -> Tensor:
    """exp-ibp: the losses' weighted geometric mean, with a floor where the logarithm would lose its gradient."""
    first, second = (F.cross_entropy(z, labels, reduction="none").clamp(min=1e-6) for z in (adversarial, bounds))
    return torch.lerp(first.log(), second.log(), a).exp()
