"""Properties for other verifiers: decimals rounded outward, files parsed back, the layout of the competitions."""

from __future__ import annotations

import csv
import re
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from acert_zoo.network.onnx.files import export_onnx
from acert_zoo.network.vnnlib.writer import RobustnessProperty, export_vnnlib, outward
from tests.support.models import small_model

pytest.importorskip("onnx")


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(4))


def test_a_property_by_hand():
    prop = RobustnessProperty(torch.tensor([0.5, 0.0]).view(1, 1, 2), 1, Fraction(2, 255), 3)
    assert prop.vnnlib1().splitlines()[1:] == [
        "(declare-const X_0 Real)",
        "(declare-const X_1 Real)",
        "(declare-const Y_0 Real)",
        "(declare-const Y_1 Real)",
        "(declare-const Y_2 Real)",
        "(assert (>= X_0 0.49215686274509803))",
        "(assert (<= X_0 0.50784313725490197))",  # 0.507843137254901960784...
        "(assert (>= X_1 0.0))",
        "(assert (<= X_1 0.0078431372549019608))",
        "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_2 Y_1))))",
    ]


@given(st.fractions(0, 1), st.booleans())
def test_decimals_are_rounded_outward_at_17_digits(value, upward):
    text = outward(value, upward=upward)
    decimal = Fraction(text)
    assert decimal >= value if upward else decimal <= value
    assert "e" not in text.lower()
    assert len(text.replace(".", "").lstrip("0")) <= 18  # 17 digits, or those of ".0"
    assert abs(decimal - value) <= value * Fraction(1, 10**16)


def read_vnnlib1(text: str) -> tuple[dict[int, list[Fraction]], set[tuple[int, int]]]:
    """(lower and upper bound of every X, pairs (t, y) of Y_t >= Y_y), read by pattern."""
    bounds: dict[int, list[Fraction]] = {}
    for sign, index, number in re.findall(r"\(assert \((>=|<=) X_(\d+) ([\d.]+)\)\)", text):
        bounds.setdefault(int(index), [Fraction(0), Fraction(0)])[sign == "<="] = Fraction(number)
    return bounds, {(int(t), int(y)) for t, y in re.findall(r"\(>= Y_(\d+) Y_(\d+)\)", text)}


def test_files_hold_the_box_and_every_other_class(tmp_path):
    model = small_model()
    labels = model(images()).argmax(1)
    files = export_vnnlib(model, images(), labels, "2/255", tmp_path / "out")
    assert [f.name for f in files] == [f"property_{i}.vnnlib" for i in range(3)]
    for file, image, label in zip(files, images(), labels.tolist(), strict=True):
        bounds, pairs = read_vnnlib1(file.read_text())
        assert pairs == {(t, label) for t in range(4) if t != label}
        for i, pixel in enumerate(image.flatten().tolist()):
            low = max(Fraction(pixel) - Fraction(2, 255), Fraction(0))
            high = min(Fraction(pixel) + Fraction(2, 255), Fraction(1))
            assert low - Fraction(1, 10**16) <= bounds[i][0] <= low
            assert high <= bounds[i][1] <= min(high + Fraction(1, 10**16), Fraction(1))


def test_the_vnnlib_package_reads_the_files_back(tmp_path):
    vnnlib = pytest.importorskip("vnnlib")
    compat = pytest.importorskip("vnnlib.compat")
    label = int(small_model()(images(1)).argmax())
    export_vnnlib(small_model(), images(1), torch.tensor([label]), "8/255", tmp_path / "out")
    query = vnnlib.parse_query_file(str(tmp_path / "out" / "vnnlib2" / "property_0.vnnlib"))
    (case,) = compat.transform(query)
    for (low, high), pixel in zip(case.input_box, images(1).flatten().tolist(), strict=True):
        assert low == pytest.approx(max(pixel - 8 / 255, 0), abs=1e-15)
        assert high == pytest.approx(min(pixel + 8 / 255, 1), abs=1e-15)
    rows = sorted(tuple(row) for polytope in case.output_constraints for row in polytope.coeff_matrix)
    assert rows == sorted(tuple(float(k == label) - float(k == t) for k in range(4)) for t in range(4) if t != label)
    assert all(p.rhs == [0.0] for p in case.output_constraints)


