"""The figure of docs/training.md shows what it says."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from acert_zoo.bounds.ibp import robust_margin
from training.method_figure import curves, draw, measured
from training.report.figure_style import THEMES


def test_the_four_images() -> None:
    network, images, labels, eps_max = measured()
    eps, values, roots = curves(network, images, labels, eps_max)
    assert eps_max == pytest.approx(8.8 / 255)
    assert values[0].max() < 0  # misclassified
    assert roots[0] == 0
    assert bool((values[1:, 0] > 0).all())
    assert 0 < roots[1] < roots[2] < eps_max < roots[3]
    assert bool((values.diff(dim=1) <= 1e-5).all())  # bounds only fall as boxes grow
    for row, root in zip(values[1:], roots[1:].tolist(), strict=True):
        assert abs(np.interp(root, eps, row)) < 0.02
    assert robust_margin(network, images, labels, 0.0).shape == (len(images),)


def test_the_drawing_is_an_svg() -> None:
    pytest.importorskip("matplotlib")
    drawn = draw(THEMES["dark"], "svg")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn == draw(THEMES["dark"], "svg")  # the same bytes each time
