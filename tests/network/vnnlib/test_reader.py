"""VNN-LIB properties read back: by hand, in the forms of the public benchmarks, and what is refused."""

from __future__ import annotations

import gzip
import sys
from fractions import Fraction

import pytest
import torch

from acert_zoo.errors import InvalidInputError, MissingDependencyError
from acert_zoo.network.properties import Inequality
from acert_zoo.network.vnnlib import reader as vnnlib_reader
from acert_zoo.network.vnnlib.reader import parse_property, read_property
from acert_zoo.network.vnnlib.writer import RobustnessProperty

DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
UNIT = "(assert (>= X_0 0))(assert (<= X_0 1.0))(assert (>= X_1 -1e-3))(assert (<= X_1 .5))"


def test_a_property_by_hand():
    text = f"; a comment (with brackets\n{DECLARED}{UNIT}(assert (<= (+ (* 2.0 Y_0) (- Y_1) 1) 0.1))"
    prop = parse_property(text)
    assert (prop.num_inputs, prop.num_outputs, prop.input_shape) == (2, 2, None)
    (case,) = prop.cases
    assert case.lower == (0, Fraction(-1, 1000))
    assert case.upper == (1, Fraction(1, 2))
    assert case.conjunctions == ((Inequality(((0, 2), (1, -1)), Fraction(-9, 10)),),)


def test_the_forms_of_public_benchmarks():
    others = "(assert (or\n\t(and (>= Y_0 Y_1))\n\t(and (<= Y_0 -3.5) (>= Y_1 0))\n))"
    (case,) = parse_property(DECLARED + UNIT + others).cases
    assert case.conjunctions == (
        (Inequality(((0, -1), (1, 1)), Fraction(0)),),
        (Inequality(((0, 1),), Fraction(-7, 2)), Inequality(((1, -1),), Fraction(0))),
    )
    boxes = (
        "(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= Y_0 5))"
        "(and (<= 2 X_0) (<= X_0 3) (= X_1 7) (<= Y_0 (/ 1 3)))))"
    )
    first, second = parse_property(DECLARED + boxes).cases
    assert (first.lower, first.upper) == ((0, 0), (1, 1))
    assert (second.lower, second.upper) == ((2, 7), (3, 7))
    assert second.conjunctions == ((Inequality(((0, 1),), Fraction(1, 3)),),)


@pytest.mark.parametrize("version", [1, 2])
def test_written_properties_come_back(version):
    if version == 2:
        pytest.importorskip("vnnlib")
    image = torch.tensor([0.5, 0.0, 1.0, 0.25]).view(1, 2, 2)
    written = RobustnessProperty(image, 1, Fraction(2, 255), 3)
    prop = parse_property(written.vnnlib1() if version == 1 else written.vnnlib2())
    assert prop.input_shape == (None if version == 1 else (1, 1, 2, 2))
    (case,) = prop.cases
    for low, high, pixel in zip(case.lower, case.upper, image.flatten().tolist(), strict=True):
        want = max(Fraction(pixel) - Fraction(2, 255), 0), min(Fraction(pixel) + Fraction(2, 255), 1)
        assert low <= want[0] <= low + Fraction(1, 10**16)
        assert high - Fraction(1, 10**16) <= want[1] <= high
    assert set(case.conjunctions) == {
        (Inequality(((0, -1), (1, 1)), Fraction(0)),),
        (Inequality(((1, 1), (2, -1)), Fraction(0)),),
    }


def test_version_2_keeps_decimals_exact_and_understands_its_operators():
    pytest.importorskip("vnnlib")
    text = """(vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1, 2]) (declare-output Y float32 [1, 2]))
    (assert (and (>= X[0,0] 0.1) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 3.0)))
    (assert (or (> (- Y[0,1] (* 2.0 Y[0,0]) 0.5) 0.0) (== Y[0,0] 0.25)))"""
    prop = parse_property(text)
    (case,) = prop.cases
    assert case.lower == (Fraction(1, 10), -1)
    assert case.conjunctions[0] == (Inequality(((0, 2), (1, -1)), Fraction(-1, 2), strict=True),)
    assert case.conjunctions[1] == (
        Inequality(((0, 1),), Fraction(1, 4)),
        Inequality(((0, -1),), Fraction(-1, 4)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no brackets", "outside of brackets"),
        (DECLARED + "(assert (<= X_0 1)", "not closed"),
        (DECLARED + "(assert (<= X_0 nan))", "'nan' is neither"),
        (DECLARED + "(assert (<= X_0 1e99999))", "neither a number"),
        (DECLARED + "(assert (<= X_7 1))", "X_7 is not declared"),
        (DECLARED + "(assert (<= (* X_0 Y_0) 1))", "product of two variables"),
        (DECLARED + "(assert (not (<= X_0 1)))", "not a formula"),
        (DECLARED + "(assert (<= (sin X_0) 1))", "not a linear expression"),
        (DECLARED + "(assert (<= (/ 1 0) X_0))", "not a linear expression"),
        (DECLARED + "(assert X_0)", "not a formula"),
        (DECLARED + "(minimize Y_0)", "not a VNN-LIB 1.0 command"),
        ("(declare-const X_1 Real)(declare-const Y_0 Real)", "without gaps"),
        ("(declare-const X_0 Real)", "without gaps"),
        (DECLARED + "(assert " + "(and " * 60, "nested more than"),
        ("(vnnlib-version <2.0>) (declare", "not VNN-LIB 2.0"),
    ],
)
def test_what_is_not_understood_is_refused(text, message):
    if "version" in text:
        pytest.importorskip("vnnlib")
    with pytest.raises(InvalidInputError, match=message):
        parse_property(text)


def test_files_packed_or_not_and_limits(tmp_path, monkeypatch):
    text = DECLARED + UNIT + "(assert (>= Y_0 Y_1))"
    (tmp_path / "a.vnnlib").write_bytes(
        b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    )  # as editors of Windows do
    with gzip.open(tmp_path / "b.vnnlib.gz", "wt") as file:
        file.write(text)
    assert read_property(tmp_path / "a.vnnlib") == read_property(tmp_path / "b.vnnlib.gz") == parse_property(text)
    with pytest.raises(InvalidInputError, match="is not a file"):
        read_property(tmp_path)
    (tmp_path / "c.vnnlib.gz").write_bytes(b"not packed")
    with pytest.raises(InvalidInputError, match=r"c.vnnlib.gz' cannot be read"):
        read_property(tmp_path / "c.vnnlib.gz")
    monkeypatch.setattr(vnnlib_reader, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match="larger than"):
        read_property(tmp_path / "b.vnnlib.gz")


def test_version_2_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "vnnlib", None)
    with pytest.raises(MissingDependencyError, match="pip install vnnlib"):
        parse_property("(vnnlib-version <2.0>)")
