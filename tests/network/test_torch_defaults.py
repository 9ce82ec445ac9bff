"""torch's process-wide defaults change nothing: models load and are certified as without them, or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network.torch_defaults import STANDARD, TorchDefaults, under_standard_defaults

NAME = "mnist_kappa000"


class Scaled(nn.Module):
    """Python numbers as constants, as most people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x * 0.5 + 0.1).flatten(1))


class Shifted(Scaled):
    """A constant that torch makes in its default dtype: float32 logits only while that is float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([0.0, 0.5, 0.25])


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "float64": lambda: default(torch.float64),
    "bfloat16": lambda: default(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
}


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    return acert_zoo.sample_data("mnist", n=2)


@pytest.fixture(scope="module")
def radius(data: tuple[Tensor, Tensor]) -> Tensor:
    return acert_zoo.certify(acert_zoo.load_model(NAME), *data).radius


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_zoo_model_is_the_same(setting: str, data: tuple[Tensor, Tensor], radius: Tensor) -> None:
    with SETTINGS[setting]():
        model = acert_zoo.load_model(NAME)
        assert torch.equal(acert_zoo.certify(model, *data).radius, radius)
        eps = radius.min().item()
        assert model.predict_certified(data[0], eps).certified.all()
        assert not acert_zoo.attack(model, *data, eps, steps=2, restarts=1).success.any()
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    assert not any(t.is_inference() for t in model.parameters())
    assert torch.equal(acert_zoo.certify(model, *data).radius, radius)


@pytest.mark.parametrize("setting", ["float64", "bfloat16", "inference"])
def test_a_module_of_ones_own(setting: str, data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = Scaled().eval()
    expected = acert_zoo.certify(model, data[0]).radius
    with SETTINGS[setting]():
        assert torch.equal(acert_zoo.certify(model, data[0]).radius, expected)


def test_a_module_that_depends_on_the_default_dtype_is_refused_under_another(data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = Shifted().eval()
    assert acert_zoo.certify(model, data[0]).radius.min() > 0
    with default(torch.float64), pytest.raises(UnsoundSettingError, match=r"default dtype torch\.float64"):
        acert_zoo.certify(model, data[0])


def test_defaults_are_brought_back() -> None:
    @under_standard_defaults
    def seen(fails: bool) -> TorchDefaults:
        if fails:
            raise KeyError
        return TorchDefaults.current()

    with default(torch.float64), torch.device("meta"), torch.inference_mode():
        before = TorchDefaults.current()
        assert before == TorchDefaults(torch.float64, torch.device("meta"), True)
        assert seen(False) == STANDARD
        with pytest.raises(KeyError):
            seen(True)
        assert TorchDefaults.current() == before
    assert TorchDefaults.current() == STANDARD
