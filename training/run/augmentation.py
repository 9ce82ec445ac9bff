"""Augmentation of a whole batch at once: random crop after edge padding, and horizontal flip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.recipes.recipe import Augmentation


class Draws(NamedTuple):
    """Random numbers for N images: `shift` int64 [2, N] (rows, columns) in [-padding, padding], `flip` bool [N]."""

    shift: Tensor
    flip: Tensor

    def select(self, index: slice) -> Draws:
        return Draws(self.shift[:, index], self.flip[index])

    def to(self, device: torch.device) -> Draws:
        return Draws(self.shift.to(device), self.flip.to(device))


def draw(n: int, settings: Augmentation, generator: torch.Generator) -> Draws:
    """The random numbers that augment n images."""
    pad = settings.crop_padding
    shift = torch.randint(-pad, pad + 1, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < (0.5 if settings.flip else 0.0)
    return Draws(shift, flip)


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Augmented images [N, H, W, C] (uint8): one gather, no loop over images.

    The crop of an edge-padded image is the image itself read at clamped coordinates.
    """
    n, height, width, _ = images.shape
    device = images.device
    rows = (torch.arange(height, device=device) + draws.shift[0].unsqueeze(1)).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + draws.shift[1].unsqueeze(1)).clamp(0, width - 1)
    columns = torch.where(draws.flip.unsqueeze(1), columns.flip(1), columns)
    batch = torch.arange(n, device=device).view(n, 1, 1)
    return images[batch, rows.unsqueeze(2), columns.unsqueeze(1)]