def test_instances_name_files_that_exist(tmp_path):
    export_vnnlib(small_model(), images(), None, 0.01, tmp_path / "out", timeout=60)
    for name in ("instances.csv", "instances_v2.csv"):
        with open(tmp_path / "out" / name, newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) == 3
        for network, prop, timeout in rows:
            assert (tmp_path / "out" / network).is_file()
            assert (tmp_path / "out" / prop).is_file()
            assert timeout == "60"


def test_without_labels_the_models_answers_are_the_labels(tmp_path):
    model = small_model()
    files = export_vnnlib(model, images(), None, 0.01, tmp_path / "out")
    for file, label in zip(files, model(images()).argmax(1).tolist(), strict=True):
        assert {y for _, y in read_vnnlib1(file.read_text())[1]} == {label}


@pytest.mark.parametrize(
    ("eps", "labels", "message"),
    [
        ("abc", None, "abc"),
        (-1.0, None, "negative"),
        (None, None, "give eps"),
        ("1/255", torch.tensor([0, 1]), "labels"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, eps, labels, message):
    with pytest.raises(InvalidInputError, match=message):
        export_vnnlib(small_model(), images(), labels, eps, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_parent_folder_must_exist(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        export_vnnlib(small_model(), images(), None, "1/255", tmp_path / "absent" / "out")


def test_images_that_the_model_misclassifies_have_no_property(tmp_path):
    model = small_model()
    labels = model(images()).argmax(1)
    labels[1] = (labels[1] + 1) % 4
    files = export_vnnlib(model, images(), labels, "1/255", tmp_path / "out")
    assert [f.name for f in files] == ["property_0.vnnlib", "property_2.vnnlib"]
    rows = (tmp_path / "out" / "instances.csv").read_text().splitlines()
    assert len(rows) == 2
    with pytest.raises(InvalidInputError, match="none of the images is classified"):
        export_vnnlib(model, images(), (model(images()).argmax(1) + 1) % 4, "1/255", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_earlier_export_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    model = small_model()
    export_vnnlib(model, images(3), None, "1/255", tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"exists.*--force"):
        export_vnnlib(model, images(1), None, "2/255", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("vnnlib*/*"))) == 6
    (tmp_path / "out" / "vnnlib" / "mine.vnnlib").write_text("kept")
    export_vnnlib(model, images(1), None, "2/255", tmp_path / "out", overwrite=True)
    left = sorted(f.name for f in (tmp_path / "out").glob("vnnlib*/*"))
    assert left == ["mine.vnnlib", "property_0.vnnlib", "property_0.vnnlib"]


def test_float64_networks_are_declared_so(tmp_path):
    export_vnnlib(small_model().double(), images(1), None, "1/255", tmp_path / "out")
    text = (tmp_path / "out" / "vnnlib2" / "property_0.vnnlib").read_text()
    assert "(declare-input X float64 [1, 3, 8, 8])" in text
    assert "(declare-output Y float64 [1, 4])" in text


def test_a_cascade_is_refused_by_name(tmp_path):
    class Cascade(torch.nn.Module):  # acert_zoo.Cascade, as exports see it
        gates, members = (0.1,), ()

    with pytest.raises(UnsupportedLayerError, match="a cascade is not one network"):
        export_vnnlib(Cascade().eval(), images(1), None, "1/255", tmp_path / "out")
    with pytest.raises(UnsupportedLayerError, match="export its members"):
        export_onnx(Cascade().eval(), tmp_path / "n.onnx", (3, 8, 8))
