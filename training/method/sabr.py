"""Where SABR puts its small box (Müller et al. 2023, arXiv 2210.04871, section 3): an adversarial example by PGD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.network.graph import Network
from training.compute.precision import logits


def attack(
    network: Network, images: Tensor, labels: Tensor, eps: float | Tensor, noise: Tensor, steps: int, step_size: float
) -> Tensor:
    """Points [N, C, H, W] of B(images, eps) with a high cross-entropy, by projected sign-gradient ascent.

    Args:
        network: a snapshot without gradient.
        eps: radius of the attack, pixel units: one number, or [N].
        noise: uniform numbers in [0, 1), shaped like `images`: the start is images + eps (2 noise - 1).
        steps: number of ascent steps; step k has the size step_size * eps, divided by 10 from the half of the steps
            on and by 100 in the last eighth (after 4 and 7 of 8, as published).
    """
    if isinstance(eps, Tensor):
        eps = eps.view(-1, *(1,) * (images.dim() - 1))
    elif eps <= 0:
        return images
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    point = torch.minimum(torch.maximum(images + eps * (2 * noise - 1), low), high)
    for k in range(steps):
        decay = 0.1 ** ((2 * k >= steps) + (8 * k >= 7 * steps))
        with torch.enable_grad():
            point.requires_grad_()
            loss = F.cross_entropy(logits(network, point), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
        with torch.no_grad():
            point = torch.minimum(torch.maximum(point + step_size * decay * eps * gradient.sign(), low), high)
    return point.detach()
