"""Models that we cannot represent: an error that says what is supported, or auto-LiRPA's bounds, labelled so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo import attack
from acert_zoo.bounds.auto_lirpa import LirpaBounds
from acert_zoo.certificates.verify import verify_file
from acert_zoo.errors import (
    InvalidInputError,
    MissingDependencyError,
    UnprovedRoundingWarning,
    UnsupportedLayerError,
)

pytestmark = pytest.mark.filterwarnings("ignore::acert_zoo.errors.UnprovedRoundingWarning")

SHAPE = (3, 6, 6)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


class Forward(nn.Module):
    """A network with the activation in its forward, where torch.fx sees it."""

    def __init__(self, activation) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(16, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.activation(self.conv(x)).flatten(1))


def build(activation) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Forward(activation).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.tanh, nn.LeakyReLU(0.1), nn.Sigmoid()])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_auto_lirpa_bounds_what_we_cannot_represent(activation, method, images):
    model = build(activation)
    with pytest.warns(UnprovedRoundingWarning, match="auto-LiRPA bounds the model instead, in float32") as caught:
        result = acert_zoo.certify(model, images, mean=MEAN, std=STD, rounding="float32", method=method)
    assert caught[0].filename == __file__
    assert (result.rounding, set(result.roundings)) == ("float32", {"float32"})
    assert set(result.method) <= {"lirpa-ibp", f"lirpa-{method}"}
    assert bool((result.radius > 0).all())
    whole = nn.Sequential(_Normalize(), model).eval()
    found = attack(whole, images, result.label, result.radius * 0.999, steps=10, restarts=2)
    assert not found.success.any()
    if method != "ibp":
        interval = acert_zoo.certify(model, images, mean=MEAN, std=STD, rounding="float32")
        assert bool((result.radius >= interval.radius).all())


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def test_a_known_margin(images):
    """f = (sigmoid(x_0), 1/2): the answer 0 holds exactly as long as x_0 > 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 1), nn.Sigmoid(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[1].weight[0, 0], model[1].bias[0] = 1.0, -0.25
        model[3].weight[0, 0], model[3].bias[1] = 1.0, 0.5
    images[:, 0, 0, 0] = torch.tensor([0.75, 0.5, 0.25, 0.0])
    result = acert_zoo.certify(model, images, torch.zeros(4, dtype=torch.int64), rounding="float32")
    assert result.radius[:2].tolist() == pytest.approx([0.5, 0.25], rel=2e-3)
    assert bool((result.radius[:2] <= torch.tensor([0.5, 0.25])).all())
    assert result.radius[3].item() == 0


@pytest.mark.parametrize("rounding", ["real-sound", "float32-deployed"])
def test_without_the_request_the_error_names_the_operation_and_what_is_supported(rounding, images):
    with pytest.raises(UnsupportedLayerError, match=r"sigmoid.*not supported; supported: Conv2d.*rounding 'float32'"):
        acert_zoo.certify(build(torch.sigmoid), images, rounding=rounding)


def test_what_neither_can_represent_is_an_error_of_both(images, monkeypatch):
    with pytest.raises(UnsupportedLayerError, match=r"erf.*not supported; supported: .*Nor by auto-LiRPA"):
        acert_zoo.certify(build(torch.erf), images, rounding="float32")
    monkeypatch.setattr("acert_zoo.bounds.auto_lirpa_compat.load", _missing)
    with pytest.raises(UnsupportedLayerError, match=r"tanh.*Nor by auto-LiRPA: .*pip install"):
        acert_zoo.certify(build(torch.tanh), images, rounding="float32")


def _missing():
    raise MissingDependencyError("install it with: pip install auto-LiRPA")


@pytest.mark.parametrize("rounding", ["float32", "real-sound"])
def test_a_forward_that_branches_on_values_is_an_error(images, rounding):
    """At any level: auto-LiRPA would record the branch that its example takes, and random images take it too."""

    class Branches(Forward):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.mean() > 10 else F.relu(x))

    with pytest.raises(UnsupportedLayerError, match=r"Branches cannot be traced by torch.fx.*must not branch"):
        acert_zoo.certify(Branches(torch.sigmoid).eval(), images, rounding=rounding)


def test_the_best_of_the_methods_that_auto_lirpa_can_do(images, monkeypatch):
    """ "best" goes on without a method that fails; a method that was asked for by name fails aloud."""
    original = LirpaBounds.margins

    def margins(self, x, y, eps, method):
        if method != "ibp":
            raise RuntimeError("not for this graph")
        return original(self, x, y, eps, method)

    monkeypatch.setattr(LirpaBounds, "margins", margins)
    result = acert_zoo.certify(build(torch.tanh), images[:1], rounding="float32", method="best")
    assert result.method == ["lirpa-ibp"]
    assert result.radius.item() > 0
    with pytest.raises(UnsupportedLayerError, match="fails in crown: not for this graph"):
        acert_zoo.certify(build(torch.tanh), images[:1], rounding="float32", method="crown")


def test_budget_and_file(images, tmp_path: Path):
    model, path = build(torch.tanh), tmp_path / "c.jsonl"
    with pytest.raises(InvalidInputError, match="budget"):
        acert_zoo.certify(model, images, rounding="float32", budget=-1.0)
    result = acert_zoo.certify(model, images, rounding="float32", budget=1e-9, out=path)
    assert result.radius.tolist() == [0.0] * 4
    again = acert_zoo.certify(model, images, rounding="float32", out=path)  # the same file, nothing left to do
    assert again.radius.tolist() == [0.0] * 4
    with pytest.raises(UnsupportedLayerError, match="tanh"):
        verify_file(path, model=model, images=images)
