"""Small networks whose answers depend on their images, for attacks and cascades to work on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.models import small_model


def random_images(n: int, seed: int = 0) -> Tensor:
    """float32 [n, 3, 8, 8] uniform in [0, 1]."""
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def lively_model(seed: int = 0) -> nn.Module:
    """`small_model` with its logits centred over random images: every class is answered, radii are small."""
    model = small_model(seed)
    with torch.no_grad():
        head = model.classifier.layers[-1]
        head.bias -= model(random_images(256, 99)).mean(0)
    return model
