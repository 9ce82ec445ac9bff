"""A small network and a batch for the tests of auto-LiRPA's bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo import architectures
from acert_zoo.network import Network, trace

SHAPE = (3, 8, 8)


def lirpa_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = architectures.build(
            "cnn", input_shape=SHAPE, num_classes=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
            convs=[(4, 2), (6, 1)], hidden=8,
        )  # fmt: skip
    return trace(model.eval()).detach()


def lirpa_batch(network: Network) -> tuple[Tensor, Tensor]:
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    return images, network(images).argmax(1)
