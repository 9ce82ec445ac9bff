"""`acert-zoo verify`: exit 0 only where every line was proved again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from acert_zoo.certificates.file import format_file, read_file
from acert_zoo.data.samples import sample_arrays
from acert_zoo.exact_numbers import shortest_down
from tests.support.cli import cifar_model, make_data, make_zoo, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


@pytest.fixture
def saved(zoo: str, tmp_path: Path) -> Path:
    """Certificates of the first 20 bundled images."""
    path = tmp_path / "saved.jsonl"
    assert run("certify", "--model", zoo, "--limit", "20", "--out", path).exit_code == 0
    return path


def rewrite(path: Path, **changes: object) -> int:
    """Changes the first line that claims a radius, with a fitting checksum; returns its line number in the file."""
    import dataclasses

    file = read_file(path)
    lines = list(file.lines)
    k = next(i for i, line in enumerate(lines) if float(line.radius) > 0)
    lines[k] = dataclasses.replace(lines[k], **changes)  # type: ignore[arg-type]
    path.write_bytes(format_file(file.header, lines))
    return k + 2


def first_radius(path: Path) -> float:
    return next(float(line.radius) for line in read_file(path).lines if float(line.radius) > 0)


def test_what_certify_saved_is_proved(saved: Path) -> None:
    result = run("verify", saved)
    assert result.exit_code == 0
    assert f"{saved}: every line proved" in result.stdout
    report = json.loads(run("verify", saved, "--json", "--jobs", "2").stdout)
    assert report["ok"] is True
    assert report["counts"]["proved"] == sum(float(line.radius) > 0 for line in read_file(saved).lines) > 0


def test_a_radius_raised_by_one_percent_is_named_and_fails(saved: Path) -> None:
    number = rewrite(saved, radius=shortest_down(1.01 * first_radius(saved)))
    result = run("verify", saved)
    assert result.exit_code == 1
    assert "NOT PROVED" in result.stdout
    assert f"line {number} (" in result.stdout
    report = json.loads(run("verify", saved, "--json").stdout)
    assert [line["number"] for line in report["lines"] if line["status"] == "failed"] == [number]


def test_other_weights_fail(saved: Path, tmp_path: Path) -> None:
    import torch

    other = cifar_model()
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    other.save_pretrained(tmp_path / "other")
    result = run("verify", saved, "--model", tmp_path / "other")
    assert result.exit_code == 1
    assert "sha256" in result.stdout


def test_image_files_are_found_where_they_lie_now(zoo: str, tmp_path: Path) -> None:
    images, _ = sample_arrays("cifar10", 3)
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(before / f"{i}.png")
    out = tmp_path / "files.jsonl"
    assert run("certify", "--model", zoo, "--out", out, before).exit_code == 0
    assert run("verify", out).exit_code == 0
    shutil.move(before, after)
    moved = run("verify", out)
    assert moved.exit_code == 1
    assert "--images FOLDER says where it lies now" in moved.stdout
    assert run("verify", out, "--images", after).exit_code == 0
    Image.fromarray(255 - images[1]).save(after / "1.png")
    changed = run("verify", out, "--images", after)
    assert changed.exit_code == 1
    assert "1.png" in changed.stdout
    refused("not both", "verify", out, "--images", after, "--data", "cifar10")


def test_resized_image_files_are_proved_at_their_new_size(zoo: str, tmp_path: Path) -> None:
    images, _ = sample_arrays("cifar10", 1)
    Image.fromarray(images[0]).resize((50, 40)).save(tmp_path / "big.png")
    out = tmp_path / "resized.jsonl"
    assert run("certify", "--model", zoo, "--resize", "--out", out, tmp_path / "big.png").exit_code == 0
    assert "the model takes 32x32" in run("verify", out).stdout
    assert run("verify", out, "--resize").exit_code == 0


def test_the_data_set_is_read_again_and_may_be_named(zoo: str, tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    out = tmp_path / "data.jsonl"
    root = ("--data-root", tmp_path / "data")
    assert run("certify", "--model", zoo, "--data", "cifar10", *root, "--out", out).exit_code == 0
    assert run("verify", out, *root).exit_code == 0
    assert run("verify", out, *root, "--data", "cifar10").exit_code == 0
    assert run("verify", out, *root, "--data", "cifar10", "--split", "val").exit_code == 2


def test_what_is_no_certificate_file_is_refused(saved: Path, tmp_path: Path) -> None:
    refused("cannot be read", "verify", tmp_path / "missing.jsonl")
    (tmp_path / "text.jsonl").write_text("hello\n")
    refused("is not a certificate file", "verify", tmp_path / "text.jsonl")
    content = saved.read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(content[:-5])
    refused("truncated", "verify", tmp_path / "torn.jsonl")


def test_a_model_outside_the_zoo_has_to_be_given(tmp_path: Path) -> None:
    cifar_model("elsewhere").save_pretrained(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    assert run("certify", "--model", tmp_path / "model", "--limit", "10", "--out", out).exit_code == 0
    refused("(--model)", "verify", out)
    assert run("verify", out, "--model", tmp_path / "model").exit_code == 0
