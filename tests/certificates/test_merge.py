"""Merging: lines unchanged and in order, and every reason to refuse names both files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acert_zoo.certificates.certificate import Certificate
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.certificates.merge import merge_files
from acert_zoo.certificates.results import Certificates
from acert_zoo.errors import CertificateFileError, InvalidInputError

DIGEST = "0" * 64


def write(path: Path, ids: list[str], **changes: object) -> Path:
    """A file with one certificate of radius 0.25 for each id."""
    values: dict[str, object] = {"model": "m", "model_version": 1, "weights_sha256": DIGEST, "network_sha256": DIGEST}
    values |= {"package_version": "0.1", "method": "ibp", "rounding": "real-sound", "certifies": "label"}
    values |= {"dataset": "cifar10", "split": "test", "n": len(ids), "created": "2026-01-02T00:00:00+00:00"}
    header = Header(**(values | changes))  # type: ignore[arg-type]
    lines = [
        Line(
            id=name,
            pixel_sha256=DIGEST,
            label=3,
            prediction=3,
            certifies=header.certifies,
            radius="0.25",
            margin=1.0,
            method=header.method,
            rounding=header.rounding,
            seconds=0.5,
        )
        for name in ids
    ]
    Certificates.from_lines(header, lines).save(path)
    return path


def test_two_halves_become_one_whole_whatever_their_order(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.jsonl", [str(i) for i in range(12)])
    first = write(tmp_path / "first.jsonl", [str(i) for i in range(5)])
    second = write(tmp_path / "second.jsonl", [str(i) for i in range(5, 12)])
    for order in ((first, second), (second, first)):
        merged = merge_files(order, tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
        assert (merged.header.n, merged.files, merged.missing) == (12, 2, 0)


def test_lines_that_interleave_are_sorted_and_gaps_are_counted(tmp_path: Path) -> None:
    odd = write(tmp_path / "odd.jsonl", ["1", "3", "11"])
    even = write(tmp_path / "even.jsonl", ["0", "2", "10"])
    merged = merge_files([odd, even], tmp_path / "out.jsonl")
    assert Certificates.load(tmp_path / "out.jsonl").ids == ["0", "1", "2", "3", "10", "11"]
    assert merged.missing == 6


def test_paths_are_in_the_order_of_folders(tmp_path: Path) -> None:
    """As `image_paths` has it: "a/z" before "a-b/c", although "-" comes before "/"."""
    late = write(tmp_path / "x.jsonl", ["r/a-b/c.png", "r/b/a.png"])
    early = write(tmp_path / "y.jsonl", ["r/a/y.png", "r/a/z.png"])
    merge_files([late, early], tmp_path / "out.jsonl")
    assert Certificates.load(tmp_path / "out.jsonl").ids == ["r/a/y.png", "r/a/z.png", "r/a-b/c.png", "r/b/a.png"]


def test_ids_in_no_order_keep_that_of_the_files(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ["b", "a"])
    two = write(tmp_path / "two.jsonl", ["d", "c"])
    merge_files([two, one], tmp_path / "out.jsonl")
    assert Certificates.load(tmp_path / "out.jsonl").ids == ["d", "c", "b", "a"]


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "b.jsonl", ["2", "3"])
    write(tmp_path / "run" / "a.jsonl", ["0", "1"])
    (tmp_path / "run" / "notes.json").write_text("{}")
    merge_files([tmp_path / "run"], tmp_path / "out.jsonl")
    merged = Certificates.load(tmp_path / "out.jsonl")
    assert merged.ids == ["0", "1", "2", "3"]
    assert isinstance(merged[0], Certificate)
    assert torch.equal(merged.radius, torch.full((4,), 0.25, dtype=torch.float64))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CertificateFileError, match="holds no certificate file"):
        merge_files([tmp_path / "empty"], tmp_path / "out.jsonl")


def test_an_image_in_two_files_is_refused_by_name(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ["0", "1"])
    two = write(tmp_path / "two.jsonl", ["1", "2"])
    with pytest.raises(CertificateFileError, match=r"image '1' is both in '.*one\.jsonl' and in '.*two\.jsonl'"):
        merge_files([one, two], tmp_path / "out.jsonl")
    with pytest.raises(CertificateFileError, match="image '0' is both in"):
        merge_files([one, one], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"model_version": 2},
        {"weights_sha256": "1" * 64},
        {"network_sha256": "1" * 64},
        {"method": "crown"},
        {"rounding": "float32"},
        {"certifies": "prediction"},
        {"dataset": "mnist"},
        {"split": "val"},
    ],
)
def test_another_run_is_refused_by_name_and_leaves_the_output_as_it_was(
    tmp_path: Path, change: dict[str, object]
) -> None:
    one = write(tmp_path / "one.jsonl", ["0"])
    two = write(tmp_path / "two.jsonl", ["1"], **change)
    (tmp_path / "out.jsonl").write_text("kept")
    ((name, value),) = change.items()
    with pytest.raises(CertificateFileError, match=rf"one\.jsonl' and '.*two\.jsonl' are .*{name}: .*{value}"):
        merge_files([one, two], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "kept"


def test_incomplete_and_altered_files_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ["0", "1"])
    content = one.read_bytes()
    one.write_bytes(b"\n".join(content.split(b"\n")[:2]) + b"\n")
    with pytest.raises(CertificateFileError, match="holds 1 certificates where its header announces 2"):
        merge_files([one], tmp_path / "out.jsonl")
    one.write_bytes(content.replace(b'"0.25"', b'"0.26"'))
    with pytest.raises(CertificateFileError, match="line 2: its checksum does not fit"):
        merge_files([one], tmp_path / "out.jsonl")
    with pytest.raises(CertificateFileError, match="cannot be read"):
        merge_files([tmp_path / "missing.jsonl"], tmp_path / "out.jsonl")
    with pytest.raises(InvalidInputError, match="at least one"):
        merge_files([], tmp_path / "out.jsonl")


def test_files_with_line_ends_of_windows_merge_to_plain_ones(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ["0", "1"])
    plain = one.read_bytes()
    one.write_bytes(plain.replace(b"\n", b"\r\n"))
    merge_files([one], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == plain


def test_a_full_disk_leaves_the_output_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one.jsonl", ["0", "1"])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InvalidInputError, match="No space left on device"):
        merge_files([one], tmp_path / "out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["one.jsonl"]
