"""Results as a figure, as a DataFrame, and in notebooks.

Also tested here: zoo/html_table.py.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import acert_zoo
from acert_zoo.certificates.results import Certificates


@pytest.fixture(scope="module")
def result() -> Certificates:
    images, labels = acert_zoo.sample_data("mnist", 6)
    return acert_zoo.certify(acert_zoo.load_model("mnist_kappa000"), images, labels)


def test_a_frame_has_one_row_an_image(result: Certificates) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame["radius"]) == result.radius.tolist()
    assert frame["correct"].mean() == result.accuracy
    assert set(frame.columns) >= {"id", "label", "prediction", "method", "rounding"}
    assert "route" not in frame


def test_the_curve_is_the_certified_accuracy(result: Certificates) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    radius = torch.tensor([0.0, 0.1, 0.2, 0.2, 0.3, 0.0], dtype=torch.float64)
    it = dataclasses.replace(result, radius=radius)
    ax = it.plot(eps_max="0.4", color="red")
    (line,) = ax.get_lines()
    x, y = line.get_xdata(), line.get_ydata()
    assert line.get_drawstyle() == "steps-post"
    for eps in (0.05, 0.15, 0.25, 0.35):
        drawn = y[np.searchsorted(x, eps, side="right") - 1]
        assert drawn == pytest.approx(100 * it.certified_accuracy(eps))
    assert ax.get_xlim() == (0, 0.4)
    assert it.plot(ax=ax) is ax
    assert len(ax.get_lines()) == 2
    assert ax.get_xlim() == (0, 0.4)  # a second curve does not cut the first one
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mnist_kappa000"] * 2
    pyplot.close("all")


def test_notebooks_get_a_small_table_with_everything_escaped(result: Certificates) -> None:
    html = result._repr_html_()
    assert "mnist_kappa000" in html
    assert "real-sound" in html
    hostile = dataclasses.replace(result, header=dataclasses.replace(result.header, model="<script>"))
    assert "<script>" not in hostile._repr_html_()
    assert (
        "<table>" in acert_zoo.certify(acert_zoo.load_model("mnist_kappa000"), torch.zeros(0, 1, 28, 28))._repr_html_()
    )
