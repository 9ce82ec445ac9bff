"""The gradient of a step: the objective's loss and its backward pass in the recipe's precision, eagerly or replayed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from acert_zoo.errors import InvalidInputError
from training.compute import distributed
from training.compute.graphs import cuda_capture
from training.compute.precision import products
from training.method import regularizers
from training.method.loss import Batch, Loss
from training.method.objectives import find_objective
from training.recipes.recipe import Recipe
from training.run.optimization import weights_of

Step = Callable[[Batch], Loss]
Capture = Callable[[Callable[[], Loss]], tuple[Loss, Callable[[], None]]]  # as `cuda_capture`
EAGER_STEPS = 5  # of a phase before it is captured: libraries choose their kernels in the first ones


class StepLoss(nn.Module):
    """Batch -> Loss as a module, the form that DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.objective = find_objective(recipe.objective)

    def forward(self, batch: Batch) -> Loss:
        loss = self.objective(batch)
        if not isinstance(loss, Loss):
            raise InvalidInputError(f"objective {self.recipe.objective!r} gave {type(loss).__name__}; expected a Loss")
        if self.recipe.optimizer.l1:
            penalty = regularizers.l1(weights_of(self.model))
            loss = dataclasses.replace(loss, total=loss.total + self.recipe.optimizer.l1 * penalty)
        return loss


class Gradients:
    """Batch -> Loss, with the gradient of every parameter in its `grad`."""

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        self.step_loss = distributed.parallel(StepLoss(model, recipe))
        graphs = recipe.cuda_graph and device.type == "cuda" and distributed.world_size() == 1
        self.replayed = Replayed(self.eager, cuda_capture) if graphs else None

    def __call__(self, batch: Batch) -> Loss:
        return self.eager(batch) if self.replayed is None else self.replayed(batch)

    def eager(self, batch: Batch) -> Loss:
        self.model.zero_grad(set_to_none=True)
        with products(self.recipe.precision, self.device):
            loss: Loss = self.step_loss(batch)
            loss.total.backward()
        return loss


class Replayed:
    """A step's launches, recorded once in each phase whose numbers stand still and then replayed as one.

    A recording repeats the numbers of the host that it was made with: the radius of the schedule, kappa, the flags of
    a phase. So the steps before the ramp and those at full radius are replayed; in the ramp, where the radius changes
    with every step, and in the first steps of a phase `eager` runs.

    Args:
        eager: Batch -> Loss, leaving gradients; it draws no random numbers and makes the host wait for nothing.
        capture: `cuda_capture`, or a stand-in.

    The loss that is returned is overwritten by the next step.
    """

    def __init__(self, eager: Step, capture: Capture) -> None:
        self.eager, self.capture = eager, capture
        self._phase: tuple[object, ...] = ()
        self._steps = 0
        self._recorded: tuple[Batch, Loss, Callable[[], None]] | None = None

    def __call__(self, batch: Batch) -> Loss:
        phase = (batch.eps_t, batch.before_ramp, batch.ramping, batch.images.shape)
        if phase != self._phase:
            self._phase, self._steps, self._recorded = phase, 0, None
        self._steps += 1
        if self._steps <= EAGER_STEPS:
            return self.eager(batch)
        if self._recorded is None:
            fixed = dataclasses.replace(batch, **{name: getattr(batch, name).clone() for name in _INPUTS})
            loss, replay = self.capture(lambda: _values(self.eager(fixed)))
            self._recorded = fixed, loss, replay
        fixed, loss, replay = self._recorded
        for name in _INPUTS:
            getattr(fixed, name).copy_(getattr(batch, name))
        replay()
        return loss


_INPUTS = ("images", "labels", "scale")


def _values(loss: Loss) -> Loss:
    """The loss without the graph of its gradient, which a recording must not keep alive."""
    statistics = {i: (mean.detach(), var.detach()) for i, (mean, var) in loss.clean.statistics.items()}
    clean = dataclasses.replace(loss.clean, logits=loss.clean.logits.detach(), statistics=statistics)
    return dataclasses.replace(loss, total=loss.total.detach(), clean=clean)
