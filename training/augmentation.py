"""Augmentation of a whole batch at once: random crop after edge padding, and horizontal flip."""

from __future__ import annotations

import torch
from torch import Tensor

from training.recipe import Augmentation


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Augmented uint8 images [N, H, W, C]; one gather, no loop over images."""
    if not settings.flip and not settings.crop_padding:
        return images
    n, height, width, _ = images.shape
    pad = settings.crop_padding
    rows = torch.arange(height).expand(n, -1)
    columns = torch.arange(width).expand(n, -1)
    if pad:
        shift = torch.randint(-pad, pad + 1, (2, n, 1), generator=generator)
        rows = (rows + shift[0]).clamp(0, height - 1)  # clamping the index is edge padding
        columns = (columns + shift[1]).clamp(0, width - 1)
    if settings.flip:
        flipped = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    batch = torch.arange(n).view(n, 1, 1)
    return images[batch, rows.unsqueeze(2), columns.unsqueeze(1)]
