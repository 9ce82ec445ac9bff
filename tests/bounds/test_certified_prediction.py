"""`predict_certified`: the same answers as `certify`, and a cache that notices new weights."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch
from torch import nn

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


def _mlp(*activations: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, second = activations
        return nn.Sequential(
            nn.Flatten(), nn.Linear(192, 16), first, nn.Linear(16, 16), second, nn.Linear(16, 3)
        ).eval()


def test_a_shared_activation_is_applied_twice() -> None:
    relu = nn.ReLU()
    shared, twin = _mlp(relu, relu), _mlp(nn.ReLU(), nn.ReLU())
    found, wanted = predict_certified(shared, IMAGES, 0.03), predict_certified(twin, IMAGES, 0.03)
    assert torch.equal(found.certified, wanted.certified)
    assert found.certified.any()
    assert not found.certified.all()


def _by_numpy(model: nn.Sequential) -> None:
    model[5].weight.detach().numpy()[:] *= -1


def _by_data(model: nn.Sequential) -> None:
    model[5].bias.data -= torch.tensor([5.0, 0.0, -5.0])


def _by_module(model: nn.Sequential) -> None:
    model[4] = nn.Identity().eval()


def _by_hook(model: nn.Sequential) -> None:
    model[5].register_forward_hook(lambda module, inputs, output: -output)


def _by_forward(model: nn.Sequential) -> None:
    model[5].forward = lambda x: -nn.functional.linear(x, model[5].weight, model[5].bias)


def _by_attribute(model: nn.Sequential) -> None:
    model[4].slope = -3.0


class _Sloped(nn.Module):
    """Read through torch.export, and kept by its state."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(x, self.slope)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("edit", [_by_numpy, _by_data, _by_module, _by_hook, _by_forward, _by_attribute])
def test_every_edit_of_the_module_is_noticed(edit, known) -> None:
    if known and edit is _by_attribute:
        pytest.skip("a ReLU has no attribute that counts")
    model, fresh = (_mlp(nn.ReLU(), nn.ReLU() if known else _Sloped()) for _ in range(2))
    before = predict_certified(model, IMAGES, 0.01)
    edit(model)
    edit(fresh)
    after, wanted = predict_certified(model, IMAGES, 0.01), predict_certified(fresh, IMAGES, 0.01)
    assert torch.equal(after.label, model(IMAGES).argmax(1))
    assert torch.equal(after.label, wanted.label)
    assert torch.equal(after.certified, wanted.certified)
    assert not (torch.equal(after.label, before.label) and torch.equal(after.certified, before.certified))


def test_an_unchanged_module_is_read_once(monkeypatch) -> None:
    model = _mlp(nn.ReLU(), _Sloped())
    first = predict_certified(model, IMAGES, 0.03)
    monkeypatch.setattr("acert_zoo.bounds.certified_prediction.read", None)
    assert torch.equal(predict_certified(model, IMAGES, 0.03).certified, first.certified)


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
