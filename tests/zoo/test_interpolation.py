"""interpolate and load_model(family, kappa=...): averages within a family, by hand and on the zoo's models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import acert_zoo
from acert_zoo.errors import InvalidInputError, UnknownNameError, WeightsError
from acert_zoo.zoo.model import AcertModel
from acert_zoo.zoo.model_info import ModelInfo
from tests.support.models import small_model


def constant(value: float, **changes: object) -> AcertModel:
    """The small model with every weight `value`."""
    model = small_model()
    with torch.no_grad():
        for tensor in model.classifier.parameters():
            tensor.fill_(value)
    assert model.info is not None
    model.info = replace(model.info, **{"kappa": value, **changes})  # type: ignore[arg-type]
    return model


def tensors(model: AcertModel) -> dict[str, torch.Tensor]:
    return dict(model.classifier.named_parameters())


def test_by_hand() -> None:
    model = acert_zoo.interpolate(constant(0.0), constant(1.0), 0.25)
    assert all(bool((t == 0.25).all()) for t in tensors(model).values())
    assert isinstance(model.info, ModelInfo)
    assert model.info.kappa == 0.25
    assert model.info.metrics == ()
    assert model.info.sha256 == model.weights_sha256
    assert not model.training


@pytest.mark.parametrize("share", [0, 1])
def test_the_ends_are_the_models_themselves(share: int) -> None:
    ends = [acert_zoo.load_model(name) for name in ("cifar10_kappa025", "cifar10_kappa050")]
    model = acert_zoo.interpolate(*ends, share)
    assert all(torch.equal(t, tensors(ends[share])[name]) for name, t in tensors(model).items())
    with torch.no_grad():
        for tensor in tensors(model).values():
            tensor.zero_()
    assert all(bool(t.any()) for t in tensors(ends[share]).values())  # copies, not the same memory


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "0.5", True])
def test_a_share_is_a_number_between_0_and_1(share: object) -> None:
    with pytest.raises(InvalidInputError, match=r"share = .*\[0, 1\]"):
        acert_zoo.interpolate(constant(0.0), constant(1.0), share)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["dataset", "method", "eps_max"])
def test_other_families_are_refused(field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"not of one family: {field} is"):
        acert_zoo.interpolate(constant(0.0), constant(1.0, **{field: "other"}), 0.5)


def test_what_is_no_model_of_the_zoo_is_refused() -> None:
    unknown = constant(0.0)
    unknown.info = None
    with pytest.raises(InvalidInputError, match="with a record"):
        acert_zoo.interpolate(unknown, constant(1.0), 0.5)
    with pytest.raises(InvalidInputError, match="got a Linear"):
        acert_zoo.interpolate(torch.nn.Linear(1, 1), constant(1.0), 0.5)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="not finite"):
        acert_zoo.interpolate(constant(0.0), constant(float("inf"), kappa=1.0), 0.5)


def test_any_kappa_is_certified_saved_and_loaded(tmp_path: Path) -> None:
    model = acert_zoo.load_model("cifar10", kappa=0.4)
    assert model.info.kappa == pytest.approx(0.4)
    assert model.info.recipe["interpolate"] == ["cifar10_kappa025.v1", "cifar10_kappa050.v1"]
    assert model.info.recipe["share"] == pytest.approx(0.6)
    images, labels = acert_zoo.sample_data("cifar10")
    radii = acert_zoo.certify(model, images[:8], labels[:8]).radius
    assert bool((radii > 0).any())
    model.save_pretrained(tmp_path)
    again = acert_zoo.load_model(tmp_path)
    assert again.info.sha256 == model.weights_sha256
    assert torch.equal(acert_zoo.certify(again, images[:8], labels[:8]).radius, radii)


def test_a_registered_kappa_is_the_registered_model() -> None:
    assert acert_zoo.load_model("cifar10_ibp", kappa=0.5).info == acert_zoo.model_info("cifar10_ibp_kappa050")


def test_outside_a_family() -> None:
    with pytest.raises(InvalidInputError, match=r"0.99 lies outside the cifar10 models, whose kappas are 0, 0.25"):
        acert_zoo.load_model("cifar10", kappa=0.99)
    with pytest.raises(UnknownNameError, match=r"family of models 'cifar11'.*cifar10"):
        acert_zoo.load_model("cifar11", kappa=0.5)
    with pytest.raises(InvalidInputError, match=r"kappa = 2; expected a number in \[0, 1\]"):
        acert_zoo.load_model("cifar10", kappa=2)
