"""A zoo of its own in a folder, a tiny data set and finished runs, for the tests of export, cards and publishing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training.recipes.recipe import Recipe
from training.results.zoo_folder import ZooFolder
from training.run.loop import build_model

SMALL = {"convs": [[3, 4], [4, 2]], "hidden": 6}


def small_recipe(**changes: Any) -> Recipe:
    """A CIFAR-10 recipe whose network has about 600 parameters."""
    values = {
        "dataset": "cifar10",
        "arch": "cnn",
        "arch_kwargs": SMALL,
        "epochs": 2,
        "batch_size": 10,
        "kappa": 0.25,
        **changes,
    }
    return Recipe.from_dict(values)


def random_network(recipe: Recipe, seed: int) -> nn.Module:
    """The recipe's network, its BatchNorm statistics and scales drawn too, so that folding has something to do."""
    model = build_model(recipe)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for tensor, low in (
                    (module.weight, 0.5),
                    (module.bias, -0.5),
                    (module.running_mean, -0.2),
                    (module.running_var, 0.5),
                ):
                    tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def make_run(folder: Path, seed: int = 0, *, epochs_done: int | None = None, **recipe: Any) -> Path:
    """A run's folder as training leaves it."""
    settings = small_recipe(seed=seed, **recipe)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(settings.to_dict()))
    steps = 3 * (settings.epochs if epochs_done is None else epochs_done)  # 30 images, batches of 10
    model = random_network(settings, seed)
    state = {"model": model.state_dict(), "step": steps, "scales": torch.zeros(30), "seconds": 4321.0}
    torch.save(state, folder / "last.pt")
    return folder


def make_data(root: Path, model_run: Path | None = None, test: int = 40) -> Path:
    """CIFAR-10's layout with random images; labels that the run's network gets right for about two thirds of them."""
    from training.run.deployment import read_run, trained_model

    generator = np.random.default_rng(0)
    folder = root / "cifar10"
    folder.mkdir(parents=True)
    for split, n in (("train", 30), ("test", test)):
        images = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        labels = generator.integers(0, 10, n)
        if model_run is not None:
            model = trained_model(*read_run(model_run))
            with torch.no_grad():
                predicted = model(torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)).argmax(1).numpy()
            labels = np.where(generator.random(n) < 0.6, predicted, labels)
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", labels.astype(np.int64))
    (folder / "meta.json").write_text(json.dumps({"classes": [str(i) for i in range(10)], "test_inexact": [3, 5]}))
    return root


def empty_zoo(root: Path) -> ZooFolder:
    (root / "acert_zoo").mkdir(parents=True)
    zoo = ZooFolder(root)
    zoo.registry.write_text('{\n  "schema_version": 1,\n  "models": []\n}\n')
    return zoo


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below `root` (locks aside): path -> content."""
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.endswith(".lock")]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that hold their digest alone: drawing takes a second each, and is tested in test_tradeoff.py."""
    from training import publish
    from training.report import figures, tradeoff

    def draw(kind: str, points: Any, theme: str, mark: str | None = None, form: str = "svg") -> bytes:
        return f"<!-- {figures.digest(kind, points, theme, mark)} -->".encode()

    for module in (tradeoff, publish):
        monkeypatch.setattr(module, "draw", draw)


def use_registry(monkeypatch: pytest.MonkeyPatch, zoo: ZooFolder) -> None:
    """Makes `zoo` the registry that names are resolved in."""
    from acert_zoo.zoo import registry

    monkeypatch.setattr(registry, "REGISTRY_PATH", zoo.registry)
    monkeypatch.setattr(registry, "PACKAGE", zoo.package)
