"""A small network and a batch for the tests of auto-LiRPA's bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE, small_model


@pytest.fixture(scope="module")
def network() -> Network:
    return trace(small_model(2).classifier).detach()


@pytest.fixture(scope="module")
def batch(network: Network) -> tuple[Tensor, Tensor]:
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    return images, network(images).argmax(1)
