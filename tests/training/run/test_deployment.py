"""The network that is deployed from a run: BatchNorm folded by hand, what cannot be folded, its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from acert_zoo.errors import WeightsError
from acert_zoo.network import architectures
from tests.support.training import tiny_recipe, write_dataset
from tests.support.zoo import make_run, random_network, small_recipe
from training.export import epochs_done
from training.run.deployment import arch_arguments, check_folding, deployed_model, fold, read_run, trained_model
from training.run.loop import Trainer
from training.run.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def small(batchnorm: bool) -> nn.Sequential:
    middle = [nn.BatchNorm2d(1, eps=1.0)] if batchnorm else []
    return nn.Sequential(nn.Conv2d(1, 1, 1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def test_folding_by_hand() -> None:
    trained, deployed = small(True).eval(), small(False)
    with torch.no_grad():
        trained[0].weight.fill_(3.0)
        trained[0].bias.fill_(1.0)
        batchnorm = trained[1]
        batchnorm.weight.fill_(4.0)
        batchnorm.bias.fill_(0.5)
        batchnorm.running_mean.fill_(2.0)
        batchnorm.running_var.fill_(3.0)  # scale = 4 / sqrt(3 + 1) = 2, shift = 0.5 - 2 * 2 = -3.5
    fold(trained, deployed)
    assert deployed[0].weight.item() == 6.0
    assert deployed[0].bias.item() == 2 * 1.0 - 3.5
    assert torch.equal(deployed[3].weight, trained[4].weight)
    assert not deployed.training


def test_folded_subnormals_become_zero() -> None:
    trained, deployed = small(True).eval(), small(False)
    with torch.no_grad():
        trained[0].weight.fill_(1e-39)
        trained[1].weight.fill_(1.0)
    fold(trained, deployed)
    assert deployed[0].weight.item() == 0.0


def test_folding_rounds_float64_products_once() -> None:
    recipe = small_recipe()
    trained = random_network(recipe, 3)
    deployed = fold(trained, architectures.build("cnn", **arch_arguments(recipe)))
    conv, norm = trained.layers[1], trained.layers[2]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    exact = conv.weight.double() * scale.view(-1, 1, 1, 1)
    error = (deployed.layers[1].weight.double() - exact).abs()
    assert bool((error <= 2.0**-24 * exact.abs() * (1 + 1e-12)).all())  # half a unit in the last place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[0].weight.data.fill_(float("nan")), "not finite"),
        (lambda t: t[0].weight.data.fill_(3e38), "not finite"),
    ],
)
def test_unusable_weights_are_refused(change, message) -> None:
    trained = small(True).eval()
    trained[1].weight.data.fill_(100.0)
    change(trained)
    with pytest.raises(WeightsError, match=message):
        fold(trained, small(False))


def test_other_architecture_is_refused() -> None:
    with pytest.raises(WeightsError, match="do not match"):
        fold(small(True).eval(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_batchnorm_without_affine_layer_before_is_refused() -> None:
    trained = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(WeightsError, match="cannot be folded"):
        fold(trained, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_a_folded_network_that_differs_is_refused(run: Path) -> None:
    recipe, state = read_run(run)
    trained, deployed = trained_model(recipe, state), deployed_model(recipe, state)
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert check_folding(trained, deployed, images) < 1e-5
    deployed.layers[-1].weight.data *= 1 + 1e-4
    with pytest.raises(WeightsError, match="2e-05 is accepted"):
        check_folding(trained, deployed, images)


def test_a_bfloat16_run_keeps_bfloat16_weights_but_in_the_head(run: Path) -> None:
    recipe, state = read_run(run)
    exact = deployed_model(recipe, state)
    rough = deployed_model(dataclasses.replace(recipe, precision="bfloat16"), state)
    weights = [(a, b) for a, b in zip(exact.parameters(), rough.parameters(), strict=True) if a.dim() > 1]
    assert all(torch.equal(a.bfloat16().float(), b) and not torch.equal(a, b) for a, b in weights[:-1])
    assert torch.equal(*weights[-1])
    assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), rough.parameters(), strict=True) if a.dim() == 1)


def test_averaged_weights_are_exported_where_the_run_has_them(run: Path) -> None:
    recipe, state = read_run(run)
    averaged = {k: v + 1 if k.endswith("layers.1.weight") else v for k, v in state["model"].items()}
    plain, ema = trained_model(recipe, state), trained_model(recipe, {**state, "ema": averaged})
    assert torch.equal(ema.layers[1].weight, plain.layers[1].weight + 1)


def test_a_run_is_read_with_its_recipe(tmp_path: Path) -> None:
    root = str(write_dataset(tmp_path / "data"))
    recipe = tiny_recipe(epochs=2)
    folder = RunFolder.create(tmp_path / "run", recipe)
    Trainer(recipe, root).train(folder)
    stored, state = read_run(folder.path)
    assert stored == recipe
    assert epochs_done(recipe, state) == 2
