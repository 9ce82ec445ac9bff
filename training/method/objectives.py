"""Training objectives over one interval propagation. A new objective is one function and one line in OBJECTIVES; or a
function of one's own, which a recipe names as "module:function".

Every objective gets a `Batch` and returns a `Loss`; see loss.py. All of them share the clean pass, whose batch
statistics the bound pass reuses (BatchNorm is folded into the affine layers with them, with gradient).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

from acert_zoo.bounds.ibp import Ball, Interval
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.network.graph import Network
from training.compute.precision import logits
from training.method import crown_ibp as crown
from training.method import expressive as expressive_losses
from training.method import sabr as small_boxes
from training.method.adaptive_radius import AdaptiveRadius, adaptive_radius
from training.method.clean_pass import CleanPass
from training.method.expressive import Combination
from training.method.loss import Batch, Loss, clean_margin, eps_box, ibp_margins, mixed_loss


def acert(batch: Batch) -> Loss:
    """ACERT (Nurlanov et al. 2023, arXiv 2307.13078): each sample at its own certified radius eps*(x; eps_t), which is
    held constant in the gradient.

    A recipe with `radius.eps_min` > 0 (ours, not the paper's) trains no sample at less than min(eps_min, eps_t).
    """
    clean = batch.clean_pass()
    network = batch.folded(clean)
    search = _own_radii(batch, clean, network)
    return mixed_loss(
        batch,
        clean,
        network,
        eps_box(batch, search.radius),
        search.radius,
        scale=search.scale,
        evaluations=search.evaluations,
        points=True,
    )


def _own_radii(batch: Batch, clean: CleanPass, network: Network) -> AdaptiveRadius:
    """Each sample's eps*(x; eps_t), at least min(eps_min, eps_t)."""
    settings = batch.recipe.radius
    search = adaptive_radius(
        network.detach(),
        batch.images,
        batch.labels,
        clean_margin(clean.logits.detach(), batch.labels),
        batch.eps_t,
        batch.scale,
        evaluations=settings.evaluations,
        tolerance=settings.tolerance,
        relu=batch.relu,
    )
    return search._replace(radius=search.radius.clamp(min=min(settings.eps_min_value, batch.eps_t)))


def ibp(batch: Batch) -> Loss:
    """IBP (Gowal et al. 2018, arXiv 1810.12715; Shi et al. 2021, arXiv 2103.17268): every sample at eps_t."""
    clean = batch.clean_pass()
    network = batch.folded(clean)
    radius = torch.full_like(clean.logits[:, 0].detach(), batch.eps_t)
    return mixed_loss(batch, clean, network, eps_box(batch, radius), radius)


def standard(batch: Batch) -> Loss:
    """Cross-entropy of the clean logits alone, with the recipe's label smoothing."""
    clean = batch.clean_pass()
    natural = F.cross_entropy(clean.logits, batch.labels, label_smoothing=batch.recipe.label_smoothing)
    radius = torch.zeros_like(clean.logits[:, 0].detach())
    return Loss(natural, natural.detach(), natural.detach(), clean, radius)


def crown_ibp(batch: Batch) -> Loss:
    """CROWN-IBP (Zhang et al. 2020, arXiv 1906.06316), kappa-mixed: all samples at eps_t, the margins bounded by
    beta CROWN-IBP + (1 - beta) IBP, beta going linearly from `crown_ibp.start` to `crown_ibp.end` as eps_t grows."""
    clean = batch.clean_pass()
    network = batch.network.fold_batchnorm(clean.statistics)  # in float32, whatever the recipe's precision
    radius = torch.full_like(clean.logits[:, 0].detach(), batch.eps_t)
    settings = batch.recipe.crown_ibp
    share = batch.eps_t / batch.recipe.radius.eps_max_value
    beta = settings.start + (settings.end - settings.start) * share

    def margins(network: Network, box: Interval, labels: torch.Tensor, preactivations: list[Ball]) -> torch.Tensor:
        interval = ibp_margins(network, box, labels, preactivations)
        if beta == 0 or batch.before_ramp:
            return interval
        linear = crown.backward_margins(network, box, labels, preactivations)
        return beta * linear + (1 - beta) * interval

    return mixed_loss(batch, clean, network, eps_box(batch, radius), radius, margins=margins)


def sabr(batch: Batch) -> Loss:
    """SABR (Müller et al. 2023, arXiv 2210.04871), kappa-mixed: the bounds of a small box, of radius share * eps_t,
    centred at an adversarial example of B(x, (1 - share) eps_t)."""
    clean = batch.clean_pass()
    network = batch.folded(clean)
    settings = batch.recipe.sabr
    small = settings.share * batch.eps_t
    start = batch.noise() if batch.eps_t > 0 else torch.zeros_like(batch.images)
    center = small_boxes.attack(
        network.detach(), batch.images, batch.labels, batch.eps_t - small, start, settings.steps, settings.step_size
    )
    radius = torch.full_like(clean.logits[:, 0].detach(), small)
    box = eps_box(dataclasses.replace(batch, images=center), radius)
    return mixed_loss(batch, clean, network, box, radius)


def expressive(batch: Batch, combination: Combination, own_radii: bool = False) -> Loss:
    """An expressive loss over the box of eps_t and an adversarial example of `expressive.attack` times that radius,
    kappa-mixed (kappa = 0 as published). With `own_radii`, box and attack of each sample have ACERT's radius eps*."""
    clean = batch.clean_pass()
    network = batch.folded(clean)
    settings = batch.recipe.expressive
    radius = torch.full_like(clean.logits[:, 0].detach(), batch.eps_t)
    scale, evaluations = None, 0
    if own_radii:
        search = _own_radii(batch, clean, network)
        radius, scale, evaluations = search.radius, search.scale, search.evaluations
    if batch.before_ramp:  # the robust loss has no weight yet
        return mixed_loss(batch, clean, network, eps_box(batch, radius), radius)
    point = small_boxes.attack(
        network.detach(),
        batch.images,
        batch.labels,
        settings.attack * radius,
        batch.noise(),
        settings.steps,
        settings.step_size,
    )
    differences = logits(network, point)
    differences = differences - differences.gather(1, batch.labels.unsqueeze(1))

    def robust(bounds: torch.Tensor) -> torch.Tensor:
        return combination(differences, -bounds, batch.labels, settings.share)

    return mixed_loss(
        batch,
        clean,
        network,
        eps_box(batch, radius),
        radius,
        robust=robust,
        scale=scale,
        evaluations=evaluations,
    )


def find_objective(name: str) -> Callable[[Batch], Loss]:
    """The objective that a recipe names: one of OBJECTIVES, or one's own as "module:function".

    The module is looked for where Python looks and in the current folder.

    Raises:
        UnknownNameError: no such objective.
        InvalidInputError: the module cannot be imported or has no such function.
    """
    module, _, function = name.partition(":")
    if not function:
        if name not in OBJECTIVES:
            raise UnknownNameError.near("objective", name, OBJECTIVES)
        return OBJECTIVES[name]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SyntaxError, ValueError, TypeError) as error:  # the last two: odd module names
        raise InvalidInputError(f"objective {name!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise InvalidInputError(f"objective {name!r} is {found!r}; expected a function from a Batch to a Loss")
    return found


OBJECTIVES: dict[str, Callable[[Batch], Loss]] = {
    "acert": acert,
    "ibp": ibp,
    "standard": standard,
    "crown-ibp": crown_ibp,
    "sabr": sabr,
    "cc-ibp": functools.partial(expressive, combination=expressive_losses.convex),
    "mtl-ibp": functools.partial(expressive, combination=expressive_losses.multitask),
    "exp-ibp": functools.partial(expressive, combination=expressive_losses.exponential),
    "acert-mtl": functools.partial(expressive, combination=expressive_losses.multitask, own_radii=True),
}
