"""Validation: against a count image by image."""

from __future__ import annotations

import pytest
import torch

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.data.datasets import to_pixels
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_recipe, write_dataset
from training.run.loop import Trainer
from training.run.validation import Validation


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


@pytest.mark.slow
def test_validation_against_a_count_image_by_image(root: str) -> None:
    recipe = tiny_recipe(validation_images=37)
    trainer = Trainer(recipe, root)
    for _ in range(6):
        trainer.train_step()
    validation = Validation(recipe, root, torch.device("cpu"))
    measured = validation.measure(trainer.model)
    network = trace(trainer.model).fold_batchnorm().detach()
    images, labels = to_pixels(validation.images), validation.labels
    assert len(labels) == 37
    assert measured["accuracy"] == pytest.approx(100 * (network(images).argmax(1) == labels).float().mean().item())
    with torch.no_grad():
        for eps in ("0.1", "0.3", "0.4"):
            proved = (robust_margin(network, images, labels, float(eps)) > 0).float().mean().item()
            assert measured[f"certified_{eps}"] == pytest.approx(100 * proved)
        fine = torch.linspace(0, 0.1, 2001)
        curve = torch.stack([(robust_margin(network, images, labels, e.item()) > 0).float().mean() for e in fine])
    assert measured["acr_percent"] == pytest.approx(100 * torch.trapezoid(curve, fine / 0.1).item(), abs=1.0)
    assert measured["acr"] == pytest.approx(measured["acr_percent"] / 100 * 0.1)
