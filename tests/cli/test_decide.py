"""`acert-zoo decide`, and `acert-zoo verify` on what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support.cli import refused, run
from tests.support.models import SHAPE, small_model


def test_decide_then_verify(tmp_path: Path) -> None:
    small_model(1).save_pretrained(tmp_path / "model")
    pixels = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))[1]
    array = (pixels.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "image.png")
    out = tmp_path / "verdicts.jsonl"
    model, image = str(tmp_path / "model"), str(tmp_path / "image.png")
    shown = run("decide", image, "--model", model, "--eps", "1/64", "--out", str(out), "--json")
    document = json.loads(shown.stdout)
    assert shown.exit_code == 0
    assert document["counts"] == {"robust": 1, "not robust": 0, "undecided": 0}
    checked = run("verify", str(out), "--model", model)
    assert checked.exit_code == 0
    assert "every verdict holds" in checked.stdout
    out.write_text(out.read_text().replace('"eps": "1/64"', '"eps": "1/2"'))
    again = run("verify", str(out), "--model", model)
    assert again.exit_code == 1
    assert "not proved" in again.stdout


def test_images_of_an_array_file_are_named_again(tmp_path: Path) -> None:
    model, array, out = (str(tmp_path / name) for name in ("model", "images.npy", "verdicts.jsonl"))
    small_model(1).save_pretrained(model)
    pixels = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))[1:2]
    np.save(array, pixels.numpy())
    assert run("decide", "--data", array, "--model", model, "--eps", "1/64", "--out", out).exit_code == 0
    assert run("verify", out, "--model", model, "--data", array).exit_code == 0
    np.save(array, pixels.numpy() / 2)
    refused = run("verify", out, "--model", model, "--data", array)
    assert refused.exit_code == 1
    assert "line 2 (0): failed" in refused.stdout


def test_eps_must_be_a_radius() -> None:
    refused("eps 'two'", "decide", "--model", "mnist_kappa000", "--eps", "two")
