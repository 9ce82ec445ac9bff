"""The exact box of an attack: float32 images x' with |x' - x|_inf <= eps in real arithmetic, and 0 <= x' <= 1.

x, x' are float32 and eps is a float64, so x' - x need not fit a float64 (1 - 2^-149 does not). `_difference` gives it
as an unevaluated sum s + e of two float64 numbers (`two_sum`). With s = fl(d) for
d = |x' - x|, rounding being monotone: d <= eps iff s < eps, or s = eps and the error of s is not positive.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps, round_down, two_sum

Eps = Tensor | str | float | Fraction


class Box(NamedTuple):
    """The smallest and the largest float32 pixels of the box, both inside it; shape [N, C, H, W]."""

    lower: Tensor
    upper: Tensor

    def clamp(self, points: Tensor) -> Tensor:
        """The nearest points of the box."""
        return torch.minimum(torch.maximum(points, self.lower), self.upper)

    def pick(self, index: Tensor) -> Box:
        """The boxes of some of the images."""
        return Box(self.lower[index], self.upper[index])


def _difference(points: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """(s, e) float64 with |x' - x| = s + e exactly and s = fl(|x' - x|)."""
    s, e = two_sum(points.double(), -images.double())
    return s.abs(), torch.where(s < 0, -e, e)


def _radii(eps: Tensor, images: Tensor) -> Tensor:
    return eps.view(-1, *(1,) * (images.dim() - 1))


def inside(points: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    """For each pixel whether |x' - x| <= eps, decided exactly; `eps` float64 [N]. NaN is outside."""
    s, e = _difference(points, images)
    radius = _radii(eps, images)
    return (s < radius) | ((s == radius) & (e <= 0))


def distance(points: Tensor, images: Tensor) -> Tensor:
    """|x' - x|_inf as float64 [N], rounded up: an adversarial image at x' bounds the true radius by this number."""
    s, e = _difference(points, images)
    s = torch.where(e > 0, torch.nextafter(s, torch.full_like(s, torch.inf)), s)
    return s.flatten(1).amax(1)


def attack_box(images: Tensor, eps: Tensor) -> Box:
    """The exact box about float32 images in [0, 1]; `eps` float64 [N] or one number, pixel units."""
    eps = eps.expand(len(images))
    radius = _radii(eps, images)
    lower = _pull_in((images.double() - radius).clamp(min=0.0).float(), images, eps)
    upper = _pull_in((images.double() + radius).clamp(max=1.0).float(), images, eps)
    return Box(lower, upper)


def _pull_in(points: Tensor, images: Tensor, eps: Tensor) -> Tensor:
    """Moves pixels that lie outside by rounding towards the image, float by float (one step is enough; 4 are tried)."""
    for _ in range(4):
        outside = ~inside(points, images, eps)
        if not bool(outside.any()):
            return points
        points = torch.where(outside, torch.nextafter(points, images), points)
    return torch.where(inside(points, images, eps), points, images)


def parse_radii(eps: Eps, n: int) -> Tensor:
    """Radii as float64 [n], rounded down from what was asked for.

    Raises:
        InvalidInputError: negative, NaN, not a number, or a tensor of another length.
    """
    if not isinstance(eps, Tensor):
        return torch.full((n,), round_down(parse_eps(eps)), dtype=torch.float64)
    radii = eps.detach().to("cpu", torch.float64).reshape(-1)
    if len(radii) not in (1, n) or not bool((radii >= 0).all()):
        raise InvalidInputError(f"eps must be one radius >= 0 or {n} of them, got shape {tuple(eps.shape)}")
    return radii.expand(n).clamp(max=1.0).clone()
