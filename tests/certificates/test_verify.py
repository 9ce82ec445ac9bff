"""Proving a file again: honest files pass, every kind of change is told, and the search is not used.

Also tested here: certificates/model_verifiers.py, certificates/verify_report.py.
"""

from __future__ import annotations

import ast
import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acert_zoo import certify
from acert_zoo.cascades.cascade import Cascade
from acert_zoo.certificates import model_verifiers, verify
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.verify import claimed_radius, verify_file
from acert_zoo.errors import (
    CertificateFileError,
    DownloadError,
    InvalidInputError,
    UnsoundSettingError,
)
from acert_zoo.zoo.model import AcertModel
from tests.support.certificates import edit, values_of
from tests.support.models import small_model

N = 10


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


def test_verification_does_not_use_the_search() -> None:
    """Neither verify's own modules nor what they import for a network reach it."""
    imported: set[str] = set()
    for module in (verify, model_verifiers):
        tree = ast.parse(Path(module.__file__).read_text())
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert "acert_zoo.bounds.rigorous_ibp" in imported
    search = {"radius_search", "root_finding", "proved_margins", "box_changes", "crown_radius"}
    assert not imported & {*(f"acert_zoo.bounds.{name}" for name in search), "acert_zoo.certificates.certify"}


def test_windows_line_ends_and_byte_order_mark(file: Path, model: AcertModel, images: Tensor) -> None:
    content = file.read_bytes()
    for changed in (content.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + content):
        file.write_bytes(changed)
        assert verify_file(file, model=model, images=images).ok
    file.write_bytes(content.replace(b"\n", b"\r"))
    with pytest.raises(CertificateFileError):
        verify_file(file, model=model, images=images)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\0\0", b"{}\n", b"hello\nworld\n", b"[1]\n", b"hello", b"\xff\n"]
)
def test_what_is_not_a_certificate_file_is_called_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(CertificateFileError, match="other is not a certificate file"):
        verify_file(path)
    with pytest.raises(CertificateFileError, match="cannot be read"):
        verify_file(tmp_path)


def test_a_file_sends_nobody_to_the_network(
    file: Path, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered names alone are loaded, from this machine; more has to be asked for."""
    asked: list[tuple[str, bool]] = []

    def load(name: str, *, local_files_only: bool) -> AcertModel:
        asked.append((name, local_files_only))
        raise DownloadError("not in the local cache")

    monkeypatch.setattr("acert_zoo.zoo.load.load_model", load)
    for name in ("hf-hub:owner/repo", "owner/repo", str(tmp_path), "../model.safetensors", "cifar10_kappa999"):
        edit(file, 0, model=name, model_version=None)
        with pytest.raises(InvalidInputError, match="no model of the zoo"):
            verify_file(file, images=images, download=True)
    assert asked == []
    edit(file, 0, model="mnist_kappa000", model_version=1)
    with pytest.raises(DownloadError, match="--download"):
        verify_file(file, images=images)
    with pytest.raises(DownloadError, match=r"cache$"):
        verify_file(file, images=images, download=True)
    assert asked == [("mnist_kappa000.v1", True), ("mnist_kappa000.v1", False)]
