"""Proving a file again: honest files pass, every kind of change is told, and nothing of the search is used."""

from __future__ import annotations

import ast
import json
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from acert_zoo import certify
from acert_zoo.cascades.cascade import Cascade
from acert_zoo.certificates import verify
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.verify import claimed_radius, verify_file
from acert_zoo.data.image_files import load_images
from acert_zoo.errors import CertificateFileError, DatasetNotFoundError, InvalidInputError, UnsoundSettingError
from acert_zoo.zoo.model import AcertModel
from tests.support.models import small_model

N = 10


@pytest.fixture(scope="module")
def model() -> AcertModel:
    return small_model(1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def file(model: AcertModel, images: Tensor, tmp_path: Path) -> Path:
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    path = tmp_path / "c.jsonl"
    certify(model, images, labels).save(path)
    return path


def edit(path: Path, row: int, *, seal: bool = True, **changes: Any) -> None:
    """Changes keys of one line; `seal`: with a checksum that fits, as a forger would."""
    rows = path.read_text().splitlines()
    values = json.loads(rows[row]) | changes
    crc = values.pop("crc32")
    text = json.dumps(values)[:-1]
    rows[row] = f'{text}, "crc32": "{zlib.crc32(text.encode()) if seal else int(crc, 16):08x}"}}'
    path.write_text("\n".join(rows) + "\n")


def values_of(path: Path, row: int) -> dict[str, Any]:
    return json.loads(path.read_text().splitlines()[row])


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_honest_file(file: Path, model: AcertModel, images: Tensor, jobs: int) -> None:
    seen: list[tuple[int, int]] = []
    report = verify_file(file, model=model, images=images, jobs=jobs, progress=lambda *p: seen.append(p))
    assert report.ok
    assert report.counts == {"proved": N - 1, "nothing claimed": 1, "not re-proved": 0, "failed": 0}
    assert [line.number for line in report.lines] == list(range(2, N + 2))
    assert report.lines[0].status == "nothing claimed"
    assert all(line.margin > 0 for line in report.lines[1:])
    assert seen[-1] == (N, N)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.parametrize("seal", [True, False])
def test_a_raised_radius(file: Path, model: AcertModel, images: Tensor, seal: bool) -> None:
    raised = float(Fraction(values_of(file, 4)["radius"]) * Fraction(101, 100))
    edit(file, 4, radius=repr(raised), seal=seal)
    report = verify_file(file, model=model, images=images)
    assert not report.ok
    (bad,) = report.bad_lines
    assert (bad.number, bad.status) == (5, "failed")
    assert any("is not proved within" in reason for reason in bad.reasons)
    assert any("altered" in reason for reason in bad.reasons) != seal


@pytest.mark.parametrize("seal", [True, False])
def test_a_changed_pixel(file: Path, model: AcertModel, images: Tensor, seal: bool) -> None:
    other = images.clone()
    other[3, 1, 2, 4] = torch.nextafter(other[3, 1, 2, 4], torch.tensor(0.0))
    (bad,) = verify_file(file, model=model, images=other).bad_lines
    assert bad.number == 5
    assert "other pixels" in bad.reasons[0]
    edit(file, 6, pixel_sha256="0" * 64, seal=seal)
    assert [line.number for line in verify_file(file, model=model, images=images).bad_lines] == [7]


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize("keys", [["label"], ["prediction"], ["label", "prediction"]])
def test_a_changed_label(file: Path, model: AcertModel, images: Tensor, keys: list[str], seal: bool) -> None:
    wrong = (values_of(file, 3)["label"] + 1) % 4
    edit(file, 3, **dict.fromkeys(keys, wrong), seal=seal)
    (bad,) = verify_file(file, model=model, images=images).bad_lines
    assert (bad.number, bad.status) == (4, "failed")


def test_a_prediction_of_a_misclassified_image(file: Path, model: AcertModel, images: Tensor) -> None:
    edit(file, 1, prediction=values_of(file, 1)["label"])
    (bad,) = verify_file(file, model=model, images=images).bad_lines
    assert "the model answers" in bad.reasons[0]


def test_a_class_the_model_does_not_have(file: Path, model: AcertModel, images: Tensor) -> None:
    edit(file, 2, label=7, prediction=7)
    (bad,) = verify_file(file, model=model, images=images).bad_lines
    assert "classes 0 to 3" in bad.reasons[0]


def test_a_margin_larger_than_proved(file: Path, model: AcertModel, images: Tensor) -> None:
    edit(file, 2, margin=1.0)
    (bad,) = verify_file(file, model=model, images=images).bad_lines
    assert "margin" in bad.reasons[0]


@pytest.mark.parametrize("key", ["weights_sha256", "network_sha256"])
@pytest.mark.parametrize("seal", [True, False])
def test_another_digest(file: Path, model: AcertModel, images: Tensor, key: str, seal: bool) -> None:
    edit(file, 0, **{key: "0" * 64}, seal=seal)
    report = verify_file(file, model=model, images=images)
    assert not report.ok
    assert any("0" * 64 in failure for failure in report.failures)


def test_other_weights(file: Path, images: Tensor) -> None:
    report = verify_file(file, model=small_model(2), images=images)
    assert not report.ok
    assert len(report.failures) == 2
    assert report.counts["failed"] > 0


def test_a_header_that_claims_another_rounding_does_not_strengthen_lines(
    model: AcertModel, images: Tensor, tmp_path: Path
) -> None:
    """Each line says its level; at `float32` the rigorous proofs are tried, or the line does not count."""
    path = tmp_path / "c.jsonl"
    certify(model, images, rounding="float32").save(path)
    honest = verify_file(path, model=model, images=images)
    assert honest.counts["failed"] == 0
    assert honest.counts["proved"] + honest.counts["not re-proved"] == N
    edit(path, 1, radius="0.9", method="crown")
    report = verify_file(path, model=model, images=images)
    assert report.lines[0].status == "not re-proved"
    assert "crown" in report.lines[0].reasons[1]
    assert not report.ok
    edit(path, 1, radius="0.000001", method="crown")
    assert verify_file(path, model=model, images=images).lines[0].status == "proved"


def test_float32_deployed_lines(model: AcertModel, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    certify(model, images, rounding="float32-deployed").save(path)
    assert verify_file(path, model=model, images=images).ok
    strong = values_of(path, 2)["radius"]
    weaker = certify(model, images).lines()[1].radius
    assert float(strong) < float(weaker)
    edit(path, 2, radius=weaker)  # true of the real-valued network, not proved of the float32 program
    assert not verify_file(path, model=model, images=images).ok


def test_cascades(images: Tensor, tmp_path: Path) -> None:
    cascade = Cascade([small_model(1), small_model(2)], ["1/2550"]).eval()
    path = tmp_path / "c.jsonl"
    result = certify(cascade, images)
    assert (result.radius > 0).any()
    result.save(path)
    assert torch.equal(Certificates.load(path).radius, result.radius)
    assert verify_file(path, model=cascade, images=images).ok
    row = 1 + int(result.radius.argmax())
    edit(path, row, radius=repr(1.01 * float(values_of(path, row)["radius"])))
    assert [line.number for line in verify_file(path, model=cascade, images=images).bad_lines] == [row + 1]


def test_the_route_that_a_line_names(model: AcertModel, images: Tensor, file: Path, tmp_path: Path) -> None:
    gate = float(certify(model, images).radius.median()) * 1.001
    cascade = Cascade([small_model(1), small_model(2)], [gate]).eval()
    path = tmp_path / "cascade.jsonl"
    result = certify(cascade, images)
    for row in (result.route.index(0) + 1, result.route.index(1) + 1):
        for wrong in (1 - result.route[row - 1], 2, -1, "1", True, [[[0]]], None):
            result.save(path)
            edit(path, row, route=wrong)
            report = verify_file(path, model=cascade, images=images)
            assert [line.number for line in report.bad_lines] == [row + 1], wrong
            if wrong is not None:
                assert "is said to answer" in report.bad_lines[0].reasons[0]
    result.save(path)
    edit(path, 1, margin=0.5)
    (bad,) = verify_file(path, model=cascade, images=images).bad_lines
    assert "margin" in bad.reasons[0]
    edit(file, 2, route=0)  # of a model that is one network
    (bad,) = verify_file(file, model=model, images=images).bad_lines
    assert "one network" in bad.reasons[0]


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


def test_arguments(file: Path, model: AcertModel, images: Tensor) -> None:
    with pytest.raises(InvalidInputError, match="jobs"):
        verify_file(file, model=model, images=images, jobs=0)
    with pytest.raises(InvalidInputError, match="certifies 10 images, 9 were given"):
        verify_file(file, model=model, images=images[:9])
    with pytest.raises(UnsoundSettingError, match="eval"):
        verify_file(file, model=small_model(1).train(), images=images)
    edit(file, 0, model=None, model_version=None)
    with pytest.raises(InvalidInputError, match="names no registered model"):
        verify_file(file, images=images)


def test_damaged_files_are_errors(file: Path, model: AcertModel, images: Tensor) -> None:
    content = file.read_bytes()
    rows = content.splitlines(keepends=True)
    damaged = [
        content[:-5],
        b"".join(rows[:-1]),
        b"".join([*rows, rows[-1]]),
        b"",
        content.replace(b'"radius": "', b'"radius": "NaN'),
    ]
    damaged.append(content.replace(b'"schema_version": 1', b'"schema_version": 2'))
    for bad in damaged:
        file.write_bytes(bad)
        with pytest.raises(CertificateFileError):
            verify_file(file, model=model, images=images)


def test_claimed_radius_covers_text_and_reading() -> None:
    for text in ("0.3", "0.1", "0.0078431372549019", "1e-320", "0.0", "1"):
        assert Fraction(claimed_radius(text)) >= Fraction(text)
        assert claimed_radius(text) >= float(text)


def test_verification_shares_nothing_with_the_search() -> None:
    source = Path(verify.__file__).read_text()
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module}
    assert "acert_zoo.bounds.rigorous_ibp" in imported
    assert not imported & {"acert_zoo.bounds.radius_search", "acert_zoo.bounds.ibp", "acert_zoo.certificates.certify"}
