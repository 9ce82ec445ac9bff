"""A line and a header: what each refuses, contradicts, and must share with another run's."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.certificates.file import format_file, parse
from acert_zoo.certificates.lines import radius_text
from acert_zoo.errors import CertificateFileError
from tests.support.certificates import header, line


@given(st.floats(0, 1))
def test_radius_text_claims_no_more(radius: float) -> None:
    text = radius_text(radius)
    assert Fraction(text) <= Fraction(radius)
    assert float(text) == radius


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


@pytest.mark.parametrize("key", ["n", "created", "package_version"])
def test_runs_may_differ_in(key: str) -> None:
    assert header(**{key: 7 if key == "n" else "x"}).differences(header()) == []


@pytest.mark.parametrize(
    ("key", "value"), [("weights_sha256", None), ("rounding", "float32"), ("method", "crown"), ("model_version", 2)]
)
def test_runs_must_agree_in(key: str, value: object) -> None:
    assert header(**{key: value}).differences(header()) == [key]
