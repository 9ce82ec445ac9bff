"""What every certified-training objective shares: the batch, the kappa-mixed loss, and the box of the bound pass.

Loss, batch means: kappa CE(f(x), y) + (1 - kappa) CE(z, y) with z_y = 0 and z_t = -m_t, m_t the lower bounds of the
margins f_y - f_t over the sample's box (last layer elided). During the ramp (1 - eps_t / eps_max) times the warm-up
regularisers of the same bound pass is added, and every radius is at least `CLAMP`. Before the ramp the loss is
CE(f(x), y) plus the regularisers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, Interval, input_box, margin_bounds, propagate, smallest_margin
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Normalize
from training.compute.precision import PRECISIONS, lowered, relu_rule
from training.method import regularizers
from training.method.clean_pass import CleanPass, clean_pass
from training.method.schedules import kappa_at
from training.recipes.recipe import Recipe

CLAMP = 1e-6  # smallest radius of the bound pass while the regularisers are on


@dataclass
class Batch:
    """Everything an objective may use. Radii in pixel units of [0, 1].

    Under torchrun the tensors hold this rank's N samples; means over the batch are local (DDP averages gradients).
    """

    network: Network  # live parameters, BatchNorm unfolded
    images: Tensor  # [N, C, H, W]
    labels: Tensor  # [N]
    eps_t: float  # current radius of the schedule
    before_ramp: bool  # the first epochs: the natural loss and the regularisers
    ramping: bool  # up to the end of the ramp, first epochs included: the regularisers and the clamp are on
    scale: Tensor  # [N] what the radius search has learned of each sample (adaptive_radius.py), NaN where unknown
    recipe: Recipe
    noise: Callable[[], Tensor]  # uniform random numbers in [0, 1), shaped like `images`

    def clean_pass(self) -> CleanPass:
        """The train-mode forward pass of the step, in the recipe's precision."""
        return clean_pass(self.network, self.images, self._precision, self.recipe.compile)

    def folded(self, clean: CleanPass) -> Network:
        """The network of the bound pass: BatchNorm folded with the batch's statistics, in the recipe's precision."""
        network = self.network.fold_batchnorm(clean.statistics)
        return network if self._precision == torch.float32 else lowered(network, self._precision)

    @property
    def share(self) -> float:
        """eps_t / eps_max."""
        return self.eps_t / self.recipe.radius.eps_max_value

    @property
    def kappa(self) -> float:
        """The weight of the clean loss in this step."""
        return kappa_at(self.share, self.recipe.kappa_start, self.recipe.kappa)

    @property
    def relu(self) -> Callable[[Ball], Ball] | None:
        """The `relu` of `propagate` in this step."""
        lower = self._precision != torch.float32
        return relu_rule(self.recipe.compile) if lower or self.recipe.compile else None

    @property
    def _precision(self) -> torch.dtype:
        return PRECISIONS[self.recipe.precision]


@dataclass
class Loss:
    """The value to differentiate and what the log keeps of the step."""

    total: Tensor
    natural: Tensor  # CE(f, y), for the log
    robust: Tensor  # CE(z, y), for the log
    clean: CleanPass
    radius: Tensor  # [N] radius of each sample's bound pass (before the clamp)
    scale: Tensor | None = None  # [N] what the radius search has learned, for the next epoch; NaN: nothing new
    evaluations: int = 0  # IBP evaluations of the radius search, summed over samples


MarginBounds = Callable[[Network, Interval, Tensor, list[Ball]], Tensor]


def ibp_margins(
    network: Network,
    box: Interval,
    labels: Tensor,
    preactivations: list[Ball],
    relu: Callable[[Ball], Ball] | None = None,
) -> Tensor:
    """Lower bounds [N, K] of f_y - f_t by interval propagation; the boxes at ReLU inputs go to `preactivations`."""
    return margin_bounds(network.head, propagate(network, box, preactivations, relu=relu), labels)


def clean_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """f_y - max over t != y of f_t, [N]."""
    return smallest_margin(logits.gather(1, labels.unsqueeze(1)) - logits, labels)


def eps_box(batch: Batch, eps: Tensor) -> Interval:
    """B(x, eps) of each sample, [N] radii, with the clamp of the ramp."""
    return input_box(batch.images, eps.clamp(min=CLAMP) if batch.ramping else eps)


SampleLoss = Callable[[Tensor], Tensor]  # margin bounds [N, K] of the batch, 0 in the label's column -> losses [N]


def mixed_loss(
    batch: Batch,
    clean: CleanPass,
    network: Network,
    box: Interval,
    radius: Tensor,
    *,
    margins: MarginBounds | None = None,
    robust: SampleLoss | None = None,
    scale: Tensor | None = None,
    evaluations: int = 0,
    points: bool = False,
) -> Loss:
    """The loss of the module's docstring, with the margin bounds of `network` (folded, with gradient) over `box`.

    Args:
        margins: how the margins are bounded; `ibp_margins`.
        robust: the loss of the bounds, in place of CE(z, y).
        points: whether the box of a sample of radius 0 is the image itself. After the ramp such a sample needs no bound
            pass: its z is the clean logits less f_y, with the same loss and gradient.
    """
    margins = margins or functools.partial(ibp_margins, relu=batch.relu)
    losses = F.cross_entropy(clean.logits, batch.labels, reduction="none")
    natural = losses.mean()
    preactivations: list[Ball] = []
    if points and robust is None and not batch.ramping and radius.device.type == "cpu":
        boxes, rest = _split(radius > 0)
        labels = batch.labels[boxes]
        bounds = margins(network, Interval(box.lower[boxes], box.upper[boxes]), labels, preactivations)
        sums = F.cross_entropy(-bounds, labels, reduction="sum") + losses[rest].sum()
        certified = sums / len(radius)
    else:
        bounds = margins(network, box, batch.labels, preactivations)
        certified = (robust(bounds) if robust else F.cross_entropy(-bounds, batch.labels, reduction="none")).mean()
    kappa, share = batch.kappa, batch.share
    total = natural if batch.before_ramp else kappa * natural + (1 - kappa) * certified
    if batch.ramping:
        total = total + (1 - share) * warm_up_penalty(batch.recipe, network, box, preactivations)
    return Loss(total, natural.detach(), certified.detach(), clean, radius, scale, evaluations)


def _split(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(indices of the chosen, filled up to a multiple of 16, at least 16, with others; indices of the rest).

    A convolution is prepared anew for every batch size that it has not seen: few sizes are better.
    """
    order = torch.argsort(chosen.logical_not(), stable=True)
    size = max(16, -(-int(chosen.sum()) // 16) * 16)
    return order[:size], order[size:]


def warm_up_penalty(recipe: Recipe, network: Network, box: Interval, preactivations: list[Ball]) -> Tensor:
    """w_tight L_tight + w_relu L_relu of one bound pass."""
    settings = recipe.regularizers
    first = network.steps[0]
    normalized = Interval(first(box.lower), first(box.upper)) if isinstance(first, Normalize) else box
    penalty = box.lower.new_zeros(())
    if settings.tight:
        penalty = penalty + settings.tight * regularizers.tightness(
            normalized, preactivations, settings.tolerance, recipe.compile
        )
    if settings.relu:
        penalty = penalty + settings.relu * regularizers.relu_balance(
            preactivations, settings.tolerance, recipe.compile
        )
    return penalty
