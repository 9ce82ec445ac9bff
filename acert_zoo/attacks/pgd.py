"""Descent inside exact boxes, and the points from which it starts: the parts that attacks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acert_zoo.attacks.exact_box import Box

Objective = Callable[[Tensor, Tensor], Tensor]  # (points [N, C, H, W], labels [N]) -> [N] float64, to be made small


def margin_objective(model: nn.Module) -> Objective:
    """f_y - max over t != y of f_t of each point: below 0 the float32 model errs."""

    def margin(points: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = model(points)
        own = logits.gather(1, labels.unsqueeze(1))
        return (own.squeeze(1) - logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)).double()

    return margin


def entropy_objective(model: nn.Module) -> Objective:
    """Minus the cross-entropy of the label."""
    return lambda points, labels: -F.cross_entropy(model(points), labels, reduction="none").double()


def descend(objective: Objective, start: Tensor, labels: Tensor, box: Box, eps: Tensor, steps: int) -> list[Tensor]:
    """Projected sign-gradient descent; returns [the point of smallest objective, the last point].

    Step sizes fall geometrically from eps/2 to eps/50.
    """
    points, best = start, start
    lowest = torch.full_like(eps, torch.inf)
    for step in range(steps + 1):
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(points, labels)
            (gradient,) = torch.autograd.grad(value.sum(), points)
        value = value.detach()
        better = value < lowest
        lowest = torch.where(better, value, lowest)
        best = torch.where(better.view(-1, 1, 1, 1), points.detach(), best)
        if step == steps:
            break
        size = (eps * 0.5 * 0.04 ** (step / max(steps - 1, 1))).float().view(-1, 1, 1, 1)
        points = box.clamp(points.detach() - size * gradient.sign())
    return [best, points.detach()]


def random_corners(box: Box, generator: torch.Generator) -> Tensor:
    """A random corner of each box."""
    return torch.where(torch.rand(box.lower.shape, generator=generator) < 0.5, box.lower, box.upper)


def random_points(box: Box, generator: torch.Generator) -> Tensor:
    """A uniform point of each box."""
    return box.clamp(torch.lerp(box.lower, box.upper, torch.rand(box.lower.shape, generator=generator)))


def float_neighbours(points: Tensor, box: Box, generator: torch.Generator, ulps: int = 2) -> Tensor:
    """Each pixel moved by up to `ulps` float32 steps up or down, inside the box: where only rounding decides."""
    moves = torch.randint(-ulps, ulps + 1, points.shape, generator=generator)
    for step in range(1, ulps + 1):
        up, down = points.nextafter(torch.full_like(points, 2.0)), points.nextafter(torch.full_like(points, -1.0))
        points = torch.where(moves >= step, up, torch.where(moves <= -step, down, points))
    return box.clamp(points)
