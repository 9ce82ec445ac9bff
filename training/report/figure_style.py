"""What the figures share: colours and markers, what a point is, headings and limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

METHODS = {
    "acert": "ACERT",
    "ibp": "IBP",
    "cascade": "Cascade",
    "crown-ibp": "CROWN-IBP",
    "sabr": "SABR",
    "mtl-ibp": "MTL-IBP",
    "standard": "standard training",
}
MARKERS = {
    "acert": "o", "ibp": "s", "cascade": "D", "crown-ibp": "^", "sabr": "v", "mtl-ibp": "p", "standard": "X"
}  # fmt: skip


def in_order(points: Sequence[Point]) -> list[str]:
    """The methods that have points: the known ones in their order, then any others."""
    there = {p.method for p in points}
    return [m for m in METHODS if m in there] + sorted(there - METHODS.keys())


@dataclass(frozen=True)
class Theme:
    """Colours of a light or a dark figure; `paper` is the grey of what others published."""

    background: str
    text: str
    muted: str
    grid: str
    paper: str
    colours: dict[str, str]
    ramps: dict[str, tuple[str, str]]  # kappa 0 to 1 (cascades: in order), where many curves stand in one figure


THEMES = {
    "light": Theme(
        "#ffffff",
        "#1f2328",
        "#59636e",
        "#e6e9ed",
        "#a3abb5",
        {
            "acert": "#0b62d6",
            "ibp": "#d4641a",
            "cascade": "#0f8a5f",
            "crown-ibp": "#8250df",
            "sabr": "#bf3989",
            "standard": "#59636e",
        },
        {"acert": ("#0b62d6", "#d63aa4"), "ibp": ("#b8481c", "#e0a526"), "cascade": ("#0f8a5f", "#6cbf3f")},
    ),
    "dark": Theme(
        "#0d1117",
        "#f0f6fc",
        "#9198a1",
        "#232a33",
        "#6b7480",
        {
            "acert": "#58a6ff",
            "ibp": "#f0883e",
            "cascade": "#3fb98a",
            "crown-ibp": "#bc8cff",
            "sabr": "#f778ba",
            "standard": "#9198a1",
        },
        {"acert": ("#58a6ff", "#ff7ac6"), "ibp": ("#f0883e", "#f2cc60"), "cascade": ("#3fb98a", "#b4e066")},
    ),
}


@dataclass(frozen=True)
class Point:
    """One model in the figures. `acr_percent`, `accuracy` in percent; the curve's eps in pixel units."""

    name: str
    dataset: str
    method: str
    kappa: float | None
    eps_max: str
    n: int
    accuracy: float
    acr_percent: float
    curve_eps: tuple[float, ...] = ()
    curve_certified: tuple[float, ...] = ()
    certified: tuple[tuple[str, float], ...] = ()  # (eps, certified accuracy in percent)
    trained_eps: str | None = None  # where it was trained for another radius than `eps_max`
    counted_on: str = "test images, rounding-sound IBP"


def along_the_curve(point: Point) -> tuple[float, float]:
    """Neighbours in kappa are joined: at the robust end of a curve neither accuracy nor ACR alone need be monotone."""
    return (-1.0 if point.kappa is None else point.kappa, point.accuracy)


def label_text(point: Point) -> str:
    """What tells a point from others of its method: kappa, and the radius it was trained for where that is another."""
    if point.kappa is None or point.method == "standard":
        return ""
    return f"κ {point.kappa:g}" + (f", eps_max {point.trained_eps}" if point.trained_eps else "")


def heading(figure: Figure, title: str, subtitle: str, style: Theme) -> None:
    figure.text(0.03, 0.952, title, fontsize=14, fontweight="bold", color=style.text, ha="left", va="center")
    figure.text(0.03, 0.895, subtitle, fontsize=9, color=style.muted, ha="left", va="center")


def counted(points: Sequence[Point]) -> str:
    counts = sorted({p.n for p in points})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{images} {points[0].counted_on}"


def set_limits(axes: Axes, lines: Iterable[Line2D]) -> None:
    """Room around the points, for their labels too, and never beyond what percentages can be."""
    x = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in lines])
    y = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines])
    wide, high = max(float(np.ptp(x)), 10.0), max(float(np.ptp(y)), 4.0)
    axes.set_xlim(max(x.min() - 0.07 * wide, -2.5), x.max() + 0.1 * wide)
    axes.set_ylim(max(y.min() - 0.12 * high, 0.0), min(y.max() + 0.12 * high, 100.4))


def mix(colour: str, other: str, share: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    a, b = to_rgb(colour), to_rgb(other)
    return tuple((1 - share) * x + share * y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]
