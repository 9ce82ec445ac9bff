"""The digest by which certificates name a network."""

from __future__ import annotations

import torch

from acert_zoo.network.digest import network_sha256
from acert_zoo.network.tracing import trace
from tests.support.models import small_model


def test_network_digest_sees_every_weight() -> None:
    digests = set()
    for seed in range(3):
        model = small_model(seed)
        digests.add(network_sha256(trace(model)))
        with torch.no_grad():
            model.classifier.layers[-1].bias[0] += 1e-3
        digests.add(network_sha256(trace(model)))
    assert len(digests) == 6
    assert network_sha256(trace(small_model(1))) in digests
