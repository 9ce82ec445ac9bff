"""A small model, images, and a certificate file about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from acert_zoo import certify
from acert_zoo.zoo.model import AcertModel
from tests.support.models import small_model


@pytest.fixture(scope="module")
def model() -> AcertModel:
    return small_model(1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def labels(model: AcertModel, images: Tensor) -> Tensor:
    """The model's answers, but for image 3, which it gets wrong."""
    labels = model(images).argmax(1)
    labels[3] = (labels[3] + 1) % 4
    return labels


@pytest.fixture
def file(model: AcertModel, images: Tensor, tmp_path: Path) -> Path:
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    path = tmp_path / "c.jsonl"
    certify(model, images, labels).save(path)
    return path
