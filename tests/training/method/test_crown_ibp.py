"""CROWN-IBP's margin bounds: by hand, against sampled margins, and tighter than intervals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.bounds.ibp import input_box
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model
from training.method.crown_ibp import backward_margins
from training.method.loss import Batch, ibp_margins


def test_crown_ibp_by_hand() -> None:
    """f_0 = relu(x - 0.5), f_1 = 0, x in [0.4, 0.8]: u in [-0.1, 0.3], so h > -l and the lower line is u itself."""
    first, head = nn.Linear(1, 1).double(), nn.Linear(1, 2).double()
    with torch.no_grad():
        first.weight.fill_(1.0), first.bias.fill_(-0.5)
        head.weight.copy_(torch.tensor([[1.0], [0.0]])), head.bias.zero_()
    network = trace(nn.Sequential(nn.Flatten(), first, nn.ReLU(), head), (1, 1, 1)).detach()
    box = input_box(torch.full((2, 1, 1, 1), 0.6, dtype=torch.float64), 0.2)
    preactivations: list = []
    labels = torch.tensor([0, 1])
    ibp_margins(network, box, labels, preactivations)
    bounds = backward_margins(network, box, labels, preactivations)
    # label 0: f_0 - f_1 >= u >= -0.1; label 1: f_1 - f_0 >= -(3/4)(u + 0.1) >= -0.3
    assert bounds.tolist() == [[0.0, pytest.approx(-0.1)], [pytest.approx(-0.3), 0.0]]


def _sampled_margins(network: Network, batch: Batch, eps: float) -> Tensor:
    """The smallest margins [N, K] met at random points and corners of the boxes."""
    g = torch.Generator().manual_seed(0)
    box = input_box(batch.images, eps)
    worst = torch.full((len(batch.labels), network.num_classes), torch.inf, dtype=torch.float64)
    for k in range(200):
        u = torch.rand(batch.images.shape, generator=g, dtype=torch.float64)
        u = u.round() if k % 2 else u
        logits = network(box.lower + u * (box.upper - box.lower))
        worst = torch.minimum(worst, logits.gather(1, batch.labels.unsqueeze(1)) - logits)
    return worst


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.05, 0.3])
def test_crown_ibp_bounds_hold(eps: float) -> None:
    network = trace(tiny_model(2).eval()).fold_batchnorm().detach()
    batch = tiny_batch(network)
    box, preactivations = input_box(batch.images, eps), []
    interval = ibp_margins(network, box, batch.labels, preactivations)
    linear = backward_margins(network, box, batch.labels, preactivations)
    sampled = _sampled_margins(network, batch, eps)
    assert bool((linear <= sampled + 1e-9).all())
    if eps == 0:
        torch.testing.assert_close(linear, interval, rtol=1e-9, atol=1e-9)
    else:
        assert linear.mean() > interval.mean()  # what it is for


def test_crown_ibp_of_a_residual_network() -> None:
    torch.manual_seed(0)
    model = architectures.build(
        "resnet", input_shape=(2, 6, 6), num_classes=4, mean=(0.4, 0.5), std=(0.3, 0.2), stem=3, blocks=[[3, 1], [4, 2]]
    ).double()
    network = trace(model).detach()
    batch = tiny_batch(network)
    box, preactivations = input_box(batch.images, 0.02), []
    interval = ibp_margins(network, box, batch.labels, preactivations)
    linear = backward_margins(network, box, batch.labels, preactivations)
    assert bool((linear <= _sampled_margins(network, batch, 0.02) + 1e-9).all())
    assert linear.mean() > interval.mean()
