"""IBP initialisation: normal, mean 0, standard deviation sqrt(2 pi) / fan_in; last layer, biases and BN as torch's."""

from __future__ import annotations

import math

import torch
from torch import nn

from training.method.initialization import ibp_initialization


def test_standard_deviations_and_what_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=4), nn.Flatten(),
        nn.Linear(640, 200), nn.ReLU(), nn.Linear(200, 10),
    )  # fmt: skip
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ibp_initialization(model, torch.Generator().manual_seed(1))
    fan_in = {"0": 8 * 9, "3": 64 // 4 * 9, "5": 640}
    for name, n in fan_in.items():
        weight = model.state_dict()[f"{name}.weight"]
        expected = math.sqrt(2 * math.pi) / n
        assert abs(weight.std().item() / expected - 1) < 5 / math.sqrt(2 * weight.numel())
        assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())
        # a normal distribution has 68.27 % within one standard deviation, a uniform one 57.7 %
        assert abs((weight.abs() < expected).double().mean().item() - 0.6827) < 2.5 / math.sqrt(weight.numel())
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"{name}.weight" for name in fan_in}
