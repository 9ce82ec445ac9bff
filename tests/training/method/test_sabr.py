"""SABR: where its attack ends, and its loss with the whole box."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.method.objectives import OBJECTIVES
from training.method.sabr import attack


def test_the_attack_of_sabr_stays_in_its_ball_and_climbs() -> None:
    network = trace(tiny_model().eval()).fold_batchnorm().detach()
    batch = tiny_batch(network)
    labels = network(batch.images).argmax(1)
    point = attack(network, batch.images, labels, 0.05, batch.noise(), 8, 0.5)
    assert bool(((point - batch.images).abs() <= 0.05 + 1e-12).all())
    assert bool(((point >= 0) & (point <= 1)).all())
    start = attack(network, batch.images, labels, 0.05, batch.noise(), 0, 0.5)
    loss = nn.functional.cross_entropy
    assert loss(network(point), labels) > loss(network(start), labels)
    assert torch.equal(attack(network, batch.images, labels, 0.0, batch.noise(), 8, 0.5), batch.images)


def test_sabr_with_the_whole_box_is_ibp() -> None:
    whole, ibp = (
        OBJECTIVES[name](tiny_batch(recipe=tiny_recipe(kappa=0.25, sabr={"share": 1.0}))) for name in ("sabr", "ibp")
    )
    assert whole.total.item() == pytest.approx(ibp.total.item(), rel=1e-12)
