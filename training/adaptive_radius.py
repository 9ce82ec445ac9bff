"""The adaptive radius of ACERT (arXiv 2307.13078): eps*(x; eps_t), the largest eps in [0, eps_t] with R(x, eps) >= 0.

R(x, .) is continuous and non-increasing, so eps* is a root, bracketed by R(x, 0) (the margin of the clean pass) and
R(x, eps_t). Training does not need it to many digits: a dozen whole-batch IBP evaluations would cost more than the rest
of the step. Three things make it cheap:

1. misclassified samples cost nothing (eps* = 0), and finished samples leave the batch;
2. the first evaluation is made at the root estimated for the same sample one epoch ago, which augmentation moves only a
   little; that estimate is kept beyond eps_t, so that a sample robust at eps_t is confirmed by one evaluation there;
3. every evaluation is followed by an interpolation through the bracket, so the returned radius is one order more exact
   than the last point evaluated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.network import Network


class AdaptiveRadius(NamedTuple):
    """`radius` [N]: eps*, in pixel units; `root` [N]: the root where it lies beyond eps_t too (extrapolated), NaN where
    unknown; `evaluations`: IBP evaluations spent, summed over samples."""

    radius: Tensor
    root: Tensor
    evaluations: int


@torch.no_grad()
def adaptive_radius(
    network: Network,
    images: Tensor,
    labels: Tensor,
    clean_margin: Tensor,
    eps_t: float,
    guess: Tensor | None = None,
    *,
    evaluations: int = 2,
    tolerance: float = 0.05,
    compact: bool | None = None,
) -> AdaptiveRadius:
    """eps* of every sample.

    Args:
        network: a folded snapshot without gradient.
        images, labels: pixels [N, C, H, W] in [0, 1]; labels [N].
        clean_margin: R(x, 0) [N], from the train-mode logits of the clean pass.
        eps_t: the current upper end of the search.
        guess: a first estimate of the root [N]; where it is NaN or not in (0, eps_t], the first point is eps_t.
        evaluations: the most evaluations a sample may cost.
        tolerance: a sample is finished once its estimate is within this relative distance of an evaluated point.
        compact: whether finished samples leave the batch. By default on the CPU only: elsewhere finding out which ones
            are finished would make the host wait for the device.
    """
    compact = images.device.type == "cpu" if compact is None else compact
    unknown = torch.full_like(clean_margin, torch.nan)
    radius = torch.zeros_like(clean_margin)
    if eps_t <= 0:
        return AdaptiveRadius(radius, unknown if guess is None else guess, 0)
    point = torch.full_like(clean_margin, eps_t)
    if guess is not None:
        point = torch.where((guess > 0) & (guess < eps_t), guess, point)
    root, alive = unknown, clean_margin >= 0
    low, low_value = torch.zeros_like(point), clean_margin
    high, high_value = point.new_full(point.shape, eps_t), unknown  # R(eps_t) is not known yet
    spent = 0
    for _ in range(evaluations):
        if compact:
            chosen = torch.nonzero(alive).squeeze(1)
            if len(chosen) == 0:
                break
            value = unknown.clone()
            value[chosen] = robust_margin(network, images[chosen], labels[chosen], point[chosen])
            spent += len(chosen)
        else:
            value = robust_margin(network, images, labels, point)
            spent += len(images)
        passed = value >= 0
        # without a point that failed: extrapolation along the last chord; with one: false position
        slope = (low_value - value) / (point - low).clamp(min=1e-12)
        beyond = point + value / slope.clamp(min=1e-12)
        low, low_value = torch.where(passed, point, low), torch.where(passed, value, low_value)
        high, high_value = torch.where(passed, high, point), torch.where(passed, high_value, value)
        chord = low + low_value * (high - low) / (low_value - high_value).clamp(min=1e-12)
        estimate = torch.where(high_value.isnan(), beyond, chord)
        capped = estimate.clamp(0.0, eps_t)
        radius, root = torch.where(alive, capped, radius), torch.where(alive, estimate, root)
        alive = alive & ((capped - point).abs() > tolerance * point)
        point = torch.where(alive, capped, point)
    return AdaptiveRadius(radius, root, spent)
