"""Training objectives over one interval propagation. A new objective is one function and one line in OBJECTIVES.

Every objective gets a `Batch` and returns a `Loss`. All of them share the clean pass, whose batch statistics the bound
pass reuses, and `robust_loss`, the cross-entropy of the elided margin bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Interval, input_box, margin_bounds, propagate, smallest_margin
from acert_zoo.network import Network, Normalize
from training import regularizers
from training.adaptive_radius import adaptive_radius
from training.clean_pass import CleanPass, clean_pass
from training.recipe import Recipe

CLAMP = 1e-6  # smallest radius of the bound pass while the regularisers are on


@dataclass
class Batch:
    """Everything an objective may use. Radii in pixel units of [0, 1]."""

    network: Network  # live, BatchNorm unfolded
    images: Tensor  # [N, C, H, W]
    labels: Tensor  # [N]
    eps_t: float  # current radius of the ramp
    ramping: bool  # the regularisers and the clamp are on
    guess: Tensor  # [N] last known adaptive radii, NaN where unknown
    recipe: Recipe


@dataclass
class Loss:
    """The value to differentiate and what the log keeps of the step."""

    total: Tensor
    clean: CleanPass
    robust: Tensor
    radius: Tensor  # [N] radius of each sample's bound pass
    evaluations: int = 0  # IBP evaluations of the radius search, summed over samples
    extra: dict[str, Tensor] = field(default_factory=dict)


def clean_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y - max over t != y of f_t, [N]."""
    return smallest_margin(logits.gather(1, labels.unsqueeze(1)) - logits, labels)


def robust_loss(batch: Batch, network: Network, eps: Tensor) -> tuple[Tensor, Tensor]:
    """(CE(z, y), warm-up regulariser), z_t = -m_t(x, eps) and z_y = 0, batch means; `network` folded, with gradient."""
    box = input_box(batch.images, eps)
    preactivations: list[Interval] | None = [] if batch.ramping else None
    hidden = propagate(network, box, preactivations)
    robust = F.cross_entropy(-margin_bounds(network.head, hidden, batch.labels), batch.labels)
    if preactivations is None:
        return robust, robust.new_zeros(())
    settings = batch.recipe.regularizers
    first = network.steps[0]
    normalized = Interval(first(box.lower), first(box.upper)) if isinstance(first, Normalize) else box
    penalty = robust.new_zeros(())
    if settings.tight:
        penalty = penalty + settings.tight * regularizers.tightness(normalized, preactivations, settings.tolerance)
    if settings.relu:
        penalty = penalty + settings.relu * regularizers.relu_balance(preactivations, settings.tolerance)
    return robust, penalty


def _mixed(batch: Batch, clean: CleanPass, folded: Network, eps: Tensor, evaluations: int) -> Loss:
    """kappa CE(f, y) + (1 - kappa) CE(z, y) + (1 - eps_t / eps_max) regularisers; before the ramp CE(f, y) + regs."""
    kappa, eps_max = batch.recipe.kappa, batch.recipe.radius.eps_max_value
    natural = F.cross_entropy(clean.logits, batch.labels)
    bound_eps = eps.clamp(min=CLAMP) if batch.ramping else eps
    if batch.eps_t <= 0:
        robust, penalty = robust_loss(batch, folded, torch.full_like(eps, CLAMP))
        return Loss(natural + penalty, clean, robust.detach(), eps, evaluations)
    robust, penalty = robust_loss(batch, folded, bound_eps)
    total = kappa * natural + (1 - kappa) * robust + (1 - batch.eps_t / eps_max) * penalty
    return Loss(total, clean, robust.detach(), eps, evaluations)


def acert(batch: Batch) -> Loss:
    """ACERT (Nurlanov et al. 2024): each sample at its own certified radius eps*(x; eps_t), held constant."""
    clean = clean_pass(batch.network, batch.images)
    folded = batch.network.fold_batchnorm(clean.statistics)
    settings = batch.recipe.radius
    eps, evaluations = adaptive_radius(
        folded.detach(),
        batch.images,
        batch.labels,
        clean_margin(clean.logits.detach(), batch.labels),
        batch.eps_t,
        batch.guess,
        evaluations=settings.evaluations,
        tolerance=settings.tolerance,
    )
    return _mixed(batch, clean, folded, eps, evaluations)


def ibp(batch: Batch) -> Loss:
    """IBP (Gowal et al. 2018, Shi et al. 2021) with the kappa-mixed loss: every sample at eps_t."""
    clean = clean_pass(batch.network, batch.images)
    folded = batch.network.fold_batchnorm(clean.statistics)
    eps = torch.full_like(clean.logits[:, 0].detach(), batch.eps_t)
    return _mixed(batch, clean, folded, eps, 0)


def standard(batch: Batch) -> Loss:
    """Cross-entropy of the clean logits alone, with the recipe's label smoothing."""
    clean = clean_pass(batch.network, batch.images)
    natural = F.cross_entropy(clean.logits, batch.labels, label_smoothing=batch.recipe.label_smoothing)
    return Loss(natural, clean, natural.detach(), torch.zeros_like(clean.logits[:, 0].detach()))


OBJECTIVES: dict[str, Callable[[Batch], Loss]] = {"acert": acert, "ibp": ibp, "standard": standard}
