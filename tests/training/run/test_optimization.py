"""The average of weights that a step keeps, by hand."""

from __future__ import annotations

import pytest
import torch

from tests.support.training import tiny_recipe, write_dataset
from training.run.loop import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


def test_the_average_of_weights_by_hand(root: str) -> None:
    recipe = tiny_recipe(optimizer={"ema": 0.3})
    trainer = Trainer(recipe, root)
    average = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    for t in (1, 2, 3):
        trainer.train_step()
        d = min(0.3, (1 + t) / (10 + t))
        for key, value in trainer.model.state_dict().items():
            average[key] = d * average[key] + (1 - d) * value if value.is_floating_point() else value.clone()
    assert trainer.average is not None
    for key, value in trainer.average.model.state_dict().items():
        torch.testing.assert_close(value, average[key], rtol=1e-5, atol=1e-7)
    assert trainer.final_model is trainer.average.model
