"""Activations from module to certificate: those with rules hold against attacks, those without are refused by name."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo import attack
from acert_zoo.errors import UnsupportedLayerError

SHAPE = (3, 6, 6)


def needs_auto_lirpa() -> None:
    """Looks for it without importing it: on current torch and numpy it imports only through acert_zoo."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        pytest.skip("auto-LiRPA is not installed")


class Forward(nn.Module):
    """A network with the activation in its forward."""

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


RULED = {
    "sigmoid": torch.sigmoid,
    "tanh": nn.Tanh(),
    "leaky 0.1": nn.LeakyReLU(0.1),
    "leaky 1.5": lambda x: F.leaky_relu(x, 1.5),
    "leaky -0.5": lambda x: F.leaky_relu(x, -0.5),
    "prelu": nn.PReLU(4, init=-0.3),
    "relu6": lambda x: F.relu6(20 * x),
    "hardtanh": lambda x: F.hardtanh(x, -0.1, 0.2),
    "clamp": lambda x: x.clamp(max=0.1),
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum": lambda x: torch.minimum(x, 0.5 * x + 0.01),
}


@pytest.mark.parametrize("name", RULED)
def test_radii_hold_against_an_attack(name, images):
    model = build(RULED[name])
    result = acert_zoo.certify(model, images)
    assert set(result.roundings) == {"real-sound"}
    assert torch.equal(result.prediction, model(images).argmax(1))
    assert bool((result.radius > 0).all())
    assert not attack(model, images, result.label, result.radius * 0.999, steps=10, restarts=2).success.any()


@pytest.mark.parametrize("slope", [-0.5, 1.5])
def test_crown_never_uses_another_librarys_leaky_relu(slope, images):
    """auto-LiRPA 0.3 bounds slopes outside [0, 1] wrongly; it is given ReLUs."""
    needs_auto_lirpa()
    model = build(lambda x: F.leaky_relu(x, slope))
    result = acert_zoo.certify(model, images[:2], method="crown", rounding="float32", budget=20)
    interval = acert_zoo.certify(model, images[:2], rounding="float32")
    assert bool((result.radius >= interval.radius).all())
    assert not attack(model, images[:2], result.label, result.radius * 0.999, steps=10, restarts=2).success.any()


class Vee(nn.Module):
    """Logits (leaky(x - 0.5), 0.05) with slope -0.5: at x = 0.1 the exact radius is 0.3, where x = 0.4 gives a tie."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(x.flatten(1) - 0.5, -0.5)
        return F.linear(h, torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.05]))


@pytest.mark.parametrize(("method", "rounding"), [("ibp", "real-sound"), ("crown", "float32")])
def test_a_negative_slope_by_hand(method, rounding):
    if method != "ibp":
        needs_auto_lirpa()
    pixel = torch.full((1, 1, 1, 1), 0.1)
    result = acert_zoo.certify(Vee().eval(), pixel, [0], method=method, rounding=rounding, budget=5)
    assert 0.29 < result.radius.item() <= 0.3 + 1e-6


@pytest.mark.parametrize("rounding", ["float32", "real-sound"])
@pytest.mark.parametrize("name", ["elu", "gelu", "softplus", "silu", "exp", "sin", "erf", "softmax", "log", "square"])
def test_without_a_rule_the_operation_is_named_at_any_level(name, rounding, images):
    functions = {"softmax": lambda x: x.softmax(1), "log": lambda x: (x.abs() + 1).log(), "square": lambda x: x * x}
    function = functions.get(name) or getattr(F, name, None) or getattr(torch, name)
    operation = {"square": "mul|pow", "silu": "silu|sigmoid|mul", "softplus": "softplus|exp"}.get(name, name)
    with pytest.raises(UnsupportedLayerError, match=rf"aten\.\w*({operation}).*not supported.*supported: Conv1d"):
        acert_zoo.certify(build(function), images, rounding=rounding)
