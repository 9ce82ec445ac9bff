"""The adaptive radius of ACERT (arXiv 2307.13078): eps*(x; eps_t), the largest eps in [0, eps_t] with R(x, eps) >= 0.

R(x, .) is continuous and non-increasing, so eps* is a root, bracketed by R(x, 0) (the margin of the clean pass) and
R(x, eps_t). Training does not need it to many digits: a dozen whole-batch IBP evaluations would cost more than the rest
of the step. Four things make it cheap:

1. misclassified samples cost nothing (eps* = 0), and finished samples leave the batch;
2. the drop R(x, 0) - R(x, eps) is close to a power p of eps. So root = scale * R(x, 0)^(1/p), and the scale of a
   sample, remembered from one epoch ago, predicts its root after augmentation and a change of its margin; a sample
   seen for the first time takes the median scale of the (global) batch;
3. the first evaluation is made at that prediction, or at eps_t where the prediction lies beyond: one evaluation there
   settles a sample that is robust at eps_t;
4. every evaluation is followed by an interpolation, the root of the power law through the last two points, so the
   returned radius is one order more exact than the last point evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, robust_margin
from acert_zoo.network.graph import Network
from training.compute.distributed import gather_over_ranks

EXPONENT = 1.4  # of the drop, until a sample has two points (measured: 1.0 for small radii, up to 2 for large ones)
EXPONENT_RANGE = (0.8, 4.0)  # measured from the first two points, which may lie far apart
LOCAL_RANGE = (0.1, 20.0)  # from later ones


class AdaptiveRadius(NamedTuple):
    """`radius` [N]: eps*, in pixel units. `scale` [N]: root / R(x, 0)^(1/EXPONENT), from the estimated root (beyond
    eps_t where it lies there), NaN where unknown. `evaluations`: IBP evaluations spent, summed over samples."""

    radius: Tensor
    scale: Tensor
    evaluations: int


@torch.no_grad()
def adaptive_radius(
    network: Network,
    images: Tensor,
    labels: Tensor,
    clean_margin: Tensor,
    eps_t: float,
    scale: Tensor | None = None,
    *,
    evaluations: int = 4,
    tolerance: float = 0.1,
    compact: bool | None = None,
    relu: Callable[[Ball], Ball] | None = None,
) -> AdaptiveRadius:
    """eps* of every sample.

    Args:
        network: a folded snapshot without gradient.
        images, labels: pixels [N, C, H, W] in [0, 1]; labels [N].
        clean_margin: R(x, 0) [N], from the train-mode logits of the clean pass.
        eps_t: the current upper end of the search.
        scale: [N], what an earlier call returned for the same samples; NaN where unknown.
        evaluations: the most evaluations a sample may cost.
        tolerance: a sample is finished once its estimate is within this relative distance of an evaluated point.
        compact: whether finished samples leave the batch. By default on the CPU only: elsewhere finding out which ones
            are finished would make the host wait for the device.
        relu: as in `acert_zoo.bounds.ibp.propagate`.
    """
    compact = images.device.type == "cpu" if compact is None else compact
    unknown = torch.full_like(clean_margin, torch.nan)
    radius, new_scale = torch.zeros_like(clean_margin), unknown
    if eps_t <= 0:
        return AdaptiveRadius(radius, unknown, 0)
    margin = clean_margin.clamp(min=0)
    unit = margin ** (1 / EXPONENT)
    point = torch.full_like(margin, eps_t)
    if scale is not None:
        guess = torch.where(scale.isnan(), _median(gather_over_ranks(scale).flatten()), scale) * unit
        point = torch.where((guess > 0) & (guess < eps_t), guess, point)
    alive = clean_margin >= 0
    low, high = torch.zeros_like(point), torch.full_like(point, torch.inf)  # largest eps that passed, smallest failed
    exponent, last_point, last_drop = torch.full_like(point, EXPONENT), point, torch.ones_like(point)
    width = torch.full_like(point, torch.inf)
    spent = 0
    for k in range(evaluations):
        if compact:
            chosen = torch.nonzero(alive).squeeze(1)
            if len(chosen) == 0:
                break
            value = unknown.clone()
            value[chosen] = robust_margin(network, images[chosen], labels[chosen], point[chosen], relu=relu)
            spent += len(chosen)
        else:
            value = robust_margin(network, images, labels, point, relu=relu)
            spent += len(images)
        passed = value >= 0
        low, high = torch.where(passed, point, low), torch.where(passed, high, point)
        drop = torch.maximum(margin - value, 1e-6 * margin + 1e-12)
        if k > 0:
            apart = (point / last_point).log()
            measured = ((drop / last_drop).log() / apart).clamp(*(EXPONENT_RANGE if k == 1 else LOCAL_RANGE))
            exponent = torch.where(apart.abs() > 1e3 * torch.finfo(apart.dtype).eps, measured, exponent)
        root = point * (margin / drop) ** (1 / exponent)
        root = torch.minimum(torch.maximum(root, low), high)
        if k % 2 and k + 1 < evaluations:  # a kink can defeat the power law: halve a bracket that has not halved
            root = torch.where(high - low > width / 2, (low + high) / 2, root)
            width = high - low
        capped = root.clamp(max=eps_t)
        radius = torch.where(alive, capped, radius)
        new_scale = torch.where(alive & (unit > 0), root / unit, new_scale)
        alive = alive & ((capped - point).abs() > tolerance * point)
        last_point, last_drop, point = point, drop, torch.where(alive, capped, point)
    return AdaptiveRadius(radius, new_scale, spent)


def _median(values: Tensor) -> Tensor:
    """[1]: the lower median of the entries of `values` [n] that are not NaN, NaN where all are.

    `Tensor.nanmedian` is the same, but makes the host wait for a CUDA device.
    """
    known = (~values.isnan()).sum()
    middle = ((known - 1) // 2).clamp(min=0)
    return values.sort().values.index_select(0, middle.view(1))  # NaN comes last
