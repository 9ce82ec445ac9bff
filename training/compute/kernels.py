"""The elementwise passes of a training step, each one loop over memory where torch.compile may make one of it.

Once convolutions run in bfloat16, these passes cost more than the convolutions. A function here is the definition;
`compiled(f)` is the same loop from torch's compiler, and `plain(f)` runs it as it stands. Arguments are flat or
matrices [M, C], a row for each position of each image, which is how channels_last lays an activation out (`rows`).
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from acert_zoo.errors import InvalidInputError


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def relu_box(center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """(centre, half-width) of relu over [c - r, c + r], without a difference of large numbers.

    With h = relu(c + r) / 2: the centre is max(h, c) and the half-width min(h, r). Active: c and r; crossing: h and h;
    inactive: 0 and 0.
    """
    half = ((_wide(center) + _wide(radius)) * 0.5).clamp(min=0)
    return torch.maximum(half, _wide(center)).to(center.dtype), torch.minimum(half, _wide(radius)).to(center.dtype)


def relu_box_gradient(
    center: Tensor, radius: Tensor, grad_center: Tensor, grad_radius: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `relu_box`'s inputs, from its outputs: active where c > r, inactive where c = 0."""
    c, r, to_center, to_radius = (_wide(x) for x in (center, radius, grad_center, grad_radius))
    mean = torch.where(c > 0, (to_center + to_radius) * 0.5, 0.0)
    active, dtype = c > r, center.dtype
    return torch.where(active, to_center, mean).to(dtype), torch.where(active, to_radius, mean).to(dtype)


def normalize_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """relu(scale x + shift), scale and shift [C]."""
    return torch.relu(_wide(x) * scale + shift).to(x.dtype)


def normalize_relu_sums(grad: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """[C] each: the sums of g and of g x over the rows, g = `grad` where `out` > 0."""
    g = torch.where(_wide(out) > 0, _wide(grad), 0.0)
    return g.sum(0), (g * _wide(x)).sum(0)


def normalize_relu_gradient(
    grad: Tensor, out: Tensor, x: Tensor, scale: Tensor, slope: Tensor, offset: Tensor
) -> Tensor:
    """scale g + slope x + offset, g = `grad` where `out` > 0; the others [C]."""
    g = torch.where(_wide(out) > 0, _wide(grad), 0.0)
    return (g * scale + _wide(x) * slope + offset).to(x.dtype)


def balance_moments(center: Tensor, radius: Tensor, mean: Tensor) -> Tensor:
    """[6]: sums over flat c and r of: active (c > r), inactive (c < -r), c active, c inactive, and of (c - m)^2 active,
    (c - m)^2 inactive."""
    c, r = _wide(center), _wide(radius)
    active, inactive = (c > r).to(c.dtype), (c + r < 0).to(c.dtype)
    squared = (c - mean) ** 2
    terms = (active, inactive, c * active, c * inactive, squared * active, squared * inactive)
    return torch.stack([term.sum() for term in terms])


def balance_moments_gradient(center: Tensor, radius: Tensor, mean: Tensor, grad: Tensor, offset: Tensor) -> Tensor:
    """The gradient of c by `grad` [4], that of the last four sums, plus `offset`."""
    c, r = _wide(center), _wide(radius)
    deviation = 2 * (c - mean)
    active, inactive = grad[0] + grad[2] * deviation, grad[1] + grad[3] * deviation
    return (torch.where(c > r, active, 0.0) + torch.where(c + r < 0, inactive, 0.0) + offset).to(center.dtype)


def mean(x: Tensor) -> Tensor:
    """The mean of all entries; bfloat16's in float32, whose sums it is too coarse for."""
    return _wide(x).mean()


def require_compiler() -> None:
    """InvalidInputError where torch.compile would find no C++ compiler."""
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise InvalidInputError(
            f"compile = true needs a C++ compiler, and {name!r} (from $CXX, by default g++) is not on PATH: "
            "install one, or set compile = false"
        )


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as torch.compile makes it, once for all shapes. Its first call takes seconds (a C++ compiler runs)."""
    return torch.compile(function, dynamic=True)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` itself."""
    return function


def rows(x: Tensor) -> Tensor:
    """[N, C] as it is, [N, C, H, W] as [N H W, C]: a view where `x` is channels_last."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def unrows(matrix: Tensor, like: Tensor) -> Tensor:
    """The reverse of `rows`, channels_last, in the shape of `like`."""
    if like.dim() == 2:
        return matrix
    n, c, h, w = like.shape
    return matrix.view(n, h, w, c).permute(0, 3, 1, 2)
