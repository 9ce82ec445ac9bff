"""Augmentation: by hand, and against a loop over images."""

from __future__ import annotations

import numpy as np
import torch

from training.recipes.recipe import Augmentation
from training.run.augmentation import Draws, augment, draw
from training.run.batches import generator


def test_augmentation_by_hand() -> None:
    image = torch.arange(6, dtype=torch.uint8).view(1, 2, 3, 1)  # 0 1 2 / 3 4 5
    shifted = augment(image, Draws(torch.tensor([[1], [-1]]), torch.tensor([False])))
    assert shifted[0, :, :, 0].tolist() == [[3, 3, 4], [3, 3, 4]]  # one row down, one column left, edges repeated
    flipped = augment(image, Draws(torch.tensor([[0], [0]]), torch.tensor([True])))
    assert flipped[0, :, :, 0].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_augmentation_is_a_crop_of_the_padded_image_then_a_flip() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 7, 9, 3), dtype=np.uint8)
    draws = draw(50, Augmentation(flip=True, crop_padding=3), generator(1))
    result = augment(torch.from_numpy(images), draws).numpy()
    for n in range(50):
        top, left = (3 + int(v) for v in draws.shift[:, n])
        expected = np.pad(images[n], ((3, 3), (3, 3), (0, 0)), mode="edge")[top : top + 7, left : left + 9]
        np.testing.assert_array_equal(result[n], expected[:, ::-1] if draws.flip[n] else expected)
    assert draws.flip.any()
    assert not draws.flip.all()
    assert set(draws.shift.flatten().tolist()) == set(range(-3, 4))
    assert not draw(50, Augmentation(crop_padding=1), generator(1)).flip.any()
