"""One-pixel members whose radii are known, for the tests of cascades."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acert_zoo import Cascade, certify


class Threshold(nn.Sequential):
    """Answers 1 where the only pixel exceeds `threshold`: radius |x - threshold|, exactly what IBP proves."""

    input_shape, num_classes = (1, 1, 1), 2

    def __init__(self, threshold: float) -> None:
        super().__init__(nn.Flatten(), nn.Linear(1, 2))
        with torch.no_grad():
            self[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
            self[1].bias.copy_(torch.tensor([0.0, -threshold]))


def pixel(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def certified(cascade: Cascade, images: Tensor) -> tuple[list[int], list[int], list[float]]:
    result = certify(cascade, images)
    return result.prediction.tolist(), result.route, result.radius.tolist()
