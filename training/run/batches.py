"""Training data in memory as uint8, and the batch of every step: a function of (seed, epoch, position) alone.

No state of a random generator has to be saved: a resumed run, with whatever number of processes, draws the same global
batches and takes its rank's block of each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acert_zoo.data import datasets
from acert_zoo.errors import InvalidInputError
from training.compute import distributed
from training.recipes.recipe import Recipe
from training.run.augmentation import augment, draw


def generator(*seeds: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose stream depends on the numbers `seeds` alone."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class Batches:
    """The training split on `device`. `len(self)` is its number of images; a last incomplete batch is left out."""

    def __init__(self, recipe: Recipe, data_root: str | None, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        images, labels = datasets.load_split(recipe.dataset, "train", data_root)
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.steps_per_epoch = len(labels) // recipe.batch_size
        if not self.steps_per_epoch:
            raise InvalidInputError(
                f"batch_size is {recipe.batch_size}, but only {len(labels)} images remain beside the validation split"
            )
        if recipe.batch_size % distributed.world_size() or recipe.batch_size < 2 * distributed.world_size():
            raise InvalidInputError(
                f"batch_size {recipe.batch_size} cannot be shared out evenly among {distributed.world_size()} "
                "processes with at least two samples each"
            )
        self._epoch = -1

    def __len__(self) -> int:
        return len(self.labels)

    def _begin(self, epoch: int) -> None:
        """All random numbers of one epoch, drawn on the CPU and moved at once."""
        seed = self.recipe.seed
        n = self.steps_per_epoch * self.recipe.batch_size
        self._order = torch.randperm(len(self), generator=generator(seed, 2, epoch))[:n].to(self.device)
        self._draws = draw(n, self.recipe.augmentation, generator(seed, 3, epoch)).to(self.device)
        self._epoch = epoch

    def get(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(indices [N], pixels [N, C, H, W], labels [N]) of this rank's block of step `step`'s batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._begin(epoch)
        share = self.recipe.batch_size // distributed.world_size()
        start = position * self.recipe.batch_size + distributed.rank() * share
        block = slice(start, start + share)
        index = self._order[block]
        images = self.images[index]
        if self.recipe.augmentation.flip or self.recipe.augmentation.crop_padding:
            images = augment(images, self._draws.select(block))
        return index, datasets.to_pixels(images), self.labels[index]
