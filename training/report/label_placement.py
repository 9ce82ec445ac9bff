"""Labels beside points of a figure, none over another: each takes the first free place around its point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# (horizontal alignment, vertical alignment, x, y in points at distance 1), in order of preference
_PLACES = (
    ("left", "bottom", 0.7, 0.7),
    ("right", "top", -0.7, -0.7),
    ("left", "top", 0.7, -0.7),
    ("right", "bottom", -0.7, 0.7),
    ("center", "bottom", 0.0, 1.0),
    ("center", "top", 0.0, -1.0),
    ("left", "center", 1.0, 0.0),
    ("right", "center", -1.0, 0.0),
)
_DISTANCES = (8.0, 13.0, 19.0, 26.0, 34.0)  # points


Place = tuple[float, float]
Segment = tuple[Place, Place]


@dataclass
class Labels:
    """Places labels in `axes`, whose limits must be set; markers and lines, in data coordinates, are kept clear."""

    axes: Axes
    markers: Sequence[Place] = ()
    lines: Sequence[Segment] = ()
    placed: list[Annotation] = field(default_factory=list)

    def add(self, text: str, point: tuple[float, float], *, below: bool = False, **style: Any) -> Annotation | None:
        """Writes `text` beside `point`; above and right of it first, or with `below`, under it and left.

        A label for which there is no free place is left out: None.
        """
        if not text:
            return None
        places = [*_PLACES[1::2], *_PLACES[::2]] if below else _PLACES
        for distance in _DISTANCES:
            for horizontal, vertical, x, y in places:
                label = self.axes.annotate(
                    text,
                    point,
                    xytext=(x * distance, y * distance),
                    textcoords="offset points",
                    ha=horizontal,
                    va=vertical,
                    annotation_clip=False,
                    **style,
                )
                if self._is_free(label):
                    self.placed.append(label)
                    return label
                label.remove()
        return None

    def _is_free(self, label: Annotation) -> bool:
        box = extent(label)
        frame = self.axes.get_window_extent()
        if box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1:
            return False
        if any(box.overlaps(extent(other)) for other in self.placed):
            return False
        pixels = self.axes.figure.dpi / 72
        if any(_within(box, tuple(self.axes.transData.transform(marker)), 4.5 * pixels) for marker in self.markers):
            return False
        return not any(self._crosses(box, line, 1.5 * pixels) for line in self.lines)

    def _crosses(self, box: Bbox, line: Segment, distance: float) -> bool:
        (ax, ay), (bx, by) = self.axes.transData.transform(line)
        steps = 2 + int(max(abs(ax - bx), abs(ay - by)) / 2)
        return any(
            _within(box, (ax + (bx - ax) * i / steps, ay + (by - ay) * i / steps), distance) for i in range(steps + 1)
        )


def _within(box: Bbox, place: Sequence[float], distance: float) -> bool:
    x, y = place[0], place[1]
    return box.x0 - distance < x < box.x1 + distance and box.y0 - distance < y < box.y1 + distance


def extent(label: Annotation) -> Bbox:
    """The box of a label, in pixels."""
    canvas: Any = label.figure.canvas  # type: ignore[union-attr]
    return label.get_window_extent(canvas.get_renderer())
