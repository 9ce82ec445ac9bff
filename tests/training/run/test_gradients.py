"""Replayed steps are the eager ones, and only phases whose numbers stand still are replayed.

A stand-in records on the CPU: its replay runs the function again and writes where the recording wrote, as a graph does.

Also tested here: training/compute/graphs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError
from tests.support.training import tiny_recipe, write_dataset
from training.method.loss import Loss
from training.run import gradients
from training.run.gradients import EAGER_STEPS, Replayed
from training.run.loop import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


class Recorder:
    """Counts recordings and replays."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.recorded, self.replayed = model, 0, 0

    def __call__(self, run: Callable[[], Loss]) -> tuple[Loss, Callable[[], None]]:
        self.recorded += 1
        found = run()
        places = [p.grad for p in self.model.parameters()]

        def replay() -> None:
            self.replayed += 1
            again = run()
            for place, p in zip(places, self.model.parameters(), strict=True):
                if place is not None:
                    p.grad = place.copy_(p.grad)
            for place, value in zip(tensors(found), tensors(again), strict=True):
                place.copy_(value)

        return found, replay


def tensors(loss: Loss) -> list[Tensor]:
    statistics = [t for pair in loss.clean.statistics.values() for t in pair]
    found = (loss.total, loss.natural, loss.robust, loss.radius, loss.scale, loss.clean.logits, *statistics)
    return [t for t in found if t is not None]


def trained(root: str, recorder: Callable[[nn.Module], Any] | None, objective: str) -> Trainer:
    """Epochs of the natural loss, of the ramp and of the full radius."""
    recipe = tiny_recipe(epochs=4, objective=objective, radius={"first_epochs": 1, "ramp_epochs": 1}, batch_size=8)
    trainer = Trainer(recipe, root, "cpu")
    if recorder is not None:
        trainer.gradients.replayed = Replayed(trainer.gradients.eager, recorder(trainer.model))
    for _ in range(trainer.total_steps):
        trainer.train_step()
    return trainer


@pytest.mark.parametrize("objective", ["acert", "ibp"])
def test_a_run_of_replayed_steps_ends_with_the_weights_of_an_eager_one(root: str, objective: str) -> None:
    recorders: list[Recorder] = []

    def recorder(model: nn.Module) -> Recorder:
        recorders.append(Recorder(model))
        return recorders[0]

    eager, replayed = trained(root, None, objective), trained(root, recorder, objective)
    for name, weights in eager.model.state_dict().items():
        assert torch.equal(weights, replayed.model.state_dict()[name]), name
    assert torch.equal(eager.scales.nan_to_num(), replayed.scales.nan_to_num())
    once, again = eager.metrics(), replayed.metrics()
    # A number of the host: constant on a GPU, but here samples leave the batch of a search.
    assert once.pop("evaluations") != again.pop("evaluations") or objective == "ibp"
    assert once == again
    steps = eager.steps_per_epoch
    assert steps > EAGER_STEPS
    assert recorders[0].recorded == 2  # before the ramp, at full radius
    assert recorders[0].replayed == pytest.approx(3 * steps - 2 * EAGER_STEPS, abs=1)


def test_products_of_a_step_are_the_recipes_and_a_cpu_records_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    inner = gradients.products

    def products(precision: str, device: torch.device) -> Any:
        asked.append(precision)
        return inner(precision, device)

    monkeypatch.setattr(gradients, "products", products)
    trainer = Trainer(tiny_recipe(precision="tf32", cuda_graph=True), root, "cpu")
    trainer.train_step()
    assert asked == ["tf32"]
    assert trainer.gradients.replayed is None


def test_objectives_that_draw_random_numbers_cannot_be_replayed() -> None:
    with pytest.raises(InvalidInputError, match=r"'cuda_graph' is for .*acert, ibp.*, not for 'sabr'"):
        tiny_recipe(objective="sabr", cuda_graph=True)
