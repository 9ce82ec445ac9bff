"""Cascades as classifiers: who answers, gates, gradients, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from acert_zoo import Cascade, certify
from acert_zoo.errors import (
    InvalidInputError,
    UnsoundSettingError,
    UnsupportedLayerError,
)
from tests.support.attack import lively_model, random_images
from tests.support.cascade import pixel, threshold


def test_logits_and_route_are_those_of_the_member_that_answers_and_only_it_runs(monkeypatch):
    members = [lively_model(0), lively_model(1), lively_model(2)]
    images = random_images(40)
    radii = [certify(m, images).radius for m in members]
    gates = [float(r.median()) for r in radii[:2]]
    cascade = Cascade(members, gates).eval()
    seen: list[int] = []
    read = [
        cascade._gate(k) for k in range(2)
    ]  # before the hooks, whose list makes of each member one that keeps state
    monkeypatch.setattr(cascade, "_gate", read.__getitem__)
    for member in members:
        member.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    route = cascade.route(images)
    assert seen[:3] == [40, int((route > 0).sum()), int((route == 2).sum())]
    expected = torch.where(radii[0] > gates[0], 0, torch.where(radii[1] > gates[1], 1, 2))
    clear = ((radii[0] - gates[0]).abs() > 1e-6) & ((radii[1] - gates[1]).abs() > 1e-6)
    assert torch.equal(route[clear], expected[clear])
    logits = cascade(images)
    for k, member in enumerate(members):
        assert torch.allclose(logits[route == k], member(images)[route == k], atol=1e-6)
    assert set(route.tolist()) == {0, 1, 2}


def test_changed_weights_change_the_gate():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    image = pixel(0.9)
    assert cascade.route(image).tolist() == [0]
    with torch.no_grad():
        cascade.members[0][1].bias[1] = -0.875
    assert cascade.route(image).tolist() == [1]


def test_pixels_outside_the_domain_open_no_gate():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    assert cascade.route(pixel(1.5, -0.5, math.nan, 0.9)).tolist() == [1, 1, 1, 0]


def test_gradients_flow_through_the_answering_member():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    images = pixel(0.9, 0.55).requires_grad_()
    cascade(images)[:, 1].sum().backward()
    assert images.grad is not None
    assert images.grad.flatten().tolist() == [1.0, 1.0]


def test_bad_cascades_are_refused():
    with pytest.raises(InvalidInputError, match="one gate for each member but the last"):
        Cascade([threshold(0.5)], ["1/8"])
    for gate in (0, "2", "-1/8", "abc"):
        with pytest.raises(InvalidInputError):
            Cascade([threshold(0.5), threshold(0.25)], [gate])
    with pytest.raises(InvalidInputError, match="input_shape"):
        Cascade([threshold(0.5), lively_model()], ["1/8"])
    with pytest.raises(UnsupportedLayerError, match="BatchNorm"):
        Cascade(
            [nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)), threshold(0.2)], [0.1]
        )
    with pytest.raises(UnsupportedLayerError):
        Cascade([nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.GELU()), threshold(0.2)], [0.1])
    cascade = Cascade([threshold(0.5), threshold(0.25)], [0.125])
    with pytest.raises(UnsoundSettingError, match="train mode"):
        cascade(pixel(0.5))
    with pytest.raises(InvalidInputError, match="float32"):
        cascade.eval()(pixel(0.5).double())
    with pytest.raises(InvalidInputError, match="'ibp'"):
        certify(cascade, pixel(0.5), method="crown")


def test_an_empty_batch():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    assert cascade(pixel()).shape == (0, 2)
    assert len(certify(cascade, pixel())) == 0
