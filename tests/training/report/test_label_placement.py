"""Labels in figures: none over another, over a marker or a line, or outside."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.report.label_placement import Labels, extent


@pytest.fixture
def axes() -> Axes:
    figure = Figure(figsize=(4, 3), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    return axes


def test_a_lone_label_stands_above_right_or_below_left(axes: Axes) -> None:
    x, y = axes.transData.transform((5, 5))
    above, below = Labels(axes).add("a", (5, 5)), Labels(axes).add("b", (5, 5), below=True)
    assert above is not None
    assert below is not None
    assert extent(above).x0 > x
    assert extent(above).y0 > y
    assert extent(below).x1 < x
    assert extent(below).y1 < y


def test_near_points_have_labels_side_by_side(axes: Axes) -> None:
    points = [(5, 5), (5.2, 5.1), (5.1, 5.4), (4.9, 4.8)]
    labels = Labels(axes, points, [(points[0], (9, 9))])
    for i, point in enumerate(points):
        assert labels.add(f"label {i}", point) is not None
    for one, other in combinations(labels.placed, 2):
        assert not extent(one).overlaps(extent(other))
    for label in labels.placed:
        box = extent(label)
        for point in points:
            assert not box.contains(*axes.transData.transform(point))
        for k in range(101):
            along = axes.transData.transform((5 + 4 * k / 100, 5 + 4 * k / 100))
            assert not box.contains(*along)


def test_a_label_without_room_is_left_out_and_none_leaves_the_axes(axes: Axes) -> None:
    labels = Labels(axes)
    corner = labels.add("in the corner", (10, 10))
    assert corner is not None
    assert extent(corner).x1 <= axes.get_window_extent().x1
    assert labels.add("x" * 80, (5, 5)) is None
    assert labels.add("", (5, 5)) is None
    assert len(axes.texts) == 1
