"""Batches as a function of seed and step; the split without the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acert_zoo.data import datasets
from acert_zoo.data.datasets import to_pixels
from acert_zoo.errors import DatasetNotFoundError, InvalidInputError
from tests.support.training import tiny_recipe, write_dataset
from training.run.batches import Batches


def test_pixels_are_those_of_certification() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_pixels(torch.from_numpy(images)), datasets.to_pixels(images))


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    root = str(write_dataset(tmp_path, 90))
    recipe = tiny_recipe()
    batches = Batches(recipe, root, torch.device("cpu"))
    assert (len(batches), batches.steps_per_epoch) == (90, 2)
    first = [batches.get(step) for step in range(6)]
    again = Batches(recipe, root, torch.device("cpu"))
    for step in (5, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(again.get(step), first[step], strict=True))
    for epoch in range(3):  # every sample at most once an epoch, in another order each time
        index = torch.cat([first[2 * epoch][0], first[2 * epoch + 1][0]])
        assert len(index.unique()) == 80
    assert not torch.equal(first[0][0], first[2][0])
    other = Batches(tiny_recipe(seed=1), root, torch.device("cpu"))
    assert not torch.equal(other.get(0)[0], first[0][0])
    for index, _, labels in first:
        assert torch.equal(labels, batches.labels[index])


def test_training_and_validation_images_are_the_documented_split(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, 30)
    images = np.load(root / "mnist" / "train_images.npy")
    held_out = np.random.default_rng(0).permutation(len(images))[-5000:]
    mine = Batches(tiny_recipe(batch_size=10), str(root), torch.device("cpu")).images.numpy()
    np.testing.assert_array_equal(mine, np.delete(images, held_out, axis=0))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(write_dataset(tmp_path, 30))
    with pytest.raises(InvalidInputError, match="only 30 images"):
        Batches(tiny_recipe(batch_size=40), root, torch.device("cpu"))
    monkeypatch.delenv("ACERT_ZOO_DATA", raising=False)
    with pytest.raises(DatasetNotFoundError, match="cifar10"):
        Batches(tiny_recipe(dataset="cifar10"), root, torch.device("cpu"))
