"""Starting from another model: a run, a folded checkpoint, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import acert_zoo
from acert_zoo import sample_data
from acert_zoo.errors import InvalidInputError
from acert_zoo.network import architectures
from tests.support.training import tiny_recipe, write_dataset
from training.recipes.recipe import load_recipe
from training.run.deployment import arch_arguments, fold
from training.run.loop import Trainer, build_model
from training.run.run_folder import RunError, RunFolder
from training.run.warm_start import start_from, unfold


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


def test_the_averaged_weights_of_another_run(root: str, tmp_path: Path) -> None:
    first = tiny_recipe(epochs=1, optimizer={"ema": 0.5})
    folder = RunFolder.create(tmp_path / "first", first)
    Trainer(first, root).train(folder)
    state = folder.load()
    assert state is not None
    second = Trainer(tiny_recipe(init_from=str(folder.path), kappa=0.75), root)
    weights = second.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in state["ema"].items())
    assert not all(torch.equal(state["model"][name], value) for name, value in state["ema"].items())


def test_unfolding_reverses_folding() -> None:
    """A network with random BatchNorm, folded, unfolded and folded again, computes the same logits."""
    recipe = tiny_recipe()
    trained, images = build_model(recipe), torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for module in trained.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    deployed = fold(trained, architectures.build(recipe.arch, **arch_arguments(recipe)))
    fresh = build_model(recipe)
    unfold(deployed, fresh, images)
    again = fold(fresh, architectures.build(recipe.arch, **arch_arguments(recipe)))
    with torch.no_grad():
        expected = deployed(images)
        torch.testing.assert_close(fresh.eval()(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again(images), expected, rtol=1e-4, atol=1e-4)
        # Over the very images of the statistics, train mode computes the same function too.
        torch.testing.assert_close(fresh.train()(images), expected, rtol=1e-3, atol=1e-3)


def test_a_checkpoint_of_the_zoo_by_name() -> None:
    images, _ = sample_data("cifar10")
    model = build_model(load_recipe("cifar10"))
    start_from("cifar10_kappa025", model, (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
    assert model.training
    with torch.no_grad():
        expected = acert_zoo.load_model("cifar10_kappa025")(images)
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", ["", "runs/none", "no_such_model"])
def test_what_is_neither_a_run_nor_a_model_is_named(source: str, root: str, tmp_path: Path) -> None:
    name = source or str(tmp_path)  # a folder that holds nothing
    with pytest.raises(RunError, match="init_from"):
        Trainer(tiny_recipe(init_from=name), root)


def test_other_layers_are_refused(root: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"init_from.*layers"):
        Trainer(tiny_recipe(init_from="mnist_kappa000"), root)
    other = tiny_recipe(arch_kwargs={"hidden": 8}, epochs=1)
    folder = RunFolder.create(tmp_path / "other", other)
    Trainer(other, root).train(folder)
    with pytest.raises(RunError, match="do not fit"):
        Trainer(tiny_recipe(init_from=str(folder.path)), root)
    with pytest.raises(InvalidInputError):
        unfold(acert_zoo.load_model("mnist_kappa000"), build_model(tiny_recipe()), torch.rand(4, 1, 28, 28))
