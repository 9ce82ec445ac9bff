"""Draws the zoo's two figures with matplotlib: accuracy against ACR, and certified accuracy against eps.

The same points give the same SVG bytes (no date, fixed id salt). Each file carries a digest of what it shows, so that
a stale figure is found without drawing it again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo.data import datasets
from acert_zoo.exact_numbers import parse_eps
from training.paper_reference import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

DRAWING_VERSION = 2  # raise it when the look changes, so that every figure counts as stale
METHODS = {"acert": "ACERT", "ibp": "IBP", "cascade": "Cascade", "crown-ibp": "CROWN-IBP", "sabr": "SABR"}
_MARKERS = {"acert": "o", "ibp": "s", "cascade": "D", "crown-ibp": "^", "sabr": "v"}


@dataclass(frozen=True)
class Theme:
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
        {"acert": "#0b62d6", "ibp": "#d4641a", "cascade": "#0f8a5f", "crown-ibp": "#8250df", "sabr": "#bf3989"},
        {"acert": ("#0b62d6", "#d63aa4"), "ibp": ("#b8481c", "#e0a526"), "cascade": ("#0f8a5f", "#6cbf3f")},
    ),
    "dark": Theme(
        "#0d1117",
        "#f0f6fc",
        "#9198a1",
        "#232a33",
        "#6b7480",
        {"acert": "#58a6ff", "ibp": "#f0883e", "cascade": "#3fb98a", "crown-ibp": "#bc8cff", "sabr": "#f778ba"},
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
    counted_on: str = "test images, rounding-sound IBP"


def _along_the_curve(point: Point) -> tuple[float, float]:
    """Neighbours in kappa are joined: at the robust end of a curve neither accuracy nor ACR alone need be monotone."""
    return (-1.0 if point.kappa is None else point.kappa, point.accuracy)


def digest(kind: str, points: Sequence[Point], theme: str, mark: str | None) -> str:
    """Names what a figure shows; it is written into the file."""
    paper = {name: asdict(curves) for name, curves in PAPER.items()}
    shown = [DRAWING_VERSION, kind, [asdict(p) for p in points], theme, mark, paper]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def draw(kind: str, points: Sequence[Point], theme: str, mark: str | None = None, form: str = "svg") -> bytes:
    """The figure `kind` ("tradeoff" or "certified") of one data set's models, as SVG or PNG bytes.

    Args:
        theme: "light" or "dark".
        mark: name of the model to stand out.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = THEMES[theme]
    settings: dict[str, Any] = {
        "svg.hashsalt": "acert-zoo",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 10.5,
        "text.color": style.text,
        "axes.edgecolor": style.grid,
        "axes.labelcolor": style.muted,
        "xtick.color": style.muted,
        "ytick.color": style.muted,
        "path.simplify": False,
    }
    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)  # not the user's own
    with matplotlib.rc_context(defaults | settings):
        figure = Figure(figsize=(8.0, 5.2), facecolor=style.background)
        FigureCanvasAgg(figure)
        bottom = 0.235 if kind == "tradeoff" else 0.12
        axes = figure.add_axes((0.095, bottom, 0.875, 0.855 - bottom))
        axes.set_facecolor(style.background)
        axes.grid(color=style.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(side == "bottom")
        (_tradeoff if kind == "tradeoff" else _certified)(figure, axes, points, style, mark)
        buffer = io.BytesIO()
        note = digest(kind, points, theme, mark)
        if form == "svg":
            metadata: dict[str, Any] = {"Date": None, "Creator": None, "Description": note}
        else:
            metadata = {"Software": None, "Description": note}
        figure.savefig(buffer, format=form, dpi=180, facecolor=style.background, metadata=metadata)
    return buffer.getvalue()


def _heading(figure: Figure, title: str, subtitle: str, style: Theme) -> None:
    figure.text(0.03, 0.945, title, fontsize=14, fontweight="bold", color=style.text, ha="left", va="center")
    figure.text(0.03, 0.895, subtitle, fontsize=9, color=style.muted, ha="left", va="center")


def _counted(points: Sequence[Point]) -> str:
    counts = sorted({p.n for p in points})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{images} {points[0].counted_on}"


def _kappa(value: float | None) -> str:
    return "" if value is None else f"κ {value:g}"


def _tradeoff(figure: Figure, axes: Axes, points: Sequence[Point], style: Theme, mark: str | None) -> None:
    dataset, eps_max = points[0].dataset, points[0].eps_max
    paper = PAPER.get(dataset)
    grey = f". Grey: the paper, {paper.network}" if paper else ""
    subtitle = f"{datasets.dataset_info(dataset).display_name}, {_counted(points)}{grey}"
    _heading(figure, "Accuracy against certified robustness", subtitle, style)
    if paper:
        for label, curve, line in (("ACERT", paper.acert, "-"), ("IBP", paper.ibp, (0, (4, 2)))):
            marker = "o" if label == "ACERT" else "s"
            axes.plot(
                *zip(*curve, strict=True),
                color=style.paper,
                ls=line,
                lw=1.4,
                marker=marker,
                ms=3.6,
                zorder=2,
                label=f"{label}, paper",
            )
        axes.plot(*paper.sabr, color=style.paper, ls="", marker="v", ms=6.5, zorder=2, label="SABR, paper")
        if paper.standard:
            axes.plot(
                *paper.standard, color=style.paper, ls="", marker="X", ms=7, zorder=2, clip_on=False,
                label="standard training, paper",
            )  # fmt: skip
    for method in METHODS:
        curve_points = sorted((p for p in points if p.method == method), key=_along_the_curve)
        if not curve_points:
            continue
        strong = style.colours[method]
        colour = _mix(strong, style.background, 0.5 if mark else 0.0)
        x, y = [p.acr_percent for p in curve_points], [p.accuracy for p in curve_points]
        label = f"{METHODS[method]}, this zoo"
        axes.plot(x, y, color=colour, lw=2.2, zorder=4, ls="--" if method == "ibp" else "-")
        axes.plot(
            x, y, color=colour, ls="", marker=_MARKERS[method], ms=7.5, mec=style.background, mew=1.2, zorder=5,
        )  # fmt: skip
        axes.plot([], [], color=strong, lw=2.2, marker=_MARKERS[method], ms=7, label=label,
                  ls="--" if method == "ibp" else "-")  # fmt: skip
        for p in curve_points:
            marked = p.name == mark
            if marked:
                axes.plot(p.acr_percent, p.accuracy, color=strong, ls="", marker=_MARKERS[method], ms=8.5, zorder=7)
                axes.plot(p.acr_percent, p.accuracy, ls="", marker="o", ms=17, mfc="none", mec=strong, mew=2, zorder=7)
            text = p.name if marked else _kappa(p.kappa)
            below = method == "ibp"
            axes.annotate(
                text,
                (p.acr_percent, p.accuracy),
                xytext=(-13 if below and marked else (-7 if below else (13 if marked else 7)), -12 if below else 7),
                textcoords="offset points",
                ha="right" if below else "left",
                fontsize=10.5 if marked else 9,
                fontweight="bold" if marked else "normal",
                color=strong if marked else _mix(strong, style.background, 0.25 if mark else 0.0),
                zorder=8,
                annotation_clip=False,
            )
    _set_limits(axes, axes.lines)
    axes.set_xlabel(f"average certified radius (ACR), % of {eps_max}", labelpad=8)
    axes.set_ylabel("natural accuracy, %", labelpad=8)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].endswith("paper"))  # this zoo first
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="lower left",
        bbox_to_anchor=(0.02, 0.005),
        ncols=4,
        frameon=False,
        fontsize=9,
        labelcolor=style.text,
        handlelength=2.4,
        columnspacing=1.8,
    )


def _set_limits(axes: Axes, lines: Iterable[Line2D]) -> None:
    """Room around the points, for their labels too, and never beyond what percentages can be."""
    x = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in lines])
    y = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines])
    wide, high = max(float(np.ptp(x)), 10.0), max(float(np.ptp(y)), 4.0)
    axes.set_xlim(max(x.min() - 0.07 * wide, -2.5), x.max() + 0.1 * wide)
    axes.set_ylim(max(y.min() - 0.12 * high, 0.0), min(y.max() + 0.12 * high, 100.4))


def _mix(colour: str, other: str, share: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    a, b = to_rgb(colour), to_rgb(other)
    return tuple((1 - share) * x + share * y for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _certified(figure: Figure, axes: Axes, points: Sequence[Point], style: Theme, mark: str | None) -> None:
    dataset, eps_max = points[0].dataset, points[0].eps_max
    subtitle = f"{datasets.dataset_info(dataset).display_name}, {_counted(points)}"
    _heading(figure, "Certified accuracy against eps", subtitle, style)
    scale, unit = (255, "/255") if eps_max.endswith("/255") else (1, "")
    reported = datasets.dataset_info(dataset).reported_eps
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
            color=_mix(first_colour, last_colour, share),
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
