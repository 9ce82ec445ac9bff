"""`acert-zoo export`, and `certify --onnx` on what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import acert_zoo
from acert_zoo.data.samples import sample_arrays
from tests.support.cli import make_zoo, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


def test_an_exported_network_has_the_same_certificates(zoo: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    network = tmp_path / "network.onnx"
    written = run("export", zoo, "--onnx", network)
    assert (written.exit_code, written.stdout) == (0, f"wrote {network}\n")
    picture = tmp_path / "picture.png"
    Image.fromarray(sample_arrays("cifar10", 1)[0][0]).save(picture)
    there, here = (
        json.loads(run("certify", *model, "--json", picture).stdout)["images"][0]
        for model in (("--onnx", network), ("--model", zoo))
    )
    assert there["prediction"] == here["prediction"]
    assert there["radius"] == pytest.approx(here["radius"], rel=1e-5)
    assert there["radius"] > 0
    refused("names no data set", "certify", "--onnx", network)
    refused("--force", "export", zoo, "--onnx", network)
    assert run("export", zoo, "--onnx", network, "--force").exit_code == 0


def test_certificates_of_an_onnx_file_are_verified_against_it(zoo: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    network, picture, out = tmp_path / "network.onnx", tmp_path / "picture.png", tmp_path / "out.jsonl"
    run("export", zoo, "--onnx", network)
    Image.fromarray(sample_arrays("cifar10", 1)[0][0]).save(picture)
    assert run("certify", "--onnx", network, "--out", out, picture).exit_code == 0
    refused("(--model)", "verify", out)
    assert run("verify", out, "--onnx", network).exit_code == 0


def test_one_property_for_each_image_that_is_classified_as_labelled(zoo: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = tmp_path / "properties"
    images, labels = acert_zoo.sample_data("cifar10", 40)
    right = (acert_zoo.load_model(zoo)(images).argmax(1) == labels).nonzero().flatten().tolist()
    assert 0 < len(right) < 40
    written = run("export", zoo, "--vnnlib", folder, "--eps", "2/255", "--limit", "40")
    note = f"({40 - len(right)} images that the model does not classify as labelled left out)"
    assert (written.exit_code, written.stdout) == (0, f"wrote {len(right)} properties to {folder} {note}\n")
    assert len((folder / "instances.csv").read_text().splitlines()) == len(right)
    refused("--force", "export", zoo, "--vnnlib", folder, "--eps", "2/255", "--limit", "40")
    few = str(right[0] + 1)
    assert run("export", zoo, "--vnnlib", folder, "--eps", "2/255", "--limit", few, "--force").exit_code == 0
    assert [f.name for f in (folder / "vnnlib").iterdir()] == [f"property_{right[0]}.vnnlib"]


def test_bad_input_is_refused(zoo: str, tmp_path: Path) -> None:
    refused("Name what to write", "export", zoo)
    refused("--vnnlib needs --eps", "export", zoo, "--vnnlib", tmp_path / "v")
    refused("eps '2/0'", "export", zoo, "--vnnlib", tmp_path / "v", "--eps", "2/0")
    refused("does not exist", "export", "unknown", "--onnx", tmp_path / "missing" / "n.onnx")
    (tmp_path / "file").write_text("")
    refused("is not a folder", "export", zoo, "--vnnlib", tmp_path / "file", "--eps", "0.1")
    refused("did you mean tiny_kappa025", "export", "tiny_kappa25", "--onnx", tmp_path / "n.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"hello")
    refused("broken.onnx", "certify", "--onnx", tmp_path / "broken.onnx")
    refused("missing.onnx", "certify", "--onnx", tmp_path / "missing.onnx")


def test_an_onnx_files_normalisation_and_class_names_are_options(zoo: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    network, picture, out = tmp_path / "network.onnx", tmp_path / "picture.png", tmp_path / "out.jsonl"
    run("export", zoo, "--onnx", network)
    Image.fromarray(sample_arrays("cifar10", 1)[0][0]).save(picture)
    normalised = ("--onnx", network, "--mean", "0.1", "--std", "0.5,0.5,0.5")
    names = ",".join(f"class-{i}" for i in range(10))
    written = run("certify", *normalised, "--classes", names, "--out", out, picture)
    assert written.exit_code == 0
    assert "class-" in written.stdout
    (image,) = json.loads(run("certify", *normalised, "--classes", names, "--json", picture).stdout)["images"]
    assert image["prediction_name"] == f"class-{image['prediction']}"
    assert run("verify", out, *normalised).exit_code == 0
    assert run("verify", out, "--onnx", network).exit_code != 0
    refused("2 names; the model has 10", "certify", "--onnx", network, "--classes", "a,b", picture)
    refused("is not a list of numbers", "certify", "--onnx", network, "--mean", "x", "--std", "1", picture)
    refused("give both mean and std", "certify", "--onnx", network, "--mean", "0.5", picture)
    for option in ("--mean", "--classes"):
        refused("for --onnx", "certify", "--model", zoo, option, "1", picture)
