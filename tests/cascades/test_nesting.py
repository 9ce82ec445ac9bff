"""The property on which gates rest: if B(x', e') lies in B(x, e), then P_5 at (x, e) implies P_1 at (x', e'), and P_25,
with or without the float32 terms, implies P_5; in any order of summation. At equal constants it is false."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.attacks.exact_box import distance
from acert_zoo.bounds.real_sound import RealSound
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace

SHAPE = (3, 6, 6)
STATISTICS = {"input_shape": SHAPE, "num_classes": 3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
PAIRS = 2400  # for each of the networks and pairs of constants below: more than 10,000 in all


def network(kind: str, scale: float) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        if kind == "resnet":
            model: nn.Module = architectures.build("resnet", **STATISTICS, stem=4, blocks=[[6, 2], [6, 1]])
        else:
            model = architectures.build("cnn", **STATISTICS, convs=[[4, 1], [6, 2]], hidden=12)
        with torch.no_grad():
            for parameter in model.parameters():  # biases as large as the products, so that sums cancel
                parameter.mul_(scale)
    return trace(model).detach()


def nested_boxes(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, e, x', e') with |x' - x| + e' <= e exactly; x' a few floats or a good part of e away from x."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *SHAPE, generator=generator)
    e = 10 ** (-6 * torch.rand(n, generator=generator, dtype=torch.float64) - 0.5)
    share = torch.tensor([0.0, 1e-7, 1e-3, 0.5])[torch.randint(4, (n,), generator=generator)]
    signs = torch.where(torch.rand(x.shape, generator=generator) < 0.5, -1.0, 1.0)
    inner = (x + signs * (share * e).view(-1, 1, 1, 1).float()).clamp(0, 1)
    inner = torch.where((distance(inner, x) <= e).view(-1, 1, 1, 1), inner, x)
    below = torch.full_like(e, -1.0)
    left = torch.nextafter(e - distance(inner, x), below)
    left = torch.where(distance(inner, x) == 0, e, left)  # the same box: where equal constants fail most
    return x, e, inner, left.clamp(min=0.0)


def violations(outer: RigorousNetwork, inner: RigorousNetwork, seed: int, n: int = PAIRS) -> int:
    """How many nested pairs have the larger lower bound on the larger box."""
    x, e, x_inner, e_inner = nested_boxes(n, seed)
    labels = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    wide = torch.cat([outer.margins(*part) for part in zip(x.split(97), labels.split(97), e.split(97), strict=True)])
    narrow = inner.margins(x_inner, labels, e_inner)
    return int((wide > narrow).sum())


def permuted(source: Network, seed: int) -> Network:
    """The same function, its hidden units before the head in another order: other sums, other roundings."""
    generator = torch.Generator().manual_seed(seed)
    *front, hidden, relu, head = source.steps
    order = torch.randperm(hidden.weight.shape[0], generator=generator)
    return Network(
        (
            *front,
            dataclasses.replace(hidden, weight=hidden.weight[order], bias=hidden.bias[order]),
            relu,
            dataclasses.replace(head, weight=head.weight[:, order]),
        )
    )


@pytest.mark.parametrize(("kind", "scale"), [("cnn", 1.0), ("cnn", 3.0), ("resnet", 1.0)])
def test_nested_boxes_keep_the_order_of_nested_constants(kind, scale):
    source = network(kind, scale)
    p1, p5, p25 = (RigorousNetwork(source, constant=c) for c in (1.0, 5.0, 25.0))
    assert violations(p5, p1, 1) == 0
    assert violations(p25, p5, 2) == 0


def test_nesting_holds_for_the_check_with_the_float32_terms():
    source = network("cnn", 1.0)
    deployed = RigorousNetwork(source, "float32-deployed", constant=25.0)
    assert violations(deployed, RigorousNetwork(source, constant=5.0), 3) == 0


def test_nesting_holds_between_orders_of_summation():
    source = network("cnn", 1.0)
    p5 = RigorousNetwork(source, constant=5.0)
    for seed in range(4):
        assert violations(p5, RigorousNetwork(permuted(source, seed)), 10 + seed, 600) == 0


def test_nesting_holds_between_batches_and_single_images():
    """Layers of 32 channels are evaluated in another way where several images come together
    (`nonnegative_boxes.py`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = architectures.build("cnn", **STATISTICS, convs=[[32, 1], [8, 2]], hidden=12)
    p1, p5 = (RigorousNetwork(trace(model).detach(), constant=c) for c in (1.0, 5.0))
    assert RealSound().prepare(p1.network.steps[3]).nonnegative is not None
    x, e, x_inner, e_inner = nested_boxes(40, 5)
    labels = torch.zeros(40, dtype=torch.int64)

    def singly(network: RigorousNetwork, *batch: Tensor) -> Tensor:
        return torch.cat([network.margins(*image) for image in zip(*(t.split(1) for t in batch), strict=True)])

    assert bool((p5.margins(x, labels, e) <= singly(p1, x_inner, labels, e_inner)).all())
    assert bool((singly(p5, x, labels, e) <= p1.margins(x_inner, labels, e_inner)).all())


def test_equal_constants_are_not_nested():
    source = network("cnn", 1.0)
    p1 = RigorousNetwork(source)
    assert violations(p1, RigorousNetwork(permuted(source, 0)), 4) > 0
