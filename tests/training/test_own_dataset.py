"""A data set of one's own, registered by one file: trained on, exported, and named in cards and in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from acert_zoo.data import registration
from acert_zoo.data.registration import class_names, read_registration
from acert_zoo.zoo import registry
from tests.support.zoo import empty_zoo, plain_figures
from training.export import main as export
from training.report import cards
from training.run.run_folder import RunFolder
from training.train import main as train

REGISTRATION = """
name = "flowers"
title = "Flowers"
input_shape = [3, 8, 8]
classes = ["daisy", "tulip"]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
eps_max = "8/255"
reported_eps = ["1/255", "8/255"]
validation = 6
license = "CC BY 4.0"
"""
RECIPE = """
dataset = "flowers"
epochs = 1
batch_size = 6
[arch_kwargs]
convs = [[3, 2]]
hidden = 4
[optimizer]
warmup = 0.1
[radius]
eps_max = "8/255"
"""


@pytest.fixture
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its registration file, beside `train/<class>/*.png` and `test/<class>/*.png`."""
    monkeypatch.setattr(registration, "_own", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ACERT_ZOO_DATA", raising=False)
    plain_figures(monkeypatch)
    generator = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 4)):
        for name in ("daisy", "tulip"):
            folder = tmp_path / "my photos" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                shade = generator.integers(0, 100, (8, 8, 3), dtype=np.uint8) + 150 * (name == "tulip")
                Image.fromarray(shade.astype(np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "my photos" / "dataset.toml").write_text(REGISTRATION)
    return tmp_path / "my photos" / "dataset.toml"


def test_from_photos_to_the_zoo(flowers: Path, tmp_path: Path) -> None:
    run, zoo = tmp_path / "run", empty_zoo(tmp_path / "zoo")
    recipe = str(tmp_path / "recipe.toml")
    done = CliRunner().invoke(train, ["--recipe", recipe, "--dataset-file", str(flowers), "--run", str(run)])
    assert done.exit_code == 0, done.output
    assert "3 steps to go" in done.output
    assert "certified at 1/255" in done.output
    registration._own.clear()  # as in another process: the run's folder knows its data set
    assert RunFolder(run).recipe().dataset == "flowers"
    registration._own.clear()
    done = CliRunner().invoke(export, [str(run), "--name", "flowers_acert", "--root", str(zoo.root)])
    assert done.exit_code == 0, done.output
    (info,) = registry.read_registry(zoo.registry)
    assert (info.dataset, info.arch_kwargs["num_classes"]) == ("flowers", 2)
    assert {m.eps for m in info.metrics if m.metric == "certified_accuracy"} == {"1/255", "8/255"}
    card = (zoo.cards / "flowers_acert.md").read_text()
    assert "An image classifier for Flowers" in card
    assert "CC BY 4.0." in card
    assert "without 6 images held out" in " ".join(card.split())
    kept = read_registration(zoo.registrations / "flowers.toml").without_files()
    assert kept == read_registration(flowers).without_files()
    registration._own.clear()
    assert cards.render_all(zoo, check=True) == []
    assert class_names("flowers") == ("daisy", "tulip")


def test_registered_beside_its_data_it_needs_no_option(flowers: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    flowers.parent.rename(tmp_path / "data" / "flowers")
    arguments = ["--recipe", str(tmp_path / "recipe.toml"), "--run", str(tmp_path / "run")]
    refused = CliRunner().invoke(train, arguments)
    assert refused.exit_code == 2
    assert "unknown data set 'flowers'" in refused.output
    done = CliRunner().invoke(train, [*arguments, "--data-root", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
