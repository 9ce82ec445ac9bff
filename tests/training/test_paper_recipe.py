"""A recipe trained in several calls from packed data alone, on the CPU with a tiny network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner, Result

from acert_zoo.zoo import weights
from tests.support.training import RECIPE_TOML, write_dataset
from training.paper_recipe import main
from training.run.deployment import deployed_model, read_run, tensors_of


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_two_calls_from_packed_data_to_weights_in_parts(tmp_path: Path) -> None:
    write_dataset(tmp_path / "root", n=120)
    packed, state, parts = tmp_path / "packed", tmp_path / "state", tmp_path / "parts"
    result = call("pack", "--dataset", "mnist", "--data-root", tmp_path / "root", "--out", packed)
    assert result.exit_code == 0, result.output
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE_TOML.replace("epochs = 3", "epochs = 1", 1))
    run = ("run", "--packed", packed, "--state", state, "--weights", parts, "--recipe", recipe, "--device", "cpu")
    run = (*run, "--set", "compile=false", "--set", "radius.ramp_epochs=0.5", "--set", "radius.first_epochs=0")
    first = call(*run, "--minutes", "0")
    assert first.exit_code == 0, first.output
    assert "stopped at step 1; the same call goes on" in first.output
    assert not parts.exists()
    copied = np.load(state / "data" / "mnist" / "train_images.npy")
    assert np.array_equal(copied, np.load(tmp_path / "root" / "mnist" / "train_images.npy"))

    other = call(*run, "--set", "seed=5")
    assert other.exit_code == 1
    assert "is a run of another recipe" in other.output
    last = call(*run)
    assert last.exit_code == 0, last.output
    assert "finished" in last.output

    joined = call("join", parts, "--out", tmp_path / "model.safetensors")
    assert joined.exit_code == 0, joined.output
    found = weights.read_tensors((tmp_path / "model.safetensors").read_bytes(), "model.safetensors")
    expected = tensors_of(deployed_model(*read_run(state / "run")))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert sum(path.stat().st_size for path in parts.iterdir()) < (tmp_path / "model.safetensors").stat().st_size


def test_missing_packed_data_are_named(tmp_path: Path) -> None:
    arguments = ("run", "--packed", tmp_path, "--state", tmp_path / "s", "--weights", tmp_path / "w")
    result = call(*arguments)
    assert result.exit_code == 1
    assert "packed data in" in result.output
