"""Expressive losses: by hand, their ends, their order, and as objectives of a step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.method import objectives
from training.method.adaptive_radius import AdaptiveRadius
from training.method.expressive import Combination, convex, exponential, multitask
from training.method.loss import Loss
from training.method.objectives import OBJECTIVES

LABEL = torch.tensor([0])
ADVERSARIAL, BOUNDS = torch.tensor([[0.0, -2.0]]), torch.tensor([[0.0, 3.0]])
LOSSES = math.log1p(math.exp(-2)), math.log1p(math.exp(3))  # of two classes: log(1 + e^z)


def test_by_hand() -> None:
    a, b = LOSSES
    assert convex(ADVERSARIAL, BOUNDS, LABEL, 0.25).item() == pytest.approx(math.log1p(math.exp(-0.75)))
    assert multitask(ADVERSARIAL, BOUNDS, LABEL, 0.25).item() == pytest.approx(0.75 * a + 0.25 * b)
    assert exponential(ADVERSARIAL, BOUNDS, LABEL, 0.25).item() == pytest.approx(a**0.75 * b**0.25)


@pytest.mark.parametrize("loss", [convex, multitask, exponential])
def test_from_the_adversarial_loss_to_the_bounds(loss: Combination) -> None:
    values = [loss(ADVERSARIAL, BOUNDS, LABEL, k / 8).item() for k in range(9)]
    assert (values[0], values[-1]) == pytest.approx(LOSSES)
    assert values == sorted(values)


def step(objective: str, **changes: Any) -> tuple[Loss, list[torch.Tensor]]:
    model = tiny_model()
    recipe = tiny_recipe(objective=objective, kappa=0.0, **changes)
    loss = OBJECTIVES[objective](tiny_batch(trace(model), recipe=recipe, eps_t=0.05))
    loss.total.backward()
    return loss, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("objective", ["cc-ibp", "mtl-ibp", "exp-ibp"])
def test_the_whole_share_is_ibp(objective: str) -> None:
    ibp, gradient = step("ibp")
    loss, same = step(objective, expressive={"share": 1.0})
    torch.testing.assert_close(loss.total, ibp.total, rtol=1e-9, atol=0)
    torch.testing.assert_close(same, gradient, rtol=1e-6, atol=1e-9)


def test_no_share_and_no_steps_is_the_loss_of_a_random_point() -> None:
    """The attack's start, uniform in the box: near the clean loss, and not it."""
    loss, _ = step("mtl-ibp", expressive={"share": 0.0, "steps": 0})
    assert loss.robust.item() == pytest.approx(loss.natural.item(), rel=0.2)
    assert loss.robust.item() != loss.natural.item()
    attacked, _ = step("mtl-ibp", expressive={"share": 0.0, "steps": 8})
    assert attacked.robust > loss.robust


def test_acert_mtl_bounds_and_attacks_each_sample_at_its_own_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    radius = torch.tensor([0.0, 0.01, 0.02, 0.0, 0.005, 0.02], dtype=torch.float64)
    fixed = AdaptiveRadius(radius, torch.full_like(radius, torch.nan), 3)
    monkeypatch.setattr(objectives, "adaptive_radius", lambda *a, **k: fixed)
    moved: list[torch.Tensor] = []
    plain = objectives.small_boxes.attack

    def watching(network: Any, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        point = plain(network, images, *rest)
        moved.append((point - images).abs().flatten(1).amax(1))
        return point

    monkeypatch.setattr(objectives.small_boxes, "attack", watching)
    loss, _ = step("acert-mtl", expressive={"attack": 2.0})
    assert torch.equal(loss.radius, radius)
    assert loss.evaluations == 3
    torch.testing.assert_close(moved[0], 2 * radius)
