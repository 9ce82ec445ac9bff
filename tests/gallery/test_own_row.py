"""`acert-zoo evaluate`: a model of one's own as a row of the gallery.

Also tested here: cli/evaluate.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from acert_zoo.data.registration import dataset_info
from acert_zoo.gallery.eps_grid import eps_grid
from acert_zoo.network.architectures import build
from tests.support.cli import refused, run

SIZES = {"width": 1, "hidden": 4}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    info = dataset_info("mnist")
    facts = {"input_shape": info.input_shape, "num_classes": 10, "mean": info.mean, "std": info.std}
    torch.manual_seed(0)
    path = tmp_path / "mine.safetensors"
    save_file(build("cnn7", **facts, **SIZES).state_dict(), path)
    return path


def command(weights: Path, *more: object) -> list[object]:
    sizes = json.dumps(SIZES)
    return ["evaluate", "--state-dict", weights, "--arch", "cnn7", "--arch-args", sizes, "--dataset", "mnist", *more]


def test_the_row_of_a_state_dict_is_what_certify_says(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "row.json"
    done = run(*command(weights, "--samples", "--out", out))
    assert done.exit_code == 0, done.output
    row = json.loads(out.read_text())
    grid = eps_grid(dataset_info("mnist"))
    assert (row["name"], row["dataset"], row["n"], row["rounding"]) == ("mine", "mnist", 100, "real-sound")
    assert len(row["counts"]) == grid.last + 1
    assert row["counts"] == sorted(row["counts"], reverse=True)
    assert 0 < row["counts"][0] <= round(row["accuracy"] * row["n"] / 100)
    for eps, value in row["certified_accuracy"].items():
        assert value == pytest.approx(100 * row["counts"][int(float(eps) / float(grid.step) + 0.5)] / row["n"])
    with safe_open(weights, "pt") as file:
        stored = [file.get_tensor(key) for key in file.keys() if key.endswith(("weight", "bias"))]  # noqa: SIM118
    assert row["parameters"] == sum(t.numel() for t in stored)


def test_a_model_of_the_zoo_gets_a_row_too(tmp_path: Path) -> None:
    out = tmp_path / "row.json"
    arguments = ("--model", "mnist_kappa000", "--dataset", "mnist", "--samples", "--limit", "5", "--out", out)
    assert run("evaluate", *arguments).exit_code == 0
    row = json.loads(out.read_text())
    assert (row["name"], row["n"]) == ("mnist_kappa000", 5)


def test_mistakes_are_named(weights: Path, tmp_path: Path) -> None:
    refused("Name one model", "evaluate", "--dataset", "mnist")
    refused("go together", "evaluate", "--state-dict", weights, "--dataset", "mnist")
    refused("not JSON", *command(weights, "--arch-args", "{", "--samples"))
    refused("unexpected keyword", *command(weights, "--arch-args", '{"depth": 3}', "--samples"))
    refused("must have shape", *command(weights, "--arch-args", '{"width": 2, "hidden": 4}', "--samples"))
    pickled = tmp_path / "mine.pt"
    pickled.write_bytes(b"not opened")
    refused("convert it once", *command(pickled, "--samples"))
    refused("does not exist", *command(weights, "--samples", "--out", tmp_path / "no" / "row.json"))
