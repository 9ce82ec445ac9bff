"""eps* against bisection, its three special cases, and what its cheap search may err."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_model
from training.method.adaptive_radius import adaptive_radius


def _linear() -> Network:
    """f_0 - f_1 = 2 x_0 - x_1 - 0.2 on two pixels: R(x, eps) = 2 x_0 - x_1 - 0.2 - 3 eps away from 0 and 1."""
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.2]))
    return trace(nn.Sequential(nn.Flatten(), layer), (1, 1, 2)).detach()


def _images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(-1, 1, 1, 2)


def test_by_hand() -> None:
    images, labels = _images([0.5, 0.5], [0.5, 0.65], [0.4, 0.7]), torch.zeros(3, dtype=torch.int64)
    margin = robust_margin(_linear(), images, labels, 0.0)
    assert margin.tolist() == pytest.approx([0.3, 0.15, -0.1])
    result = adaptive_radius(_linear(), images, labels, margin, 0.08, evaluations=8, tolerance=0)
    # roots 0.1 (beyond eps_t) and 0.05; misclassified
    assert result.radius.tolist() == pytest.approx([0.08, 0.05, 0.0])
    assert result.radius[0].item() == 0.08  # eps_t itself, bit for bit
    assert result.radius[2].item() == 0.0


def test_costs() -> None:
    images, labels = _images([0.5, 0.5], [0.4, 0.7]), torch.zeros(2, dtype=torch.int64)
    margin = robust_margin(_linear(), images, labels, 0.0)
    first = adaptive_radius(_linear(), images, labels, margin, 0.08, evaluations=8, tolerance=0.01)
    assert first.evaluations == 1  # the robust one at eps_t; the misclassified one costs nothing
    assert adaptive_radius(_linear(), images[1:], labels[1:], margin[1:], 0.08).evaluations == 0
    nothing = adaptive_radius(_linear(), images, labels, margin, 0.0)
    assert (nothing.radius.tolist(), nothing.evaluations) == ([0.0, 0.0], 0)


def test_the_remembered_scale_starts_near_the_root() -> None:
    images, labels = _images([0.5, 0.65]), torch.zeros(1, dtype=torch.int64)
    margin = robust_margin(_linear(), images, labels, 0.0)
    exact = adaptive_radius(_linear(), images, labels, margin, 0.3, evaluations=30, tolerance=0)
    again = adaptive_radius(_linear(), images, labels, margin, 0.3, exact.scale, evaluations=8, tolerance=1e-3)
    assert again.evaluations == 1
    assert again.radius.item() == pytest.approx(0.05, rel=1e-3)
    assert exact.scale.isnan().sum() == 0


def _bisection(network: Network, images: Tensor, labels: Tensor, margin: Tensor, eps_t: float) -> Tensor:
    low, high = torch.zeros_like(margin), torch.full_like(margin, eps_t)
    for _ in range(60):
        middle = (low + high) / 2
        passed = robust_margin(network, images, labels, middle) >= 0
        low, high = torch.where(passed, middle, low), torch.where(passed, high, middle)
    return torch.where(margin < 0, torch.zeros_like(low), high)


@settings(max_examples=12)
@example(14784, 0.25)  # a margin with a kink beside the root
@example(352, 0.1)  # a drop that grows slower than its power law allows at first
@given(st.integers(0, 10**6), st.floats(1e-4, 0.3))
def test_against_bisection(seed: int, eps_t: float) -> None:
    model = tiny_model(seed % 20).eval()
    network = trace(model).fold_batchnorm().detach()
    images = torch.rand(16, 2, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = network(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    margin = robust_margin(network, images, labels, 0.0)
    expected = _bisection(network, images, labels, margin, eps_t)
    precise = adaptive_radius(network, images, labels, margin, eps_t, evaluations=40, tolerance=0)
    torch.testing.assert_close(precise.radius, expected, rtol=1e-9, atol=1e-12)
    close = adaptive_radius(network, images, labels, margin, eps_t, evaluations=40, tolerance=1e-6)
    torch.testing.assert_close(close.radius, expected, rtol=3e-6, atol=1e-12)
    cheap = adaptive_radius(network, images, labels, margin, eps_t, precise.scale, evaluations=2)
    assert bool(((cheap.radius >= 0) & (cheap.radius <= eps_t)).all())
    torch.testing.assert_close(cheap.radius, expected, rtol=0.02, atol=1e-9)
    assert cheap.evaluations <= 2 * int((margin >= 0).sum())


def test_without_compaction_the_same_radii() -> None:
    network = trace(tiny_model().eval()).fold_batchnorm().detach()
    images = torch.rand(12, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = network(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    margin = robust_margin(network, images, labels, 0.0)
    a, b = (adaptive_radius(network, images, labels, margin, 0.1, evaluations=3, compact=c) for c in (True, False))
    torch.testing.assert_close(a.radius, b.radius, rtol=1e-10, atol=0)
    torch.testing.assert_close(a.scale, b.scale, rtol=1e-10, atol=0, equal_nan=True)


def test_a_bound_that_is_not_a_number_shows() -> None:
    network = _linear()
    images, labels = _images([0.5, 0.5]), torch.zeros(1, dtype=torch.int64)
    broken = network.map_tensors(lambda t: t * torch.nan)
    assert adaptive_radius(broken, images, labels, torch.ones(1, dtype=torch.float64), 0.1).radius.isnan().all()
