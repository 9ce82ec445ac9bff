"""Networks as auto-LiRPA gets them: every kind of step, bounded as what it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.bounds.auto_lirpa import LirpaBounds
from acert_zoo.bounds.auto_lirpa_module import dense_kernel
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_crown import rigorous_check
from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import AvgPool, Conv, Flatten, Linear, ReLU
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE


def odd_network() -> Network:
    """What auto-LiRPA 0.3 bounds wrongly: groups, dilation, average pooling with padding and overlapping windows."""
    torch.manual_seed(0)
    kernel = torch.randn(4, 1, 3, 3)
    steps = (
        AvgPool(inputs=(0,), kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)),
        Conv(inputs=(1,), weight=kernel, bias=torch.rand(4), groups=2, dilation=(2, 1), padding=(1, 0)),
        ReLU(inputs=(2,)),
        AvgPool(inputs=(3,), kernel_size=(2, 2), stride=(2, 2)),
        Flatten(inputs=(4,)),
        Linear(inputs=(5,), weight=torch.randn(3, 36), bias=torch.zeros(3)),
    )
    return Network(steps)


def margins_of(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others


def test_grouped_dilated_and_averaging_layers_are_bounded_as_what_they_do():
    """No better than the worst corner, no worse than ours, and at a radius of nothing the margin itself."""
    network = odd_network()
    images = torch.rand(2, 2, 8, 8)
    labels = network(images).argmax(1)
    bounds = LirpaBounds(network, (2, 8, 8), torch.float64)
    corners = images + 0.05 * (2 * torch.rand(300, *images.shape) - 1).sign()
    worst = torch.stack([margins_of(network, c.clamp(0, 1), labels) for c in corners]).amin(0)
    for method in ("crown-ibp", "crown"):
        nothing = bounds.margins(images, labels, 1e-6, method).float()
        assert torch.allclose(nothing, margins_of(network, images, labels), atol=1e-3)
        theirs = bounds.margins(images, labels, 0.05, method)
        assert bool((theirs >= rigorous_check(network, method).margins(images, labels, 0.05) - 1e-6).all())
        assert bool((theirs <= worst).all())


def test_dense_kernels_are_the_same_convolution():
    conv = odd_network().steps[1]
    weight = dense_kernel(conv.weight, conv.groups, conv.dilation)
    assert weight.shape == (4, 2, 5, 3)
    x = torch.rand(2, 2, 8, 8)
    assert torch.allclose(nn.functional.conv2d(x, weight, conv.bias, padding=(1, 0)), conv(x), atol=1e-5)
    with pytest.raises(UnsupportedLayerError, match="5000 groups"):
        dense_kernel(torch.zeros(5000, 1, 1, 1), 5000)


class Everything(nn.Module):
    """A layer of each kind that a network can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(8, 4, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm(self.first(x)))
        b = torch.cat([a, a * 0.5 - 0.1], dim=1)
        c = torch.relu(self.second(b) + a)
        d = nn.functional.max_pool2d(nn.functional.avg_pool2d(c, 2), 2)
        return self.head(d.permute(0, 2, 3, 1).reshape(x.shape[0], -1))


def test_every_kind_of_step_has_a_layer_for_auto_lirpa():
    torch.manual_seed(0)
    network = trace(Everything().eval(), SHAPE).detach()
    images = torch.rand(2, *SHAPE)
    labels = network(images).argmax(1)
    bounds = LirpaBounds(network, SHAPE, torch.float64)
    assert torch.allclose(bounds.module(images.double()), network.to(torch.float64)(images.double()), atol=1e-9)
    ours = robust_margin(network.to(torch.float64), images.double(), labels, 0.01)
    assert bool((bounds.margins(images, labels, 0.01, "crown-ibp") >= ours - 1e-6).all())
