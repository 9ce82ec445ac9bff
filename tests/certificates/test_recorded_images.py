"""The images that a file's ids name: found where they lie, and refused by name where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from acert_zoo import certify
from acert_zoo.certificates.verify import verify_file
from acert_zoo.data.image_files import load_images
from acert_zoo.errors import DatasetNotFoundError, InvalidInputError
from acert_zoo.zoo.model import AcertModel
from tests.support.certificates import edit


def test_images_by_name(file: Path, model: AcertModel, images: Tensor) -> None:
    named = {str(i): image for i, image in enumerate(images)}
    assert verify_file(file, model=model, images=named).ok
    del named["4"]
    (bad,) = verify_file(file, model=model, images=named).bad_lines
    assert "its image is not there" in bad.reasons[0]


def test_images_in_a_folder(model: AcertModel, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(3)]
    for seed, path in enumerate(paths):
        pixels = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    out = tmp_path / "c.jsonl"
    certify(model, load_images(paths, (3, 8, 8)), ids=[str(p) for p in paths], out=out)
    assert verify_file(out, model=model).ok
    moved = folder.rename(tmp_path / "moved")
    assert [line.status for line in verify_file(out, model=model).lines] == ["failed"] * 3
    assert verify_file(out, model=model, images=moved).ok
    with pytest.raises(InvalidInputError, match="does not exist"):
        verify_file(out, model=model, images=folder)


def test_named_data_set(model: AcertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids index the data set, whose own labels must be the lines'; MNIST pixels do not fit, which is told."""
    monkeypatch.delenv("ACERT_ZOO_DATA", raising=False)
    out = tmp_path / "c.jsonl"
    certify(model, torch.rand(2, 3, 8, 8), dataset="mnist", split="samples", ids=["0", "100000"], out=out)
    report = verify_file(out, model=model)
    assert [line.status for line in report.lines] == ["failed"] * 2
    assert "no image" in report.lines[1].reasons[0]
    edit(out, 0, split="test")
    with pytest.raises(DatasetNotFoundError):
        verify_file(out, model=model, data_root=tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_ids_that_no_image_can_have(model: AcertModel, images: Tensor, tmp_path: Path) -> None:
    """A pipe would block for ever; a folder, a NUL byte, a far index must not end in an exception of Python either."""
    os.mkfifo(tmp_path / "pipe.png")
    names = [str(tmp_path / "pipe.png"), str(tmp_path), "a\0b.png", "/dev/zero", "lost.png"]
    out = tmp_path / "c.jsonl"
    certify(model, images[:5], ids=names, out=out)
    report = verify_file(out, model=model)
    assert [line.status for line in report.lines] == ["failed"] * 5
    assert all("there is no image file" in line.reasons[0] for line in report.lines)
    assert "--images" in report.lines[4].reasons[0]
    edit(out, 0, dataset="mnist", split="samples")
    for row, index in enumerate(["000000000000000000009", "100", "01", "-1", "9" * 300], start=1):
        edit(out, row, id=index)
    assert all("has no image" in line.reasons[0] for line in verify_file(out, model=model).lines)


def test_images_of_other_types(file: Path, model: AcertModel, images: Tensor) -> None:
    assert verify_file(file, model=model, images=images.numpy()).ok
    assert verify_file(file, model=model, images={str(i): x.numpy() for i, x in enumerate(images)}).ok
    with pytest.raises(InvalidInputError, match="images must be a tensor"):
        verify_file(file, model=model, images=[1, 2])
    report = verify_file(file, model=model, images={str(i): "x.png" for i in range(10)})
    assert all("must be a tensor" in line.reasons[0] for line in report.lines)
