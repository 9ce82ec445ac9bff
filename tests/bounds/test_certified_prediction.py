"""`predict_certified`: the same answers as `certify`, and a cache that notices new weights."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch

from acert_zoo import certify
from acert_zoo.bounds.certified_prediction import predict_certified
from acert_zoo.errors import InvalidInputError, UnknownNameError, UnsoundSettingError
from tests.support.models import small_model

IMAGES = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rounding", ["real-sound", "float32-deployed"])
def test_agrees_with_certify(rounding: str) -> None:
    model = small_model()
    full = certify(model, IMAGES, rounding=rounding)
    eps = full.radius.median().item()
    found = predict_certified(model, IMAGES, eps, rounding=rounding)
    assert torch.equal(found.label, full.prediction)
    clear = (full.radius / eps - 1).abs() > 1e-5
    assert torch.equal(found.certified[clear], full.certified(eps)[clear])
    assert 5 < int(found.certified.sum()) < 15
    assert torch.equal(found.radius, found.certified.double() * eps)


def test_fractions_are_exact() -> None:
    """fl(2/255) < 2/255: the proof runs above the fraction, the reported radius stays below."""
    found = small_model().predict_certified(IMAGES, "1/25500")
    assert found.certified.any()
    radius = found.radius.max().item()
    assert Fraction(radius) <= Fraction(1, 25500) == found.eps
    document = json.loads(json.dumps(found.to_dict()))
    assert document["eps"] == "1/25500"
    assert document["label"] == found.label.tolist()


def test_new_weights_are_noticed() -> None:
    model, other = small_model(0), small_model(5)
    before = predict_certified(model, IMAGES, 0.002)
    model.load_state_dict(other.state_dict())
    after, fresh = predict_certified(model, IMAGES, 0.002), predict_certified(other, IMAGES, 0.002)
    assert torch.equal(after.label, fresh.label)
    assert torch.equal(after.certified, fresh.certified)
    assert not torch.equal(before.label, after.label)
    with torch.no_grad():
        model.classifier.layers[-1].bias.zero_()
        model.classifier.layers[-1].weight.zero_()
    assert not predict_certified(model, IMAGES, 0.0).certified.any()


def test_refusals() -> None:
    model = small_model()
    with pytest.raises(InvalidInputError, match="eps"):
        predict_certified(model, IMAGES, "2/0")
    with pytest.raises(InvalidInputError, match="float32"):
        predict_certified(model, IMAGES.double(), 0.1)
    with pytest.raises(InvalidInputError, match="proves nothing"):
        predict_certified(model, IMAGES, 0.1, rounding="float32")
    with pytest.raises(UnknownNameError):
        predict_certified(model, IMAGES, 0.1, rounding="exact")
    with pytest.raises(UnsoundSettingError, match="eval"):
        predict_certified(model.train(), IMAGES, 0.1)


def test_no_images() -> None:
    assert predict_certified(small_model(), IMAGES[:0], 0.1).certified.shape == (0,)
