"""Recipes: what is accepted, what is refused and with which words."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from acert_zoo.errors import InvalidInputError, UnknownNameError
from training.recipes.recipe import RECIPES, Recipe, known_keys, load_recipe

NAMES = sorted(p.stem for p in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_bundled_recipes_load_and_survive_json(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert name.startswith(recipe.dataset)


# the paper's table of settings, typed again
PAPER = {
    "mnist": dict(eps_max="0.4", epochs=80, ramp=20, batch=128, lr=1e-3, l1=0.0, weight=0.5, flip=False, crop=0),
    "cifar10": dict(eps_max="8.8/255", epochs=160, ramp=80, batch=128, lr=2e-3, l1=0.0, weight=0.5, flip=True, crop=2),
    "tinyimagenet": dict(
        eps_max="1/255", epochs=160, ramp=80, batch=256, lr=2e-3, l1=1e-4, weight=0.2, flip=True, crop=4
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_paper_recipes_have_the_papers_settings(name: str) -> None:
    r, e = load_recipe(f"{name}_paper"), PAPER[name]
    assert (r.radius.eps_max, r.epochs, r.radius.ramp_epochs) == (e["eps_max"], e["epochs"], e["ramp"])
    assert (r.radius.first_epochs, r.batch_size, r.optimizer.grad_clip) == (1, e["batch"], 10)
    assert (r.optimizer.name, r.optimizer.lr, r.optimizer.l1) == ("adam", e["lr"], e["l1"])
    assert (r.optimizer.schedule, r.optimizer.warmup) == ("onecycle", 0.3)
    assert (r.regularizers.tight, r.regularizers.relu, r.regularizers.tolerance) == (e["weight"], e["weight"], 0.5)
    assert (r.augmentation.flip, r.augmentation.crop_padding) == (e["flip"], e["crop"])
    assert (r.arch, r.arch_kwargs["width"], r.arch_kwargs["hidden"]) == ("cnn7", 64, 512)
    assert r.arch_kwargs.get("second_stride", False) == (name == "tinyimagenet")


def test_paper_networks_have_the_papers_sizes() -> None:
    from training.run.loop import build_model

    for name, millions in (("mnist", 13.3), ("cifar10", 17.2), ("tinyimagenet", 17.3)):
        count = sum(p.numel() for p in build_model(load_recipe(f"{name}_paper")).parameters())
        assert round(count / 1e6, 1) == millions


def test_overrides() -> None:
    recipe = load_recipe(
        "cifar10", ["optimizer.lr=1e-3", "kappa=0.5", "radius.eps_max=2/255", "augmentation.flip=false"]
    )
    assert (recipe.optimizer.lr, recipe.kappa, recipe.radius.eps_max) == (1e-3, 0.5, "2/255")
    assert recipe.augmentation.flip is False
    assert load_recipe("cifar10", ["radius.ramp_epochs=2.5", "radius.first_epochs=0"]).radius.first_epochs == 0.0


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("lr=1", UnknownNameError, "optimizer.lr"),
        ("optimizer.rl=1", UnknownNameError, "optimizer.lr"),
        ("kappa.x=1", UnknownNameError, "kappa"),
        ("kappa", InvalidInputError, "key=value"),
        ("kappa=1.5", InvalidInputError, "between 0 and 1"),
        ("kappa=nan", InvalidInputError, "kappa"),
        ("kappa=abc", InvalidInputError, "float"),
        ("epochs=2.5", InvalidInputError, "int"),
        ("epochs=0", InvalidInputError, "at least 1"),
        ("epochs=true", InvalidInputError, "int"),
        ("optimizer=3", InvalidInputError, "table"),
        ("arch=cnn8", UnknownNameError, "cnn7"),
        ("dataset=cifar100", UnknownNameError, "cifar10"),
        ("optimizer.schedule=cosine", UnknownNameError, "onecycle"),
        ("optimizer.name=lion", UnknownNameError, "muon"),
        ("initialization=he", UnknownNameError, "ibp"),
        ("precision=float16", UnknownNameError, "bfloat16"),
        ("radius.eps_max=1/0", InvalidInputError, "eps_max"),
        ("radius.eps_max=-1/255", InvalidInputError, "eps_max"),
        ('radius.eps_max="abc"', InvalidInputError, "eps_max"),
        ("radius.eps_min=9/255", InvalidInputError, r"\[0, radius.eps_max = 8.8/255\]"),
        ("radius.eps_min=-1e-3", InvalidInputError, "eps_min"),
        ('radius.eps_min="abc"', InvalidInputError, "eps_min"),
        ("radius.evaluations=0", InvalidInputError, "at least 1"),
        ("optimizer.lr=-1.0", InvalidInputError, "optimizer.lr"),
        ("optimizer.ema=1.0", InvalidInputError, "optimizer.ema"),
    ],
)
def test_refusals_name_the_key_and_what_is_accepted(override: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_recipe("cifar10", [override])


def test_unknown_keys_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_recipe("cifar10", ["optimizer.momentum=0.9"])
    assert all(key in str(caught.value) for key in known_keys())
    assert {"kappa", "optimizer.lr", "radius.eps_max", "sabr.share"} <= set(known_keys())


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="cifar10"):
        load_recipe("cifar")
    file = tmp_path / "mine.toml"
    file.write_text('dataset = "mnist"\n[radius]\neps_max = "0.1"\n')
    assert load_recipe(str(file)).radius.eps_max == "0.1"
    file.write_text("dataset = ")
    with pytest.raises(InvalidInputError, match="not a TOML file"):
        load_recipe(str(file))
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidInputError, match=r"mine.toml' cannot be read"):
        load_recipe(str(file))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.toml")
        with pytest.raises(InvalidInputError, match="not a plain file"):
            load_recipe(str(tmp_path / "pipe.toml"))


def test_recipes_of_earlier_runs_stay_readable() -> None:
    """A recipe.json without the keys that were added later."""
    old = {"dataset": "cifar10", "objective": "acert", "kappa": 0.25, "radius": {"first_epochs": 1, "ramp_epochs": 8}}
    assert Recipe.from_dict(old).optimizer.ema == 0.0


def test_the_documentation_has_every_key_and_its_default() -> None:
    text = (RECIPES.parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `(.+?)` \|", text, re.MULTILINE))
    assert list(rows) == known_keys()
    for key, written in rows.items():
        value: object = Recipe()
        for name in key.split("."):
            value = getattr(value, name)
        assert tomllib.loads(f"x = {written}")["x"] == value, key
