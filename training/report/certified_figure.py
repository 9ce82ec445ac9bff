"""The figure of certified accuracy against eps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import parse_eps
from training.report.figure_style import Point, Theme, counted, heading, mix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_certified(figure: Figure, axes: Axes, points: Sequence[Point], style: Theme, mark: str | None) -> None:
    """One curve a model: the share of test images certified at each eps."""
    dataset, eps_max = points[0].dataset, points[0].eps_max
    subtitle = f"{dataset_info(dataset).display_name}, {counted(points)}"
    heading(figure, "Certified accuracy against eps", subtitle, style)
    scale, unit = (255, "/255") if eps_max.endswith("/255") else (1, "")
    reported = dataset_info(dataset).reported_eps
    first = float(parse_eps(reported[0]))
    shown = sorted((p for p in points if p.curve_eps), key=lambda p: -_at(p, first))
    cascades = [p.name for p in shown if p.method == "cascade"]
    for p in shown:
        marked = p.name == mark
        share = (
            p.kappa if p.kappa is not None else cascades.index(p.name) / max(len(cascades) - 1, 1) if cascades else 0
        )
        first_colour, last_colour = style.ramps.get(p.method, (style.text, style.muted))
        style_of_line: Any = (0, (4, 2)) if p.method == "ibp" else "-"
        axes.plot(
            [e * scale for e in p.curve_eps],
            p.curve_certified,
            color=mix(first_colour, last_colour, share),
            ls=style_of_line,
            lw=3.2 if marked else 1.9,
            alpha=1.0 if marked or not mark else 0.45,
            zorder=5 if marked else 4,
            label=p.name,
        )
    high = any(_at(p, 0.9 * float(parse_eps(eps_max))) > 45 for p in shown)
    axes.set_ylim(0, 100 if high else min(100, 10 * (max(p.curve_certified[0] for p in shown) // 10 + 1)))
    axes.set_xlim(0, float(parse_eps(eps_max)) * 1.5 * scale)
    for eps in reported:
        at = float(parse_eps(eps)) * scale
        axes.axvline(at, color=style.muted, lw=1, ls=(0, (1, 2)), zorder=3)
        axes.annotate(
            eps, (at, 0.0 if high else 1.0), xycoords=("data", "axes fraction"), xytext=(4, 5 if high else -4),
            textcoords="offset points", va="bottom" if high else "top", fontsize=9, color=style.muted,
        )  # fmt: skip
    axes.set_xlabel(f"eps, l-inf radius in pixel units{f' (k{unit})' if unit else ''}", labelpad=8)
    axes.set_ylabel("certified accuracy, %", labelpad=8)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 0.06)} if high else {"loc": "upper right"}
    axes.legend(**place, frameon=False, fontsize=9, labelcolor=style.text, handlelength=2.4)


def _at(point: Point, eps: float) -> float:
    """The curve's value at the grid point nearest to eps."""
    nearest = min(range(len(point.curve_eps)), key=lambda i: abs(point.curve_eps[i] - eps))
    return point.curve_certified[nearest]
