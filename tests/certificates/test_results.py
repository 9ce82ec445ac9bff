"""The result object and its file: numbers by hand, exact comparison with eps, writing and reading back."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.certificates.file import format_file, parse, read_file
from acert_zoo.certificates.lines import Header, Line, radius_text
from acert_zoo.certificates.results import Certificates
from acert_zoo.certificates.writer import CertificateWriter
from acert_zoo.errors import CertificateFileError, InvalidInputError
from acert_zoo.rounding import weakest

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False


def header(**changes: object) -> Header:
    values = {
        "package_version": "0.1.0",
        "model": "small",
        "model_version": 1,
        "weights_sha256": "a" * 64,
        "network_sha256": "b" * 64,
        "method": "ibp",
        "rounding": "real-sound",
        "certifies": "label",
        "dataset": None,
        "split": None,
        "n": 0,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Header(**(values | changes))  # type: ignore[arg-type]


def certificates(radii: list[float], correct: list[bool] | None = None) -> Certificates:
    n = len(radii)
    correct = [r > 0 for r in radii] if correct is None else correct
    return Certificates(
        header=header(n=n),
        radius=torch.tensor(radii, dtype=torch.float64),
        margin=torch.tensor([0.5 if r > 0 else math.nan for r in radii], dtype=torch.float64),
        prediction=torch.zeros(n, dtype=torch.int64),
        label=torch.tensor([0 if c else 1 for c in correct], dtype=torch.int64),
        method=["ibp"] * n,
        roundings=["real-sound"] * n,
        seconds=torch.full((n,), 0.25, dtype=torch.float64),
        ids=[f"image {i}" for i in range(n)],
        pixel_sha256=["c" * 64] * n,
    )


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


@given(st.floats(0, 1))
def test_radius_text_claims_no_more(radius: float) -> None:
    text = radius_text(radius)
    assert Fraction(text) <= Fraction(radius)
    assert float(text) == radius


def test_save_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        certificates([0.5]).save(tmp_path / "missing" / "c.jsonl")


def test_load_missing(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError, match="cannot be read"):
        Certificates.load(tmp_path / "none.jsonl")
    with pytest.raises(CertificateFileError, match="cannot be read"):
        Certificates.load(tmp_path)


def test_incomplete_file(tmp_path: Path) -> None:
    content = format_file(header(n=2), certificates([0.5, 0.25]).lines())
    rows = content.splitlines(keepends=True)
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"".join(rows[:2]))
    with pytest.raises(CertificateFileError, match="holds 1 certificates where its header announces 2"):
        Certificates.load(path)
    assert Certificates.load(path, partial=True).radius.tolist() == [0.5]
    path.write_bytes(content[:-20])
    with pytest.raises(CertificateFileError, match="ends in the middle of line 3"):
        Certificates.load(path)
    file = read_file(path, partial=True)
    assert file.torn
    assert not file.complete
    assert len(file.lines) == 1


def line(**changes: object) -> Line:
    values = vars(certificates([0.5]).lines()[0])
    return Line(**(values | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": "NaN"}, "radius"),
        ({"radius": "1.5"}, "radius"),
        ({"radius": "-0.1"}, "radius"),
        ({"radius": 0.5}, "radius"),
        ({"radius": "0x1"}, "radius"),
        ({"radius": "1e999999999"}, "radius"),
        ({"margin": math.inf}, "margin"),
        ({"margin": 10**400}, "margin"),
        ({"margin": True}, "margin"),
        ({"label": -1}, "label"),
        ({"label": 1.0}, "label"),
        ({"label": 10**30}, "label"),
        ({"prediction": True}, "prediction"),
        ({"pixel_sha256": "C" * 64}, "pixel_sha256"),
        ({"pixel_sha256": "c" * 63}, "pixel_sha256"),
        ({"id": ""}, "id"),
        ({"id": 3}, "id"),
        ({"rounding": "exact"}, "rounding"),
        ({"seconds": -1.0}, "seconds"),
        ({"certifies": "both"}, "certifies"),
    ],
)
def test_a_line_checks_itself(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        line(**change)


@pytest.mark.parametrize(
    "change", [{"label": 1}, {"margin": None}, {"margin": -1.0}, {"certifies": "prediction", "label": 1}]
)
def test_contradictions(change: dict[str, object]) -> None:
    wrong = line(**change)
    assert len(wrong.contradictions()) >= 1
    content = format_file(header(n=1, certifies=wrong.certifies), [wrong])
    with pytest.raises(CertificateFileError, match="line 2"):
        parse(content)
    assert parse(content, keep_altered=True).lines == (wrong,)


def test_a_cascade_has_no_single_margin() -> None:
    assert line(margin=None, route=0).contradictions() == []


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


def test_a_line_weaker_than_the_header_is_refused() -> None:
    (line,) = certificates([0.25]).lines()
    with pytest.raises(CertificateFileError, match="line 2: rounding 'float32' is weaker than the header's"):
        parse(format_file(header(n=1), [dataclasses.replace(line, rounding="float32")]))


@pytest.mark.parametrize("key", ["n", "created", "package_version"])
def test_runs_may_differ_in(key: str) -> None:
    assert header(**{key: 7 if key == "n" else "x"}).differences(header()) == []


@pytest.mark.parametrize(
    ("key", "value"), [("weights_sha256", None), ("rounding", "float32"), ("method", "crown"), ("model_version", 2)]
)
def test_runs_must_agree_in(key: str, value: object) -> None:
    assert header(**{key: value}).differences(header()) == [key]


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


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (torch.tensor([-1]), [2]),
        (np.array([0, 2]), [0, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, True, False]), [1]),
        ([], []),
        (slice(3, 9), []),
    ],
)
def test_some_of_the_certificates(index: Any, rows: list[int]) -> None:
    result = certificates([0.0, 0.1, 2 / 255])
    some = result[index]
    assert some.lines() == [result.lines()[i] for i in rows]
    assert (len(some), some.header.n) == (len(rows), len(rows))
    assert some.rounding == (weakest(some.roundings) if rows else result.rounding)


@pytest.mark.parametrize("index", ["0", True, 1.0, None, [True], torch.tensor(1.5), [0.5], torch.ones(2, 2).long()])
def test_what_is_no_index(index: Any) -> None:
    with pytest.raises(InvalidInputError, match="certificates are chosen by"):
        certificates([0.0, 0.1, 2 / 255])[index]
