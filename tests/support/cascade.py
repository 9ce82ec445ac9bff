"""One-pixel members whose radii are known, for the tests of cascades."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acert_zoo import Cascade, certify


def threshold(value: float) -> nn.Sequential:
    """Answers 1 where the only pixel exceeds `value`: radius |x - value|, exactly what IBP proves."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    model.input_shape, model.num_classes = (1, 1, 1), 2
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[1].bias.copy_(torch.tensor([0.0, -value]))
    return model


def pixel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def certified(cascade: Cascade, images: Tensor) -> tuple[list[int], list[int], list[float]]:
    result = certify(cascade, images)
    return result.prediction.tolist(), result.route, result.radius.tolist()
