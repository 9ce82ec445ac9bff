"""Schedules of the radius (Shi et al. 2021, arXiv 2103.17268) and of the learning rate, as functions of the step."""

from __future__ import annotations

import torch

from training.recipes.recipe import Optimizer


def ramp(s: float) -> float:
    """eps_t / eps_max at ramp position s: (256/13) s^4 below 1/4, then (16 s - 3)/13, 1 from s = 1 on; 0 for s <= 0.

    The two pieces and their slopes meet at s = 1/4, where both give 1/13.
    """
    if s <= 0.0:
        return 0.0
    if s < 0.25:
        return 256.0 / 13.0 * s**4
    return min((16.0 * s - 3.0) / 13.0, 1.0)


def radius_fraction(step: int, steps_per_epoch: int, first_epochs: float, ramp_epochs: float) -> float:
    """eps_t / eps_max at optimiser step `step` (from 0): 0 in the first epochs, then the ramp."""
    first = round(first_epochs * steps_per_epoch)
    if step < first:
        return 0.0
    length = ramp_epochs * steps_per_epoch
    return 1.0 if length <= 0 else ramp((step - first) / length)


def kappa_at(share: float, start: float, end: float) -> float:
    """The weight of the clean loss at eps_t = share * eps_max: linear from `start` to `end`; `end` where start < 0."""
    return end if start < 0 else start + (end - start) * share


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, settings: Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The per-step schedule that `settings.schedule` names, for any number of steps from 1 on."""
    three_phase = settings.schedule == "onecycle"
    # torch divides by the length of the warm-up less one step: a warm-up of exactly one step gets a hair more.
    warmup = settings.warmup * (1 + 1e-9) if settings.warmup * total_steps == 1 else settings.warmup
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings.lr,
        total_steps=total_steps,
        pct_start=warmup,
        anneal_strategy="linear",
        div_factor=25,
        final_div_factor=100,
        three_phase=three_phase,
        cycle_momentum=settings.name != "muon",  # which is tuned with a constant one
    )
