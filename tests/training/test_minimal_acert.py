"""The one-file version: short, with the package's bounds, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acert_zoo.bounds import ibp
from acert_zoo.network.tracing import trace
from training import minimal_acert as minimal


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_at_most_150_lines() -> None:
    assert len(Path(minimal.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_the_bounds_are_the_packages(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = minimal.build_network()
    labels, eps = torch.arange(40) % 10, torch.linspace(0, 0.3, 40)
    mine = minimal.smallest(minimal.margin_bounds(network, images, labels, eps), labels)
    theirs = ibp.robust_margin(trace(network, (1, 28, 28)).detach(), images, labels, eps)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_radius_is_certified_and_nearly_the_largest(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = minimal.build_network()
    with torch.no_grad():
        labels = network(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10  # a wrong answer
    radius = minimal.certified_radius(network, images, labels, 0.1, halvings=8)
    assert radius[0] == 0
    inside = (radius > 0) & (radius < 0.1)
    assert inside.any()
    for shift, sign in ((0.0, 1), (0.1 / 2**8, -1)):
        margin = minimal.smallest(minimal.margin_bounds(network, images, labels, radius + shift), labels)
        assert (sign * margin[inside] >= -1e-5).all()


@pytest.mark.slow
def test_it_learns_two_kinds_of_images() -> None:
    """Bright above or bright below: all are told apart, and most proved at a radius of 0.1."""
    torch.manual_seed(0)
    labels = torch.arange(640) % 2
    images = 0.1 * torch.rand(640, 1, 28, 28)
    images[labels == 1, :, :14] += 0.9
    images[labels == 0, :, 14:] += 0.9
    network = minimal.build_network()
    minimal.train(network, images, labels, eps=0.1, kappa=0.25, epochs=12)
    result = minimal.evaluate(network, images[:500], labels[:500], 0.1)
    assert result["accuracy"] == 100
    assert result["certified"] > 90
    assert result["acr"] > 0.09
