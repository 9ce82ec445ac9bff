"""The result object: numbers by hand, exact comparison with eps, saving and loading, a sequence of certificates.

Also tested here: certificates/certificate.py.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.lines import Line
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.writer import CertificateWriter
from acert_zoo.errors import CertificateFileError, InvalidInputError
from tests.support.certificates import certificates, header

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False


def test_numbers_by_hand() -> None:
    result = certificates([0.0, 0.25, 0.5, 0.0], [False, True, True, True])
    assert result.accuracy == 0.75
    assert result.acr == 0.1875
    assert result.acr_percent("1/4") == 50.0
    assert result.certified("1/4").tolist() == [False, True, True, False]
    assert result.certified_accuracy(0.3) == 0.25
    assert result.certified(0).tolist() == [False, True, True, False]
    assert len(result) == 4
    assert (result.model, result.rounding, result.norm, result.schema_version) == ("small", "real-sound", "linf", 1)


def test_eps_is_compared_exactly() -> None:
    """fl(2/255) < 2/255: a radius of exactly that float certifies the float, not the fraction."""
    nearest = float(Fraction(2, 255))
    assert Fraction(nearest) < Fraction(2, 255)
    result = certificates([nearest, math.nextafter(nearest, 1)])
    assert result.certified("2/255").tolist() == [False, True]
    assert result.certified(nearest).tolist() == [True, True]


@pytest.mark.parametrize("eps", ["abc", "2/0", -0.1, "-1/255", math.nan, math.inf, None])
def test_bad_eps(eps: object) -> None:
    with pytest.raises(InvalidInputError, match="eps"):
        certificates([0.5]).certified(eps)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        certificates([0.5]).certified_accuracy(eps)  # type: ignore[arg-type]


def test_of_no_images() -> None:
    result = certificates([])
    assert math.isnan(result.accuracy)
    assert math.isnan(result.acr)
    assert result.certified("1/255").shape == (0,)
    document = json.loads(result.to_json())
    assert document["images"] == []
    assert document["acr"] is None
    with pytest.raises(InvalidInputError, match="eps_max > 0"):
        result.acr_percent(0)


def test_fields_of_unequal_length() -> None:
    with pytest.raises(InvalidInputError, match="one entry per image"):
        Certificates(header(), *[torch.zeros(1)] * 4, ["ibp"] * 2, ["float32"], torch.zeros(1), ["0"], ["c" * 64])


def test_to_dict_holds_everything() -> None:
    document = json.loads(certificates([0.3, 0.0]).to_json(indent=1))
    assert document["model"] == "small"
    assert document["schema_version"] == 1
    assert document["n"] == 2
    assert document["accuracy"] == 0.5
    first = document["images"][0]
    assert first["radius"] == 0.3
    assert first["radius_text"] == "0.29999999999999998"
    assert document["images"][1]["margin"] is None


def test_save_and_load(tmp_path: Path) -> None:
    result = certificates([0.3, 0.0, 1.0, 5e-324, 1e-7])
    result.save(tmp_path / "c.jsonl")
    again = Certificates.load(tmp_path / "c.jsonl")
    assert again.header == result.header
    assert torch.equal(again.radius, result.radius)
    assert again.lines() == result.lines()
    assert os.listdir(tmp_path) == ["c.jsonl"]
    result.save(tmp_path / "c.jsonl")  # replaces


def test_save_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        certificates([0.5]).save(tmp_path / "missing" / "c.jsonl")


def test_load_missing(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError, match="cannot be read"):
        Certificates.load(tmp_path / "none.jsonl")
    with pytest.raises(CertificateFileError, match="cannot be read"):
        Certificates.load(tmp_path)


def test_the_header_says_the_weakest_level_that_there_is(tmp_path: Path) -> None:
    """CROWN certificates are found at levels that are known only when they are there; until then the worst is said."""
    path, possible = tmp_path / "c.jsonl", header(method="crown", rounding="float32")
    first, second = certificates([0.25, 0.5]).lines()

    def run(ids: list[str], lines: list[Line]) -> str:
        with CertificateWriter(path, possible) as writer:
            writer.expect(ids)
            writer.append(lines)
            before = read_file(path, partial=True).header.rounding
            writer.finish()
        assert read_file(path, partial=True).header.rounding == writer.header.rounding
        return f"{before}, {writer.header.rounding}"

    assert run([first.id, second.id], [first]) == "float32, float32"  # broken off
    assert run([first.id, second.id], [second]) == "float32, real-sound"
    assert run([first.id], []) == "real-sound, real-sound"
    third = dataclasses.replace(first, id="more", rounding="float64")
    assert run(["more"], [third]) == "float32, float64"
    assert Certificates.load(path).rounding == "float64"


def test_a_sequence_of_certificates() -> None:
    result = certificates([0.0, 0.1, 2 / 255])
    first, last = result[0], result[-1]
    assert [one.id for one in result] == result.ids
    assert (first.radius, first.label, first.rounding) == (result.radius[0], result.label[0], result.roundings[0])
    assert last == list(result)[-1]
    assert first.correct == bool(result.correct[0])
    for eps in ("2/255", 0.1, 0):
        assert [one.certified(eps) for one in result] == result.certified(eps).tolist()
    with pytest.raises(IndexError):
        result[len(result)]
