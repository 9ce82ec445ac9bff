"""The adaptive radius of ACERT (arXiv 2307.13078): eps*(x; eps_t), the largest eps in [0, eps_t] with R(x, eps) >= 0.

R(x, .) is continuous and non-increasing, so eps* is a root, bracketed by R(x, 0) (the margin of the clean pass) and
R(x, eps_t). Training does not need it to many digits: a handful of whole-batch IBP evaluations would cost more than
the rest of the step. Three things make it cheap:

1. misclassified samples cost nothing (eps* = 0), and finished samples leave the batch;
2. the first evaluation is made at the sample's radius of the last epoch, which augmentation moves only a little;
3. every evaluation is followed by an interpolation through the bracket, so the returned radius is one order more
   exact than the last point evaluated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.network import Network


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
) -> tuple[Tensor, int]:
    """(eps* of every sample [N], in pixel units; number of IBP evaluations spent, summed over samples).

    Args:
        network: a folded snapshot without gradient.
        images, labels: pixels [N, C, H, W] in [0, 1]; labels [N].
        clean_margin: R(x, 0) [N], from the train-mode logits of the clean pass.
        eps_t: the current upper end of the search.
        guess: a first estimate [N]; NaN or values outside (0, eps_t] stand for eps_t.
        evaluations: the most evaluations a sample may cost.
        tolerance: a sample is finished once its estimate is within this relative distance of an evaluated point.
    """
    radius = torch.zeros_like(clean_margin)
    active = torch.nonzero(clean_margin >= 0).squeeze(1)
    if eps_t <= 0 or len(active) == 0:
        return radius, 0
    low, low_value = torch.zeros_like(clean_margin)[active], clean_margin[active]
    high, high_value = torch.full_like(low, eps_t), torch.full_like(low, torch.nan)  # R(eps_t) is not known yet
    point = torch.full_like(low, eps_t)
    if guess is not None:
        near = guess[active]
        point = torch.where((near > 0) & (near <= eps_t), near, point)
    spent = 0
    for _ in range(evaluations):
        value = robust_margin(network, images[active], labels[active], point)
        spent += len(active)
        passed = value >= 0
        # a point that passes becomes the low end, one that fails the high end
        slope_from, slope_value = low, low_value
        low, low_value = torch.where(passed, point, low), torch.where(passed, value, low_value)
        high, high_value = torch.where(passed, high, point), torch.where(passed, high_value, value)
        bracketed = ~torch.isnan(high_value)
        # false position inside a bracket; without one, extrapolation along the last chord, cut at eps_t
        chord = low + low_value * (high - low) / (low_value - high_value).clamp(min=1e-12)
        slope = (slope_value - value) / (point - slope_from).clamp(min=1e-12)
        beyond = torch.minimum(point + value / slope.clamp(min=1e-12), high)
        estimate = torch.where(bracketed, chord, beyond).clamp(0.0, eps_t)
        radius[active] = estimate
        done = (estimate - point).abs() <= tolerance * point
        keep = torch.nonzero(~done).squeeze(1)
        if len(keep) == 0:
            break
        active, point = active[keep], estimate[keep]
        low, low_value, high, high_value = low[keep], low_value[keep], high[keep], high_value[keep]
    return radius, spent
